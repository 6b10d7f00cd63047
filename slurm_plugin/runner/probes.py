"""Startup, liveness and readiness probes of one running container.

Rules and words: Kubernetes 1.36 ``pkg/kubelet/prober/worker.go`` and ``prober.go``.
"""

from typing import Any, Callable, Coroutine, NamedTuple, Optional

from . import plan
from .actions import perform
from .grace import Grace
from .running import RunningContainer
from .shared import Shared

_NEVER = "Never"


class Probed(NamedTuple):
    """The container, and what is told of it: ``mark_started(ready=…)``; ``stop(grace, message)`` ends the run that is probed."""

    container: plan.Container
    mark_started: Callable[..., None]
    stop: "Callable[[Grace, str], Coroutine[Any, Any, None]]"


class Prober:
    """One probe of one run of a container: ``result`` is None until a threshold was reached."""

    def __init__(self, shared: Shared, running: RunningContainer, kind: str, probe: plan.Probe) -> None:
        self._shared = shared
        self._running = running
        self._kind = kind
        self._probe = probe
        self._due = 0.0
        self._streak = 0
        self._last: Optional[bool] = None

    async def begin(self) -> None:
        """Wait for the initial delay, which counts from the container's start."""
        self._due = self._running.begun + self._probe.initial_delay
        await self._until_due()

    async def once(self) -> Optional[bool]:
        """Probe once. True or False: that result has reached its threshold; None: not yet, or the run has ended meanwhile."""
        outcome = await perform(self._shared, self._running, self._probe.action, float(self._probe.timeout))
        if self._running.ended or not (outcome.ok or self._running.lives):
            return None
        if not outcome.ok:
            words = "%s probe failed: %s" % (self._kind, outcome.text)
            self._shared.book.event("Unhealthy", words, self._running.setting.container.name, warning=True)
        self._count("successful" if outcome.ok else "failed")
        self._streak = self._streak + 1 if outcome.ok == self._last else 1
        self._last = outcome.ok
        threshold = self._probe.success_threshold if outcome.ok else self._probe.failure_threshold
        return outcome.ok if self._streak >= threshold else None

    def _count(self, result: str) -> None:
        counts, key = self._shared.probe_counts, (self._running.setting.container.name, self._kind, result)
        counts[key] = counts.get(key, 0) + 1

    async def pause(self) -> None:
        """Wait for the next turn. Turns come at even intervals; those that passed during a probe are made up for by one at once."""
        self._due += self._probe.period
        await self._until_due()

    async def _until_due(self) -> None:
        now = self._shared.loop.now()
        await self._shared.loop.sleep(max(0.0, self._due - now))
        self._due = max(self._due, now)

    @property
    def grace_seconds(self) -> int:
        """The grace period when this probe's failure ends the container."""
        return self._probe.grace_seconds if self._probe.grace_seconds >= 0 else self._shared.plan.grace_seconds


async def watch_probes(shared: Shared, probed: Probed, running: RunningContainer) -> None:
    """Probe until the container ends (the caller cancels it then)."""
    container = probed.container
    if container.startup_probe is not None:
        prober = Prober(shared, running, "Startup", container.startup_probe)
        if not await _startup(prober):
            await _kill(shared, probed, prober, "startup")
            return
    probed.mark_started(ready=container.readiness_probe is None)
    tasks = []
    if container.liveness_probe is not None:
        prober = Prober(shared, running, "Liveness", container.liveness_probe)
        tasks.append(shared.loop.spawn(_liveness(shared, probed, prober), "liveness of " + probed.container.name))
    if container.readiness_probe is not None:
        prober = Prober(shared, running, "Readiness", container.readiness_probe)
        tasks.append(shared.loop.spawn(_readiness(shared, probed, prober), "readiness of " + probed.container.name))
    try:
        for task in tasks:
            await task
    finally:
        for task in tasks:
            task.cancel()


async def _startup(prober: Prober) -> bool:
    await prober.begin()
    while True:
        result = await prober.once()
        if result is not None:
            return result
        await prober.pause()


async def _liveness(shared: Shared, probed: Probed, prober: Prober) -> None:
    await prober.begin()
    while not shared.stopping.done:
        if await prober.once() is False:
            await _kill(shared, probed, prober, "liveness")
            return
        await prober.pause()


async def _readiness(shared: Shared, probed: Probed, prober: Prober) -> None:
    await prober.begin()
    while True:
        result = await prober.once()
        if result is not None:
            shared.book.set(probed.container.name, ready=result)
        await prober.pause()


async def _kill(shared: Shared, probed: Probed, prober: Prober, kind: str) -> None:
    if shared.stopping.done:
        return
    words = "Container %s failed %s probe" % (probed.container.name, kind)
    if probed.container.restart_policy != _NEVER:
        words += ", will be restarted"
    # Not from here: this task is cancelled when the container ends, and preStop, TERM and KILL must go on.
    shared.loop.spawn(probed.stop(Grace(shared.loop, prober.grace_seconds), words), "kill of " + probed.container.name)
