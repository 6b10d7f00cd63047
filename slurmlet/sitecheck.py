"""`slurmlet doctor`'s look at a site as one Slurm user: the way there, its commands, the root directory, Slurm itself."""

import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from slurm_plugin.clients.base import SlurmClient
from slurm_plugin.clients.command import CommandHost
from slurm_plugin.cluster import Cluster
from slurm_plugin.config import CommandClientSettings, PolicyRule, PyslurmClientSettings, SiteSettings
from slurm_plugin.errors import HostError, SlurmletError
from slurm_plugin.hosts.base import Host
from slurm_plugin.job import JobId
from slurm_plugin.site import find_python

from .findings import SECONDS, Finding, attempt
from .wiring import library_python

_COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "scontrol")
_FULL_PERCENT = 95


async def examine_site(
    host: Host, client: SlurmClient, site: SiteSettings, *, node: str, user: str | None
) -> AsyncIterator[Finding]:
    """Examine the way to Slurm as one user; what depends on what failed is left out."""
    where = f"node {node}" + (f", user {user}" if user else "")
    try:
        login = await attempt(f"{where}, host", _login(host))
        yield login
        if not login.fine:
            return
        if isinstance(site.slurm.client, CommandClientSettings):
            for command in _COMMANDS:
                yield await attempt(f"{where}, {command}", _command(host, command))
        if isinstance(site.slurm.client, PyslurmClientSettings):
            yield await attempt(f"{where}, pyslurm", _pyslurm(host, library_python(site, site.slurm.client)))
        yield await attempt(f"{where}, Python", find_python(host, site.slurm.interpreters))
        yield await attempt(f"{where}, slurm.root", _root(host, site, node))
        answers = await attempt(f"{where}, Slurm", slurm(client.cluster))
        yield answers
        if answers.fine:
            yield await attempt(f"{where}, jobs of the user", _jobs(client))
            yield await attempt(f"{where}, accounting", _accounting(client))
            yield await attempt(f"{where}, policy", _policy(client, site.policy))
    finally:
        with suppress(SlurmletError):
            await client.close()
            await host.close()


async def _login(host: Host) -> str:
    return f"{await host.user()}, home {await host.home()}"


async def _command(host: Host, command: str) -> str:
    done = await host.run([command, "--version"], timeout=SECONDS)
    if done.exit_code:
        said = done.stderr.decode(errors="replace").strip()
        raise HostError(f"{command} --version failed: {said}; is it in the user's PATH, and does it find slurm.conf?")
    return done.stdout.decode(errors="replace").strip()


async def _pyslurm(host: CommandHost, python: str) -> str:
    """Import it alone: whether it is of Slurm's release shows when Slurm is asked."""
    program = "import pyslurm; print(pyslurm.__version__)"
    done = await host.run(["env", "PYSLURM_DISABLE_AUTO_INIT=1", python, "-c", program], timeout=SECONDS)
    if done.exit_code:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise HostError(
            f"{python} has no pyslurm that works: {said[-1]}; install the one of your Slurm's release there"
        )
    return f"{done.stdout.decode(errors='replace').strip()} of {python}"


async def _root(host: Host, site: SiteSettings, node: str) -> str:
    """Write, read and remove a file in the root. Its parents are made as the agent would make them."""
    root = site.slurm.root_for(user=await host.user(), home=await host.home(), node=node)
    await host.stage(root.path, ())
    probe = f"{root.path}/.doctor"
    await host.write(probe, b"slurmlet doctor\n")
    read = await host.read(probe)
    await host.run(["rm", "-f", "--", probe], timeout=SECONDS)
    if read != b"slurmlet doctor\n":
        raise HostError(f"{probe} did not hold what was written there")
    usage = (await host.run(["df", "-Pk", "--", root.path], timeout=SECONDS)).stdout.decode(errors="replace").split()
    percent = next((int(word[:-1]) for word in usage if word.endswith("%") and word[:-1].isdigit()), 0)
    if percent >= _FULL_PERCENT:
        raise HostError(f"{root.path}: its file system is {percent} % full: make room, or move slurm.root")
    return f"{root.path} can be written; its file system is {percent} % full"


async def slurm(ask: Callable[[], Awaitable[Cluster]]) -> str:
    """Say what a cluster has. Raises HostError for one that can't run anything."""
    cluster = await ask()
    usable = sum(node.usable for node in cluster.nodes)
    if not usable:
        raise HostError(f"Slurm {cluster.version} has {len(cluster.nodes)} nodes, none of which can take jobs")
    return f"Slurm {cluster.version}, cluster {cluster.name or '(no name told)'}, {usable} of {len(cluster.nodes)} nodes usable"


async def _jobs(client: SlurmClient) -> str:
    return f"{len(await client.jobs())} known to slurmctld"


async def _accounting(client: SlurmClient) -> str:
    # Of a job that there can hardly be: what matters is that somebody answers.
    await client.ended_jobs([JobId("1")], since=int(time.time()) - 60)
    return "slurmdbd answers, or none is kept"


async def _policy(client: SlurmClient, policy: tuple[PolicyRule, ...]) -> str:
    there = {partition.name for partition in (await client.cluster()).partitions}
    named = {name for name in itertools.chain.from_iterable(rule.partitions for rule in policy) if name != "*"}
    if missing := sorted(named - there):
        raise HostError(f"policy[].partitions: Slurm has no {', '.join(missing)}; it has {', '.join(sorted(there))}")
    return f"{len(policy)} rules; every partition that they name is there"
