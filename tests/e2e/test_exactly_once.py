"""A pod runs at most once, whatever dies when: the agent and sbatch are killed at many moments, slurmctld stands still."""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed import processes
from testbed.paths import Layout
from testbed.site.namespace import Namespace

from .agents import Agent, running
from .pods import Pods, make_pods, manifest
from .podwatch import PodWatch, wrongs
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(600)]

SUBMISSIONS = 20
RUNS = "/scratch/alice/runs"


@pytest.fixture(scope="module", params=["ssh", "local"])
def mortal(request: pytest.FixtureRequest, testbed: Testbed) -> Iterator[Agent]:
    """An agent to be killed."""
    yield from running(
        Agent(
            testbed,
            request.param,
            index=3 if request.param == "ssh" else 4,
            settings={"pods": {"host_paths": ["/scratch"]}, "slurm": {"root": root_of(request.param)}},
        )
    )


def root_of(host: str) -> str:
    """Where an agent of this kind keeps its job directories, on the login node."""
    return f"/scratch/alice/.once-{host}"


@contextmanager
def paused(name: str) -> Iterator[None]:
    """Let one of the testbed's daemons stand still."""
    pid = processes.pid(Layout.from_environment(), name)
    assert pid is not None, f"{name} does not run"
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def kill_sbatch(site: str) -> int:
    """Kill every sbatch that runs in the site (its mount namespace) just now; how many there were."""
    killed = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "comm").read_text() == "sbatch\n" and os.readlink(entry / "ns/mnt") == site:
                    os.kill(int(entry.name), signal.SIGKILL)
                    killed += 1
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
    return killed


def kill_some_sbatch(seconds: float) -> int:
    """Kill sbatch as soon as there is one, for at most so long; how many there were."""
    site = os.readlink(f"/proc/{Namespace(Layout.from_environment()).pid}/ns/mnt")
    deadline = time.monotonic() + seconds
    killed = 0
    while not killed and time.monotonic() < deadline:
        killed = kill_sbatch(site)
        time.sleep(0.002)
    return killed


class Counted:
    """Pods that leave a line for each time they ran: their job's id. Their directories and Slurm's word of them."""

    def __init__(self, testbed: Testbed, agent: Agent, pods: Pods) -> None:
        self.testbed = testbed
        self.agent = agent
        self.pods = pods
        self.root = root_of(agent.host)
        self._site = Layout.from_environment().site
        self._runs = self._site / RUNS.lstrip("/")
        self._runs.mkdir(exist_ok=True)
        alice = self._runs.parent.stat()
        os.chown(self._runs, alice.st_uid, alice.st_gid)

    def create(self, name: str, *, then: str = "sleep 1") -> None:
        """Create such a pod. What it does ``then`` may wait for the file that ``release`` makes."""
        pod = manifest(name, self.agent, "sh", "-c", f"echo $SLURM_JOB_ID >> /runs/$UID_OF_POD; {then}")
        container = pod["spec"]["containers"][0]
        container["env"] = [{"name": "UID_OF_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}]
        container["volumeMounts"] = [{"name": "runs", "mountPath": "/runs"}]
        pod["spec"]["volumes"] = [{"name": "runs", "hostPath": {"path": RUNS}}]
        self.pods.apply(pod)

    def release(self, name: str) -> None:
        """Let a pod end that waits for it."""
        (self._runs / f"{self.uid(name)}.end").touch()

    def uid(self, name: str) -> str:
        """Its UID."""
        pod = self.pods.get(name)
        assert pod is not None, f"no pod {name}"
        return str(pod["metadata"]["uid"])

    def runs(self, name: str) -> list[str]:
        """The jobs that ran it."""
        return (self._runs / self.uid(name)).read_text().split()

    def claim(self, name: str) -> str:
        """The job that claimed it."""
        path = self._site / f"{self.root}/pods/{self.uid(name)}/run/claim".lstrip("/")
        return str(json.loads(path.read_text())["job_id"])

    def submit_once_more(self, name: str) -> str:
        """Have Slurm accept a pod's submission again, as it does one whose client died before; the second job."""
        directory = f"{self.root}/pods/{self.uid(name)}"
        words = ("sbatch", "--parsable", f"--chdir={directory}", f"{directory}/job.sh")
        return self.testbed.run(*words).stdout.strip()

    def ending(self, job_id: str) -> tuple[str, int] | None:
        """How a job ended and how many seconds it ran, as accounting says it; None while it has not."""
        words = ("sacct", "-n", "-X", "-P", "-o", "state,elapsedraw,end", "-j", job_id)
        state, elapsed, end = (self.testbed.run(*words).stdout.strip() or "||Unknown").split("|")
        return None if end == "Unknown" else (state.split()[0], int(elapsed))

    def none_in_queue(self) -> None:
        """Wait until no job of any of these pods waits or runs: from then on none can start."""
        words = ("squeue", "-h", "-t", "pending,running", "-O", "Name:0")

        def queued() -> list[str]:
            names = self.testbed.run(*words).stdout.splitlines()
            return [name for name in names if name.startswith(f"{self.pods.namespace}/")]

        wait_until("no twin to be left in the queue", lambda: not queued(), seconds=60)


@pytest.fixture
def counted(testbed: Testbed, mortal: Agent) -> Iterator[Counted]:
    for pods in make_pods(testbed, mortal):
        yield Counted(testbed, mortal, pods)


UNTIL_RELEASED = "until [ -e /runs/$UID_OF_POD.end ]; do sleep 0.1; done"


def test_twenty_submissions_run_exactly_once_each_though_everything_is_killed(
    testbed: Testbed, mortal: Agent, counted: Counted
) -> None:
    chance = random.Random(20)
    names = [f"once-{number}" for number in range(SUBMISSIONS)]
    killed = 0
    with PodWatch.of(testbed, counted.pods.namespace) as watch:
        for number, name in enumerate(names):
            match number % 5:
                case 1:
                    with paused("slurmctld"):
                        counted.create(name)
                        time.sleep(chance.uniform(0.1, 1.5))
                        mortal.kill()
                        time.sleep(1)
                    mortal.start()
                case 2:
                    mortal.wait_ready()
                    counted.create(name)
                    killed += kill_some_sbatch(2)
                case 3:  # Slurm has what sbatch sent, and takes it up when nobody waits for the answer any more
                    mortal.wait_ready()
                    with paused("slurmctld"):
                        counted.create(name)
                        killed += kill_some_sbatch(5)
                case _:
                    counted.create(name)
                    time.sleep(chance.uniform(0, 1.2))
                    mortal.kill()
                    mortal.start()
        mortal.wait_ready()
        for name in names:
            counted.pods.wait_phase(name, "Succeeded", seconds=180)
        counted.none_in_queue()
    assert killed >= 3
    assert {name: counted.runs(name) for name in names} == {name: [counted.claim(name)] for name in names}
    seen = {name: wrongs(watch.versions(name)) for name in names}
    assert seen == {name: [] for name in names}


def test_a_twin_that_slurm_accepts_late_never_runs(mortal: Agent, counted: Counted) -> None:
    mortal.wait_ready()
    with paused("slurmctld"):
        counted.create("sbatch-killed", then=UNTIL_RELEASED)
        assert kill_some_sbatch(10)
    counted.create("agent-killed", then=UNTIL_RELEASED)
    twins = {}
    for name in ("sbatch-killed", "agent-killed"):
        counted.pods.wait_phase(name, "Running", seconds=90)
        if name == "agent-killed":
            mortal.kill()
        twins[name] = counted.submit_once_more(name)
        if name == "agent-killed":
            mortal.start()
        wait_until(f"the twin of {name} to be cancelled", lambda: counted.ending(twins[name]))  # noqa: B023
        counted.release(name)
    for name, twin in twins.items():
        counted.pods.wait_phase(name, "Succeeded")
        assert counted.ending(twin) == ("CANCELLED", 0)
        assert counted.runs(name) == [counted.claim(name)] != [twin]
