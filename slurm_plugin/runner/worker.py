"""A function that blocks, run in a forked child: it speaks to the loop in lines of JSON.

The runner has one thread, so a fork is safe, and the child costs only the pages it changes; what it loads (HTTP, TLS)
never stays in the runner.
"""

import json
import os
import signal
import sys
from typing import Any, Callable, Dict, Optional

from .loop import READ, Loop, Promise
from .process import fork, keep_only, send

Emit = Callable[[Dict[str, Any]], None]


class Worker:
    """One such child. ``result`` resolves with the last object it emitted (None if it emitted none) when it has ended.

    OSError: there is no room for a child.
    """

    def __init__(
        self, loop: Loop, function: Callable[[Emit], None], on_message: Callable[[Dict[str, Any]], None]
    ) -> None:
        self._loop = loop
        self._on_message = on_message
        self._buffer = b""
        self._last: Optional[Dict[str, Any]] = None
        self.result = Promise(loop)
        self._pipe, write_end = os.pipe()
        self.pid = fork(self._pipe, write_end)
        if self.pid == 0:
            _work(loop, function, write_end)
        os.close(write_end)
        self._ended = loop.child(self.pid)
        os.set_blocking(self._pipe, False)
        loop.watch(self._pipe, READ, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._pipe, 65536)
        except BlockingIOError:
            return
        if not data:
            self._loop.unwatch(self._pipe)
            os.close(self._pipe)
            self._ended.add_callback(lambda: self.result.resolve(self._last))
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._last = json.loads(line.decode("utf-8"))
            self._on_message(self._last)

    def stop(self) -> None:
        """End it and what it started."""
        if not self._ended.done:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                send(self.pid, signal.SIGKILL)  # it has no session of its own yet


def _work(loop: Loop, function: Callable[[Emit], None], descriptor: int) -> None:
    """Be the child. Never returns."""
    code = 1
    try:
        loop.leave_in_child()
        os.setsid()
        keep_only(0, 1, 2, descriptor)
        with open(descriptor, "w", encoding="utf-8") as stream:

            def emit(message: Dict[str, Any]) -> None:
                stream.write(json.dumps(message) + "\n")
                stream.flush()

            function(emit)
        code = 0
    except BaseException as error:
        sys.stderr.write("slurmlet: %s failed: %r\n" % (getattr(function, "__name__", "a worker"), error))
    finally:
        os._exit(code)
