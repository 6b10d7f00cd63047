"""The agent's side of the line: reads frames, has them done, answers each request exactly once.

The thread that reads never waits for a file or a command: commands have a pool of their own, so that slow ones do not
hold up reads, and the other way round. The end of the input means that the other side is gone: everything that was
started for it is killed, and the agent ends.
"""

import errno
import os
import platform
import pwd
import signal
import socket
import sys
import threading
import time
from typing import Any, BinaryIO, Callable, Dict, NoReturn, Set, Tuple

from . import files, protocol, removal
from .commands import Command, CommandCancelledError, CommandTimeoutError
from .following import Followers
from .processes import Processes
from .protocol import Header
from .threads import Pool

# slurmctld serves a client per connection: more commands at once would only wait there instead of here.
_RUN_THREADS = 16
_FILE_THREADS = 8
_START_THREADS = 4
# For file operations under way when the other side goes: half-made directories are not left behind for want of a moment.
_FINISH_SECONDS = 5.0
# One answer's worth of a file; the other side asks again for more.
_MAX_READ = 4 << 20

Answer = Tuple[Any, bytes]


def _hello() -> Answer:
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:
        raise ValueError("user id %d has no name on this machine" % os.geteuid()) from None
    facts = {"user": entry.pw_name, "home": entry.pw_dir, "hostname": socket.gethostname(), "pid": os.getpid()}
    return dict(facts, python=platform.python_version()), b""


def _stage(header: Header, payload: bytes) -> Answer:
    return files.stage(header["path"], header["entries"], payload), b""


def _swap_link(header: Header, _: bytes) -> Answer:
    files.swap_link(header["path"], header["target"])
    return None, b""


def _write(header: Header, payload: bytes) -> Answer:
    files.write(header["path"], payload, header["mode"])
    return None, b""


def _read(header: Header, _: bytes) -> Answer:
    limit = _MAX_READ if header["limit"] is None else min(header["limit"], _MAX_READ)
    found = files.read(header["path"], header["offset"], limit)
    return (None, b"") if found is None else (found[1], found[0])


def _list(header: Header, _: bytes) -> Answer:
    return files.list_directory(header["path"]), b""


def _remove_tree(header: Header, _: bytes) -> Answer:
    removal.remove_tree(header["path"])
    return None, b""


_FILE_OPERATIONS = {
    "stage": _stage,
    "swap_link": _swap_link,
    "write": _write,
    "read": _read,
    "list": _list,
    "remove_tree": _remove_tree,
}  # type: Dict[str, Callable[[Header, bytes], Answer]]


# What the user of a file system can do about it, where the system's own words don't say.
_REMEDIES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "the Slurm user's quota there is used up: remove files, or have it raised",
    errno.EROFS: "it is mounted for reading only there",
}


def error_header(error: BaseException) -> Header:
    """Say an error on the line: the system's own words, what they are about, and what to do."""
    if isinstance(error, OSError):
        words = error.strerror or str(error)
        if error.errno in _REMEDIES:
            words = "%s (%s)" % (words, _REMEDIES[error.errno])
        name = error.filename
        return {"kind": protocol.REFUSED, "message": "%s: %s" % (name, words) if name else words}
    if isinstance(error, (ValueError, protocol.ProtocolError)):
        return {"kind": protocol.REFUSED, "message": str(error)}
    if isinstance(error, CommandTimeoutError):
        return {"kind": protocol.TIMEOUT, "message": str(error)}
    if isinstance(error, CommandCancelledError):
        return {"kind": protocol.CANCELLED, "message": str(error)}
    return {"kind": protocol.INTERNAL, "message": "%s: %s" % (type(error).__name__, error)}


class Server:
    """One line, from its first frame to its end."""

    def __init__(self, source: BinaryIO, sink: int) -> None:
        self._source = source
        self._sink = sink
        self._sink_lock = threading.Lock()
        self._commands: Dict[int, Command] = {}
        self._commands_lock = threading.Lock()
        self._run_pool = Pool("command", _RUN_THREADS)
        self._file_pool = Pool("file", _FILE_THREADS)
        self._start_pool = Pool("start", _START_THREADS)
        self._followed: Set[int] = set()
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # the default would not reach the wake-up descriptor
        self._processes = Processes(self._send, wake_read, wake_write)
        self._followers = Followers(
            lambda stream, data: self._send({"stream": stream, "event": "data"}, data),
            lambda stream, error: self._send({"stream": stream, "event": "error", "error": error_header(error)}, b""),
        )

    def serve(self) -> None:
        """Serve until the input ends; then nothing is left of what was started."""
        try:
            self._write_all(protocol.MAGIC)
            decoder = protocol.Decoder()
            while True:
                data = self._source.read1(protocol.CHUNK)  # type: ignore[attr-defined]
                if not data:
                    return
                for header, payload in decoder.feed(data):
                    self._dispatch(header, payload)
        finally:
            self._kill_everything()

    def _kill_everything(self) -> None:
        with self._commands_lock:
            commands = list(self._commands.values())
        for command in commands:
            command.cancel()
        self._processes.kill_all()
        self._file_pool.finish(_FINISH_SECONDS)

    def _dispatch(self, header: Header, payload: bytes) -> None:
        if "stream" in header:
            self._stream(header["stream"], header, payload)
            return
        number, op = header["id"], header["op"]
        if op in _FILE_OPERATIONS:
            operation = _FILE_OPERATIONS[op]
            self._file_pool.submit(lambda: self._answer(number, lambda: operation(header, payload)))
        elif op == "run":
            self._run(number, header, payload)
        elif op == "start":
            self._processes.expect(number)
            self._start_pool.submit(lambda: self._answer(number, lambda: self._start(number, header)))
        elif op == "follow":
            self._answer(number, lambda: self._follow(number, header))
        elif op == "cancel":
            self._cancel(number)
        elif op == "hello":
            self._answer(number, _hello)
        elif op == "ping":
            self._answer(number, lambda: (None, b""))
        else:
            raise protocol.ProtocolError("no such operation: %r" % (op,))

    def _stream(self, number: int, header: Header, payload: bytes) -> None:
        op = header["op"]
        if op == "stdin":
            self._processes.write(number, payload)
        elif op == "close_stdin":
            self._processes.close_stdin(number)
        elif op == "credit" and header["channel"] == "data":
            self._followers.credit(number, header["bytes"])
        elif op == "credit":
            self._processes.credit(number, header["channel"], header["bytes"])
        else:
            raise protocol.ProtocolError("no such operation on a stream: %r" % (op,))

    def _run(self, number: int, header: Header, payload: bytes) -> None:
        command = Command(header["argv"], payload, time.monotonic() + header["timeout"])
        with self._commands_lock:
            self._commands[number] = command
        self._run_pool.submit(lambda: self._answer(number, lambda: self._finish(number, command)))

    def _finish(self, number: int, command: Command) -> Answer:
        try:
            code, stdout, stderr = command.run()
        finally:
            with self._commands_lock:
                del self._commands[number]
        return {"exit_code": code, "stdout": len(stdout)}, stdout + stderr

    def _start(self, number: int, header: Header) -> Answer:
        return self._processes.start(number, header["argv"]), b""

    def _follow(self, number: int, header: Header) -> Answer:
        self._followers.add(number, header["path"], header["offset"])
        self._followed.add(number)
        return None, b""

    def _cancel(self, number: int) -> None:
        with self._commands_lock:
            command = self._commands.get(number)
        if command is not None:
            command.cancel()
        elif number in self._followed:
            self._followed.discard(number)
            self._followers.remove(number)
        else:
            self._processes.release(number)  # nothing, if it is a file operation: that is soon over by itself

    def _answer(self, number: int, call: Callable[[], Answer]) -> None:
        try:
            result, payload = call()
            self._send({"id": number, "result": result}, payload)
        except Exception as error:
            self._send({"id": number, "error": error_header(error)}, b"")

    def _send(self, header: Header, payload: bytes) -> None:
        self._write_all(protocol.encode(header, payload))

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        with self._sink_lock:
            try:
                while view:
                    view = view[os.write(self._sink, view) :]
            except OSError:
                # Nobody reads any more. The input ends with that, and there is nobody left to tell.
                return


def main() -> NoReturn:
    """Serve on standard input and output. What is printed by accident goes to standard error, not into a frame."""
    sink = os.dup(1)
    os.dup2(2, 1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _end)
    server = Server(sys.stdin.buffer, sink)
    code = 0
    try:
        server.serve()
    except protocol.ProtocolError as error:
        sys.stderr.write("slurmlet host agent: %s\n" % (error,))
        code = 65
    except SystemExit:
        code = 143
    sys.stderr.flush()
    # Threads may be held by a file system that does not answer: they are not waited for.
    os._exit(code)


def _end(_number: int, _frame: Any) -> None:
    raise SystemExit
