"""Entering running pods: one helper step per pod, started at the first use and kept for as long as it is used.

The step is ``srun --overlap`` on the pod's batch host (``commands.enter``, ``runner.enter``), reached through the
pod's own Host; commands, attached clients and port connections are streams in its one connection. So a pod that is
entered ten thousand times has one recorded step, and only the first time costs Slurm anything.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from .clients import failures
from .commands import enter
from .errors import HostError, PodNotFoundError, TransportError
from .hosts.base import Host
from .hosts.callback import called_back
from .hosts.channel import skip_noise
from .hosts.connection import Connection
from .hosts.stepchannel import StepChannel
from .hosts.streams import ProcessStream
from .job import JobId, PodUid
from .records import PodRecord
from .runner.state import Running
from .translate import Site

log = logging.getLogger(__name__)

# Slurm may take its time to create a step (a suspended job, a busy slurmctld); nobody at a terminal waits longer.
_START_SECONDS = 45.0
_OPEN_SECONDS = 30.0

Start = Callable[[], Awaitable[Connection]]


class Helper:
    """The helper step of one run of one pod. ``start`` makes one; it is let go ``idle_seconds`` after its last use."""

    def __init__(self, name: str, start: Start, idle_seconds: float) -> None:
        self._name = name
        self._start = start
        self._idle_seconds = idle_seconds
        self._connection: Connection | None = None
        self._starting: asyncio.Task[Connection] | None = None
        self._users = 0
        self._letting_go: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def stream(self, header: dict[str, object], name: str) -> AsyncGenerator[ProcessStream, None]:
        """Open a stream in the step. Raises what starting it raises, and HostError with the node's own words."""
        async with self._use() as connection:
            stream = await connection.open(header, name=name, timeout=_OPEN_SECONDS)
            try:
                yield stream
            finally:
                await connection.release(stream)

    async def call(self, header: dict[str, object]) -> None:
        """Have the step do something. Raises as ``stream`` does."""
        async with self._use() as connection:
            await connection.call(header, timeout=_OPEN_SECONDS)

    @asynccontextmanager
    async def _use(self) -> AsyncGenerator[Connection, None]:
        self._users += 1
        if self._letting_go is not None:
            self._letting_go.cancel()
            self._letting_go = None
        try:
            yield await self._connected()
        finally:
            self._users -= 1
            if self._users == 0 and self._letting_go is None:
                self._letting_go = asyncio.create_task(self._let_go(), name=f"idle helper of {self._name}")

    async def _connected(self) -> Connection:
        """Return the live connection, or make one: one step, whoever waits for it."""
        if self._connection is not None and self._connection.lost is None:
            return self._connection
        if self._starting is None:
            self._starting = asyncio.create_task(self._restart(), name=f"start helper of {self._name}")
            self._starting.add_done_callback(self._started)
        starting = self._starting
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            if not starting.cancelled() or _being_cancelled():
                raise
            raise PodNotFoundError(f"{self._name} ended before it could be entered") from None

    def _started(self, task: asyncio.Task[Connection]) -> None:
        self._starting = None
        if not task.cancelled() and task.exception() is None:
            self._connection = task.result()
            if self._users == 0 and self._letting_go is None:  # everybody went while it was being made
                self._letting_go = asyncio.create_task(self._let_go(), name=f"idle helper of {self._name}")

    async def _restart(self) -> Connection:
        if self._connection is not None:
            await self._connection.close("lost")
            self._connection = None
        return await self._start()

    async def _let_go(self) -> None:
        await asyncio.sleep(self._idle_seconds)
        self._letting_go = None
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close("idle")

    async def close(self) -> None:
        """End the step and everything in it."""
        tasks = [task for task in (self._starting, self._letting_go) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._connection is not None:
            await self._connection.close()


class Entering:
    """The helpers of a provider's pods. ``site`` says where the archive and the job directories are, ``find`` what is
    known of a pod.
    """

    def __init__(
        self,
        host: Host,
        site: Callable[[], Awaitable[Site]],
        find: Callable[[PodUid], PodRecord | None],
        idle_seconds: float,
    ) -> None:
        self._host = host
        self._site = site
        self._find = find
        self._idle_seconds = idle_seconds
        self._helpers: dict[tuple[PodUid, JobId, int], Helper] = {}

    @asynccontextmanager
    async def exec(
        self, uid: PodUid, container: str, argv: Sequence[str], *, stdin: bool, tty: bool
    ) -> AsyncGenerator[ProcessStream, None]:
        """Run a command in a running container (``contract.Enterable.exec``)."""
        helper = await self._helper(_running(self._find(uid), container))
        header = {"op": "exec", "container": container, "argv": [*argv], "stdin": stdin, "tty": tty}
        async with helper.stream(header, argv[0] if argv else "") as stream:
            yield stream

    @asynccontextmanager
    async def attach(self, uid: PodUid, container: str, *, stdin: bool) -> AsyncGenerator[ProcessStream, None]:
        """Join the streams of a running container (``contract.Enterable.attach``)."""
        helper = await self._helper(_running(self._find(uid), container))
        async with helper.stream({"op": "attach", "container": container, "stdin": stdin}, container) as stream:
            yield stream

    @asynccontextmanager
    async def connect(self, uid: PodUid, port: int) -> AsyncGenerator["Connected", None]:
        """Connect to a port of the pod (``contract.Enterable.connect``)."""
        if not 0 < port < 1 << 16:
            raise HostError(f"not a port: {port}")
        helper = await self._helper(_alive(self._find(uid)))
        async with helper.stream({"op": "connect", "port": port}, f"port {port}") as stream:
            yield Connected(stream)

    async def admit(self, uid: PodUid) -> None:
        """Have a running pod's runner look for containers that were added to it."""
        helper = await self._helper(_alive(self._find(uid)))
        await helper.call({"op": "admit"})

    async def _helper(self, record: PodRecord) -> Helper:
        runner, job_id = record.runner, record.job_id
        if runner is None or job_id is None:
            raise PodNotFoundError(f"pod {record.name} does not run here")
        key = (record.uid, job_id, runner.restart)
        for other in tuple(self._helpers):
            if other[0] == record.uid and other != key and (old := self._helpers.pop(other, None)) is not None:
                await old.close()
        if key not in self._helpers:
            node = (record.job.batch_host if record.job is not None else "") or runner.node

            async def start() -> Connection:
                return await self._start(record, job_id, node)

            self._helpers[key] = Helper(record.job_name, start, self._idle_seconds)
        return self._helpers[key]

    async def _start(self, record: PodRecord, job_id: JobId, node: str) -> Connection:
        site = await self._site()
        argv = enter(
            job_id,
            node,
            interpreters=site.settings.slurm.interpreters,
            archive=site.archive,
            digest=site.archive_digest,
            directory=site.root.job_dir(record.uid).path,
        )
        name = f"the helper step of pod {record.namespace}/{record.name}"
        channel = await StepChannel.open(self._host, argv)
        try:
            async with asyncio.timeout(_START_SECONDS):
                found, rest = await skip_noise(channel)
        except TimeoutError as error:
            await channel.close()
            raise TransportError(
                f"{name} did not start within {_START_SECONDS:.0f} s: is its job suspended?"
            ) from error
        except BaseException:
            await channel.close()
            raise
        if not found:
            code, words = await channel.ended()
            await channel.close()
            raise failures.step(code, words or rest.decode(errors="replace"))
        log.info("pod entered", extra={"uid": record.uid, "job_id": job_id})
        return await called_back(self._host, Connection(name, channel, rest), name)

    async def forget(self, uid: PodUid) -> None:
        """Let go of a pod that has ended."""
        for key in tuple(self._helpers):
            if key[0] == uid and (helper := self._helpers.pop(key, None)) is not None:
                await helper.close()

    async def close(self) -> None:
        """End every helper step."""
        helpers, self._helpers = tuple(self._helpers.values()), {}
        await asyncio.gather(*(helper.close() for helper in helpers))


class Connected:
    """A stream as the connection of the contract (``contract.PodConnection``)."""

    def __init__(self, stream: ProcessStream) -> None:
        self.read = stream.read
        self.write = stream.write
        self.close_write = stream.close_stdin


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _alive(record: PodRecord | None) -> PodRecord:
    """Return the record of a pod that can be entered; PodNotFoundError otherwise."""
    if record is None or not record.running or record.settled or record.runner is None or record.runner.final:
        raise PodNotFoundError("the pod does not run here" if record is None else f"pod {record.name} is not running")
    return record


def _running(record: PodRecord | None, container: str) -> PodRecord:
    """Return the record of a pod whose container runs; PodNotFoundError, in the kubelet's words, otherwise."""
    alive = _alive(record)
    states = alive.runner.containers if alive.runner is not None else ()
    state = next((state for state in states if state.name == container), None)
    if state is None:
        raise PodNotFoundError(f'container not found ("{container}")')
    if not isinstance(state.state, Running):
        raise PodNotFoundError(f'container "{container}" in pod "{alive.name}" is not running')
    return alive
