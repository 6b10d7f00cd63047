"""The API's own description, OpenAPI 3.1, made of the annotations that the wire is made of. Pure."""

from typing import Any

from slurm_plugin.cluster import Cluster
from slurm_plugin.contract import PodContent, PodUsage

from . import pieces, wire
from .codec import schema

_LOG = "A container's log: pieces, each after its length in four bytes, big-endian; one of length 0 says no more than that it lives."
_ERROR = {"type": "object", "properties": {"error": {"type": "string"}, "message": {"type": "string"}}}


def document() -> dict[str, Any]:
    """Return the document."""
    nothing = {"type": "object"}
    submit = _operation("Submit a pod's job, or say which job it has.", wire.Submitted, body=wire.Submit)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Slurmlet sidecar", "version": wire.VERSION},
        "security": [{"token": []}],
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "paths": {
            wire.CLUSTER: {"get": _operation("What the cluster has.", Cluster)},
            wire.IDENTITIES: {"post": _operation("Say which pods there are.", nothing, body=wire.Introduce)},
            wire.PODS: {"post": submit},
            wire.POD: {
                "parameters": [_uid()],
                "put": _operation("Have a pod take up its images and its deadline.", nothing, body=wire.Edit),
                "delete": _operation("Remove what is left of an ended pod.", nothing),
            },
            wire.TERMINATE: {
                "parameters": [_uid()],
                "post": _operation("Ask for the end of a pod.", nothing, body=wire.Terminate),
            },
            wire.CONTENT: {
                "parameters": [_uid()],
                "put": _operation("Swap a live pod's volume content.", nothing, body=PodContent),
            },
            wire.CONTAINERS: {
                "parameters": [_uid()],
                "post": _operation("Start a running pod's new ephemeral containers.", nothing, body=wire.Extend),
            },
            wire.LOGS: {
                "parameters": [_uid(), _parameter("container", "path", {"type": "string", "pattern": "^[a-z0-9.-]+$"})],
                "post": _operation(_LOG, None, body=wire.LogRequest, media=pieces.MEDIA),
            },
            wire.STREAM: {
                "parameters": [_uid()],
                "get": _operation("A WebSocket into the pod: exec, attach, a port.", None, media="text/plain"),
            },
            wire.REPORTS: {
                "parameters": [
                    _parameter("epoch", "query", {"type": "string"}),
                    _parameter("sequence", "query", {"type": "integer"}),
                ],
                "get": _operation("Every pod, then each change, a line each.", wire.Line, media="application/x-ndjson"),
            },
            wire.USAGE: {"get": _operation("What running pods use.", tuple[PodUsage, ...])},
            **_for_machines(),
        },
    }


def _for_machines() -> dict[str, Any]:
    """What is asked by whoever watches the sidecar. The first two need no token."""
    alive = _operation("The process answers.", None, media="text/plain") | {"security": []}
    ready = _operation("Every pod is known and Slurm answers.", None, media="text/plain") | {"security": []}
    ready["responses"]["503"] = {"description": "Not so, and why.", "content": {"text/plain": {"schema": {}}}}
    return {
        "/healthz": {"get": alive},
        "/readyz": {"get": ready},
        "/metrics": {"get": _operation("For Prometheus.", None, media="text/plain")},
        "/openapi.json": {"get": _operation("This document.", {"type": "object"})},
    }


def _operation(summary: str, answer: Any, *, body: Any = None, media: str = "application/json") -> dict[str, Any]:
    described = answer if isinstance(answer, dict) else {} if answer is None else schema(answer)
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "Done.", "content": {media: {"schema": described}}},
            "default": {"description": "An error.", "content": {"application/json": {"schema": _ERROR}}},
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema(body)}}}
    return operation


def _parameter(name: str, place: str, kind: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": kind}


def _uid() -> dict[str, Any]:
    return _parameter("uid", "path", {"type": "string", "pattern": f"^{wire.UID}$"})
