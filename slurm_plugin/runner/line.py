"""A line through the door: frames between the runner and whoever visits it on its node, with open files beside them.

The frames are the host agent's (``hostagent.protocol``); files travel as SCM_RIGHTS, with the frame that names them.
"""

import array
import os
import socket
from typing import Any, Callable, Dict, List, Sequence, Tuple

from slurm_plugin.hostagent.protocol import Decoder, ProtocolError, encode

from .loop import READ, Loop, Promise

_CHUNK = 64 * 1024
_MOST_FILES = 8
_SEND_SECONDS = 10.0

OnFrame = Callable[[Dict[str, Any], List[int]], None]


def receive(connection: socket.socket, size: int) -> Tuple[bytes, List[int]]:
    """Read some bytes, and the files that came with them."""
    room = socket.CMSG_SPACE(_MOST_FILES * array.array("i").itemsize)
    data, control, _flags, _address = connection.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    found = array.array("i")
    for level, kind, content in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    return data, list(found)


class Line:
    """One connection. ``over`` is done when the other side has gone, or spoke nonsense; then it is closed."""

    def __init__(self, loop: Loop, connection: socket.socket, on_frame: OnFrame) -> None:
        self.over = Promise(loop)
        self._loop = loop
        self._connection = connection
        self._on_frame = on_frame
        self._decoder = Decoder()
        self._files: List[int] = []
        connection.setblocking(False)
        loop.watch(connection.fileno(), READ, self._read)

    def send(self, header: Dict[str, Any], files: Sequence[int] = ()) -> None:
        """Send a frame, and copies of these files. Frames are small: a side that does not read them is given up."""
        if self.over.done:
            return
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
        data = encode(header)
        try:
            self._connection.settimeout(_SEND_SECONDS)
            sent = self._connection.sendmsg([data], rights)
            self._connection.sendall(data[sent:])
            self._connection.setblocking(False)
        except OSError:
            # It has left. What it said before that is still to be heard: how a command ended, for one.
            self._loop.call_soon(self._hear_out)

    def _hear_out(self) -> None:
        """Take in what the other side said before it left, then hang up."""
        if not self.over.done:
            self._connection.setblocking(False)
        while self._take():
            pass
        self.close()

    def _read(self) -> None:
        self._take()

    def _take(self) -> bool:
        """Take in some of what was said; False if there is nothing, now or any more."""
        if self.over.done:
            return False
        try:
            data, files = receive(self._connection, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data, files = b"", []
        self._files += files
        try:
            frames = self._decoder.feed(data)
        except ProtocolError:
            data, frames = b"", []
        for header, _payload in frames:
            files, self._files = self._files, []
            self._on_frame(header, files)
        if not data:
            self.close()
        return bool(data)

    def close(self) -> None:
        """Hang up."""
        if not self.over.done:
            self._loop.unwatch(self._connection.fileno())
            self._connection.close()
            for descriptor in self._files:
                os.close(descriptor)
            self.over.resolve()
