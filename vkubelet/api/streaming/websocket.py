"""WebSocket: the channel protocols of Kubernetes, each message one channel's byte and data; and a tunnel of plain bytes.

Subprotocols: none, ``channel.k8s.io``, ``v4.channel.k8s.io`` (binary, the channel as a byte), ``base64.channel.k8s.io``,
``v4.base64.channel.k8s.io`` (text, the channel as a digit), ``v5.channel.k8s.io`` (binary, ``[255, n]`` half-closes n).
Framing, masking, pings and limits are aiohttp's.
"""

import asyncio
import base64
import binascii
import logging
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from .channels import PIECE, Inbox, Room
from .errors import BrokenProtocolError
from .idle import Idleness
from .limits import Limits
from .together import stop

log = logging.getLogger(__name__)

LONGEST_MESSAGE = 4 * 1024 * 1024
_CLOSE = 255
_CLOSE_SECONDS = 3.0


class WebSocketError(BrokenProtocolError):
    """What arrived is not the subprotocol that was agreed on."""


def decode(message: WSMessage, *, is_base64: bool) -> tuple[int, bytes]:
    """Return the channel and the data; channel -1 for an empty message, which says nothing. Raises WebSocketError.

    Whether a message is called text or binary does not matter, as in a kubelet: the official Python client sends
    ordinary input as text, whatever the subprotocol.
    """
    text: bytes = message.data.encode() if message.type == WSMsgType.TEXT else message.data
    if not text:
        return -1, b""
    if not is_base64:
        return text[0], text[1:]
    if not text[:1].isdigit():
        raise WebSocketError("a channel that is no digit")
    try:
        return int(text[:1]), base64.b64decode(text[1:], validate=True)
    except (binascii.Error, ValueError) as error:
        raise WebSocketError(f"not base64: {error}") from error


class WebSocketChannel:
    """One channel. The client's half may end before ours (v5), and not after it."""

    def __init__(self, number: int, connection: "ChannelConnection", room: Room) -> None:
        self.number = number
        self.inbox = Inbox(room)
        self._connection = connection

    async def read(self) -> bytes:
        """Return some bytes, b"" at the end. ConnectionError once the connection is lost."""
        return await self.inbox.read()

    async def write(self, data: bytes) -> None:
        """Send; waits while the client takes no more. ConnectionError once it is gone. b"" is a message too."""
        for start in range(0, max(len(data), 1), PIECE):
            await self._connection.send(self.number, data[start : start + PIECE])

    async def close(self) -> None:
        """Say that this was all, which the subprotocols can't: the end of the connection says it.

        So whoever is to see that end sends nothing more that counts: the client's half ends with ours.
        """
        self.inbox.end()


class ChannelConnection:
    """Serves one WebSocket. ``reads``: the channels that the client may write; another one is an error."""

    def __init__(
        self, socket: web.WebSocketResponse, limits: Limits, *, channels: int, reads: Sequence[int], who: str
    ) -> None:
        self._socket = socket
        self._who = who
        self._base64 = "base64" in (socket.ws_protocol or "")
        self._closes = (socket.ws_protocol or "").startswith("v5.")
        self._room = Room(limits.waiting_bytes)
        self._idle = Idleness(limits.idle_seconds)
        self._pong_seconds = limits.pong_seconds
        self._reads = frozenset(reads)
        self.channels = tuple(WebSocketChannel(number, self, self._room) for number in range(channels))

    async def serve(self, work: Callable[[], Awaitable[None]]) -> None:
        """Read the socket while ``work`` runs, then close it; ``work`` is cancelled when the client goes or errs."""
        reading = asyncio.create_task(self._read(), name=f"WebSocket from {self._who}")
        idle = asyncio.create_task(self._idle.wait(), name=f"idleness of {self._who}")
        working = asyncio.ensure_future(work())
        code = WSCloseCode.OK
        try:
            await asyncio.wait((reading, idle, working), return_when=asyncio.FIRST_COMPLETED)
            if idle.done():
                log.info("%s: closed after %.0f s without a message", self._who, self._idle.seconds)
                code = WSCloseCode.GOING_AWAY
            elif reading.done() and (error := reading.exception()) is not None:
                code = self._code(error)
        except asyncio.CancelledError:
            # By aiohttp: the client went, or sent what is not even WebSocket, or a message that is too long.
            log.info("%s: connection lost", self._who)
            raise
        finally:
            for channel in self.channels:
                channel.inbox.break_off("the connection is closed")
            await stop(reading, idle, working)
            await close(self._socket, code)
        if working.done() and not working.cancelled():
            working.result()

    def _code(self, error: BaseException) -> WSCloseCode:
        """Return how to close after an error of the client's; any other is raised."""
        if isinstance(error, ConnectionError):
            log.info("%s: connection lost", self._who)
            return WSCloseCode.GOING_AWAY
        if not isinstance(error, WebSocketError):
            raise error
        log.warning("%s: connection closed: %s", self._who, error)
        return WSCloseCode.PROTOCOL_ERROR

    async def send(self, channel: int, data: bytes) -> None:
        """Send a message; waits while the client takes no more. ConnectionError once it is gone."""
        if self._base64:
            await self._socket.send_str(str(channel) + base64.b64encode(data).decode("ascii"))
        else:
            await self._socket.send_bytes(bytes((channel,)) + data)
        self._idle.touch()

    async def _read(self) -> None:
        while (message := await _next(self._socket)) is not None:
            self._idle.touch()
            channel, data = decode(message, is_base64=self._base64)
            if channel == _CLOSE and self._closes and len(data) == 1:
                self._inbox(data[0]).end()
            elif channel >= 0:
                self._inbox(channel).put(data)
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        """Wait while what arrived is not read. ConnectionError once the client is gone.

        Its pings wait behind its data, which must not be taken: it is told unasked that we live (RFC 6455, 5.5.3).
        """
        while True:
            try:
                async with asyncio.timeout(self._pong_seconds):
                    await self._room.wait()
            except TimeoutError:
                await self._socket.pong()
            else:
                return

    def _inbox(self, channel: int) -> Inbox:
        if channel not in self._reads:
            raise WebSocketError(f"a message for channel {channel}")
        return self.channels[channel].inbox


async def _next(socket: web.WebSocketResponse) -> WSMessage | None:
    """Return the next message, None at the end."""
    message = await socket.receive()
    return None if message.type in _ENDS else message


_ENDS = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


class WebSocketLink:
    """Plain bytes in binary messages, however they are cut: a link as a TCP connection is."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        """Return some, b"" once the client is gone. Raises WebSocketError for what is not bytes."""
        while (message := await _next(self._socket)) is not None:
            if message.type != WSMsgType.BINARY:
                raise WebSocketError(f"a message of type {message.type.name} instead of BINARY")
            if message.data:
                return bytes(message.data)
        return b""

    async def write(self, data: bytes) -> None:
        """Send; waits while the client takes no more. ConnectionError once it is gone."""
        await self._socket.send_bytes(data)

    async def close(self) -> None:
        """Send what is left and part."""
        await close(self._socket, WSCloseCode.OK)


async def close(socket: web.WebSocketResponse, code: int) -> None:
    """Close in words, and for a while wait for the client to agree."""
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await socket.close(code=code)
    except (ConnectionError, TimeoutError) as error:
        log.debug("a WebSocket's end: %s", error)


async def upgrade(request: web.Request, protocol: str) -> web.WebSocketResponse:
    """Answer 101 and speak this subprotocol, "" for none."""
    socket = web.WebSocketResponse(
        protocols=(protocol,) if protocol else (), compress=False, max_msg_size=LONGEST_MESSAGE, timeout=_CLOSE_SECONDS
    )
    await socket.prepare(request)
    log.debug("%s: WebSocket, %s", request.path, protocol or "no subprotocol")
    return socket
