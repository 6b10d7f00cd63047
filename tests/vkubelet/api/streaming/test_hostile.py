"""Clients that break the rules: the connection is closed, a line is logged, nothing is left (the fixture looks)."""

import asyncio
import base64
import contextlib
import logging
import random
import struct
import zlib
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vkubelet.api.streaming import spdy
from vkubelet.api.streaming.dictionary import DICTIONARY
from vkubelet.api.streaming.limits import Limits

from .local import eventually
from .spdyclient import SpdyClient, dial, request

EXEC = "/exec/default/p/main?command=cat&input=1&output=1&error=1"
FORWARD = "/portForward/default/p"
BOTH = pytest.mark.parametrize(("path", "version"), [(EXEC, "v4.channel.k8s.io"), (FORWARD, "portforward.k8s.io")])


@pytest.fixture
def limits() -> Limits:
    return Limits(stream_seconds=0.3, frame_seconds=0.3, idle_seconds=1.0, pong_seconds=0.1)


def port(server: TestServer) -> int:
    assert server.port is not None
    return server.port


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def control(kind: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack(">HHI", 0x8003, kind, len(body) if length is None else length) + body


def opening(plain: bytes) -> bytes:
    deflate = zlib.compressobj(zdict=DICTIONARY)
    return control(1, struct.pack(">IIH", 1, 0, 0) + deflate.compress(plain) + deflate.flush(zlib.Z_SYNC_FLUSH))


TWICE = spdy.FrameEncoder()
MALFORMED = {
    "not SPDY at all": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2000 + b"\xff" * 100,
    "an old version": struct.pack(">HHI", 0x8002, 1, 0),
    "an unknown type": control(99, b"x"),
    "a frame that is too short": control(3, b"x"),
    "a frame that is too long": control(1, b"", 0xFFFFFF),
    "no zlib": control(1, bytes(10) + b"\x99" * 50),
    "zlib that is cut off": opening(struct.pack(">III", 1, 10, 10) + b"streamtype")[:-9] + bytes(9),
    "headers longer than they are": opening(struct.pack(">II", 1, 0x7FFFFFFF)),
    "very many headers": opening(struct.pack(">I", 0x7FFFFFFF)),
    "a bomb": opening(bytes(10_000_000)),
    "an even stream": spdy.FrameEncoder().encode(spdy.SynStream(2, {})),
    "a stream opened twice": TWICE.encode(spdy.SynStream(1, {})) + TWICE.encode(spdy.SynStream(1, {})),
    "data for nobody": spdy.FrameEncoder().encode(spdy.Data(1, b"x")),
}


@BOTH
@pytest.mark.parametrize("what", MALFORMED)
async def test_malformed_frames_close_the_connection_and_are_logged(server, caplog, path, version, what):
    async with dial(port(server), path, version=version) as client:
        client.writer.write(MALFORMED[what])
        async with asyncio.timeout(60):
            await client.gone.wait()
    assert any("connection closed" in line for line in warnings(caplog))


@BOTH
@pytest.mark.parametrize("seed", range(10))
async def test_random_bytes_in_the_middle_of_good_ones_leave_nothing(server, path, version, seed):
    chance = random.Random(seed)
    async with dial(port(server), path, version=version) as client:
        good = [
            spdy.SynStream(1 + 2 * number, {"streamtype": kind, "port": "1", "requestid": "0"})
            for number, kind in enumerate(("error", "stdin", "stdout", "stderr", "data"))
        ]
        text = bytearray(b"".join(client.encoder.encode(frame) for frame in [*good, spdy.Data(3, b"x" * 100)]))
        for _ in range(chance.randrange(1, 6)):
            text[chance.randrange(len(text))] = chance.randrange(256)
        client.writer.write(bytes(text[: chance.randrange(20, len(text))]))
        async with asyncio.timeout(60):
            await client.gone.wait()  # by an error, a time-out or idleness


EXAMPLES = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SLEEP = "/exec/default/p/main?command=sleep&command=100&input=1&output=1&error=1"
NUMBERS = st.integers(0, 12) | st.integers(0, 0x7FFFFFFF)
WORDS = st.sampled_from(["error", "stdin", "stdout", "stderr", "data", "1", "0", "x" * 300, ""])
HEADERS = st.dictionaries(st.sampled_from(["streamtype", "port", "requestid", "x"]), WORDS)
FRAMES = (
    st.builds(spdy.SynStream, NUMBERS, HEADERS, st.booleans())
    | st.builds(spdy.SynReply, NUMBERS, HEADERS)
    | st.builds(spdy.Data, NUMBERS, st.binary(max_size=200), st.booleans())
    | st.builds(spdy.Reset, NUMBERS, NUMBERS)
    | st.builds(spdy.Ping, NUMBERS)
    | st.builds(spdy.GoAway, NUMBERS, NUMBERS)
)


@EXAMPLES
@given(
    frames=st.lists(FRAMES, max_size=12),
    end=st.sampled_from(sorted(MALFORMED)),
    where=st.sampled_from([(SLEEP, "v4.channel.k8s.io"), (FORWARD, "portforward.k8s.io")]),
)
async def test_any_frames_and_then_a_malformed_one_close_the_connection_and_are_logged(
    server, caplog, frames, end, where
):
    caplog.clear()
    path, version = where
    async with asyncio.timeout(60), dial(port(server), path, version=version) as client:
        with contextlib.suppress(ConnectionError):  # it may be closed before all is sent
            client.writer.write(b"".join(client.encoder.encode(frame) for frame in frames) + MALFORMED[end])
            await client.writer.drain()
        await client.gone.wait()
    await eventually(lambda: warnings(caplog))


async def test_streams_that_a_command_has_no_use_for_are_reset(server, caplog):
    async with dial(port(server), EXEC) as client:
        await client.open(streamtype="error")
        stream = await client.open(streamtype="error")
        await stream.all()
        assert stream.reset
    assert any("unexpected stream" in line for line in warnings(caplog))


NONSENSE = {EXEC: {"streamtype": "video"}, FORWARD: {"streamtype": "data", "port": "0"}}


async def flood(client: SpdyClient, headers: dict[str, str], *, begin: int) -> None:
    """Open streams, as fast as the other side takes notice, until the connection is closed."""
    with contextlib.suppress(ConnectionError):
        for number in range(begin, 10_000):
            await client.send(spdy.SynStream(1 + 2 * number, headers))
            await asyncio.sleep(0.001 if number % 20 == 0 else 0)
            if client.gone.is_set():
                break
    async with asyncio.timeout(60):
        await client.gone.wait()


@BOTH
async def test_ten_thousand_streams_without_sense_close_the_connection_and_are_few_lines_in_the_log(
    server, caplog, path, version
):
    async with dial(port(server), path, version=version) as client:
        await flood(client, NONSENSE[path], begin=0)
    assert any("connection closed: more than 32 streams that make no sense" in line for line in warnings(caplog))
    assert len(warnings(caplog)) < 64


async def test_ten_thousand_streams_beside_a_command_close_the_connection_and_are_logged(server, caplog, local):
    async with dial(port(server), SLEEP) as client:
        for kind in ("error", "stdin", "stdout", "stderr"):
            await client.open(streamtype=kind)
        await eventually(lambda: local.inside)
        await flood(client, {"streamtype": "stdin"}, begin=4)
    assert [line for line in warnings(caplog) if "more than 1024 streams open at once" in line]
    assert len(warnings(caplog)) == 1


@pytest.mark.slow
async def test_a_command_whose_streams_do_not_come_is_given_up(server, caplog, local):
    async with dial(port(server), EXEC) as client:
        await client.open(streamtype="error")
        async with asyncio.timeout(60):
            await client.gone.wait()
    assert any("timed out waiting for its streams" in line for line in warnings(caplog))
    assert local.argvs == []


async def test_a_frame_that_does_not_end_is_given_up(server, caplog):
    async with dial(port(server), FORWARD, version="portforward.k8s.io") as client:
        client.writer.write(control(6, b"", 4))
        async with asyncio.timeout(60):
            await client.gone.wait()
    assert any("a frame that does not end" in line for line in warnings(caplog))


async def test_a_half_of_a_pair_is_given_up(server, caplog):
    async with dial(port(server), FORWARD, version="portforward.k8s.io") as client:
        stream = await client.open(streamtype="error", port="80", requestid="0")
        assert await stream.all() == b"timed out waiting for the data stream"
    assert any("only the error stream" in line for line in warnings(caplog))


async def test_a_connection_on_which_nothing_happens_is_closed(server, caplog):
    caplog.set_level(logging.INFO)
    async with dial(port(server), FORWARD, version="portforward.k8s.io") as client:
        async with asyncio.timeout(60):
            await client.gone.wait()
    assert any("without a byte" in record.getMessage() for record in caplog.records)


async def test_pings_that_nobody_reads_the_answers_of_take_no_memory(server):
    async with dial(port(server), FORWARD, version="portforward.k8s.io", reads=False) as client:
        ping = client.encoder.encode(spdy.Ping(1)) * 10_000

        async def flood() -> None:
            for _ in range(1000):
                client.writer.write(ping)
                await client.writer.drain()

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flood(), 1)


async def test_oversize_http_headers_are_refused(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", port(server))
    writer.write(request(EXEC, {"X-Stream-Protocol-Version": "v" * 100_000}))
    assert b" 400 " in await reader.readline()
    writer.close()


# --- WebSocket ---

Talk = Callable[[aiohttp.ClientWebSocketResponse], Awaitable[None]]

RUDE: dict[str, tuple[str, Talk]] = {
    "a channel that is not the client's": ("v4.channel.k8s.io", lambda socket: socket.send_bytes(b"\x01x")),
    "a channel that does not exist": ("v4.channel.k8s.io", lambda socket: socket.send_bytes(b"\x63x")),
    "a half-close before version 5": ("v4.channel.k8s.io", lambda socket: socket.send_bytes(b"\xff\0")),
    "a half-close of nothing": ("v5.channel.k8s.io", lambda socket: socket.send_bytes(b"\xff\x63")),
    "no base64": ("v4.base64.channel.k8s.io", lambda socket: socket.send_str("0§§§")),
    "no digit": ("v4.base64.channel.k8s.io", lambda socket: socket.send_str("x" + base64.b64encode(b"x").decode())),
}


@pytest.mark.parametrize("what", RUDE)
async def test_rude_messages_close_the_socket_with_a_protocol_error(server, caplog, what):
    protocol, talk = RUDE[what]
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(server.make_url(EXEC), protocols=(protocol,)) as socket,
    ):
        await socket.receive()
        await talk(socket)
        async with asyncio.timeout(60):
            while (await socket.receive()).type not in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
                pass
        assert socket.close_code == 1002
    assert any("connection closed" in line for line in warnings(caplog))


@EXAMPLES
@given(
    messages=st.lists(st.binary(max_size=200) | st.text(max_size=200), max_size=12),
    protocol=st.sampled_from(["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io"]),
)
async def test_any_messages_and_then_a_rude_one_close_the_socket_and_are_logged(server, caplog, messages, protocol):
    caplog.clear()
    async with (
        asyncio.timeout(60),
        aiohttp.ClientSession() as session,
        session.ws_connect(server.make_url(SLEEP), protocols=(protocol,)) as socket,
    ):
        with contextlib.suppress(ConnectionError):
            for message in [*messages, b"cx"]:
                await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
        while (await socket.receive()).type not in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
            pass
        assert socket.close_code == 1002
    assert any("connection closed" in line for line in warnings(caplog))


async def test_a_message_without_end_closes_the_socket(server, caplog):
    caplog.set_level(logging.INFO)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(server.make_url(EXEC), protocols=("v4.channel.k8s.io",)) as socket,
    ):
        await socket.receive()
        with contextlib.suppress(ConnectionError):  # closed before it was all sent
            await socket.send_bytes(bytes(5 * 1024 * 1024))
        await eventually(lambda: any("connection lost" in line for line in caplog.messages))


async def test_a_client_whose_input_nobody_reads_is_told_that_we_live(server, local):
    path = "/exec/default/p/main?command=sleep&command=100&input=1&output=1"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(server.make_url(path), protocols=("v5.channel.k8s.io",), autoping=False) as socket,
    ):
        await socket.receive()

        async def send() -> None:
            while True:
                await socket.send_bytes(bytes(64 * 1024))

        sending = asyncio.create_task(send())
        async with asyncio.timeout(60):
            pongs = [(await socket.receive()).type for _ in range(3)]
        assert pongs == [aiohttp.WSMsgType.PONG] * 3
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_a_tunnel_of_nonsense_is_closed(server, caplog):
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(server.make_url(FORWARD), protocols=("SPDY/3.1+portforward.k8s.io",)) as socket,
    ):
        await socket.send_bytes(b"\x80\x07nonsense")
        async with asyncio.timeout(60):
            while (await socket.receive()).type != aiohttp.WSMsgType.CLOSE:
                pass
    assert any("version 7" in line for line in warnings(caplog))


@pytest.mark.parametrize("protocol", ["spdy", "websocket"])
async def test_a_client_that_reads_nothing_is_waited_for_without_memory(server, local, protocol, limits):
    """100 MB wait for a client: the process does, as nobody takes what it writes."""
    path = "/exec/default/p/main?command=dd&command=if=/dev/zero&command=bs=1M&command=count=100&output=1"
    if protocol == "spdy":
        async with dial(port(server), path, reads=False) as client:
            await _open_blindly(client, "error", "stdout")
            await eventually(lambda: local.inside)
            await asyncio.sleep(0.3)
            assert local.inside == 1  # it could not write all of it
        return
    head = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(), "Sec-WebSocket-Protocol": "v4.channel.k8s.io",
    }  # fmt: skip
    _, writer = await asyncio.open_connection("127.0.0.1", port(server), limit=1024)
    writer.write(request(path, head, method="GET"))
    await eventually(lambda: local.inside)
    await asyncio.sleep(0.3)
    assert local.inside == 1
    writer.transport.abort()


async def _open_blindly(client: SpdyClient, *kinds: str) -> None:
    for number, kind in enumerate(kinds):
        await client.send(spdy.SynStream(1 + 2 * number, {"streamtype": kind}))
