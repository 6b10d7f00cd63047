"""Listening: TCP with TLS, or a unix socket; certificates are read again while it runs; systemd is told."""

import asyncio
import logging
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from slurm_plugin.config import SiteSettings
from slurm_plugin.contract import Provider, Tenanted
from slurm_plugin.errors import ConfigurationError

from .app import Sidecar
from .config import DialSettings, ServerSettings
from .dialling import dial as call
from .interlink.plugin import Plugin
from .middleware import TokenFile
from .tls import Entrance

log = logging.getLogger(__name__)

_LOOK_SECONDS = 10.0
_REQUEST_SECONDS = 75.0
# Logs and commands that are followed don't hold up the end.
_SHUTDOWN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class InterLinkServing:
    """That interLink's plugin API is served: where, and what its plugin is to know of the site."""

    settings: ServerSettings
    site: SiteSettings


def notify(state: str) -> None:
    """Tell systemd (``sd_notify(3)``); a no-op where it did not start us."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line, suppress(OSError):
            line.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


async def serve(
    provider: Provider,
    settings: ServerSettings | None,
    *,
    interlink: InterLinkServing | None = None,
    dial: DialSettings | None = None,
    look_seconds: float = _LOOK_SECONDS,
) -> None:
    """Serve a provider until cancelled, to those who come and, by ``dial``, to the agent that is called.

    ``look_seconds``: between two looks at the certificates' files. Raises ConfigurationError for what can't be mended while running.
    """
    sidecar = Sidecar(provider, tokens=_tokens(settings))
    faces = [(sidecar.application(), settings)]
    if interlink is not None:
        tokens = _tokens(interlink.settings)
        plugin = Plugin(provider, sidecar.feed, settings=interlink.site, tokens=tokens)
        faces.append((plugin.application(), interlink.settings))
        if settings is None and dial is None and isinstance(provider, Tenanted):
            await provider.introduce(())  # no agent will say which pods there are; interLink names them one by one
    async with AsyncExitStack() as stack:
        endless: list[Callable[[], Awaitable[object]]] = [asyncio.Event().wait]
        for application, where in faces:
            runner = web.AppRunner(
                application,
                handler_cancellation=True,
                access_log=None,
                keepalive_timeout=_REQUEST_SECONDS,
                shutdown_timeout=_SHUTDOWN_SECONDS,
            )
            stack.push_async_callback(runner.cleanup)
            await runner.setup()
            if where is not None and (entrance := await _listen(runner, where)) is not None:
                endless.append(partial(entrance.keep, look_seconds))
            if dial is not None and application is faces[0][0]:
                directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="slurmlet-"))  # 0700
                path = os.path.join(directory, "sidecar.sock")
                await web.UnixSite(runner, path).start()
                endless.append(partial(call, dial, path))
        notify("READY=1")
        stack.callback(notify, "STOPPING=1")
        await asyncio.gather(*(task() for task in endless))


def _tokens(settings: ServerSettings | None) -> TokenFile | None:
    if settings is None or settings.token_file is None:
        return None
    tokens = TokenFile(settings.token_file)
    tokens.tokens()
    return tokens


async def _listen(runner: web.AppRunner, settings: ServerSettings) -> "Entrance | None":
    try:
        if settings.unix_socket is None:
            assert settings.certificate is not None  # noqa: S101  the settings have seen to it
            entrance = Entrance(settings.certificate, settings.client_ca_file)
            await web.TCPSite(runner, settings.listen, settings.port, ssl_context=entrance.context).start()
            log.info("the sidecar's API on %s:%d", settings.listen, settings.port)
            return entrance
        with suppress(FileNotFoundError):
            os.unlink(settings.unix_socket)  # of a run before
        before = os.umask(0o177)
        try:
            await web.UnixSite(runner, settings.unix_socket).start()
        finally:
            os.umask(before)
        log.info("the sidecar's API on %s", settings.unix_socket)
    except OSError as error:
        where = settings.unix_socket or f"{settings.listen}:{settings.port}"
        raise ConfigurationError(f"can't listen on {where}: {error.strerror or error}") from error
    return None
