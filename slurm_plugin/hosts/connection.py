"""One connection to one agent: requests matched with their answers, streams with their events.

Two tasks of its own move the frames; a caller only ever waits for its own answer. The end of the connection is told
to every caller at once.
"""

import asyncio
import logging
from collections import deque
from typing import Any

from ..errors import HostError, SlurmletError, TransportError
from ..hostagent import protocol
from ..hostagent.protocol import Frame, Header
from .channel import Channel
from .streams import FollowStream, ProcessStream, Stream

log = logging.getLogger(__name__)

# Unsent bytes beyond which requests wait.
_HIGH_WATER = 4 << 20
# The agent's reading thread answers a ping at once, whatever else it is doing.
_PING_SECONDS = 10.0
# An agent kills TERM-proof processes after a second.
_RELEASE_SECONDS = 5.0


def _error(error: Header) -> Exception:
    if error["kind"] == protocol.TIMEOUT:
        return TimeoutError(error["message"])
    if error["kind"] == protocol.INTERNAL:
        return HostError(f"a fault in the host agent: {error['message']}")
    return HostError(error["message"])


class Connection:
    """A channel whose agent has greeted. ``name`` is for messages."""

    def __init__(self, name: str, channel: Channel, rest: bytes) -> None:
        self._name = name
        self._channel = channel
        self._decoder = protocol.Decoder()
        self._number = 0
        self._pending: dict[int, asyncio.Future[Frame]] = {}
        self._streams: dict[int, Stream] = {}
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._unsent_changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.lost: TransportError | None = None
        self._tasks = (
            asyncio.create_task(self._receive(rest), name=f"receive from {name}"),
            asyncio.create_task(self._transmit(), name=f"send to {name}"),
        )
        self._checking: asyncio.Task[None] | None = None

    async def call(self, header: Header, payload: bytes = b"", *, timeout: float) -> Frame:
        """Have the agent do something; returns (the whole answer, its payload).

        Raises what the agent answers; TransportError if no answer comes in time or the connection ends.
        A caller that goes away cancels what it asked for.
        """
        self._number += 1
        return await self._call(self._number, header, payload, timeout)

    async def _call(self, number: int, header: Header, payload: bytes, timeout: float) -> Frame:
        future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        try:
            async with asyncio.timeout(timeout) as limit:
                await self._room.wait()
                self.post({"id": number, **header}, payload)
                answer, data = await future
        except BaseException as error:
            if not future.done() or future.cancelled():
                self._abandon(number)
            if isinstance(error, TimeoutError) and limit.expired():
                self._suspect()
                raise TransportError(f"{self._name} did not answer within {timeout:.0f} s: {header['op']}") from error
            raise
        finally:
            del self._pending[number]
        if "error" in answer:
            raise _error(answer["error"])
        return answer, data

    def _abandon(self, number: int) -> None:
        if self.lost is None:
            self.post({"id": number, "op": "cancel"})

    def _suspect(self) -> None:
        """Find out whether the agent still lives; one look at a time."""
        if self._checking is None and self.lost is None:
            self._checking = asyncio.create_task(self._check(), name=f"ping {self._name}")

    async def _check(self) -> None:
        self._number += 1
        number = self._number
        self._pending[number] = future = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_PING_SECONDS):
                self.post({"id": number, "op": "ping"})
                await future
        except TransportError:
            pass  # it is known by now
        except TimeoutError:
            self._lose(TransportError(f"{self._name} no longer answers"))
        finally:
            del self._pending[number]
            self._checking = None

    def post(self, header: Header, payload: bytes = b"") -> None:
        """Send a frame in its turn, without waiting. Raises TransportError if the connection is gone, HostError for one too large."""
        if self.lost is not None:
            raise TransportError(str(self.lost))  # a new one: each gathers the trace of its own caller
        try:
            frame = protocol.encode(header, payload)
        except protocol.ProtocolError as error:
            raise HostError(f"too much at once for {self._name}: {error}") from error
        self._unsent.append(frame)
        self._unsent_bytes += len(frame)
        if self._unsent_bytes > _HIGH_WATER:
            self._room.clear()
        self._unsent_changed.set()

    def _post_late(self, header: Header, payload: bytes) -> None:
        """Post for a stream, whose reader learns of the end of the connection by reading."""
        if self.lost is None:
            self.post(header, payload)

    async def start(self, argv: tuple[str, ...], *, timeout: float) -> ProcessStream:
        """Start a process. Whoever has it must ``release`` it."""
        return await self.open({"op": "start", "argv": argv}, name=argv[0], timeout=timeout)

    async def open(self, header: Header, *, name: str, timeout: float) -> ProcessStream:
        """Have the other side open a stream with the channels of a process. Whoever has it must ``release`` it."""
        self._number += 1
        stream = ProcessStream(self._number, self._post_late, name)
        await self._open(stream.number, stream, header, timeout)
        return stream

    async def follow(self, path: str, offset: int, *, timeout: float) -> FollowStream:
        """Begin to follow a file. Whoever has it must ``cancel`` it."""
        self._number += 1
        stream = FollowStream(self._number, self._post_late)
        await self._open(stream.number, stream, {"op": "follow", "path": path, "offset": offset}, timeout)
        return stream

    async def _open(self, number: int, stream: Stream, header: Header, timeout: float) -> None:
        self._streams[number] = stream
        try:
            await self._call(number, header, b"", timeout)
        except BaseException:
            self._streams.pop(number, None)
            raise

    def cancel(self, stream: FollowStream) -> None:
        """End a followed file."""
        if self._streams.pop(stream.number, None) is not None:
            self._abandon(stream.number)

    async def release(self, stream: ProcessStream) -> None:
        """End a process and all it started. A connection that is gone has done that already."""
        self._abandon(stream.number)
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                await stream.released
        except (TransportError, HostError):
            pass  # it is over on the other side
        except TimeoutError:
            log.warning("a process on %s can't be killed; it is left to the system", self._name)
        finally:
            self._streams.pop(stream.number, None)

    async def _receive(self, rest: bytes) -> None:
        data = rest
        try:
            while True:
                for header, payload in self._decoder.feed(data):
                    self._take(header, payload)
                if not (data := await self._channel.read()):
                    break
            code, words = await self._channel.ended()
            because = words.strip()[-1000:] or (f"exit code {code}" if code is not None else "without a word")
            self._lose(TransportError(f"the connection to {self._name} ended: {because}"))
        except protocol.ProtocolError as error:
            self._lose(TransportError(f"{self._name} sent nonsense: {error}"))
        except SlurmletError as error:
            self._lose(TransportError(f"the connection to {self._name} failed: {error}"))

    def _take(self, header: Header, payload: bytes) -> None:
        if (number := header.get("stream")) is not None:
            stream = self._streams.get(number)
            if stream is None:
                return  # ended here while this was under way
            if header["event"] == "error":
                del self._streams[number]
                stream.on_lost(HostError(header["error"]["message"]))
            else:
                stream.on_event(header, payload)
        elif (future := self._pending.get(header["id"])) is not None and not future.done():
            future.set_result((header, payload))

    async def _transmit(self) -> None:
        try:
            while True:
                await self._unsent_changed.wait()
                self._unsent_changed.clear()
                while self._unsent:
                    data = self._some_unsent()
                    await self._channel.write(data)
                    self._unsent_bytes -= len(data)
                    if self._unsent_bytes <= _HIGH_WATER:
                        self._room.set()
        except SlurmletError as error:
            # The receiving side hears the agent's last words; this one only knows that the line is cut.
            log.debug("sending to %s failed: %s", self._name, error)

    def _some_unsent(self) -> bytes:
        """Take the oldest frames, as many as make one good write."""
        frames, size = [self._unsent.popleft()], 0
        while self._unsent and (size := size + len(frames[-1])) < protocol.CHUNK:
            frames.append(self._unsent.popleft())
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def _lose(self, error: TransportError) -> None:
        if self.lost is not None:
            return
        self.lost = error
        self._room.set()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(TransportError(str(error)))
                future.exception()
        for stream in tuple(self._streams.values()):
            stream.on_lost(error)
        self._streams.clear()

    async def close(self, why: str = "closed") -> None:
        """End the agent and everything it started."""
        self._lose(TransportError(f"the connection to {self._name} was {why}"))
        tasks: list[asyncio.Task[Any]] = [*self._tasks]
        if self._checking is not None:
            tasks.append(self._checking)
        for task in tasks:
            task.cancel()
        await self._channel.close()
        await asyncio.wait(tasks)
