"""Reads of single objects that pods refer to, shared by the pods that need the same one at the same time.

Freshness: an object is used only if it was read after a given moment, so that whoever changes a ConfigMap and then
creates a pod finds the change in it. What never changes (immutable objects, the cluster's CA) is kept for a minute.
Every read names its object, for a node's own credential (NodeRestriction) may list nothing.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from slurm_plugin.resolution.objects import CLAIM, CONFIG_MAP, PERSISTENT_VOLUME, SECRET, Reference

from .errors import NotFoundError
from .kube import Json, Kube

_ROOT_CA = "kube-root-ca.crt"
_KEEP_SECONDS = 60.0
_CONCURRENT_READS = 32
_RESOURCES = {
    CONFIG_MAP: "configmaps", SECRET: "secrets", CLAIM: "persistentvolumeclaims", PERSISTENT_VOLUME: "persistentvolumes",
}  # fmt: skip


@dataclass(slots=True)
class _Read:
    """One read of an object, under way or done. ``started_at`` is by the monotonic clock."""

    started_at: float
    task: asyncio.Task[Json | None]


class Reads:
    """Reads objects by (namespace, reference); None is one that does not exist."""

    def __init__(self, kube: Kube, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._clock = clock
        self._reads: dict[tuple[str, Reference], _Read] = {}
        self.limit = asyncio.Semaphore(_CONCURRENT_READS)

    async def get(self, namespace: str, reference: Reference, *, seen_at: float) -> Json | None:
        """Return an object as it was at ``seen_at`` (by the clock) or later. Raises KubeError."""
        key = (namespace, reference)
        read = self._reads.get(key)
        if read is None or not self._usable(read, reference, seen_at):
            task = asyncio.create_task(self._read(namespace, reference), name=f"read {reference.kind} {reference.name}")
            read = self._reads[key] = _Read(self._clock(), task)
            self._drop_old()
        return await asyncio.shield(read.task)

    async def version(self, namespace: str, reference: Reference) -> str:
        """Return an object's version, "" if it does not exist: its metadata alone, from the API server's own cache."""
        async with self.limit:
            try:
                body = await self._kube.get_metadata(_path(namespace, reference))
            except NotFoundError:
                return ""
        return str(body["metadata"]["resourceVersion"])

    def _usable(self, read: _Read, reference: Reference, seen_at: float) -> bool:
        if read.task.done() and (
            read.task.cancelled() or read.task.exception() is not None or read.task.result() is None
        ):
            return False
        if read.started_at >= seen_at:
            return True
        lasting = reference == Reference(CONFIG_MAP, _ROOT_CA) or (
            read.task.done() and bool((read.task.result() or {}).get("immutable"))
        )
        return lasting and self._clock() - read.started_at < _KEEP_SECONDS

    def _drop_old(self) -> None:
        horizon = self._clock() - _KEEP_SECONDS
        for key in [key for key, read in self._reads.items() if read.task.done() and read.started_at < horizon]:
            del self._reads[key]

    async def _read(self, namespace: str, reference: Reference) -> Json | None:
        async with self.limit:
            try:
                return await self._kube.get(_path(namespace, reference))
            except NotFoundError:
                return None


def _path(namespace: str, reference: Reference) -> str:
    if reference.kind == PERSISTENT_VOLUME:
        return f"/api/v1/persistentvolumes/{reference.name}"
    return f"/api/v1/namespaces/{namespace}/{_RESOURCES[reference.kind]}/{reference.name}"
