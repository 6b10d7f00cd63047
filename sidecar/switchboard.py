"""The agent's side: where sidecars call that open the connection themselves, each known by its certificate's name.

For each sidecar that is connected there is a unix socket that only this process's user may open; what connects to it is
carried to the sidecar. While it is away there is none, so that a request fails before anything was sent.
"""

import asyncio
import logging
import os
import ssl
import tempfile
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web

from slurm_plugin.errors import ConfigurationError, TransportError

from . import frames, wire
from .config import SwitchboardSettings
from .dialling import PATH, REPLACED
from .multiplex import Multiplexer, carry
from .tls import Entrance

log = logging.getLogger(__name__)

_LOOK_SECONDS = 10.0
_SHUTDOWN_SECONDS = 1.0


class Switchboard:
    """Sidecars of these names may call. ``socket_of`` says where each is found while it is connected."""

    def __init__(self, names: Iterable[str], directory: str) -> None:
        self._paths = {name: os.path.join(directory, f"{index}.sock") for index, name in enumerate(names)}
        self._sockets: dict[str, web.WebSocketResponse] = {}

    def socket_of(self, name: str) -> str:
        """Return the path of the unix socket that leads to a sidecar."""
        return self._paths[name]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Take a sidecar's call, for as long as it lasts. The newer of two with one name takes its place."""
        names = certificate_names(request.transport.get_extra_info("peercert") if request.transport else None)
        name = next((name for name in self._paths if name in names), None)
        if name is None:
            said = f"no sidecar is expected whose certificate is for {' or '.join(sorted(names)) or 'nobody'}"
            log.warning("a call from %s is refused: %s; known are %s", request.remote, said, ", ".join(self._paths))
            return web.Response(status=403, headers={"Slurmlet-Refusal": said.encode("ascii", "replace").decode()})
        socket = web.WebSocketResponse(
            heartbeat=wire.PULSE_SECONDS, max_msg_size=frames.MOST_FRAME_BYTES + 1, compress=False
        )
        await socket.prepare(request)
        if (before := self._sockets.get(name)) is not None:
            log.warning("sidecar %s calls from %s; its earlier connection is given up", name, request.remote)
            await before.close(code=REPLACED, message=b"another one of this name has called")
        else:
            log.info("sidecar %s calls from %s", name, request.remote)
        await self._serve(name, socket)
        return socket

    async def _serve(self, name: str, socket: web.WebSocketResponse) -> None:
        line = Multiplexer(socket)
        self._sockets[name] = socket
        path = self._paths[name]
        with suppress(FileNotFoundError):
            os.unlink(path)

        tasks: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(_carry(name, line, reader, writer), name=f"stream to sidecar {name}")
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_unix_server(connected, path)
        try:
            why = await line.run()
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._sockets.get(name) is socket:
                del self._sockets[name]
                with suppress(FileNotFoundError):
                    os.unlink(path)
        log.warning("sidecar %s is away: %s", name, why)


async def _carry(name: str, line: Multiplexer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        stream = await line.open()
        try:
            await carry(stream, reader, writer)
        finally:
            await line.leave(stream)
    except (TransportError, OSError) as error:
        log.debug("sidecar %s: %s", name, error)
    finally:
        writer.transport.abort()  # what could be carried to its end is written already


def certificate_names(certificate: dict[str, Any] | None) -> set[str]:
    """Return whom a verified client certificate is for: its DNS names, else its common name."""
    found = {value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "DNS"}
    if found:
        return found
    subject = (certificate or {}).get("subject", ())
    return {value for part in subject for key, value in part if key == "commonName"}


@asynccontextmanager
async def switchboard(settings: SwitchboardSettings, names: Iterable[str]) -> AsyncGenerator[Switchboard, None]:
    """Listen for sidecars of these names. Raises ConfigurationError: a file, or the address, can't be used."""
    with tempfile.TemporaryDirectory(prefix="slurmlet-") as directory:  # 0700
        board = Switchboard(names, directory)
        application = web.Application()
        application.router.add_get(PATH, board.answer)
        entrance = Entrance(settings.certificate, settings.client_ca_file)
        if entrance.context.verify_mode is not ssl.CERT_REQUIRED:
            raise ConfigurationError("switchboard.client_ca_file: sidecars are known by their certificates")
        runner = web.AppRunner(
            application, handler_cancellation=True, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS
        )
        await runner.setup()
        keeping = asyncio.create_task(entrance.keep(_LOOK_SECONDS), name="switchboard's certificates")
        try:
            try:
                await web.TCPSite(runner, settings.listen, settings.port, ssl_context=entrance.context).start()
            except OSError as error:
                where = f"{settings.listen}:{settings.port}"
                raise ConfigurationError(f"switchboard: can't listen on {where}: {error.strerror or error}") from error
            log.info("sidecars may call on %s:%d", settings.listen, settings.port)
            yield board
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await runner.cleanup()
