"""Slurm's commands over each Host keep what a SlurmClient promises."""

from collections.abc import AsyncIterator

import pytest

from slurm_plugin.clients.base import SlurmClient
from slurm_plugin.clients.command import CommandClient
from slurm_plugin.hosts.base import Host
from slurm_plugin.hosts.local import LocalHost
from slurm_plugin.hosts.ssh import SSHHost
from tests.slurm_plugin.clients.contract import SlurmClientContract

from .testbed import Testbed

pytestmark = pytest.mark.e2e


def on_the_login_node(testbed: Testbed) -> Host:
    """The site's own login node, as alice: her processes in the site's mount namespace."""
    enter = ("nsenter", "-t", testbed.environment["SLURMLET_TESTBED_SITE_PID"], "-m", "--")
    become = ("setpriv", "--reuid=alice", "--regid=alice", "--init-groups", "env", "-i", "PATH=/usr/bin:/bin")
    return LocalHost(python="/usr/bin/python3", prefix=(*enter, *become))


def over_ssh(testbed: Testbed) -> Host:
    """The same machine from outside."""
    variables = {name.removeprefix("SLURMLET_TESTBED_SSH_"): value for name, value in testbed.environment.items()}
    return SSHHost(
        variables["HOST"],
        port=int(variables["PORT"]),
        user=variables["USER"],
        key_files=(variables["KEY"],),
        known_hosts_files=(variables["KNOWN_HOSTS"],),
    )


class TestCommandClient(SlurmClientContract):
    @pytest.fixture(params=[on_the_login_node, over_ssh])
    async def client(self, request: pytest.FixtureRequest, testbed: Testbed) -> AsyncIterator[SlurmClient]:
        host: Host = request.param(testbed)
        yield CommandClient(host, user=await host.user())
        await host.close()

    @pytest.fixture
    def directory(self) -> str:
        return "/scratch/alice"
