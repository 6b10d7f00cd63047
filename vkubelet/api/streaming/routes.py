"""The routes of exec, attach, run and portForward: who is meant, which protocol, and then the work."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from aiohttp import web

from slurm_plugin.contract import ContainerProcess, Enterable
from slurm_plugin.errors import SlurmletError

from ...metrics import KUBELET_STREAMS
from ...podcache import PodCache
from . import negotiation, remotespdy, websocket
from .forwardspdy import Forwarder
from .forwardwebsocket import forward_ports, query_ports
from .limits import Limits
from .links import TransportLink, take_over
from .negotiation import RequestRefusedError
from .portforward import Connect
from .remotecommand import Streams, Wanted, carry, wanted
from .run import OutputTooLongError, output
from .spdyserver import SpdyConnection
from .targets import target_container, target_pod

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Process = AbstractAsyncContextManager[ContainerProcess]

_POD = "/{namespace}/{pod}"
_CONTAINER = "/{container}"
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE = range(5)


class StreamingApi:
    """The handlers. ``cache`` are the pods of the node."""

    def __init__(self, cache: PodCache, provider: Enterable, limits: Limits = Limits()) -> None:  # noqa: B008  frozen
        self._cache = cache
        self._provider = provider
        self._limits = limits

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve under the kubelet's paths, with and without the pod's UID."""
        for path in (_POD, _POD + "/{uid}"):
            for method in ("GET", "POST"):
                router.add_route(method, f"/exec{path}{_CONTAINER}", self._refusing(self._exec))
                router.add_route(method, f"/attach{path}{_CONTAINER}", self._refusing(self._attach))
                router.add_route(method, f"/portForward{path}", self._refusing(self._port_forward))
            router.add_post(f"/run{path}{_CONTAINER}", self._refusing(self._run))

    @staticmethod
    def _refusing(handler: Handler) -> Handler:
        """Answer what a handler refuses before it has upgraded."""

        async def refusing(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except RequestRefusedError as error:
                response = web.Response(status=error.status, text=f"{error}\n")
                for version in error.accepted:
                    response.headers.add(negotiation.ACCEPTED_HEADER, version)
                return response

        return refusing

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        asked = wanted(request.query)
        argv = request.query.getall("command", [])
        if not argv:
            raise RequestRefusedError(400, "you must specify a command")
        pod = target_pod(self._cache, request.match_info)
        container = target_container(pod, request.match_info)
        process = partial(self._provider.exec, pod.uid, container, argv, stdin=asked.stdin, tty=asked.tty)
        return await self._remote_command(request, asked, process)

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        asked = wanted(request.query)
        pod = target_pod(self._cache, request.match_info)
        container = target_container(pod, request.match_info)
        process = partial(self._provider.attach, pod.uid, container, stdin=asked.stdin)
        return await self._remote_command(request, asked, process)

    async def _run(self, request: web.Request) -> web.StreamResponse:
        pod = target_pod(self._cache, request.match_info)
        container = target_container(pod, request.match_info)
        argv = request.query.get("cmd", "").split()
        if not argv:
            raise RequestRefusedError(400, "you must specify a command: cmd=")
        try:
            code, text = await output(self._provider.exec(pod.uid, container, argv, stdin=False, tty=False))
        except (SlurmletError, OutputTooLongError) as error:
            raise RequestRefusedError(500, str(error)) from error
        if code != 0:
            said = text.decode(errors="replace")
            raise RequestRefusedError(500, f"command '{' '.join(argv)}' exited with {code}: {said}")
        return web.Response(body=text, content_type="text/plain")

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        pod = target_pod(self._cache, request.match_info)
        connect = partial(self._provider.connect, pod.uid)
        what = f"pod {pod.namespace}/{pod.name}"
        if negotiation.wants(request.headers, "websocket"):
            return await self._forward_websocket(request, connect, what=what)
        link, response, _ = await _upgrade_spdy(request, negotiation.FORWARD_VERSIONS)
        connection = SpdyConnection(link, self._limits, who=_who(request))
        await connection.serve(self._forwarder(connection, connect, what=what).run)
        return response

    def _forwarder(self, connection: SpdyConnection, connect: Connect, *, what: str) -> Forwarder:
        return Forwarder(connection, connect, pair_seconds=self._limits.stream_seconds, what=what)

    async def _forward_websocket(self, request: web.Request, connect: Connect, *, what: str) -> web.StreamResponse:
        protocol = negotiation.subprotocol(request.headers, negotiation.FORWARD_SUBPROTOCOLS)
        if protocol == negotiation.TUNNEL:
            socket = await _upgrade_websocket(request, protocol)
            spdy = SpdyConnection(websocket.WebSocketLink(socket), self._limits, who=_who(request))
            await spdy.serve(self._forwarder(spdy, connect, what=what).run)
            return socket
        ports = query_ports(request.query.getall("port", []))
        socket = await _upgrade_websocket(request, protocol)
        data_channels = range(0, 2 * len(ports), 2)
        channels = websocket.ChannelConnection(
            socket, self._limits, channels=2 * len(ports), reads=data_channels, who=_who(request)
        )
        await channels.serve(lambda: forward_ports(channels, connect, ports, what=what))
        return socket

    async def _remote_command(
        self, request: web.Request, asked: Wanted, process: Callable[[], Process]
    ) -> web.StreamResponse:
        if negotiation.wants(request.headers, "websocket"):
            return await self._command_websocket(request, asked, process)
        link, response, version = await _upgrade_spdy(request, negotiation.EXEC_VERSIONS)
        connection = SpdyConnection(link, self._limits, who=_who(request))

        async def work() -> None:
            try:
                streams = await remotespdy.accept_streams(
                    connection, asked, version, seconds=self._limits.stream_seconds
                )
            except TimeoutError:
                log.warning("%s: timed out waiting for its streams", _who(request))
                return
            await self._carry(request, process, streams)

        await connection.serve(work)
        return response

    async def _command_websocket(
        self, request: web.Request, asked: Wanted, process: Callable[[], Process]
    ) -> web.StreamResponse:
        version = negotiation.subprotocol(request.headers, negotiation.EXEC_SUBPROTOCOLS)
        socket = await _upgrade_websocket(request, version)
        connection = websocket.ChannelConnection(
            socket, self._limits, channels=_RESIZE + 1, reads=(_STDIN, _RESIZE), who=_who(request)
        )
        channels = connection.channels
        if not asked.stdin:
            channels[_STDIN].inbox.discard()
        if not asked.tty:
            channels[_RESIZE].inbox.discard()
        streams = Streams(
            version=version,
            error=channels[_ERROR],
            stdin=channels[_STDIN] if asked.stdin else None,
            stdout=channels[_STDOUT] if asked.stdout else None,
            stderr=channels[_STDERR] if asked.stderr else None,
            resize=channels[_RESIZE] if asked.tty else None,
        )

        async def work() -> None:
            # Tells the client that the connection stands.
            await (streams.stdout or streams.stderr or streams.error).write(b"")
            await self._carry(request, process, streams)

        await connection.serve(work)
        return socket

    @staticmethod
    async def _carry(request: web.Request, process: Callable[[], Process], streams: Streams) -> None:
        try:
            await carry(process(), streams, what=_who(request))
        except ConnectionError as error:
            log.info("%s: the client is gone: %s", _who(request), error)


async def _upgrade_spdy(
    request: web.Request, versions: tuple[str, ...]
) -> tuple[TransportLink, web.StreamResponse, str]:
    """Go on in SPDY: the connection, what the handler returns in the end, and the version. Raises RequestRefusedError."""
    if not negotiation.wants(request.headers, negotiation.SPDY):
        raise RequestRefusedError(400, "you must upgrade to SPDY/3.1 or WebSocket")
    version = negotiation.spdy_version(request.headers, versions)
    headers = {"Connection": "Upgrade", "Upgrade": negotiation.SPDY}
    link, response = await take_over(request, headers | {negotiation.VERSION_HEADER: version} if version else headers)
    _count(request, "spdy", version)
    return link, response, version


async def _upgrade_websocket(request: web.Request, protocol: str) -> web.WebSocketResponse:
    socket = await websocket.upgrade(request, protocol)
    _count(request, "websocket", protocol)
    return socket


def _count(request: web.Request, transport: str, protocol: str) -> None:
    """Say in the metrics what is spoken: kubectl falls back to SPDY without a word."""
    KUBELET_STREAMS.labels(request.path.split("/")[1], transport, protocol).inc()


def _who(request: web.Request) -> str:
    """Name a request in the log: the path, never the query, which holds the command."""
    return f"{request.path} of {request.remote}"
