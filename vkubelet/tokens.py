"""The service account tokens of pods: each bound to its pod, so that it dies with it, and renewed in time.

Rule: ``pkg/kubelet/token`` of Kubernetes 1.36: a token is renewed when 80 % of its life or 24 hours are over, up to 10 s
earlier, lest all pods ask at once; while that fails the old one serves until it expires.
"""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from slurm_plugin.errors import SlurmletError
from slurm_plugin.job import PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.resolution.objects import MissingVolumeError, TokenRequest

from .errors import ForbiddenError, InvalidError, NotFoundError
from .kube import Json, Kube
from .podlog import about

log = logging.getLogger(__name__)

_LONGEST_SECONDS = 24 * 3600.0
_PART_OF_LIFE = 0.8
_JITTER_SECONDS = 10.0
_RETRY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Token:
    """A token. Times are seconds since the epoch."""

    value: str
    renew_at: float
    expires_at: float


def renew_at(expires_at: float, life_seconds: float, jitter: float) -> float:
    """Return when a token is to be renewed. ``jitter`` is between 0 and 1."""
    issued_at = expires_at - life_seconds
    return issued_at + min(life_seconds * _PART_OF_LIFE, _LONGEST_SECONDS) - jitter * _JITTER_SECONDS


class Tokens:
    """Every live pod's tokens, by pod and request."""

    def __init__(
        self, kube: Kube, *, clock: Callable[[], float] = time.time, jitter: Callable[[], float] = random.random
    ) -> None:
        self._kube = kube
        self._clock = clock
        self._jitter = jitter
        self._tokens: dict[PodUid, dict[TokenRequest, Token]] = {}

    async def get(self, pod: Pod, request: TokenRequest) -> str:
        """Return a token that need not be renewed yet; the old one if that fails and it still serves.

        Raises MissingVolumeError (somebody may grant or create what is missing), KubeError.
        """
        tokens = self._tokens.setdefault(PodUid(pod.metadata.uid), {})
        old, now = tokens.get(request), self._clock()
        if old is not None and now < old.renew_at:
            return old.value
        try:
            tokens[request] = await self._request(pod, request)
        except SlurmletError as error:
            if old is None or now >= old.expires_at:
                raise
            log.warning("a token is not renewed yet: %s", error, extra=about(pod))
            tokens[request] = Token(old.value, now + _RETRY_SECONDS, old.expires_at)
        return tokens[request].value

    def due_in(self, uid: PodUid) -> float | None:
        """Return in how many seconds (0 is now) one of a pod's tokens is to be renewed, None if it has none."""
        times = [token.renew_at for token in self._tokens.get(uid, {}).values()]
        return max(0.0, min(times) - self._clock()) if times else None

    def forget(self, uid: PodUid) -> None:
        """The pod has ended."""
        self._tokens.pop(uid, None)

    async def _request(self, pod: Pod, request: TokenRequest) -> Token:
        metadata = pod.metadata
        spec: dict[str, Any] = {
            "audiences": [request.audience] if request.audience else [],
            "expirationSeconds": request.expiration_seconds,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": metadata.name, "uid": metadata.uid},
        }
        account = pod.spec.service_account_name or "default"
        path = f"/api/v1/namespaces/{metadata.namespace}/serviceaccounts/{account}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        try:
            return self._token(await self._kube.create(path, body))
        except (NotFoundError, ForbiddenError, InvalidError) as error:
            raise MissingVolumeError(f"no token of service account {account}: {error}") from error

    def _token(self, answer: Json) -> Token:
        status = answer["status"]
        life = float(answer["spec"]["expirationSeconds"])  # the server's own, which may be another than was asked for
        expires_at = datetime.fromisoformat(status["expirationTimestamp"]).timestamp()
        return Token(str(status["token"]), renew_at(expires_at, life, self._jitter()), expires_at)
