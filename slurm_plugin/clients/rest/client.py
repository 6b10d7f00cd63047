"""A SlurmClient made of slurmrestd's HTTP API. A thin shell around ``submission``, ``reading``, ``failures`` and ``queue``."""

import asyncio
import re
import time
from collections.abc import Collection, Mapping

from ... import parse
from ...cluster import Cluster
from ...errors import SlurmUnavailableError, UnparsableOutputError
from ...job import JobId, JobKey, JobState, JobStatus
from ...queueing import WaitingJob
from ..command import Timeouts
from ..directives import options
from . import failures, reading, submission
from .connection import Connection, Query
from .failures import Answer
from .queue import MOST_SINGLE, Queue

_IDS_PER_QUERY = 200
_STATES_SINCE = 40
_SIGNAL_FLAGS_SINCE = 39
_CLOCK_SKEW_SECONDS = 3600


class RestClient:
    """Slurm as one user of one slurmrestd sees it."""

    def __init__(
        self, connection: Connection, *, user: str, timeouts: Timeouts | None = None, submissions: int = 8
    ) -> None:
        """Make a client; ``submissions``: how many submissions may be under way at a time."""
        self._connection = connection
        self._user = user
        self._timeouts = timeouts or Timeouts()
        self._submissions = asyncio.Semaphore(submissions)
        self._questions = asyncio.Semaphore(8)
        self._queue = Queue(user)
        self._looking = asyncio.Lock()

    async def submit(self, script: str, *, directory: str) -> JobId:
        """See SlurmClient. The script's ``#SBATCH`` lines become fields; an option that has none is a rejection."""
        body = submission.request(
            options(script), script, directory=directory, version=await self._connection.version()
        )
        async with self._submissions:
            answer = await self._connection.change(
                "POST", "/slurm/{v}/job/submit", body=body, timeout=self._timeouts.submit
            )
        if not answer.fine:
            raise failures.submission(answer)
        job_id = JobId(str(answer.body.get("job_id", "")))
        if not re.fullmatch("[1-9][0-9]*", job_id, re.ASCII):
            raise failures.submission_unread(answer)
        self._queue.submitted(job_id)
        return job_id

    async def jobs(self) -> Mapping[JobId, JobStatus]:
        """See SlurmClient. What has not changed since the last call is not asked for (``queue``)."""
        async with self._looking:
            await self._look()
            return dict(self._queue.jobs)

    async def waiting(self) -> tuple[WaitingJob, ...]:
        """See QueueTelling. As of the last whole list: nothing is asked for it."""
        return self._queue.waiting

    async def _look(self) -> None:
        if self._queue.stale(time.monotonic()) or await self._connection.version() < _STATES_SINCE:
            await self._list()
            return
        states: dict[JobId, frozenset[str]] = {}
        ids = self._queue.ids
        for first in range(0, len(ids), _IDS_PER_QUERY):
            wanted = [("job_id", job_id) for job_id in ids[first : first + _IDS_PER_QUERY]]
            answer = await self._get("/slurm/{v}/jobs/state/", wanted)
            states |= reading.states(answer.body, answer.asked)
        single = self._queue.see_states(states)
        if len(single) > MOST_SINGLE:
            await self._list()
        else:
            await asyncio.gather(*(self._refresh(job_id) for job_id in single))

    async def _list(self) -> None:
        since = self._queue.last_update
        answer = await self._get("/slurm/{v}/jobs", () if since is None else [("update_time", str(since))])
        now = time.monotonic()
        if failures.NO_CHANGE in answer.numbers or (since is not None and _unchanged(answer)):
            self._queue.see_no_change(now)
        else:
            rows = await asyncio.to_thread(reading.queue, answer.body, answer.asked)
            waiting = await asyncio.to_thread(reading.waiting, answer.body, answer.asked)
            last_update = reading.number(answer.body.get("last_update")) or None
            self._queue.see_list(rows, last_update, now, waiting=waiting)

    async def _refresh(self, job_id: JobId) -> None:
        async with self._questions:
            answer = await self._connection.get(f"/slurm/{{v}}/job/{_plain(job_id)}", timeout=self._timeouts.query)
        if failures.unknown_job(answer):
            self._queue.see_gone(job_id)
            return
        if not answer.fine:
            raise failures.query(answer)
        self._queue.see_job(job_id, reading.queue(answer.body, answer.asked).get(job_id), time.monotonic())

    async def ended_jobs(self, job_ids: Collection[JobId], *, since: int) -> Mapping[JobId, JobStatus]:
        """See SlurmClient. Where the cluster keeps no accounts none is found."""
        found: dict[JobId, reading.Row] = {}
        wanted = sorted(job_ids)
        for first in range(0, len(wanted), _IDS_PER_QUERY):
            steps = [("step", job_id) for job_id in wanted[first : first + _IDS_PER_QUERY]]
            found |= await self._accounting(steps, since)
        return {job_id: found[job_id].status for job_id in wanted if job_id in found}

    async def find(self, name: str, *, directory: str, since: int) -> tuple[JobStatus, ...]:
        """See SlurmClient. Both places are always asked, and of the queue the whole list: this is rare."""
        if not name or "," in name or not name.isprintable():
            raise ValueError(f"not a job name that can be looked for: {name!r}")
        key = JobKey(name, directory)
        queued = (await self.queued([key])).get(key, ())
        try:
            accounted = await self._accounting([("job_name", name)], since)
        except SlurmUnavailableError:
            if not queued:
                raise
            accounted = {}
        same = tuple(row.status for row in accounted.values() if row.name == name and row.directory in {directory, ""})
        return parse.oldest_first(queued, same)

    async def queued(self, wanted: Collection[JobKey]) -> Mapping[JobKey, tuple[JobStatus, ...]]:
        """See SlurmClient."""
        async with self._looking:
            await self._list()
            return self._queue.by_key(wanted)

    async def signal_batch(self, job_id: JobId, signal: str) -> None:
        """See SlurmClient. v0.0.38 can't do that: there a running job is cancelled, and has ``KillWait`` to end."""
        if await self._connection.version() >= _SIGNAL_FLAGS_SINCE:
            await self._end(job_id, [("signal", signal), ("flags", "BATCH_JOB")])
            return
        async with self._looking:
            await self._refresh(job_id)
        job = self._queue.jobs.get(job_id)
        if job is not None and job.state is JobState.RUNNING:
            await self._end(job_id, ())

    async def cancel(self, job_id: JobId) -> None:
        """See SlurmClient."""
        await self._end(job_id, ())

    async def _end(self, job_id: JobId, query: Query) -> None:
        answer = await self._connection.change(
            "DELETE", f"/slurm/{{v}}/job/{_plain(job_id)}", query, timeout=self._timeouts.cancel
        )
        failed = not answer.fine or bool(answer.numbers - {0})
        if failed and (error := failures.change(answer, signal=bool(query))) is not None:
            raise error

    async def cluster(self) -> Cluster:
        """See SlurmClient. v0.0.39 to v0.0.42 do not tell which partition is the default one."""
        nodes = await self._get("/slurm/{v}/nodes", ())
        partitions = await self._get("/slurm/{v}/partitions", ())
        name, version = _identity(nodes)
        return Cluster(
            name=name,
            version=version,
            partitions=reading.partitions(partitions.body, partitions.asked),
            nodes=reading.nodes(nodes.body, nodes.asked),
        )

    async def _get(self, path: str, query: Query) -> Answer:
        answer = await self._connection.get(path, query, timeout=self._timeouts.query)
        if not answer.fine and failures.NO_CHANGE not in answer.numbers:
            raise failures.query(answer)
        return answer

    async def _accounting(self, query: Query, since: int) -> dict[JobId, reading.Row]:
        # sacct's own rule: a start in the future is refused; the clocks of the two sides may differ.
        start = max(1_000_000, min(since, int(time.time()) - _CLOCK_SKEW_SECONDS))
        if await self._connection.version() > submission.OLD_DIALECT:
            asked = [("users", self._user), ("start_time", str(start)), ("skip_steps", "true"), *query]
        else:  # has no filter by user, and reads a time as sacct does
            asked = [("start_time", f"uts{start}"), ("skip_steps", "true"), *query]
        answer = await self._connection.get("/slurmdb/{v}/jobs/", asked, timeout=self._timeouts.query)
        if not answer.fine and (failures.nothing_found(answer) or failures.accounting_is_off(answer)):
            return {}
        if not answer.fine:
            raise failures.query(answer)
        rows = await asyncio.to_thread(reading.accounting, answer.body, answer.asked)
        return {job_id: row for job_id, row in rows.items() if row.user in {self._user, ""}}

    async def close(self) -> None:
        """Let go of connections."""
        await self._connection.close()


def _plain(job_id: JobId) -> JobId:
    if not (job_id.isascii() and job_id.isdigit()):
        raise ValueError(f"not the id of a job: {job_id!r}")
    return job_id


def _unchanged(answer: Answer) -> bool:
    """Whether a list since some time is empty because nothing has changed: ``last_update`` is unset then."""
    return answer.body.get("jobs") == [] and not reading.number(answer.body.get("last_update"))


def _identity(answer: Answer) -> tuple[str, str]:
    """Return the cluster's name ("" in v0.0.38) and Slurm's version, from an answer's ``meta``."""
    meta = answer.body.get("meta") or {}
    slurm = meta.get("slurm") or meta.get("Slurm") or {}
    version = str(slurm.get("release", ""))
    if not version:
        raise UnparsableOutputError(answer.asked, "meta tells no release of Slurm", str(meta))
    return str(slurm.get("cluster", "")), version
