"""Accepts the connections of a TLS port: each gets the TLS context of its moment, so that one can be replaced as a whole.

A context that is in use can only be added to: a CA, once believed, stays believed, and so does the certificate of
another type of key. asyncio's own server keeps the context that it began with.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)

_BACKLOG = 128
# Until descriptors or memory may be there again.
_SHORTAGE_SECONDS = 1.0


def listen(host: str, port: int) -> socket.socket:
    """Open a port at an IP address. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    opened.setblocking(False)
    return opened


async def accept(
    listening: socket.socket,
    context: Callable[[], ssl.SSLContext],
    protocol: Callable[[], asyncio.BaseProtocol],
    *,
    patience_seconds: float,
    asked: Callable[[asyncio.BaseTransport], bool],
) -> None:
    """Give each connection a protocol once it speaks TLS, until cancelled; closes the port.

    Who does not speak TLS in time is left, and so is who then has not ``asked`` anything in as much time.
    """
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
                greeting = loop.connect_accepted_socket(
                    protocol, connection, ssl=context(), ssl_handshake_timeout=patience_seconds
                )
                group.create_task(_greet(greeting, str(peer[0]), patience_seconds, asked), name=f"TLS of {peer[0]}")


async def _greet(
    greeting: Coroutine[Any, Any, tuple[asyncio.Transport, object]],
    peer: str,
    patience_seconds: float,
    asked: Callable[[asyncio.BaseTransport], bool],
) -> None:
    """Shake hands, and see that a request follows."""
    try:
        transport, _ = await greeting
    except OSError as error:
        log.info("%s: connection closed, no TLS: %s", peer, error)
        return
    await asyncio.sleep(patience_seconds)
    if not (asked(transport) or transport.is_closing()):
        log.info("%s: connection closed, no whole request within %.0f s", peer, patience_seconds)
        transport.abort()
