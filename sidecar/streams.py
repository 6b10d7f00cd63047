"""Streams into pods (exec, attach, port connections) through one WebSocket each: the sidecar's side and the client's.

The first message is ``wire.Open``; its answer ``{"opened": true}`` or an error. Then binary messages are ``frames`` of two
streams, ``wire.DATA`` (what goes in and what comes out) and ``wire.ERRORS`` (standard error), neither of which is opened.
``{"resize": [columns, rows]}`` goes one way, ``{"exit": code}`` or an error the other. What comes in never waits for anybody:
a WebSocket that is not read answers no pings, and is given up.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import aiohttp
from aiohttp import web

from slurm_plugin.contract import ContainerProcess, Enterable
from slurm_plugin.errors import HostError, SlurmletError, TransportError
from slurm_plugin.job import PodUid

from . import failures, frames, wire
from .codec import decode, encode
from .frames import Frame
from .multiplex import Stream

MOST_BYTES = 4 * 2**20
"""Of one message: the first one holds a command, with its arguments."""

Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


class _Line:
    """One WebSocket at either end."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self.data = Stream(wire.DATA, self._send)
        self.errors = Stream(wire.ERRORS, self._send)

    async def words(self) -> AsyncGenerator[dict[str, Any], None]:
        """Put away what comes until the connection ends; yield what is said beside the streams, which are over then.

        Raises TransportError and ValueError for what the other side may not send.
        """
        try:
            async for message in self._socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    yield json.loads(message.data)
                    continue
                frame = frames.read(message.data)
                if frame.stream not in (wire.DATA, wire.ERRORS):
                    raise TransportError(f"a frame of stream {frame.stream}, which is none")
                (self.errors if frame.stream == wire.ERRORS else self.data).take(frame)
        finally:
            self.data.abandon()
            self.errors.abandon()

    async def _send(self, frame: Frame) -> None:
        try:
            await self._socket.send_bytes(frames.write(frame))
        except (ConnectionError, aiohttp.ClientError, RuntimeError) as error:
            raise TransportError(f"the stream into the pod broke: {error}") from error


async def serve(socket: web.WebSocketResponse, provider: Enterable, uid: PodUid) -> None:
    """Serve one stream to its end. Raises what entering raises, ValueError for what is no request."""
    asked: wire.Open = decode(json.loads(await socket.receive_str()), wire.Open)
    line = _Line(socket)
    match asked.kind:
        case "exec" if asked.argv:
            entered = provider.exec(uid, asked.container, asked.argv, stdin=asked.stdin, tty=asked.tty)
        case "attach":
            entered = provider.attach(uid, asked.container, stdin=asked.stdin)
        case "connect":
            async with provider.connect(uid, asked.port) as connection:
                await socket.send_json({"opened": True})
                feeding = _feed(line.data, connection.write, connection.close_write)
                await _until_said(_copy(connection.read, line.data), _hear(line, _no_terminal), feeding)
            return
        case _:
            raise ValueError(f"kind is exec (with argv), attach or connect, not {asked.kind!r}")
    async with entered as process:
        await socket.send_json({"opened": True})
        await _serve_process(socket, line, process)


async def _serve_process(socket: web.WebSocketResponse, line: _Line, process: ContainerProcess) -> None:
    sizes: asyncio.Queue[tuple[int, int]] = asyncio.Queue(1)

    def resized(columns: int, rows: int) -> None:
        if sizes.full():
            sizes.get_nowait()  # only the newest counts
        sizes.put_nowait((columns, rows))

    async def resize() -> None:
        while True:
            with suppress(HostError):  # its terminal is gone, its last words may be on their way
                await process.resize(*await sizes.get())

    async def speak() -> None:
        await asyncio.gather(_copy(process.read, line.data), _copy(process.read_error, line.errors))
        await socket.send_json({"exit": await process.wait()})

    await _until_said(speak(), _hear(line, resized), _feed(line.data, process.write, process.close_stdin), resize())


async def _until_said(
    speaking: Coroutine[Any, Any, None], hearing: Coroutine[Any, Any, None], *listening: Coroutine[Any, Any, None]
) -> None:
    """Run until all is said to the client, or it is heard to have gone. Raises the first error of saying and listening."""
    said, heard, *others = (asyncio.create_task(work) for work in (speaking, hearing, *listening))
    try:
        failed: set[asyncio.Task[None]] = set()
        waiting = {said, heard, *others}
        while not (failed or said.done() or heard.done()):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            failed = {task for task in done if task.exception() is not None}
        for task in (said, *failed, heard):
            if task.done():
                task.result()
    finally:
        for task in (said, heard, *others):
            task.cancel()
        await asyncio.gather(said, heard, *others, return_exceptions=True)


async def _copy(read: Callable[[], Awaitable[bytes]], stream: Stream) -> None:
    while data := await read():
        await stream.write(data)
    await stream.end()


async def _hear(line: _Line, resized: Callable[[int, int], None]) -> None:
    async for said in line.words():
        columns, rows = said["resize"]
        resized(int(columns), int(rows))


def _no_terminal(_columns: int, _rows: int) -> None:
    """A connection has no size."""


async def _feed(
    stream: Stream, write: Callable[[bytes], Awaitable[None]], close: Callable[[], Awaitable[None]]
) -> None:
    """Give on what the client sends. Whoever reads no more is no error: what is sent to it goes nowhere, as in a pipe."""
    with suppress(TransportError):  # the client has gone, which is heard elsewhere
        while data := await stream.read():
            with suppress(HostError):
                await write(data)
        with suppress(HostError):
            await close()


class RemoteStream:
    """A process or a connection in a pod (``ContainerProcess``, ``PodConnection``), at the client's end."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._line = _Line(socket)
        self._error: SlurmletError = TransportError("the connection to the sidecar was lost")
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._exit.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._receiving = asyncio.create_task(self._receive(), name="stream into a pod")

    @classmethod
    async def open(cls, socket: aiohttp.ClientWebSocketResponse, asked: wire.Open) -> "RemoteStream":
        """Ask for a stream. Raises what entering raises."""
        await socket.send_json(encode(asked, wire.Open))
        message = await socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise TransportError("the sidecar closed the stream without a word")
        said = json.loads(message.data)
        if "opened" not in said:
            raise failures.from_json(said)
        return cls(socket)

    async def _receive(self) -> None:
        try:
            async for said in self._line.words():
                if "exit" in said and not self._exit.done():
                    self._exit.set_result(int(said["exit"]))
                elif "error" in said:
                    self._error = failures.from_json(said)
        except (TransportError, ValueError) as error:
            self._error = TransportError(f"the sidecar sent nonsense: {error}")
        finally:
            if not self._exit.done():
                self._exit.set_exception(self._error)

    async def _read(self, stream: Stream) -> bytes:
        try:
            return await stream.read()
        except TransportError:
            raise self._error from None

    async def read(self) -> bytes:
        """See ContainerProcess."""
        return await self._read(self._line.data)

    async def read_error(self) -> bytes:
        """See ContainerProcess."""
        return await self._read(self._line.errors)

    async def write(self, data: bytes) -> None:
        """See ContainerProcess."""
        try:
            await self._line.data.write(data)
        except TransportError as error:
            raise HostError("it reads no more: the stream was closed") from error

    async def close_stdin(self) -> None:
        """See ContainerProcess."""
        try:
            await self._line.data.end()
        except TransportError as error:
            raise HostError("it reads no more: the stream was closed") from error

    async def close_write(self) -> None:
        """See PodConnection."""
        await self.close_stdin()

    async def resize(self, columns: int, rows: int) -> None:
        """See ContainerProcess."""
        with suppress(ConnectionError, aiohttp.ClientError):
            await self._socket.send_json({"resize": [columns, rows]})

    async def wait(self) -> int:
        """See ContainerProcess."""
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        """End what was started."""
        self._receiving.cancel()
        await asyncio.gather(self._receiving, return_exceptions=True)
        await self._socket.close()
