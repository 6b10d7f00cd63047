"""Growing files, followed by name: one thread looks at all of them, several times within 0.1 s.

Looking again is opening again: over NFS that is what makes another machine's writes visible. A file that was replaced
(a log that was rotated) is read to its end first, then the new one from its beginning.
"""

import collections
import errno
import os
import threading
import time
from typing import Callable, Deque, Dict, Optional

from . import threads, walking
from .files import open_file
from .protocol import CHUNK, WINDOW

_INTERVAL_SECONDS = 0.04
# Looking may take this part of the time; with very many files the interval grows instead of the load.
_DUTY = 0.25

Send = Callable[[int, bytes], None]
Fail = Callable[[int, Exception], None]


class _File:
    """One followed file: where it was read up to, and the descriptor that was read."""

    def __init__(self, path: str, offset: int) -> None:
        self.path = path
        self.parts = walking.split(path)
        self.position = offset
        self.credit = WINDOW
        self._fd: Optional[int] = None
        self._parent: Optional[walking.Walk] = None

    def read(self) -> bytes:
        """Return what there is, within credit; b"" when there is nothing new."""
        fresh = self._open()
        data = b"" if self._fd is None else os.pread(self._fd, min(CHUNK, self.credit), self.position)
        if not data and fresh is not None and self._replaced(fresh):
            self._use(fresh, 0)
            data = os.pread(fresh, min(CHUNK, self.credit), 0)
        elif fresh is not None:
            if self._fd is None:
                # Shorter than what was read of it: another file has taken its place before we came.
                self._use(fresh, self.position if os.fstat(fresh).st_size >= self.position else 0)
                data = os.pread(fresh, min(CHUNK, self.credit), self.position)
            else:
                os.close(fresh)
        self.position += len(data)
        self.credit -= len(data)
        return data

    def _open(self) -> Optional[int]:
        for attempt in (1, 2):
            try:
                if self._parent is None:
                    self._parent = walking.walk(self.parts[:-1])
                return open_file(self._parent.fd, self.parts[-1], self.path)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ESTALE):
                    raise
                self._forget_parent()  # perhaps it is the directory that went, and a new one is there
                if attempt == 2:
                    return None
        return None

    def _replaced(self, fresh: int) -> bool:
        return self._fd is not None and not os.path.sameopenfile(self._fd, fresh)

    def _use(self, fd: int, position: int) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self.position = fd, position

    def _forget_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent.fd)
            self._parent = None

    def close(self) -> None:
        self._forget_parent()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Followers:
    """All followed files, by stream. ``send`` and ``fail`` are called from the thread that looks.

    A file system may keep that thread waiting; who calls from another thread never waits for it.
    """

    def __init__(self, send: Send, fail: Fail) -> None:
        self._send = send
        self._fail = fail
        self._calls: Deque[Callable[[], None]] = collections.deque()
        self._told = threading.Event()
        self._files: Dict[int, _File] = {}
        threads.start("followers", self._run)

    # From other threads

    def add(self, stream: int, path: str, offset: int) -> None:
        """Begin to follow; ValueError for a path that can't be meant."""
        file = _File(path, offset)
        self._post(lambda: self._files.__setitem__(stream, file))

    def credit(self, stream: int, count: int) -> None:
        """Let a stream send so much more."""
        self._post(lambda: self._add_credit(stream, count))

    def remove(self, stream: int) -> None:
        """End a stream."""
        self._post(lambda: self._remove(stream))

    def _post(self, call: Callable[[], None]) -> None:
        self._calls.append(call)
        self._told.set()

    # In the thread

    def _add_credit(self, stream: int, count: int) -> None:
        if stream in self._files:
            self._files[stream].credit += count

    def _remove(self, stream: int) -> None:
        file = self._files.pop(stream, None)
        if file is not None:
            file.close()

    def _run(self) -> None:
        pause: Optional[float] = None
        while True:
            self._told.wait(pause)
            self._told.clear()
            while self._calls:
                self._calls.popleft()()
            began = time.monotonic()
            busy = [self._look(stream, file) for stream, file in list(self._files.items()) if file.credit > 0]
            took = time.monotonic() - began
            pause = max(_INTERVAL_SECONDS, took / _DUTY - took) if busy else None
            if any(busy):
                pause = 0

    def _look(self, stream: int, file: _File) -> bool:
        """Send what a file has; True if it may have more at once."""
        try:
            data = file.read()
        except (OSError, ValueError) as error:
            self._remove(stream)
            self._fail(stream, error)
            return False
        if data:
            self._send(stream, data)
        return bool(data) and file.credit > 0
