"""Keeps the volumes of live pods as the API server has their content: ConfigMaps, Secrets, labels, tokens.

One cheap read per object and round, however many pods use it: its metadata, from the API server's own cache. Only where
the version is another one than a pod's volumes were made of is anything fetched, and only what then differs is written.
(A watch would be one connection per object, for a node's own credential may watch single objects only.) Every object has
its own second of a round of 30 s, whoever else is looked at, so that a change is in its pods within a minute; only where
there are thousands a round takes longer. Immutable objects are not looked at again. Tokens are renewed by ``tokens``'
rule, while the job still queues too, so that the token is good when a container starts.
"""

import asyncio
import hashlib
import itertools
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from slurm_plugin.contract import PodContent, Provider, VolumeFile
from slurm_plugin.errors import SlurmletError
from slurm_plugin.job import PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.resolution.objects import MissingContentError, Objects, Reference, content_references
from slurm_plugin.resolution.volumes import files_of
from slurm_plugin.staging import content_version

from .content import Content
from .errors import KubeError
from .podcache import CachedPod
from .podlog import about
from .workqueue import Backoff, WorkQueue

log = logging.getLogger(__name__)

_SLOTS = 30  # of a round, a second each
_SLOT_SECONDS = 1.0
_MOST_READS_PER_SECOND = 150.0
_CONCURRENT_READS = 8
_WORKERS = 8
_FIRST_LOOK_SECONDS = 20.0  # an agent that starts anew looks at all pods, but not at once
_BACKOFF = (1.0, 30.0)
_FROZEN = "immutable"

_Object = tuple[str, Reference]
"""An object: its namespace, and what names it there."""


@dataclass(slots=True)
class _Kept:
    """One pod. ``versions``: what of its objects its volumes were made of; ``written``: the content that is in place.

    ``changed_at``: what is to be written must have been read after it. ``facts``: its labels and annotations then.
    """

    namespace: str
    references: frozenset[Reference]
    facts: bytes
    changed_at: float
    versions: dict[Reference, str] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)


class Upkeep:
    """``find`` returns a pod that exists; ``warn`` tells a Warning about one (reason, message)."""

    def __init__(
        self,
        content: Content,
        provider: Provider,
        find: Callable[[PodUid], CachedPod | None],
        warn: Callable[[Pod, str, str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._content = content
        self._provider = provider
        self._find = find
        self._warn = warn
        self._clock = clock
        self._kept: dict[PodUid, _Kept] = {}
        self._slots: list[dict[_Object, set[PodUid]]] = [{} for _ in range(_SLOTS)]
        self._looked_at: set[_Object] = set()
        self._queue: WorkQueue[PodUid] = WorkQueue(
            self._refresh, name="volumes of pod", workers=_WORKERS, backoff=Backoff(*_BACKOFF)
        )

    def submitted(self, pod: Pod, content: PodContent) -> None:
        """Keep a pod whose job has just been given this content."""
        if (kept := self._keep(pod)) is not None:
            kept.written = _versions(content.volumes)
            self._plan_renewal(PodUid(pod.metadata.uid))

    def see(self, pod: Pod) -> None:
        """Keep a pod that has a job; one that is kept is looked at if its labels or annotations changed. Cheap."""
        uid = PodUid(pod.metadata.uid)
        kept = self._kept.get(uid)
        if kept is None:
            if self._keep(pod) is not None:
                self._queue.add(uid, delay=random.uniform(0, _FIRST_LOOK_SECONDS))  # noqa: S311  not a secret
        elif (facts := _facts(pod)) != kept.facts:
            kept.facts = facts
            self._mark(uid, kept)

    def drop(self, uid: PodUid) -> None:
        """The pod has ended."""
        self._content.forget(uid)
        if (kept := self._kept.pop(uid, None)) is not None:
            self._queue.forget(uid)
            for reference in kept.references:
                self._remove_user((kept.namespace, reference), uid)

    def _keep(self, pod: Pod) -> _Kept | None:
        sources = ("config_map", "secret", "projected", "downward_api")
        if not any(getattr(volume, source) is not None for volume in pod.spec.volumes for source in sources):
            return None
        uid = PodUid(pod.metadata.uid)
        kept = _Kept(pod.metadata.namespace, content_references(pod), _facts(pod), self._clock())
        for reference in kept.references:
            item = kept.namespace, reference
            self._slot(item).setdefault(item, set()).add(uid)
        return self._kept.setdefault(uid, kept)

    def _slot(self, item: _Object) -> dict[_Object, set[PodUid]]:
        return self._slots[hash(item) % _SLOTS]

    def _remove_user(self, item: _Object, uid: PodUid) -> None:
        slot = self._slot(item)
        slot[item].discard(uid)
        if not slot[item]:
            del slot[item]

    def _mark(self, uid: PodUid, kept: _Kept) -> None:
        kept.changed_at = self._clock()
        self._queue.add(uid)

    def _plan_renewal(self, uid: PodUid) -> None:
        if (seconds := self._content.tokens.due_in(uid)) is not None:
            self._queue.add(uid, delay=max(0.1, seconds))

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._queue.run(), name="volume workers")
            group.create_task(self._look_forever(), name="look at volumes' objects")

    def _renew_due(self) -> None:
        """Have tokens renewed whose timers are late: those stand still while the machine sleeps, as tokens do not."""
        for uid in self._kept:
            if self._content.tokens.due_in(uid) == 0:
                self._queue.add(uid)

    # --- looking --------------------------------------------------------------------------------------------------

    async def _look_forever(self) -> None:
        limit = asyncio.Semaphore(_CONCURRENT_READS)
        async with asyncio.TaskGroup() as group:
            for slot in itertools.cycle(self._slots):
                started = self._clock()
                if slot is self._slots[0]:
                    self._renew_due()
                for item in [item for item, uids in slot.items() if self._worth_a_look(item, uids)]:
                    self._looked_at.add(item)
                    group.create_task(self._look(*item, limit), name=f"look at {item[1].name}")
                    await asyncio.sleep(1 / _MOST_READS_PER_SECOND)
                await asyncio.sleep(max(0.0, started + _SLOT_SECONDS - self._clock()))

    def _worth_a_look(self, item: _Object, uids: set[PodUid]) -> bool:
        frozen = all(self._kept[uid].versions.get(item[1]) == _FROZEN for uid in uids)
        return not frozen and item not in self._looked_at

    async def _look(self, namespace: str, reference: Reference, limit: asyncio.Semaphore) -> None:
        item = namespace, reference
        try:
            async with limit:
                version = await self._content.reads.version(namespace, reference)
        except KubeError as error:
            log.warning("looking at %s %s/%s: %s", reference.kind, namespace, reference.name, error)
            return
        finally:
            self._looked_at.discard(item)
        now = self._clock()
        for uid in self._slot(item).get(item, ()):
            kept = self._kept[uid]
            if kept.versions.get(reference) not in {version, _FROZEN}:
                kept.changed_at = now
                self._queue.add(uid)

    # --- writing --------------------------------------------------------------------------------------------------

    async def _refresh(self, uid: PodUid) -> float | None:
        """Write what of a pod's volumes is not as it should be; return in how many seconds its token is due."""
        kept, cached = self._kept.get(uid), self._find(uid)
        if kept is None or cached is None:
            return None
        try:
            pod = cached.parse()
        except ValidationError:
            return None  # the reconciler says so
        objects = await self._content.volume_objects(pod, seen_at=kept.changed_at)
        files = self._files(pod, objects)
        changed = {name: version for name, version in _versions(files).items() if version != kept.written.get(name)}
        if changed:
            await self._provider.update(uid, PodContent(volumes={name: files[name] for name in changed}))
            kept.written.update(changed)
            log.info("volumes updated: %s", ", ".join(sorted(changed)), extra=about(pod))
        kept.versions = {reference: _version(body) for reference, body in objects.objects.items()}
        due = self._content.tokens.due_in(uid)
        return None if due is None else max(0.1, due)

    def _files(self, pod: Pod, objects: Objects) -> dict[str, tuple[VolumeFile, ...]]:
        """Return the files of the volumes that can be filled; the others stay as they are, and the pod is told."""
        found, default = {}, self._content.default()
        for index, volume in enumerate(pod.spec.volumes):
            try:
                files = files_of(pod, index, objects, default)
            except MissingContentError as error:
                self._warn(pod, "FailedMount", f'MountVolume.SetUp failed for volume "{volume.name}" : {error}')
            except SlurmletError as error:
                log.warning("volume %s can't be updated: %s", volume.name, error, extra=about(pod))
            else:
                if files is not None:
                    found[volume.name] = files
        return found


def _versions(volumes: Mapping[str, tuple[VolumeFile, ...]]) -> dict[str, str]:
    return {name: content_version(files) for name, files in volumes.items()}


def _version(body: Mapping[str, Any] | None) -> str:
    if body is None:
        return ""
    return _FROZEN if body.get("immutable") else str(body["metadata"]["resourceVersion"])


def _facts(pod: Pod) -> bytes:
    """Return a digest of what of a pod may change and stand in a downwardAPI volume."""
    metadata = pod.metadata
    text = repr((sorted(metadata.labels.items()), sorted(metadata.annotations.items())))
    return hashlib.sha256(text.encode()).digest()[:8]
