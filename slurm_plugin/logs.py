"""A container's log: from the CRI log files that the runner writes to what ``kubectl logs`` shows.

A line of a CRI log is ``<RFC 3339 time with nanoseconds> <stdout|stderr> <F|P> <text>``; P marks a part whose rest
follows. Rules of the options: Kubernetes 1.36, ``pkg/kubelet/kuberuntime/logs``: ``since`` is applied first, then
``tail``, then ``limitBytes`` to what is printed.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from .contract import LogOptions, PodReport
from .errors import PodNotFoundError, SlurmletError
from .hosts.base import Host
from .jobdir import JobDir
from .logfiles import LogFile
from .runner.state import ContainerState, Running, Waiting, last_restart

# The runner cuts lines at 16 KiB; the pod's own job can write anything, and it would be kept here.
_LONGEST_LINE = 256 * 1024
# A Host tells within 0.1 s what was written.
_QUIET_SECONDS = 0.3


class BadLogLineError(SlurmletError):
    """A log file holds a line that is not in the CRI format."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a log file: its time as written, whether its text is only a part, the text, and who wrote it."""

    time: bytes
    partial: bool
    text: bytes
    stream: bytes = b"stdout"

    @property
    def seconds(self) -> float:
        """The time in epoch seconds. Raises BadLogLineError."""
        try:
            return datetime.fromisoformat(self.time.decode("ascii")).timestamp()
        except ValueError as error:
            raise BadLogLineError(f"not the time of a CRI log line: {self.time[:200]!r}") from error

    def show(self, *, timestamps: bool) -> bytes:
        """Return what the user sees of it."""
        ending = b"" if self.partial else b"\n"
        return (self.time + b" " if timestamps else b"") + self.text + ending


def parse_line(line: bytes) -> LogLine:
    """Read one line, without its newline. Raises BadLogLineError."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in {b"stdout", b"stderr"} or parts[2][:1] not in {b"F", b"P"}:
        raise BadLogLineError(f"not a CRI log line: {line[:200]!r}")
    return LogLine(parts[0], parts[2][:1] == b"P", parts[3], parts[1])


class _Lines:
    """Cuts a stream of bytes into lines; an unfinished last line is kept until its end comes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[LogLine]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            raise BadLogLineError(f"a line of more than {_LONGEST_LINE} bytes, which no runner writes")
        return (parse_line(line) for line in lines if line)


class _Output:
    """Applies ``timestamps`` and ``limitBytes`` to what is printed. A line's later parts get no time of their own."""

    def __init__(self, options: LogOptions) -> None:
        self._timestamps = options.timestamps
        self._left = options.limit_bytes
        self._middle = False

    def full(self) -> bool:
        return self._left == 0

    def show(self, lines: Iterator[LogLine] | deque[LogLine]) -> bytes:
        parts = []
        for line in lines:
            parts.append(line.show(timestamps=self._timestamps and not self._middle))
            self._middle = line.partial
        data = b"".join(parts)
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        return data


class _Tail:
    """The last ``count`` whole lines of what it is given; parts of one line count as one. Each line costs the same."""

    def __init__(self, count: int) -> None:
        self.lines: deque[LogLine] = deque()
        self._count = count
        self._whole = 0

    def add(self, lines: Iterator[LogLine]) -> None:
        for line in lines:
            self.lines.append(line)
            self._whole += not line.partial
            while self.lines and self._whole + line.partial > self._count:
                self._whole -= not self.lines.popleft().partial


class ContainerLog:
    """Reads the log of one container of one pod. ``report`` tells what is known of the pod at the moment it is called."""

    def __init__(self, host: Host, directory: JobDir, container: str, report: Callable[[], PodReport]) -> None:
        self._host = host
        self._directory = directory
        self._container = container
        self._report = report

    def _state(self) -> ContainerState | None:
        runner = self._report().runner
        states = runner.containers if runner is not None else ()
        return next((state for state in states if state.name == self._container), None)

    def _restart(self, *, previous: bool) -> int:
        """Return which restart's log is asked for. Raises PodNotFoundError with the kubelet's words if there is none."""
        state, pod = self._state(), self._report().name
        ended = state.last if state is not None else None
        if previous and ended is None:
            raise PodNotFoundError(f'previous terminated container "{self._container}" in pod "{pod}" not found')
        if state is None or (isinstance(state.state, Waiting) and ended is None):
            reason = state.state.reason if state is not None and isinstance(state.state, Waiting) else ""
            words = f"is waiting to start: {reason or 'ContainerCreating'}"
            raise PodNotFoundError(f'container "{self._container}" in pod "{pod}" {words}')
        if isinstance(state.state, Waiting):  # what there is to read is of its last run
            return last_restart(state)
        return last_restart(state) if previous else state.restart_count

    def _writing(self, restart: int) -> bool:
        """Whether this restart's container may still write."""
        state = self._state()
        running = state is not None and isinstance(state.state, Running) and state.restart_count == restart
        return running and not self._report().over

    async def read(self, options: LogOptions) -> AsyncGenerator[bytes, None]:
        """Yield the log as asked for. With ``follow``, until the container ends; the caller may close it before."""
        restart = self._restart(previous=options.previous)
        path = self._directory.log(self._container, restart)
        output, lines, file = _Output(options), _Lines(), LogFile(self._host, path)
        tail = _Tail(options.tail_lines) if options.tail_lines is not None else None
        async with aclosing(file.read()) as pieces:
            async for data in pieces:
                wanted = self._wanted(lines.feed(data), options)
                if tail is not None:
                    tail.add(wanted)
                elif shown := output.show(wanted):
                    yield shown
                if output.full():  # limitBytes 0 is not "no limit", but "nothing"
                    return
        if tail is not None and (shown := output.show(tail.lines)):
            yield shown
        if options.follow and not options.previous and not output.full():
            async with aclosing(self._follow(path, file.offset, restart)) as stream:
                async for data in stream:
                    if shown := output.show(self._wanted(lines.feed(data), options)):
                        yield shown
                    if output.full():
                        return

    def _wanted(self, lines: Iterator[LogLine], options: LogOptions) -> Iterator[LogLine]:
        since, stream = options.since_time, options.stream.lower().encode()
        if options.stream != "All":
            lines = (line for line in lines if line.stream == stream)
        return lines if since is None else (line for line in lines if line.seconds >= since)

    async def _follow(self, path: str, offset: int, restart: int) -> AsyncGenerator[bytes, None]:
        """Yield what is added to a log, across its rotation, until its container has ended and all it wrote was read."""
        stream = self._host.follow(path, offset=offset)
        async with aclosing(_until(stream, lambda: self._writing(restart))) as following:
            async for data in following:
                yield data


async def _until(stream: AsyncGenerator[bytes, None], going: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
    """Yield from a stream that has no end of its own until ``going`` says no and the stream then has been quiet."""
    pending: asyncio.Future[bytes] | None = None
    try:
        while True:
            last = not going()
            if pending is None:
                pending = asyncio.ensure_future(stream.__anext__())
            done, _ = await asyncio.wait({pending}, timeout=_QUIET_SECONDS)
            if done:
                data = pending.result()
                pending = None
                yield data
            elif last:
                return
    except StopAsyncIteration:
        return
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.wait({pending})
        await stream.aclose()
