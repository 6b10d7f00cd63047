"""``/pods``, ``/runningpods/`` and ``/configz``: what the agent believes, for whoever looks for a fault.

Source: ``pkg/kubelet/server/server.go`` of Kubernetes 1.36. There is no ``/logs/``: the node has no log directory.
"""

import json
from typing import Any

from aiohttp import web

from ..config import AgentSettings
from ..podcache import CachedPod, PodCache

_HEAD = b'{"kind":"PodList","apiVersion":"v1","metadata":{},"items":['


def inspection_routes(cache: PodCache, settings: AgentSettings) -> list[web.RouteDef]:
    """Return the routes that show one node's pods and settings."""

    async def pods(request: web.Request) -> web.StreamResponse:
        # As they are kept, one after the other: thousands of pods are megabytes, and parsing them would take seconds.
        return await _pod_list(request, [pod.data for pod in cache])

    async def running_pods(request: web.Request) -> web.StreamResponse:
        found = (running_pod(pod) for pod in cache if pod.phase == "Running")
        return await _pod_list(request, [json.dumps(pod).encode() for pod in found if pod is not None])

    async def configz(_request: web.Request) -> web.Response:
        return web.json_response({"kubeletconfig": kubelet_configuration(settings)})

    return [
        web.get("/pods", pods),
        web.get("/pods/", pods),
        web.get("/runningpods", running_pods),
        web.get("/runningpods/", running_pods),
        web.get("/configz", configz),
    ]


async def _pod_list(request: web.Request, pods: list[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(_HEAD)
    for index, data in enumerate(pods):
        await response.write(b"," + data if index else data)
    await response.write(b"]}\n")
    return response


def running_pod(pod: CachedPod) -> dict[str, Any] | None:
    """Return a pod as the kubelet shows a running one: its names and the containers that run. None if none does."""
    body = pod.json()
    spec, status = body["spec"], body.get("status") or {}
    lists = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
    running = {s["name"] for kind in lists for s in status.get(kind) or () if "running" in (s.get("state") or {})}
    kinds = ("initContainers", "containers", "ephemeralContainers")
    containers = [
        {"name": item["name"], "image": item.get("image", ""), "resources": {}}
        for kind in kinds
        for item in spec.get(kind) or ()
        if item["name"] in running
    ]
    if not containers:
        return None
    metadata = {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid}
    return {"metadata": metadata, "spec": {"containers": containers}, "status": {}}


def kubelet_configuration(settings: AgentSettings) -> dict[str, Any]:
    """Return the kubelet's configuration as far as there is one to speak of. Nothing in it is secret."""
    api, node = settings.api, settings.node
    return {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": api.listen,
        "port": api.port,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(api.client_ca_file or "")},
        },
        "authorization": {"mode": "Webhook"},
        "maxPods": node.capacity.pods,
        "registerWithTaints": [taint.model_dump() for taint in node.taints],
        "serverTLSBootstrap": api.certificate is None,
        "enableDebuggingHandlers": True,
    }
