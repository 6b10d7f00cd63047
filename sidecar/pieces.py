"""A log on the sidecar's wire: pieces of any bytes, each after its length, a piece of nothing as a sign of life.

A plain body would do, were it not that the log of a quiet container looks like a connection that leads nowhere.
"""

import struct
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing

from slurm_plugin.errors import TransportError

from . import wire
from .pulse import pulsed

MEDIA = "application/vnd.slurmlet.log"
_LENGTH = struct.Struct(">I")
_MOST_BYTES = 64 * 2**20


async def write(log: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield a log as it is sent."""
    async with aclosing(pulsed(log, wire.PULSE_SECONDS)) as items:
        async for data in items:
            yield _LENGTH.pack(len(data or b"")) + (data or b"")


async def read(body: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield the pieces of what was sent. Raises TransportError for what is no log, or ends in the middle of a piece."""
    rest = bytearray()
    async for data in body:
        rest += data
        while len(rest) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(rest)
            if length > _MOST_BYTES:
                raise TransportError("a log was sent that is none")
            if len(rest) < _LENGTH.size + length:
                break
            piece = bytes(rest[_LENGTH.size : _LENGTH.size + length])
            del rest[: _LENGTH.size + length]
            if piece:
                yield piece
    if rest:
        raise TransportError("a log broke off")
