"""So many at a time: what takes long must not take every worker. Nothing of I/O.

A worker that would only wait is given back to the queue; the key is woken when there is room again.
"""

import time
from collections.abc import Callable, Hashable
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

# When to ask again at the latest: who was woken may have wanted no turn any more, and wakes nobody.
AGAIN_SECONDS = 30.0
_YIELD_SECONDS = 10.0


class Turns(Generic[K]):
    """``count`` turns. ``wake`` is called with keys that had to wait, the longest waiting first."""

    def __init__(self, count: int, wake: Callable[[K], None]) -> None:
        self._free = count
        self._wake = wake
        self._waiting: dict[K, None] = {}
        self._yielding: dict[K, None] = {}

    def take(self, key: K) -> bool:
        """Take a turn, which is to be given back; False if there is none, and then the key is woken for another try."""
        if self._free == 0:
            self._waiting[key] = None
            return False
        self._waiting.pop(key, None)
        self._free -= 1
        return True

    def give_back(self) -> None:
        """End a turn. As many are woken as there is room for: some may want none any more."""
        self._free += 1
        for key in list(islice(self._waiting, self._free)):
            del self._waiting[key]
            self._wake(key)
        if not self._waiting:
            yielding, self._yielding = self._yielding, {}
            for key in yielding:
                self._wake(key)

    def yields(self, key: K, since: float) -> float | None:
        """Return for how long who wants no turn lets those go first who wait for one; None if there is nobody to let.

        ``since``: from when on, by the monotonic clock, it does so. The key is woken once nobody waits any more.
        """
        left = since + _YIELD_SECONDS - time.monotonic()
        if not self._waiting or left <= 0:
            return None
        self._yielding[key] = None
        return left
