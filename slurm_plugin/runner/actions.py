"""What a probe or a hook does: a command in the container, or a request to it.

Rules and words: Kubernetes 1.36 ``pkg/probe/{exec,http,tcp,grpc}``.
"""

import os
import signal
from typing import NamedTuple, Optional, Tuple

from .join import Inside, JoinError, beside, start_inside
from .loop import READ, Loop, Promise
from .plan import Action
from .process import Stdio
from .running import RunningContainer
from .shared import Shared

_MOST_OUTPUT = 10 * 1024
_ENTER_SECONDS = 10.0
_LOOK_SECONDS = 0.02


class Outcome(NamedTuple):
    """How it went. ``text`` is for the user."""

    ok: bool
    text: str


class _Output:
    """Collects the first 10 KiB of a command's output, and reads the rest away."""

    def __init__(self, loop: Loop, descriptor: int) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self.data = b""
        self.ended = Promise(loop)
        os.set_blocking(descriptor, False)
        loop.watch(descriptor, READ, self._read)

    def _read(self) -> None:
        if self.ended.done:
            return
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        self.data = (self.data + data)[:_MOST_OUTPUT]
        if not data:
            self.stop()

    def stop(self) -> None:
        if not self.ended.done:
            self._loop.unwatch(self._descriptor)
            os.close(self._descriptor)
            self.ended.resolve()


async def perform(shared: Shared, running: RunningContainer, action: Action, timeout: Optional[float]) -> Outcome:
    """Do it, in at most ``timeout`` seconds (None: the caller limits it).

    Whatever goes wrong is a failure of the probe or hook, and never of the pod: a node without room for another process,
    an answer that nothing can be made of.
    """
    try:
        return await _perform(shared, running, action, timeout)
    except Exception as error:
        return Outcome(False, "%s: %s" % (type(error).__name__, error))


async def _perform(shared: Shared, running: RunningContainer, action: Action, timeout: Optional[float]) -> Outcome:
    if action.kind == "exec":
        return await _execute(shared, running, action, timeout)
    from . import network

    host = action.host or shared.book.facts.pod_ips[0]
    if action.kind == "http":
        ok, text = await network.http(shared.loop, host, action, timeout)
    elif action.kind == "tcp":
        ok, text = await network.tcp(shared.loop, host, action.port, timeout)
    else:
        from .grpc import grpc

        ok, text = await grpc(shared.loop, host, action, timeout)
    return Outcome(ok, text)


async def inside_of(shared: Shared, running: RunningContainer, seconds: float = _ENTER_SECONDS) -> Inside:
    """Return where a command of the container starts, once the container's own process runs there, in so many seconds. JoinError."""
    if shared.barred:
        raise JoinError(shared.barred)
    deadline = shared.loop.now() + seconds
    while not running.is_inside():
        if running.gone.done or shared.loop.now() > deadline:
            raise JoinError("the container has no process to join")
        await shared.loop.first(running.gone, timeout=_LOOK_SECONDS)
    return beside(running.main_pid(), running.setting.working_dir)


async def _execute(shared: Shared, running: RunningContainer, action: Action, timeout: Optional[float]) -> Outcome:
    loop = shared.loop
    begun = loop.now()
    try:
        inside = await inside_of(shared, running, min(_ENTER_SECONDS, timeout or _ENTER_SECONDS))
    except JoinError as error:
        return Outcome(False, str(error))
    pid, ended, output = _start(loop, inside, action)
    left = None if timeout is None else max(0.0, begun + timeout - loop.now())
    try:
        await loop.first(ended, timeout=left)
        if not ended.done:
            words = 'command timed out: "%s" timed out after %gs' % (" ".join(action.command), timeout or 0)
            return Outcome(False, words)
        await loop.first(output.ended, timeout=1.0)
        status = ended.result()
        text = output.data.decode("utf-8", "replace")
        return Outcome(os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, text)
    finally:
        if not ended.done:
            _kill(pid)
        output.stop()


def _start(loop: Loop, inside: Inside, action: Action) -> Tuple[int, Promise, _Output]:
    """Start a command, its output collected. OSError: there is no room for it."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        read_end, write_end = os.pipe()
        try:
            pid, ended = start_inside(loop, inside, action.command, Stdio(nothing, write_end, write_end, False))
        except OSError:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
    finally:
        os.close(nothing)
    return pid, ended, _Output(loop, read_end)


def _kill(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
