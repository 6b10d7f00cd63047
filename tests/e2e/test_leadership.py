"""Two agents for one node: one works, and when it dies the other takes over its pods."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.kubernetes.control_plane import ControlPlane
from testbed.paths import Layout

from .agents import Agent
from .pods import Pods, make_pods
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.last]

LEASE = {"namespace": "slurmlet", "name": "e2e-leader", "lease_seconds": 20}


@pytest.fixture
def agents(testbed: Testbed) -> Iterator[tuple[Agent, Agent]]:
    """One with a ServiceAccount, and one with the node's identity and a second credential for the Lease."""
    first = Agent(testbed, "ssh", index=30, settings={"ha": LEASE})
    account = first.directory / "account.kubeconfig"
    ControlPlane(Layout.from_environment()).write_agent_kubeconfig(account, uid=0, gid=0)
    ha: dict[str, Any] = {**LEASE, "kubeconfig": str(account)}
    second = Agent(testbed, "ssh", index=31, node=first.node, identity="node", settings={"ha": ha})
    yield first, second
    for agent in (first, second):
        agent.kill(signal.SIGKILL)
    testbed.kubectl("delete", "node", first.node, "--ignore-not-found")
    testbed.kubectl("delete", "lease", "e2e-leader", "--namespace=slurmlet", "--ignore-not-found")


def test_when_the_leader_dies_the_other_agent_takes_its_pods_over(
    testbed: Testbed, agents: tuple[Agent, Agent]
) -> None:
    first, second = agents
    first.start()
    first.wait_ready()
    second.start()
    wait_until("the second to wait", lambda: "waiting to lead" in second.log.read_text())
    for pods in make_pods(testbed, first):
        pods.run("lasting", "sh", "-c", "echo before; sleep 600")
        pods.wait_phase("lasting", "Running")
        jobs, uid = pods.jobs("lasting"), (pods.get("lasting") or {})["metadata"]["uid"]
        assert "the provider knows" not in second.log.read_text()
        first.kill()
        second.wait_ready(90)
        _serves(pods, uid, jobs)
        # Back again, without a wait: who ends in peace lets go of the Lease.
        first.start()
        wait_until("the first to wait", lambda: first.log.read_text().count("waiting to lead") == 1)
        second.kill(signal.SIGTERM)
        first.wait_ready()
        _serves(pods, uid, jobs)
        assert "Traceback" not in second.log.read_text()


def _serves(pods: Pods, uid: str, jobs: list[str]) -> None:
    """The pod is untouched, and the agent that works now shows its log."""

    def shown() -> bool:
        return pods.testbed.run("kubectl", f"--namespace={pods.namespace}", "logs", "lasting", check=False).stdout == "before\n"  # fmt: skip

    wait_until("its log through the agent that leads", shown)
    pod = pods.get("lasting")
    assert pod is not None
    assert (pod["metadata"]["uid"], pod["status"]["phase"]) == (uid, "Running")
    assert pods.jobs("lasting") == jobs
