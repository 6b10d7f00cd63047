"""A connection taken over from aiohttp after its upgrade: bytes both ways, nothing known of what they mean."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from .channels import PIECE

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 30.0


class ByteLink(Protocol):
    """Bytes both ways, with back-pressure: who does not read stops the other side."""

    async def read(self) -> bytes:
        """Return some, b"" once the client is gone."""

    async def write(self, data: bytes) -> None:
        """Send; waits while the client takes no more. ConnectionError once it is gone."""

    async def close(self) -> None:
        """Send what is left and part; soon, whatever the client does."""


class _TakenOver(asyncio.StreamReaderProtocol):
    """Tells aiohttp too that the connection is lost: it cancels the handler and forgets the connection."""

    def __init__(self, reader: asyncio.StreamReader, before: asyncio.BaseProtocol) -> None:
        super().__init__(reader)
        self._before = before

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)  # type: ignore[arg-type]  # typeshed: Exception
        self._before.connection_lost(exc)  # type: ignore[arg-type]


class TransportLink:
    """The connection itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        """Return some, b"" once the client is gone."""
        try:
            return await self._reader.read(PIECE)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        """Send; waits while the client takes no more. ConnectionError once it is gone."""
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        """Send what is left and part, within half a minute."""
        self._writer.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()
        except asyncio.CancelledError:
            self._writer.transport.abort()
            raise


async def take_over(request: web.Request, headers: Mapping[str, str]) -> tuple[TransportLink, web.StreamResponse]:
    """Answer 101 with these headers; from then on the connection is ours. ConnectionError once the client is gone.

    The response is what the handler returns in the end. The client is silent until it has the answer, which makes the
    change of protocol safe, under TLS too.
    """
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    reader = asyncio.StreamReader(limit=PIECE)
    protocol = _TakenOver(reader, request.protocol)
    response = _Switched(status=101, headers=headers)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    await response.prepare(request)
    log.debug("%s: %s", request.path, ", ".join(headers.values()))
    return TransportLink(
        reader, asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
    ), response


class _Switched(web.StreamResponse):
    """Of it only the head is HTTP."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing: the connection is closed."""
