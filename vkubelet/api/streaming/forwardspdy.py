"""Port forwarding over SPDY: streams are paired by ``requestid``; many pairs at once on one connection."""

import asyncio
import logging
from dataclasses import dataclass

from .portforward import Connect, forward
from .spdyserver import SpdyConnection, SpdyStream
from .together import stop

log = logging.getLogger(__name__)

_HIGHEST_PORT = 65535


@dataclass(slots=True)
class _Half:
    """A stream whose other one has not come, and what resets it if none comes."""

    stream: SpdyStream
    port: int
    expiry: asyncio.Task[None]


class Forwarder:
    """The pairs of one connection."""

    def __init__(self, connection: SpdyConnection, connect: Connect, *, pair_seconds: float, what: str) -> None:
        self._connection = connection
        self._connect = connect
        self._pair_seconds = pair_seconds
        self._what = what
        self._halves: dict[tuple[str, str], _Half] = {}

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._take(await self._connection.accept(), group)

    async def _take(self, stream: SpdyStream, group: asyncio.TaskGroup) -> None:
        kind, port = stream.headers.get("streamtype", ""), _port(stream.headers.get("port", ""))
        if kind not in {"data", "error"} or port is None:
            named = stream.headers.get("port", "")[:50]
            await self._connection.reject(stream, f"a stream of type {kind[:50]!r} to port {named!r}")
            return
        request = stream.headers.get("requestid") or _guessed_request(stream, kind)
        half = self._halves.pop((request, "error" if kind == "data" else "data"), None)
        if half is None:
            await self._wait_for_other(request, kind, stream, port, group)
            return
        half.expiry.cancel()
        data, error = (stream, half.stream) if kind == "data" else (half.stream, stream)
        group.create_task(self._forward(port, data, error), name=f"port {port} of {self._what}")

    async def _wait_for_other(
        self, request: str, kind: str, stream: SpdyStream, port: int, group: asyncio.TaskGroup
    ) -> None:
        if (request, kind) in self._halves:
            await self._connection.reject(stream, f"a second {kind} stream of request {request[:50]!r}")
            return
        expiry = group.create_task(self._expire(request, kind), name=f"other half of {request[:20]}")
        self._halves[request, kind] = _Half(stream, port, expiry)

    async def _expire(self, request: str, kind: str) -> None:
        half = self._halves[request, kind]
        try:
            async with asyncio.timeout(self._pair_seconds):
                await half.stream.gone.wait()
        except TimeoutError:
            await self._give_up(self._halves.pop((request, kind)), request, kind)
        else:
            del self._halves[request, kind]

    async def _give_up(self, half: _Half, request: str, kind: str) -> None:
        log.warning("%s: only the %s stream of request %r came", self._what, kind, request[:50])
        try:
            if kind == "error":
                await half.stream.write(b"timed out waiting for the data stream")
            await half.stream.reset()
        except ConnectionError as error:
            log.debug("%s: %s", self._what, error)

    async def _forward(self, port: int, data: SpdyStream, error: SpdyStream) -> None:
        forwarding = asyncio.create_task(
            forward(self._connect, port, data, error, what=self._what), name=f"port {port} of {self._what}"
        )
        gone = asyncio.create_task(data.gone.wait(), name="client's reset")
        try:
            await asyncio.wait((forwarding, gone), return_when=asyncio.FIRST_COMPLETED)
            if forwarding.done():
                forwarding.result()
        except ConnectionError as failure:
            log.debug("%s: port %d: %s", self._what, port, failure)
        finally:
            await stop(forwarding, gone)
            # Whatever half is still open: nobody is there any more.
            await _quietly_reset(data)
            await _quietly_reset(error)


async def _quietly_reset(stream: SpdyStream) -> None:
    try:
        await stream.reset()
    except ConnectionError as error:
        log.debug("stream %d: %s", stream.number, error)


def _port(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text[:6]) <= _HIGHEST_PORT else None


def _guessed_request(stream: SpdyStream, kind: str) -> str:
    """Name a request as the kubelet does for clients that don't: the error stream precedes its data stream."""
    return str(stream.number if kind == "error" else stream.number - 2)
