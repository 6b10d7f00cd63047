"""``slurmlet doctor``: tries every connection that the configuration speaks of, and says what to mend.

Nothing is submitted and nothing claimed: what is written is one small file in each root, removed at once. Each check has its own
line; what fails is said in the words of whoever refused, for those name the file, the key or the right.
"""

import asyncio
import datetime
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from sidecar.client import SidecarProvider
from sidecar.config import PairSettings
from slurm_plugin.clients.base import SlurmClient
from slurm_plugin.cluster import Cluster
from slurm_plugin.config import CommandClientSettings, PolicyRule, SiteSettings
from slurm_plugin.errors import HostError, SlurmletError
from slurm_plugin.hosts.base import Host
from slurm_plugin.job import JobId
from slurm_plugin.site import find_python
from vkubelet.credentials import load_access
from vkubelet.kube import Kube

from .config import Configuration, NodePart
from .wiring import Sites

_COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "scontrol")
_SECONDS = 90.0
_FULL_PERCENT = 95
_SOON_DAYS = 14
_REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
# What examples/rbac.yaml gives, as far as every agent needs it: group, resource, verbs.
_RIGHTS = (
    ("", "nodes", "get patch"),
    ("", "nodes/status", "patch"),
    ("coordination.k8s.io", "leases", "create patch"),
    ("", "pods", "get list watch delete"),
    ("", "pods/status", "patch"),
    ("", "events", "create patch"),
    ("authentication.k8s.io", "tokenreviews", "create"),
    ("authorization.k8s.io", "subjectaccessreviews", "create"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. ``said``: what is there, or what is to be mended."""

    fine: bool
    what: str
    said: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.fine else 'FAIL'}  {self.what}: {self.said}"


async def _try(what: str, check: Awaitable[str]) -> Finding:
    try:
        async with asyncio.timeout(_SECONDS):
            return Finding(True, what, await check)
    except SlurmletError as error:
        return Finding(False, what, str(error))
    except TimeoutError:
        return Finding(False, what, f"no answer within {_SECONDS:g} s")


async def examine(configuration: Configuration) -> AsyncIterator[Finding]:
    """Yield a finding for each check, as it is made."""
    yield await _try("API server", _api_server(configuration))
    if configuration.api.certificate is not None:
        pair = configuration.api.certificate
        yield await _try("api.certificate", _certificate(str(pair.certificate_file)))
    async for finding in _sidecars(configuration):
        yield finding
    sites = Sites(kubernetes="none", shared=False)
    seen = set()
    for part in configuration.parts():
        if part.sidecar is not None:
            continue
        for user in dict.fromkeys(rule.user for rule in part.site.policy):
            if (part.cluster, part.agent.node.name, user) not in seen:
                seen.add((part.cluster, part.agent.node.name, user))
                async for finding in _site(sites, part, user):
                    yield finding


async def _sidecars(configuration: Configuration) -> AsyncIterator[Finding]:
    """Examine the way to each sidecar; of those that call the agent only where they call, for only the agent hears them."""
    if configuration.switchboard is not None:
        yield await _try("switchboard.certificate", _pair(configuration.switchboard.certificate))
    for part in configuration.parts():
        if part.sidecar is None or part.sidecar.url is None:
            continue
        if part.sidecar.certificate is not None:
            yield await _try("sidecar.certificate", _pair(part.sidecar.certificate))
        provider = SidecarProvider(part.sidecar)
        yield await _try(f"sidecar {part.sidecar.url}", _slurm(provider.cluster))
        await provider.close()


async def _site(sites: Sites, part: NodePart, user: str | None) -> AsyncIterator[Finding]:
    """Examine the way to Slurm as one user; what depends on what failed is left out."""
    host, client = sites.line(part.site, user, part.cluster)
    where = f"node {part.agent.node.name}" + (f", user {user}" if user else "")
    try:
        login = await _try(f"{where}, host", _login(host))
        yield login
        if not login.fine:
            return
        if isinstance(part.site.slurm.client, CommandClientSettings):
            for command in _COMMANDS:
                yield await _try(f"{where}, {command}", _command(host, command))
        yield await _try(f"{where}, Python", find_python(host, part.site.slurm.interpreters))
        yield await _try(f"{where}, slurm.root", _root(host, part.site, part.agent.node.name))
        slurm = await _try(f"{where}, Slurm", _slurm(client.cluster))
        yield slurm
        if slurm.fine:
            yield await _try(f"{where}, jobs of the user", _jobs(client))
            yield await _try(f"{where}, accounting", _accounting(client))
            yield await _try(f"{where}, policy", _policy(client, part.site.policy))
    finally:
        with suppress(SlurmletError):
            await client.close()
            await host.close()


async def _login(host: Host) -> str:
    return f"{await host.user()}, home {await host.home()}"


async def _command(host: Host, command: str) -> str:
    done = await host.run([command, "--version"], timeout=_SECONDS)
    if done.exit_code:
        said = done.stderr.decode(errors="replace").strip()
        raise HostError(f"{command} --version failed: {said}; is it in the user's PATH, and does it find slurm.conf?")
    return done.stdout.decode(errors="replace").strip()


async def _root(host: Host, site: SiteSettings, node: str) -> str:
    """Write, read and remove a file in the root. Its parents are made as the agent would make them."""
    root = site.slurm.root_for(user=await host.user(), home=await host.home(), node=node)
    await host.stage(root.path, ())
    probe = f"{root.path}/.doctor"
    await host.write(probe, b"slurmlet doctor\n")
    read = await host.read(probe)
    await host.run(["rm", "-f", "--", probe], timeout=_SECONDS)
    if read != b"slurmlet doctor\n":
        raise HostError(f"{probe} did not hold what was written there")
    usage = (await host.run(["df", "-Pk", "--", root.path], timeout=_SECONDS)).stdout.decode(errors="replace").split()
    percent = next((int(word[:-1]) for word in usage if word.endswith("%") and word[:-1].isdigit()), 0)
    if percent >= _FULL_PERCENT:
        raise HostError(f"{root.path}: its file system is {percent} % full: make room, or move slurm.root")
    return f"{root.path} can be written; its file system is {percent} % full"


async def _slurm(ask: Callable[[], Awaitable[Cluster]]) -> str:
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


async def _api_server(configuration: Configuration) -> str:
    settings = configuration.kubernetes
    access = await load_access(settings.kubeconfig, settings.context)
    kube = Kube(lambda: load_access(settings.kubeconfig, settings.context))
    try:
        missing = [
            f"{verb} {resource}"
            for group, resource, verbs in _RIGHTS
            for verb in verbs.split()
            if not await _may(kube, group, resource, verb, configuration.parts()[0].agent.node.name)
        ]
    finally:
        await kube.close()
    if missing:
        raise HostError(f"{access.server}: the credential may not {', '.join(missing)}: apply examples/rbac.yaml")
    return f"{access.server}, with every right"


async def _may(kube: Kube, group: str, resource: str, verb: str, node: str) -> bool:
    name, _, subresource = resource.partition("/")
    asked: dict[str, str] = {"group": group, "resource": name, "subresource": subresource, "verb": verb}
    if name == "nodes":
        asked["name"] = node
    if name == "leases":
        asked["namespace"] = "kube-node-lease"
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    answer: Mapping[str, Mapping[str, object]] = await kube.create(_REVIEW, body)
    return bool(answer["status"].get("allowed"))


async def _pair(pair: PairSettings) -> str:
    return await _certificate(pair.certificate_file)


async def _certificate(path: str) -> str:
    try:
        found = x509.load_pem_x509_certificate(await asyncio.to_thread(Path(path).read_bytes))
    except (OSError, ValueError) as error:
        raise HostError(f"{path}: {error}") from error
    left = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    if left.days < _SOON_DAYS:
        raise HostError(f"{path}: is good until {found.not_valid_after_utc:%Y-%m-%d %H:%M}: renew it")
    return f"{path}, good for {left.days} days"
