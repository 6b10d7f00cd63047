"""``enter <job directory>``: the helper step of a pod. It stands between its standard input and output, where the far
side speaks frames, and the runner's door on this node.

One step per pod, for as long as it is used: a command more is a message, and no step more. It speaks the frames of
``hostagent.protocol``, with operations of its own::

    {"id": n, "op": "exec", "container", "argv", "stdin", "tty"}     each opens stream n
    {"id": n, "op": "attach", "container", "stdin"}
    {"id": n, "op": "connect", "port"}
    {"id": n, "op": "admit"}                                         opens none: the pod was given more containers
    {"stream": n, "op": "resize", "columns", "rows"}

Each frame that it sends is followed by a newline, for srun holds back what does not end with one. It ends with its
input, with the runner, or by TERM, and leaves nothing behind.
"""

import fcntl
import json
import os
import signal
import socket
import struct
import sys
import termios
from collections import deque
from typing import Any, Coroutine, Deque, Dict, List

from slurm_plugin.hostagent import protocol
from slurm_plugin.jobdir import JobDir

from .door import at
from .line import Line
from .loop import READ, WRITE, Loop, Promise, Task
from .relay import Relay, SocketIntake
from .streams import widen

_LEAVE_SECONDS = 1.0
_CONNECT_SECONDS = 10.0
_LOOPBACK = ((socket.AF_INET, "127.0.0.1", "IPv4"), (socket.AF_INET6, "::1", "IPv6"))


class EnterError(Exception):
    """The pod can't be entered; the message is for whoever asked."""


class Sink:
    """Standard output, never waited for. What waits in it is bounded by the streams' credit."""

    def __init__(self, loop: Loop, descriptor: int) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._waiting: Deque[memoryview] = deque()
        self.empty = loop.promise()
        self.empty.resolve()
        os.set_blocking(descriptor, False)

    def write(self, data: bytes) -> None:
        """Have it written."""
        idle = not self._waiting
        self._waiting.append(memoryview(data))
        if idle:
            self.empty = self._loop.promise()
            self._loop.watch(self._descriptor, WRITE, self._flush)
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        try:
            while self._waiting:
                count = os.write(self._descriptor, self._waiting[0])
                self._waiting[0] = self._waiting[0][count:]
                if not self._waiting[0]:
                    self._waiting.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._waiting.clear()  # nobody reads any more; the end of the input comes with that
        self._loop.unwatch(self._descriptor)
        self.empty.resolve()


def door_of(directory: JobDir) -> str:
    """Return where the door of this job's runner is. EnterError if it has none."""
    try:
        with open(directory.door, encoding="utf-8") as stream:
            found = json.load(stream)
        path, job_id = str(found["path"]), str(found["job_id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EnterError(
            "the pod's runner has no door: it is just starting, or of an older version (%s)" % error
        ) from error
    if job_id != os.environ.get("SLURM_JOB_ID", job_id):
        raise EnterError("the pod is run by job %s" % job_id)
    return path


def knock(path: str) -> socket.socket:
    """Connect to the runner. EnterError if it is gone."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            connection.connect(at(path, directory))
        finally:
            os.close(directory)
    except OSError as error:
        connection.close()
        raise EnterError("the pod's runner can't be reached on this node: %s" % error) from error
    return connection


class Helper:
    """The program. ``over`` is done when it is to end."""

    def __init__(self, loop: Loop, door: str, source: int, sink: int) -> None:
        self.over = loop.promise()
        self._loop = loop
        self._door = door
        self._source = source
        self._sink = Sink(loop, sink)
        self._decoder = protocol.Decoder()
        self._opening: Dict[int, Task] = {}
        self._relays: Dict[int, Relay] = {}
        self._lines: Dict[int, Line] = {}

    async def run(self) -> int:
        """Serve until the input ends, the runner is gone or ``over`` is resolved."""
        stay = Line(self._loop, knock(self._door), lambda _header, _files: None)
        stay.send({"op": "stay"})
        self._sink.write(protocol.MAGIC)
        os.set_blocking(self._source, False)
        self._loop.watch(self._source, READ, self._read)
        await self._loop.first(self.over, stay.over)
        if not self.over.done:  # the pod is over: its commands' ends may still be on their way
            for line in tuple(self._lines.values()):
                await self._loop.first(line.over, timeout=_LEAVE_SECONDS)
            await self._loop.first(self._sink.empty, timeout=_LEAVE_SECONDS)
        return 0

    def _read(self) -> None:
        try:
            data = os.read(self._source, protocol.CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._loop.unwatch(self._source)
            self.over.resolve()
            return
        for header, payload in self._decoder.feed(data):
            self._dispatch(header, payload)

    def _send(self, header: protocol.Header, payload: bytes = b"") -> None:
        self._sink.write(protocol.encode(header, payload) + b"\n")

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
                connection = await self._dial(family, address, port)
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

    async def _dial(self, family: int, address: str, port: int) -> socket.socket:
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                connection.connect((address, port))
            except BlockingIOError:
                ready = self._loop.spawn(self._loop.ready(connection.fileno(), WRITE), "connect")
                if await self._loop.first(ready, timeout=_CONNECT_SECONDS) is None:
                    ready.cancel()
                    raise TimeoutError("timed out") from None
            code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except BaseException:
            connection.close()
            raise
        if code:
            connection.close()
            raise OSError(code, os.strerror(code))
        return connection


def enter_pod(path: str) -> int:
    """Be the helper step of the pod of a job directory; return the exit code."""
    source, sink = os.dup(0), os.dup(1)
    os.dup2(2, 1)  # what is printed by accident goes to standard error, not into a frame
    loop = Loop()
    try:
        helper = Helper(loop, door_of(JobDir(path)), source, sink)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            loop.on_signal(number, helper.over.resolve)
        return int(loop.run(helper.run()))
    except EnterError as error:
        sys.stderr.write("slurmlet: %s\n" % error)
        return 1
    except protocol.ProtocolError as error:
        sys.stderr.write("slurmlet: %s\n" % error)
        return 65
