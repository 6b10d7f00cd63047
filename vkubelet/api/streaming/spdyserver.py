"""The server's end of one SPDY/3.1 connection: streams that the client opens, over any link of bytes.

Nothing waits without bound: what arrives and is not read fills one room for all streams, and while that is full the
client is not read; what we send waits for the client. A client that breaks the rules is told so and left.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from . import spdy
from .channels import PIECE, Inbox, Room
from .errors import BrokenProtocolError
from .idle import Idleness
from .limits import Limits
from .links import ByteLink

log = logging.getLogger(__name__)

_LINGER_SECONDS = 5.0


class SpdyStream:
    """A stream that the client opened. Its two halves end each for itself; ``gone`` is set if both are cut off at once."""

    def __init__(self, number: int, headers: dict[str, str], connection: "SpdyConnection", room: Room) -> None:
        self.number = number
        self.headers = headers
        self.inbox = Inbox(room)
        self.gone = asyncio.Event()
        self._connection = connection
        self._closed = False

    @property
    def over(self) -> bool:
        """Whether both halves have ended."""
        return self._closed and self.inbox.ended

    async def read(self) -> bytes:
        """Return some bytes, b"" at the end. ConnectionError once it was reset or the connection is lost."""
        return await self.inbox.read()

    async def write(self, data: bytes) -> None:
        """Send; waits while the client takes no more. ConnectionError once it is gone."""
        for start in range(0, len(data), PIECE):
            if self._closed:
                raise ConnectionResetError("the client reset the stream")
            piece = data[start : start + PIECE]
            await self._connection.send(spdy.data_head(self.number, len(piece)) + piece)

    async def close(self) -> None:
        """End our half. Again is a no-op."""
        if not self._closed:
            self._closed = True
            self._connection.forget_if_over(self)
            await self._connection.send(spdy.data_head(self.number, 0, last=True))

    async def reset(self) -> None:
        """End both halves: what still arrives is dropped."""
        if not self.over:
            self.was_reset("reset")
            self._connection.forget_if_over(self)
            await self._connection.send_frame(spdy.Reset(self.number, spdy.CANCEL))

    def was_reset(self, why: str) -> None:
        """Take notice that neither half goes on."""
        self._closed = True
        self.inbox.break_off(why)
        self.gone.set()


class SpdyConnection:
    """Serves one connection. ``accept`` gives the streams in the order in which they were opened."""

    def __init__(self, link: ByteLink, limits: Limits, *, who: str) -> None:
        self._link = link
        self._who = who
        self._limits = limits
        self._room = Room(limits.waiting_bytes)
        self._idle = Idleness(limits.idle_seconds)
        self._parser = spdy.FrameParser()
        self._encoder = spdy.FrameEncoder()
        self._streams: dict[int, SpdyStream] = {}
        self._last = 0
        self._useless = 0
        self._opened: asyncio.Queue[SpdyStream] = asyncio.Queue()
        self._parting = False

    async def accept(self) -> SpdyStream:
        """Wait for the next stream."""
        return await self._opened.get()

    async def reject(self, stream: SpdyStream, why: str) -> None:
        """Reset a stream that makes no sense. A client that goes on opening such ones is left."""
        self._useless += 1
        log.warning("%s: %s", self._who, why)
        await stream.reset()

    async def serve(self, work: Callable[[], Awaitable[None]]) -> None:
        """Read the connection while ``work`` runs, then part; ``work`` is cancelled when the client goes or errs."""
        tasks = [
            asyncio.create_task(self._read(), name=f"SPDY from {self._who}"),
            asyncio.create_task(self._idle.wait(), name=f"idleness of {self._who}"),
            asyncio.ensure_future(work()),
        ]
        reading, idle, working = tasks
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await self._part(reading)
            elif idle.done():
                log.info("%s: closed after %.0f s without a byte", self._who, self._idle.seconds)
            elif (error := reading.exception()) is not None:
                await self._refuse(error)
        finally:
            await self._end(tasks)
        if working.done() and not working.cancelled():
            working.result()

    async def _end(self, tasks: Sequence[asyncio.Future[None]]) -> None:
        for task in tasks:
            task.cancel()
        for stream in self._streams.values():
            stream.was_reset("the connection is closed")
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await self._link.close()

    async def _part(self, reading: "asyncio.Future[None]") -> None:
        """Say goodbye and read on for a while: closed with bytes unread, TCP would throw away what we sent last."""
        self._parting = True
        for stream in self._streams.values():
            stream.inbox.discard()
        try:
            await self.send_frame(spdy.GoAway(self._last, spdy.GOAWAY_OK))
        except ConnectionError:
            return
        await asyncio.wait((reading,), timeout=_LINGER_SECONDS)

    async def _refuse(self, error: BaseException) -> None:
        if not isinstance(error, BrokenProtocolError | TimeoutError):
            raise error
        log.warning("%s: connection closed: %s", self._who, str(error) or "a frame that does not end")
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                await self.send_frame(spdy.GoAway(self._last, spdy.GOAWAY_PROTOCOL_ERROR))
        except (ConnectionError, TimeoutError):
            log.debug("%s: gone before it was told", self._who)

    async def send_frame(self, frame: spdy.Frame) -> None:
        """Send a control frame."""
        await self.send(self._encoder.encode(frame))

    async def send(self, data: bytes) -> None:
        """Send a frame's bytes; waits while the client takes no more. ConnectionError once it is gone."""
        await self._link.write(data)
        self._idle.touch()

    def forget_if_over(self, stream: SpdyStream) -> None:
        """Let go of a stream of which both halves have ended."""
        if stream.over:
            self._streams.pop(stream.number, None)

    async def _read(self) -> None:
        while True:
            async with asyncio.timeout(self._limits.frame_seconds if self._parser.in_frame else None):
                data = await self._link.read()
            if not data:
                return
            self._idle.touch()
            for frame in self._parser.feed(data):
                await self._take(frame)
            await self._room.wait()

    async def _take(self, frame: spdy.Frame) -> None:
        match frame:
            case spdy.Data() if frame.stream > self._last:
                raise spdy.SpdyError(f"data for stream {frame.stream}, which was never opened")
            case spdy.Data():
                if (stream := self._streams.get(frame.stream)) is not None:
                    stream.inbox.put(frame.data)
                    if frame.last:
                        stream.inbox.end()
                        self.forget_if_over(stream)
            case spdy.SynStream():
                await self._open(frame)
            case spdy.Reset():
                if (stream := self._streams.pop(frame.stream, None)) is not None:
                    stream.was_reset("the client reset the stream")
            case spdy.Ping() if frame.number % 2:
                await self.send_frame(frame)
            case _:
                pass  # answers to what we never ask, and goodbyes: the end of the connection follows

    async def _open(self, frame: spdy.SynStream) -> None:
        if frame.stream % 2 == 0 or frame.stream <= self._last:
            raise spdy.SpdyError(f"stream {frame.stream} opened after stream {self._last}")
        self._last = frame.stream
        if self._parting:
            await self.send_frame(spdy.Reset(frame.stream, spdy.REFUSED_STREAM))
            return
        if max(len(self._streams), self._opened.qsize()) >= self._limits.streams:
            raise spdy.SpdyError(f"more than {self._limits.streams} streams open at once")
        if self._useless >= self._limits.useless:
            raise spdy.SpdyError(f"more than {self._limits.useless} streams that make no sense")
        stream = SpdyStream(frame.stream, dict(frame.headers), self, self._room)
        self._streams[frame.stream] = stream
        if frame.last:
            stream.inbox.end()
        # The client waits for it before it opens the next one or sends anything.
        await self.send_frame(spdy.SynReply(frame.stream, {}))
        self._opened.put_nowait(stream)
