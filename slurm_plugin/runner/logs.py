"""A container's output, in the CRI log format: ``<RFC 3339 time with nanoseconds> stdout|stderr F|P <text>``.

A line longer than 16 KiB comes in parts tagged ``P``, the last ``F``; so does, tagged ``P``, a line that the container
never ended. Source: containerd 2.0 ``internal/cri/io/logger.go``; rotation as the kubelet's ``container_log_manager.go``.
"""

import os
import sys
import time
from typing import TYPE_CHECKING, Callable, List, Sequence, Union

from .loop import READ, Loop, Promise

if TYPE_CHECKING:
    from .attaching import Fan

MAX_PART = 16 * 1024
_CHUNK = 64 * 1024
_TAIL = 4096


def timestamp(nanoseconds: int) -> bytes:
    """Return a time as CRI logs write it, in UTC."""
    seconds, rest = divmod(nanoseconds, 1000000000)
    return b"%s.%09dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode("ascii"), rest)


class LogFile:
    """One run's log file. Rotated before a write that would pass ``max_bytes``; ``max_files`` counts the current one."""

    def __init__(self, path: str, max_bytes: int, max_files: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max(1, max_files)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        self._open()
        self._failed = False

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def write(self, data: bytes) -> None:
        """Append whole lines. A file system that refuses loses them (said once in the job's own output)."""
        try:
            if self._max_bytes and self._size and self._size + len(data) > self._max_bytes:
                self._rotate()
            rest = data
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            self._size += len(data)
        except OSError as error:
            if not self._failed:
                sys.stderr.write("slurmlet: output of a container is lost, can't write %s: %s\n" % (self._path, error))
            self._failed = True

    def _rotate(self) -> None:
        now = time.time()
        name = "%s.%s-%06d" % (self._path, time.strftime("%Y%m%d-%H%M%S", time.gmtime(now)), int(now % 1 * 1000000))
        os.rename(self._path, name)
        os.close(self._descriptor)
        self._open()
        directory, base = os.path.split(self._path)
        rotated = sorted(entry for entry in os.listdir(directory) if entry.startswith(base + "."))
        for old in rotated[: max(0, len(rotated) - (self._max_files - 1))]:
            os.unlink(os.path.join(directory, old))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class Lines:
    """One stream's bytes, cut into CRI lines."""

    def __init__(self, stream: str, write: Callable[[bytes], None]) -> None:
        self._name = stream.encode("ascii")
        self._write = write
        self._rest = b""

    def feed(self, data: bytes, nanoseconds: int) -> None:
        """Take bytes as they come; whole lines are written at once."""
        lines = (self._rest + data).split(b"\n") if self._rest else data.split(b"\n")
        self._rest = lines.pop()
        head = timestamp(nanoseconds) + b" " + self._name
        full, part = head + b" F ", head + b" P "
        out: List[bytes] = []
        for line in lines:
            if len(line) > MAX_PART:
                line = self._parts(line, part, out)
            out.append(full + line)
        if len(self._rest) > MAX_PART:
            self._rest = self._parts(self._rest, part, out)
        if out:
            out.append(b"")
            self._write(b"\n".join(out))

    @staticmethod
    def _parts(line: bytes, head: bytes, out: List[bytes]) -> bytes:
        while len(line) > MAX_PART:
            out.append(head + line[:MAX_PART])
            line = line[MAX_PART:]
        return line

    def finish(self, nanoseconds: int) -> None:
        """Write what the container left without an end of line."""
        if self._rest:
            self._write(timestamp(nanoseconds) + b" " + self._name + b" P " + self._rest + b"\n")
            self._rest = b""


class Tail:
    """The last bytes of a container's output, for its termination message."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> None:
        """Take bytes as they come."""
        self._data = (self._data + data[-_TAIL:])[-_TAIL:]

    def text(self, max_bytes: int, max_lines: int) -> str:
        """Return the last lines, at most so many bytes."""
        lines = self._data[-max_bytes:].splitlines(True)[-max_lines:]
        return b"".join(lines).decode("utf-8", "replace")


class Pump:
    """Reads one stream of a container (a pipe or a terminal) into its log until the last writer has closed it.

    ``readers`` get the same bytes; they may not block.
    """

    def __init__(self, loop: Loop, descriptor: int, lines: Lines, readers: "Sequence[Union[Tail, Fan]]") -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._lines = lines
        self._readers = readers
        self.ended = Promise(loop)
        os.set_blocking(descriptor, False)
        loop.watch(descriptor, READ, self._read)

    def _read(self) -> None:
        if self.ended.done:
            return
        try:
            data = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # a terminal whose last user has gone says EIO
        if not data:
            self.stop()
            return
        for reader in self._readers:
            reader.feed(data)
        self._lines.feed(data, int(time.time() * 1000000000))

    def stop(self) -> None:
        """Stop reading; what was read and not yet written is written."""
        if self.ended.done:
            return
        self._loop.unwatch(self._descriptor)
        os.close(self._descriptor)
        self._lines.finish(int(time.time() * 1000000000))
        self.ended.resolve()
