"""The Host contract over a host agent, whatever the channel: this machine's or a login node's.

A dead connection fails the calls under way (TransportError: what they did is unknown); the next call makes a new one,
at once the first time, then no more often than the back-off allows.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from ..archive import build
from ..errors import HostError, SlurmletError, TransportError
from ..hostagent.protocol import Header
from .base import Completed, HostProcess, StagedEntry, StagedFile
from .channel import ChannelOpener, greet_first
from .connection import Connection

# For calls that name no time-out of their own: a file system may be slow, but not for ever.
_CALL_SECONDS = 60.0
# Beyond a command's own time-out, which the agent keeps: for the way there and back.
_MARGIN_SECONDS = 10.0
_FIRST_DELAY_SECONDS = 0.5
_LAST_DELAY_SECONDS = 30.0

_READ_ENOUGH = 1 << 60


class AgentHost:
    """A Host whose agent runs in channels made by ``opener``.

    ``name`` is for messages, ``pythons`` are tried in order, ``connect_timeout`` is in seconds, ``now`` is a
    monotonic clock.
    """

    def __init__(
        self,
        name: str,
        opener: ChannelOpener,
        *,
        pythons: Sequence[str],
        connect_timeout: float = 30.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._opener = opener
        self._pythons = tuple(pythons)
        self._connect_timeout = connect_timeout
        self._now = now
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._hello: dict[str, Any] = {}
        self._failures = 0
        self._why = f"{name} can't be reached"
        self._refusal = ""
        self._not_before = float("-inf")
        self._closed = False

    # The connection

    async def _connected(self) -> Connection:
        """Return the live connection, or make one: a single attempt, whoever waits for it."""
        if self._closed:
            raise TransportError(f"the connection to {self._name} was closed")
        if self._connection is not None and self._connection.lost is None:
            return self._connection
        if self._connecting is None:
            wait = self._not_before - self._now()
            if wait > 0:
                # The same words all the time: they stand in the node's condition.
                raise TransportError(f"{self._why}; waiting for the next attempt")
            self._connecting = asyncio.create_task(self._connect(), name=f"connect to {self._name}")
            self._connecting.add_done_callback(self._connect_done)
        return await asyncio.shield(self._connecting)

    def _connect_done(self, task: asyncio.Task[Connection]) -> None:
        self._connecting = None
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._connection, self._failures, self._refusal = task.result(), 0, ""
            return
        self._why = str(error)
        delay = min(_LAST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2.0**self._failures)
        self._failures = min(self._failures + 1, 30)
        self._not_before = self._now() + delay

    async def _connect(self) -> Connection:
        if self._connection is not None:
            lost, self._connection = self._connection, None
            await lost.close("lost")
        try:
            async with asyncio.timeout(self._connect_timeout) as limit:
                channel, rest = await greet_first(self._opener, self._pythons, build())
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TransportError(f"{self._name} gave no host agent within {self._connect_timeout:.0f} s") from error
        except HostError as error:
            self._refusal = str(error)
            raise type(error)(f"{self._name}: {error}") from error
        except SlurmletError as error:
            # Who was refused may be turned away afterwards without a word (sshd's PerSourcePenalties): the refusal counts.
            before = f"; refused before: {self._refusal}" if self._refusal else ""
            raise type(error)(f"{self._name}: {error}{before}") from error
        connection = Connection(self._name, channel, rest)
        try:
            answer, _ = await connection.call({"op": "hello"}, timeout=self._connect_timeout)
        except BaseException:
            await connection.close()
            raise
        self._hello = answer["result"]
        return connection

    async def _call(self, header: Header, payload: bytes = b"", *, timeout: float = _CALL_SECONDS) -> tuple[Any, bytes]:
        connection = await self._connected()
        answer, data = await connection.call(header, payload, timeout=timeout)
        return answer["result"], data

    # The contract

    async def user(self) -> str:
        """Return the name of the user that the agent runs as."""
        await self._connected()
        return str(self._hello["user"])

    async def home(self) -> str:
        """Return that user's home directory."""
        await self._connected()
        return str(self._hello["home"])

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        """Run a command to its end; the agent kills its process group when the time is over or the caller is cancelled."""
        command = {"op": "run", "argv": _checked(argv), "timeout": timeout}
        try:
            result, output = await self._call(command, stdin, timeout=timeout + _MARGIN_SECONDS)
        except TimeoutError as error:
            raise TimeoutError(f"{argv[0]} on {self._name} did not end within {timeout:g} s") from error
        size = result["stdout"]
        return Completed(tuple(argv), result["exit_code"], output[:size], output[size:])

    @asynccontextmanager
    async def process(self, argv: Sequence[str]) -> AsyncIterator[HostProcess]:
        """Start a command with streams; leaving the context sends TERM, a second later KILL, to its process group."""
        connection = await self._connected()
        process = await connection.start(_checked(argv), timeout=_CALL_SECONDS)
        try:
            yield process
        finally:
            await connection.release(process)

    async def stage(self, directory: str, entries: Sequence[StagedEntry]) -> bool:
        """Make ``directory`` with these entries in one message, all or nothing; False if it existed."""
        listed: list[tuple[str, int, int] | tuple[str, str]] = []
        data: list[bytes] = []
        for entry in entries:
            if isinstance(entry, StagedFile):
                listed.append((entry.path, len(entry.data), entry.mode))
                data.append(entry.data)
            else:
                listed.append((entry.path, entry.target))
        made, _ = await self._call({"op": "stage", "path": directory, "entries": listed}, b"".join(data))
        return bool(made)

    async def swap_link(self, path: str, target: str) -> None:
        """Make ``path`` a symbolic link to ``target``, atomically."""
        await self._call({"op": "swap_link", "path": path, "target": target})

    async def write(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        """Write a whole file, atomically; its directory must exist."""
        await self._call({"op": "write", "path": path, "mode": mode}, data)

    async def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes | None:
        """Read a file, or part of it. A file that is replaced meanwhile is read again, so that it is never a mixture."""
        while True:
            pieces: list[bytes] = []
            at, left, identity = offset, _READ_ENOUGH if limit is None else limit, None
            while True:
                found, data = await self._call({"op": "read", "path": path, "offset": at, "limit": left})
                if found is None and identity is None:
                    return None
                if identity not in {None, found}:
                    break
                identity = found
                pieces.append(data)
                at += len(data)
                left -= len(data)
                if not data or left <= 0:
                    return b"".join(pieces)

    async def list_directory(self, path: str) -> tuple[str, ...] | None:
        """Return the names in a directory, sorted; None if there is no such directory."""
        names, _ = await self._call({"op": "list", "path": path})
        return None if names is None else tuple(names)

    async def remove_tree(self, path: str) -> None:
        """Remove a directory and everything in it; none there is a no-op. A large tree may take its time."""
        await self._call({"op": "remove_tree", "path": path}, timeout=10 * _CALL_SECONDS)

    async def follow(self, path: str, *, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield what a growing file holds from ``offset`` on; goes on with the new file when it is replaced."""
        connection = await self._connected()
        stream = await connection.follow(path, offset, timeout=_CALL_SECONDS)
        try:
            while data := await stream.read():
                yield data
        finally:
            connection.cancel(stream)

    async def close(self) -> None:
        """Close the connection; what was started through it is killed. Later calls raise TransportError."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        if self._connection is not None:
            await self._connection.close()


def _checked(argv: Sequence[str]) -> tuple[str, ...]:
    """Refuse what no machine could run before it travels."""
    if isinstance(argv, str) or not argv:
        raise HostError(f"not an argv: {argv!r}")
    for word in argv:
        if "\0" in word:
            raise HostError(f"a NUL character can't be in an argument: {word[:80]!r}")
    return tuple(argv)
