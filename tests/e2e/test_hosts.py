"""The login node's Hosts, from inside and over SSH, keep what a Host promises; sshd's own limits included."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import paramiko
import pytest
import pytest_asyncio

from slurm_plugin.errors import HostError, TransportError
from slurm_plugin.hosts.base import Host
from slurm_plugin.hosts.ssh import SSHHost
from tests.slurm_plugin.hosts.contract import HostContract

from .test_command_client import on_the_login_node, over_ssh
from .testbed import Testbed

pytestmark = pytest.mark.e2e


class TestHost(HostContract):
    @pytest.fixture(scope="class", params=[on_the_login_node, over_ssh])
    @classmethod
    def make_host(cls, request: pytest.FixtureRequest, testbed: Testbed) -> Callable[[], Host]:
        return lambda: request.param(testbed)  # type: ignore[no-any-return]

    @pytest_asyncio.fixture(loop_scope="class")
    async def area(self, host: Host) -> AsyncIterator[str]:
        area = f"{await host.home()}/host-contract-{uuid.uuid4()}"
        await host.stage(area, [])
        yield area
        await host.remove_tree(area)

    @pytest.fixture
    def foreign(self) -> str:
        return "/home/bob"


def ssh_host(testbed: Testbed, known_hosts: Path | None = None, **options: object) -> SSHHost:
    """alice's way in, with something changed."""
    variables = {name.removeprefix("SLURMLET_TESTBED_SSH_"): value for name, value in testbed.environment.items()}
    arguments: dict[str, object] = {
        "port": int(variables["PORT"]),
        "user": variables["USER"],
        "key_files": (variables["KEY"],),
        "known_hosts_files": (str(known_hosts or variables["KNOWN_HOSTS"]),),
    }
    return SSHHost(variables["HOST"], **{**arguments, **options})  # type: ignore[arg-type]


async def refusal(host: Host) -> str:
    """Why nobody gets in."""
    with pytest.raises(HostError) as refused:
        await host.user()
    await host.close()
    return str(refused.value)


async def test_an_unknown_host_key_is_refused_with_its_fingerprint(testbed: Testbed, tmp_path: Path) -> None:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(
        "elsewhere.example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS\n"
    )
    words = await refusal(ssh_host(testbed, known_hosts))
    port = testbed.environment["SLURMLET_TESTBED_SSH_PORT"]
    for part in ("is not known", "ssh-ed25519 SHA256:", str(known_hosts), f"[127.0.0.1]:{port}"):
        assert part in words


async def test_a_changed_host_key_is_refused_with_both_fingerprints(testbed: Testbed, tmp_path: Path) -> None:
    other = paramiko.PKey.from_path(testbed.environment["SLURMLET_TESTBED_SSH_KEY"])
    port = testbed.environment["SLURMLET_TESTBED_SSH_PORT"]
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {other.get_name()} {other.get_base64()}\n")
    words = await refusal(ssh_host(testbed, known_hosts))
    for part in ("has changed", other.fingerprint, str(known_hosts)):
        assert part in words
    assert words.count("SHA256:") == 2


async def test_a_missing_known_hosts_file_or_key_is_named(testbed: Testbed, tmp_path: Path) -> None:
    assert f"{tmp_path}/none: No such file" in await refusal(ssh_host(testbed, tmp_path / "none"))
    assert f"{tmp_path}/key" in await refusal(ssh_host(testbed, key_files=(f"{tmp_path}/key",)))


async def test_a_key_that_is_not_accepted_is_named(testbed: Testbed, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(paramiko_key())
    words = await refusal(ssh_host(testbed, key_files=(str(key),)))
    assert "does not accept" in words
    assert str(key) in words


def paramiko_key() -> bytes:
    """A key that opens nothing."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


async def test_nobody_listening_may_mend_itself(testbed: Testbed) -> None:
    host = ssh_host(testbed, port=1)
    with pytest.raises(TransportError, match=r"can't connect to 127\.0\.0\.1 port 1"):
        await host.user()
    with pytest.raises(TransportError, match="waiting for the next attempt"):
        await host.user()
    await host.close()


async def test_the_second_python_is_found(testbed: Testbed) -> None:
    host = ssh_host(testbed, pythons=("/usr/libexec/platform-python", "python3"))
    assert await host.user() == "alice"
    await host.close()


async def test_no_python_is_said_with_all_that_were_tried(testbed: Testbed) -> None:
    words = await refusal(ssh_host(testbed, pythons=("/no/python3", "no-python3")))
    assert "/no/python3: " in words
    assert "no-python3: " in words


async def test_more_streams_than_sshd_allows_sessions(testbed: Testbed) -> None:
    host = ssh_host(testbed)
    async with contextlib.AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(host.process(["cat"])) for _ in range(40)]
        for process in processes:
            await process.write(b"x")
        assert await asyncio.gather(*(process.read() for process in processes)) == [b"x"] * 40
    await host.close()


async def test_what_a_login_shell_prints_is_skipped(testbed: Testbed) -> None:
    host = ssh_host(testbed)
    bashrc = f"{await host.home()}/.bashrc"
    before = await host.read(bashrc)
    await host.write(bashrc, b"echo Welcome; echo to the cluster >&2\n" + (before or b""))
    try:
        other = ssh_host(testbed)
        assert await other.user() == "alice"
        await other.close()
    finally:
        if before is None:
            await host.run(["rm", bashrc], timeout=60)
        else:
            await host.write(bashrc, before)
        await host.close()
