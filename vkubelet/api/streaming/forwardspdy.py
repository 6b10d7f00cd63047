"""Port forwarding over SPDY: streams are paired by ``requestid``; many pairs at once on one connection."""

import asyncio
import logging
from dataclasses import dataclass

from .portforward import Connect, forward
from .spdyserver import SpdyConnection, SpdyStream

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
            log.warning(
                "%s: a stream of type %r to port %r", self._what, kind[:50], stream.headers.get("port", "")[:50]
            )
            await stream.reset()
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
            log.warning("%s: a second %s stream of request %r", self._what, kind, request[:50])
            await stream.reset()
            return
        expiry = group.create_task(self._expire(request, kind), name=f"other half of {request[:20]}")
        self._halves[request, kind] = _Half(stream, port, expiry)

    async def _expire(self, request: str, kind: str) -> None:
        await asyncio.sleep(self._pair_seconds)
        half = self._halves.pop((request, kind))
        log.warning("%s: only the %s stream of request %r came", self._what, kind, request[:50])
        try:
            if kind == "error":
                await half.stream.write(b"timed out waiting for the data stream")
            await half.stream.reset()
        except ConnectionError as error:
            log.debug("%s: %s", self._what, error)

    async def _forward(self, port: int, data: SpdyStream, error: SpdyStream) -> None:
        try:
            await forward(self._connect, port, data, error, what=self._what)
        except ConnectionError as failure:
            log.debug("%s: port %d: %s", self._what, port, failure)
        finally:
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
