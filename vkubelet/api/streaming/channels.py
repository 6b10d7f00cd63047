"""What a stream of either protocol offers, and the memory that waiting bytes may take."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from slurm_plugin.errors import HostError

log = logging.getLogger(__name__)

PIECE = 64 * 1024


class Incoming(Protocol):
    """Bytes from the client."""

    async def read(self) -> bytes:
        """Return some, b"" at the end. ConnectionError once the stream was reset or the connection is lost."""


class Outgoing(Protocol):
    """Bytes to the client."""

    async def write(self, data: bytes) -> None:
        """Send, and wait while the client takes no more. ConnectionError once it is gone."""

    async def close(self) -> None:
        """Say that this was all. Again is a no-op."""


async def pour(
    stream: Incoming, write: Callable[[bytes], Awaitable[None]], close: Callable[[], Awaitable[None]], *, closed: str
) -> None:
    """Write all that the client sends, then close. Whoever reads no more is no error, and neither is a client that sends on.

    ``closed`` says in the log that nobody reads any more.
    """
    listens = True
    while data := await stream.read():
        if listens:
            try:
                await write(data)
            except HostError as error:
                log.debug("%s: %s", closed, error)
                listens = False
    if listens:
        await close()


class Room:
    """Room for what arrived on a connection and nobody has read yet, over all its streams."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting = 0
        self._free = asyncio.Event()
        self._free.set()

    def take(self, count: int) -> None:
        """Fill it; beyond the limit too, by what one read from the network brings."""
        self._waiting += count
        if self._waiting >= self._limit:
            self._free.clear()

    def release(self, count: int) -> None:
        """Empty it."""
        self._waiting -= count
        if self._waiting < self._limit:
            self._free.set()

    async def wait(self) -> None:
        """Wait until there is some."""
        await self._free.wait()


class Inbox:
    """The client's half of one stream: what arrived in it and waits to be read by one reader."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._bytes = bytearray()
        self._ended = False
        self._broken: str | None = None
        self._discards = False
        self._news = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether nothing more arrives."""
        return self._ended or self._broken is not None

    def put(self, data: bytes) -> None:
        """Take what arrived; after the end it is dropped."""
        if not (self.ended or self._discards):
            self._bytes += data
            self._room.take(len(data))
            self._news.set()

    def end(self) -> None:
        """Nothing more arrives."""
        self._ended = True
        self._news.set()

    def break_off(self, why: str) -> None:
        """Nothing more arrives, and what did is worth nothing."""
        self._broken = why
        self.discard()
        self._news.set()

    def discard(self) -> None:
        """Drop what waits and what will arrive: nobody reads it any more."""
        self._discards = True
        self._room.release(len(self._bytes))
        self._bytes.clear()

    async def read(self) -> bytes:
        """Return some of it, b"" at the end. ConnectionError when it was broken off."""
        while not self._bytes:
            if self._broken is not None:
                raise ConnectionResetError(self._broken)
            if self._ended:
                return b""
            self._news.clear()
            await self._news.wait()
        data = bytes(self._bytes[:PIECE])
        del self._bytes[:PIECE]
        self._room.release(len(data))
        return data
