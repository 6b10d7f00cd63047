"""Streams into pods (exec, attach, port connections) through one WebSocket each: the sidecar's side and the client's.

The first message is ``wire.Open``; its answer ``{"opened": true}`` or an error. Then binary messages, whose first byte
says which stream, an empty one being its end; and ``{"resize": [columns, rows]}`` one way, ``{"exit": code}`` the other.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import aiohttp
from aiohttp import web

from slurm_plugin.contract import ContainerProcess, Enterable, PodConnection
from slurm_plugin.errors import HostError, TransportError
from slurm_plugin.job import PodUid

from . import failures, wire
from .codec import decode, encode

MOST_BYTES = 4 * 2**20
_PIECE = 256 * 1024
# How many messages wait for a slow reader before the other side is held up.
_WAITING = 16

Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def serve(socket: web.WebSocketResponse, provider: Enterable, uid: PodUid) -> None:
    """Serve one stream to its end. Raises what entering raises, ValueError for what is no request."""
    asked: wire.Open = decode(json.loads(await socket.receive_str()), wire.Open)
    match asked.kind:
        case "exec" if asked.argv:
            entered = provider.exec(uid, asked.container, asked.argv, stdin=asked.stdin, tty=asked.tty)
        case "attach":
            entered = provider.attach(uid, asked.container, stdin=asked.stdin)
        case "connect":
            async with provider.connect(uid, asked.port) as connection:
                await socket.send_json({"opened": True})
                await _until_first([_copy(connection.read, socket, wire.OUTPUT), _feed_connection(socket, connection)])
            return
        case _:
            raise ValueError(f"kind is exec (with argv), attach or connect, not {asked.kind!r}")
    async with entered as process:
        await socket.send_json({"opened": True})
        await _run(socket, process)


async def _run(socket: web.WebSocketResponse, process: ContainerProcess) -> None:
    async def outputs() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(process.read, socket, wire.OUTPUT), name="output")
            group.create_task(_copy(process.read_error, socket, wire.ERROR), name="errors")
        await socket.send_json({"exit": await process.wait()})

    await _until_first([outputs(), _feed_process(socket, process)])


async def _until_first(works: list[Any]) -> None:
    """Run two works until the first, which speaks to the client, is done, or the client has gone."""
    speaking, hearing = (asyncio.create_task(work) for work in works)
    try:
        await asyncio.wait({speaking, hearing}, return_when=asyncio.FIRST_COMPLETED)
        if hearing.done() and not speaking.done() and hearing.exception() is None and hearing.result():
            return  # gone
        await speaking
    finally:
        for task in (speaking, hearing):
            task.cancel()
        await asyncio.gather(speaking, hearing, return_exceptions=True)


async def _copy(read: Callable[[], Awaitable[bytes]], socket: Socket, stream: bytes) -> None:
    while data := await read():
        for start in range(0, len(data), _PIECE):
            await socket.send_bytes(stream + data[start : start + _PIECE])
    await socket.send_bytes(stream)


async def _feed_process(socket: web.WebSocketResponse, process: ContainerProcess) -> bool:
    """Give the process what the client sends; True once the client has gone."""
    async for message in socket:
        with suppress(HostError):  # it reads no more: what is sent to it goes nowhere, as in a pipe
            if message.type is aiohttp.WSMsgType.BINARY and message.data[:1] == wire.INPUT:
                await (process.write(message.data[1:]) if len(message.data) > 1 else process.close_stdin())
            elif message.type is aiohttp.WSMsgType.TEXT:
                columns, rows = json.loads(message.data)["resize"]
                await process.resize(int(columns), int(rows))
    return True


async def _feed_connection(socket: web.WebSocketResponse, connection: PodConnection) -> bool:
    async for message in socket:
        if message.type is aiohttp.WSMsgType.BINARY and message.data[:1] == wire.INPUT:
            await (connection.write(message.data[1:]) if len(message.data) > 1 else connection.close_write())
    return True


class RemoteStream:
    """A process or a connection in a pod (``ContainerProcess``, ``PodConnection``), at the client's end."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._queues: dict[bytes, asyncio.Queue[bytes]] = {
            stream: asyncio.Queue(_WAITING) for stream in (wire.OUTPUT, wire.ERROR)
        }
        self._ended: set[bytes] = set()
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
        error: Exception = TransportError("the connection to the sidecar was lost")
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.BINARY and message.data[:1] in self._queues:
                await self._queues[message.data[:1]].put(message.data[1:])
            elif message.type is aiohttp.WSMsgType.TEXT:
                said = json.loads(message.data)
                if "exit" in said and not self._exit.done():
                    self._exit.set_result(int(said["exit"]))
                elif "error" in said:
                    error = failures.from_json(said)
        if not self._exit.done():
            self._exit.set_exception(error)
        for stream in self._queues.values():
            await stream.put(b"")

    async def _read(self, stream: bytes) -> bytes:
        if stream in self._ended:
            return b""
        data = await self._queues[stream].get()
        if not data:
            self._ended.add(stream)
        return data

    async def read(self) -> bytes:
        """See ContainerProcess."""
        return await self._read(wire.OUTPUT)

    async def read_error(self) -> bytes:
        """See ContainerProcess."""
        return await self._read(wire.ERROR)

    async def write(self, data: bytes) -> None:
        """See ContainerProcess."""
        for start in range(0, len(data), _PIECE):
            await self._send(wire.INPUT + data[start : start + _PIECE])

    async def _send(self, data: bytes) -> None:
        try:
            await self._socket.send_bytes(data)
        except (ConnectionError, aiohttp.ClientError) as error:
            raise HostError("it reads no more: the stream was closed") from error

    async def close_stdin(self) -> None:
        """See ContainerProcess."""
        await self._send(wire.INPUT)

    async def close_write(self) -> None:
        """See PodConnection."""
        await self._send(wire.INPUT)

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
