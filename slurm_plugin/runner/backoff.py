"""Back-off, as the kubelet counts it: 10 s, doubled up to 300 s, forgotten after a quiet while. Pure.

Source: ``client-go/util/flowcontrol/backoff.go`` and ``MaxContainerBackOff`` in Kubernetes 1.36.
"""

from typing import NamedTuple


class Timings(NamedTuple):
    """Seconds. ``reset``: a container that ran this long starts again from ``base``. ``look``: between looks at sizes."""

    base: float = 10.0
    limit: float = 300.0
    reset: float = 600.0
    look: float = 10.0


KUBELET = Timings()


class BackOff:
    """One container's, or one image's, back-off. The first repetition is free of it, as the kubelet's is."""

    __slots__ = ("_delay", "_last", "_timings")

    def __init__(self, timings: Timings) -> None:
        self._timings = timings
        self._delay = 0.0
        self._last = 0.0

    def next(self, now: float) -> float:
        """Return how long to wait from now before this repetition, and count it."""
        if now - self._last > self._timings.reset:
            self._delay = 0.0
        delay = self._delay
        self._delay = min(self._timings.limit, delay * 2) if delay else self._timings.base
        self._last = now + delay
        return delay
