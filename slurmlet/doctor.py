"""``slurmlet doctor``: tries every connection that the configuration speaks of, and says what to mend.

Nothing is submitted and nothing claimed: what is written is one small file in each root, removed at once. Each check has its own
line; what fails is said in the words of whoever refused, for those name the file, the key or the right.
"""

import os
from collections.abc import AsyncIterator, Mapping

from sidecar.client import SidecarProvider
from sidecar.config import ServerSettings
from sidecar.dialling import try_call
from sidecar.interlink.config import InterLinkSettings
from sidecar.interlink.provider import InterLinkProvider
from slurm_plugin.config import SiteSettings
from slurm_plugin.errors import HostError
from vkubelet.credentials import load_access
from vkubelet.kube import Kube

from . import findings
from .config import Configuration, SidecarConfiguration
from .findings import Finding, attempt
from .sitecheck import examine_site, slurm
from .wiring import Sites

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


async def examine(configuration: Configuration | SidecarConfiguration) -> AsyncIterator[Finding]:
    """Yield a finding for each check, as it is made."""
    checks = _agent(configuration) if isinstance(configuration, Configuration) else _sidecar(configuration)
    async for finding in checks:
        yield finding


async def _agent(configuration: Configuration) -> AsyncIterator[Finding]:
    yield await attempt("API server", _api_server(configuration))
    if configuration.api.certificate is not None:
        yield await attempt(
            "api.certificate", findings.certificate(str(configuration.api.certificate.certificate_file))
        )
    async for finding in _sidecars(configuration):
        yield finding
    if configuration.interlink is not None:
        async for finding in _plugin(configuration.interlink):
            yield finding
        return
    sites = Sites(kubernetes="none", shared=False)
    for part in configuration.parts():
        if part.sidecar is None:
            async for finding in _site(sites, part.site, node=part.agent.node.name, cluster=part.cluster):
                yield finding


async def _sidecar(configuration: SidecarConfiguration) -> AsyncIterator[Finding]:
    """Examine what a sidecar is served with, whom it calls, and its site. Whether its port is free is for the sidecar to say."""
    for section, served in (("serve", configuration.serve), ("interlink", configuration.interlink)):
        if served is not None:
            async for finding in _served(section, served):
                yield finding
    if configuration.dial is not None:
        yield await attempt("dial.certificate", findings.pair(configuration.dial.certificate))
        yield await attempt("dial.url", try_call(configuration.dial))
    sites = Sites(kubernetes="none", shared=False)
    async for finding in _site(sites, configuration, node=configuration.node.name, cluster=""):
        yield finding


async def _served(section: str, served: ServerSettings) -> AsyncIterator[Finding]:
    if served.certificate is not None:
        yield await attempt(f"{section}.certificate", findings.pair(served.certificate, served.client_ca_file))
    if served.token_file is not None:
        yield await attempt(f"{section}.token_file", findings.tokens(served.token_file))
    if served.unix_socket is not None:
        yield await attempt(f"{section}.unix_socket", findings.directory(os.path.dirname(served.unix_socket)))


async def _plugin(settings: InterLinkSettings) -> AsyncIterator[Finding]:
    """Examine the way to an interLink plugin."""
    yield await attempt("interlink.directory", findings.directory(settings.directory))
    if settings.certificate is not None:
        yield await attempt("interlink.certificate", findings.pair(settings.certificate))
    provider = InterLinkProvider(settings)
    yield await attempt(f"interLink at {settings.url}", slurm(provider.cluster))
    await provider.close()


async def _site(sites: Sites, site: SiteSettings, *, node: str, cluster: str) -> AsyncIterator[Finding]:
    """Examine the way to Slurm as each user that the policy names."""
    for user in dict.fromkeys(rule.user for rule in site.policy):
        host, client = sites.line(site, user, cluster)
        async for finding in examine_site(host, client, site, node=node, user=user):
            yield finding


async def _sidecars(configuration: Configuration) -> AsyncIterator[Finding]:
    """Examine the way to each sidecar; of those that call the agent only where they call, for only the agent hears them."""
    if configuration.switchboard is not None:
        yield await attempt("switchboard.certificate", findings.pair(configuration.switchboard.certificate))
    for part in configuration.parts():
        if part.sidecar is None or part.sidecar.url is None:
            continue
        if part.sidecar.certificate is not None:
            yield await attempt("sidecar.certificate", findings.pair(part.sidecar.certificate))
        provider = SidecarProvider(part.sidecar)
        yield await attempt(f"sidecar {part.sidecar.url}", slurm(provider.cluster))
        await provider.close()


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
