"""An agent whose Slurm is behind a sidecar on the login node: pods run, and the sidecar may die at any moment."""

import json
from collections.abc import Iterator

import pytest

from .agents import Agent, running
from .pods import Pods, make_pods
from .sidecars import Sidecar
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

NODE = "e2e-sidecar"


@pytest.fixture(scope="module", params=["command", "rest"])
def sidecar(request: pytest.FixtureRequest, testbed: Testbed) -> Iterator[Sidecar]:
    """Slurm's commands behind it, and slurmrestd with tokens of scontrol's."""
    url = testbed.environment["SLURMLET_TESTBED_SLURMRESTD"]
    client = {"kind": "command"} if request.param == "command" else {"kind": "rest", "url": url}
    sidecar = Sidecar(testbed, NODE, slurm={"client": client})
    sidecar.start()
    yield sidecar
    sidecar.kill()


@pytest.fixture(scope="module")
def remote(testbed: Testbed, sidecar: Sidecar) -> Iterator[Agent]:
    """An agent that knows of Slurm by the sidecar only."""
    there = {"url": f"unix:{sidecar.socket}", "token_file": str(sidecar.tokens)}
    yield from running(
        Agent(testbed, "ssh", index=21, node=NODE, settings={"slurm": None, "sidecar": there}), seconds=120
    )


@pytest.fixture
def pods(testbed: Testbed, remote: Agent) -> Iterator[Pods]:
    yield from make_pods(testbed, remote)


def test_nothing_is_lost_though_the_sidecar_dies_while_a_pod_runs(pods: Pods, sidecar: Sidecar) -> None:
    marks = "for i in 1 2 3; do echo mark $i; while [ ! -e /tmp/go$i ]; do sleep 0.2; done; done; exit 3"
    pods.run("lives", "sh", "-c", marks)
    pods.wait_phase("lives", "Running", seconds=120)
    wait_until("the first mark", lambda: "mark 1" in pods.kubectl("logs", "lives"))
    assert pods.kubectl("exec", "lives", "--", "touch", "/tmp/go1") == ""
    assert pods.kubectl("exec", "--stdin", "lives", "--", "cat", stdin="through\n") == "through\n"
    wait_until("the second mark", lambda: "mark 2" in pods.kubectl("logs", "lives"))

    sidecar.kill()
    wait_until("the node to say so", lambda: _reachable(pods) == "False", seconds=120)
    pods.run("waits", "true")
    assert pods.status("lives")["phase"] == "Running"
    sidecar.start()
    wait_until("the node to say so", lambda: _reachable(pods) == "True", seconds=120)

    pods.wait_phase("waits", "Succeeded", seconds=180)
    pods.kubectl("exec", "lives", "--", "touch", "/tmp/go2", "/tmp/go3")
    pods.wait_phase("lives", "Failed", seconds=120)
    assert pods.terminated("lives")["exitCode"] == 3
    assert pods.container("lives")["restartCount"] == 0
    assert pods.kubectl("logs", "lives").split("\n") == ["mark 1", "mark 2", "mark 3", ""]
    assert len(pods.jobs("lives")) == len(pods.jobs("waits")) == 1


def _reachable(pods: Pods) -> str:
    node = json.loads(pods.kubectl("get", "node", NODE, "--output=json"))
    return next((c["status"] for c in node["status"]["conditions"] if c["type"] == "SlurmReachable"), "")


def test_a_deleted_pods_job_and_directory_go(pods: Pods, sidecar: Sidecar) -> None:
    pods.run("ends", "sh", "-c", "trap 'exit 0' TERM; sleep 300 & wait")
    pods.wait_phase("ends", "Running", seconds=120)
    uid = pods.get("ends")["metadata"]["uid"]  # type: ignore[index]
    directory = sidecar.pods / uid
    assert directory.exists()
    pods.kubectl("delete", "pod", "ends", "--wait=false")
    pods.wait_gone("ends", seconds=120)
    wait_until("the directory to go", lambda: not directory.exists())
