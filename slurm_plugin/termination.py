"""Ending a job: TERM to the runner now, everything killed after the grace period.

A queued job is simply cancelled. A running one gets TERM by ``scancel --batch``, which reaches the runner alone (the
batch script became it by ``exec``); the runner stops the containers in their order. Slurm's own plain ``scancel``
follows when the grace period and a margin are over, for a runner that does not answer.
"""

import asyncio
import logging
from collections.abc import Callable

from .clients.base import SlurmClient
from .errors import HostError, SlurmletError
from .hosts.base import Host
from .job import JobId, PodUid
from .jobdir import JobDir
from .records import PodRecord

log = logging.getLogger(__name__)

_MARGIN_SECONDS = 10.0
_RETRY_SECONDS = 10.0
# The graces of thousands may end together; what else is asked of Slurm, above all how the jobs are, must not wait for them.
_KILLS_AT_ONCE = 8


class Termination:
    """The terminations under way, as one Slurm user. ``now`` is a monotonic clock in seconds."""

    def __init__(self, host: Host, client: SlurmClient, now: Callable[[], float]) -> None:
        self._host = host
        self._client = client
        self._now = now
        self._deadlines: dict[PodUid, tuple[JobId, float]] = {}
        self._kills: dict[PodUid, asyncio.Task[None]] = {}
        self._turn = asyncio.Semaphore(_KILLS_AT_ONCE)

    async def terminate(self, record: PodRecord, job_id: JobId, directory: JobDir, grace_seconds: int) -> None:
        """Ask for the end of a pod's job. Again with as much or more grace is a no-op, with less shortens it.

        Of which job is said each time: a twin may turn out to have claimed the pod meanwhile.
        """
        deadline = self._now() + grace_seconds
        asked_for, asked_until = self._deadlines.get(record.uid, (job_id, float("inf")))
        if asked_for == job_id and deadline >= asked_until - 0.5:
            return
        if record.running and grace_seconds > 0:
            await self._tell_grace(directory, grace_seconds)
            await self._client.signal_batch(job_id, "TERM")
            seconds = grace_seconds + _MARGIN_SECONDS
        else:
            await self._client.cancel(job_id)
            seconds = _RETRY_SECONDS
        if record.settled:  # while Slurm was asked
            return
        self._deadlines[record.uid] = job_id, deadline
        self._kill_later(record, job_id, seconds)

    async def _tell_grace(self, directory: JobDir, seconds: int) -> None:
        """Write down for the runner what it has. A full disk must not keep a job alive: it then takes the pod's own grace."""
        try:
            await self._host.stage(directory.run, ())  # the runner may not have made it yet
            await self._host.write(directory.grace, b"%d" % seconds)
        except HostError as error:
            log.warning("the grace of %d s can't be written down: %s", seconds, error, extra={"uid": directory.uid})

    def _kill_later(self, record: PodRecord, job_id: JobId, seconds: float) -> None:
        if (old := self._kills.pop(record.uid, None)) is not None:
            old.cancel()
        self._kills[record.uid] = asyncio.create_task(self._kill(record, job_id, seconds), name=f"kill job {job_id}")

    async def _kill(self, record: PodRecord, asked_for: JobId, seconds: float) -> None:
        """Cancel the pod's job, again and again until ``ended`` stops this: a cancelled job may be slow, or Slurm away."""
        while True:
            await asyncio.sleep(seconds)
            seconds, job_id = _RETRY_SECONDS, record.job_id or asked_for
            try:
                async with self._turn:
                    await self._client.cancel(job_id)
                log.warning("job %s outlived its grace period and was cancelled", job_id)
            except SlurmletError as error:
                log.warning("job %s could not be cancelled yet: %s", job_id, error)

    def under_way(self, uid: PodUid) -> bool:
        """Whether the end of this pod was asked for here."""
        return uid in self._deadlines

    def ended(self, uid: PodUid) -> None:
        """The pod's job is gone: nothing is left to kill."""
        self._deadlines.pop(uid, None)
        if (task := self._kills.pop(uid, None)) is not None:
            task.cancel()

    def close(self) -> None:
        """Stop; jobs are not touched."""
        for uid in tuple(self._kills):
            self.ended(uid)
