"""Submissions over a bad line: connections are reset, frozen, delayed and truncated, and every pod runs exactly once.

At the provider, without Kubernetes: what the agent would do after an error (try again, later) is done here.
"""

import asyncio
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest

from sidecar.client import SidecarProvider
from sidecar.config import ClientSettings
from slurm_plugin.clients.command import Timeouts
from slurm_plugin.contract import PodContent, PodReport, Provider, Snapshot
from slurm_plugin.errors import SlurmUnavailableError, TransportError
from slurm_plugin.pod import Pod
from testbed.paths import Layout

from . import ways
from .proxy import Proxy
from .sidecars import Sidecar
from .test_command_client import on_the_login_node
from .testbed import Testbed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

SUBMISSIONS = int(os.environ.get("SLURMLET_FAULTY_SUBMISSIONS", "40"))
AT_ONCE = 4
RUNS = "/scratch/alice/faults"
NAME = f"faults-{uuid.uuid4().hex[:8]}"
UNANSWERED_SECONDS = 5.0
"""How long a request that gets no answer is waited for: less than sites need, for half-open connections are many here."""


Line = tuple[Proxy, Callable[[], Provider]]
"""A line that breaks, and how a provider is made that depends on it."""


@contextmanager
def ssh_line(testbed: Testbed, directory: Path) -> Iterator[Line]:
    """Everything goes through one SSH connection."""
    with ways.ssh_proxy(testbed).running() as proxy:
        host = ways.over_ssh(testbed, proxy, directory, connect_timeout=5, keepalive_seconds=2)
        yield proxy, lambda: ways.slurm_provider(host, None, f"/scratch/alice/.{NAME}")


@contextmanager
def rest_line(testbed: Testbed, directory: Path) -> Iterator[Line]:
    """Files are on a sound host; what is said to Slurm goes through slurmrestd."""
    with ways.rest_proxy(testbed).running() as proxy:
        host = on_the_login_node(testbed)
        yield (
            proxy,
            lambda: ways.slurm_provider(
                host, proxy, f"/scratch/alice/.{NAME}", timeouts=Timeouts(*[UNANSWERED_SECONDS] * 3)
            ),
        )


@contextmanager
def sidecar_line(testbed: Testbed, directory: Path) -> Iterator[Line]:
    """Everything goes through one sidecar."""
    server = Sidecar(testbed, "faults", slurm={"root": f"/scratch/alice/.{NAME}"}, pods=ways.PROCESSES)
    server.start()
    socket = directory / "s"
    settings = ClientSettings(url=f"unix:{socket}", token_file=str(server.tokens))
    try:
        with Proxy(str(server.socket), listen=str(socket)).running() as proxy:
            yield proxy, lambda: SidecarProvider(settings, submit_seconds=UNANSWERED_SECONDS)
    finally:
        server.kill()


@pytest.fixture(params=[ssh_line, rest_line, sidecar_line])
def line(request: pytest.FixtureRequest, testbed: Testbed, tmp_path: Path) -> Iterator[Line]:
    with request.param(testbed, tmp_path) as line:
        yield line


@pytest.fixture
def proxy(line: Line) -> Proxy:
    return line[0]


@pytest.fixture
async def provider(line: Line) -> AsyncIterator[Provider]:
    """The provider at the far end of that line; no containers, for what is counted is runs."""
    provider = line[1]()
    yield provider
    await provider.close()


@pytest.fixture
def runs() -> Path:
    """Where each pod that runs leaves a line; empty."""
    path = Layout.from_environment().site / "scratch" / "alice" / "faults"
    path.mkdir(exist_ok=True)
    for old in path.iterdir():
        old.unlink()
    alice = path.parent.stat()
    os.chown(path, alice.st_uid, alice.st_gid)
    return path


def counting_pod(number: int) -> Pod:
    """A pod that leaves a line for each time it runs."""
    uid = f"fault-{uuid.uuid4().hex[:8]}-{number}"
    command = ["sh", "-c", f"echo $SLURM_JOB_ID >> {RUNS}/{uid}"]
    return Pod.model_validate(
        {
            "metadata": {"name": f"fault-{number}", "namespace": "faults", "uid": uid},
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "main", "image": "none", "command": command}],
            },
        }
    )


async def submit(provider: Provider, pod: Pod, outcomes: Counter[str]) -> None:
    """Submit a pod as the agent does: again after an error that may pass."""
    while True:
        try:
            await provider.submit(pod, PodContent())
        except (TransportError, SlurmUnavailableError) as error:
            outcomes[type(error).__name__] += 1
            await asyncio.sleep(0.5)
        else:
            outcomes["submitted"] += 1
            return


async def break_things(proxy: Proxy, chance: random.Random, faults: Counter[str]) -> None:
    """Do something bad to the line now and then, for ever."""
    while True:
        await asyncio.sleep(chance.uniform(0.1, 1.0))
        fault = chance.choice(["reset", "freeze", "delay", "truncate", "swallow", "cut"])
        faults[fault] += 1
        match fault:
            case "reset":
                proxy.reset()
            case "freeze":
                proxy.freeze()
            case "delay":
                proxy.delay(chance.uniform(0.05, 0.5))
            case "truncate":
                proxy.truncate(chance.randrange(1, 5000))
            case "swallow":
                proxy.swallow(chance.randrange(0, 200))
            case "cut":
                proxy.cut()
                await asyncio.sleep(1)
                proxy.join()


async def until_all_are_over(provider: Provider, uids: set[str]) -> None:
    async with aclosing(provider.reports()) as stream:
        async for item in stream:
            reports = item.reports if isinstance(item, Snapshot) else (item,) if isinstance(item, PodReport) else ()
            uids -= {report.uid for report in reports if report.over}
            if not uids:
                return


async def test_every_pod_runs_exactly_once_over_a_line_that_breaks_all_the_time(
    provider: Provider, proxy: Proxy, runs: Path, testbed: Testbed
) -> None:
    outcomes: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    pods = [counting_pod(number) for number in range(SUBMISSIONS)]
    watching = asyncio.create_task(until_all_are_over(provider, {pod.metadata.uid for pod in pods}), name="watch")
    breaking = asyncio.create_task(break_things(proxy, random.Random(7), faults), name="break things")
    room, dawdling = asyncio.Semaphore(AT_ONCE), random.Random(11)
    begun = time.monotonic()

    async def one(pod: Pod) -> None:
        async with room:
            await asyncio.sleep(dawdling.uniform(0, 0.5))  # so that there is time for faults
            await submit(provider, pod, outcomes)

    await asyncio.gather(*(one(pod) for pod in pods))
    breaking.cancel()
    proxy.reset()  # of connections that were frozen last nobody would hear for long
    proxy.join()
    print(f"{dict(outcomes)}, {dict(faults)}, {time.monotonic() - begun:.0f} s")
    async with asyncio.timeout(600):
        await watching
    ran = {path.name: path.read_text().split() for path in await asyncio.to_thread(lambda: list(runs.iterdir()))}
    assert {uid: jobs for uid, jobs in ran.items() if len(jobs) != 1} == {}
    assert set(ran) == {pod.metadata.uid for pod in pods}
    left = testbed.run("squeue", "-h", "-t", "PD,R", "-o", "%j").stdout
    assert "faults/" not in left, "a twin was left in the queue"
    wrong = outcomes["TransportError"] + outcomes["SlurmUnavailableError"]
    assert wrong > 0, "nothing went wrong: the faults were too mild"
