"""The frames between a Host and its agent; one definition for both sides.

A frame is a 4-byte big-endian length, that many bytes of JSON (the header, an object), then ``header["size"]`` bytes
of payload (absent is none). Before its first frame the agent sends ``MAGIC``, so that whatever a login shell prints
is told apart. Newlines between frames are skipped: some lines carry nothing that does not end with one.

To the agent::

    {"id": n, "op": "hello" | "ping"}
    {"id": n, "op": "run", "argv", "timeout"}              payload: its standard input
    {"id": n, "op": "stage", "path", "entries"}            payload: all files' bytes, in order
    {"id": n, "op": "swap_link", "path", "target"}
    {"id": n, "op": "write", "path", "mode"}               payload: the bytes
    {"id": n, "op": "read", "path", "offset", "limit"}
    {"id": n, "op": "list" | "remove_tree", "path"}
    {"id": n, "op": "start", "argv"}                       opens stream n: a process
    {"id": n, "op": "follow", "path", "offset"}            opens stream n: a growing file
    {"id": n, "op": "cancel"}                              request or stream n is wanted no more; not answered
    {"stream": n, "op": "stdin" | "close_stdin"}           payload: bytes for the process
    {"stream": n, "op": "credit", "channel", "bytes"}      so much of "stdout", "stderr" or "data" was consumed

From the agent, exactly one of the first two for each id (none for "cancel")::

    {"id": n, "result": …}                                 payload: the data of "read"; "run": stdout, then stderr
    {"id": n, "error": {"kind": …, "message": …}}
    {"stream": n, "event": "stdout" | "stderr" | "data"}   payload; an empty one is the end of that channel
    {"stream": n, "event": "stdin", "bytes": k}            so much was written to the process
    {"stream": n, "event": "stdin_closed"}                 the process reads no more
    {"stream": n, "event": "exit", "code": c}
    {"stream": n, "event": "released"}                     after "cancel": every process of it was killed
    {"stream": n, "event": "error", "error": {…}}          the stream is over

Each channel of a stream starts with ``WINDOW`` bytes of credit, so neither side ever holds more than that of one, and
neither ever stops reading its end of the line: that is why no stream can block another.
Text is UTF-8 with lone surrogates standing for other bytes (``encode_text``).
"""

import json
import struct
from typing import Any, Dict, List, Optional, Tuple

MAGIC = b"\0slurmlet host agent 1\n"
MAX_FRAME = 64 << 20
WINDOW = 1 << 20
CHUNK = 256 << 10

# Kinds of error
REFUSED = "refused"  # the machine said no; the message is its own words
TIMEOUT = "timeout"
CANCELLED = "cancelled"
INTERNAL = "internal"  # a fault of the agent's own

Header = Dict[str, Any]
Frame = Tuple[Header, bytes]

_LENGTH = struct.Struct(">I")
_NEWLINE = 0x0A  # larger than the first byte of any length


class ProtocolError(Exception):
    """The other side does not speak this protocol."""


def encode_text(text: str) -> bytes:
    """Turn a path or an argument into the bytes that the system gets, on any locale; ValueError for what can't be one."""
    if "\0" in text:
        raise ValueError("a NUL character can't be in a path or an argument: %.200r" % (text,))
    return text.encode("utf-8", "surrogateescape")


def decode_text(data: bytes) -> str:
    """Undo ``encode_text``."""
    return data.decode("utf-8", "surrogateescape")


def encode(header: Header, payload: bytes = b"", after: bytes = b"") -> bytes:
    """Return one frame, and what is to follow it; ProtocolError if it is larger than the other side takes."""
    if payload:
        header = dict(header, size=len(payload))
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    if len(text) + len(payload) > MAX_FRAME:
        raise ProtocolError("a frame of %d bytes; at most %d are taken" % (len(text) + len(payload), MAX_FRAME))
    return b"".join((_LENGTH.pack(len(text)), text, payload, after))


class Decoder:
    """Takes bytes as they arrive, gives frames as they are complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._header: Optional[Header] = None
        self._need = _LENGTH.size

    def feed(self, data: bytes) -> List[Frame]:
        """Return the frames that ``data`` completes; ProtocolError if it is none."""
        buffer = self._buffer
        buffer += data
        frames = []
        while len(buffer) >= self._need:
            if self._header is None:
                if buffer[0] == _NEWLINE:
                    del buffer[:1]
                    continue
                length = _LENGTH.unpack_from(buffer)[0]
                if length > MAX_FRAME:
                    raise ProtocolError("a frame header of %d bytes; at most %d are taken" % (length, MAX_FRAME))
                self._need = _LENGTH.size + length
                if len(buffer) < self._need:
                    break
                self._header = _parse(bytes(buffer[_LENGTH.size : self._need]))
                del buffer[: self._need]
                self._need = self._header.get("size", 0)
            else:
                frames.append((self._header, bytes(buffer[: self._need])))
                del buffer[: self._need]
                self._header = None
                self._need = _LENGTH.size
        return frames


def _parse(text: bytes) -> Header:
    try:
        header = json.loads(text.decode("ascii"))
    except ValueError as error:
        raise ProtocolError("a frame header that is not JSON: %s" % (error,)) from error
    size = header.get("size", 0) if isinstance(header, dict) else -1
    if not isinstance(size, int) or not 0 <= size <= MAX_FRAME - len(text):
        raise ProtocolError("a frame header that is none: %.200r" % (text,))
    return header  # type: ignore[no-any-return]
