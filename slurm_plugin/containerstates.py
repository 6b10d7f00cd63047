"""What state a pod's containers are in: as the runner tells, as was last written, or as a job's fate leaves them. Pure.

Every function returns each container of the pod once, init containers first, ephemeral ones last, in the order of its
spec.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from .endings import Ending
from .pod import Container, Pod
from .resources import is_sidecar
from .runner import plan
from .runner.state import ContainerState, RunnerState, Running, Terminated, Waiting, last_restart

KILLED = 137


def waiting_states(pod: Pod, reason: str, message: str) -> tuple[ContainerState, ...]:
    """Return every container as waiting; ``reason`` empty is Kubernetes' own for a pod that has not begun."""

    def one(container: Container, kind: str) -> ContainerState:
        beginning = "PodInitializing" if pod.spec.init_containers else "ContainerCreating"
        return ContainerState(
            container.name,
            kind,
            Waiting(reason or beginning, message),
            None,
            0,
            started=False,
            ready=False,
            image_id="",
        )

    inits = [one(c, plan.SIDECAR if is_sidecar(c) else plan.INIT) for c in pod.spec.init_containers]
    apps = [one(c, plan.APP) for c in pod.spec.containers]
    return (*inits, *apps, *(one(c, plan.EPHEMERAL) for c in pod.spec.ephemeral_containers))


def known_states(pod: Pod, runner: RunnerState) -> tuple[ContainerState, ...]:
    """Return every container of the pod as the runner knows it: those of the spec, all of them and no other."""
    known = {state.name: state for state in runner.containers}
    return tuple(known.get(state.name, state)._replace(kind=state.kind) for state in waiting_states(pod, "", ""))


def written_states(pod: Pod) -> tuple[ContainerState, ...]:
    """Return every container as it was last written, for a pod of which nothing is left to be read."""
    written = {
        old["name"]: old
        for kind in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
        for old in pod.status.get(kind) or []
    }

    def one(state: ContainerState) -> ContainerState:
        old = written.get(state.name, {})
        match old.get("state"):
            case {"running": dict() as body}:
                state = state._replace(state=Running(_seconds(body.get("startedAt"))))
            case {"terminated": dict() as body}:
                state = state._replace(state=_terminated(body), ready=bool(old.get("ready")))
        last = (old.get("lastState") or {}).get("terminated")
        return state._replace(
            last=_terminated(last) if last else None,
            restart_count=old.get("restartCount", 0),
            image_id=old.get("imageID", ""),
            image=old.get("image", ""),
        )

    return tuple(one(state) for state in waiting_states(pod, "", ""))


def _seconds(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def _terminated(body: dict[str, Any]) -> Terminated:
    return Terminated(
        exit_code=body["exitCode"],
        signal=body.get("signal", 0),
        reason=body.get("reason", ""),
        message=body.get("message", ""),
        started_at=_seconds(body.get("startedAt")),
        finished_at=_seconds(body.get("finishedAt")),
    )


def ended_states(states: Sequence[ContainerState], ending: Ending, now: float) -> tuple[ContainerState, ...]:
    """Return the states after the job's end: what ran was killed; what never ran keeps waiting, as a kubelet leaves it.

    Of several that ran nobody knows which one took the memory: none is named, the pod's reason and the message say it.
    """
    result = []
    alone = sum(isinstance(state.state, Running) for state in states) == 1
    for state in states:
        if isinstance(state.state, Running):
            reason = "OOMKilled" if ending.oom and alone else "ContainerStatusUnknown" if ending.lost else "Error"
            killed = Terminated(KILLED, 9, reason, ending.message, state.state.started_at, now)
            state = state._replace(state=killed, ready=False, started=False)
        result.append(state)
    return tuple(result)


def suspended_states(states: Sequence[ContainerState]) -> tuple[ContainerState, ...]:
    """Return the states of a pod whose job Slurm suspended: what runs stands still, and answers nobody."""
    return tuple(s._replace(ready=s.ready and not isinstance(s.state, Running)) for s in states)


def requeued_states(states: Sequence[ContainerState], message: str, now: float) -> tuple[ContainerState, ...]:
    """Return the states of a pod whose job Slurm put back into the queue: to run again, with what was before kept."""
    result = []
    for state in states:
        last, count = state.last, state.restart_count + 1
        if isinstance(state.state, Running):
            last = Terminated(KILLED, 9, "SlurmRequeued", message, state.state.started_at, now)
        elif isinstance(state.state, Terminated):
            last = state.state
        else:
            count = state.restart_count if last is None else last_restart(state) + 1
        waiting = Waiting("SlurmRequeued", message)
        result.append(state._replace(state=waiting, last=last, restart_count=count, ready=False, started=False))
    return tuple(result)
