"""Keeps the node registered: creates the Node, renews its Lease, writes its status when it changes or every 5 minutes.

The Node is never deleted: the control plane force-deletes the pods of a missing Node. What a Node should be is decided
in ``node``; nothing here knows of pods.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from slurm_plugin import nodelabels
from slurm_plugin.cluster import Cluster
from slurm_plugin.config import ResourceMapping
from slurm_plugin.contract import Provider
from slurm_plugin.errors import SlurmletError

from . import node
from .capacity import allocatable, capacity, nothing
from .errors import AlreadyExistsError, ConflictError, ForbiddenError, KubeError, NotFoundError
from .kube import Kube

log = logging.getLogger(__name__)

_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_RENEW_SECONDS = 10.0
_RENEW_AGAIN_SECONDS = 2.0
_STATUS_SECONDS = 10.0
_STATUS_AGAIN_SECONDS = 2.0  # what was said of the node in a control plane's absence is put right soon after it
_HEARTBEAT_SECONDS = 300.0
_CLUSTER_TIMEOUT_SECONDS = 60.0
_RETRY_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0, 7.0)


class Registration:
    """One virtual node. ``cluster`` is the last known state of Slurm's, None before the first answer.

    ``labels`` are all that the Node has, None before Slurm's are among them.
    """

    def __init__(
        self,
        kube: Kube,
        provider: Provider,
        facts: node.NodeFacts,
        resources: Mapping[str, ResourceMapping],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kube = kube
        self._provider = provider
        self._facts = facts
        self._resources = resources
        self._clock = clock
        self._path = node.node_path(facts.settings.name)
        self._uid = ""
        self._changed = asyncio.Event()
        self._written_at = 0.0
        self._taints_forbidden = False
        self.cluster: Cluster | None = None
        self.labels: dict[str, str] | None = None

    @property
    def uid(self) -> str:
        """The Node's UID, empty before it is registered."""
        return self._uid

    def set_reachable(self, error: str | None) -> None:
        """Say that Slurm answers, or why it does not."""
        if error != self._facts.slurm_error:
            if (error is None) != (self._facts.slurm_error is None):
                log.log(
                    logging.INFO if error is None else logging.WARNING,
                    "Slurm %s", "answers" if error is None else f"does not answer: {error}",
                )  # fmt: skip
            self._facts = replace(self._facts, slurm_error=error)
            self._changed.set()

    async def register(self) -> None:
        """Create the Node, or take over the one that exists; returns when it is there. Tries for ever."""
        failures = 0
        while True:
            try:
                self._uid = await self._create_or_adopt()
            except KubeError as error:
                wait = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
                failures += 1
                log.log(logging.WARNING if error.transient else logging.ERROR, "registering the node: %s", error)
                await asyncio.sleep(wait)
            else:
                return

    async def _create_or_adopt(self) -> str:
        now = self._clock()
        try:
            created = await self._kube.create("/api/v1/nodes", node.new_node(self._facts, now))
        except AlreadyExistsError:
            found = await self._kube.get(self._path)
            ours = node.labels(self._facts)
            if any((found["metadata"].get("labels") or {}).get(key) != value for key, value in ours.items()):
                await self._kube.patch(self._path, {"metadata": {"labels": ours}})
            return str(found["metadata"]["uid"])
        log.info("node %s registered", self._facts.settings.name)
        return str(created["metadata"]["uid"])

    async def run(self) -> None:
        """Keep Lease, status, taint and capacity up to date until cancelled. After ``register``."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew_lease(), name="node lease")
            group.create_task(self._keep_status(), name="node status")
            group.create_task(self._ask_cluster(), name="cluster capacity")

    async def _renew_lease(self) -> None:
        failures = 0
        while True:
            try:
                async with asyncio.timeout(_RENEW_SECONDS):  # a dead connection must not cost the lease
                    await self._renew_once()
                failures = 0
            except (KubeError, TimeoutError) as error:
                failures += 1
                log.warning("renewing the lease: %s", error or "no answer in time")
            # 40 s of lease must survive a short outage; after a longer one the controller that calls a node NotReady
            # may be back within seconds, and must find the lease renewed.
            pause = _RENEW_SECONDS if not failures else 0.5 if failures <= 5 else _RENEW_AGAIN_SECONDS
            await asyncio.sleep(pause * random.uniform(1.0, 1.04))  # noqa: S311  jitter, not a secret

    async def _renew_once(self) -> None:
        body = node.lease(self._facts.settings.name, self._uid, self._clock())
        try:
            await self._kube.patch(f"{_LEASES}/{self._facts.settings.name}", body)
        except NotFoundError:
            await self._kube.create(_LEASES, body)

    async def _keep_status(self) -> None:
        while True:
            self._changed.clear()
            try:
                await self._write_status()
            except NotFoundError:
                log.warning("the node was deleted; registering it again")
                await self.register()
                continue
            except KubeError as error:
                log.log(logging.WARNING if error.transient else logging.ERROR, "node status: %s", error)
                await asyncio.sleep(_STATUS_AGAIN_SECONDS)
                continue
            try:
                async with asyncio.timeout(_STATUS_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _write_status(self) -> None:
        """Read the Node, and write what differs; the heartbeat alone every five minutes."""
        found = await self._kube.get(self._path)
        self._uid = str(found["metadata"]["uid"])
        await self._write_taint(found)
        await self._write_labels(found)
        facts = self._facts
        if self._taints_forbidden and facts.slurm_error is not None and facts.allocatable is not None:
            facts = replace(facts, allocatable=nothing(facts.allocatable))
        now = self._clock()
        old = found.get("status") or {}
        status = node.node_status(facts, old, now)
        if node.differs(status, old) or now - self._written_at >= _HEARTBEAT_SECONDS:
            await self._kube.patch(f"{self._path}/status", {"metadata": {"uid": self._uid}, "status": status})
            self._written_at = now

    async def _write_taint(self, found: dict[str, Any]) -> None:
        """Have our taint there exactly while Slurm does not answer; a credential without the right makes it zero capacity."""
        old = (found.get("spec") or {}).get("taints") or []
        wanted = node.with_reachability(old, reachable=self._facts.slurm_error is None)
        if self._taints_forbidden or {t["key"] for t in wanted} == {t["key"] for t in old}:
            return
        # The version makes it a compare-and-swap: others change taints too, and a patch replaces the whole list.
        version = found["metadata"]["resourceVersion"]
        try:
            await self._kube.patch(self._path, {"metadata": {"resourceVersion": version}, "spec": {"taints": wanted}})
        except ConflictError:
            self._changed.set()
        except ForbiddenError as error:
            log.warning("can't taint the node, its capacity is zero while Slurm does not answer: %s", error)
            self._taints_forbidden = True

    async def _write_labels(self, found: dict[str, Any]) -> None:
        """Have Slurm's labels there as they are now; those of others stay."""
        if self._facts.capacity is None:
            return
        old = found["metadata"].get("labels") or {}
        ours = node.labels(self._facts)
        changes: dict[str, str | None] = {key: value for key, value in ours.items() if old.get(key) != value}
        changes |= dict.fromkeys(key for key in old if nodelabels.owned(key) and key not in ours)
        if changes:
            await self._kube.patch(self._path, {"metadata": {"uid": self._uid, "labels": changes}})
        self.labels = {key: value for key, value in (old | ours).items() if changes.get(key, value) is not None}

    async def _ask_cluster(self) -> None:
        """Ask Slurm what it has, so often that a drained node shows within a minute; half of the time at most is spent so."""
        settings = self._facts.settings.capacity
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            try:
                async with asyncio.timeout(_CLUSTER_TIMEOUT_SECONDS):
                    cluster = await self._provider.cluster()
            except (SlurmletError, TimeoutError) as error:
                log.warning("capacity: %s", error or "no answer in time")
                await asyncio.sleep(min(5.0, settings.refresh_seconds))
                continue
            self._take(cluster)
            taken = loop.time() - begun
            await asyncio.sleep(max(settings.refresh_seconds - taken, taken))

    def _take(self, cluster: Cluster) -> None:
        settings = self._facts.settings.capacity
        facts = replace(
            self._facts,
            slurm_version=cluster.version,
            labels=nodelabels.labels(cluster),
            enforcement=cluster.enforcement,
            capacity=capacity(cluster, self._resources, settings),
            allocatable=allocatable(cluster, self._resources, settings),
        )
        self.cluster = cluster
        if facts != self._facts:
            self._facts = facts
            self._changed.set()
