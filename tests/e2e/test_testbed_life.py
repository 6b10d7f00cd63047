"""A testbed's own life, on one beside whichever is up: begun twice, killed midway, repaired, used by the demo, and gone."""

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import processes
from testbed.paths import Layout
from testbed.site import DEFAULT_VERSION
from testbed.site.namespace import HOLDER, sees

from .testbed import PROJECT_ROOT, TESTBED, environment_beside
from .waiting import wait_until

# In order: each test goes on where the one before has stopped.
pytestmark = [pytest.mark.e2e, pytest.mark.last, pytest.mark.timeout(300)]

DEMO = (sys.executable, "-m", "slurmlet", "demo")
WARM_SECONDS = 15
SCRIPT = """
eval "$(%s -m testbed env)"
: "$KUBECONFIG" "$SLURM_CONF" "$SLURMLET_TESTBED_REGISTRY" "$SLURMLET_TESTBED_SSH_PORT" "$SLURMLET_TESTBED_SSH_KEY"
kubectl version && squeue && sbatch --wait --output=/dev/null --wrap=true && kubectl get nodes
"""


class Beside:
    """A testbed with a directory and ports of its own."""

    def __init__(self) -> None:
        self.environment = environment_beside("life", 1) | {"SLURM": DEFAULT_VERSION}
        self.layout = Layout.from_environment(self.environment)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            words, env=self.environment, cwd=PROJECT_ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, *words: str) -> str:
        """What a command says; fails when it fails."""
        process = self.begin(*words)
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 0, said
        return said

    def pid(self, name: str) -> int:
        found = processes.pid(self.layout, name)
        assert found is not None, f"{name} does not run"
        return found


@pytest.fixture(scope="module")
def beside() -> Iterator[Beside]:
    beside = Beside()
    beside.run(*TESTBED, "down")  # what a test that was killed has left
    yield beside
    if beside.layout.state.exists():
        beside.run(*DEMO, "--stop")
        beside.run(*TESTBED, "down")


def test_an_up_that_was_killed_midway_is_finished_by_the_next(beside: Beside) -> None:
    others = os.getloadavg()[0] > 2 * (os.cpu_count() or 1)  # then its seconds tell of the machine's other work
    first = beside.begin(*TESTBED, "up")
    wait_until("it to be at work", beside.layout.process("etcd").exists, seconds=60, every=0.05)
    first.kill()
    first.communicate(timeout=30)
    said = beside.run(*TESTBED, "up")
    found = re.search(r"✓ Starting Kubernetes \(([\d.]+) s\)", said)
    assert found, said
    assert others or float(found[1]) < WARM_SECONDS
    beside.run(*TESTBED, "status")


@pytest.mark.parametrize("name", ["etcd", HOLDER, "slurmctld"])
def test_what_was_killed_is_repaired_by_up(beside: Beside, name: str) -> None:
    killed = beside.pid(name)
    os.kill(killed, signal.SIGKILL)
    wait_until(f"{name} to be gone", lambda: processes.pid(beside.layout, name) != killed)
    beside.run(*TESTBED, "up")
    beside.run(*TESTBED, "status")


def test_what_env_says_leads_kubectl_and_slurms_commands_there(beside: Beside) -> None:
    said = beside.run("sh", "-euc", SCRIPT % sys.executable)
    assert "Server Version: v1." in said
    assert "JOBID PARTITION" in said
    assert "Submitted batch job" in said


def test_two_demos_at_once_both_show_a_pod_and_one_stop_ends_their_agent(beside: Beside) -> None:
    both = [beside.begin(*DEMO) for _ in range(2)]
    for demo in both:
        said, _ = demo.communicate(timeout=200)
        assert demo.returncode == 0, said
        assert "kubectl logs" in said
    agent = beside.pid("slurmlet-vkubelet")
    beside.run(*DEMO, "--stop")
    assert processes.began_at(agent) is None


def test_down_leaves_nothing(beside: Beside) -> None:
    layout = beside.layout
    lives = {name: os.pidfd_open(beside.pid(name)) for name in processes.names(layout)}
    began = time.monotonic()
    beside.run(*TESTBED, "down")
    print(f"down in {time.monotonic() - began:.1f} s")
    ended, _, _ = select.select(list(lives.values()), [], [], 0)  # a pidfd is readable once its process has ended
    assert [name for name, life in lives.items() if life not in ended] == []
    for life in lives.values():
        os.close(life)
    assert not layout.state.exists()
    left = []
    for entry in Path("/proc").iterdir():
        try:
            inside = entry.name.isdigit() and sees((entry / "mountinfo").read_text(errors="replace"), layout.state)
            if inside or (
                entry.name.isdigit() and f"{layout.state}/" in (entry / "cmdline").read_text(errors="replace")
            ):
                left.append(entry.name)
        except OSError:
            continue  # it has just ended
    assert left == []
    status = beside.begin(*TESTBED, "status")
    status.communicate(timeout=60)
    assert status.returncode == 1
