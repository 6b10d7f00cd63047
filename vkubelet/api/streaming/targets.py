"""Whom a streaming request is about: the pod, by name and perhaps UID, and one of its containers. Pure."""

from collections.abc import Mapping

from ...podcache import CachedPod, PodCache
from .negotiation import RequestRefusedError

_KINDS = ("containers", "initContainers", "ephemeralContainers")


def target_pod(cache: PodCache, parameters: Mapping[str, str]) -> CachedPod:
    """Return the pod that a path names. Raises RequestRefusedError (404)."""
    name, uid = parameters["pod"], parameters.get("uid")
    pod = cache.find(parameters["namespace"], name)
    if pod is None or uid not in {None, pod.uid}:
        raise RequestRefusedError(404, f'pod "{name}" does not exist')
    return pod


def target_container(pod: CachedPod, parameters: Mapping[str, str]) -> str:
    """Return the container that a path names. Raises RequestRefusedError (404)."""
    container, spec = parameters["container"], pod.json()["spec"]
    if not any(each["name"] == container for kind in _KINDS for each in spec.get(kind) or ()):
        raise RequestRefusedError(404, f'container not found ("{container}")')
    return container
