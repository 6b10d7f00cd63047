"""Commands run to their end, whole input in, whole output out, killed at their deadline."""

import contextlib
import os
import selectors
import subprocess
import threading
import time
from typing import Dict, List, Optional, Sequence, Tuple

from .protocol import CHUNK
from .spawning import Process, exit_code, kill_group, spawn

# What a command may print altogether: a frame must hold it.
MAX_OUTPUT = 48 << 20
# poll() takes no more than 24 days.
_LONGEST_WAIT_SECONDS = 3600.0


class CommandTimeoutError(Exception):
    """The deadline came first; every process of the command was killed."""


class CommandCancelledError(Exception):
    """Nobody waits for the command any more; every process of it was killed."""


class Command:
    """One run of one argv. ``deadline`` is on time.monotonic's clock."""

    def __init__(self, argv: Sequence[str], stdin: bytes, deadline: float) -> None:
        self._argv = argv
        self._stdin = stdin
        self._deadline = deadline
        self._process: Optional[Process[bytes]] = None
        self._reaped = False
        self._cancelled = False
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """Kill it, or keep it from being started; from any thread."""
        with self._lock:
            self._cancelled = True
            if self._process is not None and not self._reaped:
                kill_group(self._process)

    def run(self) -> Tuple[int, bytes, bytes]:
        """Return (exit code, stdout, stderr). Raises the two errors above, OSError if it can't be started or prints too much."""
        if time.monotonic() >= self._deadline:
            raise CommandTimeoutError("timed out before it could be started")
        with self._lock:
            if self._cancelled:
                raise CommandCancelledError("cancelled before it was started")
            self._process = process = spawn(self._argv)
        try:
            stdout, stderr = self._communicate(process)
            self._wait(process)
        finally:
            with self._lock:
                if process.returncode is None:
                    kill_group(process)
                    process.wait()
                self._reaped = True
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        if self._cancelled:
            raise CommandCancelledError("cancelled")
        return exit_code(process.returncode), stdout, stderr

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise CommandTimeoutError("timed out")
        return min(left, _LONGEST_WAIT_SECONDS)

    def _wait(self, process: "Process[bytes]") -> None:
        """Wait for a command that has closed its outputs: usually it is about to end."""
        while process.returncode is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=self._left())

    def _communicate(self, process: "Process[bytes]") -> Tuple[bytes, bytes]:
        assert process.stdin is not None  # noqa: S101 - all three are pipes: spawn asks for them
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        collected: Dict[int, List[bytes]] = {process.stdout.fileno(): [], process.stderr.fileno(): []}
        rest, size = memoryview(self._stdin), 0
        with selectors.PollSelector() as selector:
            for fd in collected:
                selector.register(fd, selectors.EVENT_READ)
            if rest:
                os.set_blocking(process.stdin.fileno(), False)
                selector.register(process.stdin, selectors.EVENT_WRITE)
            else:
                process.stdin.close()
            while selector.get_map():
                for key, _ in selector.select(self._left()):
                    if key.fileobj is process.stdin:
                        rest = _feed(key.fd, rest)
                        if not rest:
                            selector.unregister(process.stdin)
                            process.stdin.close()
                        continue
                    data = os.read(key.fd, CHUNK)
                    size += len(data)
                    collected[key.fd].append(data)
                    if not data:
                        selector.unregister(key.fileobj)
                    if size > MAX_OUTPUT:
                        raise OSError(
                            None, "printed more than %d MiB and was killed: %s" % (MAX_OUTPUT >> 20, self._argv[0])
                        )
        stdout, stderr = collected.values()
        return b"".join(stdout), b"".join(stderr)


def _feed(fd: int, rest: memoryview) -> memoryview:
    """Write some of a command's input; nothing is left of it when the command reads no more."""
    try:
        return rest[os.write(fd, rest[:CHUNK]) :]
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return rest[:0]
