"""Many pods at once, and a slurmctld that holds up who asks too much of it: slower, and nothing is lost or run twice."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.paths import Layout

from .agents import Agent, running
from .pods import Manifest, Pods, make_pods, manifest
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(600)]

IN_FLIGHT = 300
LIMITED = 30
RATE_LIMIT = "SlurmctldParameters=rl_enable,rl_bucket_size=10,rl_refill_rate=2,rl_log_freq=1"
CONF = "/etc/slurm/slurm.conf"


@contextmanager
def limited_rate(testbed: Testbed) -> Iterator[Path]:
    """Have slurmctld put off a user's requests beyond two a second; gives its log, to see that it does."""
    reread = "scontrol reconfigure"
    testbed.run(*testbed.inside("sh", "-ec", f"printf '\\n{RATE_LIMIT}\\n' >> {CONF}; {reread}"))
    try:
        yield Layout.from_environment().log("slurmctld")
    finally:
        testbed.run(*testbed.inside("sh", "-ec", f"sed -i '/^{RATE_LIMIT}$/d' {CONF}; {reread}"))


@pytest.fixture(scope="module")
def crowd(testbed: Testbed) -> Iterator[Pods]:
    """Pods without containers, for it is jobs that there are many of."""
    agent = Agent(testbed, "local", index=29, settings={"pods": {"runtime": {"kind": "process"}}})
    for ready in running(agent):
        for pods in make_pods(testbed, ready):
            yield pods
            end_all(pods)  # of a test that failed, while there is somebody to end them


@pytest.fixture
def runs() -> Path:
    """Where each pod that runs leaves a line."""
    scratch = Layout.from_environment().site / "scratch" / "alice"
    place = scratch / "crowd"
    place.mkdir(exist_ok=True)
    for old in place.iterdir():
        old.unlink()
    alice = scratch.stat()
    os.chown(place, alice.st_uid, alice.st_gid)
    return place


def job_of(pods: Pods, name: str, count: int, script: str, **annotations: str) -> Manifest:
    """A Job of so many pods at once, each of which leaves a line for each time it runs."""
    env = [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    pod = manifest(name, pods.agent, "sh", "-c", f"echo ran >> /scratch/alice/crowd/$POD; {script}", env=env)
    annotations = {f"slurmlet.io/{key}": value for key, value in annotations.items()}
    template = {"metadata": {"annotations": {"slurmlet.io/partition": "cpu", **annotations}}, "spec": pod["spec"]}
    spec = {"completions": count, "parallelism": count, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def end_all(pods: Pods) -> None:
    words = ("delete", "jobs", "--all", "--cascade=foreground", "--timeout=180s")
    pods.testbed.run("kubectl", f"--namespace={pods.namespace}", *words, timeout_seconds=200)


def phases(pods: Pods) -> dict[str, str]:
    found = pods.testbed.looker.items("pod", pods.namespace)
    return {pod["metadata"]["name"]: pod["status"].get("phase", "") for pod in found}


def jobs(pods: Pods) -> list[str]:
    """The names of all jobs of these pods that are in the queue and not over."""
    names = pods.testbed.run(*pods.testbed.inside("squeue", "-h", "-o", "%j")).stdout.split()
    return [name for name in names if name.startswith(f"{pods.namespace}/")]


def test_a_rate_limit_of_slurmctlds_makes_it_slower_and_loses_nothing(
    crowd: Pods, runs: Path, testbed: Testbed
) -> None:
    with limited_rate(testbed) as log:
        before = log.stat().st_size
        began = time.monotonic()
        crowd.apply(job_of(crowd, "limited", LIMITED, "true"))
        ended = ["Succeeded"] * LIMITED
        wait_until("all to have ended well", lambda: list(phases(crowd).values()) == ended, seconds=240, every=1)
        took = time.monotonic() - began
        said = log.read_text(errors="replace")[before:]
    print(f"{LIMITED} pods under rl_enable: {took:.1f} s; put off {said.count('rate limit exceeded')} times")
    assert "rate limit exceeded" in said
    assert sorted(path.read_text() for path in runs.iterdir()) == ["ran\n"] * LIMITED
    end_all(crowd)


def test_hundreds_of_pods_are_in_flight_at_once(crowd: Pods, runs: Path, testbed: Testbed) -> None:
    # A whole node each: four run at once, and all others wait in Slurm's queue.
    began = time.monotonic()
    crowd.apply(job_of(crowd, "many", IN_FLIGHT, "sleep 300", exclusive="true"))
    wait_until("every pod to have its job", lambda: len(set(jobs(crowd))) == IN_FLIGHT, seconds=180, every=1)
    submitted = time.monotonic() - began
    assert len(jobs(crowd)) == IN_FLIGHT, "a pod has two jobs"
    wait_until("four to run", lambda: list(phases(crowd).values()).count("Running") == 4, every=1)
    assert list(phases(crowd).values()).count("Pending") == IN_FLIGHT - 4
    began = time.monotonic()
    end_all(crowd)
    print(f"{IN_FLIGHT} pods: submitted after {submitted:.1f} s, gone after {time.monotonic() - began:.1f} s")
    assert jobs(crowd) == []
    assert {path.read_text() for path in runs.iterdir()} == {"ran\n"}, "a pod ran twice"
    root = Layout.from_environment().site / "home" / "alice" / ".slurmlet" / crowd.agent.node / "pods"
    wait_until("all job directories to be gone", lambda: not list(root.iterdir()))
