import itertools
import json
import re
from typing import Any

import pytest

from slurm_plugin.contract import PodReport
from slurm_plugin.job import ExitCode, JobFlag, JobId, JobState, JobStatus, PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.podstatus import TERMINAL_PHASES, failed_status, phase_of, pod_status, timestamp, waiting_status
from slurm_plugin.runner.state import Condition, ContainerState, RunnerState, Running, Terminated, Waiting

from .manifests import container, make_pod

Json = dict[str, Any]
NOW = 1_795_341_600.0
IPS = ("192.0.2.1",)
BEGINNING = Waiting("ContainerCreating", "")


def ended(code: int, *, signal: int = 0, reason: str = "") -> Terminated:
    return Terminated(code, signal, reason, "", NOW - 20, NOW - 10)


def state(
    name: str, condition: Condition, *, kind: str = "app", last: Terminated | None = None, restarts: int = 0
) -> ContainerState:
    ready = isinstance(condition, Running) or (
        kind == "init" and isinstance(condition, Terminated) and condition.exit_code == 0
    )
    return ContainerState(name, kind, condition, last, restarts, isinstance(condition, Running), ready, "")


def runner(
    *states: ContainerState,
    final: bool = False,
    job_id: str = "7",
    restart: int = 0,
    reason: str = "",
    terminating: bool = False,
) -> RunnerState:
    message = "because" if reason else ""
    return RunnerState(
        1, 5, job_id, restart, "cn1", ("10.0.0.7",), ("10.0.0.7",), NOW - 30, NOW if final else 0.0, final, terminating,
        reason, message, states, (),
    )  # fmt: skip


def job(base: JobState, *flags: JobFlag, **fields: Any) -> JobStatus:
    begun = base is not JobState.PENDING
    defaults: Json = {"start_time": int(NOW) - 40 if begun else None, "end_time": int(NOW) - 5 if base.ended else None,
                      "restart_count": 0, "node_list": "cn1"}  # fmt: skip
    return JobStatus(JobId("7"), base, frozenset(flags), **(defaults | fields))


def report(job: JobStatus | None, runner: RunnerState | None = None, *, absent: bool = False) -> PodReport:
    return PodReport(PodUid("u"), "default", "web", JobId("7"), job, runner, absent)


def status(pod: Pod, told: PodReport | None, *, now: float = NOW) -> Json:
    result = pod_status(pod, told, now=now, node_ips=IPS)
    assert_acceptable(pod, result)
    return result


def condition(result: Json, kind: str) -> Json:
    found: list[Json] = [item for item in result["conditions"] if item["type"] == kind]
    assert len(found) == 1, f"{kind} stands {len(found)} times"
    return found[0]


def states(result: Json) -> dict[str, Json]:
    """The state of each container, by its name."""
    both = result["containerStatuses"] + result.get("initContainerStatuses", [])
    return {item["name"]: item["state"] for item in both}


# What the API server takes: the fields of PodStatus (core/v1, Kubernetes 1.36) that we write, and their types


def _time(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value) is not None


def _text(value: object) -> bool:
    return isinstance(value, str)


def _maybe_text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _maybe_time(value: object) -> bool:
    return value is None or _time(value)


def _number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _ips(value: object) -> bool:
    return isinstance(value, list) and all(set(item) == {"ip"} for item in value)


def _amounts(value: object) -> bool:
    return isinstance(value, dict) and all(map(_text, value.values()))


def _terminated(value: Json) -> bool:
    fields = {"exitCode": _number, "signal": _number, "reason": _text, "message": _text, "startedAt": _maybe_time,
              "finishedAt": _maybe_time, "containerID": _text}  # fmt: skip
    return "exitCode" in value and all(fields[key](item) for key, item in value.items())


def _state(value: Json) -> bool:
    kinds = {
        "waiting": lambda body: set(body) <= {"reason", "message"} and all(map(_text, body.values())),
        "running": lambda body: set(body) == {"startedAt"} and _time(body["startedAt"]),
        "terminated": _terminated,
    }
    return len(value) <= 1 and all(kinds[kind](body) for kind, body in value.items())


CONTAINER_FIELDS = {
    "name": _text, "image": _text, "imageID": _text, "containerID": _text, "ready": _flag, "started": _flag,
    "restartCount": _number, "state": _state, "lastState": _state,
    "allocatedResources": _amounts, "resources": lambda value: set(value) <= {"limits", "requests"} and all(map(_amounts, value.values())),
}  # fmt: skip
CONDITION_FIELDS = {
    "type": _text, "status": lambda value: value in {"True", "False", "Unknown"}, "reason": _maybe_text, "message": _maybe_text,
    "lastTransitionTime": _time, "observedGeneration": _number,
}  # fmt: skip
STATUS_FIELDS = {
    "phase": lambda value: value in {"Pending", "Running", "Succeeded", "Failed", "Unknown"}, "reason": _maybe_text,
    "message": _maybe_text, "conditions": lambda _: True, "containerStatuses": lambda _: True,
    "initContainerStatuses": lambda _: True, "hostIP": _maybe_text, "hostIPs": _ips, "podIP": _text, "podIPs": _ips,
    "startTime": _time, "observedGeneration": _number,
}  # fmt: skip


def assert_acceptable(pod: Pod, result: Json) -> None:
    """Fail unless a status is one that the API server takes, and one that makes sense."""
    assert json.loads(json.dumps(result)) == result
    for key, value in result.items():
        assert STATUS_FIELDS[key](value), (key, value)
    assert len({item["type"] for item in result["conditions"]}) == len(result["conditions"])
    for item in result["conditions"]:
        if item.get("$patch") == "delete":
            continue
        assert all(CONDITION_FIELDS[key](value) for key, value in item.items()), item
    both = (("containerStatuses", pod.spec.containers), ("initContainerStatuses", pod.spec.init_containers))
    for kind, containers in both:
        found = result.get(kind, [])
        assert [item["name"] for item in found] == [c.name for c in containers]
        for item in found:
            assert all(CONTAINER_FIELDS[key](value) for key, value in item.items()), item
            assert len(item["state"]) == 1
            assert not (item["ready"] and "waiting" in item["state"])
            assert item["restartCount"] >= 0
    ready = condition(result, "Ready")["status"] == "True"
    assert not ready or (result["phase"] == "Running" and all(item["ready"] for item in result["containerStatuses"]))


# Every state and flag of Slurm with every runner and restartPolicy

ONE = make_pod(container("main"), initContainers=[container("init")], restartPolicy="Never")
INIT_DONE = state("init", ended(0), kind="init")
INIT_WAITS = state("init", Waiting("PodInitializing", ""), kind="init")
RUNNERS: dict[str, RunnerState | None] = {
    "none": None,
    "beginning": runner(INIT_WAITS, state("main", Waiting("PodInitializing", ""))),
    "live": runner(INIT_DONE, state("main", Running(NOW - 20))),
    "restarting": runner(INIT_DONE, state("main", Waiting("CrashLoopBackOff", ""), last=ended(1), restarts=1)),
    "ending": runner(INIT_DONE, state("main", ended(0)), terminating=True),
    "good": runner(INIT_DONE, state("main", ended(0)), final=True),
    "bad": runner(INIT_DONE, state("main", ended(3)), final=True),
    "late": runner(INIT_DONE, state("main", ended(0)), final=True, reason="DeadlineExceeded"),
    "stopped": runner(INIT_DONE, state("main", ended(0)), final=True, terminating=True),
    "other run": runner(INIT_DONE, state("main", ended(0)), final=True, restart=-1),
    "other job": runner(INIT_DONE, state("main", ended(0)), final=True, job_id="6"),
    "empty": runner(final=True),
    "unknown names": runner(state("x", ended(0)), final=True),
}
FLAGS = [(), *((flag,) for flag in JobFlag), (JobFlag.COMPLETING, JobFlag.REQUEUED)]
POLICIES = ["Never", "OnFailure", "Always"]
BEFORE: list[Json] = [{}, {"phase": "Pending"}, {"phase": "Running", "startTime": "2026-11-22T09:00:00Z"}]

PODS = [
    ONE.model_copy(update={"status": before, "spec": ONE.spec.model_copy(update={"restart_policy": policy})})
    for policy, before in itertools.product(POLICIES, BEFORE)
]


@pytest.mark.parametrize("known", RUNNERS)
@pytest.mark.parametrize("base", JobState)
def test_every_state_of_slurm_and_of_the_runner_is_a_valid_status(base: JobState, known: str) -> None:
    looked_at = set()  # most of the thousands are equal
    for flags, pod in itertools.product(FLAGS, PODS):
        before, told = pod.status, report(job(base, *flags), RUNNERS[known])
        result = pod_status(pod, told, now=NOW, node_ips=IPS)
        if result == before:  # nothing is known of the containers yet: what was last written stands
            assert (known, told.over) == ("none", False)
            continue
        if (text := repr(result)) not in looked_at:
            assert_acceptable(pod, result)
            looked_at.add(text)
        assert (result["phase"] in TERMINAL_PHASES) == told.over
        if result["phase"] == "Succeeded":
            assert known in {"good", "stopped"}
        if known == "good" and told.over:
            assert result["phase"] == "Succeeded"
        assert not (before.get("phase") == "Running" and result["phase"] == "Pending")
        assert result.get("startTime") == before.get("startTime", result.get("startTime"))
        again = pod_status(pod.model_copy(update={"status": result}), told, now=NOW + 99, node_ips=IPS)
        assert again == result, "the same report a second time changes the status"


@pytest.mark.parametrize("phase", sorted(TERMINAL_PHASES))
def test_a_terminal_phase_is_never_left(phase: str) -> None:
    before = {"phase": phase, "message": "kept"}
    pod = make_pod(status=before)
    for base, known in itertools.product(JobState, RUNNERS.values()):
        assert pod_status(pod, report(job(base), known), now=NOW, node_ips=IPS) == before
    assert pod_status(pod, None, now=NOW, node_ips=IPS) == before
    assert waiting_status(pod, "X", "x", now=NOW, node_ips=IPS) == before
    assert failed_status(pod, "X", "x", now=NOW, node_ips=IPS) == before


# The phase by the kubelet's rules

WAITS, RUNS = BEGINNING, Running(NOW)
BACK_OFF = Waiting("CrashLoopBackOff", "")


def init(condition: Condition) -> ContainerState:
    return state("i", condition, kind="init")


def sidecar(condition: Condition) -> ContainerState:
    return state("s", condition, kind="sidecar")


def app(condition: Condition, last: Terminated | None = None, name: str = "a") -> ContainerState:
    return state(name, condition, last=last)


@pytest.mark.parametrize(
    ("containers", "live", "over"),
    [
        ([], "Running", "Failed"),
        ([app(WAITS)], "Pending", "Failed"),
        ([app(RUNS)], "Running", "Failed"),
        ([app(ended(0))], "Running", "Succeeded"),
        ([app(ended(1))], "Running", "Failed"),
        ([app(ended(0)), app(ended(1), name="b")], "Running", "Failed"),
        ([app(ended(0)), app(ended(0), name="b")], "Running", "Succeeded"),
        ([app(ended(0)), app(WAITS, name="b")], "Pending", "Failed"),
        ([app(ended(0)), app(RUNS, name="b")], "Running", "Failed"),
        ([app(BACK_OFF, ended(1))], "Running", "Failed"),
        ([init(WAITS), app(WAITS)], "Pending", "Failed"),
        ([init(RUNS), app(WAITS)], "Pending", "Failed"),
        ([init(ended(1)), app(WAITS)], "Pending", "Failed"),
        ([init(ended(0)), app(WAITS)], "Pending", "Failed"),
        ([init(ended(0)), app(RUNS)], "Running", "Failed"),
        ([init(WAITS), app(BACK_OFF, ended(1))], "Running", "Failed"),
        ([sidecar(WAITS), app(WAITS)], "Pending", "Failed"),
        ([sidecar(RUNS), app(WAITS)], "Pending", "Failed"),
        ([sidecar(ended(137)), app(ended(0))], "Running", "Succeeded"),
    ],
)
def test_the_phase_is_the_kubelets(containers: list[ContainerState], live: str, over: str) -> None:
    assert (phase_of(containers, over=False), phase_of(containers, over=True)) == (live, over)


# The endings of a job

POD = make_pod(container("main"), container("helper"), restartPolicy="Never")
RUNNING = runner(state("main", Running(NOW - 20)), state("helper", Running(NOW - 20)))
STOPPED = runner(state("main", ended(143)), state("helper", ended(0)), final=True, terminating=True)


@pytest.mark.parametrize("known", [RUNNING, STOPPED], ids=["killed", "stopped in order"])
@pytest.mark.parametrize(
    ("base", "fields", "reason", "words", "disrupted"),
    [
        (JobState.TIMEOUT, {}, "DeadlineExceeded", "Slurm job 7 reached its time limit", False),
        (JobState.DEADLINE, {}, "DeadlineExceeded", "Slurm job 7 reached its deadline", False),
        (JobState.PREEMPTED, {}, "SlurmPreempted", "Slurm job 7 was preempted by Slurm", True),
        (JobState.NODE_FAIL, {}, "SlurmNodeFail", "Slurm job 7 ended because of a failed node on cn1", True),
        (JobState.CANCELLED, {"cancelled_by": "root"}, "SlurmCancelled", "Slurm job 7 was cancelled by root", False),
        (JobState.CANCELLED, {}, "SlurmCancelled", "Slurm job 7 was cancelled", False),
    ],
)  # fmt: skip
def test_every_ending_from_outside_has_its_own_reason(
    base: JobState, fields: Json, reason: str, words: str, disrupted: bool, known: RunnerState
) -> None:
    result = status(POD, report(job(base, **fields), known))
    assert (result["phase"], result["reason"], result["message"]) == ("Failed", reason, words)
    disruptions = [item for item in result["conditions"] if item["type"] == "DisruptionTarget"]
    assert [item["status"] for item in disruptions] == ["True"] * disrupted
    assert all("terminated" in item for item in states(result).values())


@pytest.mark.parametrize("code", [0, 143])
def test_a_container_that_slurms_signal_met_before_the_runner_heard_of_it_has_no_end_of_its_own(code: int) -> None:
    struck = Terminated(code, 0, "", "", NOW - 20, NOW - 6)
    known = runner(state("main", struck), state("helper", ended(0)), final=True)
    result = status(POD, report(job(JobState.PREEMPTED), known))
    assert (result["phase"], result["reason"]) == ("Failed", "SlurmPreempted")
    assert condition(result, "DisruptionTarget")["status"] == "True"


def test_what_ended_by_itself_before_the_job_was_ended_stays_as_it_was() -> None:
    for code, phase in ((0, "Succeeded"), (3, "Failed")):
        known = runner(state("main", ended(code)), state("helper", ended(0)), final=True)
        result = status(POD, report(job(JobState.NODE_FAIL), known))
        assert (result["phase"], result["reason"]) == (phase, None)


@pytest.mark.parametrize(
    ("base", "reason"), [(JobState.BOOT_FAIL, "SlurmNodeFail"), (JobState.OUT_OF_MEMORY, "OutOfMemory")]
)
def test_the_endings_that_kill_the_runner_too(base: JobState, reason: str) -> None:
    assert status(POD, report(job(base), RUNNING))["reason"] == reason


def test_out_of_memory_names_no_container_of_several_that_ran() -> None:
    known = runner(state("main", Running(NOW - 20)), state("helper", Running(NOW - 20)))
    result = status(POD, report(job(JobState.OUT_OF_MEMORY), known))
    assert (result["phase"], result["reason"]) == ("Failed", "OutOfMemory")
    for item in states(result).values():
        assert (item["terminated"]["reason"], item["terminated"]["exitCode"]) == ("Error", 137)
        assert "more memory than it asked for" in item["terminated"]["message"]


def test_of_a_runner_that_failed_no_container_runs_for_ever() -> None:
    known = runner(state("main", Running(NOW - 20)), state("helper", ended(0)), final=True, reason="RunnerFailed")
    result = status(POD, report(job(JobState.FAILED), known))
    main = states(result)["main"]["terminated"]
    assert (main["exitCode"], main["reason"], main["message"]) == (137, "Error", "because")
    assert not any(item["ready"] for item in result["containerStatuses"])


def test_out_of_memory_kills_the_containers_that_ran() -> None:
    known = runner(state("main", Running(NOW - 20)), state("helper", ended(0)))
    result = states(status(POD, report(job(JobState.OUT_OF_MEMORY), known)))
    assert (result["main"]["terminated"]["reason"], result["main"]["terminated"]["exitCode"]) == ("OOMKilled", 137)
    assert result["main"]["terminated"]["finishedAt"] == timestamp(NOW - 5)
    assert result["helper"]["terminated"]["reason"] == "Completed"


def test_a_job_that_succeeded_without_its_runners_word_is_no_success() -> None:
    result = status(POD, report(job(JobState.COMPLETED, exit_code=ExitCode(0, 0))))
    assert (result["phase"], result["reason"]) == ("Failed", "SlurmJobFailed")
    assert "ended as COMPLETED with exit code 0:0" in result["message"]
    assert "its runner never started" in result["message"]


def test_a_job_whose_runner_was_killed_says_where_the_cause_is_to_be_read() -> None:
    result = status(POD, report(job(JobState.FAILED, exit_code=ExitCode(0, 9)), RUNNING))
    assert result["message"].endswith("it was killed: if for its memory, job.log in the job's directory says so")
    assert states(result)["main"]["terminated"]["exitCode"] == 137
    result = status(POD, report(job(JobState.FAILED, exit_code=ExitCode(1, 0)), RUNNING))
    assert result["message"].endswith("without its runner having finished")


def test_a_job_that_could_not_be_launched_says_so() -> None:
    result = status(POD, report(job(JobState.FAILED, JobFlag.LAUNCH_FAILED)))
    assert (result["phase"], result["reason"]) == ("Failed", "SlurmLaunchFailed")


def test_a_job_that_root_cancelled_before_its_runner_started_is_a_failed_launch_or_says_that_it_may_be() -> None:
    cancelled = job(JobState.CANCELLED, cancelled_by="root")
    result = status(POD, report(cancelled))
    assert (result["phase"], result["reason"]) == ("Failed", "SlurmLaunchFailed")
    assert "the node could not launch it, or root cancelled it" in result["message"]
    assert condition(result, "DisruptionTarget")["status"] == "True"
    for other in ({"cancelled_by": "alice"}, {"cancelled_by": "root", "node_list": ""}):
        assert status(POD, report(job(JobState.CANCELLED, **other)))["reason"] == "SlurmCancelled"


def test_a_lost_job_leaves_containers_of_unknown_status() -> None:
    result = status(POD, report(None, RUNNING, absent=True))
    assert (result["phase"], result["reason"]) == ("Failed", "SlurmJobLost")
    assert states(result)["main"]["terminated"]["reason"] == "ContainerStatusUnknown"


def test_a_lost_job_without_a_directory_is_told_by_what_was_last_written() -> None:
    before = status(POD, report(job(JobState.RUNNING), runner(
        state("main", Running(NOW - 20), last=ended(1), restarts=2), state("helper", ended(0)))))  # fmt: skip
    pod = POD.model_copy(update={"status": before})
    lost = PodReport(PodUid("u"), "default", "web", None, None, None, absent=True)
    result = status(pod, lost)
    main, helper = result["containerStatuses"]
    assert main["state"]["terminated"]["reason"] == "ContainerStatusUnknown"
    assert (main["restartCount"], main["lastState"]["terminated"]["exitCode"]) == (2, 1)
    assert helper["state"]["terminated"]["exitCode"] == 0
    assert result["startTime"] == before["startTime"]


def test_the_runners_last_word_stands_when_accounting_knows_nothing() -> None:
    known = runner(state("main", ended(0)), state("helper", ended(0)), final=True)
    assert status(POD, report(None, known, absent=True))["phase"] == "Succeeded"


def test_a_failed_container_is_reason_enough() -> None:
    known = runner(state("main", ended(3)), state("helper", ended(0)), final=True)
    result = status(POD, report(job(JobState.FAILED), known))
    assert (result["phase"], result["reason"]) == ("Failed", None)
    assert states(result)["main"]["terminated"]["exitCode"] == 3


def test_a_pod_beyond_its_deadline_has_failed_whatever_its_exit_codes() -> None:
    known = runner(state("main", ended(0)), state("helper", ended(0)), final=True, reason="DeadlineExceeded")
    result = status(POD, report(job(JobState.FAILED), known))
    assert (result["phase"], result["reason"], result["message"]) == ("Failed", "DeadlineExceeded", "because")


def test_a_deleted_pod_whose_containers_ended_well_has_succeeded() -> None:
    pod = make_pod(container("main"), metadata={"deletionTimestamp": "2026-11-22T10:00:00Z"})
    known = runner(state("main", ended(0)), final=True, terminating=True)
    assert status(pod, report(job(JobState.CANCELLED), known))["phase"] == "Succeeded"


def test_containers_that_never_ran_keep_waiting() -> None:
    assert states(status(POD, report(job(JobState.CANCELLED))))["main"] == {"waiting": {"reason": "ContainerCreating"}}


@pytest.mark.parametrize("base", [JobState.COMPLETED, JobState.PREEMPTED, JobState.CANCELLED])
def test_no_phase_is_terminal_while_processes_of_the_job_may_live(base: JobState) -> None:
    known = runner(state("main", ended(0)), state("helper", ended(0)), final=True)
    assert status(POD, report(job(base, JobFlag.COMPLETING), known))["phase"] == "Running"


# Waiting, running, running again


def test_a_waiting_job_is_a_pending_pod_with_slurms_reason() -> None:
    result = status(POD, report(job(JobState.PENDING, reason="Resources", start_time=int(NOW) + 500)))
    assert result["phase"] == "Pending"
    message = states(result)["main"]["waiting"]["message"]
    assert message.startswith("Slurm job 7 is PENDING: Resources; expected to start by 20")
    network = condition(result, "PodReadyToStartContainers")
    assert (network["status"], network["reason"], network["message"]) == ("False", "SlurmQueued", message)
    assert result["message"] == message, "kubectl describe shows no other"
    assert "startTime" not in result, "an estimate is no start"
    assert status(POD, report(job(JobState.RUNNING)))["message"] is None


def test_a_pod_with_init_containers_waits_in_kubernetes_words() -> None:
    assert states(status(ONE, report(job(JobState.PENDING))))["main"]["waiting"]["reason"] == "PodInitializing"


def test_a_submitted_job_that_slurm_was_not_asked_about_yet_waits() -> None:
    result = status(POD, report(None))
    assert result["phase"] == "Pending"
    assert condition(result, "PodReadyToStartContainers")["status"] == "False"


def test_a_job_with_nodes_is_ready_to_start_containers() -> None:
    assert condition(status(POD, report(job(JobState.RUNNING))), "PodReadyToStartContainers")["status"] == "True"
    booting = status(POD, report(job(JobState.RUNNING, JobFlag.CONFIGURING)))
    assert condition(booting, "PodReadyToStartContainers")["status"] == "False"


def test_a_running_pod_says_where_and_since_when() -> None:
    result = status(POD, report(job(JobState.RUNNING), RUNNING))
    assert (result["phase"], result["startTime"]) == ("Running", timestamp(NOW - 40))
    assert (result["podIP"], result["podIPs"]) == ("10.0.0.7", [{"ip": "10.0.0.7"}])
    assert (result["hostIP"], result["hostIPs"]) == ("192.0.2.1", [{"ip": "192.0.2.1"}])
    assert condition(result, "Ready")["status"] == "True"
    assert result["containerStatuses"][0]["containerID"] == "slurm://7.0/main/0"


def test_the_start_is_set_once() -> None:
    pod = POD.model_copy(update={"status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z"}})
    assert status(pod, report(job(JobState.RUNNING), RUNNING))["startTime"] == "2026-01-01T00:00:00Z"


def test_a_requeued_job_keeps_the_pod_running_and_remembers_what_was() -> None:
    told = report(job(JobState.PENDING, restart_count=1, reason="BeginTime"), RUNNING)
    result = status(POD, told)
    assert result["phase"] == "Running"
    main = result["containerStatuses"][0]
    assert main["state"]["waiting"]["reason"] == "SlurmRequeued"
    assert (main["restartCount"], main["lastState"]["terminated"]["reason"]) == (1, "SlurmRequeued")
    assert condition(result, "Ready")["status"] == "False"


def test_a_runner_that_is_ahead_of_slurms_word_is_believed() -> None:
    known = runner(state("main", Running(NOW)), state("helper", Running(NOW)), restart=1)
    assert "running" in states(status(POD, report(job(JobState.PENDING, restart_count=0), known)))["main"]


def test_a_restarted_agent_that_knows_only_the_queue_changes_nothing() -> None:
    before = status(POD, report(job(JobState.RUNNING), RUNNING))
    pod = POD.model_copy(update={"status": before})
    assert status(pod, report(job(JobState.RUNNING))) == before


def test_a_back_off_shows_the_run_that_ended() -> None:
    known = runner(state("main", BACK_OFF, last=ended(1), restarts=2), state("helper", Running(NOW)))
    main = status(POD, report(job(JobState.RUNNING), known))["containerStatuses"][0]
    assert main["lastState"]["terminated"]["containerID"] == "slurm://7.0/main/2"


# Conditions


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    first = status(POD, report(job(JobState.RUNNING), RUNNING), now=NOW)
    pod = POD.model_copy(update={"status": first})
    second = status(pod, report(job(JobState.RUNNING), RUNNING), now=NOW + 60)
    assert second["conditions"] == first["conditions"]
    lost = runner(state("main", ended(1)), state("helper", Running(NOW)))
    third = status(pod, report(job(JobState.RUNNING), lost), now=NOW + 60)
    assert condition(third, "Ready")["lastTransitionTime"] == timestamp(NOW + 60)
    assert condition(third, "Initialized")["lastTransitionTime"] == timestamp(NOW)


def test_what_is_not_ready_is_named() -> None:
    known = runner(state("main", ended(1)), state("helper", Running(NOW)))
    ready = condition(status(POD, report(job(JobState.RUNNING), known)), "ContainersReady")
    assert (ready["reason"], ready["message"]) == ("ContainersNotReady", "containers with unready status: [main]")


def test_what_is_not_initialized_is_named() -> None:
    initialized = condition(status(ONE, report(job(JobState.RUNNING), RUNNERS["beginning"])), "Initialized")
    assert (initialized["status"], initialized["reason"]) == ("False", "ContainersNotInitialized")
    assert initialized["message"] == "containers with incomplete status: [init]"


def test_a_readiness_gate_holds_readiness_back() -> None:
    for gate, ready in (("True", "True"), ("False", "False"), (None, "False")):
        given = [{"type": "example.org/gate", "status": gate}] if gate else []
        pod = make_pod(
            container("main"), readinessGates=[{"conditionType": "example.org/gate"}], status={"conditions": given}
        )
        result = status(pod, report(job(JobState.RUNNING), runner(state("main", Running(NOW)))))
        assert condition(result, "Ready")["status"] == ready
        assert condition(result, "ContainersReady")["status"] == "True"


@pytest.mark.parametrize(("known", "reason"), [("good", "PodCompleted"), ("bad", "PodFailed")])
def test_an_ended_pod_is_not_ready_and_says_why(known: str, reason: str) -> None:
    result = status(ONE, report(job(JobState.COMPLETED), RUNNERS[known]))
    for kind in ("Ready", "ContainersReady"):
        assert (condition(result, kind)["status"], condition(result, kind)["reason"]) == ("False", reason)


def test_a_pod_says_of_which_generation_its_status_is() -> None:
    result = status(make_pod(metadata={"generation": 3}), report(job(JobState.PENDING)))
    assert result["observedGeneration"] == 3
    assert all(item["observedGeneration"] == 3 for item in result["conditions"])


# Pods without a job


def test_a_pod_that_waits_for_something_else_says_what() -> None:
    result = waiting_status(POD, "CreateContainerConfigError", 'secret "s" not found', now=NOW, node_ips=IPS)
    assert_acceptable(POD, result)
    assert result["phase"] == "Pending"
    assert states(result)["main"]["waiting"] == {
        "reason": "CreateContainerConfigError",
        "message": 'secret "s" not found',
    }
    assert status(POD, None)["phase"] == "Pending"


def test_a_refused_pod_has_failed_with_the_reason() -> None:
    result = failed_status(POD, "PodFeatureUnsupported", "spec.hostPID: no", now=NOW, node_ips=())
    assert result["containerStatuses"] == []
    assert (result["phase"], result["reason"], result["message"]) == (
        "Failed", "PodFeatureUnsupported", "spec.hostPID: no",
    )  # fmt: skip
    assert result["hostIP"] is None


def test_a_suspended_job_leaves_its_containers_running_and_not_ready() -> None:
    before = status(POD, report(job(JobState.RUNNING), RUNNING))
    suspended = status(POD, report(job(JobState.SUSPENDED), RUNNING))
    assert condition(before, "Ready")["status"] == "True"
    assert suspended["phase"] == "Running"
    assert states(suspended)["main"]["running"]
    assert suspended["containerStatuses"][0]["restartCount"] == 0
    assert condition(suspended, "Ready")["status"] == condition(suspended, "ContainersReady")["status"] == "False"


EXIT_CODES = [None, *(ExitCode(code, signal) for code, signal in ((0, 0), (1, 0), (127, 0), (255, 0), (0, 9), (0, 15)))]


@pytest.mark.parametrize("base", JobState)
def test_every_state_flag_exit_code_and_runner_state_has_one_defined_ending(base: JobState) -> None:
    flags = [(), *((flag,) for flag in JobFlag)]
    told_with = [(flag, code, False) for flag in flags for code in EXIT_CODES] + [
        ((), code, True) for code in EXIT_CODES
    ]
    for known, (flag, code, gone) in itertools.product(RUNNERS, told_with):
        told = report(job(base, *flag, exit_code=code), RUNNERS[known], absent=gone)
        result = pod_status(ONE, told, now=NOW, node_ips=IPS)
        place = (base, flag, code, gone, known)
        over, runner_state = told.over, RUNNERS[known]
        assert (result["phase"] in TERMINAL_PHASES) == over, place
        if result["phase"] == "Succeeded":
            # Only the runner's own last word of this run makes a success: no exit code of Slurm's does.
            assert runner_state is not None
            assert runner_state.final, place
            assert all(
                isinstance(each.state, Terminated) and not each.state.exit_code for each in runner_state.containers
            )
        if result["phase"] == "Failed" and not (runner_state is not None and runner_state.final):
            assert result["reason"], place
            assert result["message"], place
        if over:
            assert not any("running" in each for each in states(result).values()), place
        disrupted = [each for each in result["conditions"] if each["type"] == "DisruptionTarget"]
        assert len(disrupted) <= 1
        if disrupted:
            assert result["phase"] == "Failed", place
            causes = {JobState.PREEMPTED, JobState.NODE_FAIL, JobState.BOOT_FAIL}
            assert base in causes or JobFlag.LAUNCH_FAILED in flag, place
        written = ONE.model_copy(update={"status": result})
        if over:
            other = report(job(JobState.RUNNING), RUNNERS["none"])
            assert pod_status(written, other, now=NOW, node_ips=IPS) == result, place


@pytest.mark.parametrize(
    ("policy", "code", "kept"), [("Never", 0, True), ("Never", 1, True), ("OnFailure", 0, True), ("OnFailure", 1, False), ("Always", 0, False)]
)  # fmt: skip
def test_a_requeued_container_leaves_its_end_only_where_the_api_server_lets_it(
    policy: str, code: int, kept: bool
) -> None:
    pod = make_pod(container("main"), restartPolicy=policy)
    first = status(pod, report(job(JobState.RUNNING), runner(state("main", ended(code)), terminating=True)))
    pod = pod.model_copy(update={"status": first})
    waiting = status(
        pod, report(job(JobState.PENDING, restart_count=1), runner(state("main", ended(code)), final=True))
    )
    assert ("terminated" in states(waiting)["main"]) is kept
    assert waiting["phase"] == "Running"
    again = status(
        pod.model_copy(update={"status": waiting}),
        report(job(JobState.COMPLETED, restart_count=1), runner(state("main", ended(0)), final=True, restart=1)),
    )
    assert (again["phase"], states(again)["main"]["terminated"]["exitCode"]) == ("Succeeded", 0)


def test_a_containers_image_is_what_its_last_run_was_started_with_and_before_one_what_the_pod_asks_for() -> None:
    pod = make_pod(container(name="a", image="new:2"))
    for known, shown in ((app(WAITS), "new:2"), (app(RUNS)._replace(image="old:1"), "old:1")):
        result = pod_status(pod, report(job(JobState.RUNNING), runner(known)), now=NOW, node_ips=())
        assert result["containerStatuses"][0]["image"] == shown


def test_a_resize_is_infeasible_until_the_spec_is_again_what_the_job_was_made_with() -> None:
    def pod_with(cpu: str, before: Json | None = None) -> Pod:
        resources = {"requests": {"cpu": cpu}, "limits": {"memory": "1Gi"}}
        return make_pod(container("main", resources=resources), container("other"), status=before)

    runs = report(job(JobState.RUNNING), runner(state("main", Running(NOW - 20)), state("other", Running(NOW - 20))))
    first = status(pod_with("1"), runs)
    main, other = first["containerStatuses"]
    assert main["resources"] == {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}
    assert (main["allocatedResources"], other["resources"]) == ({"cpu": "1"}, {})
    resized = status(pod_with("2", first), runs)
    assert resized["containerStatuses"] == first["containerStatuses"], "the job is what it was"
    found = condition(resized, "PodResizePending")
    assert (found["status"], found["reason"]) == ("True", "Infeasible")
    assert found["message"].startswith("spec.containers[0].resources: ")
    back = status(pod_with("1", resized), runs)
    assert {"type": "PodResizePending", "$patch": "delete"} in back["conditions"]
    ended_well = runner(state("main", ended(0)), state("other", ended(0)), final=True)
    over = status(pod_with("2", resized), report(job(JobState.COMPLETED), ended_well))
    assert {"type": "PodResizePending", "$patch": "delete"} in over["conditions"]


def test_a_pod_that_has_no_job_yet_may_be_resized() -> None:
    resources = {"requests": {"cpu": "1"}}
    waits = status(make_pod(container("main", resources=resources)), None)
    assert "resources" not in waits["containerStatuses"][0]
