"""Whether a program still gets on: told by the bytes that it and all below it read and write.

A pull may take hours, so its time as a whole says nothing; one whose registry is dead moves nothing at all.
"""

import os
import time
from typing import Callable

from .proctree import descendants

_LEAST_BYTES = 64 * 1024  # less is how a program waits


def bytes_moved(pid: int) -> int:
    """Return how many bytes a process and all that live below it have read and written, the network's among them.

    Processes that let nobody look count for nothing.
    """
    total = 0
    for each in [pid] + [process.pid for process in descendants(pid)]:
        try:
            with open("/proc/%d/io" % each, encoding="ascii") as stream:
                total += sum(int(line.split()[1]) for line in stream if line.startswith(("rchar:", "wchar:")))
        except OSError:
            continue  # it has ended, or it is setuid
    return total


class Progress:
    """Looks at one process now and then."""

    def __init__(self, pid: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._pid = pid
        self._clock = clock
        self._mark = 0
        self._since = clock()
        self._readable = os.access("/proc/%d/io" % pid, os.R_OK)

    def still_for(self) -> float:
        """Return for how many seconds it has moved nothing worth mentioning; 0 if that can't be told."""
        moved, now = bytes_moved(self._pid), self._clock()
        # Less than before, too, is progress: a child of it has ended.
        if not self._readable or abs(moved - self._mark) >= _LEAST_BYTES:
            self._mark, self._since = moved, now
        return now - self._since
