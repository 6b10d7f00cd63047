"""A session with a visitor from outside: frames on a line, and the streams that they open in the pod.

It speaks the frames of ``hostagent.protocol``, with operations of its own::

    {"id": n, "op": "exec", "container", "argv", "stdin", "tty"}     each opens stream n
    {"id": n, "op": "attach", "container", "stdin"}
    {"id": n, "op": "connect", "port"}
    {"id": n, "op": "admit"}                                         opens none: the pod was given more containers
    {"stream": n, "op": "resize", "columns", "rows"}

What is asked for in a container goes through the runner's door. Whoever has the line may know ``operations`` more.
"""

import fcntl
import os
import socket
import struct
import termios
from collections import deque
from typing import Any, Callable, Coroutine, Deque, Dict, List, Mapping, Optional

from slurm_plugin.hostagent import protocol

from .dialling import dial
from .door import short
from .line import Line
from .loop import READ, WRITE, Loop, Promise, Task
from .relay import Relay, SocketIntake
from .streams import widen

_LOOPBACK = ((socket.AF_INET, "127.0.0.1", "IPv4"), (socket.AF_INET6, "::1", "IPv6"))

Operation = Callable[[protocol.Header], "Coroutine[Any, Any, Any]"]


class EnterError(Exception):
    """The pod can't be entered; the message is for whoever asked."""


class Sink:
    """The outgoing half of a line, never waited for. What waits in it is bounded by the streams' credit."""

    def __init__(self, loop: Loop, descriptor: int) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._waiting: Deque[memoryview] = deque()
        self._closed = False
        self.empty = loop.promise()
        self.empty.resolve()
        os.set_blocking(descriptor, False)

    def write(self, data: bytes) -> None:
        """Have it written; nothing once it is closed."""
        if self._closed:
            return
        idle = not self._waiting
        self._waiting.append(memoryview(data))
        if idle and not self._wrote_all():
            self.empty = self._loop.promise()
            self._loop.watch(self._descriptor, WRITE, self._flush)

    def _wrote_all(self) -> bool:
        """Write what the descriptor takes."""
        try:
            while self._waiting:
                count = os.write(self._descriptor, self._waiting[0])
                self._waiting[0] = self._waiting[0][count:]
                if not self._waiting[0]:
                    self._waiting.popleft()
        except BlockingIOError:
            return False
        except OSError:
            self._waiting.clear()  # nobody reads any more; the end of the input comes with that
        return True

    def _flush(self) -> None:
        if not self.empty.done and self._wrote_all():
            self._rest()

    def _rest(self) -> None:
        self._loop.unwatch(self._descriptor)
        self.empty.resolve()

    def close(self) -> None:
        """Send no more, whatever waits."""
        self._closed = True
        self._waiting.clear()
        if not self.empty.done:
            self._rest()
        os.close(self._descriptor)


def knock(path: str) -> socket.socket:
    """Connect to the runner. EnterError if it is gone."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        with short(path) as name:
            connection.connect(name)
    except OSError as error:
        connection.close()
        raise EnterError("the pod's runner can't be reached on this node: %s" % error) from error
    return connection


class Session:
    """One line and its streams. ``over`` is done when nothing more comes in.

    ``after_frame`` is sent after each frame. ``operations``: more of them, by name; they open no stream.
    """

    def __init__(
        self,
        loop: Loop,
        door: str,
        source: int,
        sink: int,
        *,
        after_frame: bytes = b"",
        operations: Optional[Mapping[str, Operation]] = None,
    ) -> None:
        self.over = loop.promise()
        self._loop = loop
        self._door = door
        self._source = source
        self._sink = Sink(loop, sink)
        self._after_frame = after_frame
        self._operations = operations or {}
        self._decoder = protocol.Decoder()
        self._opening: Dict[int, Task] = {}
        self._relays: Dict[int, Relay] = {}
        self._lines: Dict[int, Line] = {}

    def begin(self, greeting: bytes) -> None:
        """Say the first words, then listen to what comes in."""
        self._sink.write(greeting)
        os.set_blocking(self._source, False)
        self._loop.watch(self._source, READ, self._read)

    async def finish(self, seconds: float) -> None:
        """Wait, so long at most for each, for the ends of what was begun and until they are told."""
        for line in tuple(self._lines.values()):
            await self._loop.first(line.over, timeout=seconds)
        await self._loop.first(self._sink.empty, timeout=seconds)

    def close(self) -> None:
        """Hang up, and let go of everything that was opened here: what was started for it ends."""
        self.end()
        for number in {*self._opening, *self._lines, *self._relays}:
            self._cancel(number)
        self._sink.close()
        os.close(self._source)

    def end(self) -> None:
        """Hear no more."""
        if not self.over.done:
            self._loop.unwatch(self._source)
            self.over.resolve()

    def _read(self) -> None:
        if self.over.done:
            return
        try:
            data = os.read(self._source, protocol.CHUNK)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self.end()
            return
        for header, payload in self._decoder.feed(data):
            self._dispatch(header, payload)

    def _send(self, header: protocol.Header, payload: bytes = b"") -> None:
        self._sink.write(protocol.encode(header, payload, self._after_frame))

    # What is asked

    def _dispatch(self, header: protocol.Header, payload: bytes) -> None:
        if "stream" in header:
            self._stream(header, payload)
            return
        number, op = header["id"], header["op"]
        if op == "exec" or op == "attach":
            self._open(number, self._visit(number, header))
        elif op == "admit":
            self._open(number, self._admit())
        elif op == "connect":
            self._open(number, self._connect(number, header["port"]))
        elif op in self._operations:
            self._open(number, self._operations[op](header))
        elif op == "cancel":
            self._cancel(number)
        elif op == "ping":
            self._send({"id": number, "result": None})
        else:
            raise protocol.ProtocolError("no such operation: %r" % (op,))

    def _stream(self, header: protocol.Header, payload: bytes) -> None:
        relay = self._relays.get(header["stream"])
        if relay is None:
            return
        op = header["op"]
        if op == "stdin":
            relay.write(payload)
        elif op == "close_stdin":
            relay.close_input()
        elif op == "credit":
            relay.credit(header["channel"], header["bytes"])
        elif op == "resize" and relay.terminal >= 0:
            size = struct.pack("HHHH", header["rows"] & 0xFFFF, header["columns"] & 0xFFFF, 0, 0)
            fcntl.ioctl(relay.terminal, termios.TIOCSWINSZ, size)

    def _open(self, number: int, opening: "Coroutine[Any, Any, Any]") -> None:
        async def answer() -> None:
            try:
                result = await opening
                self._send({"id": number, "result": result})
            except (EnterError, OSError) as error:
                self._send({"id": number, "error": {"kind": protocol.REFUSED, "message": str(error)}})
            finally:
                del self._opening[number]

        self._opening[number] = self._loop.spawn(answer(), "stream %d" % number)

    def _cancel(self, number: int) -> None:
        if number in self._opening:
            self._opening[number].cancel()
        line = self._lines.pop(number, None)
        if line is not None:
            line.close()
        relay = self._relays.pop(number, None)
        if relay is not None:
            relay.close()
            self._send({"stream": number, "event": "released"})

    # A command in a container, or the container itself

    async def _visit(self, number: int, header: protocol.Header) -> Dict[str, Any]:
        answered = self._loop.promise()
        line = Line(self._loop, knock(self._door), lambda said, files: self._hear(number, answered, said, files))
        self._lines[number] = line
        line.send({name: value for name, value in header.items() if name != "id"})
        try:
            await self._loop.first(answered, line.over)
        finally:
            if not answered.done:
                line.close()
                self._lines.pop(number, None)
        if not answered.done:
            raise EnterError("the pod has ended")
        if "error" in answered.result():
            raise EnterError(answered.result()["error"])
        line.over.add_callback(lambda: self._lost(number))
        return {}

    async def _admit(self) -> Dict[str, Any]:
        answered = self._loop.promise()
        line = Line(self._loop, knock(self._door), lambda said, _files: answered.resolve(said))
        try:
            line.send({"op": "admit"})
            await self._loop.first(answered, line.over)
        finally:
            line.close()
        if not answered.done:
            raise EnterError("the pod has ended")
        if "error" in answered.result():
            raise EnterError(answered.result()["error"])
        return {}

    def _hear(self, number: int, answered: Promise, said: Dict[str, Any], files: List[int]) -> None:
        relay = self._relays.get(number)
        if not answered.done:
            if "result" in said:
                self._relays[number] = self._relay(number, said["result"], files)
            answered.resolve(said)
        elif relay is not None and said.get("event") == "exit":
            relay.exit(said["code"])
        elif relay is not None and said.get("event") == "stdin_closed":
            relay.drop_input()
        elif relay is not None and said.get("event") == "detached":
            self._break(number, said["message"])

    def _relay(self, number: int, said: Dict[str, Any], descriptors: List[int]) -> Relay:
        """Make a stream of the files that the runner handed out."""
        relay, files = Relay(self._loop, number, self._send), dict(zip(said["files"], descriptors))
        relay.leaves_with_input = said["leaves_with_input"]
        for name in ("stdin", "stdout", "stderr"):
            if name in files:
                widen(files[name])
        if "terminal" in files:
            relay.terminal = files["terminal"]
            files.setdefault("stdout", os.dup(relay.terminal))
            if said["stdin"]:
                files["stdin"] = os.dup(relay.terminal)
        if "stdin" in files:
            line = self._lines[number]
            relay.write_to(files["stdin"], closed=lambda: line.send({"op": "close_stdin"}))
        else:
            relay.event("stdin_closed")
        for channel in ("stdout", "stderr"):
            if channel in files:
                relay.read_from(channel, files[channel])
            else:
                relay.event(channel)
        return relay

    def _lost(self, number: int) -> None:
        """The runner has hung up: after it told the end of what it had started, or because it is gone."""
        self._lines.pop(number, None)
        if number in self._relays and not self._relays[number].exited:
            self._break(number, "the pod's runner has ended")

    def _break(self, number: int, why: str) -> None:
        relay = self._relays.pop(number)
        relay.event("error", error={"kind": protocol.REFUSED, "message": why})
        relay.close()

    # A port

    async def _connect(self, number: int, port: int) -> Dict[str, Any]:
        failures = []
        for family, address, name in _LOOPBACK:
            try:
                connection = await dial(self._loop, family, address, port)
            except (OSError, OverflowError) as error:
                failures.append("%s: %s" % (name, getattr(error, "strerror", None) or error))
                continue
            relay = Relay(self._loop, number, self._send)
            descriptor = connection.detach()
            relay.write_to(os.dup(descriptor), SocketIntake)
            relay.read_from("stdout", descriptor)
            relay.event("stderr")
            self._relays[number] = relay
            return {}
        raise EnterError("failed to connect to localhost:%d of the pod, %s" % (port, ", ".join(failures)))
