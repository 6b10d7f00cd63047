"""A provider whose pods are this machine: commands are processes, terminals ptys, ports those of the loopback."""

import asyncio
import fcntl
import os
import pty
import struct
import termios
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from slurm_plugin.contract import ContainerProcess, PodConnection
from slurm_plugin.errors import HostError, PodNotFoundError
from slurm_plugin.job import PodUid

_PIECE = 64 * 1024


async def eventually(check: Callable[[], object], *, seconds: float = 60) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not check():  # noqa: ASYNC110  it may be anything
            await asyncio.sleep(0.01)


class LocalProcess:
    """A process with pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        try:
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise HostError("it reads no more") from error

    async def close_stdin(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def read(self) -> bytes:
        assert self._process.stdout is not None
        return await self._process.stdout.read(_PIECE)

    async def read_error(self) -> bytes:
        assert self._process.stderr is not None
        return await self._process.stderr.read(_PIECE)

    async def resize(self, columns: int, rows: int) -> None:
        return

    async def wait(self) -> int:
        code = await self._process.wait()
        return code if code >= 0 else 128 - code


class LocalTerminal:
    """A process with a terminal; ``master`` is our end of it."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self._process = process
        self._master = master

    async def write(self, data: bytes) -> None:
        await asyncio.to_thread(os.write, self._master, data)

    async def close_stdin(self) -> None:
        await self.write(b"\x04")

    async def read(self) -> bytes:
        try:
            return await asyncio.to_thread(os.read, self._master, _PIECE)
        except OSError:
            return b""

    async def read_error(self) -> bytes:
        return b""

    async def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def wait(self) -> int:
        return await self._process.wait()


class LocalConnection:
    """A TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError as error:
            raise HostError(str(error)) from error

    async def close_write(self) -> None:
        self._writer.write_eof()

    async def read(self) -> bytes:
        try:
            return await self._reader.read(_PIECE)
        except ConnectionError as error:
            raise HostError(str(error)) from error


class FailingProcess(LocalProcess):
    """A process of which some calls fail."""

    def __init__(self, process: asyncio.subprocess.Process, failing: Mapping[str, BaseException]) -> None:
        super().__init__(process)
        self._failing = failing

    async def write(self, data: bytes) -> None:
        raise_if_any(self._failing, "write")
        await super().write(data)

    async def read(self) -> bytes:
        raise_if_any(self._failing, "read")
        return await super().read()

    async def wait(self) -> int:
        raise_if_any(self._failing, "wait")
        return await super().wait()


def raise_if_any(failing: Mapping[str, BaseException], call: str) -> None:
    if (error := failing.get(call)) is not None:
        raise error


class LocalPods:
    """Every pod's every container is this machine. ``inside`` counts who is in one now, ``argvs`` what was run.

    ``failing``: what a call raises that should not: ``exec``, ``read``, ``write``, ``wait``; ``connect`` of port 1.
    Port 2 never answers; who waits for it counts as inside.
    """

    def __init__(self) -> None:
        self.inside = 0
        self.failing: dict[str, BaseException] = {}
        self.argvs: list[Sequence[str]] = []
        self.missing = False

    @asynccontextmanager
    async def exec(
        self, uid: PodUid, container: str, argv: Sequence[str], *, stdin: bool, tty: bool
    ) -> AsyncIterator[ContainerProcess]:
        if self.missing:
            raise PodNotFoundError(f"container {container} does not run")
        raise_if_any(self.failing, "exec")
        self.argvs.append(argv)
        self.inside += 1
        try:
            async with _terminal(argv) if tty else _pipes(argv, self.failing, stdin=stdin) as process:
                yield process
        finally:
            self.inside -= 1

    @asynccontextmanager
    async def attach(self, uid: PodUid, container: str, *, stdin: bool) -> AsyncIterator[ContainerProcess]:
        async with self.exec(uid, container, ("cat",), stdin=stdin, tty=False) as process:
            yield process

    @asynccontextmanager
    async def connect(self, uid: PodUid, port: int) -> AsyncIterator[PodConnection]:
        if port == 1:
            raise_if_any(self.failing, "connect")
        if port == 2:
            self.inside += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.inside -= 1
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            raise HostError(f"connection refused: {error.strerror}") from error
        self.inside += 1
        try:
            yield LocalConnection(reader, writer)
        finally:
            self.inside -= 1
            writer.transport.abort()


@asynccontextmanager
async def _pipes(
    argv: Sequence[str], failing: Mapping[str, BaseException], *, stdin: bool
) -> AsyncIterator[ContainerProcess]:
    pipe = asyncio.subprocess.PIPE
    given = pipe if stdin else asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(*argv, stdin=given, stdout=pipe, stderr=pipe)
    except OSError as error:
        raise HostError(f"{argv[0]}: {error.strerror}") from error
    try:
        yield FailingProcess(process, failing)
    finally:
        await _end(process)


@asynccontextmanager
async def _terminal(argv: Sequence[str]) -> AsyncIterator[ContainerProcess]:
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    try:
        yield LocalTerminal(process, master)
    finally:
        await _end(process)
        os.close(master)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it; asyncio waits for its pipes too, and one that is paused would never end."""
    process._transport.close()  # type: ignore[attr-defined]
    await process.wait()
