"""The sidecar's side of a connection that it opens itself, where its site lets nothing in.

One WebSocket over TLS goes out to the agent's switchboard; requests come back through it as if they had come to a port of
the sidecar's own. The agent is known by its certificate, the sidecar by its own.
"""

import asyncio
import logging
import ssl
from collections.abc import Mapping

import aiohttp

from slurm_plugin.errors import ConfigurationError, TransportError

from . import frames, wire
from .config import DialSettings
from .multiplex import Multiplexer, Stream, carry
from .tls import handshake_failure, load_pair

log = logging.getLogger(__name__)

PATH = "/v1/sidecar"
REPLACED = 4001
"""The WebSocket close code by which a sidecar hears that another one with its name has called."""
_CONNECT_SECONDS = 15.0
_NO_WEBSOCKET = 400  # the switchboard's answer to who asks for none, after it has looked at the certificate
_RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
_REPLACED_SECONDS = 60.0  # two of one name are a mistake; they shall not take the line from each other all the time


async def dial(settings: DialSettings, socket_path: str) -> None:
    """Keep one connection to the agent for ever; its streams are carried to the unix socket where the API is served."""
    failures = 0
    while True:
        seconds = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
        try:
            async with aiohttp.ClientSession() as session:
                limits = aiohttp.ClientWSTimeout(ws_close=_CONNECT_SECONDS)
                async with asyncio.timeout(_CONNECT_SECONDS):
                    socket = await session.ws_connect(
                        settings.url.rstrip("/") + PATH,
                        ssl=_context(settings),
                        heartbeat=wire.PULSE_SECONDS,
                        max_msg_size=frames.MOST_FRAME_BYTES + 1,
                        timeout=limits,
                    )
                log.info("connected to the agent at %s", settings.url)
                failures, seconds = 0, _RETRY_SECONDS[0]
                why = await Multiplexer(socket, opened=lambda stream: _serve(stream, socket_path)).run()
                if socket.close_code == REPLACED:
                    why, seconds = "another sidecar has called with this certificate's name", _REPLACED_SECONDS
        except aiohttp.WSServerHandshakeError as error:
            why = _refusal(error.status, error.headers)
        except ConfigurationError as error:
            why = str(error)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = _failure(error, settings)
        log.warning("no connection to the agent at %s: %s; again in %g s", settings.url, why, seconds)
        await asyncio.sleep(seconds)
        failures += 1


async def try_call(settings: DialSettings) -> str:
    """Say that the agent would take our call. Raises TransportError with the reason if not, ConfigurationError naming a file.

    Its switchboard is asked for no WebSocket: that would take the line from the sidecar that has it.
    """
    try:
        async with (
            asyncio.timeout(_CONNECT_SECONDS),
            aiohttp.ClientSession() as session,
            session.get(settings.url.rstrip("/") + PATH, ssl=_context(settings)) as said,
        ):
            if said.status != _NO_WEBSOCKET:
                raise TransportError(f"the agent at {settings.url}: {_refusal(said.status, said.headers)}")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise TransportError(f"the agent at {settings.url}: {_failure(error, settings)}") from error
    return f"the agent at {settings.url} takes calls of this certificate"


def _refusal(status: int, headers: Mapping[str, str] | None) -> str:
    """Say why a switchboard took no call."""
    return (headers or {}).get("Slurmlet-Refusal") or f"it answered {status}, which no agent's switchboard does"


def _failure(error: Exception, settings: DialSettings) -> str:
    """Say why there is no line, with the file that it is about where a handshake failed."""
    hung_up = isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError)
    why = handshake_failure(
        error,
        hung_up=hung_up,
        ca_file=settings.ca_file,
        pair=settings.certificate,
        believed_by="the agent's switchboard.client_ca_file",
    )
    return why or str(error) or type(error).__name__


def _context(settings: DialSettings) -> ssl.SSLContext:
    """Return TLS as the files are now. Raises ConfigurationError naming the file."""
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"dial.ca_file: {settings.ca_file}: {error}") from error
    load_pair(context, settings.certificate)
    return context


async def _serve(stream: Stream, socket_path: str) -> None:
    try:
        reader, writer = await asyncio.open_unix_connection(socket_path)
    except OSError as error:
        raise TransportError(f"the sidecar's own socket: {error}") from error
    await carry(stream, reader, writer)
