"""Commands and files on a login node, over SSH: one connection, and in it one channel, to one agent.

paramiko speaks SSH in threads of its own; two more carry the channel's bytes to and from asyncio, whatever the number
of commands, processes and followers.
"""

import asyncio
import contextlib
import functools
import queue
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import paramiko

from ..errors import TransportError
from .agent import AgentHost
from .sshlogin import Line, Login, open_channel

Result = TypeVar("Result")

# Candidates on machines that nobody configured for this; the first is what nearly all have.
PYTHONS = ("/usr/bin/python3", "python3", "/usr/libexec/platform-python")

_CHUNK = 256 << 10
# Received bytes that wait for the event loop: this many chunks, then SSH's own window holds the sender back.
_CHUNKS_WAITING = 16
_LAST_WORDS_BYTES = 4096
_END_SECONDS = 5.0
# What paramiko raises where the connection breaks under a read or a write.
_BROKEN = (OSError, EOFError, paramiko.SSHException)


class SSHHost(AgentHost):
    """The agent on a login node. ``known_hosts_files`` must name the machine's key; there is no way around that.

    ``proxy_jump``: the logins of the machines on the way there, the nearest first.
    """

    def __init__(
        self,
        address: str,
        *,
        user: str,
        known_hosts_files: Sequence[str],
        port: int = 22,
        key_files: Sequence[str] = (),
        certificate_file: str | None = None,
        proxy_jump: Sequence[Login] = (),
        pythons: Sequence[str] = PYTHONS,
        connect_timeout: float = 15.0,
        keepalive_seconds: int = 30,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        login = Login(
            address, port, user, tuple(key_files), tuple(known_hosts_files), connect_timeout, keepalive_seconds,
            certificate_file, tuple(proxy_jump),
        )  # fmt: skip

        async def opener(argv: tuple[str, ...]) -> SSHChannel:
            return await SSHChannel.open(login, argv)

        # On each machine, connecting, authenticating and opening the channel may take connect_timeout each.
        whole = 3 * connect_timeout * (1 + len(login.through))
        super().__init__(login.name, opener, pythons=pythons, connect_timeout=whole, now=now)


class SSHChannel:
    """The one channel of a connection. Made by ``open``."""

    def __init__(self, line: Line, channel: paramiko.Channel) -> None:
        self._line = line
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._received: asyncio.Queue[bytes] = asyncio.Queue()
        self._may_receive = threading.Semaphore(_CHUNKS_WAITING)
        self._over = False
        self._to_send: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._receive, name="receive from SSH", daemon=True).start()
        threading.Thread(target=self._transmit, name="send to SSH", daemon=True).start()

    @classmethod
    async def open(cls, login: Login, argv: tuple[str, ...]) -> "SSHChannel":
        """Connect and start ``argv`` through the user's login shell."""
        line, channel = await _in_thread(
            functools.partial(open_channel, login, shlex.join(argv)), lambda it: it[0].close()
        )
        return cls(line, channel)

    def _receive(self) -> None:
        data = b"-"
        while data:
            self._may_receive.acquire()
            try:
                data = self._channel.recv(_CHUNK)
            except _BROKEN:
                data = b""
            if not self._tell(self._received.put_nowait, data):
                return

    def _transmit(self) -> None:
        while (item := self._to_send.get()) is not None:
            data, future = item
            try:
                for start in range(
                    0, len(data), _CHUNK
                ):  # sendall copies the rest of what it is given, packet by packet
                    self._channel.sendall(data[start : start + _CHUNK])
                error = None
            except _BROKEN as failure:
                error = TransportError(f"SSH takes no more: {str(failure) or 'the connection is gone'}")
            if not self._tell(_settle, future, error):
                return

    def _tell(self, call: Callable[..., object], *arguments: object) -> bool:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the event loop was closed before us
            return False
        return True

    async def read(self) -> bytes:
        """Return some bytes; b"" at the end."""
        if self._over:
            return b""
        data = await self._received.get()
        self._may_receive.release()
        self._over = not data
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes; returns when SSH has them."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._to_send.put((data, future))
        await future

    async def ended(self) -> tuple[int | None, str]:
        """Return the exit code and the last words."""
        return await _in_thread(self._ended)

    def _ended(self) -> tuple[int | None, str]:
        self._channel.status_event.wait(_END_SECONDS)
        code = self._channel.exit_status if self._channel.status_event.is_set() else -1
        words = b""
        with contextlib.suppress(*_BROKEN):
            while self._channel.recv_stderr_ready() and (data := self._channel.recv_stderr(_CHUNK)):
                words = (words + data)[-_LAST_WORDS_BYTES:]
        return None if code < 0 else code, words.decode(errors="replace")

    async def close(self) -> None:
        """Close the connection: the agent reads the end of its input."""
        self._to_send.put(None)
        await _in_thread(self._line.close)


def _settle(future: "asyncio.Future[None]", error: TransportError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


async def _in_thread(call: Callable[[], Result], discard: Callable[[Result], object] | None = None) -> Result:
    """Run a blocking call in a daemon thread, which does not keep the program from ending as an executor's would.

    When the caller is cancelled, a result that comes later is given to ``discard``.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if future.done():
            if error is None and discard is not None:
                threading.Thread(target=discard, args=(result,), daemon=True).start()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        try:
            outcome: tuple[Result | None, BaseException | None] = (call(), None)
        except BaseException as error:
            outcome = (None, error)
        with contextlib.suppress(RuntimeError):  # the event loop was closed before us
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=work, name="SSH", daemon=True).start()
    return await future
