"""Which of several agents works: the one that holds a Lease. The others wait, and touch neither node nor Slurm.

The rules are those of Kubernetes' own controllers (``client-go/tools/leaderelection``, 1.36): a Lease is taken over when
it was not renewed for its whole duration, as measured by who looks at it, so that clocks need not agree; who could not
renew it for two thirds of that stops, before anybody else can begin. That a pod is run at most once does not hang on
it (``slurm_plugin``); it keeps two agents from contending for the node, its pods' status and Slurm's patience.
"""

import asyncio
import logging
import random
import signal
import socket
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from slurm_plugin.errors import SlurmletError

from .config import HaSettings, KubernetesSettings
from .credentials import Access, load_access
from .errors import AlreadyExistsError, ConflictError, KubeError, NotFoundError
from .kube import Json, Kube, Patch

log = logging.getLogger(__name__)

_RETRIES = 7.5  # per duration of the Lease: 2 s for 15 s, as client-go
_DEADLINE = 2 / 3
_RELEASE_SECONDS = 5.0


class LeadershipLostError(SlurmletError):
    """The Lease could not be renewed in time, or is somebody else's: stop at once."""


class Leadership:
    """One candidate. ``seconds`` is the Lease's duration."""

    def __init__(
        self, kube: Kube, settings: HaSettings, *, identity: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kube = kube
        self._name = settings.name
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{settings.namespace}/leases"
        self._path = f"{self._collection}/{settings.name}"
        self._seconds = settings.lease_seconds
        self._identity = identity
        self._clock = clock
        self._seen: object = None
        self._seen_at = 0.0
        self._renewed_at = 0.0

    async def acquire(self) -> None:
        """Wait until we hold the Lease."""
        waiting = False
        while True:
            try:
                if await self._try():
                    log.info("leading, as %s", self._identity)
                    return
            except KubeError as error:
                log.log(logging.WARNING if error.transient else logging.ERROR, "lease %s: %s", self._name, error)
            if not waiting:
                log.info("waiting to lead, as %s", self._identity)
                waiting = True
            await self._pause()

    async def hold(self) -> None:
        """Renew the Lease for as long as that works. Raises LeadershipLostError; never returns."""
        while True:
            await self._pause()
            left = self._renewed_at + self._seconds * _DEADLINE - self._clock()
            try:
                async with asyncio.timeout(max(0.0, left)):
                    mine = await self._try()
            except TimeoutError as error:
                raise LeadershipLostError(
                    f"the lease {self._name} was not renewed for {self._seconds * _DEADLINE:.0f} s"
                ) from error
            except KubeError as error:
                log.warning("renewing the lease %s: %s", self._name, error)
                continue
            if not mine:
                raise LeadershipLostError(f"the lease {self._name} is another agent's")

    async def release(self) -> None:
        """Let another one lead at once, if we do."""
        lease = await self._kube.get(self._path)
        if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
            version = lease["metadata"]["resourceVersion"]
            body = {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": "", "leaseDurationSeconds": 1}}
            await self._kube.patch(self._path, body, kind=Patch.MERGE)

    async def _pause(self) -> None:
        await asyncio.sleep(self._seconds / _RETRIES * random.uniform(1.0, 1.2))  # noqa: S311  jitter, not a secret

    async def _try(self) -> bool:
        """Take or renew the Lease if it is ours, nobody's, or not renewed for too long. Raises KubeError."""
        now = self._clock()  # before we ask: the earliest moment that others may count from
        try:
            lease = await self._kube.get(self._path)
        except NotFoundError:
            return await self._create(now)
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        seen = (holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        duration = float(spec.get("leaseDurationSeconds") or self._seconds)
        if holder not in {"", self._identity} and now < self._seen_at + duration:
            return False
        changed = self._spec(taken=holder != self._identity)
        if holder != self._identity:
            changed["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        # The version makes it a compare-and-swap: of two that find it free one succeeds.
        version = lease["metadata"]["resourceVersion"]
        try:
            await self._kube.patch(
                self._path, {"metadata": {"resourceVersion": version}, "spec": changed}, kind=Patch.MERGE
            )
        except ConflictError:
            return False
        self._renewed_at = now
        return True

    async def _create(self, now: float) -> bool:
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name},
            "spec": self._spec(taken=True) | {"leaseTransitions": 0},
        }
        try:
            await self._kube.create(self._collection, body)
        except AlreadyExistsError:
            return False
        self._renewed_at = now
        return True

    def _spec(self, *, taken: bool) -> Json:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: Json = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._seconds,
            "renewTime": now,
        }
        return spec | ({"acquireTime": now} if taken else {})


async def lead(settings: HaSettings, kubernetes: KubernetesSettings, work: Callable[[], Awaitable[None]]) -> None:
    """Wait until we lead, then work until that is over; TERM ends it and lets another one lead at once.

    Raises LeadershipLostError, ConfigurationError, and what ``work`` raises.
    """

    async def load() -> Access:
        if settings.kubeconfig is not None:
            return await load_access(settings.kubeconfig, settings.context)
        return await load_access(kubernetes.kubeconfig, kubernetes.context)

    await load()  # a mistake of the configuration shows at once
    kube = Kube(load)
    leadership = Leadership(kube, settings, identity=f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    try:
        await _first_of(_lead(leadership, work), stop.wait())
    finally:
        await kube.close()


async def _lead(leadership: Leadership, work: Callable[[], Awaitable[None]]) -> None:
    await leadership.acquire()
    try:
        await _first_of(work(), leadership.hold())
    finally:
        await _released(leadership)


async def _first_of(*works: Awaitable[object]) -> None:
    """Do these until one ends, or fails; the others are cancelled, and have ended when this returns."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _released(leadership: Leadership) -> None:
    try:
        async with asyncio.timeout(_RELEASE_SECONDS):
            await leadership.release()
    except (KubeError, TimeoutError) as error:
        log.warning("the lease could not be given back, it ends by itself: %s", error)
