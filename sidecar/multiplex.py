"""Many streams over one WebSocket, which either side may have dialled.

What comes in is put away at once and never waits for anybody: windows bound how much that can be. What goes out waits for
the window of its stream, and for the connection, which all streams share.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp
from aiohttp import web

from slurm_plugin.errors import TransportError

from . import frames
from .frames import Frame, Kind

log = logging.getLogger(__name__)

Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


class Stream:
    """One stream: bytes both ways, each ended by itself. One reader and one writer at a time."""

    def __init__(self, number: int, send: Callable[[Frame], Awaitable[None]]) -> None:
        self.number = number
        self._send = send
        self._came: deque[bytes] = deque()
        self._held = 0
        self._taken = 0
        self._credit = frames.WINDOW_BYTES
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._last = False
        self._ended = False
        self.over = False

    async def read(self) -> bytes:
        """Return what came, ``b""`` at its end. Raises TransportError once the stream is over."""
        while not self._came:
            if self._last:
                return b""
            if self.over:
                raise TransportError("the connection of the sidecar broke")
            self._news.clear()
            await self._news.wait()
        data = self._came.popleft()
        self._held -= len(data)
        self._taken += len(data)
        if self._taken >= frames.WINDOW_BYTES // 2 and not self.over:
            taken, self._taken = self._taken, 0
            with suppress(TransportError):  # it is over, and will be told to be; what came is read all the same
                await self._send(Frame(Kind.CREDIT, self.number, credit=taken))
        return data

    async def write(self, data: bytes) -> None:
        """Send, as the other side takes it away. Raises TransportError once the stream is over."""
        while data:
            while not self._credit and not self.over:
                self._room.clear()
                await self._room.wait()
            if self.over:
                raise TransportError("the connection of the sidecar broke")
            piece = data[: min(self._credit, frames.PIECE_BYTES)]
            data = data[len(piece) :]
            self._credit -= len(piece)
            await self._send(Frame(Kind.DATA, self.number, piece))

    async def end(self) -> None:
        """Say that no more is sent. Idempotent."""
        if not self._ended and not self.over:
            self._ended = True
            await self._send(Frame(Kind.END, self.number))

    @property
    def done(self) -> bool:
        """Whether it has ended both ways."""
        return self.over or (self._ended and self._last)

    def take(self, frame: Frame) -> None:
        """Put away what came. Raises TransportError for what the other side may not send."""
        if frame.kind is Kind.DATA:
            self._held += len(frame.data)
            if self._last or self._held + self._taken > frames.WINDOW_BYTES:
                raise TransportError(f"stream {frame.stream}: more data than was allowed")
            if frame.data:
                self._came.append(frame.data)
        elif frame.kind is Kind.END:
            self._last = True
        elif frame.kind is Kind.RESET:
            self.over = True
        elif frame.kind is Kind.CREDIT:
            self._credit += frame.credit
            if self._credit > frames.WINDOW_BYTES:
                raise TransportError(f"stream {frame.stream}: more credit than was used")
        self._news.set()
        self._room.set()

    def abandon(self) -> None:
        """It is over: the connection broke, or its other side is gone."""
        self.over = True
        self._news.set()
        self._room.set()


class Multiplexer:
    """The streams of one connection. ``opened``: what is done with a stream that the other side opens; None: it may not."""

    def __init__(self, socket: Socket, *, opened: Callable[[Stream], Awaitable[None]] | None = None) -> None:
        self._socket = socket
        self._opened = opened
        self._streams: dict[int, Stream] = {}
        self._next = 1
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> str:
        """Take what comes until the connection ends; return why it did. All streams are over then."""
        why = "it was closed"
        try:
            async for message in self._socket:
                self._take(frames.read(message.data if message.type is aiohttp.WSMsgType.BINARY else b""))
            if (error := self._socket.exception()) is not None:
                why = str(error) or type(error).__name__
        except TransportError as error:
            why = f"the other side sent nonsense: {error}"
        finally:
            for stream in self._streams.values():
                stream.abandon()
            self._streams.clear()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._socket.close()
        return why

    def _take(self, frame: Frame) -> None:
        if frame.kind is Kind.OPEN:
            if self._opened is None or frame.stream in self._streams or len(self._streams) >= frames.MOST_STREAMS:
                raise TransportError(f"stream {frame.stream} can't be opened")
            stream = self._streams[frame.stream] = Stream(frame.stream, self._send)
            task = asyncio.create_task(self._serve(self._opened, stream), name=f"stream {frame.stream}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif (known := self._streams.get(frame.stream)) is not None:  # else it was over before the other side heard so
            known.take(frame)

    async def _serve(self, opened: Callable[[Stream], Awaitable[None]], stream: Stream) -> None:
        try:
            await opened(stream)
        except (TransportError, OSError) as error:
            log.debug("stream %d: %s", stream.number, error)
        finally:
            await self.leave(stream)

    async def open(self) -> Stream:
        """Open a stream. Raises TransportError: there are too many, or the connection broke."""
        if len(self._streams) >= frames.MOST_STREAMS:
            raise TransportError(f"{frames.MOST_STREAMS} streams are open")
        stream = self._streams[self._next] = Stream(self._next, self._send)
        self._next += 1
        await self._send(Frame(Kind.OPEN, stream.number))
        return stream

    async def leave(self, stream: Stream) -> None:
        """Be done with a stream: the other side is told, unless it has ended both ways. Idempotent."""
        if self._streams.pop(stream.number, None) is not None and not stream.done:
            stream.abandon()
            try:
                await self._send(Frame(Kind.RESET, stream.number))
            except TransportError as error:
                log.debug("stream %d: %s", stream.number, error)

    async def _send(self, frame: Frame) -> None:
        try:
            await self._socket.send_bytes(frames.write(frame))
        except (ConnectionError, aiohttp.ClientError, RuntimeError) as error:
            raise TransportError(f"the connection of the sidecar broke: {error}") from error


async def carry(stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes between a stream and a local connection until both ways have ended, or one broke; then close that."""

    async def outward() -> None:
        while data := await reader.read(frames.PIECE_BYTES):
            await stream.write(data)
        await stream.end()

    async def inward() -> None:
        while data := await stream.read():
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    ways = [asyncio.create_task(way, name="stream") for way in (outward(), inward())]
    try:
        await asyncio.gather(*ways)
        writer.close()
        await writer.wait_closed()
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        writer.transport.abort()
