"""What an interLink plugin says of a pod → what a provider reports of it. Pure.

interLink has no job states, only containers' statuses; an answer without containers says nothing (its own virtual
kubelet takes it for success).
"""

from dataclasses import dataclass, replace

from slurm_plugin.containerstates import ended_states, written_states
from slurm_plugin.contract import PodReport
from slurm_plugin.endings import Ending
from slurm_plugin.job import JobId, JobState, JobStatus, PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.runner import plan
from slurm_plugin.runner.state import FORMAT, ContainerState, RunnerState, Running, Terminated, Waiting

from .wire import Answer


@dataclass(frozen=True, slots=True)
class Known:
    """A pod that the plugin was given. ``job_id`` empty: whether it took it is not known yet."""

    pod: Pod
    job_id: str = ""
    states: tuple[ContainerState, ...] = ()
    version: int = 0
    gone: bool = False

    @property
    def uid(self) -> PodUid:
        """The pod's UID."""
        return PodUid(self.pod.metadata.uid)

    @property
    def final(self) -> bool:
        """Whether every container has ended, or one that nothing can follow."""
        apps = [state for state in self.states if state.kind == plan.APP]
        failed_init = any(
            state.kind == plan.INIT and isinstance(state.state, Terminated) and state.state.exit_code != 0
            for state in self.states
        )
        return bool(apps) and (failed_init or all(isinstance(state.state, Terminated) for state in apps))


def told(known: Known, answer: Answer) -> Known:
    """Take in an answer; the same object if it says nothing new. A container's end is never taken back."""
    if not answer.containers and not answer.init_containers:
        return known if known.job_id or not answer.job_id else replace(known, job_id=answer.job_id)
    status = {"containerStatuses": list(answer.containers), "initContainerStatuses": list(answer.init_containers)}
    named = {item.get("name"): item for item in (*answer.containers, *answer.init_containers)}
    old = {state.name: state for state in known.states}
    states = tuple(
        _later(old.get(state.name), _waiting(state, named.get(state.name, {})))
        for state in written_states(known.pod.model_copy(update={"status": status}))
    )
    job_id = known.job_id or answer.job_id
    if states == known.states and job_id == known.job_id:
        return known
    return replace(known, job_id=job_id, states=states, version=known.version + 1)


def _waiting(state: ContainerState, status: dict[str, object]) -> ContainerState:
    """Keep the plugin's own word for why a container waits."""
    match status.get("state"):
        case {"waiting": {"reason": str() as reason, **rest}} if reason:
            return state._replace(state=Waiting(reason, str(rest.get("message") or "")))
    ready = bool(status.get("ready")) or (isinstance(state.state, Running) and "ready" not in status)
    return state._replace(ready=ready, started=isinstance(state.state, Running))


def _later(old: ContainerState | None, new: ContainerState) -> ContainerState:
    return old if old is not None and isinstance(old.state, Terminated) else new


def deleted(known: Known, message: str, now: float) -> Known:
    """Return the pod after the plugin took its deletion: what ran was killed."""
    states = ended_states(known.states, Ending("InterLinkDeleted", message), now)
    return replace(known, states=states, version=known.version + 1, gone=True)


def report(known: Known) -> PodReport:
    """Return the report of a pod."""
    job_id = JobId(known.job_id) if known.job_id else None
    name, namespace = known.pod.metadata.name, known.pod.metadata.namespace
    if job_id is None:
        return PodReport(known.uid, namespace, name, None, None, None, absent=known.gone)
    return PodReport(known.uid, namespace, name, job_id, _job(known, job_id), _runner(known, job_id), absent=known.gone)


def _job(known: Known, job_id: JobId) -> JobStatus:
    begun = any(not isinstance(state.state, Waiting) for state in known.states)
    if known.final or known.gone:
        good = all(isinstance(s.state, Terminated) and s.state.exit_code == 0 for s in known.states)
        return JobStatus(job_id, JobState.COMPLETED if good else JobState.FAILED, start_time=_begin(known))
    if begun:
        return JobStatus(job_id, JobState.RUNNING, start_time=_begin(known))
    words = [state.state.reason for state in known.states if isinstance(state.state, Waiting)]
    return JobStatus(job_id, JobState.PENDING, reason=words[0] if words else "")


def _begin(known: Known) -> int | None:
    times = [s.state.started_at for s in known.states if not isinstance(s.state, Waiting) and s.state.started_at > 0]
    return int(min(times)) if times else None


def _runner(known: Known, job_id: JobId) -> RunnerState | None:
    if all(isinstance(state.state, Waiting) for state in known.states):
        return None
    ended = known.final or known.gone
    return RunnerState(
        format=FORMAT,
        version=known.version,
        job_id=job_id,
        restart=0,
        node="",
        pod_ips=(),
        host_ips=(),
        started_at=float(_begin(known) or 0),
        finished_at=_end(known) if ended else 0.0,
        final=ended,
        terminating=False,
        reason="",
        message="",
        containers=known.states,
        events=(),
    )


def _end(known: Known) -> float:
    return max((s.state.finished_at for s in known.states if isinstance(s.state, Terminated)), default=0.0)
