"""The client against a server that answers as an API server does, over real HTTP."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from slurm_plugin.errors import ConfigurationError
from vkubelet.credentials import Access
from vkubelet.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    KubeError,
    NotFoundError,
    ReplacedError,
    UnauthorizedError,
    UnavailableError,
)
from vkubelet.kube import Changed, Kube, Listed, Patch

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiServer:
    """Answers with what ``answer`` says; keeps what was asked."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], str, object]] = []
        self.answer: Answer = lambda _request: _json({})
        self.loads = 0
        self.now = 0.0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text else None
        kind = request.headers.get("Content-Type", "")
        self.requests.append((request.method, request.path, dict(request.query), kind, body))
        return await self.answer(request)


async def _json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(body, status=status, headers=headers)


@pytest.fixture
async def api() -> AsyncIterator[tuple[ApiServer, Kube]]:
    server = ApiServer()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    running = TestServer(application)
    await running.start_server()

    async def settings() -> dict[str, dict[str, str]]:
        return {"BearerToken": {"key": "authorization", "value": f"Bearer token-{server.loads}"}}

    async def load() -> Access:
        server.loads += 1
        url = str(running.make_url("")).rstrip("/")
        return Access(url, ssl.create_default_context(), None, None, SimpleNamespace(auth_settings=settings))

    kube = Kube(load, clock=lambda: server.now)
    yield server, kube
    await kube.close()
    await running.close()


def item(name: str, version: int) -> dict[str, object]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


@pytest.mark.parametrize(
    ("method", "code", "status", "error", "transient"),
    [
        ("get", 401, {}, UnauthorizedError, True),
        ("get", 403, {"message": "no right"}, ForbiddenError, False),
        ("get", 404, {}, NotFoundError, False),
        ("create", 409, {"reason": "AlreadyExists"}, AlreadyExistsError, True),
        ("patch", 409, {"reason": "Conflict"}, ConflictError, True),
        ("delete", 409, {"reason": "Conflict"}, ReplacedError, False),
        ("patch", 422, {"details": {"causes": [{"field": "metadata.uid"}]}}, ReplacedError, False),
        ("patch", 422, {"details": {"causes": [{"field": "status.podIPs"}]}}, InvalidError, False),
        ("get", 410, {}, GoneError, False),
        ("get", 429, {}, UnavailableError, True),
        ("get", 500, {}, UnavailableError, True),
        ("get", 503, {}, UnavailableError, True),
        ("get", 400, {"message": "bad"}, KubeError, False),
    ],
)
async def test_every_refusal_has_its_class(api, method, code, status, error, transient):
    server, kube = api
    server.answer = lambda _request: _json(status, code)
    calls = {
        "get": lambda: kube.get("/x"),
        "create": lambda: kube.create("/x", {}),
        "patch": lambda: kube.patch("/x", {}),
        "delete": lambda: kube.delete("/x", uid="u", grace_seconds=0),
    }
    with pytest.raises(KubeError) as caught:
        await calls[method]()
    assert type(caught.value) is error
    assert caught.value.transient is transient
    assert f" {code} " in f"{caught.value} "


async def test_long_messages_are_cut_and_what_was_sent_is_never_quoted(api):
    server, kube = api
    server.answer = lambda _request: _json({"message": "x" * 5000}, 500)
    with pytest.raises(UnavailableError) as caught:
        await kube.create("/x", {"data": "s3cret"})
    assert len(str(caught.value)) < 600
    assert "s3cret" not in str(caught.value)


async def test_a_servers_wish_for_a_pause_is_kept(api):
    server, kube = api
    server.answer = lambda _request: _json({}, 429, {"Retry-After": "7"})
    with pytest.raises(UnavailableError) as caught:
        await kube.get("/x")
    assert caught.value.retry_after == 7


async def test_an_expired_credential_is_loaded_again_once(api):
    server, kube = api

    assert await kube.get("/x") == {}
    server.now = 3600

    async def answer(request: web.Request) -> web.StreamResponse:
        return await _json({}, 200 if request.headers["Authorization"] == "Bearer token-2" else 401)

    server.answer = answer
    assert await kube.get("/x") == {}
    assert server.loads == 2
    server.answer = lambda _request: _json({}, 401)
    with pytest.raises(UnauthorizedError):
        await kube.get("/x")
    assert server.loads == 2


async def test_a_credential_that_can_not_be_loaded_again_is_one_of_our_errors_and_tried_later(api):
    async def load() -> Access:
        raise ConfigurationError("kubernetes: the file is just being replaced")

    kube = Kube(load)
    with pytest.raises(UnauthorizedError, match="just being replaced"):
        await kube.get("/x")


async def test_an_attempt_to_load_the_credential_that_fails_late_fails_for_all_that_waited_for_it():
    loads, now, hanging = 0, 100.0, asyncio.Event()

    async def load() -> Access:
        nonlocal loads
        loads += 1
        await hanging.wait()
        raise ConfigurationError("kubernetes: the exec plugin gave no credential within 30 s")

    kube = Kube(load, clock=lambda: now)
    calls = [asyncio.create_task(kube.get("/x")) for _ in range(20)]
    await asyncio.sleep(0)
    hanging.set()
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert {str(error) for error in errors} == {
        "the credential can't be loaded again: kubernetes: the exec plugin gave no credential within 30 s"
    }
    assert loads == 1
    now += 5
    with pytest.raises(UnauthorizedError):
        await kube.get("/x")
    assert loads == 2


async def test_a_server_that_is_not_there_is_unavailable():
    async def settings() -> dict[str, dict[str, str]]:
        return {}

    async def load() -> Access:
        configuration = SimpleNamespace(auth_settings=settings)
        return Access("http://127.0.0.1:1", ssl.create_default_context(), None, None, configuration)

    kube = Kube(load)
    with pytest.raises(UnavailableError):
        await kube.get("/x")
    await kube.close()


async def test_patches_say_their_kind_and_deletions_their_precondition(api):
    server, kube = api
    await kube.patch("/a", {"x": 1})
    await kube.patch("/a", {"x": 1}, kind=Patch.MERGE)
    await kube.delete("/a", uid="u", grace_seconds=0)
    kinds = [kind for _, _, _, kind, _ in server.requests]
    assert kinds[:2] == ["application/strategic-merge-patch+json", "application/merge-patch+json"]
    assert server.requests[2][4] == {
        "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": "u"},
    }  # fmt: skip


async def test_a_list_is_read_in_pages(api):
    server, kube = api

    async def answer(request: web.Request) -> web.StreamResponse:
        if "continue" in request.query:
            return await _json({"metadata": {"resourceVersion": "9"}, "items": [item("b", 2)]})
        return await _json({"metadata": {"resourceVersion": "9", "continue": "more"}, "items": [item("a", 1)]})

    server.answer = answer
    names, version = await kube.list_all("/pods", lambda body: body["metadata"]["name"], fieldSelector="x=y")
    assert (names, version) == (("a", "b"), "9")
    assert all(query["fieldSelector"] == "x=y" for _, _, query, _, _ in server.requests)


class Watching:
    """A scripted list and watch: ``streams`` are the events of each watch, then it stays silent."""

    def __init__(self, server: ApiServer) -> None:
        self.lists: list[list[dict[str, object]]] = []
        self.streams: list[list[tuple[str, dict[str, object]]]] = []
        self.server = server
        server.answer = self.answer

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return await _json({"metadata": {"resourceVersion": "10"}, "items": self.lists.pop(0)})
        response = web.StreamResponse()
        await response.prepare(request)
        for kind, body in self.streams.pop(0) if self.streams else []:
            line = json.dumps({"type": kind, "object": body}).encode() + b"\n"
            for part in (line[:7], line[7:]):  # lines arrive in pieces
                await response.write(part)
        if not self.streams:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return response

    def versions(self) -> list[str]:
        return [query["resourceVersion"] for _, _, query, _, _ in self.server.requests if "watch" in query]


async def _take(kube: Kube, count: int) -> list[object]:
    result: list[object] = []
    async with asyncio.timeout(60), aclosing(kube.follow("/pods", lambda body: body["metadata"]["name"])) as changes:
        async for change in changes:
            result.append(change)
            if len(result) == count:
                break
    return result


async def test_following_lists_and_then_tells_changes_and_goes_on_from_the_last_bookmark(api):
    server, kube = api
    watching = Watching(server)
    watching.lists = [[item("a", 1)]]
    watching.streams = [
        [("ADDED", item("b", 11)), ("DELETED", item("b", 12)), ("BOOKMARK", item("", 99))],
        [("MODIFIED", item("a", 100))],
    ]
    assert await _take(kube, 4) == [
        Listed(("a",)), Changed("b", deleted=False), Changed("b", deleted=True), Changed("a", deleted=False),
    ]  # fmt: skip
    assert watching.versions() == ["10", "99"]


async def test_a_version_that_is_too_old_lists_everything_again(api):
    server, kube = api
    watching = Watching(server)
    watching.lists = [[item("a", 1)], [item("c", 3)]]
    watching.streams = [[("ERROR", {"code": 410, "message": "too old resource version"})], []]
    assert await _take(kube, 2) == [Listed(("a",)), Listed(("c",))]


async def test_a_version_that_is_too_old_again_and_again_does_not_have_everything_listed_without_a_pause(api):
    server, kube = api
    watching = Watching(server)
    watching.lists = [[item("a", 1)] for _ in range(1000)]
    watching.streams = [[("ERROR", {"code": 410, "message": "too old resource version"})] for _ in range(1000)]
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            await _take(kube, 1000)
    assert 1000 - len(watching.lists) <= 6


async def test_an_object_of_megabytes_arrives_whole(api):
    server, kube = api
    watching = Watching(server)
    watching.lists = [[]]
    big = item("x" * 3_000_000, 11)
    watching.streams = [[("ADDED", big)]]
    _, change = await _take(kube, 2)
    assert isinstance(change, Changed)
    assert len(change.item) == 3_000_000


async def test_an_objects_metadata_alone_is_asked_of_the_servers_own_cache(api):
    server, kube = api
    accepted = []

    async def answer(request: web.Request) -> web.Response:
        accepted.append(request.headers["Accept"])
        return await _json(item("a", 7))

    server.answer = answer
    assert (await kube.get_metadata("/x"))["metadata"]["resourceVersion"] == "7"
    assert server.requests[0][:3] == ("GET", "/x", {"resourceVersion": "0"})
    assert accepted == ["application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"]
