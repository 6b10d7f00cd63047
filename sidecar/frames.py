"""What goes over the one connection that a sidecar has opened: frames of many streams. Pure.

A frame is a binary WebSocket message: one byte that says what it is, four of the stream's number, and its payload. The
agent opens streams, the sidecar never does. Each direction of a stream has a window: so many bytes may be sent that the
other side has not taken away yet, so that a stream that nobody reads holds up itself alone.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from slurm_plugin.errors import TransportError

WINDOW_BYTES = 256 * 1024
PIECE_BYTES = 64 * 1024
MOST_STREAMS = 4096

_HEAD = struct.Struct(">BI")
_CREDIT = struct.Struct(">I")
MOST_FRAME_BYTES = _HEAD.size + PIECE_BYTES


class Kind(IntEnum):
    """``END``: no more data this way. ``RESET``: the stream is over, both ways. ``CREDIT``: so many more bytes may be sent."""

    OPEN = 0
    DATA = 1
    END = 2
    RESET = 3
    CREDIT = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """``data`` is there for ``DATA`` only, ``credit`` (bytes) for ``CREDIT`` only."""

    kind: Kind
    stream: int
    data: bytes = b""
    credit: int = 0


def write(frame: Frame) -> bytes:
    """Return the frame as a message."""
    payload = _CREDIT.pack(frame.credit) if frame.kind is Kind.CREDIT else frame.data
    return _HEAD.pack(frame.kind, frame.stream) + payload


def read(message: bytes) -> Frame:
    """Read a message. Raises TransportError for what is no frame."""
    if not _HEAD.size <= len(message) <= MOST_FRAME_BYTES:
        raise TransportError(f"a frame of {len(message)} bytes")
    number, stream = _HEAD.unpack_from(message)
    payload = message[_HEAD.size :]
    try:
        kind = Kind(number)
    except ValueError as error:
        raise TransportError(f"a frame of unknown kind {number}") from error
    if kind is Kind.DATA:
        return Frame(kind, stream, payload)
    if kind is Kind.CREDIT:
        if len(payload) != _CREDIT.size:
            raise TransportError("a frame of credit that tells none")
        return Frame(kind, stream, credit=_CREDIT.unpack(payload)[0])
    if payload:
        raise TransportError(f"a frame {kind.name} with data")
    return Frame(kind, stream)
