"""A SlurmClient made of Slurm's own commands, over any Host.

A thin shell: ``commands`` builds, ``parse`` reads, ``failures`` judges; here the commands are run, each with a
time-out, and success is the exit status. Every call is at most a few processes, whatever the number of jobs.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .. import commands, parse
from ..cluster import Cluster, Enforcement
from ..errors import HostError, SlurmletError, SlurmUnavailableError, TransportError
from ..hosts.base import Completed
from ..job import JobId, JobKey, JobStatus
from ..metrics import counted_command
from ..queueing import WaitingJob
from . import failures

_IDS_PER_QUERY = 500
_NOT_FOUND = 127
_CONFIGURATION_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. Slurm's commands themselves give up after 10 to 50 s where slurmctld or munge is away, and then say why.

    Where slurmctld limits rates (``rl_enable``) sbatch sleeps silently, so it gets the most time.
    """

    submit: float = 90
    query: float = 60
    cancel: float = 60


class CommandHost(Protocol):
    """The part of a Host that is needed here: it runs commands."""

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        """See Host."""


class CommandClient:
    """Slurm as one user of one Host sees it. ``user`` is that user's name, as the Host says it."""

    def __init__(
        self,
        host: CommandHost,
        *,
        user: str,
        timeouts: Timeouts | None = None,
        submissions: int = 8,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a client; ``submissions``: how many sbatch may run at a time."""
        self._host = host
        self._user = user
        self._timeouts = timeouts or Timeouts()
        self._submissions = asyncio.Semaphore(submissions)
        self._clock = clock
        self._queue = parse.QueueReader()
        self._configuration: tuple[str, str, Enforcement] | None = None
        self._configured_at = float("-inf")

    async def submit(self, script: str, *, directory: str) -> JobId:
        """See SlurmClient. sbatch has its own time-out; waiting for a turn does not count."""
        argv = commands.submit(directory)
        async with self._submissions:
            result = await self._change(argv, self._timeouts.submit, stdin=script.encode())
        if result.exit_code:
            raise failures.submission(result)
        return parse.submitted(_text(result), argv)

    async def jobs(self) -> Mapping[JobId, JobStatus]:
        """See SlurmClient."""
        argv = commands.queue()
        return self._queue.read(await self._query(argv), argv)

    async def waiting(self) -> tuple[WaitingJob, ...]:
        """See QueueTelling."""
        argv = commands.waiting()
        return parse.waiting(await self._query(argv), argv)

    async def ended_jobs(self, job_ids: Collection[JobId], *, since: int) -> Mapping[JobId, JobStatus]:
        """See SlurmClient. Where the cluster keeps no accounts none is found."""
        found: dict[JobId, JobStatus] = {}
        wanted = sorted(job_ids)
        for first in range(0, len(wanted), _IDS_PER_QUERY):
            argv = commands.accounting(self._user, wanted[first : first + _IDS_PER_QUERY], since=since)
            found.update(parse.accounting(await self._accounting(argv), argv))
        return {job_id: found[job_id] for job_id in wanted if job_id in found}

    async def find(self, name: str, *, directory: str, since: int) -> tuple[JobStatus, ...]:
        """See SlurmClient. Both places are always asked: the queue may know one job, accounting an earlier one."""
        argv = commands.find_in_queue(name)
        queued = parse.queue_in(await self._query(argv), directory, argv)
        argv = commands.find_in_accounting(self._user, name, since=since)
        try:
            accounted = parse.accounting_in(await self._accounting(argv), directory, argv)
        except SlurmUnavailableError:
            if not queued:
                raise
            accounted = ()
        return parse.oldest_first(queued, accounted)

    async def queued(self, wanted: Collection[JobKey]) -> Mapping[JobKey, tuple[JobStatus, ...]]:
        """See SlurmClient."""
        argv = commands.queue_with_keys()
        return parse.queue_of(await self._query(argv), wanted, argv)

    async def signal_batch(self, job_id: JobId, signal: str) -> None:
        """See SlurmClient. A job that is pending, held or suspended is left alone too: nothing of it is running."""
        await self._act(commands.signal_batch(job_id, signal), self._timeouts.cancel)

    async def cancel(self, job_id: JobId) -> None:
        """See SlurmClient."""
        await self._act(commands.cancel(job_id), self._timeouts.cancel)

    async def cluster(self) -> Cluster:
        """See SlurmClient. Two queries, cheap for slurmctld; its configuration is asked for now and then."""
        name, version, enforcement = await self._configured()
        argv = commands.nodes()
        nodes = parse.nodes(await self._query(argv), argv)
        argv = commands.partitions()
        return Cluster(
            name=name,
            version=version,
            partitions=parse.partitions(await self._query(argv), argv),
            nodes=nodes,
            enforcement=enforcement,
        )

    async def _configured(self) -> tuple[str, str, Enforcement]:
        """Return the cluster's name, Slurm's version and what it enforces: a reconfigured slurmctld is seen in a while."""
        if self._configuration is None or self._clock() - self._configured_at > _CONFIGURATION_SECONDS:
            argv = commands.configuration()
            said = await self._query(argv)
            self._configuration = (*parse.configuration(said, argv), parse.enforcement(said))
            self._configured_at = self._clock()
        return self._configuration

    async def close(self) -> None:
        """See SlurmClient. It has none of its own."""

    async def _query(self, argv: tuple[str, ...]) -> str:
        result = await self._read(argv)
        if result.exit_code:
            raise failures.query(result)
        return _text(result)

    async def _accounting(self, argv: tuple[str, ...]) -> str:
        result = await self._read(argv)
        if result.exit_code and failures.accounting_is_off(result):
            return ""
        if result.exit_code:
            raise failures.query(result)
        return _text(result)

    async def _act(self, argv: tuple[str, ...], timeout: float) -> None:
        result = await self._change(argv, timeout)
        if result.exit_code and (error := failures.change(result)) is not None:
            raise error

    async def _read(self, argv: tuple[str, ...]) -> Completed:
        """Run a command that changes nothing, so that one without an answer may be asked again."""
        return await self._run(argv, self._timeouts.query, b"", SlurmUnavailableError)

    async def _change(self, argv: tuple[str, ...], timeout: float, *, stdin: bytes = b"") -> Completed:
        """Run a command that changes something: without an answer, whether it did is unknown."""
        return await self._run(argv, timeout, stdin, TransportError)

    async def _run(
        self, argv: tuple[str, ...], timeout: float, stdin: bytes, unanswered: Callable[[str], SlurmletError]
    ) -> Completed:
        try:
            with counted_command(argv[0]) as statuses:
                result = await self._host.run(argv, stdin=stdin, timeout=timeout)
                statuses.append(result.exit_code)
        except TimeoutError as error:
            raise unanswered(f"{failures.command(argv)} gave no answer within {timeout:g} s") from error
        if result.exit_code == _NOT_FOUND:
            said = failures.words(result)
            raise HostError(
                f"{failures.command(argv)} can't be run there: {said}; put Slurm's commands in the user's PATH"
            )
        return result


def _text(result: Completed) -> str:
    return result.stdout.decode("utf-8", "surrogateescape")
