"""Events about pods and the node: told once, counted when repeated, never in anybody's way.

Telling only puts an event into a bounded queue; one task writes them, at a limited rate, warnings first, and drops what
it can't keep up with: of thousands of pods that are submitted at once the one that fails is told of. An event that the runner numbered gets a name made of that number, so that an agent that was started anew
(or a second one) tells it into the same object, and the API server says that it is there already.
"""

import asyncio
import hashlib
import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from slurm_plugin.errors import shorten
from slurm_plugin.podstatus import timestamp

from .errors import AlreadyExistsError, KubeError, NotFoundError
from .kube import Json, Kube

log = logging.getLogger(__name__)

_QUEUE, _QUEUE_WITH_WARNINGS = 2000, 2500
_PER_SECOND = 50.0
_BURST = 100.0
_REMEMBERED = 4000
_AGGREGATION_SECONDS = 600.0
_MESSAGE = 1024  # the API server's limit
_NAME = 253


@dataclass(frozen=True, slots=True)
class Subject:
    """What an event is about. ``container`` is its fieldPath's, e.g. ``spec.containers{main}``."""

    kind: str
    namespace: str
    name: str
    uid: str
    field_path: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``type`` is Normal or Warning; ``at`` is seconds since the epoch; ``key`` makes its name unique for good.

    One with a key may come again with a higher ``count``, of what happened from ``at`` to ``last_at``.
    """

    subject: Subject
    type: str
    reason: str
    message: str
    at: float
    key: str = ""
    count: int = 1
    last_at: float = 0.0


@dataclass(slots=True)
class _Told:
    name: str
    count: int
    at: float


class Recorder:
    """Writes events in the background."""

    def __init__(self, kube: Kube, node: str, *, clock: Callable[[], float] = time.time) -> None:
        self._kube = kube
        self._node = node
        self._clock = clock
        self._queue: asyncio.PriorityQueue[tuple[bool, int, Event]] = asyncio.PriorityQueue()
        self._numbers = itertools.count()  # among equals the first comes first
        self._told: OrderedDict[tuple[Subject, str, str], _Told] = OrderedDict()
        self._dropped = 0
        self._tokens = _BURST
        self._refilled_at = time.monotonic()

    def tell(self, subject: Subject, kind: str, reason: str, message: str) -> None:
        """Tell something that happens now; the same again within ten minutes is counted in one event."""
        self._put(Event(subject, kind, reason, shorten(message, _MESSAGE - 40), self._clock()))

    def tell_once(
        self,
        subject: Subject,
        kind: str,
        reason: str,
        message: str,
        *,
        at: float,
        key: str,
        count: int = 1,
        last_at: float = 0.0,
    ) -> None:
        """Tell something that has an identity: ``key`` with the subject names the event for good, whatever its count."""
        self._put(Event(subject, kind, reason, shorten(message, _MESSAGE - 40), at, key, count, last_at))

    def _put(self, event: Event) -> None:
        can_wait = event.type != "Warning"
        if self._queue.qsize() >= (_QUEUE if can_wait else _QUEUE_WITH_WARNINGS):
            self._dropped += 1
        else:
            self._queue.put_nowait((can_wait, next(self._numbers), event))

    async def run(self) -> None:
        """Write what was told, until cancelled."""
        while True:
            _, _, event = await self._queue.get()
            await self._throttle()
            try:
                await self._write(event)
            except KubeError as error:
                log.log(logging.INFO if error.transient else logging.WARNING, "event %s lost: %s", event.reason, error)
            if self._dropped and self._queue.empty():
                log.warning("%d events were dropped: more than can be written", self._dropped)
                self._dropped = 0

    async def _throttle(self) -> None:
        now = time.monotonic()
        self._tokens = min(_BURST, self._tokens + (now - self._refilled_at) * _PER_SECOND)
        self._refilled_at = now
        if self._tokens < 1:
            await asyncio.sleep((1 - self._tokens) / _PER_SECOND)
        self._tokens -= 1

    async def _write(self, event: Event) -> None:
        path = f"/api/v1/namespaces/{event.subject.namespace}/events"
        if event.key:
            await self._write_once(path, event)
            return
        identity = (event.subject, event.reason, event.message)
        told = self._told.get(identity)
        if told is not None and event.at - told.at < _AGGREGATION_SECONDS:
            told.count, told.at = told.count + 1, event.at
            self._told.move_to_end(identity)
            try:
                await self._kube.patch(
                    f"{path}/{told.name}", {"count": told.count, "lastTimestamp": timestamp(event.at)}
                )
            except NotFoundError:
                del self._told[identity]  # it expired: the next one is a new event
            return
        name = event_name(event)
        with suppress(AlreadyExistsError):
            await self._kube.create(path, event_json(event, name, self._node))
        self._told[identity] = _Told(name, 1, event.at)
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)

    async def _write_once(self, path: str, event: Event) -> None:
        """Write an event that was counted elsewhere: its first time makes the object, a higher count changes it."""
        name = event_name(event)
        body = event_json(event, name, self._node)
        if event.count > 1:
            news = {key: body[key] for key in ("count", "lastTimestamp", "message")}
            with suppress(NotFoundError):
                await self._kube.patch(f"{path}/{name}", news)
                return
        with suppress(AlreadyExistsError):
            await self._kube.create(path, body)


def event_name(event: Event) -> str:
    """Return a name that is the same for the same happening, and different for any other."""
    words = (event.key,) if event.key else (repr(event.at), event.message)
    text = "\0".join((event.subject.uid, event.subject.field_path, event.reason, *words))
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
    return f"{event.subject.name[: _NAME - 17].rstrip('.-')}.{digest}"


def event_json(event: Event, name: str, node: str) -> Json:
    """Return a core/v1 Event, as a kubelet writes it."""
    subject = event.subject
    involved = {
        "apiVersion": "v1", "kind": subject.kind, "namespace": subject.namespace, "name": subject.name, "uid": subject.uid,
    }  # fmt: skip
    if subject.kind == "Node":
        del involved["namespace"]
    if subject.field_path:
        involved["fieldPath"] = subject.field_path
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": subject.namespace},
        "involvedObject": involved,
        "type": event.type,
        "reason": event.reason,
        "message": event.message,
        "source": {"component": "kubelet", "host": node},
        "reportingComponent": "kubelet",
        "reportingInstance": node,
        "firstTimestamp": timestamp(event.at),
        "lastTimestamp": timestamp(max(event.at, event.last_at)),
        "count": event.count,
    }
