"""Serves the kubelet's API over TLS: certificates and client CA are replaced while it runs, without a restart."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from aiohttp import web

from slurm_plugin.errors import ConfigurationError

from ..errors import ForbiddenError, KubeError, NotFoundError
from ..kube import Kube
from ..metrics import CERTIFICATE_EXPIRY
from .serving import Chain, expiry

log = logging.getLogger(__name__)

_CLIENT_CA = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
_CLIENT_CA_SECONDS = 300.0
_RETRY_SECONDS = 5.0
# Until a connection's first request is whole, and between two.
_REQUEST_SECONDS = 30.0
# Logs and commands that are followed don't hold up the end of the agent.
_SHUTDOWN_SECONDS = 1.0


class Certificates(Protocol):
    """Where the serving certificate comes from."""

    def chains(self) -> AsyncIterator[Chain]:
        """Yield the first one and each later one."""


class ClientAuthority:
    """Whose client certificates are believed: a file, else what the cluster publishes for extension API servers."""

    def __init__(self, kube: Kube, file: Path | None) -> None:
        self._kube = kube
        self._file = file

    async def read(self) -> str:
        """Return the CA's PEM, empty if there is none for us. Raises KubeError, ConfigurationError."""
        if self._file is not None:
            try:
                return self._file.read_text("ascii")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"api.client_ca_file: {self._file}: {error}") from error
        try:
            found = await self._kube.get(_CLIENT_CA)
        except (ForbiddenError, NotFoundError) as error:
            log.warning("clients need a token, no certificate is believed (set api.client_ca_file): %s", error)
            return ""
        return str((found.get("data") or {}).get("client-ca-file") or "")


class Server:
    """One TLS port."""

    def __init__(
        self,
        application: web.Application,
        certificates: Certificates,
        authority: ClientAuthority,
        *,
        host: str,
        port: int,
    ) -> None:
        self._runner = web.AppRunner(
            application,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=_REQUEST_SECONDS,
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        self._certificates = certificates
        self._authority = authority
        self._host = host
        self._port = port
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._believed = ""
        self._authority_known = asyncio.Event()

    async def run(self) -> None:
        """Serve as soon as there is a certificate, until cancelled. Raises ConfigurationError."""
        await self._runner.setup()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_authority(), name="client CA")
                await self._keep_certificate()
        finally:
            await self._runner.cleanup()

    async def _keep_certificate(self) -> None:
        serving = False
        async for chain in self._certificates.chains():
            try:
                self._tls.load_cert_chain(chain.certificate, chain.key)  # new connections get it
            except (OSError, ssl.SSLError) as error:
                if not serving:
                    raise ConfigurationError(f"serving certificate {chain.certificate}: {error}") from error
                log.exception("serving certificate %s; the old one stays", chain.certificate)
                continue
            CERTIFICATE_EXPIRY.labels(str(self._port)).set(expiry(chain.certificate))
            if not serving:
                await self._listen()
                serving = True

    async def _listen(self) -> None:
        await self._authority_known.wait()  # nobody is turned away for a certificate that is believed a moment later
        try:
            await web.TCPSite(self._runner, self._host, self._port, ssl_context=self._tls).start()
        except OSError as error:
            raise ConfigurationError(
                f"api.port: can't listen on {self._host}:{self._port}: {error.strerror}"
            ) from error
        log.info("kubelet API on %s:%d", self._host, self._port)

    async def _keep_authority(self) -> None:
        while True:
            try:
                self._believe(await self._authority.read())
                self._authority_known.set()
            except KubeError as error:
                log.warning("client CA: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            await asyncio.sleep(_CLIENT_CA_SECONDS)

    def _believe(self, pem: str) -> None:
        """Believe certificates of this CA, too; what was believed before ends with the process."""
        if not pem or pem == self._believed:
            return
        try:
            self._tls.load_verify_locations(cadata=pem)
        except ssl.SSLError as error:
            log.error("client CA: not a certificate: %s", error)  # noqa: TRY400  its text says all
            return
        self._tls.verify_mode = ssl.CERT_OPTIONAL
        self._believed = pem
