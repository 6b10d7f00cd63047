"""A visit to a pod: one line through its door, for one command, one attached terminal, or only to hear of the pod's end.

The runner starts what is asked for and gives the visitor its files, so that no byte passes through here::

    {"op": "stay"}                                       only to hear of the runner's end: the line's
    {"op": "exec", "container", "argv", "stdin", "tty"}
    {"op": "attach", "container", "stdin"}
    {"op": "admit"}                                      start the containers that were added to the pod

and back, exactly one of the first two, then the events::

    {"result": {"files": ["stdout", "stderr", "stdin" | "terminal"], "stdin", "leaves_with_input"}}    with these files
    {"error": "why not"}
    {"event": "exit", "code": c}
    {"event": "stdin_closed"}                            its input was closed, by somebody else's leaving
    {"event": "detached", "message"}                     it read too slowly

A visitor says one thing more, ``{"op": "close_stdin"}``, when it writes no more. Who hangs up ends the command that was
started for them.
"""

import os
import signal
import socket
from typing import Any, Callable, Dict, List, Sequence, Set, Tuple

from .actions import inside_of
from .container import ContainerLife
from .join import JoinError, start_inside
from .line import Line, receive
from .loop import READ, Loop, Promise
from .process import Stdio, open_terminal, send
from .proctree import processes, session
from .running import RunningContainer
from .shared import Shared
from .streams import close_all, close_ours, close_theirs, open_streams
from .termination import read_status

_END_SECONDS = 2.0
_LOOK_SECONDS = 0.05
_TERMINAL_SECONDS = 10.0


class Visit:
    """One visitor. ``ended`` is done when nothing is left of the visit."""

    def __init__(
        self,
        shared: Shared,
        lives: Sequence[ContainerLife],
        connection: socket.socket,
        admit: Callable[[], None],
    ) -> None:
        self._admit = admit
        self._shared = shared
        self._lives = lives
        self._asked = False
        self._line = Line(shared.loop, connection, self._ask)
        self.ended = shared.loop.promise()
        self._leaving = shared.loop.promise()
        self._wrote_all = shared.loop.promise()
        self._line.over.add_callback(self._gone)

    def _gone(self) -> None:
        if not self._asked:
            self.ended.resolve()

    def leave(self) -> None:
        """The pod is over: one who only stayed to hear that goes now."""
        self._leaving.resolve()

    def _ask(self, header: Dict[str, Any], files: List[int]) -> None:
        close_all(files)
        if header.get("op") == "close_stdin":
            self._wrote_all.resolve()
        elif not self._asked:
            self._asked = True
            self._shared.loop.spawn(self._serve(header), "visit")

    async def _serve(self, header: Dict[str, Any]) -> None:
        try:
            if header.get("op") == "exec":
                await self._exec(header)
            elif header.get("op") == "attach":
                await self._attach(header)
            elif header.get("op") == "admit":
                self._admit()
                self._line.send({"result": {}})
            elif header.get("op") == "stay":
                self._line.send({"result": {}})
                await self._shared.loop.first(self._line.over, self._leaving)
            else:
                words = "the pod's runner does not know %r: it is of another version" % (header.get("op"),)
                self._line.send({"error": words})
        except (JoinError, OSError, KeyError, TypeError, ValueError) as error:
            self._line.send({"error": str(error) or type(error).__name__})
        finally:
            self._line.close()
            self.ended.resolve()

    def _running(self, name: str) -> RunningContainer:
        for life in self._lives:
            if life.name == name and life.running is not None:
                return life.running
        raise JoinError("container %s is not running" % name)

    async def _exec(self, header: Dict[str, Any]) -> None:
        running = self._running(header["container"])
        inside = await inside_of(self._shared, running)
        argv = [str(word) for word in header["argv"]]
        if header["tty"]:
            inside = inside._replace(environment=dict({"TERM": "xterm"}, **inside.environment))
            pid, ended, files = await _start_on_terminal(self._shared.loop, inside, argv)
        else:
            pid, ended, files = _start_on_pipes(self._shared.loop, inside, argv, stdin=bool(header["stdin"]))
        self._hand_out(files, stdin=bool(header["stdin"]), leaves_with_input=False)
        await self._shared.loop.first(ended, self._line.over, running.gone)
        if not ended.done:
            await _end(self._shared.loop, pid, ended)
        self._line.send({"event": "exit", "code": read_status(ended.result()).code})

    def _hand_out(self, files: Dict[str, int], *, stdin: bool, leaves_with_input: bool) -> None:
        result = {"files": list(files), "stdin": stdin, "leaves_with_input": leaves_with_input}
        self._line.send({"result": result}, list(files.values()))
        close_all(files.values())

    async def _attach(self, header: Dict[str, Any]) -> None:
        running, loop = self._running(header["container"]), self._shared.loop
        entry, dropped = running.attachments.input, loop.promise()
        stdin = bool(header["stdin"]) and entry.descriptor >= 0
        files = running.attachments.join(dropped.resolve, stdin=stdin)
        self._hand_out(files, stdin=stdin, leaves_with_input=stdin and not entry.once)
        try:
            await loop.first(running.gone, self._line.over, dropped, self._wrote_all, entry.closed)
        finally:
            if stdin:
                entry.left()
        if entry.closed.done:
            self._line.send({"event": "stdin_closed"})
        await loop.first(running.gone, self._line.over, dropped)
        if dropped.done:
            self._line.send({"event": "detached", "message": "its output came faster than it was read"})
        elif running.gone.done:
            self._line.send({"event": "exit", "code": running.exit_code})


def _start_on_pipes(loop: Loop, inside: Any, argv: List[str], *, stdin: bool) -> Tuple[int, Promise, Dict[str, int]]:
    streams = open_streams(stdin=stdin, terminal=False)
    try:
        pid, ended = start_inside(loop, inside, argv, streams.theirs)
    except OSError:  # there is no room for another process
        close_ours(streams)
        raise
    finally:
        close_theirs(streams)
    files = {name: descriptor for descriptor, name in streams.outputs}
    if stdin:
        files["stdin"] = streams.input
    return pid, ended, files


async def _start_on_terminal(loop: Loop, inside: Any, argv: List[str]) -> Tuple[int, Promise, Dict[str, int]]:
    ours, theirs = open_terminal()
    try:
        local, remote = socket.socketpair()
    except OSError:
        close_all((ours, theirs))
        raise
    try:
        pid, ended = start_inside(loop, inside, argv, Stdio(theirs, theirs, theirs, True), remote)
    except OSError:
        os.close(ours)
        local.close()
        raise
    finally:
        os.close(theirs)
        remote.close()
    local.setblocking(False)
    with local:
        if not await loop.ready(local.fileno(), READ, _TERMINAL_SECONDS):
            return pid, ended, {"terminal": ours}
        _data, files = receive(local, 1)
    if files:
        os.close(ours)
        ours = files[0]
    return pid, ended, {"terminal": ours}


def _members(pid: int) -> Set[int]:
    """Return the processes of a command inside, without our child itself, which waits for the command."""
    found, grown = {pid}, True
    everybody = [process for process in processes() if not process.zombie]
    while grown:
        more = {p.pid for p in everybody if p.parent in found or p.session in found} - found
        grown = bool(more)
        found |= more
    return found - {pid}


async def _end(loop: Loop, pid: int, ended: Promise) -> None:
    """End a command that nobody wants any more: TERM, a little later KILL. What left its session stays, as in Kubernetes."""
    for member in _members(pid):
        send(member, signal.SIGTERM)
    deadline = loop.now() + _END_SECONDS
    await loop.first(ended, timeout=_END_SECONDS)
    while not ended.done:
        for member in _members(pid):
            send(member, signal.SIGKILL)
        if loop.now() > deadline + _END_SECONDS:
            send(pid, signal.SIGKILL)
        await loop.first(ended, timeout=_LOOK_SECONDS)
    for member in session(pid):  # begun between a look and its signal
        send(member, signal.SIGKILL)
