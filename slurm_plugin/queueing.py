"""Where a waiting job stands: its priority, its place among the jobs of its partition, and when Slurm expects to start it.

Asked for all jobs at once, seldom, and only while one of ours waits. The numbers of a long queue change all the time and
each change would be a write for each waiting pod: they are told roughly, so that a pod is written again a few dozen times
on its whole way through the queue, whatever its length.
"""

import logging
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from .errors import SlurmletError
from .job import JobId, JobState, JobStatus

log = logging.getLogger(__name__)

_EXACT = 20
# (from how far ahead, to what the expected start is rounded up), in seconds.
_GRAINS = ((86400, 86400), (3600, 3600), (0, 300))


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """A waiting job of anybody's. ``partitions``: each that it may start in. ``priority`` 0: it is held."""

    job_id: str
    partitions: tuple[str, ...]
    priority: int


@runtime_checkable
class QueueTelling(Protocol):
    """A SlurmClient that can tell everybody's waiting jobs."""

    async def waiting(self) -> tuple[WaitingJob, ...]:
        """Return all waiting jobs that this user may see (slurm.conf(5), PrivateData): one query."""


def rough(number: int) -> int:
    """Return a number to one significant digit, exact up to 20."""
    if number <= _EXACT:
        return number
    unit = int(10 ** (len(str(number)) - 1))
    return round(number / unit) * unit


def rough_start(start: int | None, now: float) -> int | None:
    """Return an expected start rounded up: to 5 minutes, to hours from one hour on, to days from one day on."""
    if start is None or start <= now:
        return None
    grain = next(grain for ahead, grain in _GRAINS if start - now >= ahead)
    return -(-start // grain) * grain


class Line:
    """Everybody's waiting jobs at one moment, in order."""

    def __init__(self, waiting: Iterable[WaitingJob] = ()) -> None:
        self._jobs: dict[str, WaitingJob] = {}
        self._priorities: dict[str, list[int]] = {}
        for each in waiting:
            self._jobs[each.job_id] = each
            for partition in each.partitions:
                self._priorities.setdefault(partition, []).append(each.priority)
        for priorities in self._priorities.values():
            priorities.sort()

    def placed(self, jobs: Mapping[JobId, JobStatus], now: float) -> Mapping[JobId, JobStatus]:
        """Return the jobs, those that wait with their places. ``now``: epoch seconds."""
        return {job_id: self._placed(job, now) for job_id, job in jobs.items()}

    def _placed(self, job: JobStatus, now: float) -> JobStatus:
        if job.state is not JobState.PENDING:
            return job
        job = replace(job, start_time=rough_start(job.start_time, now))
        here = self._jobs.get(job.job_id)
        if here is None or not here.priority:
            return job
        # Of several partitions, the one where fewest are before it.
        before, total = min(self._place(here.priority, partition) for partition in here.partitions)
        return replace(job, priority=here.priority, position=rough(before + 1), queue_length=rough(total))

    def _place(self, priority: int, partition: str) -> tuple[int, int]:
        priorities = self._priorities[partition]
        return len(priorities) - bisect_right(priorities, priority), len(priorities)


class Places:
    """Knows the places of our waiting jobs as of a while ago. ``client``: one that can't tell gives none."""

    def __init__(
        self,
        client: object,
        *,
        seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client if isinstance(client, QueueTelling) and seconds else None
        self._seconds = seconds
        self._monotonic = monotonic
        self._clock = clock
        self._asked = float("-inf")
        self._line = Line()

    async def of(self, jobs: Mapping[JobId, JobStatus]) -> Mapping[JobId, JobStatus]:
        """Return the jobs with their places, which are asked for anew if they are due. Never raises for want of them."""
        if any(status.state is JobState.PENDING for status in jobs.values()):
            await self._ask()
        return self._line.placed(jobs, self._clock())

    async def _ask(self) -> None:
        now = self._monotonic()
        if self._client is None or now - self._asked < self._seconds:
            return
        self._asked = now
        try:
            self._line = Line(await self._client.waiting())
        except SlurmletError as error:
            log.warning("places in the queue: %s", error)
