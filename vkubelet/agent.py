"""The wiring of virtual nodes: every part of one is made here, and runs until the agent is cancelled.

Nothing is cleaned up at the end on purpose: the node, its pods and their jobs stay, and the next agent takes them over.
"""

import asyncio
import logging
import socket
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from slurm_plugin.config import PodSettings
from slurm_plugin.contract import Enterable, Provider
from slurm_plugin.errors import ConfigurationError

from .admission import Admission, Neighbours
from .api.app import KubeletApi
from .api.auth import Authenticator, Authorizer
from .api.inspection import inspection_routes
from .api.metrics import metric_routes
from .api.server import Certificates, ClientAuthority, Server
from .api.serving import CertificateFromFiles, RequestedCertificate
from .api.stats import stats_routes
from .capacity import largest_node
from .config import AgentSettings
from .content import Content
from .credentials import Access, load_access
from .events import Recorder, Subject
from .kube import Kube
from .node import NodeFacts
from .pods import PodController
from .registration import Registration
from .usage import UsageReader

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VirtualNode:
    """One node to be. ``site``: what the site says of its pods. ``cluster`` names its Slurm cluster."""

    settings: AgentSettings
    provider: Provider
    site: PodSettings
    cluster: str = ""


async def run(nodes: Sequence[VirtualNode]) -> None:
    """Be these nodes until cancelled: each has its own watch, Lease and port.

    Raises ConfigurationError for what can't be mended while running: no credential, a port that is taken.
    """
    neighbours: defaultdict[str, Neighbours] = defaultdict(Neighbours)
    try:
        async with asyncio.TaskGroup() as group:
            for each in nodes:
                task = _run(each, neighbours[each.cluster])
                group.create_task(task, name=f"node {each.settings.node.name}")
    except BaseExceptionGroup as group_error:
        mistakes, _ = group_error.split(ConfigurationError)
        if mistakes is not None:
            raise _first(mistakes) from group_error
        raise


async def _run(virtual: VirtualNode, neighbours: Neighbours) -> None:
    kubernetes = virtual.settings.kubernetes

    async def load() -> Access:
        return await load_access(kubernetes.kubeconfig, kubernetes.context)

    kube = Kube(load)
    try:
        address = virtual.settings.node.address or _own_address((await load()).server)
        await _be_node(virtual, kube, neighbours, address=address)
    finally:
        await kube.close()
        await virtual.provider.close()


async def _be_node(virtual: VirtualNode, kube: Kube, neighbours: Neighbours, *, address: str) -> None:
    settings, provider = virtual.settings, virtual.provider
    name = settings.node.name
    websockets = settings.api.websockets and isinstance(provider, Enterable)
    facts = NodeFacts(settings.node, address=address, port=settings.api.port, websockets=websockets)
    registration = Registration(kube, provider, facts, virtual.site.resources)
    recorder = Recorder(kube, name)
    content = Content(kube, lambda: largest_node(registration.cluster), api_server=virtual.site.api_server)
    taints = [taint.key for taint in settings.node.taints]
    pods = PodController(
        kube, provider, content, recorder,
        node=name, node_ips=(address,), workers=settings.workers, reachable=registration.set_reachable,
        admission=Admission(name, neighbours, taints=taints, labels=lambda: registration.labels),
    )  # fmt: skip
    await registration.register()
    recorder.tell(
        Subject("Node", "default", name, registration.uid), "Normal", "Starting", "Starting the Slurmlet agent"
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(registration.run(), name="registration")
        group.create_task(recorder.run(), name="events")
        group.create_task(content.watch_services(), name="watch services")
        group.create_task(pods.run(), name="pods")
        group.create_task(_server(settings, provider, kube, pods, address).run(), name="kubelet API")


def _first(group: BaseExceptionGroup[ConfigurationError]) -> ConfigurationError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


def _server(settings: AgentSettings, provider: Provider, kube: Kube, pods: PodController, address: str) -> Server:
    api, name = settings.api, settings.node.name
    handlers = KubeletApi(pods.cache, provider, Authenticator(kube), Authorizer(kube, name))
    certificates: Certificates
    if api.certificate is not None:
        certificates = CertificateFromFiles(api.certificate)
    else:
        certificates = RequestedCertificate(kube, name, address, api.certificate_directory)
    authority = ClientAuthority(kube, api.client_ca_file)
    reader = UsageReader(provider, pods.cache)
    application = handlers.application(
        metric_routes(reader, pods.cache, name),
        stats_routes(reader, name),
        inspection_routes(pods.cache, settings),
    )
    return Server(application, certificates, authority, host=api.listen, port=api.port)


def _own_address(server: str) -> str:
    """Return the address of this machine on the route to the API server. Raises ConfigurationError."""
    url = urlsplit(server)
    try:
        family, _, _, _, target = socket.getaddrinfo(url.hostname, url.port or 443, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)  # of a datagram socket: nothing is sent
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ConfigurationError(f"node.address: not set, and there is no route to {server}: {error}") from error
