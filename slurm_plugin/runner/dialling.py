"""Connects to a TCP port without holding up the loop."""

import os
import socket

from .loop import WRITE, Loop

_CONNECT_SECONDS = 10.0


async def dial(loop: Loop, family: int, address: str, port: int, *, seconds: float = _CONNECT_SECONDS) -> socket.socket:
    """Return a connected socket that does not block. OSError, OverflowError: there is none to be had."""
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            connection.connect((address, port))
        except BlockingIOError:
            await _settled(loop, connection, seconds)
    except BaseException:
        connection.close()
        raise
    return connection


async def _settled(loop: Loop, connection: socket.socket, seconds: float) -> None:
    """Wait until it is connected. OSError: it was refused."""
    if not await loop.ready(connection.fileno(), WRITE, seconds):
        raise TimeoutError("timed out")
    code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
