"""A bad line between the agent and the API server: nothing is lost, and what happened meanwhile is known within 30 s."""

import random
import time
from collections.abc import Iterator

import pytest

from testbed.paths import Layout
from testbed.ports import ADDRESS, Port

from .agents import Agent, running
from .badlines import FAULTS, do
from .pods import Pods, make_pods
from .proxy import Proxy
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.last, pytest.mark.timeout(300)]

RECOVERY_SECONDS = 30
PATIENCE_SECONDS = 60
"""For what Slurm and a busy machine take beside that."""


@pytest.fixture(scope="module")
def line() -> Iterator[Proxy]:
    with Proxy(ADDRESS, Layout.from_environment().port(Port.API_SERVER)).running() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def pods(testbed: Testbed, line: Proxy) -> Iterator[Pods]:
    """Pods of an agent that knows the API server by that line; they are no containers, for these are tried elsewhere."""
    agent = Agent(testbed, "local", index=28, api_port=line.port, settings={"pods": {"runtime": {"kind": "process"}}})
    for ready in running(agent):
        yield from make_pods(testbed, ready)


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_happens_on_both_sides_is_known_to_the_other_soon_after(
    pods: Pods, line: Proxy, testbed: Testbed, fault: str
) -> None:
    end = Layout.from_environment().site / "scratch" / "alice" / f"end-{fault}"
    pods.run(f"{fault}-ends", "sh", "-c", f"while [ ! -e /scratch/alice/{end.name} ]; do sleep 0.2; done; exit 4")
    pods.run(f"{fault}-deleted", "sleep", "600")
    for name in (f"{fault}-ends", f"{fault}-deleted"):
        pods.wait_phase(name, "Running", seconds=PATIENCE_SECONDS)

    await do(fault, line, random.Random(5))
    pods.run(f"{fault}-made", "true")
    pods.kubectl("delete", "pod", f"{fault}-deleted", "--wait=false")
    end.touch()
    began = time.monotonic()
    wait_until("the new pod's job", lambda: pods.jobs(f"{fault}-made"), seconds=RECOVERY_SECONDS + PATIENCE_SECONDS)
    seen = time.monotonic() - began
    pods.wait_phase(f"{fault}-made", "Succeeded", seconds=PATIENCE_SECONDS)
    pods.wait_phase(f"{fault}-ends", "Failed", seconds=RECOVERY_SECONDS)
    pods.wait_gone(f"{fault}-deleted", seconds=RECOVERY_SECONDS)
    print(f"{fault}: the new pod was seen after {seen:.1f} s, all was told after {time.monotonic() - began:.1f} s")
    assert seen < RECOVERY_SECONDS + 5  # and the time that sbatch takes
    assert pods.terminated(f"{fault}-ends")["exitCode"] == 4
    assert len(pods.jobs(f"{fault}-ends")) == len(pods.jobs(f"{fault}-made")) == 1
    node = testbed.get("node", pods.agent.node)
    assert node is not None
    ready = next(c for c in node["status"]["conditions"] if c["type"] == "Ready")
    assert ready["status"] == "True", "the lease was lost"
    end.unlink()
