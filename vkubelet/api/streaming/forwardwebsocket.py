"""Port forwarding over WebSocket channels: the ports are named in the query, port i is channels 2i (data), 2i+1 (error)."""

import struct
from collections.abc import Sequence

from .negotiation import RequestRefusedError
from .portforward import Connect, forward
from .together import together
from .websocket import ChannelConnection, WebSocketChannel

MOST_PORTS = 100  # a channel's number is one byte, and 255 has a meaning of its own


def query_ports(values: Sequence[str]) -> list[int]:
    """Read the query's ports, separated by commas or repeated. Raises RequestRefusedError."""
    words = [word for value in values for word in value.split(",")]
    if not words:
        raise RequestRefusedError(400, 'query parameter "port" is required')
    if len(words) > MOST_PORTS:
        raise RequestRefusedError(400, f"{len(words)} ports, {MOST_PORTS} at most")
    for word in words:
        if not (word.isascii() and word.isdigit() and 0 < int(word[:6]) <= 0xFFFF):
            raise RequestRefusedError(400, f"unable to parse {word[:50]!r} as a port")
    return [int(word) for word in words]


async def forward_ports(connection: ChannelConnection, connect: Connect, ports: Sequence[int], *, what: str) -> None:
    """Serve one connection to each port, until all have ended."""
    channels = connection.channels
    parts = [
        _forward(connect, port, channels[2 * number], channels[2 * number + 1], what=what)
        for number, port in enumerate(ports)
    ]
    await together(*parts, name=f"ports of {what}")


async def _forward(connect: Connect, port: int, data: WebSocketChannel, error: WebSocketChannel, *, what: str) -> None:
    head = struct.pack("<H", port)
    await data.write(head)
    await error.write(head)
    await forward(connect, port, data, error, what=what)
