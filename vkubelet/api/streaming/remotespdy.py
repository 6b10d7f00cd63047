"""The streams of exec and attach over SPDY: the client opens one per purpose, in any order."""

import asyncio
import logging

from .negotiation import EXEC_VERSIONS
from .remotecommand import Streams, Wanted
from .spdyserver import SpdyConnection, SpdyStream

log = logging.getLogger(__name__)

_RESIZING = EXEC_VERSIONS[:2]


async def accept_streams(connection: SpdyConnection, wanted: Wanted, version: str, *, seconds: float) -> Streams:
    """Wait for every stream that the request promised. TimeoutError if they don't come."""
    kinds = {"error"}
    kinds |= {kind for kind in ("stdin", "stdout", "stderr") if getattr(wanted, kind)}
    if wanted.tty and version in _RESIZING:
        kinds.add("resize")
    found: dict[str, SpdyStream] = {}
    async with asyncio.timeout(seconds):
        while kinds - found.keys():
            stream = await connection.accept()
            kind = stream.headers.get("streamtype", "")
            if kind in kinds and kind not in found:
                found[kind] = stream
            else:
                log.warning("unexpected stream of type %r", kind[:50])
                await stream.reset()
    return Streams(
        version=version,
        error=found["error"],
        stdin=found.get("stdin"),
        stdout=found.get("stdout"),
        stderr=found.get("stderr"),
        resize=found.get("resize"),
    )
