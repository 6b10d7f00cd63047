"""exec, attach and run over real connections, SPDY and WebSocket; the commands are real processes."""

import asyncio
import base64
import hashlib
import json

import aiohttp
import pytest
from aiohttp import WSMsgType
from aiohttp.test_utils import TestServer

from vkubelet.api.streaming import spdy

from .local import eventually
from .spdyclient import ClientStream, SpdyClient, dial, request

EXEC = "/exec/default/p/main"


def path(*argv: str, streams: str = "output error", base: str = EXEC) -> str:
    words = [f"command={word}" for word in argv] + [f"{name}=1" for name in streams.split()]
    return f"{base}?{'&'.join(words)}"


async def opened(client: SpdyClient, *kinds: str) -> list[ClientStream]:
    return [await client.open(streamtype=kind) for kind in kinds]


def port(server: TestServer) -> int:
    assert server.port is not None
    return server.port


async def test_output_errors_and_the_exit_code_arrive(server):
    async with dial(port(server), path("sh", "-c", "echo%20out;echo%20err>%262;exit%207")) as client:
        assert b"101 " in client.head
        assert b"X-Stream-Protocol-Version: v4.channel.k8s.io" in client.head
        error, out, err = await opened(client, "error", "stdout", "stderr")
        assert (await out.all(), await err.all()) == (b"out\n", b"err\n")
        status = json.loads(await error.all())
        assert status["details"]["causes"][0]["message"] == "7"
        assert client.goaway is None or client.goaway.status == 0


@pytest.mark.parametrize("base", [EXEC, "/exec/default/p/u/main"])
async def test_standard_input_ends_when_the_client_closes_its_half(server, base):
    async with dial(port(server), path("cat", streams="input output", base=base)) as client:
        error, stdin, out = await opened(client, "error", "stdin", "stdout")
        await stdin.write(b"hello ")
        await out.until(b"hello ")
        await stdin.write(b"world", last=True)
        assert await out.all() == b"hello world"
        assert json.loads(await error.all())["status"] == "Success"


async def test_ten_megabytes_go_through_and_back(server):
    data = hashlib.sha256(b"seed").digest() * 327_680
    async with dial(port(server), path("cat", streams="input output")) as client:
        _, stdin, out = await opened(client, "error", "stdin", "stdout")
        for start in range(0, len(data), 30_000):
            await stdin.write(data[start : start + 30_000])
        await stdin.close()
        assert hashlib.sha256(await out.all()).digest() == hashlib.sha256(data).digest()


TELLS_ITS_SIZE = "trap%20'stty%20size;exit'%20WINCH;echo%20ready;while%20:;do%20sleep%200.05;done"


async def test_a_terminal_has_the_clients_size_and_follows_it(server):
    async with dial(port(server), path("bash", "-c", TELLS_ITS_SIZE, streams="input output error tty")) as client:
        _, _, out, resize = await opened(client, "error", "stdin", "stdout", "resize")
        await out.until(b"ready")
        await resize.write(b'{"Width":99,"Hei')
        await resize.write(b'ght":33}\n')
        assert b"33 99" in await out.all()


async def test_nonsense_on_the_resize_stream_changes_nothing(server):
    async with dial(port(server), path("cat", streams="input output tty")) as client:
        _, stdin, out, resize = await opened(client, "error", "stdin", "stdout", "resize")
        for nonsense in (b"{" * 100_000, b"[" * 5000, b"{}", b'{"Width":-1,"Height":1e999}', b"\xff" * 1000):
            await resize.write(nonsense)
        await stdin.write(b"still\n")
        await out.until(b"still")


async def test_a_process_that_reads_no_more_does_not_stop_the_client(server):
    async with dial(port(server), path("head", "-c1", streams="input output")) as client:
        error, stdin, out = await opened(client, "error", "stdin", "stdout")
        for _ in range(200):
            await stdin.write(bytes(64 * 1024))
        assert await out.all() == b"\0"
        assert json.loads(await error.all())["status"] == "Success"


@pytest.mark.parametrize("version", ["v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io", ""])
async def test_old_versions_say_failure_in_words(server, version):
    async with dial(port(server), path("sh", "-c", "exit%203", streams="output"), version=version) as client:
        error, _ = await opened(client, "error", "stdout")
        assert await error.all() == b"command terminated with non-zero exit code: 3"


async def test_a_container_that_does_not_run_is_an_internal_error(server, local):
    local.missing = True
    async with dial(port(server), path("true")) as client:
        error, _, _ = await opened(client, "error", "stdout", "stderr")
        status = json.loads(await error.all())
        assert status["reason"] == "InternalError"
        assert "container main does not run" in status["message"]


async def test_a_client_that_goes_away_ends_the_process(server, local):
    async with dial(port(server), path("sleep", "1000")) as client:
        await opened(client, "error", "stdout", "stderr")
        await eventually(lambda: local.inside)
    await eventually(lambda: not local.inside)


async def test_attaching_joins_the_streams(server):
    async with dial(port(server), path(streams="input output", base="/attach/default/p/main")) as client:
        error, stdin, out = await opened(client, "error", "stdin", "stdout")
        await stdin.write(b"x", last=True)
        assert await out.all() == b"x"
        assert json.loads(await error.all())["status"] == "Success"


async def test_pings_are_answered(server):
    async with dial(port(server), path("sleep", "100")) as client:
        await opened(client, "error", "stdout", "stderr")
        await client.send(spdy.Ping(1))
        await client.send(spdy.Ping(2))  # an answer, as it is even
        await client.send(spdy.Ping(3))
        while len(client.pings) < 2:
            await client.news()
        assert client.pings == [1, 3]


async def answer(server: TestServer, path: str, *, method: str = "POST", **headers: str) -> tuple[int, str, list[str]]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method, server.make_url(path), headers={name.replace("_", "-"): v for name, v in headers.items()}
        ) as got,
    ):
        return got.status, await got.text(), got.headers.getall("X-Accepted-Stream-Protocol-Versions", [])


async def test_refusals_have_the_kubelets_status(server):
    upgrade = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
    assert (await answer(server, path("id", base="/exec/default/other/main"), **upgrade))[0] == 404
    assert (await answer(server, path("id", base="/exec/default/p/other"), **upgrade))[0] == 404
    assert (await answer(server, path("id", base="/exec/default/p/wrong-uid/main"), **upgrade))[0] == 404
    assert (await answer(server, path("id", streams=""), **upgrade))[0] == 400
    assert (await answer(server, path("id", streams="error tty"), **upgrade))[0] == 400
    assert (await answer(server, path(), **upgrade))[0] == 400
    assert (await answer(server, path("id")))[0] == 400
    assert (await answer(server, path("id"), method="PUT"))[0] == 405
    status, _, accepted = await answer(server, path("id"), X_Stream_Protocol_Version="v9.channel.k8s.io", **upgrade)
    assert (status, accepted[0], len(accepted)) == (403, "v4.channel.k8s.io", 4)


async def test_run_answers_with_all_output(server):
    assert (await answer(server, "/run/default/p/main?cmd=echo%20one%20two"))[:2] == (200, "one two\n")
    assert (await answer(server, "/run/default/p/u/main?cmd=echo%20one"))[:2] == (200, "one\n")
    status, text, _ = await answer(server, "/run/default/p/main?cmd=ls%20/no/such")
    assert status == 500
    assert "exited with 2" in text
    assert "/no/such" in text
    assert (await answer(server, "/run/default/p/main"))[0] == 400
    assert (await answer(server, "/run/default/p/main?cmd=cat%20/dev/zero"))[0] == 500
    assert (await answer(server, "/run/default/p/main?cmd=id", method="GET"))[0] == 405


# --- WebSocket ---


async def messages(socket: aiohttp.ClientWebSocketResponse) -> dict[int, bytes]:
    """Everything until the end, by channel."""
    found: dict[int, bytes] = {}
    async for message in socket:
        text = message.type == WSMsgType.TEXT
        channel = int(message.data[0]) if text else message.data[0]
        data = base64.b64decode(message.data[1:]) if text else message.data[1:]
        found[channel] = found.get(channel, b"") + data
    return found


@pytest.mark.parametrize(
    "protocol",
    [
        "",
        "channel.k8s.io",
        "base64.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.base64.channel.k8s.io",
        "v5.channel.k8s.io",
    ],
)
async def test_every_subprotocol_carries_output_and_status(server, protocol):
    url = server.make_url(path("sh", "-c", "echo%20out;echo%20err>%262;exit%207"))
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, protocols=(protocol,) if protocol else ()) as socket,
    ):
        assert (socket.protocol or "") == protocol
        first = await socket.receive()
        assert first.data in (b"\x01", "1")
        found = await messages(socket)
        assert socket.close_code == 1000
        assert (found[1], found[2]) == (b"out\n", b"err\n")
        newer = protocol.startswith("v")
        assert (json.loads(found[3])["reason"] == "NonZeroExitCode") if newer else b"exit code: 7" in found[3]


async def test_only_the_fifth_version_ends_standard_input(server):
    url = server.make_url(path("cat", streams="input output"))
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url, protocols=("v5.channel.k8s.io",)) as socket:
            await socket.send_bytes(b"\0hello")
            await socket.send_bytes(b"\xff\0")
            found = await messages(socket)
            assert found[1] == b"hello"
            assert json.loads(found[3])["status"] == "Success"
        async with session.ws_connect(url, protocols=("v4.base64.channel.k8s.io",)) as socket:
            await socket.send_str("0" + base64.b64encode(b"hello").decode())
            await socket.receive()
            assert (await socket.receive()).data == "1" + base64.b64encode(b"hello").decode()


async def test_input_may_be_called_text_on_a_binary_subprotocol_as_the_python_client_does(server):
    url = server.make_url(path("head", "-c5", streams="input output"))
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, protocols=("v5.channel.k8s.io",)) as socket,
    ):
        await socket.send_str("\0hello")
        assert (await messages(socket))[1] == b"hello"


async def test_a_terminal_over_websocket_has_a_size(server):
    url = server.make_url(path("bash", "-c", TELLS_ITS_SIZE, streams="input output tty"))
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, protocols=("v4.channel.k8s.io",)) as socket,
    ):
        assert (await socket.receive()).data == b"\x01"
        assert b"ready" in (await socket.receive()).data
        await socket.send_bytes(b'\x04{"Width":99,"Height":33}')
        assert b"33 99" in (await messages(socket))[1]


async def test_websocket_clients_that_speak_nothing_of_ours_are_refused(server):
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            await session.ws_connect(server.make_url(path("id")), protocols=("v9.channel.k8s.io",))
        assert error.value.status == 403


async def test_two_requests_do_not_wait_for_one_that_is_stuck(server, local):
    async with dial(port(server), path("cat", "/dev/zero"), reads=False) as stuck:
        for number, kind in ((1, "error"), (3, "stdout"), (5, "stderr")):
            await stuck.send(spdy.SynStream(number, {"streamtype": kind}))
        await eventually(lambda: local.inside)
        async with asyncio.timeout(60), dial(port(server), path("echo", "quick")) as client:
            _, out, _ = await opened(client, "error", "stdout", "stderr")
            assert await out.all() == b"quick\n"


async def test_a_request_before_the_upgrade_is_closed_as_http(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", port(server))
    writer.write(request(path("id"), {}))
    assert b"400" in await reader.readline()
    writer.close()
