"""One stream of a visitor: files of a command, or a socket, on one side, frames on the other.

What is read goes out within the credit that the far side gave; what comes in waits here within the credit that the far
side has. So nothing here grows beyond the window, and nothing here ever waits.
"""

import errno
import os
import socket
from collections import deque
from typing import Callable, Deque, Dict, Optional, Type

from slurm_plugin.hostagent.protocol import CHUNK, WINDOW, Header

from .loop import READ, WRITE, Loop, Timer

Send = Callable[[Header, bytes], None]

# How long the outputs of a command that has ended may be quiet before they count as ended, although a process that the
# command left behind still holds them.
_QUIET_SECONDS = 1.0


class Outlet:
    """Reads a descriptor, which it owns. ``send`` gets what was read; b"" once, at the end."""

    def __init__(self, loop: Loop, descriptor: int, send: Callable[[bytes], None]) -> None:
        self.over = False
        self._loop = loop
        self._descriptor = descriptor
        self._send = send
        self._credit = WINDOW
        self._quiet: Optional[Timer] = None
        self._ending = False
        os.set_blocking(descriptor, False)
        loop.watch(descriptor, READ, self._read)

    def _read(self) -> None:
        self._pass_on()

    def _pass_on(self) -> bool:
        """Send some of what is there, or its end; False if nothing is."""
        if self.over or self._credit <= 0:
            return False
        try:
            data = os.read(self._descriptor, min(CHUNK, self._credit))
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # a terminal that nobody uses any more, a connection that was reset
        self._credit -= len(data)
        if not data:
            self.close()
        else:
            if self._credit <= 0:
                self._loop.unwatch(self._descriptor)
            self._send(data)
        self._wait()
        return True

    def grant(self, count: int) -> None:
        """Let so much more be sent."""
        if self.over or count <= 0:
            return
        if self._credit <= 0:
            self._loop.watch(self._descriptor, READ, self._read)
        self._credit += count
        self._wait()

    def end_when_quiet(self) -> None:
        """Whoever wrote here has ended; read what is left, and wait for nobody else who may hold it open."""
        self._ending = True
        self._wait()

    def _wait(self) -> None:
        if self._quiet is not None:
            self._quiet.cancel()
        if self._ending and not self.over and self._credit > 0:
            self._quiet = self._loop.call_later(_QUIET_SECONDS, self._is_quiet)

    def _is_quiet(self) -> None:
        """Close, unless this program itself was what stood still: then what waits is read first."""
        if not self._pass_on():
            self.close()

    def close(self) -> None:
        """Read no more; the other side is told the end, if it was not yet."""
        if self.over:
            return
        self.over = True
        if self._quiet is not None:
            self._quiet.cancel()
        if self._credit > 0:
            self._loop.unwatch(self._descriptor)
        os.close(self._descriptor)
        self._send(b"")


class Intake:
    """Writes to a descriptor, which it owns. ``took`` is told how much was written; ``refused`` once, if it takes no more.

    ``closed`` is called when it is closed, everything written or not.
    """

    def __init__(
        self,
        loop: Loop,
        descriptor: int,
        took: Callable[[int], None],
        refused: Callable[[], None],
        closed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._took = took
        self._refused = refused
        self._closed = closed
        self._waiting: Deque[memoryview] = deque()
        self._untold = 0
        self._ends = False
        self._over = False
        os.set_blocking(descriptor, False)

    def write(self, data: bytes) -> None:
        """Have it written."""
        if self._over or self._ends or not data:
            return
        idle = not self._waiting
        self._waiting.append(memoryview(data))
        if idle:
            self._loop.watch(self._descriptor, WRITE, self._feed)
            self._feed()

    def _feed(self) -> None:
        if not self._waiting:
            return
        taken = 0
        try:
            while self._waiting:
                count = os.write(self._descriptor, self._waiting[0])
                taken += count
                self._waiting[0] = self._waiting[0][count:]
                if not self._waiting[0]:
                    self._waiting.popleft()
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.EIO):
                raise
            self.close()
            self._refused()
            return
        self._untold += taken
        if self._untold >= WINDOW // 4:  # the far side has the rest of the window meanwhile
            self._took(self._untold)
            self._untold = 0
        if not self._waiting:
            self._loop.unwatch(self._descriptor)
            if self._ends:
                self.close()

    def end(self) -> None:
        """Close it once all that came was written."""
        self._ends = True
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """Close it now."""
        if self._over:
            return
        self._over = True
        if self._waiting:
            self._loop.unwatch(self._descriptor)
            self._waiting.clear()
        self._hang_up()
        os.close(self._descriptor)
        self._closed()

    def _hang_up(self) -> None:
        """Nothing more, for a file: its end is being closed."""


class SocketIntake(Intake):
    """The sending half of a connection, whose receiving half is another descriptor of the same socket."""

    def _hang_up(self) -> None:
        try:
            with socket.socket(fileno=os.dup(self._descriptor)) as connection:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the other side was quicker


class Relay:
    """One stream: its outputs by channel, and its input."""

    def __init__(self, loop: Loop, number: int, send: Send) -> None:
        self.number = number
        self.terminal = -1
        self.exited = False
        self.leaves_with_input = False  # who attached only to write is gone with the last of it, as in containerd
        self._loop = loop
        self._send = send
        self._outlets: Dict[str, Outlet] = {}
        self._intake: Optional[Intake] = None

    def event(self, event: str, payload: bytes = b"", **fields: object) -> None:
        """Tell the far side something of this stream."""
        self._send(dict(fields, stream=self.number, event=event), payload)

    def read_from(self, channel: str, descriptor: int) -> None:
        """Let a channel carry what a descriptor gives."""
        self._outlets[channel] = Outlet(self._loop, descriptor, lambda data: self.event(channel, data))

    def write_to(
        self, descriptor: int, kind: Type[Intake] = Intake, *, closed: Callable[[], None] = lambda: None
    ) -> None:
        """Let the stream's input go to a descriptor. ``closed`` is called when it ends."""
        self._intake = kind(
            self._loop,
            descriptor,
            lambda count: self.event("stdin", bytes=count),
            lambda: self.event("stdin_closed"),
            closed,
        )

    def write(self, data: bytes) -> None:
        """Take input."""
        if self._intake is not None:
            self._intake.write(data)

    def close_input(self) -> None:
        """Take the end of the input. A terminal has none: it stays open for as long as the command runs."""
        if self._intake is None:
            return
        if self.leaves_with_input:
            self.exit(0)
            for outlet in self._outlets.values():
                outlet.close()
        if self.terminal < 0:
            self._intake.end()

    def drop_input(self) -> None:
        """Somebody else has closed what the input goes to."""
        if self._intake is not None:
            self._intake.close()
            self.event("stdin_closed")

    def credit(self, channel: str, count: int) -> None:
        """Let a channel send so much more."""
        if channel in self._outlets:
            self._outlets[channel].grant(count)

    def exit(self, code: int) -> None:
        """Tell how the command ended."""
        self.exited = True
        self.event("exit", code=code)
        for outlet in self._outlets.values():
            outlet.end_when_quiet()

    def close(self) -> None:
        """Let go of everything."""
        if self._intake is not None:
            self._intake.close()
        for outlet in self._outlets.values():
            outlet.close()
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1
