"""This machine as a Host, and an agent that starts in an unfriendly place."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from slurm_plugin.errors import HostError
from slurm_plugin.hosts.base import Host
from slurm_plugin.hosts.local import LocalChannel, LocalHost

from .contract import HostContract, until_gone

NOBODY = 65534


class TestLocalHost(HostContract):
    @pytest.fixture(scope="class")
    @classmethod
    def make_host(cls) -> Callable[[], Host]:
        return LocalHost

    @pytest.fixture
    def area(self, tmp_path: Path) -> str:
        area = tmp_path.resolve() / "area"
        area.mkdir(0o700)
        return str(area)

    @pytest.fixture
    def foreign(self, tmp_path: Path) -> str:
        if os.geteuid() != 0:
            pytest.skip("only root can give a directory away")
        foreign = tmp_path.resolve() / "foreign"
        foreign.mkdir(0o755)
        os.chown(foreign, NOBODY, NOBODY)
        return str(foreign)


def through_a_shell(script: str) -> LocalHost:
    """A Host whose agent is started by a shell, as a login shell would."""
    return LocalHost(prefix=("sh", "-c", script + '; exec "$@"', "sh"))


async def test_what_a_login_shell_prints_first_is_skipped() -> None:
    host = through_a_shell("head -c 60000 /dev/zero; echo; echo Welcome to the cluster; echo Mind the gap >&2")
    assert (await host.run(["echo", "hi"], timeout=60)).stdout == b"hi\n"
    await host.close()


async def test_a_login_shell_that_prints_without_end_is_refused() -> None:
    host = through_a_shell("yes")
    with pytest.raises(HostError, match="printed more than 64 KiB"):
        await host.user()
    await host.close()


@pytest.mark.parametrize("host", [LocalHost(python="/no/python3"), LocalHost(python="no-python3", prefix=("env",))])
async def test_no_python_is_said_with_what_was_tried(host: LocalHost) -> None:
    with pytest.raises(HostError, match=r"no Python to run the host agent with.*no.python3.*No such file"):
        await host.user()
    await host.close()


async def test_an_agent_that_cannot_start_says_why() -> None:
    host = LocalHost(python="python3", prefix=("sh", "-c", "echo quota exceeded >&2; exit 5"))
    with pytest.raises(HostError, match=r"exit code 5\): quota exceeded"):
        await host.user()
    await host.close()


async def test_a_prefix_makes_it_another_user() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    become = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    host = LocalHost(python="/usr/bin/python3", prefix=become)  # a virtual environment's may lie where only root can go
    assert await host.user() == "nobody"
    assert (await host.run(["id", "-u"], timeout=60)).stdout == b"65534\n"
    await host.close()


async def test_another_users_agent_is_shown_nothing_of_our_environment_but_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "of-the-service")
    monkeypatch.setenv("TZ", "UTC")
    host = LocalHost(prefix=("env",))
    shown = (await host.run(["sh", "-c", "tr '\\0' '\\n' < /proc/$PPID/environ"], timeout=60)).stdout.decode()
    assert "TZ=UTC" in shown.splitlines()
    assert {line.partition("=")[0] for line in shown.splitlines()} <= {"PATH", "LANG", "LC_ALL", "TZ"}
    await host.close()


class NotOurs:
    """A process of root's, as sudo is: it lives on, and may not be killed."""

    pid = 4242

    def kill(self) -> None:
        raise PermissionError

    async def wait(self) -> int:
        await asyncio.Event().wait()
        raise AssertionError


async def test_closing_an_agent_that_is_not_ours_to_kill_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("slurm_plugin.hosts.local._END_SECONDS", 0.05)
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    with theirs, TemporaryFile() as errors:
        channel = LocalChannel(NotOurs(), errors, reader, writer)  # type: ignore[arg-type]
        async with asyncio.timeout(10):
            await channel.close()
    assert "not ours to kill" in caplog.text


KILLED_WITHOUT_A_WORD = """
import asyncio, os, signal, sys
from slurm_plugin.hosts.local import LocalHost

async def main():
    host = LocalHost()
    async with host.process(["sh", "-c", "echo $PPID $$; sleep 300"]) as process:
        os.write(1, await process.read())
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_nothing_outlives_a_killed_program() -> None:
    argv = [sys.executable, "-c", KILLED_WITHOUT_A_WORD]
    program = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    told, _ = await program.communicate()
    host = LocalHost()
    for pid in told.split():
        await until_gone(host, int(pid))
    await host.close()
