"""Accepts the connections of a TLS port: each gets the TLS context of its moment, so that one can be replaced as a whole.

A context that is in use can only be added to: a CA, once believed, stays believed, and so does the certificate of
another type of key. asyncio's own server keeps the context that it began with.
"""

import asyncio
import logging
import resource
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)

_BACKLOG = 128
_MOST_STRANGERS = 1024
# Until descriptors or memory may be there again.
_SHORTAGE_SECONDS = 1.0


def listen(host: str, port: int) -> socket.socket:
    """Open a port at an IP address. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    opened.setblocking(False)
    return opened


class Strangers:
    """Connections on which nothing was asked yet. Each is waited for so long at most, and ``most`` of them at once.

    One more, and the oldest is left: whoever reaches the port can open connections, and each is a descriptor that the
    agent then lacks for the API server and for Slurm.
    """

    def __init__(self, patience_seconds: float, most: int) -> None:
        self.patience_seconds = patience_seconds
        self._most = most
        self._crowded = False
        self._greetings: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._silent: dict[asyncio.BaseTransport, asyncio.Task[None]] = {}

    def add(self, greeting: asyncio.Task[None], peer: str) -> None:
        """Count one more, whose greeting this is."""
        if len(self._greetings) >= self._most:
            if not self._crowded:
                log.warning("%d connections ask nothing, one more from %s: the oldest are closed", self._most, peer)
            self._crowded = True  # told once, until there are fewer
            oldest = next(iter(self._greetings))
            del self._greetings[oldest]
            oldest.cancel()
        elif len(self._greetings) < self._most // 2:
            self._crowded = False
        self._greetings[greeting] = None
        greeting.add_done_callback(lambda _: self._greetings.pop(greeting, None))

    async def greet(self, handshake: Coroutine[Any, Any, tuple[asyncio.Transport, object]], peer: str) -> None:
        """Shake hands, and see that a request follows."""
        try:
            transport, _ = await handshake
        except OSError as error:
            log.info("%s: connection closed, no TLS: %s", peer, error)
            return
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  this is one
        self._silent[transport] = task
        try:
            await asyncio.sleep(self.patience_seconds)
            if not transport.is_closing():
                log.info("%s: connection closed, no whole request within %.0f s", peer, self.patience_seconds)
        finally:
            if self._silent.pop(transport, None) is not None:
                transport.abort()

    def asked(self, transport: asyncio.BaseTransport) -> None:
        """Something was asked on a connection. Again is a no-op."""
        if (task := self._silent.pop(transport, None)) is not None:
            task.cancel()


def most_strangers() -> int:
    """Return how many connections may be silent: a quarter of the descriptors that we may have, and not thousands."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_STRANGERS if soft == resource.RLIM_INFINITY else max(1, min(soft // 4, _MOST_STRANGERS))


async def accept(
    listening: socket.socket,
    context: Callable[[], ssl.SSLContext],
    protocol: Callable[[], asyncio.BaseProtocol],
    strangers: Strangers,
) -> None:
    """Give each connection a protocol once it speaks TLS, until cancelled; closes the port."""
    loop = asyncio.get_running_loop()
    with listening:
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    connection, peer = await loop.sock_accept(listening)
                except OSError as error:
                    log.warning("can't accept a connection: %s", error)
                    await asyncio.sleep(_SHORTAGE_SECONDS)
                    continue
                handshake = loop.connect_accepted_socket(
                    protocol, connection, ssl=context(), ssl_handshake_timeout=strangers.patience_seconds
                )
                greeting = strangers.greet(handshake, str(peer[0]))
                strangers.add(group.create_task(greeting, name=f"TLS of {peer[0]}"), str(peer[0]))
                await asyncio.sleep(0)  # it begins: one that never did could not close its connection
