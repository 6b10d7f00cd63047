"""portForward over real connections, SPDY and WebSocket; the servers are real TCP servers."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp
import pytest
from aiohttp.test_utils import TestServer, unused_port

from vkubelet.api.streaming import spdy
from vkubelet.api.streaming.forwardwebsocket import query_ports
from vkubelet.api.streaming.negotiation import RequestRefusedError

from .local import eventually
from .spdyclient import ClientStream, SpdyClient, dial

FORWARD = "/portForward/default/p"
VERSION = "portforward.k8s.io"


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A server that sends everything back and then closes; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with echo() as found:
        yield found


def dialed(server: TestServer, path: str = FORWARD) -> AbstractAsyncContextManager[SpdyClient]:
    assert server.port is not None
    return dial(server.port, path, version=VERSION)


async def pair(client: SpdyClient, port: int, request: str) -> tuple[ClientStream, ClientStream]:
    headers = {"port": str(port), "requestid": request} if request else {"port": str(port)}
    error = await client.open(streamtype="error", **headers)
    await error.close()
    return error, await client.open(streamtype="data", **headers)


@pytest.mark.parametrize("request_id", ["0", ""])
@pytest.mark.parametrize("path", [FORWARD, f"{FORWARD}/u"])
async def test_bytes_go_to_the_port_and_back(server, port, path, request_id):
    async with dialed(server, path) as client:
        assert b"X-Stream-Protocol-Version: portforward.k8s.io" in client.head
        error, data = await pair(client, port, request_id)
        await data.write(b"hello", last=True)
        assert (await data.all(), await error.all()) == (b"hello", b"")


async def test_fifty_connections_at_once_are_not_mixed_up(server, port):
    async def one(client: SpdyClient, number: int) -> None:
        text = hashlib.sha256(b"%d" % number).digest() * 5000
        error, data = await pair(client, port, str(number))
        for start in range(0, len(text), 20_000):
            await data.write(text[start : start + 20_000])
        await data.close()
        assert (await data.all() == text, await error.all()) == (True, b"")

    async with dialed(server) as client, asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(one(client, number))


async def test_a_refused_connection_is_told_and_the_others_go_on(server, port):
    async with dialed(server) as client:
        closed = unused_port()
        error, data = await pair(client, closed, "0")
        said = (await error.all()).decode()
        assert said.startswith(f"error forwarding port {closed} to pod default/p: connection refused")
        assert await data.all() == b""
        _, data = await pair(client, port, "1")
        await data.write(b"still", last=True)
        assert await data.all() == b"still"


async def test_a_stream_that_the_client_resets_ends_its_connection_alone(server, port, local):
    async with dialed(server) as client:
        _, first = await pair(client, port, "0")
        _, second = await pair(client, port, "1")
        await eventually(lambda: local.inside == 2)
        await client.send(spdy.Reset(first.number, spdy.CANCEL))
        await eventually(lambda: local.inside == 1)
        await second.write(b"on", last=True)
        assert await second.all() == b"on"


async def test_a_connection_that_nobody_reads_does_not_stop_the_others_at_once(server, port):
    kept: list[asyncio.StreamWriter] = []
    server_side = await asyncio.start_server(lambda _reader, writer: kept.append(writer), "127.0.0.1", 0, limit=1024)
    async with server_side, dialed(server) as client:
        _, deaf = await pair(client, server_side.sockets[0].getsockname()[1], "0")
        for _ in range(16):
            await deaf.write(bytes(64 * 1024))
        _, data = await pair(client, port, "1")
        await data.write(b"through", last=True)
        assert await data.all() == b"through"
        kept[0].transport.abort()


@pytest.mark.parametrize(
    "headers",
    [
        {"streamtype": "data", "port": "0"},
        {"streamtype": "data", "port": "65536"},
        {"streamtype": "data", "port": "99999999999999"},
        {"streamtype": "data", "port": "-1"},
        {"streamtype": "data"},
        {"streamtype": "video", "port": "80"},
        {"port": "80"},
    ],
)
async def test_a_stream_without_sense_is_reset(server, headers):
    async with dialed(server) as client:
        stream = await client.open(**headers)
        await stream.all()
        assert stream.reset


async def test_a_second_stream_of_the_same_kind_is_reset(server):
    async with dialed(server) as client:
        first = await client.open(streamtype="data", port="80", requestid="0")
        second = await client.open(streamtype="data", port="80", requestid="0")
        await second.all()
        assert second.reset
        assert not first.ended.is_set()


async def test_refusals_have_the_kubelets_status(server):
    upgrade = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
    wrong = upgrade | {"X-Stream-Protocol-Version": "portforward.k8s.io/v9"}
    asked = ((FORWARD, {}, 400), (f"{FORWARD}/wrong-uid", upgrade, 404), ("/portForward/default/q", upgrade, 404))
    async with aiohttp.ClientSession() as session:
        for path, headers, status in (*asked, (FORWARD, wrong, 403)):
            async with session.post(server.make_url(path), headers=headers) as answer:
                assert answer.status == status


async def test_ten_thousand_streams_close_the_connection_and_are_logged(server, caplog):
    async with dialed(server) as client:
        for number in range(10_000):
            if client.gone.is_set():
                break
            headers = {"streamtype": "error", "port": "80", "requestid": str(number)}
            client.writer.write(client.encoder.encode(spdy.SynStream(1 + 2 * number, headers)))
            if number % 100 == 0:
                await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await client.gone.wait()
    assert any("more than 1024 streams" in line for line in caplog.messages)


async def test_halves_of_pairs_that_the_client_takes_back_leave_nothing(server, port):
    before = len(asyncio.all_tasks())
    async with dialed(server) as client:
        for number in range(3000):
            headers = {"streamtype": "error", "port": "80", "requestid": str(number)}
            await client.send(spdy.SynStream(1 + 2 * number, headers))
            await client.send(spdy.Reset(1 + 2 * number, spdy.CANCEL))
            await asyncio.sleep(0.001 if number % 20 == 0 else 0)
        headers = {"port": str(port), "requestid": "x"}
        await client.send(spdy.SynStream(6001, headers | {"streamtype": "error"}))
        await client.send(spdy.SynStream(6003, headers | {"streamtype": "data"}))
        await client.send(spdy.Data(6003, b"hello", last=True))
        async with asyncio.timeout(60):
            while not (6003 in client.streams and client.streams[6003].ended.is_set()):
                await client.news()
        assert client.streams[6003].received == b"hello"
        await eventually(lambda: len(asyncio.all_tasks()) < before + 50, seconds=10)


async def test_a_connection_that_is_not_made_yet_ends_when_the_client_takes_it_back(server, local):
    async with dialed(server) as client:
        _, data = await pair(client, 2, "0")
        await eventually(lambda: local.inside == 1)
        await client.send(spdy.Reset(data.number, spdy.CANCEL))
        await eventually(lambda: local.inside == 0)
        assert not client.gone.is_set()


# --- WebSocket ---


async def test_a_tunnel_carries_the_same_frames(server, port):
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(server.make_url(FORWARD), protocols=("SPDY/3.1+portforward.k8s.io",)) as socket,
    ):
        encoder, parser = spdy.FrameEncoder(), spdy.FrameParser()
        headers = {"port": str(port), "requestid": "0"}
        frames = [
            spdy.SynStream(1, headers | {"streamtype": "error"}),
            spdy.SynStream(3, headers | {"streamtype": "data"}),
            spdy.Data(3, b"hello", last=True),
        ]
        text = b"".join(encoder.encode(frame) for frame in frames)
        for start in range(0, len(text), 7):  # messages have no meaning
            await socket.send_bytes(text[start : start + 7])
        received = b""
        while True:
            message = await socket.receive()
            for frame in parser.feed(message.data):
                if isinstance(frame, spdy.Data) and frame.stream == 3:
                    received += frame.data
                    if frame.last:
                        assert received == b"hello"
                        return


@pytest.mark.parametrize("protocol", ["", "v4.channel.k8s.io", "v4.base64.channel.k8s.io"])
async def test_channels_begin_with_their_port(server, port, protocol):
    closed = unused_port()

    def plain(message: aiohttp.WSMessage) -> bytes:
        if message.type == aiohttp.WSMsgType.BINARY:
            return bytes(message.data)
        return bytes((int(message.data[0]),)) + base64.b64decode(message.data[1:])

    url = server.make_url(f"{FORWARD}?port={port}&port={closed}")
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, protocols=(protocol,) if protocol else ()) as socket,
    ):
        if "base64" in protocol:
            await socket.send_str("0" + base64.b64encode(b"hello").decode())
        else:
            await socket.send_bytes(b"\0hello")
        found: dict[int, bytes] = {}
        while not (b"hello" in found.get(0, b"") and b"refused" in found.get(3, b"")):
            message = plain(await socket.receive())
            found[message[0]] = found.get(message[0], b"") + message[1:]
        heads = [found[channel][:2] for channel in range(4)]
        assert heads == [port.to_bytes(2, "little")] * 2 + [closed.to_bytes(2, "little")] * 2


async def test_channels_end_with_the_server_for_the_client_cannot_say_that_it_has_no_more(server):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    greeter = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = server.make_url(f"{FORWARD}?port={greeter.sockets[0].getsockname()[1]}")
    async with (
        greeter,
        asyncio.timeout(30),
        aiohttp.ClientSession() as session,
        session.ws_connect(url, protocols=("v4.channel.k8s.io",)) as socket,
    ):
        await socket.send_bytes(b"\0hello\n")
        assert [message.data[1:] async for message in socket][2:] == [b"hello\n"]
        assert socket.close_code == 1000


def test_ports_are_repeated_or_separated_by_commas():
    assert query_ports(["80,81", "82"]) == [80, 81, 82]


@pytest.mark.parametrize("values", [[], ["0"], ["65536"], ["x"], [""], ["80,"], ["80"] * 101, ["²"]])
def test_what_is_no_port_is_refused(values):
    with pytest.raises(RequestRefusedError) as error:
        query_ports(values)
    assert error.value.status == 400
