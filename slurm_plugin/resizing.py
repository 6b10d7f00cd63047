"""Resizes: what a container's job was made with, beside what its spec has come to ask for. Pure.

A job's resources do not change while it lives, so a resize is infeasible. What the job was made with is kept where a
kubelet tells it too, in the container's status: written with the first status of a pod that has a job, and kept since.

Rules and names: Kubernetes 1.36, KEP-1287 and ``pkg/kubelet/status/generate.go``.
"""

from collections.abc import Mapping
from typing import Any

from .pod import Container, Pod

CONDITION = "PodResizePending"
REASON = "Infeasible"

_LISTS = {"containerStatuses": "containers", "initContainerStatuses": "initContainers"}


def _asked(container: Container) -> dict[str, dict[str, str]]:
    amounts = {"limits": container.resources.limits, "requests": container.resources.requests}
    return {kind: {name: str(value) for name, value in given.items()} for kind, given in amounts.items() if given}


def _written(pod: Pod) -> dict[str, Mapping[str, Any]]:
    """Return by the container's name what its job was made with, as far as it was ever written."""
    statuses = [each for kind in _LISTS for each in pod.status.get(kind) or []]
    return {each["name"]: each["resources"] for each in statuses if each.get("resources") is not None}


def made_with(pod: Pod) -> dict[str, dict[str, Any]]:
    """Return by the container's name the fields of its status that tell what its job was made with."""
    written = _written(pod)
    resources = {c.name: written.get(c.name, _asked(c)) for c in (*pod.spec.init_containers, *pod.spec.containers)}
    return {
        name: {"allocatedResources": given.get("requests") or {}, "resources": dict(given)}
        for name, given in resources.items()
    }


def infeasible(pod: Pod) -> str:
    """Return why what the spec has come to ask for can't be had, by the fields' paths; empty if it is what the job has."""
    written = _written(pod)
    lists = {"initContainers": pod.spec.init_containers, "containers": pod.spec.containers}
    paths = [
        f"spec.{kind}[{index}].resources"
        for kind, containers in lists.items()
        for index, container in enumerate(containers)
        if container.name in written and _asked(container) != dict(written[container.name])
    ]
    if not paths:
        return ""
    return f"{', '.join(paths)}: a Slurm job's resources can't be changed; delete the pod and create it anew"
