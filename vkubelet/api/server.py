"""Serves the kubelet's API over TLS: certificates and client CA are replaced while it runs, without a restart."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol

from aiohttp import web

from slurm_plugin.errors import ConfigurationError

from ..errors import ForbiddenError, KubeError, NotFoundError
from ..kube import Kube
from ..metrics import CERTIFICATE_EXPIRY
from .listening import Strangers, accept, listen, most_strangers
from .serving import Chain, expiry

log = logging.getLogger(__name__)

_CLIENT_CA = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
_CLIENT_CA_SECONDS = 300.0
_FILE_SECONDS = 10.0
_RETRY_SECONDS = 5.0
# Until a connection speaks TLS, until its first request is whole, and between two.
_REQUEST_SECONDS = 30.0
# net/http's DefaultMaxHeaderBytes, which a kubelet has: the command of an exec is in the query.
_LONGEST_HEAD = 1 << 20
_LONGEST_FIELD = 64 << 10
# Logs and commands that are followed don't hold up the end of the agent.
_SHUTDOWN_SECONDS = 1.0


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Certificates(Protocol):
    """Where the serving certificate comes from."""

    def chains(self) -> AsyncIterator[Chain]:
        """Yield the first one and each later one."""


class ClientAuthority:
    """Whose client certificates are believed: a file, else what the cluster publishes for extension API servers.

    ``look_seconds``: how often to look again.
    """

    def __init__(self, kube: Kube, file: Path | None, *, file_seconds: float = _FILE_SECONDS) -> None:
        self._kube = kube
        self._file = file
        self.look_seconds = _CLIENT_CA_SECONDS if file is None else file_seconds

    async def read(self) -> str:
        """Return the CA's PEM, empty if there is none for us. Raises KubeError, ConfigurationError."""
        if self._file is not None:
            try:
                return _checked(self._file.read_text("ascii"))
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"api.client_ca_file: {self._file}: {error}") from error
        try:
            found = await self._kube.get(_CLIENT_CA)
        except (ForbiddenError, NotFoundError) as error:
            log.warning("clients need a token, no certificate is believed (set api.client_ca_file): %s", error)
            return ""
        pem = str((found.get("data") or {}).get("client-ca-file") or "")
        try:
            return _checked(pem) if pem else ""
        except (OSError, ValueError) as error:
            log.error("client CA: not a certificate: %s", error)  # noqa: TRY400  its text says all
            return ""


def _checked(pem: str) -> str:
    """Return what OpenSSL takes for certificates. Raises OSError (``ssl.SSLError``), ValueError."""
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=pem)
    return pem


def tls_context(chain: Chain, client_ca: str) -> ssl.SSLContext:
    """Return what serves with a certificate and believes the clients of a CA, "" for none. Raises OSError, ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(chain.certificate, chain.key)
    if client_ca:
        context.load_verify_locations(cadata=client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


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
        request_seconds: float = _REQUEST_SECONDS,
        strangers: int | None = None,
    ) -> None:
        self._strangers = Strangers(request_seconds, strangers or most_strangers())
        application.middlewares.insert(0, self._take_notice)
        self._runner = web.AppRunner(
            application,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=request_seconds + 1,  # who never asked is left before, with a line in the log
            shutdown_timeout=_SHUTDOWN_SECONDS,
            max_line_size=_LONGEST_HEAD,
            max_field_size=_LONGEST_FIELD,
        )
        self._certificates = certificates
        self._authority = authority
        self._host = host
        self._port = port
        self._chain: Chain | None = None
        self._context: ssl.SSLContext  # there as soon as the chain is
        self._client_ca = ""
        self._authority_known = asyncio.Event()

    async def run(self) -> None:
        """Serve as soon as there is a certificate, until cancelled. Raises ConfigurationError.

        What is wrong from the beginning is an error; what once was good is kept until there is something better.
        """
        await self._runner.setup()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_authority(), name="client CA")
                await self._authority_known.wait()  # nobody is turned away who is believed a moment later
                await self._keep_certificate(group)
        finally:
            await self._runner.cleanup()

    async def _keep_certificate(self, group: asyncio.TaskGroup) -> None:
        async for chain in self._certificates.chains():
            try:
                context = tls_context(chain, self._client_ca)
                expires = expiry(chain.certificate)
            except (OSError, ValueError) as error:
                if self._chain is None:
                    raise ConfigurationError(f"serving certificate {chain.certificate}: {error}") from error
                log.warning("serving certificate %s, the old one stays: %s", chain.certificate, error)
                continue
            begins, self._chain, self._context = self._chain is None, chain, context  # new connections get it
            CERTIFICATE_EXPIRY.labels(str(self._port)).set(expires)
            if begins:
                self._listen(group)

    def _listen(self, group: asyncio.TaskGroup) -> None:
        try:
            listening = listen(self._host, self._port)
        except OSError as error:
            raise ConfigurationError(
                f"api.port: can't listen on {self._host}:{self._port}: {error.strerror}"
            ) from error
        assert self._runner.server is not None  # noqa: S101  it is set up
        connections = accept(listening, lambda: self._context, self._runner.server, self._strangers)
        group.create_task(connections, name="connections")
        log.info("kubelet API on %s:%d", self._host, self._port)

    @web.middleware
    async def _take_notice(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Tell that something was asked on a connection."""
        if request.transport is not None:
            self._strangers.asked(request.transport)
        return await handler(request)

    async def _keep_authority(self) -> None:
        while True:
            try:
                self._believe(await self._authority.read())
            except ConfigurationError as error:
                if not self._authority_known.is_set():
                    raise
                log.warning("client CA, what was believed stays so: %s", error)
            except KubeError as error:
                log.warning("client CA: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            self._authority_known.set()
            await asyncio.sleep(self._authority.look_seconds)

    def _believe(self, client_ca: str) -> None:
        """Believe this CA and no other from now on; connections that are there go on. None at all changes nothing."""
        if client_ca in {"", self._client_ca}:
            return
        if self._chain is not None:
            try:
                self._context = tls_context(self._chain, client_ca)
            except (OSError, ValueError) as error:
                log.warning("client CA, not taken yet, for the serving certificate can't be read: %s", error)
                return
        self._client_ca = client_ca
