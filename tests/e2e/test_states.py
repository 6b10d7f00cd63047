"""What Slurm does to jobs, provoked on the real cluster, and what the pods say of it. All pods begin together.

A time-out, an account that is none and a dependency that is never satisfied are in ``test_semantics``, ``test_pods`` and
``test_placement``; the second run of a requeued job, for which Slurm takes two minutes, is in ``test_long``.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from testbed import processes
from testbed.paths import Layout

from .agents import Agent, running
from .pods import Manifest, Pods, make_pods, manifest, placed
from .testbed import PROJECT_ROOT, Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(600)]

Admin = Callable[..., str]

POLICY = {"accounts": ["*"], "qos": ["*"], "raw_flags": True, "requeue": True}
# They end in good order when they are asked to: that is no success for all that.
STOPPABLE = ("sh", "-c", "trap 'exit 0' TERM; echo begun; while :; do sleep 0.2; done")
GREEDY = "{ head -c 600000000 /dev/zero; sleep 300; } | tail -n 1"  # a line without an end: tail keeps all of it
LIMITED = ("limited-0", "limited-1", "limited-2")  # the QOS takes two, and runs one
BROKEN, FAILING = "cn4", "cn3"
ELSEWHERE = f"--exclude={BROKEN},{FAILING}"
AFTER_SUBMISSION = "--begin=now+1hours"
ALL_A100 = {"limits": {"cpu": "1", "memory": "64Mi", "nvidia.com/gpu": "4"}}
HALF_A100 = {"limits": {"cpu": "1", "memory": "64Mi", "nvidia.com/gpu": "2"}}
ALL_H100 = {"limits": {"cpu": "1", "memory": "64Mi", "nvidia.com/gpu": "2"}}
SECONDS = 240


@pytest.fixture(scope="module")
def admin(testbed: Testbed) -> Admin:
    """Run one of Slurm's commands as root; it returns what that prints."""
    pid = testbed.environment["SLURMLET_TESTBED_SITE_PID"]
    return lambda *argv: testbed.run("nsenter", "-t", pid, "-m", "--", *argv).stdout


@pytest.fixture(scope="module")
def agent(testbed: Testbed) -> Iterator[Agent]:
    yield from running(Agent(testbed, "ssh", index=17, settings={"policy": [POLICY]}))


def annotated(pod: Manifest, **annotations: str) -> Manifest:
    pod["metadata"]["annotations"] |= {
        f"slurmlet.io/{key.replace('_', '-')}": value for key, value in annotations.items()
    }
    return pod


def again_and_again(pod: Manifest, **annotations: str) -> Manifest:
    """A pod that may be requeued, and runs until it is ended: not in good order, which the API server has no return from."""
    pod["spec"]["restartPolicy"] = "OnFailure"
    pod["spec"]["containers"][0]["command"] = ["sh", "-c", "trap 'exit 1' TERM; while :; do sleep 0.2; done"]
    return annotated(pod, requeue="true", **annotations)


def example(name: str, agent: Agent, *, gpu_type: str, resources: Manifest) -> Manifest:
    """An example on the agent's node, with GPUs of this type; its port is not that of who runs it as it stands."""
    text = (PROJECT_ROOT / "examples" / f"{name}.yaml").read_text("utf-8").replace("18081", "18082")
    work: Manifest = yaml.safe_load(text)
    template = annotated(work["spec"]["template"], gpu_type=gpu_type)
    template["spec"] |= placed(agent)
    template["spec"]["containers"][0]["resources"] = resources
    return work


def preemptible(agent: Agent) -> Manifest:
    """The example's Job, for all the GPUs of one kind; it ends once it finds the ConfigMap."""
    job = example("preemptible", agent, gpu_type="h100", resources=ALL_H100)
    template = job["spec"]["template"]
    (container,) = template["spec"]["containers"]
    container["command"] = ["sh", "-c", "until test -e /go/on; do sleep 0.2; done"]
    container["volumeMounts"] = [{"name": "go", "mountPath": "/go"}]
    template["spec"]["volumes"] = [{"name": "go", "configMap": {"name": "go", "optional": True}}]
    return job


@pytest.fixture(scope="module")
def pods(testbed: Testbed, agent: Agent) -> Iterator[Pods]:
    """One namespace with all pods that Slurm is to do something to."""
    made = make_pods(testbed, agent)
    pods = next(made)
    names = ("suspended", "ended-by-root", "ended-by-user")
    batch = [annotated(manifest(name, agent, *STOPPABLE), flags=ELSEWHERE) for name in names]
    failing = annotated(manifest("failing", agent, *STOPPABLE), flags=f"--nodelist={FAILING}")
    unlaunched = annotated(manifest("unlaunched", agent, "true"), flags=f"--nodelist={BROKEN} {AFTER_SUBMISSION}")
    flags = f"--nodelist={BROKEN} {AFTER_SUBMISSION}"
    again = [
        again_and_again(manifest("failing-again", agent), flags=f"--nodelist={FAILING}"),
        again_and_again(manifest("unlaunched-again", agent), flags=flags),
        again_and_again(manifest("preempted-again", agent, resources=HALF_A100), partition="low", gpu_type="a100"),
    ]
    late = annotated(
        manifest("late", agent, "true"), flags=f"{AFTER_SUBMISSION} {ELSEWHERE} --deadline=now+3hours", time_limit="5"
    )
    limited = [annotated(manifest(name, agent, "sleep", "600"), qos="small", flags=ELSEWHERE) for name in LIMITED]
    greedy = annotated(manifest("greedy", agent, "sh", "-c", GREEDY), flags=ELSEWHERE)
    pods.apply(unlaunched, late, *batch, failing, *again, *limited, greedy, preemptible(agent))
    pods.apply(example("preemptible-service", agent, gpu_type="a100", resources=HALF_A100))
    yield pods
    pods.kubectl("delete", "deployments,jobs,pods", "--all", "--grace-period=1", "--timeout=55s")
    next(made, None)


def job_of(pods: Pods, name: str) -> str:
    return wait_until(f"the job of {name}", lambda: next(iter(pods.jobs(name)), ""), seconds=SECONDS)


def condition(status: Manifest, kind: str) -> Manifest:
    return next((dict(each) for each in status.get("conditions", []) if each["type"] == kind), {})


def ended(pods: Pods, name: str) -> tuple[str, str, str]:
    """A failed pod's reason and message, and whether it was disrupted."""
    status = pods.wait_phase(name, "Failed", "Succeeded", seconds=SECONDS)
    assert status["phase"] == "Failed", status
    return status.get("reason", ""), status.get("message", ""), condition(status, "DisruptionTarget").get("status", "")


def requeued(pods: Pods, name: str) -> None:
    """The pod's only job waits again, and the pod is still Running, with its last end told."""
    status = pods.wait(
        name, "to be requeued",
        lambda s: s["containerStatuses"][0]["state"].get("waiting", {}).get("reason") == "SlurmRequeued", seconds=SECONDS,
    )  # fmt: skip
    assert (status["phase"], condition(status, "DisruptionTarget")) == ("Running", {})
    assert status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] != 0
    assert len(pods.jobs(name)) == 1
    pods.wait_events(name, "SlurmRequeued")
    pods.kubectl("delete", "pod", name, "--grace-period=1", "--wait=false")


@pytest.fixture
def broken(pods: Pods, admin: Admin) -> Iterator[tuple[str, str]]:
    """Two jobs that their node can't start: where each job's directory is to be, there is a file."""
    jobs = job_of(pods, "unlaunched"), job_of(pods, "unlaunched-again")
    spool = next(line for line in admin("scontrol", "show", "config").splitlines() if line.startswith("SlurmdSpoolDir"))
    paths = [f"{spool.split('=')[1].strip().replace('%n', BROKEN)}/job{int(job):05}" for job in jobs]
    admin("touch", *paths)
    yield jobs
    admin("rm", "-rf", *paths)


def test_a_job_that_the_node_can_not_launch_is_a_disruption_or_held(
    pods: Pods, admin: Admin, broken: tuple[str, str]
) -> None:
    for job in broken:
        admin("scontrol", "update", f"jobid={job}", "starttime=now")
    reason, message, disrupted = ended(pods, "unlaunched")
    assert (reason, disrupted) == ("SlurmLaunchFailed", "True"), message
    assert BROKEN in message
    pods.wait_events("unlaunched", "SlurmLaunchFailed")
    # The one that may be requeued: an administrator is to let it go.
    held = pods.wait(
        "unlaunched-again", "to be held", lambda s: "launch failed requeued held" in json.dumps(s).replace("_", " ")
    )
    assert held["phase"] == "Pending"
    pods.kubectl("delete", "pod", "unlaunched-again", "--grace-period=1", "--wait=false")


def test_a_job_that_can_not_end_before_its_deadline_is_ended_by_slurm(pods: Pods, admin: Admin) -> None:
    job = job_of(pods, "late")
    for change in ("deadline=now+30", "starttime=now"):  # 22.05 looks at jobs only that could start
        admin("scontrol", "update", f"jobid={job}", change)
    assert ended(pods, "late")[::2] == ("DeadlineExceeded", "")
    pods.wait_events("late", "DeadlineExceeded")


def test_a_suspended_job_is_a_pod_that_is_not_ready_and_comes_back(pods: Pods, admin: Admin) -> None:
    pods.wait_phase("suspended", "Running", seconds=SECONDS)
    before = pods.container("suspended")
    job = job_of(pods, "suspended")
    admin("scontrol", "suspend", job)
    status = pods.wait("suspended", "not to be ready", lambda s: condition(s, "Ready").get("status") == "False")
    assert status["phase"] == "Running"
    assert "running" in pods.container("suspended")["state"]
    admin("scontrol", "resume", job)
    pods.wait("suspended", "to be ready again", lambda s: condition(s, "Ready").get("status") == "True")
    after = pods.container("suspended")
    assert (after["restartCount"], after["containerID"]) == (before["restartCount"], before["containerID"])
    pods.wait_events("suspended", "SlurmSuspended", "SlurmResumed")


def test_a_cancellation_names_who_did_it_and_is_no_disruption(pods: Pods, admin: Admin, testbed: Testbed) -> None:
    for name in ("ended-by-root", "ended-by-user"):
        pods.wait_phase(name, "Running", seconds=SECONDS)
    admin("scancel", job_of(pods, "ended-by-root"))
    testbed.run("scancel", job_of(pods, "ended-by-user"))
    for name, who in (("ended-by-root", "root"), ("ended-by-user", "alice")):
        reason, message, disrupted = ended(pods, name)
        assert (reason, disrupted) == ("SlurmCancelled", ""), message
        assert message.endswith(f"was cancelled by {who}")
        assert "terminated" in pods.container(name)["state"]
        pods.wait_events(name, "SlurmCancelled")


@pytest.fixture
def silent(admin: Admin) -> Iterator[None]:
    """A node whose daemon stands still: it can't tell Slurm that it is alive, whatever an administrator says."""
    pid = processes.pid(Layout.from_environment(), f"slurmd-{FAILING}")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGCONT)
    wait_until("the node to be back", lambda: admin("sinfo", "-hn", FAILING, "-o", "%t").split()[0] in {"idle", "mix"})


def test_a_failed_node_is_a_disruption_or_a_requeue_and_out_of_allocatable_within_a_minute(
    pods: Pods, agent: Agent, admin: Admin, silent: None
) -> None:
    def offers() -> int:
        node = pods.testbed.get("node", agent.node)
        return int(node["status"]["allocatable"]["cpu"]) if node else 0

    for name in ("failing", "failing-again"):
        pods.wait_phase(name, "Running", seconds=SECONDS)
    before, began = offers(), time.monotonic()
    admin("scontrol", "update", f"nodename={FAILING}", "state=down", "reason=test")
    try:
        reason, message, disrupted = ended(pods, "failing")
        requeued(pods, "failing-again")
        wait_until("the node to be out of it", lambda: offers() == before - 160, seconds=began + 60 - time.monotonic())
    finally:
        admin("scontrol", "update", f"nodename={FAILING}", "state=resume")
    assert (reason, disrupted) == ("SlurmNodeFail", "True"), message
    assert FAILING in message
    pods.wait_events("failing", "SlurmNodeFail")


def test_a_limit_of_a_qos_lets_a_job_wait_or_its_pod_until_there_is_room(pods: Pods) -> None:
    def waits() -> str:
        states = {name: pods.container(name).get("state", {}).get("waiting", {}).get("reason") for name in LIMITED}
        return next((name for name, reason in states.items() if reason == "SlurmLimit"), "")

    def queued() -> str:
        return next((name for name in LIMITED if "QOSMaxJobsPerUserLimit" in json.dumps(pods.status(name))), "")

    third = wait_until("one to meet the limit of submissions", waits, seconds=SECONDS)
    assert pods.jobs(third) == []
    second = wait_until("one to meet the limit of running jobs", queued, seconds=SECONDS)
    assert (pods.status(second)["phase"], len(pods.jobs(second))) == ("Pending", 1)
    others = [name for name in LIMITED if name != third]
    pods.kubectl("delete", "pod", *others, "--grace-period=1", "--wait=false")
    pods.wait_phase(third, "Running", seconds=SECONDS)


def test_a_job_above_its_memory_does_not_succeed(pods: Pods) -> None:
    """No memory cgroup here: Slurm looks now and then (``OverMemoryKill``), and tells no more than that it killed."""
    reason, message, disrupted = ended(pods, "greedy")
    assert (reason, disrupted) == ("SlurmJobFailed", ""), message
    assert "if for its memory, job.log in the job's directory says so" in message
    assert pods.terminated("greedy")["exitCode"] == 137


def victims(pods: Pods, selector: str = "batch.kubernetes.io/job-name=preemptible") -> dict[str, str]:
    """The phases of the Job's pods, by their names."""
    items = json.loads(pods.kubectl("get", "pods", f"--selector={selector}", "--output=json"))["items"]
    return {pod["metadata"]["name"]: pod["status"]["phase"] for pod in items}


def test_a_preempted_pod_of_a_job_counts_as_no_failure_and_is_replaced(pods: Pods, agent: Agent) -> None:
    """By the real Job controller, which is to ignore what has the condition DisruptionTarget: one failure is too many."""
    (first,) = wait_until("the Job's pod", lambda: victims(pods))
    pods.wait_phase(first, "Running", seconds=SECONDS)
    urgent = manifest("urgent", agent, "true", resources=ALL_H100)
    pods.apply(annotated(urgent, partition="high", gpu_type="h100"))
    reason, message, disrupted = ended(pods, first)
    assert (reason, disrupted) == ("SlurmPreempted", "True"), message
    pods.wait_events(first, "SlurmPreempted")
    pods.wait_phase("urgent", "Succeeded", seconds=SECONDS)
    (second,) = wait_until("its replacement", lambda: victims(pods).keys() - {first}, seconds=SECONDS)
    pods.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "go"}, "data": {"on": ""}})
    pods.kubectl("annotate", "pod", second, "example.org/look=now")

    def job() -> Any:
        return (pods.testbed.get("job", "preemptible", pods.namespace) or {}).get("status", {})

    status = wait_until("the Job to be complete", lambda: (s := job()).get("succeeded") == 1 and s, seconds=SECONDS)
    assert status.get("failed", 0) == 0, status
    assert victims(pods) == {first: "Failed", second: "Succeeded"}


def test_a_preempted_job_that_may_be_requeued_keeps_its_pod_and_a_service_gets_another(
    pods: Pods, agent: Agent, admin: Admin
) -> None:
    """One job takes both their nodes. The service's own may not be requeued: Slurm ends it all the same."""
    (first,) = wait_until("the service's pod", lambda: victims(pods, "app=preemptible-service"))
    for name in ("preempted-again", first):
        pods.wait_phase(name, "Running", seconds=SECONDS)
    admin("scontrol", "update", "partitionname=low", "preemptmode=requeue")
    try:
        more = manifest("more-urgent", agent, "true", resources=ALL_A100)
        pods.apply(annotated(more, partition="high", gpu_type="a100"))
        pods.wait_phase("more-urgent", "Succeeded", seconds=SECONDS)
    finally:
        admin("scontrol", "update", "partitionname=low", "preemptmode=cancel")
    requeued(pods, "preempted-again")
    reason, message, disrupted = ended(pods, first)
    assert (reason, disrupted) == ("SlurmPreempted", "True"), message
    wait_until("another", lambda: victims(pods, "app=preemptible-service").keys() - {first})
    pods.kubectl("wait", "deployment/preemptible-service", "--for=condition=available", "--timeout=55s")
