"""What is wrong between the agent and Slurm is said three times over: in the log, in the node's condition, and by `slurmlet doctor`.

Everything is provoked for real. One agent has a node for each trouble on the way to Slurm; two more have a sidecar each.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from slurmlet.config import load
from slurmlet.demo import agent_configuration
from slurmlet.doctor import examine
from testbed.paths import Layout

from .agents import Agent
from .certificates import self_signed_client, serving_authority
from .sshdaemon import Gateway
from .testbed import PROJECT_ROOT, Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

BEFORE, LATER = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)
TOKEN = "of-this-test"
FIRST = 32
"""The agents' indexes: of the one with many nodes, which take as many ports, and of the two with sidecars."""
SIDECARS = {"wrong-ca": 41, "wrong-token": 42, "wrong-certificate": 43}

# The trouble, and what all three places must say; the places in braces are the test's own.
SAID = {
    "ssh-key": ("does not accept {gateway}/stranger:", "authorized_keys"),
    "host-key": ("the host key of", "has changed", "{directory}/known_other, line 1", "replace that line"),
    "certificate": ("the certificate of {gateway}/expired (it was valid until", "renew it"),
    "expired-jwt": ("refuses alice's token ({directory}/expired.jwt;", "it expired at", "renew it"),
    "wrong-jwt": ("refuses alice's token ({directory}/wrong.jwt;", "signed with the jwt_key"),
    "full": ("{directory}/full", "No space left on device (make room there)"),
    "read-only": ("{directory}/read-only", "Read-only file system (it is mounted for reading only there)"),
    "wrong-ca": ("the sidecar at https://127.0.0.1:", "its certificate is not believed", "{directory}/other-ca.crt"),
    "wrong-token": ("does not believe our token ({directory}/old-token)", "the sidecar's own token_file"),
    "wrong-certificate": ("it may refuse our certificate, {directory}/stranger.pem", "client_ca_file"),
}


class Troubles:
    """Files and file systems, each wrong in its way, and the agents that meet them."""

    def __init__(self, testbed: Testbed, gateway: Gateway) -> None:
        layout = Layout.from_environment()
        self.testbed, self.gateway = testbed, gateway
        self.directory = layout.share / f"wrong-{gateway.port}"
        self.directory.mkdir(exist_ok=True)
        self.directory.chmod(0o755)
        self.enter = ("nsenter", "-t", testbed.environment["SLURMLET_TESTBED_SITE_PID"], "-m", "--")
        self.mounts: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.agents = {
            name: Agent(testbed, "ssh", index=index, settings={"slurm": None, "sidecar": self._sidecar(name)})
            for name, index in SIDECARS.items()
        }
        self.many = Agent(testbed, "ssh", index=FIRST, settings={"slurm": self._reached(), **self._nodes()})

    def node(self, trouble: str) -> str:
        return self.agents[trouble].node if trouble in self.agents else f"e2e-wrong-{trouble}"

    def agent(self, trouble: str) -> Agent:
        return self.agents.get(trouble, self.many)

    def wait_said(self, trouble: str, status: str, *parts: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait until the node's condition says all these; ``meanwhile`` is done before each look."""
        said = ""

        def condition() -> bool:
            nonlocal said
            meanwhile()
            node = self.testbed.get("node", self.node(trouble))
            found = [] if node is None else node["status"].get("conditions") or []
            said = "; ".join(f"{c['status']}: {c['message']}" for c in found if c["type"] == "SlurmReachable")
            return said.startswith(f"{status}: ") and all(part in said for part in parts)

        try:
            wait_until("the condition", condition, seconds=90)
        except AssertionError as error:
            raise AssertionError(f"{status}: {parts} is not in the condition: {said}") from error

    # --- the ways ---

    def _base(self) -> dict[str, Any]:
        said = agent_configuration(self.testbed.environment, node="x", port=1, directory=self.directory)
        slurm: dict[str, Any] = said["slurm"] | {"root": "{home}/.slurmlet/{node}"}
        return slurm

    def _reached(self) -> dict[str, Any]:
        return {"root": "{home}/.slurmlet/{node}"}

    def _nodes(self) -> dict[str, Any]:
        clusters = self._clusters() | {"fills": self._growing()}
        nodes = [{"name": self.node(trouble), "cluster": trouble} for trouble in clusters]
        return {"nodes": nodes, "clusters": {name: {"slurm": slurm} for name, slurm in clusters.items()}}

    def _clusters(self) -> dict[str, dict[str, Any]]:
        base, gateway = self._base(), self.gateway
        own = str(Path(base["host"]["key_file"]))
        known, other = self.directory / "known", self.directory / "known_other"
        name = f"[127.0.0.1]:{gateway.port}"
        known.write_text(f"{name} {gateway.public(gateway.host_key)}\n")
        other.write_text(f"{name} {gateway.public(gateway.user_ca)}\n")
        stranger, expired = gateway.key("stranger"), gateway.key("expired")
        gateway.certify_user(expired, "alice", validity="-2h:-1h")
        there = base["host"] | {"port": gateway.port, "known_hosts_file": str(known)}
        return {
            "ssh-key": base | {"host": there | {"key_file": str(stranger)}},
            "host-key": base | {"host": there | {"key_file": own, "known_hosts_file": str(other)}},
            "certificate": base | {"host": there | {"key_file": str(expired)}},
            "expired-jwt": base | {"client": self._token("expired", self._jwt_key(), -60)},
            "wrong-jwt": base | {"client": self._token("wrong", b"not the cluster's key", 3600)},
            "full": base | {"root": f"{self._fill(self._mount('full'))}/{{node}}"},
            "read-only": base | {"root": f"{self._mount('read-only', options=',ro')}/{{node}}"},
        }

    def _growing(self) -> dict[str, Any]:
        """A root with room, for now."""
        return self._base() | {"root": f"{self._mount('fills', size='4m')}/{{node}}"}

    def _jwt_key(self) -> bytes:
        done = subprocess.run((*self.enter, "cat", "/etc/slurm/jwt.key"), capture_output=True, check=True, timeout=30)
        return done.stdout

    def _token(self, name: str, key: bytes, seconds: int) -> dict[str, Any]:
        now = int(time.time())
        claims = {"exp": now + seconds, "iat": now - 3600, "sun": "alice"}
        body = ".".join(_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        token = f"{body}.{_base64(hmac.new(key, body.encode(), hashlib.sha256).digest())}"
        path = self.directory / f"{name}.jwt"
        path.write_text(token)
        url = self.testbed.environment["SLURMLET_TESTBED_SLURMRESTD"]
        return {"kind": "rest", "url": url, "token_file": str(path)}

    def _mount(self, name: str, *, size: str = "64k", options: str = "") -> str:
        path = f"{self.directory}/{name}"
        Path(path).mkdir(exist_ok=True)
        uid = self.testbed.run(*self.enter, "id", "-u", "alice").stdout.strip()
        words = f"size={size},mode=755,uid={uid}{options}"
        self.testbed.run(*self.enter, "mount", "-t", "tmpfs", "-o", words, "tmpfs", path)
        self.mounts.append(path)
        return path

    def _fill(self, path: str) -> str:
        self.testbed.run(*self.enter, "sh", "-c", f"cat /dev/zero >> {path}/ballast", check=False)
        return path

    def fill(self) -> None:
        self._fill(f"{self.directory}/fills")

    def empty(self) -> None:
        self.testbed.run(*self.enter, "rm", f"{self.directory}/fills/ballast")

    # --- sidecars ---

    def _sidecar(self, trouble: str) -> dict[str, Any]:
        authority = serving_authority().pair.certificate
        other = self.directory / "other-ca.crt"
        other.write_bytes(Path(self.testbed.environment["SLURMLET_TESTBED_KUBELET_CLIENT_CA"]).read_bytes())
        token = self.directory / ("old-token" if trouble == "wrong-token" else "token")
        token.write_text("which the sidecar believed once" if trouble == "wrong-token" else TOKEN)
        own = self.directory / ("stranger.pem" if trouble == "wrong-certificate" else "agent.pem")
        if trouble == "wrong-certificate":
            self_signed_client(own, "system:nodes")
        else:
            serving_authority().write(own, "agent", "127.0.0.1", since=BEFORE, until=LATER)
        return {
            "url": f"https://127.0.0.1:{self.sidecar_port}",
            "ca_file": str(other if trouble == "wrong-ca" else authority),
            "token_file": str(token),
            "certificate": {"certificate_file": str(own), "key_file": str(own)},
        }

    @property
    def sidecar_port(self) -> int:
        return self.gateway.port - 1

    def start_sidecar(self) -> None:
        pair = self.directory / "sidecar.pem"
        serving_authority().write(pair, "sidecar", "127.0.0.1", since=BEFORE, until=LATER)
        tokens = self.directory / "tokens"
        tokens.write_text(TOKEN)
        path = self.directory / "sidecar.yaml"
        serve = {
            "port": self.sidecar_port,
            "certificate": {"certificate_file": str(pair), "key_file": str(pair)},
            "client_ca_file": str(serving_authority().pair.certificate),
            "token_file": str(tokens),
        }
        path.write_text(yaml.safe_dump({"serve": serve, "slurm": self._base()}))
        words = (
            "setpriv",
            "--pdeathsig=KILL",
            "--",
            sys.executable,
            "-m",
            "slurmlet",
            "sidecar",
            "--config",
            str(path),
        )
        with (self.directory / "sidecar.log").open("ab") as log:
            started = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=PROJECT_ROOT)
        self.processes.append(started)
        wait_until("the sidecar to listen", self._listens)

    def _listens(self) -> bool:
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", self.sidecar_port)) == 0

    # --- all of it ---

    def start(self) -> None:
        self.start_sidecar()
        for agent in (self.many, *self.agents.values()):
            agent.log.unlink(missing_ok=True)
            agent.start()

    def stop(self) -> None:
        for agent in (self.many, *self.agents.values()):
            agent.kill()
        for process in self.processes:
            process.terminate()
            process.wait(30)
        for path in self.mounts:
            self.testbed.run(*self.enter, "umount", "--lazy", path)
        for trouble in (*SAID, "fills"):
            self.testbed.kubectl("delete", "node", self.node(trouble), "--ignore-not-found", "--wait=false")


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@pytest.fixture(scope="module")
def troubles(testbed: Testbed) -> Iterator[Troubles]:
    gateway = Gateway(testbed)
    gateway.start()
    try:
        troubles = Troubles(testbed, gateway)
        try:
            troubles.start()
            yield troubles
        finally:
            troubles.stop()
    finally:
        gateway.stop()


@pytest.fixture(scope="module")
def doctors(troubles: Troubles) -> str:
    """What `slurmlet doctor` says to all the configurations."""

    async def ask(agent: Agent) -> list[str]:
        return [str(finding) async for finding in examine(load(agent.directory / "slurmlet.yaml"))]

    async def ask_all() -> list[list[str]]:
        return await asyncio.gather(*(ask(agent) for agent in (troubles.many, *troubles.agents.values())))

    return "\n".join(line for lines in asyncio.run(ask_all()) for line in lines if line.startswith("FAIL"))


@pytest.mark.parametrize("trouble", SAID)
def test_what_is_wrong_is_said_in_the_condition_in_the_log_and_by_the_doctor(
    troubles: Troubles, doctors: str, trouble: str
) -> None:
    places = {"directory": troubles.directory, "gateway": troubles.gateway.directory}
    parts = [part.format_map(places) for part in SAID[trouble]]
    troubles.wait_said(trouble, "False", *parts)
    log = troubles.agent(trouble).log.read_text()
    assert any(all(part in line for part in parts) for line in log.splitlines()), log[-5000:]
    assert any(all(part in line for part in parts) for line in doctors.splitlines()), doctors


def test_a_root_that_fills_up_is_said_until_there_is_room_again(troubles: Troubles) -> None:
    troubles.wait_said("fills", "True")
    # A file that the agent writes just then, to see whether it can, leaves room when it is removed: fill that too.
    troubles.wait_said(
        "fills", "False", f"root: {troubles.directory}/fills/", "No space left on device", meanwhile=troubles.fill
    )
    troubles.empty()
    troubles.wait_said("fills", "True")
