"""An interLink plugin in a few lines, as bad as the reference one; pods run in its memory.

Of a pod that it does not know its status is 500 for ever, and to delete it panics: the connection breaks.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Plugin:
    """``refuse``: what create answers instead of 200. ``runs_all_the_same``: a refused pod runs nevertheless."""

    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: list[Any] = field(default_factory=list)
    verbs: list[str] = field(default_factory=list)
    statuses: dict[str, list[Any]] = field(default_factory=dict)
    refuse: str = ""
    refuse_code: int = 504
    runs_all_the_same: bool = False
    lose_the_answer: bool = False
    loses_the_pod: bool = False
    answers_for_another: bool = False
    as_list: bool = False

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_post("/create", self._create)
        application.router.add_route("*", "/delete", self._delete)
        application.router.add_get("/status", self._status)
        application.router.add_get("/getLogs", self._logs)
        application.router.add_post("/pinglink", self._ping)
        return application

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.created.append(body)
        uid = body["pod"]["metadata"]["uid"]
        if (not self.refuse or self.runs_all_the_same) and not self.loses_the_pod:
            self.pods[uid] = body["pod"]
        if self.refuse:
            return web.Response(status=self.refuse_code, text=self.refuse)
        if self.lose_the_answer:
            assert request.transport is not None
            request.transport.abort()
        answer = {"PodUID": uid, "PodJID": f"job-{uid}"}
        return web.json_response([answer] if self.as_list else answer)

    async def _delete(self, request: web.Request) -> web.Response:
        self.verbs.append(request.method)
        uid = (await request.json())["metadata"]["uid"]
        if uid not in self.pods:
            assert request.transport is not None
            request.transport.abort()
        self.pods.pop(uid, None)
        return web.Response(text="gone")

    async def _status(self, request: web.Request) -> web.Response:
        pods = await request.json()
        if not pods:
            return web.Response(text="all is well")
        uid = pods[0]["metadata"]["uid"]
        if self.answers_for_another:
            return web.json_response([{"UID": "another", "name": "x", "containers": [ended(0)]}])
        if uid not in self.pods:
            return web.Response(status=500, text="Some errors occurred while checking pods statuses")
        return web.json_response([
            {"name": "p", "namespace": "default", "UID": uid, "JID": f"job-{uid}",
             "containers": self.statuses.get(uid, []), "initContainers": None}
        ])  # fmt: skip

    async def _logs(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if asked["PodUID"] not in self.pods:
            return web.Response(status=400, text="no such log")
        return web.Response(text=json.dumps(asked["Opts"]))

    async def _ping(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "resources": {"cpu": "96", "memory": "256Gi", "pods": "10"}})


def running() -> dict[str, Any]:
    return {"name": "main", "ready": True, "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}}}


def ended(code: int) -> dict[str, Any]:
    body = {"exitCode": code, "startedAt": "2026-01-02T03:04:05Z", "finishedAt": "2026-01-02T03:05:05Z"}
    return {"name": "main", "state": {"terminated": body}}


@asynccontextmanager
async def served(plugin: Plugin, path: str) -> AsyncIterator[str]:
    """Serve a plugin on a unix socket; yields its URL."""
    runner = web.AppRunner(plugin.application())
    await runner.setup()
    try:
        await web.UnixSite(runner, path).start()
        yield f"unix://{path}"
    finally:
        await runner.cleanup()
