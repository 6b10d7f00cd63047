"""The provider contract over HTTP: routes and handlers, each decode, one call, encode."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from slurm_plugin.cluster import Cluster
from slurm_plugin.contract import (
    Editable,
    Enterable,
    Extendable,
    LogOptions,
    Measurable,
    PodContent,
    PodUsage,
    Provider,
    Tenanted,
)
from slurm_plugin.errors import SlurmletError, UnsupportedFieldError
from slurm_plugin.job import PodUid
from slurm_plugin.pod import Pod

from . import failures, pieces, streams, wire
from .changes import whole
from .codec import decode, encode
from .feed import Feed, Numbered
from .logs import answer_log
from .middleware import TokenFile, answer, authentication, counting
from .openapi import document
from .pulse import pulsed

log = logging.getLogger(__name__)


class Sidecar:
    """Serves one provider. ``tokens``: whom to believe, None where the transport has decided that."""

    def __init__(self, provider: Provider, *, tokens: TokenFile | None = None) -> None:
        self._provider = provider
        self._tokens = tokens
        self._feed = Feed(provider)
        self._registry = CollectorRegistry()
        pods = Gauge("slurmlet_sidecar_pods", "Pods that are known here.", registry=self._registry)
        pods.set_function(lambda: self._feed.pods)
        reachable = Gauge("slurmlet_sidecar_slurm_reachable", "Whether Slurm answers.", registry=self._registry)
        reachable.set_function(lambda: self._feed.reachable.error is None)

    @property
    def feed(self) -> Feed:
        """What is heard of the provider while the application runs."""
        return self._feed

    def application(self) -> web.Application:
        """Return the application; while it runs, it listens to the provider."""
        application = web.Application(
            middlewares=[counting(self._registry), authentication(self._tokens)], client_max_size=wire.MOST_BYTES
        )
        uid = wire.POD.replace("{uid}", f"{{uid:{wire.UID}}}")
        application.add_routes(
            [
                web.get("/healthz", self._health),
                web.get("/readyz", self._ready),
                web.get("/metrics", self._metrics),
                web.get("/openapi.json", self._openapi),
                web.get(wire.CLUSTER, self._cluster),
                web.post(wire.IDENTITIES, self._introduce),
                web.post(wire.PODS, self._submit),
                web.put(uid, self._edit),
                web.delete(uid, self._forget),
                web.post(f"{uid}/terminate", self._terminate),
                web.put(f"{uid}/content", self._update),
                web.post(f"{uid}/containers", self._extend),
                web.post(f"{uid}/containers/{{container:[a-z0-9.-]{{1,253}}}}/log", self._log),
                web.get(f"{uid}/stream", self._stream),
                web.get(wire.REPORTS, self._reports),
                web.get(wire.USAGE, self._usage),
            ]
        )
        application.cleanup_ctx.append(self._listening)
        return application

    async def _listening(self, _application: web.Application) -> AsyncGenerator[None, None]:
        task = asyncio.create_task(self._feed.run(), name="reports")
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self._provider.close()

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, _request: web.Request) -> web.Response:
        error = None if self._feed.ready else "not every pod is known yet"
        error = error or self._feed.reachable.error
        return web.Response(status=503 if error else 200, text=f"{error or 'ok'}\n")

    async def _metrics(self, _request: web.Request) -> web.Response:
        # Slurm's commands are counted once for the process (``slurm_plugin.metrics``), pods and requests for each sidecar.
        figures = generate_latest(self._registry) + generate_latest()
        return web.Response(body=figures, headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _openapi(self, _request: web.Request) -> web.Response:
        return answer(200, document())

    async def _cluster(self, _request: web.Request) -> web.Response:
        return answer(200, encode(await self._provider.cluster(), Cluster))

    async def _introduce(self, request: web.Request) -> web.Response:
        asked = await _body(request, wire.Introduce)
        if isinstance(self._provider, Tenanted):
            await self._provider.introduce(asked.pods)
        return answer(200, {})

    async def _submit(self, request: web.Request) -> web.Response:
        asked = await _body(request, wire.Submit)
        job_id = await whole(self._provider.submit(asked.pod, asked.content))
        metadata = asked.pod.metadata
        what = {"namespace": metadata.namespace, "pod": metadata.name, "uid": metadata.uid, "job_id": job_id}
        log.info("submitted", extra=what)
        return answer(200, encode(wire.Submitted(job_id), wire.Submitted))

    async def _forget(self, request: web.Request) -> web.Response:
        uid = _uid(request)
        await whole(self._provider.forget(uid))
        self._feed.forget(uid)
        log.info("forgotten", extra={"uid": uid})
        return answer(200, {})

    async def _terminate(self, request: web.Request) -> web.Response:
        asked = await _body(request, wire.Terminate)
        if asked.grace_seconds < 0:
            raise ValueError("grace_seconds can't be negative")
        uid = _uid(request)
        log.info("end asked for, with %d s of grace", asked.grace_seconds, extra={"uid": uid})
        await whole(self._provider.terminate(uid, asked.grace_seconds))
        return answer(200, {})

    async def _update(self, request: web.Request) -> web.Response:
        await whole(self._provider.update(_uid(request), await _body(request, PodContent)))
        return answer(200, {})

    async def _extend(self, request: web.Request) -> web.Response:
        asked = await _body(request, wire.Extend)
        _is_of_path(asked.pod, request)
        if not isinstance(self._provider, Extendable):
            raise UnsupportedFieldError(
                "spec.ephemeralContainers", "the pods of this sidecar can't be given containers"
            )
        await whole(self._provider.extend(asked.pod, asked.content))
        return answer(200, {})

    async def _edit(self, request: web.Request) -> web.Response:
        pod = (await _body(request, wire.Edit)).pod
        _is_of_path(pod, request)
        if not isinstance(self._provider, Editable):
            raise UnsupportedFieldError("spec", "the pods of this sidecar take up no edits")
        await whole(self._provider.edit(pod))
        return answer(200, {})

    async def _usage(self, _request: web.Request) -> web.Response:
        usage = await self._provider.usage() if isinstance(self._provider, Measurable) else ()
        return answer(200, encode(usage, tuple[PodUsage, ...]))

    async def _log(self, request: web.Request) -> web.StreamResponse:
        options: LogOptions = (await _body(request, wire.LogRequest)).options
        log_of = self._provider.logs(_uid(request), request.match_info["container"], options)
        return await answer_log(request, pieces.write(log_of), media=pieces.MEDIA)

    async def _reports(self, request: web.Request) -> web.StreamResponse:
        epoch, sequence = request.query.get("epoch", ""), int(request.query.get("sequence", "0"))
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        async with aclosing(_lines(self._feed.read(epoch, sequence))) as lines:
            async for line in lines:
                await response.write(line)
        return response

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(heartbeat=wire.PULSE_SECONDS, max_msg_size=streams.MOST_BYTES)
        await socket.prepare(request)
        if not isinstance(self._provider, Enterable):
            await socket.send_json({"error": "HostError", "message": "the pods here can't be entered"})
        else:
            try:
                await streams.serve(socket, self._provider, _uid(request))
            except (SlurmletError, ValueError) as error:
                said = failures.to_json(error) if isinstance(error, SlurmletError) else {"message": str(error)}
                if not socket.closed:
                    await socket.send_json({"error": "HostError", **said})
        await socket.close()
        return socket


async def _lines(reports: AsyncGenerator[Numbered, None]) -> AsyncGenerator[bytes, None]:
    """Yield a line for each report, and an empty one whenever there was none for a while."""
    async with aclosing(pulsed(reports, wire.PULSE_SECONDS)) as items:
        async for item in items:
            line = None if item is None else wire.Line(item.epoch, item.sequence, item.report)
            yield b"\n" if line is None else json.dumps(encode(line, wire.Line)).encode() + b"\n"


async def _body(request: web.Request, kind: Any) -> Any:
    try:
        data = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from error
    return decode(data, kind)


def _is_of_path(pod: Pod, request: web.Request) -> None:
    if pod.metadata.uid != _uid(request):
        raise ValueError(f"the pod's UID is {pod.metadata.uid!r}, not the path's")


def _uid(request: web.Request) -> PodUid:
    return PodUid(request.match_info["uid"])
