"""A provider as an interLink plugin: what interLink's API server, or its virtual kubelet itself, asks over HTTP.

The verbs are those of interLink's Go code; those of its OpenAPI documents are taken too. Errors are plain texts, for
interLink writes them into the pod as they are. It repeats nothing: a creation that fails is a failed pod, and a deletion
is asked for once. So a creation is tried for a while when Slurm does not answer, what a failed one may have left behind
is ended, and a deleted pod's directory goes when its job has ended.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator

from aiohttp import web
from aiohttp.typedefs import Handler

from slurm_plugin.cluster import Cluster
from slurm_plugin.config import SiteSettings
from slurm_plugin.contract import PodContent, PodIdentity, PodReport, Provider, Tenanted
from slurm_plugin.errors import SlurmletError, SlurmUnavailableError
from slurm_plugin.job import JobId, PodUid
from slurm_plugin.pod import Pod

from .. import failures
from ..changes import whole
from ..feed import Feed
from ..logs import answer_log
from ..middleware import TokenFile, authentication
from ..wire import MOST_BYTES
from . import requests, statuses

log = logging.getLogger(__name__)

# interLink's virtual kubelet waits 120 s for an answer.
_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 2.0
_CLUSTER_SECONDS = 30.0
_RETRY_SECONDS = 10.0
_COLLECT_SECONDS = 600.0


class Plugin:
    """Serves one provider. ``feed`` is what is heard of it. ``tokens``: whom to believe, None where the transport decides.

    ``patience``: for how many seconds a creation is tried where Slurm does not answer.
    """

    def __init__(
        self,
        provider: Provider,
        feed: Feed,
        *,
        settings: SiteSettings,
        tokens: TokenFile | None = None,
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        self._provider = provider
        self._feed = feed
        self._mappings = settings.pods.resources
        self._orphan_seconds = settings.slurm.orphan_hours * 3600
        self._tokens = tokens
        self._patience = patience
        self._accepted: dict[PodUid, PodReport] = {}  # and not heard of yet
        self._burials: dict[PodUid, asyncio.Task[None]] = {}
        self._cluster: tuple[float, Cluster | None] = (float("-inf"), None)

    def application(self) -> web.Application:
        """Return the application; it does not listen to the provider, the feed does."""
        application = web.Application(middlewares=[_plainly, authentication(self._tokens)], client_max_size=MOST_BYTES)
        application.add_routes(
            [
                web.get("/healthz", self._health),
                web.post("/create", self._create),
                web.delete("/delete", self._delete),
                web.post("/delete", self._delete),
                web.get("/status", self._status),
                web.post("/status", self._status),
                web.get("/getLogs", self._logs),
                web.post("/getLogs", self._logs),
                web.post("/pinglink", self._ping),
                web.post("/updateCache", self._nothing),
                web.get("/system-info", self._system_info),
            ]
        )
        application.cleanup_ctx.append(self._burying)
        return application

    async def _burying(self, _application: web.Application) -> AsyncGenerator[None, None]:
        collecting = asyncio.create_task(self._collect(), name="ended pods that nobody deletes")
        yield
        tasks = (collecting, *self._burials.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- create and delete ----------------------------------------------------------------------------------------

    async def _create(self, request: web.Request) -> web.Response:
        body = await _body(request)
        pod, content = requests.creation(body)
        self._check_complete()
        job_id = await whole(self._submit(pod, content))
        report = statuses.accepted(pod, job_id)
        self._accepted[report.uid] = report
        answer = statuses.created(report.uid, job_id)
        return _json([answer] if isinstance(body, list) else answer)

    async def _submit(self, pod: Pod, content: PodContent) -> JobId:
        """Submit; what does not answer is asked again for a while, and what fails in the end leaves no job behind."""
        until = time.monotonic() + self._patience
        while True:
            try:
                return await self._provider.submit(pod, content)
            except SlurmletError as error:
                if not error.transient:
                    raise
                if time.monotonic() > until:
                    self._bury(PodUid(pod.metadata.uid), 0)  # it may have been accepted, and interLink gives up
                    raise
                log.warning("create of %s: %s; trying again", pod.metadata.uid, error)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _delete(self, request: web.Request) -> web.Response:
        pod = requests.pod_of(await _body(request))
        self._check_complete()
        await self._introduce(pod)
        asked = pod.metadata.deletion_grace_period_seconds
        grace = pod.spec.termination_grace_period_seconds if asked is None else asked
        uid = PodUid(pod.metadata.uid)
        try:
            await whole(self._provider.terminate(uid, grace))
        except SlurmletError as error:
            log.warning("delete of %s: %s; goes on in the background", uid, error)
        self._bury(uid, grace)
        return web.Response(text="deleted\n")

    def _bury(self, uid: PodUid, grace_seconds: int) -> None:
        """End a pod that nobody wants any more, and remove what is left of it, in the background; once at a time."""
        if uid not in self._burials:
            burial = self._burials[uid] = asyncio.create_task(self._end(uid, grace_seconds), name=f"end of pod {uid}")
            burial.add_done_callback(lambda _done: self._burials.pop(uid, None))

    async def _end(self, uid: PodUid, grace_seconds: int) -> None:
        """Insist until nothing is left of a pod; one that is not known is a no-op."""
        while True:
            try:
                await self._provider.terminate(uid, grace_seconds)
                await self._feed.over(uid)
                await self._provider.forget(uid)
            except SlurmletError as error:
                log.warning("end of pod %s: %s; trying again", uid, error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self._feed.forget(uid)
                self._accepted.pop(uid, None)
                return

    async def _collect(self) -> None:
        """Remove pods that ended so long ago that nobody will delete them any more; runs until cancelled.

        A deletion is asked for once, and is lost where it meets no sidecar; nobody can be asked which pods there are.
        """
        first_seen: dict[PodUid, float] = {}
        await self._feed.complete()
        while True:
            now = time.time()
            over = [report for report in self._feed.reports() if report.over]
            first_seen = {report.uid: first_seen.get(report.uid, now) for report in over}
            for report in over:
                if now - (statuses.end_of(report) or first_seen[report.uid]) > self._orphan_seconds:
                    log.info(
                        "pod %s/%s ended long ago: removed", report.namespace, report.name, extra={"uid": report.uid}
                    )
                    self._bury(report.uid, 0)
            await asyncio.sleep(min(_COLLECT_SECONDS, self._orphan_seconds))

    # --- status ---------------------------------------------------------------------------------------------------

    async def _status(self, request: web.Request) -> web.Response:
        pods = requests.pods_of(await _body(request))
        if not pods:
            return await self._ping(request)
        self._check_complete()
        await self._introduce(*pods)
        answers = []
        for pod in pods:
            report = self._report(PodUid(pod.metadata.uid))
            if report is None and requests.was_created(pod):
                report = statuses.lost(pod)
            if report is not None and not report.stray:  # its own user is heard in a moment
                answers.append(statuses.status_of(pod, report, now=time.time()))
        return _json(answers or None)

    async def _introduce(self, *pods: Pod) -> None:
        """Say whose pods are asked about, before anything is said of them."""
        if isinstance(self._provider, Tenanted):
            await self._provider.introduce([PodIdentity.of(pod) for pod in pods])

    def _report(self, uid: PodUid) -> PodReport | None:
        heard = self._feed.report(uid)
        return self._accepted.get(uid) if heard is None else heard

    async def _ping(self, _request: web.Request) -> web.Response:
        """Say that the plugin lives, also while Slurm does not answer: a node that is not ready loses its pods."""
        return _json(statuses.ping(await self._known_cluster(), self._mappings, self._feed.reachable.error))

    async def _known_cluster(self) -> Cluster | None:
        """Return what the cluster has, as of a short while ago, or as it was last known."""
        at, cluster = self._cluster
        if time.monotonic() - at > _CLUSTER_SECONDS and self._feed.reachable.error is None:
            try:
                cluster = await self._provider.cluster()
            except SlurmletError as error:
                log.warning("ping: %s", error)
            self._cluster = time.monotonic(), cluster
        return cluster

    async def _system_info(self, _request: web.Request) -> web.Response:
        return _json(statuses.system_info(self._feed.reachable.error, now=time.time()))

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _nothing(self, _request: web.Request) -> web.Response:
        return web.Response(text="no cache is kept here\n")

    def _check_complete(self) -> None:
        """Before every pod is known nothing is submitted, and no pod is said to be unknown."""
        if not self._feed.ready:
            raise SlurmUnavailableError(f"not every pod is known yet: {self._feed.reachable.error or 'wait a moment'}")

    # --- logs -----------------------------------------------------------------------------------------------------

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        asked = requests.log_asked(await _body(request), time.time())
        log_of = self._provider.logs(asked.uid, asked.container, asked.options)
        return await answer_log(request, log_of, media="text/plain; charset=utf-8")


def _json(body: object) -> web.Response:
    return web.json_response(body)


async def _body(request: web.Request) -> object:
    """Return the request's body; GET has one too."""
    data = await request.read()
    try:
        body: object = json.loads(data) if data.strip() else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from error
    return body


@web.middleware
async def _plainly(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors into texts that a user can read in the pod's status."""
    try:
        return await handler(request)
    except SlurmletError as error:
        log.warning("interLink: %s %s: %s", request.method, request.path, error)
        return web.Response(status=failures.status(error), text=f"{error}\n")
    except ValueError as error:
        return web.Response(status=400, text=f"{error}\n")
    except web.HTTPException:
        raise
    except Exception:
        log.exception("interLink: %s %s failed", request.method, request.path)
        return web.Response(status=500, text="the sidecar failed; its log says why\n")
