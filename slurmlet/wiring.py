"""From configuration to objects: which Host, which SlurmClient, one provider per virtual node and Slurm user."""

import os
import pwd
import sys

from slurm_plugin import archive
from slurm_plugin.clients.base import SlurmClient
from slurm_plugin.clients.command import CommandClient, Timeouts
from slurm_plugin.clients.pyslurm.client import PyslurmClient
from slurm_plugin.clients.pyslurm.library import Library
from slurm_plugin.clients.rest.client import RestClient
from slurm_plugin.clients.rest.connection import Address, Connection
from slurm_plugin.clients.rest.tokens import HostTokens, NoTokens, TokenFile, Tokens
from slurm_plugin.clients.shared import SharedClient
from slurm_plugin.config import (
    CommandClientSettings,
    JumpSettings,
    LocalHostSettings,
    PyslurmClientSettings,
    RestClientSettings,
    SiteSettings,
    SSHHostSettings,
)
from slurm_plugin.contract import Provider
from slurm_plugin.hosts.base import Host
from slurm_plugin.hosts.local import LocalHost
from slurm_plugin.hosts.ssh import PYTHONS, SSHHost
from slurm_plugin.hosts.sshlogin import Login
from slurm_plugin.provider import SlurmProvider
from slurm_plugin.tenants import TenantProvider


def _host(settings: SiteSettings, user: str | None) -> tuple[Host, str]:
    """Return the Host of one Slurm user, and that user's name. ``user`` None: whoever the Host acts as by itself."""
    host = settings.slurm.host
    if isinstance(host, LocalHostSettings):
        name = user or pwd.getpwuid(os.getuid()).pw_name
        return LocalHost(prefix=tuple(word.replace("{user}", name) for word in host.prefix)), name
    name = user or host.user
    key, certificate = host.key_for(name)
    ssh = SSHHost(
        host.address,
        port=host.port,
        user=name,
        key_files=(key,) if key else (),
        certificate_file=certificate,
        known_hosts_files=(host.known_hosts_file,),
        proxy_jump=[_jump(jump, host, name) for jump in host.proxy_jump],
        pythons=tuple(dict.fromkeys((*settings.slurm.interpreters, *PYTHONS))),
        connect_timeout=host.connect_timeout_seconds,
        keepalive_seconds=host.keepalive_seconds,
    )
    return ssh, name


def _jump(jump: JumpSettings, host: SSHHostSettings, user: str) -> Login:
    """Return the login on a machine on the way, for the Slurm user who goes that way."""
    key, certificate = (host if jump.key_file is None else jump).key_for(user)
    return Login(
        address=jump.address,
        port=jump.port,
        user=jump.user or user,
        key_files=(key,) if key else (),
        certificate_file=certificate,
        known_hosts_files=(jump.known_hosts_file or host.known_hosts_file,),
        connect_timeout=host.connect_timeout_seconds,
        keepalive_seconds=host.keepalive_seconds,
    )


def _client(settings: SiteSettings, host: Host, user: str) -> SlurmClient:
    """Return how Slurm is spoken to as this user."""
    timeouts = Timeouts(submit=settings.slurm.sbatch_timeout_seconds)
    submissions = settings.slurm.concurrent_submissions
    chosen = settings.slurm.client
    if isinstance(chosen, CommandClientSettings):
        return CommandClient(host, user=user, timeouts=timeouts, submissions=submissions)
    if isinstance(chosen, PyslurmClientSettings):
        return PyslurmClient(Library(host, python=library_python(settings, chosen)), timeouts=timeouts)
    connection = Connection(Address(chosen.url, chosen.ca_file), _tokens(chosen, host, user), user=user)
    return RestClient(connection, user=user, timeouts=timeouts, submissions=submissions)


def library_python(settings: SiteSettings, chosen: PyslurmClientSettings) -> str:
    """Return the path on the host of the Python that is to have pyslurm."""
    own = sys.executable if isinstance(settings.slurm.host, LocalHostSettings) else "/usr/bin/python3"
    return chosen.python or own


def _tokens(chosen: RestClientSettings, host: Host, user: str) -> Tokens:
    if chosen.authentication == "local":
        return NoTokens()
    path = chosen.token_file_for(user)
    return TokenFile(path) if path else HostTokens(host, lifespan_seconds=chosen.token_lifespan_seconds)


class Sites:
    """The providers of all virtual nodes: those of one Slurm user on one cluster share its connection and its queries.

    ``kubernetes`` tells the Kubernetes cluster from every other. ``shared``: whether there are several nodes.
    """

    def __init__(self, *, kubernetes: str, shared: bool) -> None:
        self._kubernetes = kubernetes
        self._shared = shared
        self._lines: dict[tuple[str, str | None], tuple[Host, SlurmClient]] = {}

    def provider(self, settings: SiteSettings, *, node: str, cluster: str = "") -> Provider:
        """Return the provider for a node: the host's own user's, or one for each user that the policy names."""
        owner = f"node {node} of the Kubernetes cluster {self._kubernetes}"
        users = tuple(dict.fromkeys(rule.user for rule in settings.policy))
        providers: dict[str | None, Provider] = {}
        for user in users:
            host, client = self.line(settings, user, cluster)
            providers[user] = SlurmProvider(host, client, settings, archive=archive.build(), node=node, owner=owner)
        return providers[None] if users == (None,) else TenantProvider(settings.policy, providers)

    def line(self, settings: SiteSettings, user: str | None, cluster: str) -> tuple[Host, SlurmClient]:
        """Return the way to a cluster as one Slurm user."""
        line = self._lines.get((cluster, user))
        if line is None:
            slurm = settings.slurm
            host, name = _host(settings, user)
            client = _client(settings, host, name)
            if self._shared:
                client = SharedClient(client, seconds=max(0.5, slurm.poll_seconds / 4))
            line = self._lines[cluster, user] = host, client
        return line
