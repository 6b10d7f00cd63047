"""A pod runs at most once, whatever dies when: the agent and sbatch are killed at many moments, slurmctld stands still."""

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
            settings={"pods": {"host_paths": ["/scratch"]}},
        )
    )


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


def kill_some_sbatch(seconds: float) -> None:
    """Kill sbatch as soon as there is one, for at most so long."""
    site = os.readlink(f"/proc/{Namespace(Layout.from_environment()).pid}/ns/mnt")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not kill_sbatch(site):
        time.sleep(0.002)


def counting_pod(name: str, agent: Agent) -> dict[str, object]:
    """A pod that leaves a line for each time it ran."""
    pod = manifest(name, agent, "sh", "-c", "echo $SLURM_JOB_ID >> /runs/$UID_OF_POD; sleep 1")
    container = pod["spec"]["containers"][0]
    container["env"] = [{"name": "UID_OF_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}]
    container["volumeMounts"] = [{"name": "runs", "mountPath": "/runs"}]
    pod["spec"]["volumes"] = [{"name": "runs", "hostPath": {"path": RUNS}}]
    return pod


def test_twenty_submissions_run_exactly_once_each_though_everything_is_killed(testbed: Testbed, mortal: Agent) -> None:
    layout = Layout.from_environment()
    runs = layout.site / "scratch" / "alice" / "runs"
    runs.mkdir(exist_ok=True)
    alice = runs.parent.stat()
    os.chown(runs, alice.st_uid, alice.st_gid)
    chance = random.Random(20)
    namespaces = make_pods(testbed, mortal)
    pods = next(namespaces)
    for number in range(SUBMISSIONS):
        pods.apply(counting_pod(f"once-{number}", mortal))
        if number % 5 == 2:
            kill_some_sbatch(2)
        elif number % 4 == 1:
            with paused("slurmctld"):
                time.sleep(chance.uniform(0.1, 1.5))
                mortal.kill()
                time.sleep(1)
            mortal.start()
        else:
            time.sleep(chance.uniform(0, 1.2))
            mortal.kill()
            mortal.start()
    mortal.wait_ready()
    names = [f"once-{number}" for number in range(SUBMISSIONS)]
    for name in names:
        pods.wait_phase(name, "Succeeded", seconds=180)
    uids = {name: pods.get(name)["metadata"]["uid"] for name in names}  # type: ignore[index]
    time.sleep(20)  # a twin that was accepted late would start now
    counts = {name: len((runs / uid).read_text().split()) for name, uid in uids.items()}
    assert counts == dict.fromkeys(names, 1)
    assert not _waiting_twins(testbed, pods, uids)
    next(namespaces, None)


def _waiting_twins(testbed: Testbed, pods: Pods, uids: dict[str, str]) -> list[str]:
    """Jobs of these pods that are still in the queue though the pods have ended."""
    names = ",".join(f"{pods.namespace}/{name}:{uid}" for name, uid in uids.items())

    def queued() -> list[str]:
        return testbed.run("squeue", "-h", "-t", "pending,running", "-o", "%i", "--name", names).stdout.split()

    wait_until("no twin to be left in the queue", lambda: not queued(), seconds=60)
    return queued()
