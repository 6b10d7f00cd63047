"""The client's end of SPDY/3.1, as kubectl is one: for tests, over a plain connection."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

from vkubelet.api.streaming import spdy


class ClientStream:
    """A stream that we opened."""

    def __init__(self, number: int, client: "SpdyClient") -> None:
        self.number = number
        self.replied = asyncio.Event()
        self.ended = asyncio.Event()
        self.received = bytearray()
        self.reset = False
        self._client = client

    async def write(self, data: bytes, *, last: bool = False) -> None:
        await self._client.send(spdy.Data(self.number, data, last))

    async def close(self) -> None:
        await self.write(b"", last=True)

    async def all(self) -> bytes:
        """Everything until its end."""
        await self.ended.wait()
        return bytes(self.received)

    async def until(self, text: bytes) -> None:
        while text not in self.received:
            assert not self.ended.is_set(), bytes(self.received)
            await self._client.news()


class SpdyClient:
    """One connection; ``head`` is the answer's, ``gone`` is set at its end, ``goaway`` what was said before it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""
        self.gone = asyncio.Event()
        self.goaway: spdy.GoAway | None = None
        self.pings: list[int] = []
        self.streams: dict[int, ClientStream] = {}
        self.encoder = spdy.FrameEncoder()
        self._parser = spdy.FrameParser()
        self._news = asyncio.Event()
        self.reading: asyncio.Task[None] | None = None

    async def news(self) -> None:
        self._news.clear()
        await self._news.wait()

    async def send(self, frame: spdy.Frame) -> None:
        self.writer.write(self.encoder.encode(frame))
        await self.writer.drain()

    async def open(self, **headers: str) -> ClientStream:
        stream = ClientStream(1 + 2 * len(self.streams), self)
        self.streams[stream.number] = stream
        await self.send(spdy.SynStream(stream.number, headers))
        await stream.replied.wait()
        return stream

    async def read(self) -> None:
        try:
            while data := await self.reader.read(65536):
                for frame in self._parser.feed(data):
                    self._take(frame)
                self._news.set()
        except ConnectionError:
            pass
        finally:
            self.gone.set()
            for stream in self.streams.values():
                stream.ended.set()
            self._news.set()

    def _stream(self, number: int) -> ClientStream:
        return self.streams.setdefault(number, ClientStream(number, self))

    def _take(self, frame: spdy.Frame) -> None:
        match frame:
            case spdy.SynReply():
                self._stream(frame.stream).replied.set()
            case spdy.Data():
                self._stream(frame.stream).received += frame.data
                if frame.last:
                    self._stream(frame.stream).ended.set()
            case spdy.Reset():
                self._stream(frame.stream).reset = True
                self._stream(frame.stream).ended.set()
            case spdy.Ping():
                self.pings.append(frame.number)
            case spdy.GoAway():
                self.goaway = frame


def request(path: str, headers: Mapping[str, str], *, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()


UPGRADE = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}


@asynccontextmanager
async def dial(
    port: int,
    path: str,
    *,
    version: str = "v4.channel.k8s.io",
    reads: bool = True,
    tls: ssl.SSLContext | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[SpdyClient]:
    """Connect and upgrade; ``reads`` False is a client that is stuck."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024, ssl=tls)
    client = SpdyClient(reader, writer)
    versions = {"X-Stream-Protocol-Version": version} if version else {}
    try:
        writer.write(request(path, {**UPGRADE, **versions, **headers}))
        client.head = await reader.readuntil(b"\r\n\r\n")
        if reads:
            client.reading = asyncio.create_task(client.read())
        yield client
    finally:
        writer.transport.abort()
        if client.reading is not None:
            await client.reading
