"""One client of Slurm for several virtual nodes: what all of them ask is asked once.

Each node polls for itself. Asked through here, their questions about all jobs and about the cluster are gathered: who
asks while a query is under way gets the next one's answer, so that every answer is of a moment after its question, and
slurmctld sees as many queries as with one node.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Generic, TypeVar

from ..cluster import Cluster
from ..job import JobId, JobKey, JobStatus
from ..queueing import QueueTelling, WaitingJob
from .base import SlurmClient

T = TypeVar("T")

_WAITING_SECONDS = 20.0


class Gathered(Generic[T]):
    """Many askers, one question at a time, ``seconds`` at least between the beginnings of two."""

    def __init__(self, ask: Callable[[], Awaitable[T]], *, seconds: float, name: str) -> None:
        self._ask = ask
        self._seconds = seconds
        self._name = name
        self._next: asyncio.Task[T] | None = None
        self._running: asyncio.Task[T] | None = None
        self._begun = float("-inf")

    async def answer(self) -> T:
        """Return an answer to a question that was put after this call."""
        if self._next is None:
            self._next = asyncio.create_task(self._put(self._running), name=self._name)
            self._next.add_done_callback(_look_at)
        return await asyncio.shield(self._next)

    async def _put(self, before: asyncio.Task[T] | None) -> T:
        if before is not None:
            await asyncio.wait({before})
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(max(0.0, self._begun + self._seconds - clock()))
        self._running, self._next, self._begun = self._next, None, clock()
        return await self._ask()


def _look_at(task: asyncio.Task[T]) -> None:
    """Take note of an error that nobody waits for any more: every asker was told who still asked."""
    if not task.cancelled():
        task.exception()


class SharedClient:
    """A SlurmClient (``base``) on another one, for one Slurm user on several virtual nodes."""

    def __init__(self, client: SlurmClient, *, seconds: float) -> None:
        self._client = client
        self._waiting: tuple[WaitingJob, ...] = ()
        self._waiting_at = float("-inf")
        self._waiting_lock = asyncio.Lock()
        self._jobs = Gathered(client.jobs, seconds=seconds, name="jobs of all nodes")
        self._cluster = Gathered(client.cluster, seconds=seconds, name="cluster of all nodes")

    async def jobs(self) -> Mapping[JobId, JobStatus]:
        """See SlurmClient."""
        return await self._jobs.answer()

    async def cluster(self) -> Cluster:
        """See SlurmClient."""
        return await self._cluster.answer()

    async def waiting(self) -> tuple[WaitingJob, ...]:
        """See QueueTelling. Places in the queue may be a while old: what was told to one node is told to the next."""
        if not isinstance(self._client, QueueTelling):
            return ()
        async with self._waiting_lock:
            now = asyncio.get_running_loop().time()
            if now - self._waiting_at > _WAITING_SECONDS:
                self._waiting, self._waiting_at = await self._client.waiting(), now
            return self._waiting

    async def submit(self, script: str, *, directory: str) -> JobId:
        """See SlurmClient."""
        return await self._client.submit(script, directory=directory)

    async def ended_jobs(self, job_ids: Collection[JobId], *, since: int) -> Mapping[JobId, JobStatus]:
        """See SlurmClient."""
        return await self._client.ended_jobs(job_ids, since=since)

    async def find(self, name: str, *, directory: str, since: int) -> tuple[JobStatus, ...]:
        """See SlurmClient."""
        return await self._client.find(name, directory=directory, since=since)

    async def queued(self, wanted: Collection[JobKey]) -> Mapping[JobKey, tuple[JobStatus, ...]]:
        """See SlurmClient."""
        return await self._client.queued(wanted)

    async def signal_batch(self, job_id: JobId, signal: str) -> None:
        """See SlurmClient."""
        await self._client.signal_batch(job_id, signal)

    async def cancel(self, job_id: JobId) -> None:
        """See SlurmClient."""
        await self._client.cancel(job_id)

    async def close(self) -> None:
        """See SlurmClient."""
        await self._client.close()
