"""Who asks, and whether they may: the kubelet's own rules, on every path.

Authentication: a client certificate that the cluster's client CA signed (CN is the user, O the groups), else a bearer
token that the API server reviews. Authorization: a SubjectAccessReview on a subresource of our Node. Source of the
rules: ``pkg/kubelet/server/auth.go`` of Kubernetes 1.36, fine-grained authorization included. One of ours is stricter:
what runs code needs ``create`` by any method, or ``get nodes/proxy`` would mean code execution.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..kube import Kube

V = TypeVar("V")

_TOKEN_SECONDS = 120.0
_REFUSED_SECONDS = 10.0
_ALLOWED_SECONDS = 300.0
_DENIED_SECONDS = 30.0
_REMEMBERED = 4096
_LONGEST_TOKEN = 64 * 1024
# Anybody who reaches the port can ask about tokens: they get no more of the API server, and of our own way to it.
_REVIEWS_AT_ONCE = 16

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCES = {
    "stats": ("stats",), "metrics": ("metrics",), "logs": ("log",), "checkpoint": ("checkpoint",),
    "pods": ("pods", "proxy"), "runningpods": ("pods", "proxy"), "healthz": ("healthz", "proxy"),
    "configz": ("configz", "proxy"),
}  # fmt: skip
RUNS_CODE = frozenset({"exec", "attach", "portForward", "run"})


@dataclass(frozen=True, slots=True)
class Identity:
    """A user, as the API server knows it. ``extra`` is as hashable pairs."""

    user: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Access:
    """What a request needs: the verb on any one of the subresources of ``nodes/NAME``."""

    verb: str
    subresources: tuple[str, ...]


def needed_access(method: str, path: str) -> Access:
    """Return what a request needs."""
    root = path.lstrip("/").partition("/")[0]
    verb = "create" if root in RUNS_CODE else _VERBS.get(method, method.lower())
    return Access(verb, _SUBRESOURCES.get(root, ("proxy",)))


def certificate_identity(peer: Mapping[str, Any] | None) -> Identity | None:
    """Return whom a verified client certificate (``ssl.SSLSocket.getpeercert``) names, None without one."""
    pairs = [pair for part in (peer or {}).get("subject", ()) for pair in part]
    users = [value for key, value in pairs if key == "commonName"]
    groups = tuple(value for key, value in pairs if key == "organizationName")
    return Identity(users[-1], (*groups, "system:authenticated")) if users else None


class _Cache(Generic[V]):
    """Answers by key, each for its own time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answers: OrderedDict[object, tuple[float, V]] = OrderedDict()

    def get(self, key: object) -> V | None:
        found = self._answers.get(key)
        return found[1] if found is not None and found[0] > self._clock() else None

    def put(self, key: object, value: V, seconds: float) -> None:
        self._answers[key] = (self._clock() + seconds, value)
        self._answers.move_to_end(key)
        while len(self._answers) > _REMEMBERED:
            self._answers.popitem(last=False)


class _Questions(Generic[V]):
    """What is being asked: once, however many wait for the answer."""

    def __init__(self) -> None:
        self._asked: dict[object, asyncio.Task[V]] = {}

    async def join(self, key: object, ask: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """Ask, or wait for the answer to the same question. Raises what ``ask`` does."""
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.create_task(ask(), name="review")
            task.add_done_callback(lambda _: self._asked.pop(key))
        return await asyncio.shield(task)  # one who goes away takes the answer from nobody


class Authenticator:
    """Asks the API server whose token it is; remembers yes for two minutes, no for ten seconds, by the token's hash."""

    def __init__(self, kube: Kube, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._known: _Cache[Identity] = _Cache(clock)
        self._refused: _Cache[bool] = _Cache(clock)  # apart: no number of them pushes out a good one
        self._questions: _Questions[Identity | None] = _Questions()
        self._at_once = asyncio.Semaphore(_REVIEWS_AT_ONCE)

    async def identify(self, authorization: str | None) -> Identity | None:
        """Return whose Authorization header it is, None for nobody's. Raises KubeError."""
        scheme, _, token = (authorization or "").strip().partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > _LONGEST_TOKEN:
            return None
        key = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        if known := self._known.get(key):
            return known
        if self._refused.get(key):
            return None
        return await self._questions.join(key, lambda: self._review(key, token))

    async def _review(self, key: bytes, token: str) -> Identity | None:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        async with self._at_once:
            answer = await self._kube.create("/apis/authentication.k8s.io/v1/tokenreviews", review)
        status = answer.get("status") or {}
        user = status.get("user") or {}
        if not status.get("authenticated") or not user.get("username"):
            self._refused.put(key, True, _REFUSED_SECONDS)
            return None
        extra = tuple(sorted((name, tuple(values)) for name, values in (user.get("extra") or {}).items()))
        identity = Identity(user["username"], tuple(user.get("groups") or ()), user.get("uid") or "", extra)
        self._known.put(key, identity, _TOKEN_SECONDS)
        return identity


class Authorizer:
    """Asks the API server whether somebody may; remembers yes for five minutes, no for thirty seconds."""

    def __init__(self, kube: Kube, node: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._node = node
        self._known: _Cache[bool] = _Cache(clock)
        self._questions: _Questions[bool] = _Questions()

    async def allows(self, identity: Identity, access: Access) -> bool:
        """Return whether one of the subresources is allowed. Raises KubeError."""
        for subresource in access.subresources:
            if await self._allows_one(identity, access.verb, subresource):
                return True
        return False

    async def _allows_one(self, identity: Identity, verb: str, subresource: str) -> bool:
        key = (identity, verb, subresource)
        known = self._known.get(key)
        if known is not None:
            return known
        return await self._questions.join(key, lambda: self._review(key, identity, verb, subresource))

    async def _review(self, key: object, identity: Identity, verb: str, subresource: str) -> bool:
        spec = {
            "user": identity.user,
            "uid": identity.uid,
            "groups": list(identity.groups),
            "extra": {name: list(values) for name, values in identity.extra},
            "resourceAttributes": {
                "verb": verb, "version": "v1", "resource": "nodes", "subresource": subresource, "name": self._node,
            },
        }  # fmt: skip
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        answer = await self._kube.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        allowed = bool((answer.get("status") or {}).get("allowed"))
        self._known.put(key, allowed, _ALLOWED_SECONDS if allowed else _DENIED_SECONDS)
        return allowed
