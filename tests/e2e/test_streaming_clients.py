"""Clients that are not kubectl: the official Python client, raw WebSockets of protocols that few speak, and rude ones."""

import asyncio
import base64
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.vkubelet.api.streaming.spdyclient import SpdyClient, request
from tests.vkubelet.api.streaming.test_hostile import MALFORMED
from vkubelet.api.streaming import spdy
from vkubelet.credentials import load_access

from .agents import Agent
from .pods import make_pods
from .streams import FILES, MIB, SECONDS, Place, rss, steady, unverified
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


# For each of the identities that an agent may have, and of its ways into a pod.
both = pytest.mark.parametrize("place", ["ssh_agent", "local_agent"], indirect=True, scope="module")


@pytest.fixture(scope="module", params=["ssh_agent"])
def place(testbed: Testbed, request: pytest.FixtureRequest) -> Iterator[Place]:
    agent: Agent = request.getfixturevalue(request.param)
    with contextlib.contextmanager(make_pods)(testbed, agent) as pods:
        made = Place(testbed, pods.agent, pods.namespace)
        made.start()
        yield made
        made.end()


class PythonClient:
    """The official client's ``stream()``."""

    def __init__(self, place: Place) -> None:
        kubernetes = pytest.importorskip("kubernetes")
        kubernetes.config.load_kube_config(place.testbed.environment["KUBECONFIG"])
        self.core = kubernetes.client.CoreV1Api()
        self._place = place

    @contextlib.contextmanager
    def session(self, call: str, pod: str = "main", **asked: Any) -> Iterator[Any]:
        from kubernetes.stream import stream

        streams = {"stderr": True, "stdin": True, "stdout": True, "tty": False, "container": "main"}
        method = getattr(self.core, f"connect_get_namespaced_pod_{call}")
        session = stream(method, pod, self._place.namespace, _preload_content=False, **streams | asked)
        try:
            yield session
        finally:
            session.close()
            if session.sock.sock is not None:
                session.sock.sock.close()  # which the client leaves to the garbage collector


@pytest.fixture
def client(place: Place) -> Iterator[PythonClient]:
    made = PythonClient(place)
    yield made
    made.core.api_client.close()


@pytest.mark.checklist(47)
@both
def test_the_python_client_runs_commands(client: PythonClient) -> None:
    script = "read line; echo got $line; echo err >&2; exit 4"
    with client.session("exec", command=["sh", "-c", script]) as session:
        session.write_stdin("this\n")
        session.run_forever(timeout=SECONDS)
        assert (session.read_stdout(), session.read_stderr(), session.returncode) == ("got this\n", "err\n", 4)


@pytest.mark.checklist(47)
def test_the_python_client_has_a_terminal_and_changes_its_size(client: PythonClient) -> None:
    script = "while [ \"$(stty size)\" != '33 99' ]; do sleep 0.1; done; exit 3"
    with client.session("exec", command=["sh", "-c", script], tty=True) as session:
        session.write_channel(4, json.dumps({"Width": 99, "Height": 33}))
        session.run_forever(timeout=SECONDS)
        assert session.returncode == 3


@pytest.mark.checklist(47)
def test_the_python_client_attaches(client: PythonClient, place: Place) -> None:
    with client.session("attach", "reader-spdy") as session:
        session.write_stdin("one\n")
        assert session.readline_stdout(timeout=SECONDS) == "got one"
    place.wait_phase("reader-spdy", "Failed")


@pytest.mark.checklist(47)
def test_the_python_client_moves_megabytes_both_ways(client: PythonClient, place: Place) -> None:
    """Fewer than kubectl does: this client masks each byte in Python."""
    piece, pieces = hashlib.sha256(b"piece").digest() * 32768, 16  # of 1 MiB
    size = pieces * len(piece)
    with client.session("exec", command=["sh", "-c", f"head -c {size} | sha256sum"]) as session:
        for _ in range(pieces):
            session.write_stdin(piece)
        session.run_forever(timeout=SECONDS)
        assert session.read_stdout()[:64] == hashlib.sha256(piece * pieces).hexdigest()
    got = hashlib.sha256()
    command = ["head", "-c", str(size), "/tmp/www/large"]
    with client.session("exec", command=command, stdin=False, binary=True) as session:
        while session.is_open():
            session.update(timeout=SECONDS)
            got.update(session.read_stdout(timeout=0))
        assert session.returncode == 0
    sum_there = place.kubectl("exec", "main", "--", "sh", "-c", f"head -c {size} /tmp/www/large | sha256sum")
    assert got.hexdigest() == sum_there[:64]


@pytest.mark.checklist(47, 50)
def test_the_python_client_forwards_a_port(client: PythonClient, place: Place) -> None:
    from kubernetes.stream import portforward

    method = client.core.connect_get_namespaced_pod_portforward
    forwarded = portforward(method, "main", place.namespace, ports=str(place.files))
    connection = forwarded.socket(place.files)
    connection.sendall(b"GET /%d HTTP/1.0\r\n\r\n" % (FILES - 1))
    answer = b""
    while data := connection.recv(65536):
        answer += data
    forwarded.close()
    forwarded.websocket.shutdown()  # which the client leaves to the garbage collector
    assert answer.endswith(b"\n3999\n4000\n")
    assert forwarded.error(place.files) is None


# --- raw WebSockets, through the API server ---------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def raw(place: Place, path: str, protocol: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A WebSocket to the pod ``main``, as the administrator."""
    access = await load_access(Path(place.testbed.environment["KUBECONFIG"]), None)
    url = f"{access.server}/api/v1/namespaces/{place.namespace}/pods/main/{path}"
    headers = await access.headers()
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, protocols=(protocol,), ssl=access.tls, headers=headers) as socket,
    ):
        yield socket


@pytest.mark.checklist(46)
@pytest.mark.parametrize("protocol", ["channel.k8s.io", "base64.channel.k8s.io", "v4.base64.channel.k8s.io"])
async def test_old_channel_protocols_carry_a_command_through_the_api_server(place: Place, protocol: str) -> None:
    words = "command=sh&command=-c&command=echo%20out%0Aexit%207&stdout=true&stderr=true"
    found: dict[int, bytes] = {}
    async with asyncio.timeout(SECONDS), raw(place, f"exec?{words}", protocol) as socket:
        assert socket.protocol == protocol
        async for message in socket:
            channel, data = decoded(message)
            found[channel] = found.get(channel, b"") + data
    assert found[1] == b"out\n"
    assert b"exit code: 7" in found[3]
    assert ("websocket", protocol) in place.streams("exec")


@pytest.mark.checklist(50)
@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v4.base64.channel.k8s.io"])
async def test_channels_carry_forwarded_ports_through_the_api_server(place: Place, protocol: str) -> None:
    found = b""
    async with asyncio.timeout(SECONDS), raw(place, f"portforward?ports={place.files}", protocol) as socket:
        ports = [decoded(await socket.receive()) for _ in range(2)]
        assert ports == [(channel, place.files.to_bytes(2, "little")) for channel in (0, 1)]
        asked = b"GET /0 HTTP/1.0\r\n\r\n"
        if "base64" in protocol:
            await socket.send_str("0" + base64.b64encode(asked).decode())
        else:
            await socket.send_bytes(b"\0" + asked)
        async for message in socket:
            found += decoded(message)[1]
    assert found.endswith(b"\n3999\n4000\n")
    assert ("websocket", protocol) in place.streams("portForward")


def decoded(message: aiohttp.WSMessage) -> tuple[int, bytes]:
    """Channel and data."""
    if message.type == aiohttp.WSMsgType.TEXT:
        return int(message.data[0]), base64.b64decode(message.data[1:])
    return message.data[0], message.data[1:]


@both
def test_the_run_endpoint_answers_with_the_output(place: Place) -> None:
    path = f"/run/{place.namespace}/main/main?cmd=echo%20one%20two"
    assert place.ask(path, method="POST") == "one two\n"


# --- the kubelet's port itself ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", sorted(MALFORMED))
async def test_the_agents_own_port_closes_on_malformed_frames_with_a_line_in_its_log(place: Place, what: str) -> None:
    begun = place.agent.log.stat().st_size
    path = f"/portForward/{place.namespace}/main"
    async with asyncio.timeout(SECONDS), place.dial(path, version="portforward.k8s.io") as client:
        client.writer.write(MALFORMED[what])
        await client.gone.wait()
    assert b"connection closed: " in place.agent.log.read_bytes()[begun:]


# --- many who are stuck -----------------------------------------------------------------------------------------------

STUCK = 21
# Of each stream a window waits in a process, another one is on its way to the client, and TLS holds some of that.
STUCK_BYTES = STUCK * 3 * MIB + 16 * MIB


async def open_blindly(client: SpdyClient, *streams: dict[str, str]) -> None:
    for number, headers in enumerate(streams):
        await client.send(spdy.SynStream(1 + 2 * number, headers))


async def stuck_command(place: Place, stack: contextlib.AsyncExitStack) -> None:
    words = f"/exec/{place.namespace}/main/main?command=cat&command=/dev/zero&output=1"
    client = await stack.enter_async_context(place.dial(words, reads=False))
    await open_blindly(client, {"streamtype": "error"}, {"streamtype": "stdout"})


async def stuck_port(place: Place, stack: contextlib.AsyncExitStack) -> None:
    words = f"/portForward/{place.namespace}/main"
    client = await stack.enter_async_context(place.dial(words, version="portforward.k8s.io", reads=False))
    named = {"port": str(place.files), "requestid": "0"}
    await open_blindly(client, named | {"streamtype": "error"}, named | {"streamtype": "data"})
    await client.send(spdy.Data(3, b"GET /large HTTP/1.0\r\n\r\n"))


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def stuck_follower(place: Place, stack: contextlib.AsyncExitStack) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.agent.port, ssl=unverified(), limit=1024)
    stack.push_async_callback(hang_up, writer)
    path = f"/containerLogs/{place.namespace}/chatty/main?follow=true"
    writer.write(request(path, {"Authorization": f"Bearer {place.token}"}, method="GET"))
    assert b" 200 " in await reader.readline()


@pytest.mark.checklist(45, 46, 50)
@both
async def test_clients_that_read_nothing_take_bounded_memory_and_stop_nobody(place: Place) -> None:
    """Endless output of commands, 100 MB from a port and a log of 40 MiB wait for those who take nothing of them."""
    chatty = "i=0; while [ $i -lt 160 ]; do i=$((i+1)); head -c 262144 /dev/zero | tr '\\0' x | fold -w 1023; sleep 0.1; done"
    place.run("chatty", "sh", "-c", f"{chatty}; echo; sleep 600")
    place.wait_phase("chatty", "Running", seconds=SECONDS)
    place.over("spdy", "exec", "main", "--", "true")  # the helper step is there
    before = {pid: rss(pid) for pid in (place.agent.pid, *place.processes("main"), *place.processes("chatty"))}
    assert len(before) >= 4, "the agent, two runners and a helper"
    async with asyncio.timeout(SECONDS), contextlib.AsyncExitStack() as stack:
        for stuck in (stuck_command, stuck_port, stuck_follower) * (STUCK // 3):
            await stuck(place, stack)
        begun = time.monotonic()
        done = await asyncio.to_thread(place.over, "spdy", "exec", "main", "--", "echo", "quick")
        print(f"another's command took {time.monotonic() - begun:.2f} s")
        assert (done.returncode, done.stdout) == (0, b"quick\n")
        await asyncio.to_thread(wait_until, "memory to settle", lambda: steady(*before), seconds=SECONDS, every=0.1)
        grown = {pid: (rss(pid) - was) / MIB for pid, was in before.items()}
        print("MiB grown by:", {pid: round(value, 1) for pid, value in grown.items()})
        assert max(grown.values()) * MIB < STUCK_BYTES
