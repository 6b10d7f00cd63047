"""A Host and a SlurmClient in memory that keep their contracts, and time that passes by itself.

Each can lose an answer (``lose``: the thing is done, the caller gets TransportError) or break before (``break_``).
"""

import asyncio
import selectors
from collections.abc import AsyncGenerator, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, TypeVar

from slurm_plugin.cluster import Cluster
from slurm_plugin.errors import HostError, TransportError
from slurm_plugin.hosts.base import Completed, HostProcess, StagedEntry, StagedFile
from slurm_plugin.job import JobId, JobKey, JobState, JobStatus

from .sbatch_rules import arguments_of

T = TypeVar("T")


class Faults:
    """What goes wrong at the next call of an operation."""

    def __init__(self) -> None:
        self._lost: list[str] = []
        self._broken: list[str] = []

    def lose(self, operation: str) -> None:
        """Let the next call be done and its answer be lost."""
        self._lost.append(operation)

    def break_(self, operation: str) -> None:
        """Let the next call fail before anything is done."""
        self._broken.append(operation)

    def _before(self, operation: str) -> None:
        if operation in self._broken:
            self._broken.remove(operation)
            raise TransportError(f"{operation}: connection refused")

    def _after(self, operation: str) -> None:
        if operation in self._lost:
            self._lost.remove(operation)
            raise TransportError(f"{operation}: connection lost")


class FakeHost(Faults):
    """Files and directories in memory. ``commands`` keeps what was run; ``ln`` is the one command there is."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.modes: dict[str, int] = {}
        self.links: dict[str, str] = {}
        self.directories: set[str] = {"/"}
        self.commands: list[tuple[str, ...]] = []
        self.following = 0
        self._grown = asyncio.Event()

    async def user(self) -> str:
        return "alice"

    async def home(self) -> str:
        return "/home/alice"

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        self._before("run")
        self.commands.append(tuple(argv))
        command, dashes, source, target = argv
        assert (command, dashes) == ("ln", "--")
        exists = target in self.files
        if not exists:
            self.files[target] = self.files[source]
        self._after("run")
        return Completed(tuple(argv), int(exists), b"", b"ln: File exists\n" if exists else b"")

    def process(self, argv: Sequence[str]) -> AbstractAsyncContextManager[HostProcess]:
        raise HostError(f"no such program: {argv[0]}")

    def _make(self, directory: str) -> None:
        parts = directory.split("/")
        self.directories |= {"/".join(parts[:count]) or "/" for count in range(1, len(parts) + 1)}

    async def stage(self, directory: str, entries: Sequence[StagedEntry]) -> bool:
        self._before("stage")
        fresh = directory not in self.directories
        if fresh:
            self._make(directory)
            for entry in entries:
                path = f"{directory}/{entry.path}"
                self._make(path.rpartition("/")[0])
                if isinstance(entry, StagedFile):
                    self.files[path], self.modes[path] = entry.data, entry.mode
                else:
                    self.links[path] = entry.target
        self._after("stage")
        return fresh

    async def swap_link(self, path: str, target: str) -> None:
        self.links[path] = target

    async def write(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        self._before("write")
        if path.rpartition("/")[0] not in self.directories:
            raise HostError(f"{path}: No such file or directory")
        self.files[path], self.modes[path] = data, mode
        self._after("write")

    async def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes | None:
        self._before("read")
        data = self.files.get(path)
        return None if data is None else data[offset:][:limit]

    async def list_directory(self, path: str) -> tuple[str, ...] | None:
        if path not in self.directories:
            return None
        names = {name.removeprefix(f"{path}/").split("/")[0] for name in {*self.files, *self.links, *self.directories}
                 if name.startswith(f"{path}/")}  # fmt: skip
        return tuple(sorted(names))

    async def remove_tree(self, path: str) -> None:
        self._before("remove_tree")
        gone = (path, f"{path}/")
        self.files = {name: data for name, data in self.files.items() if not name.startswith(gone[1])}
        self.directories = {name for name in self.directories if name != path and not name.startswith(gone[1])}
        self._after("remove_tree")

    def append(self, path: str, data: bytes) -> None:
        """Let a file grow, as its writer on the site does."""
        self.files[path] = self.files.get(path, b"") + data
        self._grown.set()

    async def follow(self, path: str, *, offset: int = 0) -> AsyncGenerator[bytes, None]:
        self.following += 1
        try:
            while True:
                self._grown.clear()
                if data := self.files.get(path, b"")[offset:]:
                    offset += len(data)
                    yield data
                else:
                    await self._grown.wait()
        finally:
            self.following -= 1

    async def close(self) -> None:
        """Nothing is open."""


class FakeSlurm(Faults):
    """Jobs of one user in memory. ``asked`` keeps signals and cancellations in order."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses: dict[JobId, JobStatus] = {}
        self.names: dict[JobId, tuple[str, str]] = {}
        self.asked: list[tuple[str, ...]] = []
        self.refuses: Exception | None = None
        self.late: list[tuple[str, str]] = []
        self.answered = asyncio.Event()  # whether what asks for an end is answered
        self.answered.set()

    def accept(self, script: str, directory: str) -> JobId:
        """Make a job of a script."""
        name = next(word for word in arguments_of(script) if word.startswith("--job-name="))
        job_id = JobId(str(100 + len(self.statuses)))
        self.statuses[job_id] = JobStatus(job_id, JobState.PENDING, restart_count=0)
        self.names[job_id] = (name.removeprefix("--job-name="), directory)
        return job_id

    def accept_late(self) -> None:
        """Let slurmctld come to what sbatch sent before it was killed."""
        while self.late:
            self.accept(*self.late.pop())

    def set(self, job_id: str, **changes: Any) -> JobStatus:
        """Change what Slurm says of a job."""
        status = replace(self.statuses[JobId(job_id)], **changes)
        self.statuses[JobId(job_id)] = status
        return status

    async def submit(self, script: str, *, directory: str) -> JobId:
        if "submit" in self._broken:
            self.late.append((script, directory))
        self._before("submit")
        if self.refuses is not None:
            raise self.refuses
        job_id = self.accept(script, directory)
        self._after("submit")
        return job_id

    async def jobs(self) -> Mapping[JobId, JobStatus]:
        return dict(self.statuses)

    async def ended_jobs(self, job_ids: Collection[JobId], *, since: int) -> Mapping[JobId, JobStatus]:
        return {job_id: status for job_id, status in self.statuses.items() if job_id in job_ids and status.ended}

    async def find(self, name: str, *, directory: str, since: int) -> tuple[JobStatus, ...]:
        self._before("find")
        return tuple(self.statuses[job_id] for job_id, names in self.names.items() if names == (name, directory))

    async def queued(self, wanted: Collection[JobKey]) -> Mapping[JobKey, tuple[JobStatus, ...]]:
        self._before("queued")
        self.asked.append(("queued",))
        found: dict[JobKey, tuple[JobStatus, ...]] = {}
        for job_id, names in self.names.items():
            if (key := JobKey(*names)) in wanted:
                found[key] = (*found.get(key, ()), self.statuses[job_id])
        return found

    async def signal_batch(self, job_id: JobId, signal: str) -> None:
        self._before("signal_batch")
        self.asked.append(("signal", job_id, signal))
        await self.answered.wait()
        self._after("signal_batch")

    async def cancel(self, job_id: JobId) -> None:
        self._before("cancel")
        self.asked.append(("cancel", job_id))
        await self.answered.wait()
        if job_id in self.statuses and not self.statuses[job_id].state.ended:
            self.set(job_id, state=JobState.CANCELLED)
        self._after("cancel")

    async def cluster(self) -> Cluster:
        self.asked.append(("cluster",))
        await asyncio.sleep(0)
        return Cluster("test", "24.11.5", (), ())

    async def close(self) -> None:
        pass


class _NoWaiting(selectors.DefaultSelector):
    """A selector that never blocks: what it would have waited goes by at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits for something that never comes"
            self.now += max(0.0, timeout)
        return ready


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer whenever nothing is ready."""

    def __init__(self) -> None:
        self._virtual = _NoWaiting()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run_at_once(test: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time: an hour of waiting takes none."""
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        return runner.run(test)
