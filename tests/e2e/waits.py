"""Waits of minutes, begun by session fixtures when the tests begin; `test_long` looks at what came of them at the end."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.paths import Layout

from .agents import Agent, running
from .pods import Pods, make_pods, manifest, placed
from .proxy import Proxy
from .testbed import Testbed


@dataclass(frozen=True)
class Wait:
    """Pods that have been left alone since ``began``."""

    pods: Pods
    uid: str
    job: str
    began: float

    def rest(self, seconds: float) -> None:
        """Sleep until so many seconds have gone by since the beginning."""
        time.sleep(max(0.0, self.began + seconds - time.monotonic()))

    def assert_untouched(self) -> None:
        """The pod is the same, running, in the same and only job."""
        pod = self.pods.get("lasting")
        assert pod is not None, "the pod is gone"
        assert pod["metadata"]["uid"] == self.uid
        assert "deletionTimestamp" not in pod["metadata"]
        assert pod["status"]["phase"] == "Running"
        assert self.pods.jobs("lasting") == [self.job]


def lasting(pods: Pods) -> Wait:
    """Start a pod that lasts."""
    pods.run("lasting", "sleep", "3600")
    pods.wait_phase("lasting", "Running")
    pod = pods.get("lasting")
    assert pod is not None
    (job,) = pods.jobs("lasting")
    return Wait(pods, pod["metadata"]["uid"], job, time.monotonic())


@pytest.fixture(scope="session")
def slurm_away(testbed: Testbed) -> Iterator[tuple[Wait, Agent, Proxy]]:
    """An agent whose way to Slurm has been cut."""
    environment = testbed.environment
    proxy = Proxy(environment["SLURMLET_TESTBED_SSH_HOST"], int(environment["SLURMLET_TESTBED_SSH_PORT"]))
    with proxy.running():
        agent = Agent(testbed, "ssh", index=5, ssh_port=proxy.port)
        agent.start()
        agent.wait_ready()
        namespaces = make_pods(testbed, agent)
        wait = lasting(next(namespaces))
        proxy.cut()
        yield wait, agent, proxy
        next(namespaces, None)
        agent.kill()


@pytest.fixture(scope="session")
def present(testbed: Testbed) -> Iterator[Agent]:
    """An agent that lives while others are away."""
    yield from running(Agent(testbed, "ssh", index=8))


@pytest.fixture(scope="session")
def agent_away(testbed: Testbed, present: Agent) -> Iterator[tuple[Wait, Agent]]:
    """An agent that was killed. Beside the pod that lasts it has one that tolerates its absence for 30 s alone.

    Where most nodes of a zone are away, or all of all zones, the node controller takes it for its own trouble and evicts
    nobody: the node has a zone of its own, and ``present`` lives in another.
    """
    assert present.pid
    zone = {"labels": {"topology.kubernetes.io/zone": "away"}}
    agent = Agent(testbed, "ssh", index=6, settings={"node": zone})
    agent.start()
    agent.wait_ready()
    namespaces = make_pods(testbed, agent)
    pods = next(namespaces)
    impatient = manifest("impatient", agent, "sleep", "3600")
    impatient["spec"]["tolerations"] += [
        {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
        for what in ("unreachable", "not-ready")
    ]
    pods.apply(impatient)
    wait = lasting(pods)
    pods.wait_phase("impatient", "Running")
    agent.kill()
    yield wait, agent
    next(namespaces, None)
    agent.kill()


@pytest.fixture(scope="session")
def requeued(testbed: Testbed) -> Iterator[tuple[Pods, str]]:
    """A pod whose job was put back into the queue once it ran: Slurm starts it again after two minutes."""
    agent = Agent(testbed, "ssh", index=13, settings={"policy": [{"requeue": True}]})
    agent.start()
    agent.wait_ready()
    namespaces = make_pods(testbed, agent)
    pods = next(namespaces)
    pod = manifest("again", agent, "sh", "-c", "echo begun; sleep 3600")
    pod["metadata"]["annotations"]["slurmlet.io/requeue"] = "true"
    pod["spec"]["restartPolicy"] = "OnFailure"  # the API server lets no other container leave its end
    pods.apply(pod)
    pods.wait_phase("again", "Running", seconds=240)
    (job,) = pods.jobs("again")
    testbed.run("scontrol", "requeue", job)
    waiting = pods.wait("again", "to wait again", lambda s: "SlurmRequeued" in json.dumps(s["containerStatuses"]))
    assert waiting["phase"] == "Running"
    yield pods, job
    next(namespaces, None)
    agent.kill()


@pytest.fixture(scope="session")
def timed(testbed: Testbed) -> Iterator[tuple[Pods, float]]:
    """A pod whose job has a time limit of two minutes, and one whose token lives for ten; and when both ran."""
    agent = Agent(testbed, "ssh", index=27)
    agent.start()
    agent.wait_ready()
    namespaces = make_pods(testbed, agent)
    pods = next(namespaces)
    last = "trap 'echo term >> /dev/termination-log; exit 0' TERM; while :; do sleep 0.2; done"
    limited = manifest("limited", agent, "sh", "-c", last)
    limited["metadata"]["annotations"]["slurmlet.io/time-limit"] = "2"
    hook = {"command": ["sh", "-c", "echo pre >> /dev/termination-log"]}
    limited["spec"]["containers"][0]["lifecycle"] = {"preStop": {"exec": hook}}
    changes = "while :; do now=$$(cat /token/token); [ $now = $before ] || echo $now; before=$now; sleep 1; done"
    rotating = manifest("rotating", agent, "sh", "-c", "before=none; " + changes)
    rotating["spec"]["containers"][0]["volumeMounts"] = [{"name": "token", "mountPath": "/token"}]
    source = {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}
    rotating["spec"]["volumes"] = [{"name": "token", "projected": {"sources": [source]}}]
    pods.apply(limited, rotating)
    for name in ("limited", "rotating"):
        pods.wait_phase(name, "Running", seconds=120)
    yield pods, time.monotonic()
    next(namespaces, None)
    agent.kill()


@pytest.fixture(scope="session")
def storm(testbed: Testbed) -> Iterator[tuple[Pods, Agent, float, int]]:
    """A Deployment whose pods Slurm rejects, with an agent of its own."""
    agent = Agent(testbed, "ssh", index=12, settings={"policy": [{"accounts": ["*"]}]})
    agent.start()
    agent.wait_ready()
    namespaces = make_pods(testbed, agent)
    pods = next(namespaces)
    template = manifest("unused", agent, "sleep", "600")
    template["metadata"] = {"labels": {"app": "storm"}, "annotations": {"slurmlet.io/account": "no-such-account"}}
    del template["spec"]["restartPolicy"]
    before = rejections()
    pods.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "storm"},
            "spec": {
                "replicas": 5,
                "selector": {"matchLabels": {"app": "storm"}},
                "template": {"metadata": template["metadata"], "spec": template["spec"] | placed(agent)},
            },
        }
    )
    yield pods, agent, time.monotonic(), before
    next(namespaces, None)
    agent.kill()


def rejections() -> int:
    """How many submissions slurmctld has refused for their account so far."""
    logs: list[Path] = list(Layout.from_environment().state.rglob("slurmctld*.log"))
    return sum(path.read_text(errors="replace").count("no-such-account") for path in logs)
