"""The ways to Slurm that the provider contract is tried on: each makes providers, and can lose what carries them."""

import os
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.client import SidecarProvider
from sidecar.config import ClientSettings
from sidecar.interlink.config import InterLinkSettings
from sidecar.interlink.provider import InterLinkProvider
from slurm_plugin import archive
from slurm_plugin.clients.base import SlurmClient
from slurm_plugin.clients.command import CommandClient, Timeouts
from slurm_plugin.clients.pyslurm.client import PyslurmClient
from slurm_plugin.clients.pyslurm.library import Library
from slurm_plugin.clients.rest.client import RestClient
from slurm_plugin.clients.rest.connection import Address, Connection
from slurm_plugin.clients.rest.tokens import HostTokens
from slurm_plugin.config import SiteSettings
from slurm_plugin.contract import Provider
from slurm_plugin.hosts.base import Host
from slurm_plugin.hosts.ssh import SSHHost
from slurm_plugin.provider import SlurmProvider
from testbed.paths import Layout
from testbed.site import pyslurm

from .proxy import Proxy
from .sidecars import Sidecar
from .test_command_client import on_the_login_node
from .testbed import Testbed

OLD_SLURM = os.environ.get("SLURM") == "22.05"
PROCESSES = {"runtime": {"kind": "process"}}
"""No images: what is tried is the way to the runner, not the container."""


@dataclass(frozen=True)
class Way:
    """A way to Slurm. ``make``: a provider, as a new agent makes it. ``crash``: kills whatever carries those there are.

    ``area``: a directory that test, login node and compute nodes share, and the same seen from the site.
    ``gaps``: what it can't do, which the tests then expect of it: ``exec``; ``grace`` (the end of a pod is its end at
    once); ``batch signal`` (Slurm's TERM reaches every process of the job, not the runner alone).
    """

    make: Callable[[], Provider]
    crash: Callable[[], None]
    area: Path
    site_area: str
    gaps: frozenset[str] = frozenset()


@contextmanager
def area() -> Iterator[tuple[Path, str]]:
    """A directory of alice's that everybody sees, and its name on the site."""
    name = f"contract-{uuid.uuid4().hex[:8]}"
    scratch = Layout.from_environment().site / "scratch" / "alice"
    (scratch / name).mkdir()
    owner = scratch.stat()
    os.chown(scratch / name, owner.st_uid, owner.st_gid)
    yield scratch / name, f"/scratch/alice/{name}"
    shutil.rmtree(scratch / name, ignore_errors=True)  # a runner that is just ending may still write


def over_ssh(testbed: Testbed, proxy: Proxy, directory: Path, **options: Any) -> SSHHost:
    """The login node at the far end of a proxy."""
    variables = {name.removeprefix("SLURMLET_TESTBED_SSH_"): value for name, value in testbed.environment.items()}
    known = Path(variables["KNOWN_HOSTS"]).read_text()
    path = directory / "known_hosts"
    path.write_text(known.replace(f"]:{variables['PORT']} ", f"]:{proxy.port} "))
    return SSHHost(
        "127.0.0.1", port=proxy.port, user=variables["USER"], key_files=(variables["KEY"],),
        known_hosts_files=(str(path),), **options,
    )  # fmt: skip


def ssh_proxy(testbed: Testbed) -> Proxy:
    """A line to the login node's sshd."""
    return Proxy(
        testbed.environment["SLURMLET_TESTBED_SSH_HOST"], int(testbed.environment["SLURMLET_TESTBED_SSH_PORT"])
    )


def rest_proxy(testbed: Testbed) -> Proxy:
    """A line to slurmrestd."""
    address = testbed.environment["SLURMLET_TESTBED_SLURMRESTD"].removeprefix("http://")
    return Proxy(address.partition(":")[0], int(address.partition(":")[2]))


def slurm_provider(
    host: Host, rest: Proxy | None, root: str, *, timeouts: Timeouts | None = None, library: str | None = None
) -> SlurmProvider:
    """A provider as alice, by Slurm's commands or through slurmrestd at the far end of a proxy.

    ``library``: by Slurm's library, with this Python of the login node's.
    """
    client: SlurmClient = CommandClient(host, user="alice")
    if library is not None:
        client = PyslurmClient(Library(host, python=library))
    if rest is not None:
        address = Address(f"http://127.0.0.1:{rest.port}")
        tokens = HostTokens(host, lifespan_seconds=600)
        client = RestClient(Connection(address, tokens, user="alice"), user="alice", timeouts=timeouts)
    settings = SiteSettings.model_validate(
        {"slurm": {"host": {"kind": "local"}, "root": f"{root}/root", "poll_seconds": 1}, "pods": PROCESSES}
    )
    return SlurmProvider(host, client, settings, archive=archive.build(), node="contract", owner="the contract's tests")


@contextmanager
def slurm(testbed: Testbed, *, host: str, client: str, directory: Path) -> Iterator[Way]:
    """The Slurm plugin itself: where (``local``, ``ssh``) and how (``command``, ``rest``, ``pyslurm``) are independent."""
    with ExitStack() as stack:
        here, there = stack.enter_context(area())
        ssh = stack.enter_context(ssh_proxy(testbed).running())
        rest = stack.enter_context(rest_proxy(testbed).running()) if client == "rest" else None
        library = pyslurm.ensure(Layout.from_environment().cache) if client == "pyslurm" else None
        before = _children()

        def make() -> Provider:
            machine = on_the_login_node(testbed) if host == "local" else over_ssh(testbed, ssh, directory)
            return slurm_provider(machine, rest, there, library=library)

        def crash() -> None:
            ssh.reset()
            if rest is not None:
                rest.reset()
            for agent in _children() - before if host == "local" else ():
                os.kill(agent, signal.SIGKILL)

        gaps = frozenset({"batch signal"}) if client == "rest" and OLD_SLURM else frozenset[str]()
        yield Way(make, crash, here, there, gaps)


def _children() -> set[int]:
    """The processes of this one: a local Host's agent is one of them."""
    found = set[int]()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


@contextmanager
def sidecar(testbed: Testbed, directory: Path) -> Iterator[Way]:
    """A sidecar on the login node, which may die at any moment."""
    with _served(testbed, "serve") as (server, crash, here, there):
        there_is = ClientSettings(url=f"unix:{server.socket}", token_file=str(server.tokens))
        yield Way(lambda: SidecarProvider(there_is), crash, here, there)


@contextmanager
def interlink(testbed: Testbed, directory: Path) -> Iterator[Way]:
    """interLink's wire, both ends of it: the agent drives a plugin, and that is a sidecar on the login node."""
    with _served(testbed, "interlink") as (server, crash, here, there):
        there_is = InterLinkSettings(
            url=f"unix://{server.socket}", token_file=str(server.tokens), directory=str(directory / "given"),
            poll_seconds=0.5,
        )  # fmt: skip
        yield Way(lambda: InterLinkProvider(there_is), crash, here, there, gaps=frozenset({"exec", "grace"}))


@contextmanager
def _served(testbed: Testbed, serves: str) -> Iterator[tuple[Sidecar, Callable[[], None], Path, str]]:
    with area() as (here, there):
        slurm = {"root": f"{there}/root", "poll_seconds": 1}
        server = Sidecar(testbed, f"contract-{serves}", serves=serves, slurm=slurm, pods=PROCESSES)
        server.start()

        def crash() -> None:
            server.kill()
            server.start()

        try:
            yield server, crash, here, there
        finally:
            server.kill()
