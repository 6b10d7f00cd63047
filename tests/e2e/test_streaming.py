"""exec, cp, attach, run -it, port-forward with the real kubectl over both of its transports, and the Python client."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import socket
import ssl
import struct
import subprocess
import tempfile
import termios
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .agents import Agent
from .pods import Pods, make_pods, manifest, placed
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SECONDS = 180
MIB = 1024 * 1024
TRANSPORTS = {"websocket": "true", "spdy": "false"}
FILES = 50
# Serves small files by their number, and a large one.
SERVER = """
mkdir /tmp/www && cd /tmp/www || exit
for n in $(seq 0 {last}); do seq $n 4000 > $n; done
dd if=/dev/urandom of=large bs=1M count={mib} 2>/dev/null
echo ready
exec httpd -f -p 127.0.0.1:{port} -h /tmp/www
"""


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def place(testbed: Testbed, agent: Agent) -> Iterator[Pods]:
    """A namespace with three pods that run: busybox with a shell to enter, one that reads its input, a server."""
    with contextlib.contextmanager(make_pods)(testbed, agent) as pods:
        reader = manifest("reader", agent, "sh", "-c", "while read line; do echo got $line; done; exit 5")
        reader["spec"]["containers"][0] |= {"stdin": True, "stdinOnce": True}
        port = unused_port()
        script = SERVER.format(last=FILES - 1, mib=100 if agent.host == "local" else 5, port=port)
        server = manifest("server", agent, "sh", "-c", script)
        server["metadata"]["labels"] = {"port": str(port)}
        pods.apply(manifest("main", agent, "sleep", "3600"), reader, server)
        for name in ("main", "reader", "server"):
            pods.wait_phase(name, "Running", seconds=SECONDS)
        yield pods
        pods.kubectl("delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false")


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(pods: Pods, transport: str) -> dict[str, str]:
    value = TRANSPORTS[transport]
    asked = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": value, "KUBECTL_PORT_FORWARD_WEBSOCKETS": value}
    return pods.testbed.environment | asked


def argv(pods: Pods, *words: str) -> list[str]:
    return ["kubectl", f"--namespace={pods.namespace}", *words]


def kubectl(
    pods: Pods, transport: str, *words: str, stdin: bytes | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run kubectl over one transport, to its end, whatever that is."""
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run(
        argv(pods, *words), env=environment(pods, transport), capture_output=True, timeout=SECONDS, check=False, **given
    )


def test_a_command_has_its_outputs_its_exit_code_and_an_end_of_its_input(place: Pods, transport: str) -> None:
    done = kubectl(place, transport, "exec", "main", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, b"out\n")
    assert done.stderr.startswith(b"err\n")
    done = kubectl(place, transport, "exec", "-i", "main", "--", "wc", "-c", stdin=b"12345")
    assert (done.returncode, done.stdout.strip()) == (0, b"5")
    done = kubectl(place, transport, "exec", "main", "--", "/no/such/program")
    assert done.returncode != 0
    assert b"/no/such/program" in done.stderr


def test_bytes_go_in_and_out_unchanged(place: Pods, transport: str) -> None:
    # All of the way once, where it is fast: SSH is what it is on a busy machine.
    size = 100 * MIB if (place.agent.host, transport) == ("local", "websocket") else 5 * MIB
    data = secrets.token_bytes(size)
    done = kubectl(place, transport, "exec", "-i", "main", "--", "cat", stdin=data)
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(done.stdout).hexdigest() == hashlib.sha256(data).hexdigest()


def test_files_are_copied_both_ways(place: Pods, transport: str, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(data := secrets.token_bytes(MIB))
    there = kubectl(place, transport, "cp", str(tmp_path / "there"), f"main:/tmp/{transport}")
    assert there.returncode == 0, there.stderr
    back = kubectl(place, transport, "cp", f"main:/tmp/{transport}", str(tmp_path / "back"))
    assert back.returncode == 0, back.stderr
    assert (tmp_path / "back").read_bytes() == data


class Terminal:
    """kubectl with a terminal of its own, and everything that was shown on it."""

    def __init__(self, pods: Pods, transport: str, *words: str) -> None:
        self._master, slave = os.openpty()
        self.resize(80, 24)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *argv(pods, *words)],
            env=environment(pods, transport), stdin=slave, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        self.shown = b""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 4096):
                self.shown += data

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_shown(self, text: bytes, *, ask: str = "") -> None:
        def there() -> bool:
            if text not in self.shown and ask:
                self.type(ask)
            return text in self.shown

        wait_until(f"{text!r} on the terminal", there, seconds=SECONDS, every=0.5)

    def end(self) -> int:
        code = self.process.wait(SECONDS)
        os.close(self._master)
        return code


def test_a_terminal_has_the_size_of_the_users_and_follows_it(place: Pods, transport: str) -> None:
    terminal = Terminal(place, transport, "exec", "-it", "main", "--", "sh")
    terminal.wait_shown(b"24 80", ask="stty size\n")
    terminal.resize(99, 33)
    terminal.wait_shown(b"33 99", ask="stty size\n")
    terminal.type("exit 3\n")
    assert terminal.end() == 3


def test_run_it_rm_is_a_session_that_leaves_nothing(place: Pods, transport: str) -> None:
    name = f"session-{transport}"
    overrides = {"apiVersion": "v1", "spec": placed(place.agent)}
    words = ("run", name, "-it", "--rm", "--restart=Never", "--image=busybox:1.36", "--pod-running-timeout=2m")
    terminal = Terminal(place, transport, *words, f"--overrides={json.dumps(overrides)}", "--", "sh")
    terminal.wait_shown(b"answer 42", ask="echo answer $((6*7))\n")
    terminal.type("exit\n")
    assert terminal.end() == 0
    place.wait_gone(name)


def test_a_client_attached_to_a_pod_gives_it_its_input(place: Pods) -> None:
    attached = kubectl(place, "spdy", "attach", "-i", "reader", stdin=b"one\ntwo\n")
    assert b"got one\ngot two\n" in attached.stdout
    place.wait_phase("reader", "Failed")
    assert place.terminated("reader")["exitCode"] == 5


@contextlib.contextmanager
def forwarded(pods: Pods, transport: str, port: int) -> Iterator[tuple[str, Callable[[], str]]]:
    """A port of the pod `server` here: where, and what kubectl has said."""
    words = argv(pods, "port-forward", "pod/server", f":{port}")
    with (
        tempfile.NamedTemporaryFile() as output,
        _process(words, environment(pods, transport), stdout=output, stderr=output),
    ):

        def said() -> str:
            return Path(output.name).read_text()

        found = wait_until("port-forward", lambda: re.search(r"127\.0\.0\.1:(\d+)", said()), seconds=SECONDS)
        assert found is not None
        yield f"http://127.0.0.1:{found.group(1)}", said


def download(url: str, name: object) -> str:
    """The SHA-256 of what is served."""
    with urllib.request.urlopen(f"{url}/{name}", timeout=SECONDS) as answer:  # noqa: S310
        return hashlib.sha256(answer.read()).hexdigest()


def small(number: int) -> str:
    text = "".join(f"{line}\n" for line in range(number, 4001))
    return hashlib.sha256(text.encode()).hexdigest()


def server_port(pods: Pods) -> int:
    wait_until("the server", lambda: "ready" in pods.kubectl("logs", "server"), seconds=SECONDS)
    pod = pods.get("server")
    assert pod is not None
    return int(pod["metadata"]["labels"]["port"])


def test_many_connections_are_forwarded_at_once(place: Pods, transport: str) -> None:
    connections = FILES if (place.agent.host, transport) == ("local", "spdy") else 10
    with forwarded(place, transport, server_port(place)) as (url, said), ThreadPoolExecutor(connections) as executor:
        numbers = range(connections)
        assert list(executor.map(download, [url] * connections, numbers)) == [small(n) for n in numbers], said()


def test_a_large_file_is_forwarded_unchanged(place: Pods) -> None:
    with forwarded(place, "websocket", server_port(place)) as (url, said):
        assert download(url, "large") == place.kubectl("exec", "server", "--", "sha256sum", "/tmp/www/large")[:64], (
            said()
        )


def test_a_port_where_nobody_listens_leaves_a_clear_error(place: Pods, transport: str) -> None:
    with forwarded(place, transport, 1) as (url, said):
        with pytest.raises(OSError):
            download(url, 0)
        wait_until("an error", lambda: "error forwarding port 1 to pod" in said(), seconds=SECONDS)
        assert "refused" in said()


def rss(agent: Agent) -> int:
    """Bytes of memory that the agent takes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{agent.pid}/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024


def test_twenty_commands_run_at_once_while_two_clients_are_stuck_and_memory_stays_bounded(
    place: Pods, transport: str
) -> None:
    kubectl(place, transport, "exec", "main", "--", "true")
    before = rss(place.agent)
    output = argv(place, "exec", "main", "--", "dd", "if=/dev/zero", "bs=1M", "count=100")
    to_nobody = argv(place, "exec", "-i", "main", "--", "sleep", "600")
    with (
        Path("/dev/zero").open("rb") as zeros,
        _process(output, environment(place, transport), stdout=subprocess.PIPE) as deaf,
        _process(to_nobody, environment(place, transport), stdin=zeros),
        ThreadPoolExecutor(20) as executor,
    ):
        assert deaf.stdout is not None
        assert deaf.stdout.read(1) == b"\0"  # and not one more

        def one(number: int) -> bool:
            done = kubectl(place, transport, "exec", "main", "--", "sh", "-c", f"echo {number}; exit {number}")
            return (done.returncode, done.stdout) == (number, b"%d\n" % number)

        assert all(executor.map(one, range(20)))
        wait_until("memory to settle", lambda: _steady(lambda: rss(place.agent)), seconds=SECONDS, every=1)
        assert rss(place.agent) - before < 64 * MIB


@contextlib.contextmanager
def _process(words: list[str], env: dict[str, str], **streams: Any) -> "Iterator[subprocess.Popen[bytes]]":
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, env=env, **quiet | streams) as process:
        try:
            yield process
        finally:
            process.kill()


def _steady(measure: Callable[[], int]) -> bool:
    first = measure()
    time.sleep(2)
    return abs(measure() - first) < MIB


def test_the_node_declares_what_lets_websockets_through(place: Pods) -> None:
    node = place.testbed.get("node", place.agent.node)
    assert node is not None
    assert node["status"]["declaredFeatures"] == ["ExtendWebSocketsToKubelet"]


def test_the_python_client_runs_commands(place: Pods) -> None:
    kubernetes = pytest.importorskip("kubernetes")
    from kubernetes.stream import stream

    kubernetes.config.load_kube_config(place.testbed.environment["KUBECONFIG"])
    core = kubernetes.client.CoreV1Api()
    asked = {"stderr": True, "stdin": True, "stdout": True, "tty": False, "container": "main"}
    script = "read line; echo got $line; echo err >&2; exit 4"
    session = stream(
        core.connect_get_namespaced_pod_exec, "main", place.namespace,
        command=["sh", "-c", script], _preload_content=False, **asked,
    )  # fmt: skip
    session.write_stdin("this\n")
    session.run_forever(timeout=SECONDS)
    assert (session.read_stdout(), session.read_stderr(), session.returncode) == ("got this\n", "err\n", 4)
    session.close()
    if session.sock.sock is not None:
        session.sock.sock.close()  # which the client leaves to the garbage collector
    core.api_client.close()


def test_the_run_endpoint_answers_with_the_output(place: Pods) -> None:
    # Asked of the kubelet's port itself: an API server proxies to no node on a loopback address.
    kubectl, user = place.testbed.kubectl, f"{place.namespace}:default"
    kubectl(
        "create",
        "clusterrolebinding",
        place.namespace,
        "--clusterrole=system:kubelet-api-admin",
        f"--serviceaccount={user}",
    )
    try:
        token = place.kubectl("create", "token", "default").strip()
        path = f"/run/{place.namespace}/main/main?cmd=echo%20one%20two"
        assert wait_until("the right to be known", lambda: post(place.agent, path, token), every=1) == "one two\n"
    finally:
        kubectl("delete", "clusterrolebinding", place.namespace)


def post(agent: Agent, path: str, token: str) -> str:
    """The body, "" while it is forbidden. Who we speak to is not the matter here."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    headers = {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"https://127.0.0.1:{agent.port}{path}", b"", headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS, context=context) as answer:  # noqa: S310
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        if error.code == 403:
            return ""
        raise
