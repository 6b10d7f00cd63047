"""The jobs of one user that slurmctld knows, kept up to date by asking for no more than has changed. No I/O.

slurmrestd lists the jobs of all users or none, some 6 KiB each, so a busy cluster can't be listed at each interval. From
v0.0.40 on ``/jobs/state`` tells the states of given jobs in 60 bytes each; the jobs whose state changed are asked for
one by one, and so are a few of the others in turn, for what changes without the state (a reason, an estimate, a
requeue between two looks). The whole list is read now and then, for jobs that nobody told us of; everybody's waiting
jobs are as of then.
"""

from collections.abc import Collection, Mapping

from ...job import JobId, JobKey, JobStatus
from ...queueing import WaitingJob
from .reading import Row, words_of

# A full list is cheaper than more single questions than this.
MOST_SINGLE = 40
_IN_TURN = 4
RELIST_SECONDS = 60.0


class Queue:
    """What is known of the user's jobs; ``now`` is any clock that only goes forward, in seconds."""

    def __init__(self, user: str) -> None:
        self._user = user
        self._rows: dict[JobId, Row] = {}
        self._asked: dict[JobId, float] = {}
        self._new: set[JobId] = set()
        self._listed = float("-inf")
        self.waiting: tuple[WaitingJob, ...] = ()
        self.last_update: int | None = None

    @property
    def jobs(self) -> Mapping[JobId, JobStatus]:
        """Every job of the user."""
        return {job_id: row.status for job_id, row in self._rows.items()}

    def by_key(self, wanted: Collection[JobKey]) -> Mapping[JobKey, tuple[JobStatus, ...]]:
        """Return the jobs of these names and directories, by both."""
        keys, found = frozenset(wanted), dict[JobKey, tuple[JobStatus, ...]]()
        for row in self._rows.values():
            if (key := JobKey(row.name, row.directory)) in keys:
                found[key] = (*found.get(key, ()), row.status)
        return found

    @property
    def ids(self) -> tuple[JobId, ...]:
        """Whose states to ask for: jobs that ended too, for they leave the queue."""
        return tuple(self._rows)

    def stale(self, now: float) -> bool:
        """Whether it is time for the whole list."""
        return now - self._listed >= RELIST_SECONDS

    def submitted(self, job_id: JobId) -> None:
        """Hear of a new job of the user's."""
        self._new.add(job_id)

    def see_list(
        self, rows: Mapping[JobId, Row], last_update: int | None, now: float, *, waiting: tuple[WaitingJob, ...] = ()
    ) -> None:
        """Take in the whole list, of all users."""
        self.waiting = waiting
        self._rows = {job_id: row for job_id, row in rows.items() if row.user == self._user}
        self._asked = dict.fromkeys(self._rows, now)
        self._new -= set(self._rows)
        self.last_update, self._listed = last_update, now

    def see_no_change(self, now: float) -> None:
        """Take in that the list is as it was."""
        self._listed = now

    def see_states(self, states: Mapping[JobId, frozenset[str]]) -> tuple[JobId, ...]:
        """Take in the states of ``ids``; returns the jobs to ask for one by one."""
        for job_id in [job_id for job_id in self._rows if job_id not in states]:
            self.see_gone(job_id)
        changed = [job_id for job_id, row in self._rows.items() if states[job_id] != words_of(row.status)]
        others = [job_id for job_id, row in self._rows.items() if job_id not in set(changed) and not row.status.ended]
        others.sort(key=lambda job_id: self._asked[job_id])
        return tuple(dict.fromkeys([*self._new, *changed, *others[:_IN_TURN]]))

    def see_job(self, job_id: JobId, row: Row | None, now: float) -> None:
        """Take in the answer for one job; None: it can't be seen as a plain job (a task of an array, say)."""
        self._new.discard(job_id)
        if row is None or row.user != self._user:
            self.see_gone(job_id)
        else:
            self._rows[job_id], self._asked[job_id] = row, now

    def see_gone(self, job_id: JobId) -> None:
        """Take in that slurmctld does not know a job any more."""
        self._new.discard(job_id)
        self._rows.pop(job_id, None)
        self._asked.pop(job_id, None)
