"""Many streams over one WebSocket: bytes arrive unchanged, a slow reader holds up only itself, nonsense ends the line."""

import asyncio
import random
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import test_utils, web
from hypothesis import given
from hypothesis import strategies as st

from sidecar import frames
from sidecar.frames import Frame, Kind
from sidecar.multiplex import Multiplexer, Stream
from slurm_plugin.errors import TransportError

_FRAMES = st.one_of(
    st.builds(Frame, st.sampled_from([Kind.OPEN, Kind.END, Kind.RESET]), st.integers(0, 2**32 - 1)),
    st.builds(Frame, st.just(Kind.DATA), st.integers(0, 2**32 - 1), st.binary(max_size=100)),
    st.builds(Frame, st.just(Kind.CREDIT), st.integers(0, 2**32 - 1), st.just(b""), st.integers(0, 2**32 - 1)),
)


@given(_FRAMES)
def test_a_frame_is_read_as_it_was_written(frame: Frame) -> None:
    assert frames.read(frames.write(frame)) == frame


@given(st.binary(max_size=40))
def test_any_message_is_a_frame_or_refused(message: bytes) -> None:
    try:
        frame = frames.read(message)
    except TransportError:
        return
    assert frames.write(frame) == message


def test_a_frame_that_is_too_long_is_refused() -> None:
    with pytest.raises(TransportError, match="bytes"):
        frames.read(bytes(frames.MOST_FRAME_BYTES + 1))


@pytest.mark.parametrize(
    "came",
    [
        [Frame(Kind.DATA, 1, bytes(frames.PIECE_BYTES))] * 5,
        [Frame(Kind.CREDIT, 1, credit=1)],
        [Frame(Kind.END, 1), Frame(Kind.DATA, 1, b"x")],
    ],
)
def test_what_a_window_does_not_allow_is_refused(came: list[Frame]) -> None:
    async def send(_frame: Frame) -> None: ...

    stream = Stream(1, send)
    *before, last = came
    for frame in before:
        stream.take(frame)
    with pytest.raises(TransportError, match="stream 1"):
        stream.take(last)


class Ends:
    """Both ends of a line; the far end sends every stream's bytes back, if it is not told to hold them."""

    def __init__(self) -> None:
        self.near: Multiplexer | None = None
        self.socket: aiohttp.ClientWebSocketResponse | None = None
        self.reads = asyncio.Event()
        self.reads.set()
        self.served = 0

    async def echo(self, stream: Stream) -> None:
        self.served += 1
        first = await stream.read()
        if first == b"hold":
            await self.reads.wait()
        else:
            await stream.write(first)
        while data := await stream.read():
            await stream.write(data)
        await stream.end()

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=frames.MOST_FRAME_BYTES + 1)
        await socket.prepare(request)
        await Multiplexer(socket, opened=self.echo).run()
        return socket


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    ends = Ends()
    application = web.Application()
    application.router.add_get("/", ends.handle)
    async with test_utils.TestServer(application) as server, aiohttp.ClientSession() as session:
        ends.socket = await session.ws_connect(server.make_url("/"), max_msg_size=frames.MOST_FRAME_BYTES + 1)
        ends.near = Multiplexer(ends.socket)
        running = asyncio.create_task(ends.near.run())
        async with asyncio.timeout(60):
            yield ends
            await ends.socket.close()
            await running


async def through(line: Multiplexer, data: bytes) -> bytes:
    stream = await line.open()

    async def send() -> None:
        await stream.write(data)
        await stream.end()

    sending = asyncio.create_task(send())
    came = b""
    while piece := await stream.read():
        came += piece
    await sending
    await line.leave(stream)
    return came


async def test_streams_at_once_each_get_their_own_bytes(ends: Ends) -> None:
    assert ends.near is not None
    sent = [random.Random(seed).randbytes(seed * 40_000 + 1) for seed in range(20)]
    came = await asyncio.gather(*(through(ends.near, data) for data in sent))
    assert came == sent


async def test_a_stream_that_nobody_reads_holds_up_only_itself(ends: Ends) -> None:
    assert ends.near is not None
    ends.reads.clear()
    held = await ends.near.open()
    await held.write(b"hold")
    stuck = asyncio.create_task(held.write(bytes(2 * frames.WINDOW_BYTES)))
    assert await through(ends.near, bytes(1_000_000)) == bytes(1_000_000)
    assert not stuck.done()
    ends.reads.set()

    async def drain() -> int:
        size = 0
        while size < 2 * frames.WINDOW_BYTES:
            size += len(await held.read())
        return size

    assert await drain() == 2 * frames.WINDOW_BYTES
    await stuck


async def test_streams_are_over_when_the_line_breaks(ends: Ends) -> None:
    assert ends.near is not None
    assert ends.socket is not None
    stream = await ends.near.open()
    waiting = asyncio.create_task(stream.read())
    await asyncio.sleep(0)
    await ends.socket.close()
    with pytest.raises(TransportError, match="broke"):
        await waiting


async def test_a_stream_that_one_side_leaves_is_over_on_the_other(ends: Ends) -> None:
    assert ends.near is not None
    stream = await ends.near.open()
    await stream.write(b"one")
    assert await stream.read() == b"one"
    await ends.near.leave(stream)
    assert await through(ends.near, b"two") == b"two"
    with pytest.raises(TransportError, match="broke"):
        await stream.read()


@pytest.mark.parametrize("nonsense", [b"", b"\x09\0\0\0\1", b"\0\0\0\0\1", bytes([4, 0, 0, 0, 9]) + b"xx"])
async def test_nonsense_ends_the_line_and_nothing_else(ends: Ends, nonsense: bytes) -> None:
    assert ends.near is not None
    assert ends.socket is not None
    stream = await ends.near.open()
    await ends.socket.send_bytes(nonsense)
    with pytest.raises(TransportError):
        await stream.read()
