"""The streams of exec and attach over SPDY: the client opens one per purpose, in any order."""

import asyncio

from .negotiation import EXEC_VERSIONS
from .remotecommand import Streams, Wanted
from .spdyserver import SpdyConnection, SpdyStream

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
                await connection.reject(stream, f"unexpected stream of type {kind[:50]!r}")
    return Streams(
        version=version,
        error=found["error"],
        stdin=found.get("stdin"),
        stdout=found.get("stdout"),
        stderr=found.get("stderr"),
        resize=found.get("resize"),
    )
