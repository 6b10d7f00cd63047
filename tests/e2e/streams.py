"""Pods to enter, and clients that do: kubectl over either of its transports, its terminal, what it forwards; raw ones."""

import contextlib
import fcntl
import os
import re
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
from pathlib import Path
from typing import Any

from tests.vkubelet.api.streaming.spdyclient import SpdyClient, dial

from .agents import Agent
from .pods import Pods, manifest
from .testbed import Testbed
from .waiting import wait_until

SECONDS = 180
MIB = 1024 * 1024
LARGE = 100 * MIB
TRANSPORTS = {"websocket": "true", "spdy": "false"}
FILES = 50
# Serves small files by their number, and a large one; at another port it gives back what it gets.
SERVER = f"""
mkdir /tmp/www && cd /tmp/www || exit
for n in $(seq 0 {FILES - 1}); do seq $n 4000 > $n; done
dd if=/dev/urandom of=large bs=1M count={LARGE // MIB} 2>/dev/null
nc -ll -p $ECHO -e cat &
echo ready
exec httpd -f -p 127.0.0.1:$PORT -h /tmp/www
"""
READER = "while read line; do echo got $line; done; exit 5"
# What an API server makes of kubectl's two transports, if the node lets WebSockets through.
SPOKEN = {
    ("exec", "websocket"): ("websocket", "v5.channel.k8s.io"),
    ("exec", "spdy"): ("spdy", "v4.channel.k8s.io"),
    ("portForward", "websocket"): ("websocket", "SPDY/3.1+portforward.k8s.io"),
    ("portForward", "spdy"): ("spdy", "portforward.k8s.io"),
}


class Place(Pods):
    """A namespace with pods that run: ``main`` serves ports and can be entered, ``reader-TRANSPORT`` read their input.

    ``token`` is of somebody who may everything on the kubelet's port. ``websockets``: whether the node declares them.
    """

    def __init__(self, testbed: Testbed, agent: Agent, namespace: str) -> None:
        super().__init__(testbed, agent, namespace)
        self.websockets = agent.settings.get("api", {}).get("websockets", True)
        self.files, self.echo = unused_port(), unused_port()

    def start(self) -> None:
        main = manifest("main", self.agent, "sh", "-c", SERVER)
        main["spec"]["containers"][0]["env"] = [
            {"name": "PORT", "value": str(self.files)},
            {"name": "ECHO", "value": str(self.echo)},
        ]
        readers = [manifest(f"reader-{transport}", self.agent, "sh", "-c", READER) for transport in TRANSPORTS]
        for reader in readers:
            reader["spec"]["containers"][0] |= {"stdin": True, "stdinOnce": True}
        self.apply(main, *readers)
        role = ("--clusterrole=system:kubelet-api-admin", f"--serviceaccount={self.namespace}:default")
        self.testbed.kubectl("create", "clusterrolebinding", self.namespace, *role)
        self.token = self.kubectl("create", "token", "default").strip()
        for pod in ("main", *(f"reader-{transport}" for transport in TRANSPORTS)):
            self.wait_phase(pod, "Running", seconds=SECONDS)
        wait_until("the server", lambda: "ready" in self.kubectl("logs", "main"), seconds=SECONDS)

    def end(self) -> None:
        self.testbed.kubectl("delete", "clusterrolebinding", self.namespace)
        self.kubectl("delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false")

    def environment(self, transport: str) -> dict[str, str]:
        value = TRANSPORTS[transport]
        asked = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": value, "KUBECTL_PORT_FORWARD_WEBSOCKETS": value}
        return self.testbed.environment | asked

    def argv(self, *words: str) -> list[str]:
        return ["kubectl", f"--namespace={self.namespace}", *words]

    def over(self, transport: str, *words: str, stdin: bytes | None = None) -> "subprocess.CompletedProcess[bytes]":
        """Run kubectl over one transport, to its end, whatever that is."""
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(
            self.argv(*words), env=self.environment(transport), capture_output=True, timeout=SECONDS, check=False, **given
        )  # fmt: skip

    def spoken(self, endpoint: str, transport: str) -> tuple[str, str]:
        """The transport and protocol that arrive at the port."""
        return SPOKEN[endpoint, transport if self.websockets else "spdy"]

    def ask(self, path: str, *, method: str = "GET") -> str:
        """What the port itself answers; an API server proxies to no node on a loopback address."""
        headers = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(f"https://127.0.0.1:{self.agent.port}{path}", None, headers, method=method)
        with urllib.request.urlopen(request, timeout=SECONDS, context=unverified()) as answer:  # noqa: S310
            return str(answer.read().decode())

    def streams(self, endpoint: str) -> dict[tuple[str, str], float]:
        """How many streams there have been, by transport and protocol."""
        pattern = rf'slurmlet_kubelet_streams_total{{endpoint="{endpoint}",protocol="(.*)",transport="(.*)"}} (.*)'
        return {(found[2], found[1]): float(found[3]) for found in re.finditer(pattern, self.ask("/metrics"))}

    def dial(
        self, path: str, *, version: str = "v4.channel.k8s.io", reads: bool = True
    ) -> "contextlib.AbstractAsyncContextManager[SpdyClient]":
        """Speak SPDY to the port itself: a client of which many cost little."""
        authorized = {"Authorization": f"Bearer {self.token}"}
        return dial(self.agent.port, path, version=version, reads=reads, tls=unverified(), headers=authorized)

    def processes(self, pod: str = "main") -> list[int]:
        """The processes of a pod's runner, of its helper step and of that step's srun, on this machine."""
        end = f"/{(self.get(pod) or {})['metadata']['uid']}".encode()
        first = _said_to(end)
        time.sleep(0.5)  # what the runner has forked says the same until it has become a container's program
        return sorted(first & _said_to(end))

    @contextlib.contextmanager
    def forwarded(self, transport: str, port: int) -> Iterator[tuple[int, Callable[[], str]]]:
        """A port of ``main`` here: which, and what kubectl has said."""
        words = self.argv("port-forward", "pod/main", f":{port}")
        with (
            tempfile.NamedTemporaryFile() as output,
            process(words, self.environment(transport), stdout=output, stderr=output),
        ):

            def said() -> str:
                return Path(output.name).read_text()

            found = wait_until("port-forward", lambda: re.search(r"127\.0\.0\.1:(\d+)", said()), seconds=SECONDS)
            assert found is not None
            yield int(found.group(1)), said


def _said_to(end: bytes) -> set[int]:
    """The processes with a word in their command line that ends so."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(word.endswith(end) for word in (process / "cmdline").read_bytes().split(b"\0")):
                found.add(int(process.name))
    return found


def rss(pid: int) -> int:
    """Bytes of memory that a process takes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024


def steady(*pids: int) -> bool:
    """Whether processes take in two seconds no more memory than before."""
    first = {pid: rss(pid) for pid in pids}
    time.sleep(2)
    return all(abs(rss(pid) - first[pid]) < MIB for pid in pids)


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def unverified() -> ssl.SSLContext:
    """Who we speak to is not the matter here."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@contextlib.contextmanager
def process(words: list[str], env: dict[str, str], **streams: Any) -> "Iterator[subprocess.Popen[bytes]]":
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, env=env, **quiet | streams) as started:
        try:
            yield started
        finally:
            started.kill()


class Terminal:
    """kubectl with a terminal of its own, and everything that was shown on it."""

    def __init__(self, place: Place, transport: str, *words: str) -> None:
        self._master, slave = os.openpty()
        self.resize(80, 24)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *place.argv(*words)],
            env=place.environment(transport), stdin=slave, stdout=slave, stderr=slave,
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
