"""``/stats/summary``: the kubelet's own account of what is used, as JSON.

Source: ``k8s.io/kubelet/pkg/apis/stats/v1alpha1`` of Kubernetes 1.36. File systems and networks are a matter of the
site's, and not measured.
"""

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from slurm_plugin.errors import SlurmletError

from ..usage import ContainerSample, NodeSample, PodSample, UsageReader


def stats_routes(reader: UsageReader, node: str) -> list[web.RouteDef]:
    """Return the route of one node's summary."""

    async def handler(_request: web.Request) -> web.Response:
        try:
            return web.json_response(summary(await reader.read(), node))
        except SlurmletError as error:
            return web.Response(status=500, text=f"Internal Error: {error}")

    return [web.get("/stats/summary", handler)]


def summary(sample: NodeSample, node: str) -> dict[str, Any]:
    """Return a Summary. Pure."""
    at = sample.time
    return {
        "node": {
            "nodeName": node,
            "systemContainers": [_container(sample.agent, at)],
            "startTime": _time(sample.started_at),
            **_resources(at, sample.cpu_nanoseconds, sample.nanocores, sample.working_set_bytes),
        },
        "pods": [_pod(pod) for pod in sample.pods],
    }


def _pod(pod: PodSample) -> dict[str, Any]:
    return {
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": _time(pod.started_at),
        "containers": [_container(container, pod.time) for container in pod.containers],
        **_resources(pod.time, pod.cpu_nanoseconds, pod.nanocores, pod.working_set_bytes),
    }


def _container(container: ContainerSample, at: float) -> dict[str, Any]:
    used = _resources(at, container.cpu_nanoseconds, container.nanocores, container.working_set_bytes)
    return {"name": container.name, "startTime": _time(container.started_at), **used}


def _resources(at: float, cpu_nanoseconds: int, nanocores: int, working_set_bytes: int) -> dict[str, Any]:
    return {
        "cpu": {"time": _time(at), "usageNanoCores": nanocores, "usageCoreNanoSeconds": cpu_nanoseconds},
        "memory": {"time": _time(at), "workingSetBytes": working_set_bytes},
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
