"""A container's output, in the CRI log format: ``<RFC 3339 time with nanoseconds> stdout|stderr F|P <text>``.

A line longer than 16 KiB comes in parts tagged ``P``, the last ``F``; so does, tagged ``P``, a line that the container
never ended. Source: containerd 2.0 ``internal/cri/io/logger.go``; rotation as the kubelet's ``container_log_manager.go``.
"""

import os
import sys
import time
from typing import TYPE_CHECKING, Callable, List, Optional, Sequence, Union

from .loop import READ, Loop, Promise

if TYPE_CHECKING:
    from .attaching import Fan

MAX_PART = 16 * 1024
_CHUNK = 64 * 1024
_MOST_IN_A_PIPE = 1 << 20  # pipe(7), pipe-max-size
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
        self._failed = False
        self._half = b""  # what is still to come of a line that has its beginning in the file
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self._size = _without_half_line(self._descriptor)

    def write(self, data: bytes) -> None:
        """Append whole lines. A file system that refuses loses them (said once in the job's own output)."""
        if self._max_bytes and self._size and self._size + len(data) > self._max_bytes and not self._half:
            try:
                self._rotate()
            except OSError as error:
                self._say("a container's log grows beyond its limit, can't rotate", error)
        data, written = self._half + data, 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError as error:
            self._say("output of a container is lost, can't write", error)
        self._size += written
        if written:
            whole = data[written - 1 : written] == b"\n"
            self._half = b"" if whole else data[written : data.index(b"\n", written) + 1]

    def _say(self, words: str, error: OSError) -> None:
        if not self._failed:
            sys.stderr.write("slurmlet: %s %s: %s\n" % (words, self._path, error))
        self._failed = True

    def _rotate(self) -> None:
        """Begin a new file. OSError: what there was is written on, or a file that is too much stays."""
        now = time.time()
        name = "%s.%s-%06d" % (self._path, time.strftime("%Y%m%d-%H%M%S", time.gmtime(now)), int(now % 1 * 1000000))
        directory, base = os.path.split(self._path)
        fresh = os.path.join(directory, ".%s.new" % base)
        # Open before the old one is closed: the number of a closed descriptor is soon another file's.
        descriptor = os.open(fresh, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.rename(self._path, name)
            os.rename(fresh, self._path)
        except OSError:
            os.close(descriptor)
            raise
        old, self._descriptor, self._size = self._descriptor, descriptor, 0
        self._close(old)
        rotated = sorted(entry for entry in os.listdir(directory) if entry.startswith(base + "."))
        for name in rotated[: max(0, len(rotated) - (self._max_files - 1))]:
            os.unlink(os.path.join(directory, name))

    def close(self) -> None:
        """Close the file."""
        self._close(self._descriptor)

    def _close(self, descriptor: int) -> None:
        try:
            os.close(descriptor)
        except OSError as error:  # NFS tells here of what it could not write; it is closed all the same
            self._say("output of a container is lost, can't write", error)


def _without_half_line(descriptor: int) -> int:
    """Cut off what a runner that was killed left of a line, lest the next is taken for its rest; return the size."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - _CHUNK)
    end = os.pread(descriptor, _CHUNK, start).rfind(b"\n") + 1
    if start + end < size:
        size = start + end
        os.ftruncate(descriptor, size)
    return size


def forget_before(directory: str, restart: int) -> None:
    """Remove a container's logs of runs before this one, by name: ``<restart>.log``, with what was rotated of it.

    The kubelet, too, keeps a container's last run and the one before (``MaxPerPodContainerCount``): a crash loop has no
    end, the user's quota has. What can't be removed is tried again with the next run.
    """
    try:
        for name in os.listdir(directory):
            number = name.lstrip(".").partition(".")[0]
            if number.isdecimal() and int(number) < restart:
                os.unlink(os.path.join(directory, name))
    except OSError as error:
        sys.stderr.write("slurmlet: can't remove old logs: %s\n" % error)


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
        if not self.ended.done and self._take() == b"":
            self._close()

    def _take(self) -> Optional[bytes]:
        """Read some bytes and pass them on; b"" at the end, None if there is nothing now."""
        try:
            data = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            return b""  # a terminal whose last user has gone says EIO
        if data:
            for reader in self._readers:
                reader.feed(data)
            self._lines.feed(data, int(time.time() * 1000000000))
        return data

    def stop(self) -> None:
        """Stop reading, once what is in the pipe already has been read: whoever still holds it may write without end."""
        if self.ended.done:
            return
        for _ in range(_MOST_IN_A_PIPE // _CHUNK + 1):
            if not self._take():
                break
        self._close()

    def _close(self) -> None:
        self._loop.unwatch(self._descriptor)
        os.close(self._descriptor)
        self._lines.finish(int(time.time() * 1000000000))
        self.ended.resolve()
