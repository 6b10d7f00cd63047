"""Which events a pod gets: the runner's own, Slurm's reason for a wait once per change, and the agent's warnings.

The runner numbers its events within a run and counts repeats, and the same run is told again after each change and after
each start of the agent; what was told is remembered by number and count here, and by the event's name in the API server.
"""

from collections.abc import Callable

from slurm_plugin.annotations import idle
from slurm_plugin.contract import PodReport
from slurm_plugin.job import JobId, JobState, PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.podstatus import queue_message

from .events import Recorder, Subject

# The API server keeps events for an hour: an older one would come back to life.
_OLDEST_SECONDS = 3000.0


class PodEvents:
    """Tells a Recorder what is new about each pod."""

    def __init__(self, recorder: Recorder, clock: Callable[[], float]) -> None:
        self._recorder = recorder
        self._clock = clock
        self._counts: dict[PodUid, tuple[str, int, dict[int, int]]] = {}
        self._queued: dict[PodUid, str] = {}
        self._submitted: dict[PodUid, tuple[JobId, float]] = {}  # not told yet
        self._states: dict[PodUid, tuple[JobState, int, int]] = {}  # with the restarts, and those that were told

    def forget(self, uid: PodUid) -> None:
        """The pod is gone."""
        self._counts.pop(uid, None)
        self._queued.pop(uid, None)
        self._submitted.pop(uid, None)
        self._states.pop(uid, None)

    def warn(self, pod: Pod, reason: str, message: str) -> None:
        """Tell a Warning about the pod."""
        self._recorder.tell(_subject(pod), "Warning", reason, message)

    def tell_waiting(self, pod: Pod, reason: str, message: str) -> None:
        """Tell why a pod waits, once per reason."""
        if self._queued.get(PodUid(pod.metadata.uid)) != message:
            self._queued[PodUid(pod.metadata.uid)] = message
            self._recorder.tell(_subject(pod), "Normal", reason, message)

    def tell_submitted(self, pod: Pod, job_id: JobId, *, later: bool = False) -> None:
        """Tell that the pod has a job, and which of its annotations do nothing; ``later``: with its next news."""
        self._submitted[PodUid(pod.metadata.uid)] = job_id, self._clock()
        if not later:
            self._tell_submitted(pod)

    def _tell_submitted(self, pod: Pod) -> None:
        if (submitted := self._submitted.pop(PodUid(pod.metadata.uid), None)) is None:
            return
        job_id, at = submitted
        self._recorder.tell_once(
            _subject(pod), "Normal", "SlurmSubmitted", f"Submitted Slurm job {job_id}", at=at, key=f"submitted {job_id}"
        )
        for message in idle(pod.metadata.annotations):
            self.warn(pod, "AnnotationIgnored", message)

    def tell_news(self, pod: Pod, report: PodReport | None) -> None:
        """Tell what was not told before: what the report says, if there is one, and what was left for later."""
        self._tell_submitted(pod)
        if report is None:
            return
        if report.trouble:
            self.tell_waiting(pod, "SlurmUnreachable", f"Slurm does not answer: {report.trouble}")
        self._tell_queue(pod, report)
        self._tell_change(pod, report)
        runner = report.runner
        if runner is None:
            return
        job_id, restart, told = self._counts.get(report.uid, ("", 0, {}))
        if (job_id, restart) != (runner.job_id, runner.restart):
            told = {}
        horizon = self._clock() - _OLDEST_SECONDS
        for event in runner.events:
            last_at = max(event.at, event.last_at)
            if event.times > told.get(event.sequence, 0) and last_at >= horizon:
                self._recorder.tell_once(
                    _subject(pod, event.container), event.type, event.reason, event.message,
                    at=event.at, key=f"{runner.job_id}/{runner.restart}/{event.sequence}",
                    count=event.times, last_at=last_at,
                )  # fmt: skip
        counts = {event.sequence: event.times for event in runner.events}
        self._counts[report.uid] = (runner.job_id, runner.restart, counts)

    def _tell_change(self, pod: Pod, report: PodReport) -> None:
        """Tell that a job which had begun was suspended, goes on, or waits again; its end is the pod's own."""
        job, before = report.job, self._states.get(report.uid)
        if job is None:
            return
        count = job.restart_count or 0
        if before is None:
            self._states[report.uid] = (job.state, count, count)
            return
        was, counted, told = before
        # Slurm counts it when the job may start again; between two looks it may have begun and waited again.
        waits = was in {JobState.RUNNING, JobState.SUSPENDED} and job.state is JobState.PENDING
        requeues = count + 1 if waits and count == counted else count
        self._states[report.uid] = (job.state, count, max(told, requeues))
        what, subject = f"Slurm job {job.job_id}", _subject(pod)
        if requeues > told:
            self._recorder.tell(subject, "Warning", "SlurmRequeued", f"{what} was put back into the queue")
        elif was is JobState.RUNNING and job.state is JobState.SUSPENDED:
            self._recorder.tell(subject, "Warning", "SlurmSuspended", f"{what} was suspended")
        elif was is JobState.SUSPENDED and job.state is JobState.RUNNING:
            self._recorder.tell(subject, "Normal", "SlurmResumed", f"{what} goes on")

    def _tell_queue(self, pod: Pod, report: PodReport) -> None:
        job = report.job
        if job is None or job.state != JobState.PENDING or not job.reason or job.reason == "None":
            return
        self.tell_waiting(pod, "SlurmQueued", queue_message(job))


def _subject(pod: Pod, container: str = "") -> Subject:
    path = ""
    if container:
        lists = {"initContainers": pod.spec.init_containers, "ephemeralContainers": pod.spec.ephemeral_containers}
        found = (kind for kind, containers in lists.items() if container in {c.name for c in containers})
        path = f"spec.{next(found, 'containers')}{{{container}}}"
    return Subject("Pod", pod.metadata.namespace, pod.metadata.name, pod.metadata.uid, path)
