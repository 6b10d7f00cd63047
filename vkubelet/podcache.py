"""The pods bound to our node, small: the JSON as bytes without managedFields, and a slotted index beside it.

10,000 pods take 204 MB as dicts and 24 MB so; a pod is parsed when it is worked on and only then. Pods are kept by UID:
a pod recreated under the same name is another pod, and both may be here for a while.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from slurm_plugin.contract import PodIdentity, job_on
from slurm_plugin.job import PodUid
from slurm_plugin.pod import Pod

_MIRROR = "kubernetes.io/config.mirror"


@dataclass(frozen=True, slots=True)
class CachedPod:
    """One Pod object. ``seen_at``: when this UID was first seen, by the monotonic clock. ``owner`` is a UID.

    ``version`` orders the states of one object (Kubernetes 1.35 made resource versions comparable; they always were).
    """

    uid: PodUid
    namespace: str
    name: str
    version: int
    phase: str
    deleting: bool
    mirror: bool
    owner: str
    seen_at: float
    data: bytes

    @property
    def waits(self) -> bool:
        """Whether the object says that the pod is still to begin, and nobody deletes it."""
        return self.phase == "Pending" and not self.deleting

    def parse(self) -> Pod:
        """Return the pod. Raises pydantic's ValidationError for what the models can't read."""
        return Pod.model_validate_json(self.data)

    def json(self) -> dict[str, Any]:
        """Return the pod as plain JSON."""
        result: dict[str, Any] = json.loads(self.data)
        return result

    def identity(self) -> PodIdentity:
        """Return what of it decides whose pod it is."""
        body = self.json()
        account = (body.get("spec") or {}).get("serviceAccountName") or "default"
        annotations = body["metadata"].get("annotations") or {}
        return PodIdentity(self.uid, self.namespace, self.name, account, *job_on(annotations))


def cached_pod(body: dict[str, Any], *, clock: Callable[[], float] = time.monotonic) -> CachedPod:
    """Make a cache entry of the API server's JSON; ``body`` loses its managedFields."""
    metadata = body["metadata"]
    metadata.pop("managedFields", None)
    owners = [owner["uid"] for owner in metadata.get("ownerReferences") or () if owner.get("controller")]
    return CachedPod(
        uid=PodUid(metadata["uid"]),
        namespace=metadata["namespace"],
        name=metadata["name"],
        version=int(metadata["resourceVersion"]),
        phase=(body.get("status") or {}).get("phase", ""),
        deleting="deletionTimestamp" in metadata,
        mirror=_MIRROR in (metadata.get("annotations") or {}),
        owner=owners[0] if owners else metadata["uid"],
        seen_at=clock(),
        data=json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode(),
    )


class PodCache:
    """The pods that exist, by UID; the newest by name."""

    def __init__(self) -> None:
        self._pods: dict[PodUid, CachedPod] = {}
        self._names: dict[tuple[str, str], PodUid] = {}

    def __len__(self) -> int:
        return len(self._pods)

    def __iter__(self) -> Iterator[CachedPod]:
        return iter(tuple(self._pods.values()))

    def get(self, uid: PodUid) -> CachedPod | None:
        """Return a pod, None if it does not exist (any more)."""
        return self._pods.get(uid)

    def find(self, namespace: str, name: str) -> CachedPod | None:
        """Return the newest pod of that name."""
        uid = self._names.get((namespace, name))
        return None if uid is None else self._pods.get(uid)

    def put(self, pod: CachedPod) -> bool:
        """Take a state of a pod; False if it is the very one that is known: our own write's echo.

        An older one is not taken, and yet is somebody's change: what our write returned had it in it, and nobody has
        looked at it yet.
        """
        old = self._pods.get(pod.uid)
        if old is not None and old.version >= pod.version:
            return old.version > pod.version
        self._pods[pod.uid] = pod if old is None else replace(pod, seen_at=old.seen_at)
        self._names[pod.namespace, pod.name] = pod.uid
        return True

    def update(self, pod: CachedPod) -> None:
        """Take what a write returned, unless the pod was deleted meanwhile."""
        if pod.uid in self._pods:
            self.put(pod)

    def remove(self, uid: PodUid) -> None:
        """Forget a pod that does not exist any more."""
        pod = self._pods.pop(uid, None)
        if pod is not None and self._names.get((pod.namespace, pod.name)) == uid:
            del self._names[pod.namespace, pod.name]
