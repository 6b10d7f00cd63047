"""A SlurmClient made of Slurm's library, by way of pyslurm. A thin shell around ``library``, ``submission``, ``reading`` and ``failures``."""

import time
from collections.abc import Collection, Mapping
from typing import Any

from ... import parse
from ...cluster import Cluster
from ...errors import SlurmUnavailableError, SubmissionRejectedError, TransportError
from ...job import JobId, JobKey, JobStatus
from ...queueing import WaitingJob
from ..command import Timeouts
from ..directives import options
from . import failures, reading, submission
from .library import Library

_IDS_PER_QUERY = 500
_CLOCK_SKEW_SECONDS = 3600


class PyslurmClient:
    """Slurm as the user of the library's process sees it."""

    def __init__(self, library: Library, *, timeouts: Timeouts | None = None) -> None:
        self._library = library
        self._timeouts = timeouts or Timeouts()

    async def submit(self, script: str, *, directory: str) -> JobId:
        """See SlurmClient. The script's ``#SBATCH`` lines become fields; an option that has none is a rejection."""
        fields = submission.fields(options(script), script, directory=directory)
        answer = await self._library.ask(
            "submit", fields=fields, timeout=self._timeouts.submit, unanswered=TransportError
        )
        if "refused" in answer:
            raise SubmissionRejectedError(str(answer["refused"]))
        if "error" in answer:
            raise failures.submission(answer["error"])
        return JobId(str(answer["answer"]))

    async def jobs(self) -> Mapping[JobId, JobStatus]:
        """See SlurmClient. slurmctld tells the library of everybody's jobs, of which the user's are picked out there."""
        return {job_id: found.status for job_id, found in (await self._queue()).items()}

    async def waiting(self) -> tuple[WaitingJob, ...]:
        """See QueueTelling."""
        return reading.waiting(await self._query("waiting"))

    async def ended_jobs(self, job_ids: Collection[JobId], *, since: int) -> Mapping[JobId, JobStatus]:
        """See SlurmClient."""
        found: dict[JobId, reading.Found] = {}
        wanted = sorted(job_ids)
        for first in range(0, len(wanted), _IDS_PER_QUERY):
            ids = [int(job_id) for job_id in wanted[first : first + _IDS_PER_QUERY]]
            found |= await self._accounting(since, ids=ids)
        return {job_id: found[job_id].status for job_id in wanted if job_id in found}

    async def find(self, name: str, *, directory: str, since: int) -> tuple[JobStatus, ...]:
        """See SlurmClient. Both places are always asked."""
        key = JobKey(name, directory)
        queued = (await self.queued([key])).get(key, ())
        try:
            accounted = await self._accounting(since, names=[name])
        except SlurmUnavailableError:
            if not queued:
                raise
            accounted = {}
        same = tuple(job.status for job in accounted.values() if job.name == name and job.directory in {directory, ""})
        return parse.oldest_first(queued, same)

    async def queued(self, wanted: Collection[JobKey]) -> Mapping[JobKey, tuple[JobStatus, ...]]:
        """See SlurmClient."""
        keys, found = frozenset(wanted), dict[JobKey, tuple[JobStatus, ...]]()
        for job in (await self._queue()).values():
            if (key := JobKey(job.name, job.directory)) in keys:
                found[key] = (*found.get(key, ()), job.status)
        return found

    async def signal_batch(self, job_id: JobId, signal: str) -> None:
        """See SlurmClient."""
        await self._act("signal", job_id, signal=f"SIG{signal}")

    async def cancel(self, job_id: JobId) -> None:
        """See SlurmClient."""
        await self._act("cancel", job_id)

    async def cluster(self) -> Cluster:
        """See SlurmClient."""
        name, version = await self._library.release()
        return reading.cluster(await self._query("cluster"), name=name, version=version)

    async def close(self) -> None:
        """End the library's process."""
        await self._library.close()

    async def _queue(self) -> dict[JobId, reading.Found]:
        return reading.jobs(await self._query("jobs"))

    async def _accounting(self, since: int, **wanted: Any) -> dict[JobId, reading.Found]:
        # sacct's own rule: a start in the future is refused; the clocks of the two sides may differ.
        start = max(1_000_000, min(since, int(time.time()) - _CLOCK_SKEW_SECONDS))
        return reading.jobs(await self._query("ended", since=start, **wanted))

    async def _query(self, question: str, **words: Any) -> Any:
        answer = await self._library.ask(
            question, timeout=self._timeouts.query, unanswered=SlurmUnavailableError, **words
        )
        if "answer" not in answer:
            raise failures.query(answer.get("error") or {"words": answer.get("refused")}, question)
        return answer["answer"]

    async def _act(self, question: str, job_id: JobId, **words: str) -> None:
        answer = await self._library.ask(
            question, timeout=self._timeouts.cancel, unanswered=TransportError, job_id=int(job_id), **words
        )
        if "answer" in answer:
            return
        error = failures.change(answer.get("error") or {"words": answer.get("refused")}, question, signal=bool(words))
        if error is not None:
            raise error
