"""Every daemon away for a while in mid-run: nothing is lost, Ready stays True, and what is said meanwhile is true.

Three agents on three connections live through it at once. `make test-faults` makes it a minute each.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from testbed.site.sshd import DAEMON as SSHD

from .agents import Agent
from .daemons import AWAY_SECONDS, stopped
from .pods import Pods, make_pods
from .sidecars import Sidecar
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(600)]

IMAGES = {"images": "{home}/.slurmlet-images"}
SIDECAR_NODE = "e2e-daemons-sidecar"
PATIENCE_SECONDS = 120
RECOVERY_SECONDS = 30
NODE_MONITOR_GRACE_SECONDS = 50
"""kube-controller-manager's default, since 1.32."""


@dataclass(frozen=True)
class Work:
    """An agent and a pod of its that lasts through everything."""

    agent: Agent
    pods: Pods
    uid: str
    job: str

    def condition(self, kind: str) -> tuple[str, str]:
        node = self.agent.testbed.get("node", self.agent.node)
        assert node is not None, "the node is gone"
        found = next((item for item in node["status"]["conditions"] if item["type"] == kind), {})
        return found.get("status", ""), found.get("message", "")

    def reachable(self) -> str:
        return self.condition("SlurmReachable")[0]

    def assert_described(self) -> None:
        """What `kubectl describe` says of a pod that runs while nobody can ask Slurm: that it runs, and nothing untrue."""
        described = self.pods.kubectl("describe", "pod", "lasts")
        assert "Status:           Running" in described
        bad = {event["reason"] for event in self.pods.events("lasts")} & {
            "Failed",
            "Killing",
            "BackOff",
            "NodeNotReady",
        }
        assert not bad, f"{bad}:\n{described}"

    def assert_untouched(self) -> None:
        """The node is Ready, and the pod is the same, running, in the same and only job."""
        assert self.condition("Ready")[0] == "True"
        pod = self.pods.get("lasts")
        assert pod is not None, "the pod is gone"
        assert (pod["metadata"]["uid"], pod["status"]["phase"]) == (self.uid, "Running")
        assert "deletionTimestamp" not in pod["metadata"]


@pytest.fixture(scope="module")
def sidecar(testbed: Testbed) -> Iterator[Sidecar]:
    sidecar = Sidecar(testbed, SIDECAR_NODE, slurm=IMAGES)
    sidecar.start()
    yield sidecar
    sidecar.kill()


@pytest.fixture(scope="module")
def works(testbed: Testbed, sidecar: Sidecar) -> Iterator[dict[str, Work]]:
    """By connection; each with its pod running."""
    rest = {"kind": "rest", "url": testbed.environment["SLURMLET_TESTBED_SLURMRESTD"]}
    there = {"url": f"unix:{sidecar.socket}", "token_file": str(sidecar.tokens)}
    agents = {
        "ssh": Agent(testbed, "ssh", index=41),
        "rest": Agent(testbed, "local", index=42, settings={"slurm": {"client": rest}}),
        "sidecar": Agent(testbed, "ssh", index=43, node=SIDECAR_NODE, settings={"slurm": None, "sidecar": there}),
    }
    namespaces = {}
    try:
        for agent in agents.values():
            agent.start()
        works = {}
        for name, agent in agents.items():
            agent.wait_ready(PATIENCE_SECONDS)
            namespaces[name] = make_pods(testbed, agent)
            pods = next(namespaces[name])
            pods.run("lasts", "sleep", "3600")
            works[name] = pods
        yield {name: _work(agents[name], pods) for name, pods in works.items()}
    finally:
        for namespace in namespaces.values():
            next(namespace, None)
        for agent in agents.values():
            agent.kill()


def _work(agent: Agent, pods: Pods) -> Work:
    pods.wait_phase("lasts", "Running", seconds=PATIENCE_SECONDS)
    pod = pods.get("lasts")
    assert pod is not None
    (job,) = pods.jobs("lasts")
    return Work(agent, pods, pod["metadata"]["uid"], job)


def wait_all(
    works: dict[str, Work], what: str, check: Callable[[Work], bool], *, seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait until something holds of every connection."""

    def left() -> list[str]:
        return [name for name, work in works.items() if not check(work)]

    wait_until(what, lambda: not left(), seconds=seconds, every=0.5)


@contextmanager
def always_ready(works: dict[str, Work], *, but: frozenset[str] = frozenset()) -> Iterator[None]:
    """Look at the nodes each second; fails at the end unless each was Ready whenever the API server could be asked.

    ``but``: what the condition may have said for a while too.
    """
    nodes = {work.agent.node for work in works.values()}
    testbed = next(iter(works.values())).pods.testbed
    ended, seen = threading.Event(), Counter[tuple[str, str]]()

    def look() -> None:
        while not ended.wait(1):
            answer = testbed.run("kubectl", "get", "nodes", "--request-timeout=5s", "--output=json", check=False)
            for node in json.loads(answer.stdout)["items"] if answer.returncode == 0 else ():
                name, conditions = node["metadata"]["name"], node["status"]["conditions"]
                seen.update((name, each["status"]) for each in conditions if each["type"] == "Ready" and name in nodes)

    looking = threading.Thread(target=look, name="looks at Ready")
    looking.start()
    try:
        yield
    finally:
        ended.set()
        looking.join()
    print(f"Ready was seen as {dict(seen)}")
    assert {(name, status) for name, status in seen if status not in but} == {(node, "True") for node in nodes}


def live_through_an_absence(works: dict[str, Work], what_is_away: Callable[[], None], *daemons: str) -> None:
    """Slurm can't be reached for a while; a pod that is made meanwhile waits, and runs afterwards."""
    with stopped(*daemons):
        what_is_away()
        wait_all(works, "the nodes to say that Slurm does not answer", lambda work: work.reachable() == "False")
        for work in works.values():
            work.assert_untouched()
            work.assert_described()
            assert work.condition("SlurmReachable")[1], "the condition gives no reason"
            described = work.pods.testbed.kubectl("describe", "node", work.agent.node)
            assert "SlurmUnreachable" in described
            assert "slurmlet.io/slurm-unreachable:NoSchedule" in described
            work.pods.run("late", "true")
        wait_all(works, "the scheduler to say why it waits", lambda work: "untolerated taint" in work.pods.kubectl("describe", "pod", "late"))  # fmt: skip
        for work in works.values():
            assert work.pods.status("late")["phase"] == "Pending"


def all_is_well_again(works: dict[str, Work]) -> None:
    began = time.monotonic()
    what = "Slurm to be reachable again"
    wait_all(works, what, lambda work: work.reachable() == "True", seconds=RECOVERY_SECONDS)
    print(f"reachable again after {time.monotonic() - began:.1f} s")
    for work in works.values():
        work.pods.wait_phase("late", "Succeeded", seconds=PATIENCE_SECONDS)
        assert len(work.pods.jobs("late")) == 1
        work.assert_untouched()
        assert work.pods.jobs("lasts") == [work.job]
        work.pods.kubectl("delete", "pod", "late", "--wait=false")
    for work in works.values():
        work.pods.wait_gone("late")


def test_slurmctld_away(works: dict[str, Work]) -> None:
    with always_ready(works):
        live_through_an_absence(works, lambda: None, "slurmctld")
        all_is_well_again(works)


def test_the_ways_to_slurm_away_sshd_and_slurmrestd_and_the_sidecar(works: dict[str, Work], sidecar: Sidecar) -> None:
    with always_ready(works):
        live_through_an_absence(works, sidecar.kill, SSHD, "slurmrestd")
        sidecar.start()
        all_is_well_again(works)


def test_accounting_and_the_api_server_away_while_pods_end(works: dict[str, Work]) -> None:
    for work in works.values():
        work.pods.run("ends", "sh", "-c", "echo word; sleep 8; exit 4")
    for work in works.values():
        work.pods.wait_phase("ends", "Running", "Failed", seconds=PATIENCE_SECONDS)
    said = {name: work.agent.log.stat().st_size for name, work in works.items()}
    # A controller that has heard of no lease for so long calls a node Unknown, a kubelet's too, until it is told better.
    with always_ready(works, but=frozenset({"Unknown"} if AWAY_SECONDS > NODE_MONITOR_GRACE_SECONDS else ())):
        with stopped("slurmdbd", "kube-apiserver"):
            pass
        began = time.monotonic()
        what = "the pods' ends to be told"
        wait_all(works, what, lambda work: work.pods.status("ends")["phase"] == "Failed", seconds=RECOVERY_SECONDS)
        print(f"told after {time.monotonic() - began:.1f} s")
        what = "the nodes to be well"
        wait_all(
            works, what, lambda work: work.condition("Ready")[0] == work.reachable() == "True", seconds=RECOVERY_SECONDS
        )
    # The new API server remembers no change before its own beginning: it answers 410, and all is listed anew.
    for work in works.values():
        work.pods.run("after", "true")
    for name, work in works.items():
        work.pods.wait_phase("after", "Succeeded", seconds=PATIENCE_SECONDS)
        assert b"listing /api/v1/pods again" in work.agent.log.read_bytes()[said[name] :]
    for work in works.values():
        assert work.pods.terminated("ends")["exitCode"] == 4
        assert len(work.pods.jobs("ends")) == 1
        work.assert_untouched()
        assert work.pods.jobs("lasts") == [work.job]
    # What was away had no say in it: the jobs are in accounting by now, and the log is read as before.
    for work in works.values():
        wait_until("its log", lambda work=work: _log(work) == "word\n")  # type: ignore[misc]


def _log(work: Work) -> str:
    words = ("kubectl", f"--namespace={work.pods.namespace}", "logs", "ends")
    return work.pods.testbed.run(*words, check=False).stdout
