"""The metrics of the kubelet's port: names, labels, timestamps, read as metrics-server and Prometheus read them."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from slurm_plugin.contract import ContainerUsage, PodUsage, ProbeUsage
from slurm_plugin.errors import TransportError
from slurm_plugin.job import PodUid
from vkubelet.api.app import KubeletApi
from vkubelet.api.auth import Authenticator, Authorizer
from vkubelet.api.inspection import inspection_routes
from vkubelet.api.metrics import metric_routes
from vkubelet.api.stats import stats_routes
from vkubelet.config import AgentSettings
from vkubelet.metrics import resource_of
from vkubelet.podcache import PodCache, cached_pod
from vkubelet.usage import UsageReader

from ..fakes import FakeProvider
from ..test_usage import SECOND, pod
from .reviews import GOOD, ReviewingKube


@pytest.fixture
def provider() -> FakeProvider:
    provider = FakeProvider(clock=lambda: 0.0)
    containers = (ContainerUsage("main", 100.5, 3 * SECOND, 1 << 20),)
    provider.usages = (
        PodUsage(PodUid("u"), 200.25, containers, (ProbeUsage("main", "Readiness", "successful", 4),)),
    )  # fmt: skip
    return provider


@pytest.fixture
async def client(provider: FakeProvider) -> AsyncIterator[TestClient[Any, Any]]:
    cache, kube = PodCache(), ReviewingKube()
    running = pod()
    running["status"]["containerStatuses"] = [{"name": "main", "state": {"running": {}}}]
    cache.put(cached_pod(running))
    cache.put(cached_pod(pod("waits", "v") | {"status": {"phase": "Pending"}}))
    api = KubeletApi(cache, provider, Authenticator(kube), Authorizer(kube, "slurm"))  # type: ignore[arg-type]
    reader = UsageReader(provider, cache)
    application = api.application(
        metric_routes(reader, cache, "slurm"), stats_routes(reader, "slurm"), inspection_routes(cache, AgentSettings())
    )
    server = TestServer(application)
    await server.start_server()
    async with TestClient(server) as made:
        yield made


async def text(client: TestClient[Any, Any], path: str) -> str:
    answer = await client.get(path, headers=GOOD)
    assert answer.status == 200
    return str(await answer.text())


def samples(text: str) -> dict[tuple[str, str], tuple[float, Any]]:
    """Return value and timestamp (as it is written) by name and pod."""
    parsed = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            parsed[sample.name, sample.labels.get("pod", "")] = (sample.value, sample.timestamp)
    return parsed


async def test_resource_metrics_are_what_metrics_server_reads(client: TestClient[Any, Any]) -> None:
    answer = await text(client, "/metrics/resource")
    found = samples(answer)
    assert found["container_cpu_usage_seconds_total", "p"] == (3.0, 200.25)
    assert found["container_memory_working_set_bytes", "p"] == (1 << 20, 200.25)
    assert found["container_start_time_seconds", "p"] == (100.5, None)
    assert found["pod_cpu_usage_seconds_total", "p"][0] == 3.0
    assert found["node_cpu_usage_seconds_total", ""][0] > 3.0
    assert found["node_memory_working_set_bytes", ""][0] > 1 << 20
    assert found["resource_scrape_error", ""][0] == 0.0
    # Milliseconds, as an integer; metrics-server finds labels by these very bytes.
    line = next(line for line in answer.splitlines() if line.startswith("container_cpu"))
    assert re.fullmatch(r'container_cpu_usage_seconds_total\{container="main",namespace="default",pod="p"\} 3.0 200250', line)  # fmt: skip
    assert not [name for name, pod in found if pod == "waits"]


async def test_a_provider_that_can_not_be_asked_is_a_scrape_error(
    client: TestClient[Any, Any], provider: FakeProvider
) -> None:
    async def broken() -> tuple[PodUsage, ...]:
        raise TransportError("connection lost")

    provider.usage = broken  # type: ignore[method-assign]
    assert samples(await text(client, "/metrics/resource")) == {
        ("scrape_error", ""): (1.0, None),
        ("resource_scrape_error", ""): (1.0, None),
    }
    assert (await client.get("/stats/summary", headers=GOOD)).status == 500


async def test_cadvisor_names_the_container_and_sums_its_pod(client: TestClient[Any, Any]) -> None:
    answer = await text(client, "/metrics/cadvisor")
    rows = next(family for family in text_string_to_metric_families(answer) if "cpu" in family.name).samples
    assert {row.labels["container"] for row in rows} == {"", "main"}
    assert rows[1].labels["image"] == "busybox"
    assert rows[1].labels["id"].endswith("/podu/main")


async def test_probes_are_counted_by_result(client: TestClient[Any, Any]) -> None:
    (family,) = text_string_to_metric_families(await text(client, "/metrics/probes"))
    (sample,) = family.samples
    assert (sample.name, sample.value) == ("prober_probe_total", 4.0)
    assert sample.labels == {
        "probe_type": "Readiness", "result": "successful", "container": "main", "pod": "p", "namespace": "default",
        "pod_uid": "u",
    }  # fmt: skip


async def test_the_agents_own_metrics_count_pods_and_requests(client: TestClient[Any, Any]) -> None:
    await client.get("/nothing/here", headers=GOOD)
    answer = await text(client, "/metrics")
    assert 'slurmlet_pods{node="slurm",phase="Running"} 1.0' in answer
    assert 'slurmlet_pods{node="slurm",phase="Pending"} 1.0' in answer
    assert 'slurmlet_kubelet_requests_total{code="404",endpoint="other"}' in answer
    assert 'slurmlet_kubelet_requests_in_flight{endpoint="metrics"} 1.0' in answer
    assert "process_resident_memory_bytes" in answer


async def test_the_summary_is_the_kubelets(client: TestClient[Any, Any]) -> None:
    summary = await (await client.get("/stats/summary", headers=GOOD)).json()
    assert summary["node"]["nodeName"] == "slurm"
    assert summary["node"]["systemContainers"][0]["name"] == "kubelet"
    (one,) = summary["pods"]
    assert one["podRef"] == {"name": "p", "namespace": "default", "uid": "u"}
    assert one["containers"][0]["cpu"]["usageCoreNanoSeconds"] == 3 * SECOND
    assert one["memory"] == {"time": "1970-01-01T00:03:20Z", "workingSetBytes": 1 << 20}


async def test_pods_are_listed_and_those_that_run_apart(client: TestClient[Any, Any]) -> None:
    pods = await (await client.get("/pods", headers=GOOD)).json()
    assert pods["kind"] == "PodList"
    assert {item["metadata"]["name"] for item in pods["items"]} == {"p", "waits"}
    running = await (await client.get("/runningpods/", headers=GOOD)).json()
    assert [(item["metadata"]["name"], len(item["spec"]["containers"])) for item in running["items"]] == [("p", 1)]


async def test_the_configuration_is_shown_and_logs_of_the_node_are_not(client: TestClient[Any, Any]) -> None:
    shown = (await (await client.get("/configz", headers=GOOD)).json())["kubeletconfig"]
    assert (shown["kind"], shown["port"]) == ("KubeletConfiguration", 10250)
    assert (await client.get("/logs/", headers=GOOD)).status == 404


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/api/v1/namespaces/default/pods/p/status", "pods/status"),
        ("/api/v1/pods", "pods"),
        ("/api/v1/nodes/n/status", "nodes/status"),
        ("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n", "leases"),
        ("/apis/authentication.k8s.io/v1/tokenreviews", "tokenreviews"),
        ("/api/v1/namespaces/default/serviceaccounts/s/token", "serviceaccounts/token"),
        ("/api/v1/namespaces/default", "namespaces"),
        ("/version", "other"),
    ],
)
def test_a_path_names_a_resource(path: str, resource: str) -> None:
    assert resource_of(path) == resource
