"""What a provider knows of its pods, merged from the job directories and from Slurm. No I/O.

The two tell their stories at different moments, and neither may take a pod back in time: a runner's state is replaced
only by a later one, a job's end stays its end.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from .contract import ContainerUsage, PodReport, PodUsage, ProbeUsage, is_over
from .job import JobId, JobState, JobStatus, PodUid
from .runner.state import RunnerState, Running
from .runner.usage import Usage
from .watching import DirectoryView, UsageView

# Who a claim belongs to that keeps every job from running a pod (``submission``). Slurm gives no job this id.
NOBODY = JobId("0")
# The restart count of such a claim where only one attempt is withdrawn: the pod is still wanted and will be staged anew.
WITHDRAWN = 1

_LAST_WORD_SECONDS = 10.0
# By how much the clock of the file system may be behind slurmctld's. Generous: whoever is wrong here ends a pod.
_CLOCKS_SECONDS = 86400


@dataclass(slots=True)
class PodRecord:
    """One pod. ``submitted_id`` is what sbatch answered; ``claimed_by`` is the job that runs or ran the pod.

    ``submitted_at``: epoch seconds, after the submission (``watching``).
    ``ended_since``: when Slurm first said that the job has ended, ``missing_since``: that it does not know it (monotonic).
    """

    uid: PodUid
    namespace: str
    name: str
    submitted_id: JobId | None = None
    claimed_by: JobId | None = None
    job: JobStatus | None = None
    runner: RunnerState | None = None
    absent: bool = False
    missing_since: float | None = None
    ended_since: float | None = None
    used: Usage | None = None
    staged_at: int | None = None
    submitted_at: int | None = None

    @property
    def since(self) -> int | None:
        """A moment, in epoch seconds, before which its job can't have ended; None while none is known."""
        return self.job.submit_time if self.job is not None and self.job.submit_time is not None else self.staged_at

    @property
    def job_id(self) -> JobId | None:
        """The pod's job: the one that claimed the pod, else the one that was submitted."""
        return self.claimed_by or self.submitted_id

    @property
    def job_name(self) -> str:
        """The job's name (``translate.job_name``)."""
        return f"{self.namespace}/{self.name}:{self.uid}"

    @property
    def restart_count(self) -> int | None:
        """How often Slurm requeued the job, as far as the queue said so."""
        return None if self.job is None else self.job.restart_count

    @property
    def settled(self) -> bool:
        """Whether Slurm need not be asked about this pod any more."""
        return is_over(self._own_job, absent=self.absent)

    @property
    def ending(self) -> bool:
        """Whether Slurm calls the job that claimed the pod ended, and only its last word is still waited for."""
        return self.claimed_by is not None and self.ended_since is not None

    @property
    def running(self) -> bool:
        """Whether the pod's runner can be spoken to. Its own word may come earlier than Slurm's of the same run: a claim is one."""
        job, runner = self._own_job, self.runner
        if job is None and runner is None:
            return self.claimed_by is not None
        if job is not None and job.state in {JobState.RUNNING, JobState.SUSPENDED}:
            return True
        alive = runner is not None and not runner.final and runner.job_id == self.job_id
        return alive and runner is not None and (job is None or runner.restart >= (job.restart_count or 0))

    def is_anothers(self, status: JobStatus) -> bool:
        """Whether a job that has our job's id is another one: Slurm gives ids again once it has lost its state, or has
        none left (slurm.conf(5), ``MaxJobId``). A requeue makes a new time of submission too, and is counted.
        """
        if status.submit_time is None or status.restart_count != 0:
            return False
        known = self._own_job
        if known is not None and known.submit_time is not None:
            return status.submit_time > known.submit_time
        return self.submitted_at is not None and status.submit_time > self.submitted_at + _CLOCKS_SECONDS

    def awaits_last_word(self, status: JobStatus, now: float) -> bool:
        """Whether a job that Slurm says has ended may still have a last state on its way to us.

        The runner writes it before it exits, but file systems show it later than slurmctld tells of the exit.
        """
        runner = self.runner
        said = runner is not None and runner.final and runner.restart >= (status.restart_count or 0)
        if said or (runner is None and status.state not in {JobState.COMPLETED, JobState.FAILED}):
            return False
        self.ended_since = now if self.ended_since is None else self.ended_since
        return now - self.ended_since < _LAST_WORD_SECONDS

    def usage(self) -> PodUsage | None:
        """Return what its running containers have used; None while none runs, or its runner has not measured them yet."""
        used, runner = self.used, self.runner
        if used is None or runner is None or not self.running:
            return None
        if (used.job_id, used.restart) != (runner.job_id, runner.restart):
            return None
        running = {(c.name, c.state.started_at) for c in runner.containers if isinstance(c.state, Running)}
        containers = tuple(ContainerUsage(*c) for c in used.containers if (c.name, c.started_at) in running)
        probes = tuple(ProbeUsage(*probe) for probe in used.probes)
        return PodUsage(self.uid, used.time, containers, probes) if containers else None

    def report(self) -> PodReport:
        """Return what is known, as the contract says it."""
        return PodReport(self.uid, self.namespace, self.name, self.job_id, self._own_job, self.runner, self.absent)

    @property
    def _own_job(self) -> JobStatus | None:
        """What Slurm says of the pod's job, not of one that it had before."""
        return self.job if self.job is not None and self.job.job_id == self.job_id else None


def _later(new: RunnerState, old: RunnerState | None) -> bool:
    """Whether a state is news: of another job (which took the claim), of a later run, or later in the same run."""
    if old is None or new.job_id != old.job_id:
        return True
    return (new.restart, new.version) > (old.restart, old.version)


class Records:
    """All pods of a provider. Methods that learn something return the UIDs whose report changed."""

    def __init__(self) -> None:
        self._by_uid: dict[PodUid, PodRecord] = {}

    def __iter__(self) -> Iterator[PodRecord]:
        return iter(tuple(self._by_uid.values()))

    def get(self, uid: PodUid) -> PodRecord | None:
        """Return a pod's record, None if it is not known."""
        return self._by_uid.get(uid)

    def add(self, uid: PodUid, namespace: str, name: str) -> PodRecord:
        """Return the pod's record, a new one if it was not known. A name that could not be read before is filled in."""
        record = self._by_uid.setdefault(uid, PodRecord(uid, namespace, name))
        record.namespace, record.name = record.namespace or namespace, record.name or name
        return record

    def remove(self, uid: PodUid) -> None:
        """Forget a pod."""
        self._by_uid.pop(uid, None)

    def see_directory(self, view: DirectoryView) -> bool:
        """Take in what a job directory says; whether it changed anything."""
        if view.gone:
            return False
        record = self.add(view.uid, view.namespace, view.name)
        before = record.report()
        record.staged_at = view.staged_at if record.staged_at is None else record.staged_at
        record.submitted_at = view.submitted_at if record.submitted_at is None else record.submitted_at
        record.submitted_id = record.submitted_id or view.job_id
        if view.claim is not None and view.claim[0] == NOBODY:
            record.absent = record.absent or view.claim[1] != WITHDRAWN
        elif view.claim is not None:
            if view.claim[0] != record.job_id:  # these were moments of another job
                record.missing_since = record.ended_since = None
            record.claimed_by = view.claim[0]
        if view.state is not None and _later(view.state, record.runner):
            record.runner = view.state
        return record.report() != before

    def see_usage(self, view: UsageView) -> None:
        """Take in what a pod's runner says that its containers have used."""
        if (record := self._by_uid.get(view.uid)) is not None:
            record.used = view.usage

    def usage(self) -> tuple[PodUsage, ...]:
        """Return the usage of every pod that runs."""
        return tuple(usage for record in self if (usage := record.usage()) is not None)

    def unsettled(self) -> tuple[PodRecord, ...]:
        """Return the pods whose jobs Slurm must still be asked about."""
        return tuple(record for record in self if record.job_id is not None and not record.settled)

    def see_queue(
        self, asked: Sequence[PodRecord], jobs: Mapping[JobId, JobStatus], now: float
    ) -> tuple[list[PodUid], list[PodRecord]]:
        """Take in the queue's answer about ``asked``: the changed pods, and those whose jobs the queue does not know."""
        changed, missing = [], []
        for record in asked:
            status = None if record.job_id is None else jobs.get(record.job_id)
            if status is None:
                record.missing_since = now if record.missing_since is None else record.missing_since
                missing.append(record)
                continue
            if record.is_anothers(status):
                record.job, record.absent = None, True
                changed.append(record.uid)
                continue
            record.missing_since = None
            if not status.ended:
                record.ended_since = None
            elif record.awaits_last_word(status, now):
                continue
            if record.job is not status and record.job != status:
                record.job = status
                changed.append(record.uid)
        return changed, missing

    def see_accounting(
        self, missing: Sequence[PodRecord], ended: Mapping[JobId, JobStatus], now: float, patience: float
    ) -> list[PodUid]:
        """Take in accounting's answer about jobs that the queue does not know; the pods that are thereby settled.

        A job that accounting does not know as ended is settled only by its runner's final state, or after
        ``patience`` seconds of absence from the queue: slurmdbd may lag behind.
        """
        changed = []
        for record in missing:
            status = None if record.job_id is None else ended.get(record.job_id)
            if status is not None:  # accounting does not know how often the job was requeued; the queue did
                status = replace(status, restart_count=record.restart_count)
            final = record.runner is not None and record.runner.final
            waited = record.missing_since is not None and now - record.missing_since >= patience
            if status is not None and status.ended:
                if record.awaits_last_word(status, now):  # the queue may forget a job at once (MinJobAge)
                    continue
                record.job, record.absent = status, True
            elif final or waited:
                # What the queue said last is no end; without one the runner's word or "lost" decides.
                record.job, record.absent = None, True
            else:
                continue
            changed.append(record.uid)
        return changed

    def see_no_accounting(self, missing: Sequence[PodRecord], now: float) -> list[PodUid]:
        """Take in that accounting can't be asked: only a runner's final word settles a pod, and no absence counts yet."""
        changed = self.see_accounting(missing, {}, now, math.inf)
        for record in missing:
            if not record.absent:
                record.missing_since = now
        return changed
