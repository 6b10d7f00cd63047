"""A queue of keys: many workers, never two on the same key, back-off per key. Nothing of Kubernetes.

The order of things, per key: ``add`` marks it; a worker takes the mark away *before* it calls the handler, so that a
change that comes meanwhile marks it again and is handled afterwards, once, however many came. Nothing is lost and
nothing queues up behind itself. A handler that fails is called again with back-off.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Protocol, TypeVar

from slurm_plugin.errors import SlurmletError

from .metrics import QUEUE_DEPTH, QUEUE_RETRIES, QUEUE_SECONDS

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


class Timer(Protocol):
    """Something that will happen, unless it is cancelled."""

    def cancel(self) -> None:
        """Make it not happen; no-op if it did."""

    def when(self) -> float:
        """When, by the clock that made it."""


class Timers(Protocol):
    """A clock and its alarms: an event loop is one."""

    def time(self) -> float:
        """Return seconds on a clock that only grows."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Call back once, after ``delay`` seconds."""


class Backoff(Generic[K]):
    """How long each key waits after its next failure: doubling from ``first`` to ``limit`` seconds."""

    def __init__(self, first: float, limit: float) -> None:
        self._first = first
        self._limit = limit
        self._failures: dict[K, int] = {}

    def failed(self, key: K) -> float:
        """Count a failure and return the wait in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return float(min(self._first * 2 ** min(failures, 30), self._limit))

    def succeeded(self, key: K) -> None:
        """Forget the key's failures."""
        self._failures.pop(key, None)


class WorkQueue(Generic[K]):
    """Calls ``handler(key)`` for every key added. The handler returns after how many seconds to call it again, or None."""

    def __init__(
        self,
        handler: Callable[[K], Awaitable[float | None]],
        *,
        name: str,
        workers: int = 32,
        backoff: Backoff[K] | None = None,
        timers: Timers | None = None,
    ) -> None:
        self._handler = handler
        self._name = name
        self._workers = workers
        self._backoff = backoff or Backoff(0.5, 60.0)
        self._timers: Timers = timers or asyncio.get_running_loop()
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()  # in _ready
        self._running: set[K] = set()
        self._again: set[K] = set()  # added while running
        self._delayed: dict[K, Timer] = {}

    def add(self, key: K, *, delay: float = 0.0) -> None:
        """Have the key handled, now or in ``delay`` seconds; of two times the earlier one counts."""
        if delay > 0:
            self._add_later(key, delay)
            return
        if timer := self._delayed.pop(key, None):
            timer.cancel()
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)
            QUEUE_DEPTH.labels(self._name).inc()

    def _add_later(self, key: K, delay: float) -> None:
        old = self._delayed.get(key)
        if key in self._waiting or (old is not None and old.when() <= self._timers.time() + delay):
            return
        if old is not None:
            old.cancel()
        self._delayed[key] = self._timers.call_later(delay, lambda: self.add(key))

    def forget(self, key: K) -> None:
        """Drop what is planned for a key and its failures; a call under way ends as it does."""
        if timer := self._delayed.pop(key, None):
            timer.cancel()
        self._backoff.succeeded(key)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"{self._name} worker {number}")
        finally:
            for timer in self._delayed.values():
                timer.cancel()
            self._delayed.clear()

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            QUEUE_DEPTH.labels(self._name).dec()
            self._running.add(key)
            try:
                with QUEUE_SECONDS.labels(self._name).time():
                    delay = await self._handle(key)
            finally:
                self._running.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif delay is not None:
                self.add(key, delay=delay)

    async def _handle(self, key: K) -> float | None:
        try:
            delay = await self._handler(key)
        except SlurmletError as error:
            wait = self._failed(key)
            level = logging.WARNING if error.transient else logging.ERROR
            log.log(level, "%s %s: %s; again in %.1f s", self._name, key, error, wait)
            return wait
        except Exception:
            # A bug met by one key must not stop the work on all others.
            wait = self._failed(key)
            log.exception("%s %s failed; again in %.1f s", self._name, key, wait)
            return wait
        self._backoff.succeeded(key)
        return delay

    def _failed(self, key: K) -> float:
        QUEUE_RETRIES.labels(self._name).inc()
        return self._backoff.failed(key)
