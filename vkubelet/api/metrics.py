"""``/metrics`` and what lies below it, in Prometheus' text format.

Names, labels and timestamps: ``pkg/kubelet/metrics/collectors/resource_metrics.go`` and ``pkg/kubelet/prober`` of
Kubernetes 1.36, and cAdvisor's ``metrics/prometheus.go``. metrics-server drops a whole pod for one container whose CPU
or memory is zero, so what is not running, or not measured yet, is left out.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence

from aiohttp import web
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from slurm_plugin.errors import SlurmletError

from ..metrics import KUBELET_REQUESTS, KUBELET_REQUESTS_IN_FLIGHT
from ..podcache import PodCache
from ..usage import NodeSample, UsageReader

_TEXT = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
_CONTAINER = ("container", "pod", "namespace")
_POD = ("pod", "namespace")
_CADVISOR = ("container", "id", "image", "name", "namespace", "pod")
_PROBE = ("probe_type", "result", "container", "pod", "namespace", "pod_uid")
_CPU = "Cumulative cpu time consumed by the {} in core-seconds"
_MEMORY = "Current working set of the {} in bytes"
_ENDPOINTS = frozenset(
    {
        "attach", "configz", "containerLogs", "exec", "healthz", "logs", "metrics", "pods", "portForward", "run",
        "runningpods", "stats",
    }
)  # fmt: skip

Families = Iterable[Metric]


class _Collected(Collector):
    """Families that are already made, as something to print."""

    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Families:
        return self._families


def metric_routes(reader: UsageReader, cache: PodCache, node: str) -> list[web.RouteDef]:
    """Return the routes of one node's metrics."""

    def answer(families: Callable[[NodeSample], Families]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(_request: web.Request) -> web.Response:
            try:
                found = families(await reader.read())
            except SlurmletError:
                found = _scrape_error(failed=True)
            return await _printed(_Collected(found))

        return handler

    async def own(_request: web.Request) -> web.Response:
        # Two registries, one text: what is counted as it happens, and what is looked at now.
        now = await _text(_Collected([*_pods(cache, node)]))
        return web.Response(body=await _text(REGISTRY) + now, headers=_TEXT)

    return [
        web.get("/metrics", own),
        web.get("/metrics/resource", answer(resource_metrics)),
        web.get("/metrics/cadvisor", answer(cadvisor_metrics)),
        web.get("/metrics/probes", answer(probe_metrics)),
    ]


async def _text(collector: Collector) -> bytes:
    # Some tens of milliseconds for thousands of pods: not on the loop.
    return await asyncio.to_thread(generate_latest, collector)


async def _printed(collector: Collector) -> web.Response:
    return web.Response(body=await _text(collector), headers=_TEXT)


def resource_metrics(node: NodeSample) -> list[Metric]:
    """Return what metrics-server reads."""
    node_cpu = CounterMetricFamily("node_cpu_usage_seconds", _CPU.format("node"))
    node_cpu.add_metric((), node.cpu_nanoseconds / 1e9, timestamp=node.time)
    node_memory = GaugeMetricFamily("node_memory_working_set_bytes", _MEMORY.format("node"))
    node_memory.add_metric((), node.working_set_bytes, timestamp=node.time)
    cpu = CounterMetricFamily("container_cpu_usage_seconds", _CPU.format("container"), labels=_CONTAINER)
    memory = GaugeMetricFamily("container_memory_working_set_bytes", _MEMORY.format("container"), labels=_CONTAINER)
    start = GaugeMetricFamily(
        "container_start_time_seconds", "Start time of the container since unix epoch in seconds", labels=_CONTAINER
    )
    pod_cpu = CounterMetricFamily("pod_cpu_usage_seconds", _CPU.format("pod"), labels=_POD)
    pod_memory = GaugeMetricFamily("pod_memory_working_set_bytes", _MEMORY.format("pod"), labels=_POD)
    for pod in node.pods:
        of_pod = (pod.name, pod.namespace)
        for container in pod.containers:
            labels = (container.name, *of_pod)
            cpu.add_metric(labels, container.cpu_nanoseconds / 1e9, timestamp=pod.time)
            memory.add_metric(labels, container.working_set_bytes, timestamp=pod.time)
            start.add_metric(labels, container.started_at)
        pod_cpu.add_metric(of_pod, pod.cpu_nanoseconds / 1e9, timestamp=pod.time)
        pod_memory.add_metric(of_pod, pod.working_set_bytes, timestamp=pod.time)
    return [node_cpu, node_memory, start, cpu, memory, pod_cpu, pod_memory, *_scrape_error(failed=False)]


def _scrape_error(*, failed: bool) -> list[Metric]:
    words = "1 if there was an error while getting container metrics, 0 otherwise"
    return [GaugeMetricFamily(name, words, value=float(failed)) for name in ("scrape_error", "resource_scrape_error")]


def cadvisor_metrics(node: NodeSample) -> list[Metric]:
    """Return what dashboards read, under cAdvisor's names; a row without a container is its pod's sum."""
    cpu = CounterMetricFamily(
        "container_cpu_usage_seconds", "Cumulative cpu time consumed in seconds.", labels=(*_CADVISOR, "cpu")
    )
    memory = GaugeMetricFamily("container_memory_working_set_bytes", "Current working set in bytes.", labels=_CADVISOR)
    start = GaugeMetricFamily(
        "container_start_time_seconds", "Start time of the container since unix epoch in seconds.", labels=_CADVISOR
    )
    seen = GaugeMetricFamily(
        "container_last_seen", "Last time a container was seen by the exporter", labels=_CADVISOR
    )  # fmt: skip
    for pod in node.pods:
        place = f"/slurmlet/pod{pod.uid}"
        rows = [("", place, "", "", pod.cpu_nanoseconds, pod.working_set_bytes, pod.started_at)]
        rows += [
            (c.name, f"{place}/{c.name}", c.image, c.name, c.cpu_nanoseconds, c.working_set_bytes, c.started_at)
            for c in pod.containers
        ]
        for *ours, used, working_set, started_at in rows:
            labels: Sequence[str] = (*map(str, ours), pod.namespace, pod.name)
            cpu.add_metric((*labels, "total"), float(used) / 1e9, timestamp=pod.time)
            memory.add_metric(labels, float(working_set), timestamp=pod.time)
            start.add_metric(labels, float(started_at))
            seen.add_metric(labels, pod.time)
    return [cpu, memory, start, seen]


def probe_metrics(node: NodeSample) -> list[Metric]:
    """Return how often the probes of running containers have said what."""
    words = "Cumulative number of a liveness, readiness or startup probe for a container by result."
    counts = CounterMetricFamily("prober_probe", words, labels=_PROBE)
    for pod in node.pods:
        for probe in pod.probes:
            labels = (probe.kind, probe.result, probe.container, pod.name, pod.namespace, pod.uid)
            counts.add_metric(labels, probe.total)
    return [counts]


def _pods(cache: PodCache, node: str) -> list[Metric]:
    family = GaugeMetricFamily("slurmlet_pods", "Pods bound to the node.", labels=("node", "phase"))
    phases = Counter(pod.phase or "Pending" for pod in cache)
    for phase in ("Pending", "Running", "Succeeded", "Failed"):
        family.add_metric((node, phase), phases[phase])
    return [family]


@web.middleware
async def count_requests(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Count the requests of the kubelet's port, and those under way: a stream is one as long as it lasts."""
    root = request.path.lstrip("/").partition("/")[0]
    endpoint = root if root in _ENDPOINTS else "other"
    code = "none"  # the client went away
    in_flight = KUBELET_REQUESTS_IN_FLIGHT.labels(endpoint)
    in_flight.inc()
    try:
        response = await handler(request)
        code = str(response.status)
    except web.HTTPException as error:
        code = str(error.status)
        raise
    else:
        return response
    finally:
        in_flight.dec()
        KUBELET_REQUESTS.labels(endpoint, code).inc()
