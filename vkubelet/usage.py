"""What the node and its pods use: the provider's measurements, matched with the pods that exist.

Of what a site says only the numbers are believed: names come from the Pod objects. The node's own figures are the sum
of its pods' and the agent itself, as a kubelet's node includes the kubelet: never zero, and its CPU never falls, though
pods come and go. A pod that comes and goes between two looks is not in it.
"""

import os
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
    """The last measurement of one run of a container."""

    time: float
    cpu_nanoseconds: int
    nanocores: int


@dataclass(slots=True)
class _Memory:
    """What is kept between two looks, of what still runs."""

    facts: dict[PodUid, _Facts] = field(default_factory=dict)
    last: dict[tuple[str, str, float], _Last] = field(default_factory=dict)


class UsageReader:
    """Reads the usage of a node's pods; without a provider that measures, of none."""

    def __init__(self, provider: Provider, cache: PodCache, *, clock: Callable[[], float] = time.time) -> None:
        self._provider = provider
        self._cache = cache
        self._clock = clock
        self._started_at = clock()
        self._cpu_of_pods = 0
        self._memory = _Memory()

    async def read(self) -> NodeSample:
        """Return what is used now. Raises what the provider's ``usage`` does."""
        measured = await self._provider.usage() if isinstance(self._provider, Measurable) else ()
        before, self._memory = self._memory, _Memory()
        pods = []
        for usage in measured:
            cached = self._cache.get(usage.uid)
            if cached is not None and (pod := self._pod(cached, usage, before)).containers:
                pods.append(pod)
        now = self._clock()
        agent = self._sample("", self._agent(), "", now, before)
        return NodeSample(now, self._started_at, self._cpu_of_pods + agent.cpu_nanoseconds, agent, tuple(pods))

    def _pod(self, cached: CachedPod, usage: PodUsage, before: _Memory) -> PodSample:
        facts = before.facts.get(cached.uid)
        if facts is None or facts.version != cached.version:
            facts = _facts(cached)
        self._memory.facts[cached.uid] = facts
        containers = []
        for used in usage.containers:
            if used.name in facts.images:
                known = before.last.get((cached.uid, used.name, used.started_at))
                sample = self._sample(cached.uid, used, facts.images[used.name], usage.time, before)
                self._cpu_of_pods += max(0, used.cpu_nanoseconds - (known.cpu_nanoseconds if known else 0))
                containers.append(sample)
        probes = tuple(probe for probe in usage.probes if probe.container in facts.images)
        started_at = facts.started_at or min((c.started_at for c in containers), default=0.0)
        return PodSample(
            cached.uid, cached.namespace, cached.name, started_at, usage.time, tuple(containers), probes
        )  # fmt: skip

    def _sample(self, owner: str, used: ContainerUsage, image: str, at: float, before: _Memory) -> ContainerSample:
        key = (owner, used.name, used.started_at)
        last = before.last.get(key) or _Last(used.started_at, 0, 0)
        if at > last.time:
            grown = max(0, used.cpu_nanoseconds - last.cpu_nanoseconds)
            last = _Last(at, used.cpu_nanoseconds, int(grown / (at - last.time)))
        self._memory.last[key] = last
        return ContainerSample(
            used.name, image, used.started_at, used.cpu_nanoseconds, used.working_set_bytes, last.nanocores
        )  # fmt: skip

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
