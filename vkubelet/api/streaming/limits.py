"""What one client may take: of memory, of streams, of patience."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one connection. The kubelet's own where it has one.

    ``streams``: open at once. ``useless``: streams that make no sense, in all, each of which is a line in the log. ``waiting_bytes``: that arrived and nobody has read yet. ``stream_seconds``: until the
    streams of a command, or the other half of a pair, have come. ``frame_seconds``: between two pieces of a frame.
    ``idle_seconds``: without a byte either way (``streamingConnectionIdleTimeout``). ``pong_seconds``: between two signs
    of life to a WebSocket that is not read, well below the minute after which kubectl gives up.
    """

    streams: int = 1024
    useless: int = 32
    waiting_bytes: int = 4 * 1024 * 1024
    stream_seconds: float = 30.0
    frame_seconds: float = 30.0
    idle_seconds: float = 4 * 3600.0
    pong_seconds: float = 10.0
