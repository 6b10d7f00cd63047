"""How the agent reaches and convinces the API server: kubeconfig, or the service account of its own pod.

Loading is the official client's work (``kubernetes.aio``): contexts, certificates, tokens, exec plugins. Calls are not
(``kube``): its generated methods are too slow and its watch too trusting for what we do.
"""

import asyncio
import hashlib
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from slurm_plugin.errors import ConfigurationError

_CONNECTIONS = 100
_LOAD_SECONDS = 30.0  # an exec plugin may ask a server, and nobody answers one that asks for a password
_FEW = 10  # a cluster has a CA or two of its own; more are those of the public


@dataclass(frozen=True, slots=True)
class Access:
    """One loaded credential. ``configuration`` refreshes a mounted token by itself; ``tls`` is built once from files."""

    server: str
    tls: ssl.SSLContext
    tls_server_name: str | None
    proxy: str | None
    configuration: Any

    @property
    def cluster(self) -> str:
        """What tells this cluster from every other: its CA's digest; its address if it uses a public CA."""
        authorities = sorted(self.tls.get_ca_certs(binary_form=True))
        if len(authorities) in range(1, _FEW):
            return f"with CA sha256:{hashlib.sha256(b''.join(authorities)).hexdigest()[:32]}"
        return f"at {self.server}"

    async def headers(self) -> dict[str, str]:
        """Return what authenticates a request; empty with a client certificate."""
        settings = await self.configuration.auth_settings()
        return {str(item["key"]): str(item["value"]) for item in settings.values() if item.get("value")}


async def load_access(kubeconfig: Path | None, context: str | None, *, seconds: float = _LOAD_SECONDS) -> Access:
    """Load a credential: the file if one is named, else KUBECONFIG or ~/.kube/config, else the pod's service account.

    Raises ConfigurationError, which names the source: nothing to load, a broken file, no credential in it, or an exec
    plugin that has not answered within so many ``seconds``.
    """
    from kubernetes.aio import client  # it takes a second, for which who asks for `--help` should not wait
    from kubernetes.aio import config as loading

    configuration = client.Configuration()
    configuration.connection_pool_maxsize = _CONNECTIONS
    source = "the pod's service account"
    try:
        file = str(kubeconfig) if kubeconfig else _default_kubeconfig()
        if file is None:
            loading.load_incluster_config(client_configuration=configuration)
        else:
            source = file
            async with asyncio.timeout(seconds):
                await loading.load_kube_config(
                    config_file=file, context=context, client_configuration=configuration, persist_config=False
                )
        tls = _tls_context(configuration)
    except TimeoutError as error:
        raise ConfigurationError(
            f"kubernetes: the exec plugin of {source} gave no credential within {seconds:g} s"
        ) from error
    except (loading.ConfigException, OSError, ssl.SSLError, ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f"kubernetes: can't load a credential from {source}: {error}") from error
    # The official client swallows the failure of an exec plugin: what is left then is nobody's credential.
    if not configuration.cert_file and not configuration.api_key:
        raise ConfigurationError(f"kubernetes: {source} gives neither a token nor a client certificate")
    server = str(configuration.host).rstrip("/")
    proxy = configuration.proxy or _environment_proxy(server)
    return Access(server, tls, configuration.tls_server_name or None, proxy, configuration)


def _environment_proxy(server: str) -> str | None:
    """Return the proxy that HTTPS_PROXY and NO_PROXY mean for the server: read once, not for each request."""
    url = urlsplit(server)
    if proxy_bypass(url.hostname or ""):
        return None
    return getproxies().get(url.scheme)


def _default_kubeconfig() -> str | None:
    named = os.environ.get("KUBECONFIG")
    if named:
        return named
    usual = Path.home() / ".kube" / "config"
    if usual.exists() or "KUBERNETES_SERVICE_HOST" not in os.environ:
        return str(usual)
    return None


def _tls_context(configuration: Any) -> ssl.SSLContext:
    tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT  # which Python 3.13 turned on, and many a cluster's CA does not pass
    if configuration.cert_file:
        tls.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls
