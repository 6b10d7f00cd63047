"""The routes of the kubelet's API, and the door in front of them: nobody reaches a handler unidentified or unallowed."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from aiohttp import web

from slurm_plugin.contract import Enterable, Provider
from slurm_plugin.errors import PodNotFoundError, SlurmletError

from ..errors import KubeError
from ..podcache import PodCache
from .auth import RUNS_CODE, Authenticator, Authorizer, certificate_identity, needed_access
from .logs import LogsRefusedError, check_container, check_pod, log_options
from .metrics import count_requests
from .streaming.routes import StreamingApi

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# How long a log may take to say its first bytes, or that there is none, before the answer's head is sent without them.
_FIRST_BYTES_SECONDS = 0.5


class KubeletApi:
    """The handlers. ``cache`` are the pods of the node."""

    def __init__(
        self, cache: PodCache, provider: Provider, authenticator: Authenticator, authorizer: Authorizer
    ) -> None:
        self._cache = cache
        self._provider = provider
        self._authenticator = authenticator
        self._authorizer = authorizer

    def application(self, *more: Iterable[web.RouteDef]) -> web.Application:
        """Return the aiohttp application; ``more`` are routes of other modules, behind the same door."""
        application = web.Application(middlewares=[count_requests, self._door])
        for routes in more:
            application.router.add_routes(routes)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._container_logs)
        self._add_streaming(application.router)
        return application

    def _add_streaming(self, router: web.UrlDispatcher) -> None:
        if isinstance(self._provider, Enterable):
            StreamingApi(self._cache, self._provider).add_routes(router)
            return
        for what in sorted(RUNS_CODE):
            router.add_route("*", f"/{what}/{{rest:.*}}", self._not_enterable)

    async def _not_enterable(self, _request: web.Request) -> web.Response:
        """Say so, where kubectl shows it, instead of a bare 404."""
        return web.Response(status=501, text="pods of this virtual node can't be entered: its provider has no way in")

    @web.middleware
    async def _door(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let in whom the cluster knows and allows; paths that do not exist included."""
        access = needed_access(request.method, request.path)
        try:
            peer = request.transport.get_extra_info("peercert") if request.transport is not None else None
            identity = certificate_identity(peer)
            if identity is None:
                identity = await self._authenticator.identify(request.headers.get("Authorization"))
            if identity is None:
                response = web.Response(status=401, text="Unauthorized")
                response.force_close()  # nobody keeps a connection whom nobody knows
                return response
            allowed = await self._authorizer.allows(identity, access)
        except KubeError as error:
            log.warning("can't check a request to %s: %s", request.path, error)
            return web.Response(status=500, text="the API server can't be asked who you are")
        if not allowed:
            text = (
                f"Forbidden (user={identity.user}, verb={access.verb}, resource=nodes, "
                f"subresource(s)=[{' '.join(access.subresources)}])"
            )
            return web.Response(status=403, text=text)
        return await handler(request)

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _container_logs(self, request: web.Request) -> web.StreamResponse:
        namespace, name, container = (request.match_info[key] for key in ("namespace", "pod", "container"))
        try:
            options = log_options(request.query, now=time.time())
            pod = check_pod(self._cache.find(namespace, name), name)
            check_container(pod.json(), container, previous=options.previous)
        except LogsRefusedError as error:
            return web.Response(status=error.status, text=str(error))
        # Closing the stream stops its reader on the other side.
        async with contextlib.aclosing(self._provider.logs(pod.uid, container, options)) as chunks:
            return await _stream(request, chunks)


async def _stream(request: web.Request, chunks: AsyncIterator[bytes]) -> web.StreamResponse:
    """Send chunks as they come. An error before the first is the answer; one after it can only end it."""
    first = asyncio.ensure_future(anext(chunks, None))
    try:
        await asyncio.wait((first,), timeout=_FIRST_BYTES_SECONDS)
        if first.done() and (refusal := _refusal(first.exception())) is not None:
            return refusal
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        chunk = await first
        while chunk is not None:
            await response.write(chunk)
            chunk = await anext(chunks, None)
        await response.write_eof()
    except (SlurmletError, ConnectionError) as error:
        # The head is out: all that is left is to end without the last chunk, which tells the client that it is cut.
        log.info("log of %s cut: %s", request.path, error)
        if request.transport is not None:
            request.transport.abort()
        return response
    finally:
        if not first.done():
            first.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await first
    return response


def _refusal(error: BaseException | None) -> web.Response | None:
    match error:
        case None:
            return None
        case PodNotFoundError():
            return web.Response(status=400, text=str(error))
        case SlurmletError():
            return web.Response(status=500, text=str(error))
        case _:
            raise error
