"""Processes with streams: one thread moves the bytes of all of them, within the credit that the other side gave.

A process that ended is left unreaped until it is released, so that its process group can still be killed without
hitting another one of the same number.
"""

import collections
import contextlib
import os
import selectors
import signal
import threading
import time
from typing import Any, Callable, Deque, Dict, Optional, Sequence, Set

from . import threads
from .protocol import CHUNK, WINDOW, Header
from .spawning import Process, exit_code, kill_group, signal_group, spawn

# Between TERM and KILL when a process is released: srun takes its step down with it when it gets TERM.
_TERM_SECONDS = 2.0

Send = Callable[[Header, bytes], None]


class _Stream:
    """One process. Everything in it belongs to the thread of ``Processes``."""

    def __init__(self, number: int, process: "Process[bytes]") -> None:
        assert process.stdin is not None  # noqa: S101 - all three are pipes: spawn asks for them
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        self.number = number
        self.process = process
        self.stdin = process.stdin.fileno()
        self.fds = {"stdout": process.stdout.fileno(), "stderr": process.stderr.fileno()}
        self.credit = {"stdout": WINDOW, "stderr": WINDOW}
        self.input: Deque[memoryview] = collections.deque()
        self.input_ends = False
        self.input_closed = False
        self.exited = False
        self.released = False
        self.kill_at: Optional[float] = None
        for fd in (self.stdin, self.fds["stdout"], self.fds["stderr"]):
            os.set_blocking(fd, False)

    def ended(self) -> Optional[int]:
        """Return the exit code once there is one, without reaping."""
        result = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if result is None:
            return None
        return exit_code(result.si_status if result.si_code == os.CLD_EXITED else -result.si_status)


class Processes:
    """All processes with streams, by stream number. ``wake_read``, ``wake_write``: a pipe that also hears of SIGCHLD."""

    def __init__(self, send: Send, wake_read: int, wake_write: int) -> None:
        self._send = send
        self._wake_read = wake_read
        self._wake_write = wake_write
        self._calls: Deque[Callable[[], None]] = collections.deque()
        self._streams: Dict[int, _Stream] = {}
        self._wanted: Set[int] = set()
        self._selector = selectors.DefaultSelector()
        threads.start("processes", self._run)

    # From other threads

    def expect(self, number: int) -> None:
        """Announce a start, so that a release which overtakes it is kept for it."""
        self._post(lambda: self._wanted.add(number))

    def start(self, number: int, argv: Sequence[str]) -> int:
        """Start a process and return its pid; raises what ``spawn`` raises."""
        try:
            process = spawn(argv)
        except BaseException:
            self._post(lambda: self._wanted.discard(number))
            raise
        self._post(lambda: self._add(_Stream(number, process)))
        return process.pid

    def write(self, number: int, data: bytes) -> None:
        """Give a process input; what it no longer reads is dropped."""
        self._post(lambda: self._write(number, data))

    def close_stdin(self, number: int) -> None:
        """Let a process read an end of file after what it was given."""
        self._post(lambda: self._close_input(number))

    def credit(self, number: int, channel: str, count: int) -> None:
        """Let a channel send so much more."""
        self._post(lambda: self._add_credit(number, channel, count))

    def release(self, number: int) -> None:
        """End a process and its group; "released" is sent when that is done."""
        self._post(lambda: self._release(number))

    def kill_all(self) -> None:
        """TERM, then KILL, everything; returns when that is done. For the end of the agent."""
        done = threading.Event()
        self._post(lambda: self._release_all(done))
        done.wait(2 * _TERM_SECONDS)

    def _post(self, call: Callable[[], None]) -> None:
        self._calls.append(call)
        with contextlib.suppress(BlockingIOError):  # full of wake-ups as it is
            os.write(self._wake_write, b"\0")

    # In the thread

    def _run(self) -> None:
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._woken)
        while True:
            registered = self._selector.get_map()
            for key, _ in self._selector.select(self._sleep()):
                if registered.get(key.fileobj) is key:  # not if what came before it in this round closed it
                    key.data()
            self._kill_overdue()

    def _sleep(self) -> Optional[float]:
        times = [stream.kill_at for stream in self._streams.values() if stream.kill_at is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, CHUNK)
        while self._calls:
            self._calls.popleft()()
        for stream in list(self._streams.values()):
            self._look(stream)

    def _add(self, stream: _Stream) -> None:
        self._streams[stream.number] = stream
        for channel in ("stdout", "stderr"):
            self._listen(stream, channel)
        if stream.number not in self._wanted:
            self._release(stream.number)
        self._wanted.discard(stream.number)

    def _listen(self, stream: _Stream, channel: str) -> None:
        self._selector.register(stream.fds[channel], selectors.EVENT_READ, lambda: self._read(stream, channel))

    def _read(self, stream: _Stream, channel: str) -> None:
        fd = stream.fds[channel]
        try:
            data = os.read(fd, min(CHUNK, stream.credit[channel]))
        except BlockingIOError:
            return
        stream.credit[channel] -= len(data)
        self._send({"stream": stream.number, "event": channel}, data)
        if not data:
            self._selector.unregister(fd)
            del stream.fds[channel]
        elif stream.credit[channel] <= 0:
            self._selector.unregister(fd)

    def _add_credit(self, number: int, channel: str, count: int) -> None:
        stream = self._streams.get(number)
        if stream is None or channel not in stream.fds or count <= 0:
            return
        if stream.credit[channel] <= 0:
            self._listen(stream, channel)
        stream.credit[channel] += count

    def _write(self, number: int, data: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None or stream.input_closed or stream.input_ends or not data:
            return
        if not stream.input:
            self._selector.register(stream.stdin, selectors.EVENT_WRITE, lambda: self._feed(stream))
        stream.input.append(memoryview(data))

    def _feed(self, stream: _Stream) -> None:
        try:
            count = os.write(stream.stdin, stream.input[0][:CHUNK])
        except BlockingIOError:
            return
        except OSError:  # EPIPE, or what else keeps it from reading: no matter of the other streams
            self._input_over(stream)
            self._send({"stream": stream.number, "event": "stdin_closed"}, b"")
            return
        self._send({"stream": stream.number, "event": "stdin", "bytes": count}, b"")
        stream.input[0] = stream.input[0][count:]
        if not stream.input[0]:
            stream.input.popleft()
        if not stream.input:
            self._selector.unregister(stream.stdin)
            if stream.input_ends:
                self._input_over(stream)

    def _close_input(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is None or stream.input_closed:
            return
        stream.input_ends = True
        if not stream.input:
            self._input_over(stream)

    def _input_over(self, stream: _Stream) -> None:
        if stream.input_closed:
            return
        if stream.input:
            self._selector.unregister(stream.stdin)
            stream.input.clear()
        stream.input_closed = True
        _close(stream.process.stdin)

    def _look(self, stream: _Stream) -> None:
        """Tell of a process's end, once; finish the release of one that was waited for."""
        if stream.released:
            return
        code = stream.ended()
        if code is None:
            return
        if not stream.exited:
            stream.exited = True
            self._send({"stream": stream.number, "event": "exit", "code": code}, b"")
        if stream.kill_at is not None:
            self._finish(stream)

    def _release(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is None:
            self._wanted.discard(number)
            return
        if stream.kill_at is not None:
            return
        stream.kill_at = time.monotonic() + _TERM_SECONDS
        self._input_over(stream)
        if stream.ended() is None:
            signal_group(stream.process, signal.SIGTERM)
        else:
            self._finish(stream)

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for stream in list(self._streams.values()):
            if stream.kill_at is not None and stream.kill_at <= now:
                kill_group(stream.process)
                stream.kill_at = now + _TERM_SECONDS

    def _finish(self, stream: _Stream) -> None:
        """Kill what is left of a process's group, then reap the process."""
        stream.released = True
        kill_group(stream.process)
        stream.process.wait()
        for channel, fd in list(stream.fds.items()):
            if stream.credit[channel] > 0:
                self._selector.unregister(fd)
        _close(stream.process.stdout)
        _close(stream.process.stderr)
        del self._streams[stream.number]
        self._send({"stream": stream.number, "event": "released"}, b"")

    def _release_all(self, done: threading.Event) -> None:
        for number in list(self._streams):
            self._release(number)
        if self._streams:
            self._calls_later(lambda: self._release_all(done))
        else:
            done.set()

    def _calls_later(self, call: Callable[[], None]) -> None:
        timer = threading.Timer(0.02, self._post, (call,))
        timer.daemon = True
        timer.start()


def _close(pipe: Any) -> None:
    if pipe is not None:
        pipe.close()
