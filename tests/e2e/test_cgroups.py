"""A site whose jobs the kernel keeps to their resources (``CGROUPS=1``), as most real ones are. All pods begin together.

What Slurm without cgroups makes of a job above its memory is in ``test_states``; the runner alone in a cgroup in ``test_runner_apptainer``.
"""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .agents import Agent, running
from .pods import Manifest, Pods, make_pods, manifest
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.cgroups, pytest.mark.timeout(300)]

MOUNTED = Path("/sys/fs/cgroup")
# Far more than the 64 MiB it asks for and the 256 MiB that the runner has beside them.
TAKE_IT_ALL = "head -c 600000000 /dev/zero | tail -c 500000000 > /dev/null"
AGAIN = f"if [ -e /state/again ]; then echo again; exit 0; fi; touch /state/again; {TAKE_IT_ALL}"
CHILD = f"{TAKE_IT_ALL}; echo survived; sleep 1000"
WAITS = "trap 'exit 0' TERM; while :; do sleep 0.2; done"
# It does not hear of TERM, and it left its session.
STAYS = "trap '' TERM; setsid sleep 1000 & nproc; cat /proc/self/cgroup; while :; do sleep 0.2; done"


@pytest.fixture(scope="module")
def agent(testbed: Testbed) -> Iterator[Agent]:
    if "task/cgroup" not in testbed.run("scontrol", "show", "config").stdout:
        pytest.skip("this testbed's site has no cgroups: CGROUPS=1")
    yield from running(Agent(testbed, "local", index=30))


@pytest.fixture(scope="module")
def pods(testbed: Testbed, agent: Agent) -> Iterator[Pods]:
    """All pods of this module, from the start."""
    for here in make_pods(testbed, agent):
        here.apply(beside_a_neighbour(agent), twice(agent), left_alone(agent), staying(agent))
        yield here


def beside_a_neighbour(agent: Agent) -> Manifest:
    pod = manifest("beside", agent, "sh", "-c", f"sleep 1; {TAKE_IT_ALL}")
    neighbour = pod["spec"]["containers"][0] | {"name": "neighbour", "command": ["sh", "-c", WAITS]}
    killed = neighbour | {"name": "killed", "command": ["sh", "-c", "kill -KILL $$$$"]}
    pod["spec"]["containers"] += [neighbour, killed]
    return pod


def twice(agent: Agent) -> Manifest:
    pod = manifest("twice", agent, "sh", "-c", AGAIN, volumeMounts=[{"name": "state", "mountPath": "/state"}])
    pod["spec"] |= {"restartPolicy": "OnFailure", "volumes": [{"name": "state", "emptyDir": {}}]}
    return pod


def left_alone(agent: Agent) -> Manifest:
    return manifest("left", agent, "sh", "-c", CHILD)


def staying(agent: Agent) -> Manifest:
    probe = {"exec": {"command": ["grep", "memory:/slurm_", "/proc/self/cgroup"]}, "periodSeconds": 1}
    return manifest("staying", agent, "sh", "-c", STAYS, readinessProbe=probe)


def slurm_calls(pods: Pods, name: str) -> str:
    """The state of a pod's one job in accounting, once it has ended."""
    (job,) = pods.jobs(name)

    def ended() -> str:
        said = pods.testbed.run("sacct", "-n", "-X", "-P", "-o", "state,end", "-j", job).stdout.strip()
        state, _, end = said.partition("|")
        return "" if end in ("", "Unknown") else state

    return wait_until(f"the end of job {job}", ended)


def test_the_node_says_that_slurm_enforces_what_jobs_ask_for(testbed: Testbed, agent: Agent) -> None:
    said = testbed.kubectl("describe", "node", agent.node)
    assert re.search(r"SlurmEnforcesResources +True .* AllEnforced +Slurm keeps jobs to their own cores, memory", said)
    assert [f"slurmlet.io/enforces-{what}=true" in said for what in ("cores", "memory", "devices")] == [True] * 3


def test_the_container_that_takes_the_jobs_memory_is_oom_killed_and_its_neighbours_are_not(pods: Pods) -> None:
    def ended(status: Manifest) -> bool:
        states = {item["name"]: item["state"] for item in status["containerStatuses"]}
        return all("terminated" in states[name] for name in ("main", "killed"))

    pods.wait("beside", "to have its memory taken", ended)
    greedy, killed = pods.terminated("beside"), pods.terminated("beside", "killed")
    assert (greedy["reason"], greedy["exitCode"]) == ("OOMKilled", 137)
    assert (killed["reason"], killed["exitCode"]) == ("Error", 137)
    assert pods.kubectl("exec", "beside", "-c", "neighbour", "--", "echo", "here") == "here\n"
    pods.kubectl("exec", "beside", "-c", "neighbour", "--", "sh", "-c", "kill -TERM 1")
    pods.wait_phase("beside", "Failed")
    assert pods.terminated("beside", "neighbour")["reason"] == "Completed"
    assert slurm_calls(pods, "beside") == "OUT_OF_MEMORY"


def test_a_container_that_succeeds_the_second_time_makes_a_pod_that_succeeded_whatever_slurm_calls_the_job(
    pods: Pods,
) -> None:
    """To Slurm a job is ``OUT_OF_MEMORY`` if the kernel killed anything of it for memory, whatever its script made of that."""
    pods.wait_phase("twice", "Succeeded")
    main = pods.container("twice")
    last = main["lastState"]["terminated"]
    assert (main["restartCount"], last["reason"], last["exitCode"]) == (1, "OOMKilled", 137)
    assert slurm_calls(pods, "twice") == "OUT_OF_MEMORY"
    assert pods.status("twice")["phase"] == "Succeeded"


def runner_of(job: str) -> int:
    """The pid of a job's runner: the one process in the cgroup of its batch script whose parent is outside, in slurmd's hands."""
    (cgroup,) = (MOUNTED / "memory").glob(f"slurm_*/uid_*/job_{job}/step_batch/task_0")
    inside = (cgroup / "cgroup.procs").read_text().split()
    parents = {pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] for pid in inside}
    (runner,) = (int(pid) for pid, parent in parents.items() if parent not in inside)
    return runner


def test_where_the_kernel_takes_the_runner_too_the_pod_is_told_by_slurms_word(pods: Pods) -> None:
    """It takes containers first, so that is done here in its place: the rest is as if nobody else had been left to take."""
    wait_until("its child to be killed", lambda: pods.kubectl("logs", "left") == "Killed\nsurvived\n")
    pods.wait_phase("left", "Running")
    (job,) = pods.jobs("left")
    os.kill(runner_of(job), signal.SIGKILL)
    status = pods.wait_phase("left", "Failed")
    main = pods.terminated("left")
    assert (main["reason"], main["exitCode"]) == ("OOMKilled", 137), status
    assert main["message"] == f"Slurm job {job} used more memory than it asked for"
    assert slurm_calls(pods, "left") == "OUT_OF_MEMORY"


def test_a_pod_of_one_cpu_has_one_and_all_that_enters_it_is_in_the_jobs_cgroup_until_nothing_is_left(
    pods: Pods,
) -> None:
    pods.wait("staying", "to be ready", lambda s: s["containerStatuses"][0]["ready"])
    (job,) = pods.jobs("staying")
    cpus, *groups = pods.kubectl("logs", "staying").splitlines()
    assert cpus == "1"
    entered = pods.kubectl("exec", "staying", "--", "sh", "-c", "nproc; cat /proc/self/cgroup").splitlines()
    assert entered == ["1", *groups], "what is entered is where the container is"
    mine = [line for line in groups if f"/job_{job}/step_batch" in line]
    assert {line.split(":")[1] for line in mine} == {"cpuacct", "cpuset", "devices", "freezer", "memory"}
    jobs = [next((MOUNTED / name).glob(f"slurm_*/uid_*/job_{job}")) for name in ("freezer", "memory")]
    pods.kubectl("delete", "pod", "staying", "--grace-period=2")
    # The kernel lets Slurm remove a cgroup only when no process is in it.
    wait_until("its cgroups to be gone", lambda: not any(path.exists() for path in jobs), seconds=20)
