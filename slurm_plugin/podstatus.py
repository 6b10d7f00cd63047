"""What Slurm and the runner say of a job → PodStatus, as the JSON that the API server takes. Pure: ``now`` is passed.

Precedence (the job directory and Slurm are written at different moments): the runner's *final* state of this run, a
terminal state in Slurm, the runner's live state, what was last written. A state of another run of the same job id (a
requeue) is ignored. A terminal phase is never left, and never taken before the job itself is gone; Running is never
left for Pending.

Rules of phase, conditions and container statuses: Kubernetes 1.36, ``pkg/kubelet/kubelet_pods.go`` (``getPhase``) and
``pkg/kubelet/status/generate.go``.
"""

import functools
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from .containerstates import (
    ended_states,
    known_states,
    requeued_states,
    suspended_states,
    waiting_states,
    written_states,
)
from .contract import PodReport
from .endings import Ending, ended_from_outside, ending_of
from .job import JobFlag, JobState, JobStatus
from .pod import Pod
from .resizing import CONDITION, REASON, infeasible, made_with
from .runner import plan
from .runner.state import ContainerState, RunnerState, Running, Terminated, Waiting, last_restart

Status = dict[str, Any]
TERMINAL_PHASES = frozenset({"Succeeded", "Failed"})


@functools.lru_cache(maxsize=4096)  # every status repeats the times of those before it
def timestamp(seconds: float) -> str:
    """Return epoch seconds as the API server writes a time: RFC 3339, whole seconds, UTC."""
    return datetime.fromtimestamp(int(seconds), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def queue_message(job: JobStatus) -> str:
    """Return why a job waits, in Slurm's own word."""
    reason = f": {job.reason}" if job.reason and job.reason != "None" else ""
    return f"Slurm job {job.job_id} is {job.state}{reason}"


def _waiting_message(job: JobStatus) -> str:
    place = queue_place(job)
    return f"{queue_message(job)}; {place}" if place else queue_message(job)


def queue_place(job: JobStatus) -> str:
    """Return where a waiting job stands, as far as is known; "" for one that does not wait."""
    if job.state is not JobState.PENDING:
        return ""
    place = f"about {job.position} of {job.queue_length} waiting" if job.position is not None else ""
    words = (
        f"{place} in partition {job.partition}" if place else "",
        f"priority {job.priority}" if job.priority is not None else "",
        f"expected to start by {timestamp(job.start_time)}" if job.start_time is not None else "",
    )
    return "; ".join(word for word in words if word)


def _current(report: PodReport | None) -> RunnerState | None:
    """Return the runner's state if it speaks of the run that Slurm speaks of, or of one that Slurm was not asked about yet."""
    if report is None or report.runner is None:
        return None
    job, runner = report.job, report.runner
    if report.job_id is not None and runner.job_id != report.job_id:
        return None
    return runner if job is None or runner.restart >= (job.restart_count or 0) else None


def _container_json(state: ContainerState, image: str, run: str) -> Status:
    def terminated(ending: Terminated, attempt: int) -> Status:
        body: Status = {
            "exitCode": ending.exit_code,
            "reason": ending.reason or ("Completed" if ending.exit_code == 0 else "Error"),
            "startedAt": timestamp(ending.started_at) if ending.started_at else None,
            "finishedAt": timestamp(ending.finished_at) if ending.finished_at else None,
            "containerID": f"slurm://{run}/{state.name}/{attempt}",
        }
        if ending.signal:
            body["signal"] = ending.signal
        if ending.message:
            body["message"] = ending.message
        return {"terminated": body}

    match state.state:
        case Waiting(reason=reason, message=message):
            now: Status = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
            started = False
        case Running(started_at=at):
            now = {"running": {"startedAt": timestamp(at)}}
            started = state.started
        case Terminated() as ending:
            now = terminated(ending, state.restart_count)
            started = False
    result: Status = {
        "name": state.name,
        "image": state.image or image,
        "imageID": state.image_id,
        "ready": state.ready,
        "started": started,
        "restartCount": state.restart_count,
        "state": now,
        "lastState": {} if state.last is None else terminated(state.last, last_restart(state)),
    }
    if not isinstance(state.state, Waiting):
        result["containerID"] = f"slurm://{run}/{state.name}/{state.restart_count}"
    return result


def phase_of(states: Sequence[ContainerState], *, over: bool) -> str:
    """Return the phase by the kubelet's rules. ``over``: the job is gone; only then may the phase be a terminal one."""
    inits = [state for state in states if state.kind == plan.INIT]
    apps = [state for state in states if state.kind == plan.APP]
    started = any(not isinstance(state.state, Waiting) or state.last is not None for state in apps)
    unfinished = any(not isinstance(s.state, Terminated) or s.state.exit_code != 0 for s in inits)
    if unfinished and not started:
        return "Failed" if over else "Pending"
    endings = [state.state for state in apps if isinstance(state.state, Terminated)]
    if over:
        good = 0 < len(endings) == len(apps) and all(ending.exit_code == 0 for ending in endings)
        return "Succeeded" if good else "Failed"
    if any(isinstance(state.state, Waiting) and state.last is None for state in apps):
        return "Pending"
    return "Running"


def _old_condition(pod: Pod, kind: str) -> dict[str, Any]:
    conditions = pod.status.get("conditions") or []
    return next((dict(c) for c in conditions if c.get("type") == kind), {})


def _condition(pod: Pod, kind: str, now: float, *, value: bool, reason: str = "", message: str = "") -> Status:
    old = _old_condition(pod, kind)
    text = "True" if value else "False"
    same = old.get("status") == text and old.get("lastTransitionTime")
    result: Status = {
        "type": kind,
        "status": text,
        "lastTransitionTime": old["lastTransitionTime"] if same else timestamp(now),
    }
    if pod.metadata.generation is not None:
        result["observedGeneration"] = pod.metadata.generation
    # null removes a reason that a former condition had: conditions are merged by their type.
    return {**result, "reason": reason or None, "message": message or None}


def _conditions(pod: Pod, states: Sequence[ContainerState], phase: str, now: float, *, queue: str) -> list[Status]:
    states = [state for state in states if state.kind != plan.EPHEMERAL]
    inits = [state for state in states if state.kind != plan.APP]
    apps = [state for state in states if state.kind == plan.APP]
    started = any(not isinstance(state.state, Waiting) or state.last is not None for state in apps)
    uninitialized = [s.name for s in inits if not (s.ready if s.kind == plan.INIT else s.started or s.ready)]
    initialized = started or phase == "Succeeded" or not uninitialized
    unready = [s.name for s in states if s.kind != plan.INIT and not s.ready]
    if phase in TERMINAL_PHASES:
        reason, message = ("PodCompleted" if phase == "Succeeded" else "PodFailed"), ""
    else:
        reason, message = "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    containers_ready = phase == "Running" and not unready
    init_reason = "" if initialized else "ContainersNotInitialized"
    init_message = "" if initialized else f"containers with incomplete status: [{' '.join(uninitialized)}]"
    result = [
        _condition(
            pod, "PodReadyToStartContainers", now, value=not queue and phase not in TERMINAL_PHASES,
            reason="SlurmQueued" if queue else "", message=queue,
        ),
        _condition(pod, "Initialized", now, value=initialized, reason=init_reason, message=init_message),
        _condition(
            pod, "ContainersReady", now, value=containers_ready,
            reason="" if containers_ready else reason, message="" if containers_ready else message,
        ),
    ]  # fmt: skip
    gates = [
        g.condition_type
        for g in pod.spec.readiness_gates
        if _old_condition(pod, g.condition_type).get("status") != "True"
    ]
    if containers_ready and gates:
        reason, message = (
            "ReadinessGatesNotReady",
            f"corresponding condition of pod readiness gate {gates[0]!r} is not True",
        )
    ready = containers_ready and not gates
    result.append(
        _condition(pod, "Ready", now, value=ready, reason="" if ready else reason, message="" if ready else message)
    )
    return result


def _resize(pod: Pod, phase: str, now: float) -> list[Status]:
    """Return the condition of a resize, or what takes a former one away; a patch merges conditions by their type."""
    message = "" if phase in TERMINAL_PHASES else infeasible(pod)
    if message:
        return [_condition(pod, CONDITION, now, value=True, reason=REASON, message=message)]
    return [{"type": CONDITION, "$patch": "delete"}] if _old_condition(pod, CONDITION) else []


def _status(
    pod: Pod,
    states: Sequence[ContainerState],
    phase: str,
    *,
    now: float,
    node_ips: tuple[str, ...],
    report: PodReport | None = None,
    reason: str = "",
    message: str = "",
    queue: str = "",
    disrupted: bool = False,
) -> Status:
    spec = pod.spec
    images = {c.name: c.image for c in (*spec.init_containers, *spec.containers, *spec.ephemeral_containers)}
    run = "-"
    if report is not None:
        run = f"{report.job_id or '-'}" + (f".{report.runner.restart}" if report.runner is not None else "")
    lists = {
        "containerStatuses": (plan.APP,),
        "initContainerStatuses": (plan.INIT, plan.SIDECAR),
        "ephemeralContainerStatuses": (plan.EPHEMERAL,),
    }
    statuses = {name: [_container_json(s, images.get(s.name, ""), run) for s in states if s.kind in kinds]
                for name, kinds in lists.items()}  # fmt: skip
    sidecars = {c.name for c in pod.spec.init_containers if c.restart_policy == "Always"}
    statuses = {name: _kept(pod, name, found, sidecars) for name, found in statuses.items()}
    conditions = _conditions(pod, states, phase, now, queue=queue)
    if disrupted:
        conditions.append(_condition(pod, "DisruptionTarget", now, value=True, reason=reason, message=message))
    conditions += _resize(pod, phase, now)
    if report is not None and report.job_id is not None:
        made = made_with(pod)
        statuses = {name: [s | made.get(s["name"], {}) for s in found] for name, found in statuses.items()}
    result: Status = {
        "phase": phase,
        "reason": reason or None,
        "message": message or queue or None,  # kubectl describe shows neither a condition's message nor a container's
        "conditions": conditions,
        "containerStatuses": statuses["containerStatuses"],
        "hostIP": node_ips[0] if node_ips else None,
        "hostIPs": [{"ip": ip} for ip in node_ips],
    }
    if pod.spec.init_containers:
        result["initContainerStatuses"] = statuses["initContainerStatuses"]
    if pod.spec.ephemeral_containers:
        result["ephemeralContainerStatuses"] = statuses["ephemeralContainerStatuses"]
    if pod.metadata.generation is not None:
        result["observedGeneration"] = pod.metadata.generation
    runner = report.runner if report is not None else None
    if runner is not None and runner.pod_ips:
        result["podIP"] = runner.pod_ips[0]
        result["podIPs"] = [{"ip": ip} for ip in runner.pod_ips]
    if start := _start_time(pod, report):
        result["startTime"] = start
    return result


def _kept(pod: Pod, kind: str, statuses: list[Status], sidecars: Collection[str]) -> list[Status]:
    """Return the statuses with ended containers kept ended where the API server demands it, in a requeued job.

    A container that was written as terminated may not become another unless its restartPolicy restarts it (Kubernetes
    1.36, ``ValidateContainerStateTransition``); the next end of the same container may be written.
    """
    if pod.spec.restart_policy == "Always":
        return statuses
    written = {old["name"]: (old.get("state") or {}).get("terminated") for old in pod.status.get(kind) or []}

    def one(status: Status) -> Status:
        ending = written.get(status["name"])
        restarts = ending is not None and pod.spec.restart_policy == "OnFailure" and ending.get("exitCode") != 0
        if ending is None or restarts or "terminated" in status["state"] or status["name"] in sidecars:
            return status
        return {**status, "state": {"terminated": ending}, "ready": False, "started": False}

    return [one(status) for status in statuses]


def _start_time(pod: Pod, report: PodReport | None) -> str | None:
    """Return when Slurm first started the allocation: set once, so that a long queue uses up no deadline."""
    if pod.status.get("startTime"):
        return str(pod.status["startTime"])
    if report is None:
        return None
    if report.job is not None and report.job.start_time is not None and report.job.state != JobState.PENDING:
        return timestamp(report.job.start_time)
    return timestamp(report.runner.started_at) if report.runner is not None and report.runner.started_at else None


def waiting_status(pod: Pod, reason: str, message: str, *, now: float, node_ips: tuple[str, ...]) -> Status:
    """Return the status of a pod that has no job yet and waits for something; ``reason`` is its containers'."""
    if pod.status.get("phase") in TERMINAL_PHASES:
        return dict(pod.status)
    states = waiting_states(pod, reason, message)
    return _status(pod, states, "Pending", now=now, node_ips=node_ips, queue=message or "not yet submitted to Slurm")


def failed_status(pod: Pod, reason: str, message: str, *, now: float, node_ips: tuple[str, ...]) -> Status:
    """Return the status of a pod that never ran and never will: rejected before or by Slurm.

    It has no container statuses, as with a kubelet: ``kubectl get`` would show theirs in place of the pod's reason.
    """
    if pod.status.get("phase") in TERMINAL_PHASES:
        return dict(pod.status)
    return _status(pod, (), "Failed", now=now, node_ips=node_ips, reason=reason, message=message)


def pod_status(pod: Pod, report: PodReport | None, *, now: float, node_ips: tuple[str, ...]) -> Status:
    """Return the complete status of a pod, given what was last written (``pod.status``) and what is now known.

    ``now``: epoch seconds. The result is for a strategic merge patch: a null removes what a former status had.
    """
    if pod.status.get("phase") in TERMINAL_PHASES:
        return dict(pod.status)
    if report is None:
        return waiting_status(pod, "", "", now=now, node_ips=node_ips)
    runner = _current(report)
    if report.over:
        if runner is not None and runner.final:
            return _final_status(pod, report, runner, now=now, node_ips=node_ips)
        return _killed_status(pod, report, now=now, node_ips=node_ips)
    if runner is not None:
        states = known_states(pod, runner)
        if report.job is not None and report.job.state is JobState.SUSPENDED:
            states = suspended_states(states)
        phase = _not_back(pod, phase_of(states, over=False))
        return _status(pod, states, phase, now=now, node_ips=node_ips, report=report)
    if report.runner is None and pod.status.get("phase") == "Running":
        return dict(pod.status)  # whatever the runner says now is still to come; what was last written stands
    return _queued_status(pod, report, now=now, node_ips=node_ips)


def _not_back(pod: Pod, phase: str) -> str:
    """Return a phase that is not over, but never Pending after Running."""
    return "Running" if pod.status.get("phase") == "Running" else phase


def _final_status(pod: Pod, report: PodReport, runner: RunnerState, *, now: float, node_ips: tuple[str, ...]) -> Status:
    """Return the status of a pod whose runner brought it to its end: the containers' own, unless something cut it short."""
    states, ending = known_states(pod, runner), None
    if runner.reason:  # the pod was ended for that reason, whatever its containers' exit codes
        ending = Ending(runner.reason, runner.message)
    elif not pod.metadata.deletion_timestamp and ended_from_outside(report.job, runner):
        ending = ending_of(report.job, runner, job_id=report.job_id or "-")
    if ending is None:
        return _status(pod, states, phase_of(states, over=True), now=now, node_ips=node_ips, report=report)
    states = ended_states(states, ending, runner.finished_at or now)  # of a runner that failed some may still run
    return _status(
        pod, states, "Failed", now=now, node_ips=node_ips, report=report,
        reason=ending.reason, message=ending.message, disrupted=ending.disrupted,
    )  # fmt: skip


def _killed_status(pod: Pod, report: PodReport, *, now: float, node_ips: tuple[str, ...]) -> Status:
    """Return the status of a pod whose job ended without its runner's last word: always Failed, and why."""
    runner = _current(report)
    ending = ending_of(report.job, runner, job_id=report.job_id or "-")
    if runner is not None:
        states = known_states(pod, runner)
    elif report.runner is not None:
        states = requeued_states(known_states(pod, report.runner), ending.message, now)
    else:
        states = written_states(pod)
    finished = report.job.end_time if report.job is not None and report.job.end_time else now
    ended = ended_states(states, ending, finished)
    return _status(
        pod, ended, "Failed", now=now, node_ips=node_ips, report=report,
        reason=ending.reason, message=ending.message, disrupted=ending.disrupted,
    )  # fmt: skip


def _queued_status(pod: Pod, report: PodReport, *, now: float, node_ips: tuple[str, ...]) -> Status:
    """Return the status of a pod whose job waits, has just started, or was put back into the queue."""
    job = report.job
    message = f"Slurm job {report.job_id or '-'} was submitted" if job is None else _waiting_message(job)
    if report.runner is None:
        states, phase = waiting_states(pod, "", message), "Pending"
    else:
        states = requeued_states(known_states(pod, report.runner), message, now)
        phase = "Running" if any(s.last is not None for s in states) else _not_back(pod, "Pending")
    has_nodes = job is not None and job.state is not JobState.PENDING and JobFlag.CONFIGURING not in job.flags
    queue = "" if has_nodes else message
    return _status(pod, states, phase, now=now, node_ips=node_ips, report=report, queue=queue)
