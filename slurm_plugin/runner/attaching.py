"""Those attached to a running container: they get its output from now on, and may share its input.

The log never waits for them, and neither does the container: who does not read as fast as it writes is let go, as
containerd does.
"""

import os
from typing import Callable, Dict

from .loop import Loop, Promise
from .streams import close_all, widen


class Fan:
    """One stream of a container's output, for any number of those attached. Fed like a ``logs.Tail``."""

    def __init__(self) -> None:
        self._pipes: Dict[int, Callable[[], None]] = {}

    def join(self, dropped: Callable[[], None]) -> int:
        """Return the reading end of a new pipe. ``dropped`` is called if its reader falls too far behind."""
        read_end, write_end = os.pipe()
        widen(write_end)
        os.set_blocking(write_end, False)
        self._pipes[write_end] = dropped
        return read_end

    def feed(self, data: bytes) -> None:
        """Give bytes to everybody."""
        for descriptor, dropped in tuple(self._pipes.items()):
            try:
                if os.write(descriptor, data) == len(data):
                    continue
                dropped()
            except BlockingIOError:
                dropped()
            except OSError:
                pass  # its reader has gone
            del self._pipes[descriptor]
            os.close(descriptor)

    def close(self) -> None:
        """Nothing more comes."""
        for descriptor in self._pipes:
            os.close(descriptor)
        self._pipes.clear()


class Input:
    """A container's standard input: what it reads, while somebody may still write it. ``descriptor`` -1: it has none.

    ``once``: it ends when the first who wrote to it leaves (stdinOnce). A terminal stays. ``closed`` is done at its end.
    """

    def __init__(self, loop: Loop, descriptor: int, *, terminal: bool, once: bool) -> None:
        self.descriptor = descriptor
        self.terminal = terminal
        self.once = once and not terminal
        self.closed = Promise(loop)

    def left(self) -> None:
        """Somebody who wrote to it writes no more."""
        if self.once:
            self.close()

    def close(self) -> None:
        """End it. A terminal belongs to whoever reads from it, and is closed there."""
        if self.descriptor >= 0 and not self.terminal:
            os.close(self.descriptor)
        self.descriptor = -1
        self.closed.resolve()


class Attachments:
    """A container's fans and its input, for as long as it runs."""

    def __init__(self, fans: Dict[str, Fan], entry: Input) -> None:
        self.input = entry
        self._fans = fans

    def join(self, dropped: Callable[[], None], *, stdin: bool) -> Dict[str, int]:
        """Return files for somebody new, by name; they are the caller's to close. OSError."""
        files: Dict[str, int] = {}
        try:
            for name, fan in self._fans.items():
                files[name] = fan.join(dropped)
            if self.input.descriptor >= 0 and self.input.terminal:
                files["terminal"] = os.dup(self.input.descriptor)
            elif self.input.descriptor >= 0 and stdin:
                files["stdin"] = os.dup(self.input.descriptor)
        except OSError:
            close_all(files.values())
            raise
        return files

    def close(self) -> None:
        """The container has ended."""
        for fan in self._fans.values():
            fan.close()
        self.input.close()


def no_attachments(loop: Loop) -> Attachments:
    """Return what a container has before it is started."""
    return Attachments({}, Input(loop, -1, terminal=False, once=False))
