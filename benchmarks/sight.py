"""What the API server tells of one namespace's pods, and when: the view that any user's watch has."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import aclosing
from typing import Any

from vkubelet.kube import Changed, Json, Kube

Check = Callable[[Json], object]


def bound(pod: Json) -> bool:
    """Whether the scheduler has given it a node."""
    return bool(pod["spec"].get("nodeName"))


def phase(pod: Json) -> str:
    """Its phase."""
    return str(pod.get("status", {}).get("phase", ""))


def succeeded(pod: Json) -> bool:
    """Whether it has. RuntimeError if it failed: nothing here is meant to."""
    if phase(pod) == "Failed":
        raise RuntimeError(f"pod {pod['metadata']['name']} failed: {pod['status']}")
    return phase(pod) == "Succeeded"


def _state(pod: Json) -> dict[str, Any]:
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    return dict(statuses[0].get("state") or {})


def started(pod: Json) -> bool:
    """Whether its (first) container runs or has run."""
    return not _state(pod).keys().isdisjoint({"running", "terminated"})


def ended(pod: Json) -> bool:
    """Whether its (first) container has ended."""
    return "terminated" in _state(pod)


class Sight:
    """Every state of every pod that a watch has shown, with the time (seconds since the epoch) of its arrival."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._seen: defaultdict[str, list[tuple[float, Json]]] = defaultdict(list)
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with aclosing(self._kube.follow(self._path, lambda pod: (time.time(), pod))) as changes:
            async for change in changes:
                items = (change.item,) if isinstance(change, Changed) else change.items
                for at, pod in items:
                    self._seen[pod["metadata"]["name"]].append((at, pod))
                self._news.set()

    def first(self, name: str, check: Check) -> float | None:
        """Return when the pod was first as ``check`` wants it; None: not yet."""
        return next((at for at, pod in self._seen.get(name, ()) if check(pod)), None)

    def uid(self, name: str) -> str:
        """Return the pod's UID."""
        return str(self._seen[name][0][1]["metadata"]["uid"])

    async def wait(self, names: Collection[str], check: Check, *, seconds: float) -> dict[str, float]:
        """Wait until every pod was as ``check`` wants it; when each first was. Raises TimeoutError."""
        found: dict[str, float] = {}
        async with asyncio.timeout(seconds):
            while True:
                self._news.clear()
                for name in names:
                    if name not in found and (at := self.first(name, check)) is not None:
                        found[name] = at
                if len(found) == len(names):
                    return found
                await self._news.wait()
