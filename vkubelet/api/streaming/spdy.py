"""SPDY/3.1 frames, as far as Kubernetes speaks them: bytes in, frames out, and back. Pure: no I/O, bounded memory.

A data frame is passed on in pieces, as its bytes arrive, so that its announced length (up to 16 MiB) costs nothing. A
control frame is kept until it is whole; one that announces more than a limit is an error at once. There is no flow
control: Kubernetes' peer (moby/spdystream) never sends WINDOW_UPDATE and ignores it.

Source: https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .dictionary import DICTIONARY
from .errors import BrokenProtocolError

LONGEST_CONTROL = 16 * 1024
LONGEST_HEADERS = 16 * 1024  # inflated
MOST_HEADERS = 64

_VERSION = 3
_FIN = 0x01
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY = 1, 2, 3, 6, 7
_HEAD = struct.Struct(">II")
_LONGEST_DATA = 0xFFFFFF

# RST_STREAM status codes
PROTOCOL_ERROR, REFUSED_STREAM, CANCEL = 1, 3, 5
# GOAWAY status codes
GOAWAY_OK, GOAWAY_PROTOCOL_ERROR = 0, 1


class SpdyError(BrokenProtocolError):
    """What arrived is not SPDY/3.1, or more of it than anybody needs."""


@dataclass(frozen=True, slots=True)
class SynStream:
    """A new stream of the peer's. ``last``: it sends nothing on it."""

    stream: int
    headers: Mapping[str, str]
    last: bool = False


@dataclass(frozen=True, slots=True)
class SynReply:
    """The peer took a stream of ours."""

    stream: int
    headers: Mapping[str, str]
    last: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """Some bytes of a stream. ``last``: the peer's half is closed after them."""

    stream: int
    data: bytes
    last: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """The stream is over, both ways."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Ping:
    """To be sent back as it is, if the peer began it (an odd number from a client)."""

    number: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The peer opens no more streams."""

    last_stream: int
    status: int


Frame = SynStream | SynReply | Data | Reset | Ping | GoAway


class FrameParser:
    """Turns bytes into frames. After a SpdyError it is of no more use."""

    def __init__(self) -> None:
        self._control = bytearray()  # the beginning of a frame that is not whole
        self._data: tuple[int, bool] | None = None  # of the data frame that we are in: the stream, and whether it ends
        self._data_left = 0
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    @property
    def in_frame(self) -> bool:
        """Whether the last frame is not whole yet."""
        return bool(self._control) or self._data is not None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield what the bytes complete. The iterator must be exhausted. Raises SpdyError."""
        rest = memoryview(data)
        while rest:
            if self._data is not None:
                taken = rest[: self._data_left]
                rest = rest[len(taken) :]
                yield self._piece(*self._data, bytes(taken))
                continue
            missing = self._missing()
            self._control += rest[:missing]
            rest = rest[missing:]
            if self._missing() == 0 and (frame := self._whole()) is not None:
                yield frame

    def _missing(self) -> int:
        """Return how many bytes the frame's head, or the control frame, lacks. Raises SpdyError for too long a one."""
        if len(self._control) < _HEAD.size:
            return _HEAD.size - len(self._control)
        first, second = _HEAD.unpack_from(self._control)
        if not first >> 31:
            return 0
        length: int = second & _LONGEST_DATA
        if first >> 16 & 0x7FFF != _VERSION:
            raise SpdyError(f"a control frame of version {first >> 16 & 0x7FFF}")
        if length > LONGEST_CONTROL:
            raise SpdyError(f"a control frame of {length} bytes, {LONGEST_CONTROL} at most")
        return _HEAD.size + length - len(self._control)

    def _whole(self) -> Frame | None:
        first, second = _HEAD.unpack_from(self._control)
        if first >> 31:
            body = bytes(self._control[_HEAD.size :])
            self._control.clear()
            return self._control_frame(first & 0xFFFF, second >> 24, body)
        self._control.clear()
        last, self._data_left = bool(second >> 24 & _FIN), second & _LONGEST_DATA
        if self._data_left == 0:
            return Data(first, b"", last)
        self._data = (first, last)
        return None

    def _piece(self, stream: int, last: bool, data: bytes) -> Data:
        self._data_left -= len(data)
        if self._data_left:
            return Data(stream, data)
        self._data = None
        return Data(stream, data, last)

    def _control_frame(self, kind: int, flags: int, body: bytes) -> Frame | None:
        try:
            match kind:
                case 1:  # SYN_STREAM
                    return SynStream(_number(body, 0), self._headers(body[10:]), bool(flags & _FIN))
                case 2:  # SYN_REPLY
                    return SynReply(_number(body, 0), self._headers(body[4:]), bool(flags & _FIN))
                case 3:  # RST_STREAM
                    return Reset(_number(body, 0), _number(body, 4, 0xFFFFFFFF))
                case 6:  # PING
                    return Ping(_number(body, 0, 0xFFFFFFFF))
                case 7:  # GOAWAY
                    return GoAway(_number(body, 0), _number(body, 4, 0xFFFFFFFF))
                case 8:  # HEADERS
                    self._headers(body[4:])  # nothing of ours, but the compression goes on over it
                    return None
                case 4 | 9:  # SETTINGS, WINDOW_UPDATE
                    return None
        except struct.error as error:
            raise SpdyError(f"a control frame of type {kind} that is too short") from error
        raise SpdyError(f"a control frame of unknown type {kind}")

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._inflate.decompress(block, LONGEST_HEADERS)
        except zlib.error as error:
            raise SpdyError(f"headers that can't be decompressed: {error}") from error
        if self._inflate.unconsumed_tail or self._inflate.unused_data or self._inflate.eof:
            raise SpdyError(f"headers of more than {LONGEST_HEADERS} bytes, or after the end of the compression")
        return _parse_headers(plain)


def _number(body: bytes, offset: int, mask: int = 0x7FFFFFFF) -> int:
    value: int = struct.unpack_from(">I", body, offset)[0]
    return value & mask


def _parse_headers(plain: bytes) -> dict[str, str]:
    count = _number(plain, 0)
    if count > MOST_HEADERS:
        raise SpdyError(f"{count} headers, {MOST_HEADERS} at most")
    headers: dict[str, str] = {}
    offset = 4
    for _ in range(count):
        name, offset = _text(plain, offset)
        value, offset = _text(plain, offset)
        headers[name.lower()] = value.partition("\0")[0]  # of several values the first, as http.Header.Get
    return headers


def _text(plain: bytes, offset: int) -> tuple[str, int]:
    end = offset + 4 + _number(plain, offset)
    if end > len(plain):
        raise SpdyError("a header longer than its block")
    return plain[offset + 4 : end].decode("latin-1"), end


class FrameEncoder:
    """Turns frames into bytes. Frames with headers must be sent in the order in which they were encoded."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def encode(self, frame: Frame) -> bytes:
        """Return a frame's bytes."""
        match frame:
            case Data():
                return data_head(frame.stream, len(frame.data), last=frame.last) + frame.data
            case SynStream():
                body = struct.pack(">IIH", frame.stream, 0, 0) + self._headers(frame.headers)
                return _control(_SYN_STREAM, body, last=frame.last)
            case SynReply():
                return _control(
                    _SYN_REPLY, struct.pack(">I", frame.stream) + self._headers(frame.headers), last=frame.last
                )
            case Reset():
                return _control(_RST_STREAM, _HEAD.pack(frame.stream, frame.status))
            case Ping():
                return _control(_PING, struct.pack(">I", frame.number))
            case GoAway():
                return _control(_GOAWAY, _HEAD.pack(frame.last_stream, frame.status))

    def _headers(self, headers: Mapping[str, str]) -> bytes:
        words = [word.encode("latin-1") for pair in headers.items() for word in pair]
        plain = struct.pack(">I", len(headers)) + b"".join(struct.pack(">I", len(word)) + word for word in words)
        return self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def data_head(stream: int, length: int, *, last: bool = False) -> bytes:
    """Return what precedes so many bytes of a stream's data."""
    return _HEAD.pack(stream, (_FIN << 24 if last else 0) | length)


def _control(kind: int, body: bytes, *, last: bool = False) -> bytes:
    return _HEAD.pack(0x80000000 | _VERSION << 16 | kind, (_FIN << 24 if last else 0) | len(body)) + body
