"""The door of a container: it stops there for a moment, all its mounts made and its command not yet executed.

Between the runtime's setting up and the command, the container says through one FIFO that it has come so far, and goes
on when it is answered through another. Only then is there anything to look at from outside, and only by this are a
failed set-up and a failed command told apart.

To look, one process of the container must let itself be looked at, and Apptainer's own don't (they are not dumpable).
So the node's dynamic loader is executed there for that moment, waiting to open a third FIFO: it needs nothing of the
image. All lies in the run's own directory on the node.
"""

import contextlib
import errno
import os
from typing import Callable, List, Tuple

from .loop import READ, Loop
from .runtimes.base import Bind

_ARRIVALS, _ANSWERS, _HOLD, _LOADER = "arrivals", "answers", "hold", "loader"
_INSIDE = "/.singularity.d/slurmlet"
_LOOKS = 100
_LOOK_SECONDS = 0.005


def _loader() -> str:
    """Return the path of the dynamic loader that this very process was started by; empty if it can't be told."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as stream:
        for line in stream:
            path = line.partition("/")[2].rstrip("\n")
            if os.path.basename(path).startswith("ld-") and os.access("/" + path, os.X_OK):
                return "/" + path
    return ""


def make(directory: str) -> None:
    """Make the FIFOs, and the place where the loader is mounted; those of an attempt that started nothing will do."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    for name in (_ARRIVALS, _ANSWERS, _HOLD):
        with contextlib.suppress(FileExistsError):
            os.mkfifo(os.path.join(directory, name), 0o600)
    with open(os.path.join(directory, _LOADER), "wb"):
        pass


def binds(directory: str) -> Tuple[Bind, ...]:
    """Return what has to be mounted in the container."""
    loader = _loader()
    found = (Bind(directory, _INSIDE, False),)
    return found + ((Bind(loader, "%s/%s" % (_INSIDE, _LOADER), True),) if loader else ())


def script_lines() -> List[str]:
    """Return what the container does at its gate, for a shell that knows no program but its own words."""
    return [
        "%s/%s --verify %s/%s > /dev/null 2>&1 &" % (_INSIDE, _LOADER, _INSIDE, _HOLD),
        "echo > %s/%s" % (_INSIDE, _ARRIVALS),
        "read SLURMLET_GATE < %s/%s" % (_INSIDE, _ANSWERS),
        "unset SLURMLET_GATE",
    ]


def is_loader(command_line: bytes) -> bool:
    """Return whether a process is the one that only waits to be looked at (``/proc/PID/cmdline``)."""
    return command_line.startswith(("%s/%s\0" % (_INSIDE, _LOADER)).encode("ascii"))


class Gate:
    """Our side of it. ``look`` is called until it returns True, or half a second; then the container goes on if it ``may``."""

    def __init__(self, loop: Loop, directory: str, look: Callable[[], bool], may: Callable[[], bool]) -> None:
        self._loop = loop
        self._look = look
        self._may = may
        self._hold = os.path.join(directory, _HOLD)
        self.arrived = False
        self.passed = loop.promise()  # it was let go on, or never will be
        self._arrivals = os.open(os.path.join(directory, _ARRIVALS), os.O_RDONLY | os.O_NONBLOCK)
        # For reading as well: a FIFO that nobody reads yet can't be opened for writing alone without waiting.
        try:
            self._answers = os.open(os.path.join(directory, _ANSWERS), os.O_RDWR | os.O_NONBLOCK)
        except OSError:
            os.close(self._arrivals)
            raise
        loop.watch(self._arrivals, READ, self._read)

    def _read(self) -> None:
        if self._arrivals < 0:
            return
        arrived = bool(os.read(self._arrivals, 64))
        self._stop_listening()
        if arrived:
            self.arrived = True
            self._loop.spawn(self._let_in(), "gate")

    async def _let_in(self) -> None:
        for _ in range(_LOOKS):
            if self._answers < 0 or self._look():
                break
            await self._loop.sleep(_LOOK_SECONDS)
        for _ in range(_LOOKS):
            if self._release():
                break
            await self._loop.sleep(_LOOK_SECONDS)
        if self._may() and self._answers >= 0:
            os.write(self._answers, b"\n")
        self.passed.resolve()

    def _release(self) -> bool:
        """Let the loader go: it opens its FIFO, reads nothing, and ends. False if it has not come to that yet."""
        try:
            os.close(os.open(self._hold, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            return error.errno != errno.ENXIO
        return True

    def _stop_listening(self) -> None:
        if self._arrivals >= 0:
            self._loop.unwatch(self._arrivals)
            os.close(self._arrivals)
            self._arrivals = -1

    def close(self) -> None:
        """Close it, whether the container came to it or not."""
        self._stop_listening()
        if self._answers >= 0:
            os.close(self._answers)
            self._answers = -1
