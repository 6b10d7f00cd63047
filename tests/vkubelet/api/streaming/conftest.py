import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.vkubelet.api.streaming.local import LocalPods, eventually
from vkubelet.api.streaming.limits import Limits
from vkubelet.api.streaming.routes import StreamingApi
from vkubelet.podcache import PodCache, cached_pod


@pytest.fixture
def local() -> LocalPods:
    return LocalPods()


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.fixture
async def server(local: LocalPods, limits: Limits) -> AsyncIterator[TestServer]:
    """Serves the pod default/p (UID u) with the container main; afterwards nothing of any request is left."""
    cache = PodCache()
    metadata = {"name": "p", "namespace": "default", "uid": "u", "resourceVersion": "1"}
    cache.put(cached_pod({"metadata": metadata, "spec": {"containers": [{"name": "main"}]}}))
    application = web.Application()
    StreamingApi(cache, local, limits).add_routes(application.router)
    server = TestServer(application)
    before = asyncio.all_tasks()
    await server.start_server()
    yield server
    await nothing_left(server, local, before)
    await server.close()


async def nothing_left(server: TestServer, local: LocalPods, before: set["asyncio.Task[object]"]) -> None:
    """Wait until no connection, process or task of a request is left."""
    known = before | {asyncio.current_task()}
    assert server.handler is not None
    connections = server.handler
    await eventually(lambda: not (local.inside or connections.connections or asyncio.all_tasks() - known))
