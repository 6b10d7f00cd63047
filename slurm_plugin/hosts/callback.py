"""Being called back by a program elsewhere in the cluster: one TCP connection, once, from whoever knows the secret.

Where Slurm's own way for a step's bytes is narrow (srun sends them in messages of 1 KiB), the step can connect to the
machine that srun was called on, as its stepd does anyway. We listen on the one address that the step can reach, and
only until it has called. Like srun's, the line is not encrypted: it stays inside the cluster.
"""

import asyncio
import contextlib
import hmac
import logging
import secrets
from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

from ..errors import HostError, TransportError
from .base import Host
from .channel import StreamChannel
from .connection import Connection

log = logging.getLogger(__name__)

_SECRET_BYTES = 32
# For the secret to arrive once somebody has connected.
_INTRODUCTION_SECONDS = 5.0
# For the whole of it; a firewall between the two says nothing at all.
_CALL_SECONDS = 5.0


@runtime_checkable
class Callee(Protocol):
    """A Host on whose machine this very process runs, so that others in the cluster can call it."""

    def expect(self, address: str) -> contextlib.AbstractAsyncContextManager["Expected"]:
        """Listen on an address of this machine for as long as the context lasts. HostError: it can't be listened on."""


class Expected:
    """A call that is awaited: the ``port`` to call, the ``secret`` to begin with."""

    def __init__(self) -> None:
        self.port = 0
        self.secret = secrets.token_hex(_SECRET_BYTES)
        self._strangers: set[asyncio.StreamWriter] = set()
        self._caller: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.get_running_loop().create_future()
        )

    async def introduce(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let in the first who knows the secret; hang up on everybody else."""
        said = b""
        self._strangers.add(writer)
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(_INTRODUCTION_SECONDS):
                said = await reader.readexactly(len(self.secret) + 1)
        if hmac.compare_digest(said, f"{self.secret}\n".encode()) and not self._caller.done():
            self._caller.set_result((reader, writer))
        else:
            self._strangers.discard(writer)
            writer.transport.abort()

    async def channel(self, behind: Connection) -> "CallChannel":
        """Wait for the call. ``behind``: the connection by which the caller was asked for it, closed with the channel."""
        reader, writer = await self._caller
        self._strangers.discard(writer)
        return CallChannel(reader, writer, behind)

    def abandon(self) -> None:
        """Take no call any more; who has not introduced themselves by now, or was not taken, is hung up on."""
        self._caller.cancel()
        for writer in self._strangers:
            writer.transport.abort()


class CallChannel(StreamChannel):
    """The line that a caller has opened (``channel.Channel``)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, behind: Connection) -> None:
        super().__init__(reader, writer)
        self._behind = behind

    async def ended(self) -> tuple[int | None, str]:
        """Return what the other connection says of the caller's end: a line has no exit code of its own."""
        return None, "" if self._behind.lost is None else str(self._behind.lost)

    async def close(self) -> None:
        """Hang up, and end the connection behind."""
        self._writer.transport.abort()
        await self._behind.close()


@contextlib.asynccontextmanager
async def expected_call(address: str) -> AsyncIterator[Expected]:
    """Listen on one address of this machine, on a port that the system chooses."""
    call = Expected()
    try:
        server = await asyncio.start_server(call.introduce, address, 0, limit=StreamChannel.LIMIT, backlog=4)
    except OSError as error:
        raise HostError(f"nobody can call {address} here: {error}") from error
    try:
        call.port = server.sockets[0].getsockname()[1]
        yield call
    finally:
        server.close()
        call.abandon()


async def called_back(host: Host, connection: Connection, name: str) -> Connection:
    """Return a connection by which the program at the other end of this one has called back, or this one where it can't.

    ``name`` is for messages. Closing what is returned closes both.
    """
    if not isinstance(host, Callee):
        return connection
    try:
        async with asyncio.timeout(_CALL_SECONDS):
            answer, _ = await connection.call({"op": "caller"}, timeout=_CALL_SECONDS)
            async with host.expect(answer["result"]) as call:
                header = {"op": "call_back", "port": call.port, "secret": call.secret}
                await connection.call(header, timeout=_CALL_SECONDS)
                channel = await call.channel(connection)
    except (HostError, TransportError, TimeoutError) as error:
        log.info("%s is reached through srun, which is slower: %s", name, error or "nobody called back")
        return connection
    return Connection(name, channel, b"")
