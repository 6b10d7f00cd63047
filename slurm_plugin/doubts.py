"""Twins: jobs of a pod that has another one, left by an attempt whose outcome was unknown and that Slurm accepted late.

They wait for ever (``singleton``), or end at once without the claim, so they are looked for and cancelled, also when the
pod is gone by then. In doubt is each pod with such an attempt, and each that was here when we began: whoever submitted it
may have died in the middle. One look is one query, whatever the number of pods, and only while a job of the user's waits
that is no pod's own.
"""

import logging
from collections.abc import Callable, Mapping

from .clients.base import SlurmClient
from .errors import HostError
from .job import JobId, JobKey, JobStatus, PodUid
from .jobdir import Root
from .records import Records
from .submission import Submission

log = logging.getLogger(__name__)

# How long after an unknown outcome a late twin is looked for, and how often.
_DOUBT_SECONDS = 600.0
_INTERVAL_SECONDS = 15.0


class Doubts:
    """The pods that may have twins. ``now`` is a monotonic clock in seconds."""

    def __init__(self, client: SlurmClient, submission: Submission, records: Records, now: Callable[[], float]) -> None:
        self._client = client
        self._submission = submission
        self._records = records
        self._now = now
        self._doubted: dict[PodUid, tuple[str, float]] = {}
        self._next = 0.0

    def add(self, uid: PodUid) -> None:
        """Look for twins of this pod for ten minutes from now on, though it may be gone by then."""
        if (record := self._records.get(uid)) is not None:
            self._doubted[uid] = record.job_name, self._now() + _DOUBT_SECONDS

    def add_all(self) -> None:
        """Doubt every pod that has not ended: we do not know what was under way before we looked."""
        for record in self._records:
            if not record.settled:
                self.add(record.uid)

    async def settle(self, jobs: Mapping[JobId, JobStatus], root: Root) -> None:
        """Cancel the twins that there are. ``jobs``: the queue. Raises what the client raises."""
        now = self._now()
        self._doubted = {uid: (name, until) for uid, (name, until) in self._doubted.items() if now <= until}
        if not self._doubted or now < self._next or not self._strangers(jobs):
            return
        self._next = now + _INTERVAL_SECONDS
        doubted = {self._key(uid, name, root): uid for uid, (name, _) in self._doubted.items()}
        for key, found in (await self._client.queued(doubted)).items():
            await self._cancel(doubted[key], root, found)

    def _key(self, uid: PodUid, name: str, root: Root) -> JobKey:
        """Return what its jobs are found by: a name that could not be read at first may be known by now."""
        record = self._records.get(uid)
        return JobKey(name if record is None else record.job_name, root.job_dir(uid).path)

    def _strangers(self, jobs: Mapping[JobId, JobStatus]) -> bool:
        """Whether a job may still run that is no pod's own: a twin, or the user's own business."""
        own = {record.job_id for record in self._records}
        return any(job.job_id not in own and not job.ended for job in jobs.values())

    async def _cancel(self, uid: PodUid, root: Root, found: tuple[JobStatus, ...]) -> None:
        record = self._records.get(uid)
        if record is not None and record.job_id is None:
            return  # its next submission finds one of them
        try:
            keep = None if record is None else record.job_id
            await self._submission.cancel_others(root.job_dir(uid), keep, found)
        except HostError as error:  # a directory that its job has made unusable is no trouble of the others
            log.warning("pod %s: %s", uid, error)
