"""The near half of the agent's streams: what arrived and was not read yet, and the credit that bounds it."""

import asyncio
from collections import deque
from collections.abc import Callable

from ..errors import HostError, SlurmletError
from ..hostagent.protocol import CHUNK, WINDOW, Header

Post = Callable[[Header, bytes], None]


class Inlet:
    """One channel of a stream, coming in. Reading gives the agent credit for what was read."""

    def __init__(self, credit: Callable[[int], None]) -> None:
        self._credit = credit
        self._chunks: deque[bytes] = deque()
        self._owed = 0
        self._over = False
        self._error: SlurmletError | None = None
        self._some = asyncio.Event()

    def put(self, data: bytes) -> None:
        """Take what arrived; b"" is the end."""
        if data:
            self._chunks.append(data)
        else:
            self._over = True
        self._some.set()

    def fail(self, error: SlurmletError) -> None:
        """End it: what arrived is still read, then the error is raised."""
        if not self._over:
            self._error = error
            self._some.set()

    async def read(self) -> bytes:
        """Return everything that has arrived, at least one byte; b"" is the end."""
        while not self._chunks:
            if self._over:
                return b""
            if self._error is not None:
                raise self._error
            self._some.clear()
            await self._some.wait()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._owed += len(data)
        if self._owed >= WINDOW // 4 and not self._over:
            self._credit(self._owed)
            self._owed = 0
        return data


class Stream:
    """What a connection tells a stream."""

    def on_event(self, header: Header, payload: bytes) -> None:
        """Take an event of this stream."""
        raise NotImplementedError

    def on_lost(self, error: SlurmletError) -> None:
        """The connection is gone, or the stream was ended by the agent."""
        raise NotImplementedError


class FollowStream(Stream):
    """A growing file."""

    def __init__(self, number: int, post: Post) -> None:
        self.number = number
        self._post = post
        self._data = Inlet(
            lambda count: post({"stream": number, "op": "credit", "channel": "data", "bytes": count}, b"")
        )
        self.read = self._data.read

    def on_event(self, header: Header, payload: bytes) -> None:
        """Take data."""
        if header["event"] == "data":
            self._data.put(payload)

    def on_lost(self, error: SlurmletError) -> None:
        """Raise the error at the next read."""
        self._data.fail(error)


class ProcessStream(Stream):
    """A running command: the HostProcess of ``base``. ``name`` is for messages."""

    def __init__(self, number: int, post: Post, name: str) -> None:
        self.number = number
        self._post = post
        self._name = name
        self._channels = {name: self._inlet(name) for name in ("stdout", "stderr")}
        self._room = WINDOW
        self._stdin_closed = False
        self._stdin_changed = asyncio.Event()
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.read = self._channels["stdout"].read
        self.read_error = self._channels["stderr"].read

    def _inlet(self, name: str) -> Inlet:
        number, post = self.number, self._post
        return Inlet(lambda count: post({"stream": number, "op": "credit", "channel": name, "bytes": count}, b""))

    def on_event(self, header: Header, payload: bytes) -> None:
        """Take output, credit for input, or the end."""
        event = header["event"]
        if event in self._channels:
            self._channels[event].put(payload)
        elif event == "stdin":
            self._room += header["bytes"]
            self._stdin_changed.set()
        elif event == "stdin_closed":
            self._stdin_closed = True
            self._stdin_changed.set()
        elif event == "exit" and not self._exit.done():
            self._exit.set_result(header["code"])
            self._stdin_changed.set()
        elif event == "released" and not self.released.done():
            self.released.set_result(None)

    def on_lost(self, error: SlurmletError) -> None:
        """Raise the error from whatever waits."""
        for channel in self._channels.values():
            channel.fail(error)
        for future in (self._exit, self.released):
            if not future.done():
                future.set_exception(error)
                future.exception()  # seen: nobody may be waiting for it
        self._stdin_changed.set()

    async def write(self, data: bytes) -> None:
        """Write to its standard input; waits while the command does not read. HostError once it reads no more."""
        view = memoryview(data)
        while view:
            if self._exit.done() and self._exit.exception() is not None:
                self._exit.result()
            if self._stdin_closed or self._exit.done():
                raise HostError(f"{self._name} has closed its standard input")
            if self._room <= 0:
                self._stdin_changed.clear()
                await self._stdin_changed.wait()
                continue
            part = view[: min(self._room, CHUNK)]
            self._room -= len(part)
            self._post({"stream": self.number, "op": "stdin"}, bytes(part))
            view = view[len(part) :]

    async def close_stdin(self) -> None:
        """Half-close: the command reads an end of file."""
        self._stdin_closed = True
        self._post({"stream": self.number, "op": "close_stdin"}, b"")

    async def resize(self, columns: int, rows: int) -> None:
        """Tell its terminal the size; the agent ignores it where there is no terminal."""
        self._post({"stream": self.number, "op": "resize", "columns": columns, "rows": rows}, b"")

    async def wait(self) -> int:
        """Wait for its end; the exit code, 128 + signal when a signal ended it."""
        return await asyncio.shield(self._exit)
