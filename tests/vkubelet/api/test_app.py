"""The handlers over real HTTP, behind an authenticator that knows one token."""

import asyncio
import re
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from slurm_plugin.contract import PodReport
from slurm_plugin.errors import TransportError
from slurm_plugin.job import PodUid
from tests.vkubelet.api.reviews import POOR, ReviewingKube
from tests.vkubelet.fakes import FakeProvider
from tests.vkubelet.kube import FakeKube
from vkubelet.api.app import KubeletApi
from vkubelet.api.auth import Authenticator, Authorizer
from vkubelet.api.inspection import inspection_routes
from vkubelet.api.metrics import metric_routes
from vkubelet.api.stats import stats_routes
from vkubelet.config import AgentSettings
from vkubelet.podcache import PodCache, cached_pod
from vkubelet.usage import UsageReader

LOGS = "/containerLogs/default/p/main"
GOOD = {"Authorization": "Bearer good"}


@pytest.fixture
def provider() -> FakeProvider:
    made = FakeProvider(clock=time.time)
    made.jobs[PodUid("u")] = PodReport(PodUid("u"), "default", "p", None, None, None)
    return made


@pytest.fixture
async def client(provider: FakeProvider) -> AsyncIterator[TestClient]:
    kube = FakeKube()
    names = {"good": "alice", "poor": "bob"}
    kube.creations["/apis/authentication.k8s.io/v1/tokenreviews"] = lambda body: {
        "status": {
            "authenticated": body["spec"]["token"] in names,
            "user": {"username": names.get(body["spec"]["token"])},
        }
    }
    kube.creations["/apis/authorization.k8s.io/v1/subjectaccessreviews"] = lambda body: {
        "status": {"allowed": body["spec"]["user"] == "alice"}
    }
    cache = PodCache()
    status = {"containerStatuses": [{"name": "main", "state": {"running": {}}}]}
    metadata = {"name": "p", "namespace": "default", "uid": "u", "resourceVersion": "1"}
    cache.put(cached_pod({"metadata": metadata, "spec": {"containers": [{"name": "main"}]}, "status": status}))
    api = KubeletApi(cache, provider, Authenticator(kube), Authorizer(kube, "slurm"))  # type: ignore[arg-type]
    server = TestServer(api.application())
    await server.start_server()
    async with TestClient(server) as made:
        yield made


@pytest.mark.parametrize("path", ["/healthz", LOGS, "/", "/exec/default/p/main", "/no/such/path"])
async def test_every_path_is_closed_to_strangers_and_to_those_without_the_right(client, path):
    answer = await client.get(path)
    assert (answer.status, answer.headers["Connection"]) == (401, "close")
    assert (await client.get(path, headers={"Authorization": "Bearer bad"})).status == 401
    answer = await client.get(path, headers={"Authorization": "Bearer poor"})
    assert answer.status == 403
    assert "user=bob" in await answer.text()


async def test_health_is_ok(client):
    assert await (await client.get("/healthz", headers=GOOD)).text() == "ok"


async def test_a_log_is_streamed_with_its_options(client, provider):
    answer = await client.get(LOGS, params={"tailLines": "5", "timestamps": "true"}, headers=GOOD)
    assert (answer.status, await answer.text()) == (200, "one\ntwo\n")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert (provider.log_options[0].tail_lines, provider.log_options[0].timestamps) == (5, True)


async def test_refusals_have_the_kubelets_status(client):
    assert (await client.get("/containerLogs/default/other/main", headers=GOOD)).status == 404
    assert (await client.get("/containerLogs/default/p/other", headers=GOOD)).status == 404
    assert (await client.get(LOGS, params={"tailLines": "-1"}, headers=GOOD)).status == 422
    assert (await client.get(LOGS, params={"previous": "true"}, headers=GOOD)).status == 400


async def test_a_log_that_is_not_there_is_400_and_trouble_500(client, provider):
    provider.jobs.clear()
    answer = await client.get(LOGS, headers=GOOD)
    assert (answer.status, await answer.text()) == (400, "no log of main")

    async def broken(*_arguments):
        raise TransportError("connection lost")
        yield b""

    provider.logs = broken
    assert (await client.get(LOGS, headers=GOOD)).status == 500


async def test_the_head_of_a_followed_log_is_sent_before_there_is_anything_in_it(client, provider):
    provider.log_chunks = []
    async with asyncio.timeout(60):
        answer = await client.get(LOGS, params={"follow": "true"}, headers=GOOD)
    assert answer.status == 200
    answer.close()


async def test_a_client_that_goes_away_stops_the_reader(client, provider):
    answer = await client.get(LOGS, params={"follow": "true"}, headers=GOOD)
    assert await answer.content.readline() == b"one\n"
    assert not provider.log_closed.is_set()
    answer.close()
    async with asyncio.timeout(60):
        await provider.log_closed.wait()


async def test_a_log_that_breaks_off_is_not_ended_as_if_it_were_whole(client, provider):
    async def breaking(*_arguments):
        yield b"one\n"
        raise TransportError("connection lost")

    provider.logs = breaking
    answer = await client.get(LOGS, headers=GOOD)
    assert answer.status == 200
    with pytest.raises(Exception, match=r"(?i)payload|disconnect|reset"):
        await answer.text()


async def test_a_provider_without_a_way_into_its_pods_says_so(client):
    answer = await client.post("/exec/default/p/main?command=id", headers=GOOD)
    assert answer.status == 501
    assert "can't be entered" in await answer.text()


class EnterableProvider(FakeProvider):
    """Nobody who is not let in gets so far."""

    def _entered(self, *_arguments, **_options):
        raise AssertionError("entered")

    exec = attach = connect = _entered


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


async def test_every_route_is_closed_by_every_method():
    kube, cache, provider = ReviewingKube(), PodCache(), EnterableProvider(clock=time.time)
    reader = UsageReader(provider, cache)
    api = KubeletApi(cache, provider, Authenticator(kube), Authorizer(kube, "slurm"))  # type: ignore[arg-type]
    application = api.application(
        metric_routes(reader, cache, "slurm"), stats_routes(reader, "slurm"), inspection_routes(cache, AgentSettings())
    )
    paths = {re.sub(r"{.*?}", "x", resource.canonical) for resource in application.router.resources()}
    assert {"/exec/x/x/x", "/attach/x/x/x/x", "/portForward/x/x", "/run/x/x/x", "/metrics/cadvisor", "/pods"} <= paths
    async with TestClient(TestServer(application)) as client:
        for path in (*paths, "/no/such/path", "/"):
            for method in METHODS:
                assert (await client.request(method, path)).status == 401, (method, path)
                assert (await client.request(method, path, headers=POOR)).status == 403, (method, path)
