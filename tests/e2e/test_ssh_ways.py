"""Ways in over SSH that sites have: through gateways, with certificates on either side, with an SSH agent. All by real sshds."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm_plugin.errors import HostError
from slurm_plugin.hosts.ssh import SSHHost
from slurm_plugin.hosts.sshlogin import Login

from .sshdaemon import Gateway
from .testbed import Testbed
from .waiting import wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def gateway(testbed: Testbed) -> Iterator[Gateway]:
    gateway = Gateway(testbed)
    gateway.start()
    yield gateway
    gateway.stop()


@pytest.fixture
def known(gateway: Gateway, tmp_path: Path) -> Path:
    """The gateway's plain key alone."""
    path = tmp_path / "known_hosts"
    path.write_text(f"[127.0.0.1]:{gateway.port} {gateway.public(gateway.host_key)}\n")
    return path


def own_key(testbed: Testbed, person: str) -> str:
    """The key that the testbed gave to somebody."""
    return str(Path(testbed.environment["SLURMLET_TESTBED_SSH_KEY"]).with_name(person))


def at_gateway(gateway: Gateway, known: Path, user: str, **options: object) -> SSHHost:
    arguments: dict[str, object] = {"port": gateway.port, "user": user, "known_hosts_files": (str(known),)}
    return SSHHost("127.0.0.1", **{**arguments, **options})  # type: ignore[arg-type]


def hop(gateway: Gateway, known: Path, user: str, key: str) -> Login:
    return Login("127.0.0.1", gateway.port, user, (key,), (str(known),), 15, 30)


def beyond(testbed: Testbed, *hops: Login) -> SSHHost:
    """alice on the login node."""
    variables = {name.removeprefix("SLURMLET_TESTBED_SSH_"): value for name, value in testbed.environment.items()}
    return SSHHost(
        variables["HOST"], port=int(variables["PORT"]), user=variables["USER"], key_files=(variables["KEY"],),
        known_hosts_files=(variables["KNOWN_HOSTS"],), proxy_jump=hops,
    )  # fmt: skip


async def user_of(host: SSHHost) -> str:
    try:
        return await host.user()
    finally:
        await host.close()


async def refusal(host: SSHHost) -> str:
    with pytest.raises(HostError) as refused:
        await user_of(host)
    return str(refused.value)


async def test_two_gateways_each_with_a_user_and_key_of_its_own(
    testbed: Testbed, gateway: Gateway, known: Path
) -> None:
    bob = hop(gateway, known, "bob", own_key(testbed, "bob"))
    alice = hop(gateway, known, "alice", own_key(testbed, "alice"))
    host = beyond(testbed, bob, alice)
    try:
        assert await host.user() == "alice"
        done = await host.run(["cat"], stdin=b"x" * (3 << 20), timeout=60)
        assert len(done.stdout) == 3 << 20
        many = await asyncio.gather(*(host.run(["echo", str(n)], timeout=60) for n in range(30)))
        assert [int(done.stdout) for done in many] == list(range(30))
    finally:
        await host.close()


async def test_what_a_gateway_refuses_is_said_as_its_own(
    testbed: Testbed, gateway: Gateway, known: Path, tmp_path: Path
) -> None:
    port = f"127.0.0.1:{gateway.port}"
    words = await refusal(beyond(testbed, hop(gateway, known, "carol", own_key(testbed, "carol"))))
    assert f"carol@{port} does not connect us to 127.0.0.1 port" in words
    assert "AllowTcpForwarding" in words
    words = await refusal(beyond(testbed, hop(gateway, known, "bob", own_key(testbed, "alice"))))
    assert f"bob@{port} does not accept {own_key(testbed, 'alice')}" in words
    other = tmp_path / "other"
    other.write_text(f"[127.0.0.1]:{gateway.port} {gateway.public(gateway.user_ca)}\n")
    words = await refusal(beyond(testbed, hop(gateway, other, "bob", own_key(testbed, "bob"))))
    assert f"the host key of [127.0.0.1]:{gateway.port} has changed" in words
    assert f"{other}, line 1" in words
    assert "replace that line" in words


async def test_a_users_certificate_opens_and_one_that_can_not_says_why(gateway: Gateway, known: Path) -> None:
    key = gateway.key("person")
    gateway.certify_user(key, "alice")
    assert await user_of(at_gateway(gateway, known, "alice", key_files=(str(key),))) == "alice"
    words = await refusal(at_gateway(gateway, known, "bob", key_files=(str(key),)))
    assert f"the certificate of {key} (it is for alice and not for bob)" in words
    elsewhere = gateway.move_certificate(key, "elsewhere.pub")
    words = await refusal(at_gateway(gateway, known, "alice", key_files=(str(key),)))
    assert "certificate of" not in words
    named = at_gateway(gateway, known, "alice", key_files=(str(key),), certificate_file=str(elsewhere))
    assert await user_of(named) == "alice"
    gateway.certify_user(key, "alice", validity="-2h:-1h")
    words = await refusal(at_gateway(gateway, known, "alice", key_files=(str(key),)))
    assert "(it was valid until" in words
    assert "renew it" in words
    gateway.certify_user(key, "alice", ca=gateway.host_ca)
    words = await refusal(at_gateway(gateway, known, "alice", key_files=(str(key),)))
    assert f"does not accept the certificate of {key}, {key}:" in words


async def test_a_certificate_authority_vouches_for_the_gateway(
    testbed: Testbed, gateway: Gateway, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    mine = {"key_files": (own_key(testbed, "alice"),)}
    known.write_text(f"# the site's\n@cert-authority 127.0.0.* {gateway.public(gateway.host_ca)} site\n")
    assert await user_of(at_gateway(gateway, known, "alice", **mine)) == "alice"
    known.write_text(f"@cert-authority [127.0.0.1]:{gateway.port} {gateway.public(gateway.user_ca)}\n")
    words = await refusal(at_gateway(gateway, known, "alice", **mine))
    assert "signed by another authority" in words
    assert f"{known}, line 1" in words
    known.write_text(
        f"@cert-authority * {gateway.public(gateway.host_ca)}\n@revoked * {gateway.public(gateway.host_key)}\n"
    )
    assert "is revoked" in await refusal(at_gateway(gateway, known, "alice", **mine))
    known.write_text(f"@cert-authority login.example.org {gateway.public(gateway.host_ca)}\n")
    assert "is not known" in await refusal(at_gateway(gateway, known, "alice", **mine))


class SSHAgent:
    """A real ssh-agent, which the processes of this test find."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "agent"
        self.process = subprocess.Popen(("ssh-agent", "-D", "-a", str(self.socket)), stdout=subprocess.DEVNULL)
        wait_until("ssh-agent to listen", self.socket.exists)

    def add(self, key: Path) -> None:
        """Add a key, and the certificate beside it."""
        subprocess.run(("ssh-add", "-q", str(key)), check=True, timeout=30)

    def empty(self) -> None:
        subprocess.run(("ssh-add", "-q", "-D"), check=True, timeout=30)


@pytest.fixture
def ssh_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SSHAgent]:
    agent = SSHAgent(tmp_path)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.socket))
    monkeypatch.setenv("HOME", str(tmp_path))  # without usual keys
    yield agent
    agent.process.terminate()
    agent.process.wait(30)


async def test_keys_and_certificates_of_an_ssh_agent(ssh_agent: SSHAgent, gateway: Gateway, known: Path) -> None:
    assert f"the SSH agent ({ssh_agent.socket}) has none" in await refusal(at_gateway(gateway, known, "alice"))
    for kind in ("ed25519", "ecdsa", "rsa"):
        key = gateway.key(f"person-with-agent-{kind}", kind)
        gateway.certify_user(key, "alice")
        ssh_agent.add(key)
        assert await user_of(at_gateway(gateway, known, "alice")) == "alice"
        words = await refusal(at_gateway(gateway, known, "bob"))
        assert "with its certificate (it is for alice and not for bob)" in words
        ssh_agent.empty()
