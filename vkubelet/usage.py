"""What the node and its pods use: the provider's measurements, matched with the pods that exist.

Of what a site says only the numbers are believed: names come from the Pod objects. The node's own figures are the sum
of its pods' and the agent itself, as a kubelet's node includes the kubelet: never zero, and its CPU never falls, though
pods come and go. A pod that comes and goes between two looks is not in it.
"""

import os
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from slurm_plugin.contract import ContainerUsage, Measurable, PodUsage, ProbeUsage, Provider
from slurm_plugin.job import PodUid

from .podcache import CachedPod, PodCache

_KINDS = ("initContainers", "containers", "ephemeralContainers")


@dataclass(frozen=True, slots=True)
class ContainerSample:
    """One running container. ``nanocores`` is its CPU per second, between the last two measurements of it."""

    name: str
    image: str
    started_at: float
    cpu_nanoseconds: int
    working_set_bytes: int
    nanocores: int


@dataclass(frozen=True, slots=True)
class PodSample:
    """A pod that runs, measured at ``time``; its times are seconds since the epoch."""

    uid: PodUid
    namespace: str
    name: str
    started_at: float
    time: float
    containers: tuple[ContainerSample, ...]
    probes: tuple[ProbeUsage, ...]

    @property
    def cpu_nanoseconds(self) -> int:
        """Of its running containers."""
        return sum(container.cpu_nanoseconds for container in self.containers)

    @property
    def nanocores(self) -> int:
        """Of its running containers."""
        return sum(container.nanocores for container in self.containers)

    @property
    def working_set_bytes(self) -> int:
        """Of its running containers."""
        return sum(container.working_set_bytes for container in self.containers)


@dataclass(frozen=True, slots=True)
class NodeSample:
    """The node, now. ``agent`` is the agent's own share of it."""

    time: float
    started_at: float
    cpu_nanoseconds: int
    agent: ContainerSample
    pods: tuple[PodSample, ...]

    @property
    def nanocores(self) -> int:
        """Of all pods and the agent."""
        return self.agent.nanocores + sum(pod.nanocores for pod in self.pods)

    @property
    def working_set_bytes(self) -> int:
        """Of all pods and the agent."""
        return self.agent.working_set_bytes + sum(pod.working_set_bytes for pod in self.pods)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is read of a Pod object: its start, and its containers' images by name."""

    version: int
    started_at: float
    images: Mapping[str, str]


@dataclass(slots=True)
class _Last:
    """The last measurement of a container, and of which run of it."""

    started_at: float
    time: float
    cpu_nanoseconds: int = 0
    nanocores: int = 0


class UsageReader:
    """Reads the usage of a node's pods; without a provider that measures, of none."""

    def __init__(self, provider: Provider, cache: PodCache, *, clock: Callable[[], float] = time.time) -> None:
        self._provider = provider
        self._cache = cache
        self._clock = clock
        self._started_at = clock()
        self._cpu_of_pods = 0
        # Of every pod that exists: one that a look does not find measured is not counted twice by the next.
        self._facts: dict[PodUid, _Facts] = {}
        self._last: dict[tuple[str, str], _Last] = {}

    async def read(self) -> NodeSample:
        """Return what is used now. Raises what the provider's ``usage`` does."""
        measured = await self._provider.usage() if isinstance(self._provider, Measurable) else ()
        self._forget_the_gone()
        pods = []
        for usage in measured:
            cached = self._cache.get(usage.uid)
            if cached is not None and (pod := self._pod(cached, usage)).containers:
                pods.append(pod)
        now = self._clock()
        agent, _ = self._sample("", self._agent(), "", now)
        return NodeSample(now, self._started_at, self._cpu_of_pods + agent.cpu_nanoseconds, agent, tuple(pods))

    def _forget_the_gone(self) -> None:
        gone = {uid for uid in self._facts if self._cache.get(uid) is None}
        for uid in gone:
            del self._facts[uid]
        self._last = {key: last for key, last in self._last.items() if key[0] not in gone}

    def _pod(self, cached: CachedPod, usage: PodUsage) -> PodSample:
        facts = self._facts.get(cached.uid)
        if facts is None or facts.version != cached.version:
            facts = self._facts[cached.uid] = _facts(cached)
        containers = []
        for used in usage.containers:
            if used.name in facts.images:
                sample, grown = self._sample(cached.uid, used, facts.images[used.name], usage.time)
                self._cpu_of_pods += grown
                containers.append(sample)
        probes = tuple(probe for probe in usage.probes if probe.container in facts.images)
        started_at = facts.started_at or min((c.started_at for c in containers), default=0.0)
        return PodSample(
            cached.uid, cached.namespace, cached.name, started_at, usage.time, tuple(containers), probes
        )  # fmt: skip

    def _sample(self, owner: str, used: ContainerUsage, image: str, at: float) -> tuple[ContainerSample, int]:
        """Return a container's sample, and the CPU time that was not known before."""
        last = self._last.get((owner, used.name))
        if last is None or last.started_at != used.started_at:
            last = _Last(used.started_at, used.started_at)
        grown = 0
        if at > last.time:
            grown = max(0, used.cpu_nanoseconds - last.cpu_nanoseconds)
            last = _Last(used.started_at, at, used.cpu_nanoseconds, int(grown / (at - last.time)))
        self._last[owner, used.name] = last
        return ContainerSample(
            used.name, image, used.started_at, used.cpu_nanoseconds, used.working_set_bytes, last.nanocores
        ), grown  # fmt: skip

    def _agent(self) -> ContainerUsage:
        return ContainerUsage("kubelet", self._started_at, time.process_time_ns(), _resident_bytes())


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _facts(cached: CachedPod) -> _Facts:
    body = cached.json()
    spec: Mapping[str, Any] = body.get("spec") or {}
    images = {item["name"]: item.get("image") or "" for kind in _KINDS for item in spec.get(kind) or ()}
    started = (body.get("status") or {}).get("startTime")
    return _Facts(cached.version, datetime.fromisoformat(started).timestamp() if started else 0.0, images)
