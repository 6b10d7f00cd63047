"""So many at a time: what takes long must not take every worker. Nothing of I/O.

A worker that would only wait is given back to the queue; the key is woken when there is room for it. It keeps its place
until it takes a turn or is forgotten.
"""

import time
from collections.abc import Callable, Hashable
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

# When to ask again at the latest: room is kept for who was woken, and a worker that fails may be long in asking.
AGAIN_SECONDS = 30.0
_YIELD_SECONDS = 10.0


class Turns(Generic[K]):
    """``count`` turns. ``wake`` is called with keys that had to wait, the longest waiting first."""

    def __init__(self, count: int, wake: Callable[[K], None]) -> None:
        self._free = count
        self._wake = wake
        self._waiting: dict[K, bool] = {}  # whether it was woken
        self._yielding: dict[K, None] = {}

    def take(self, key: K) -> bool:
        """Take a turn, which is to be given back; False if there is none, and then the key is woken for another try."""
        if self._free == 0:
            self._waiting[key] = False
            return False
        self._free -= 1
        self._leave(key)
        return True

    def give_back(self) -> None:
        """End a turn."""
        self._free += 1
        self._wake_first()

    def forget(self, key: K) -> None:
        """The key wants no turn any more: nobody is to wait for it."""
        self._yielding.pop(key, None)
        self._leave(key)

    def yields(self, key: K, since: float) -> float | None:
        """Return for how long who wants no turn lets those go first who wait for one; None if there is nobody to let.

        ``since``: from when on, by the monotonic clock, it does so. The key is woken once nobody waits any more.
        """
        left = since + _YIELD_SECONDS - time.monotonic()
        if not self._waiting or left <= 0:
            return None
        self._yielding[key] = None
        return left

    def _leave(self, key: K) -> None:
        if self._waiting.pop(key, None) is None:
            return
        self._wake_first()
        if not self._waiting:
            yielding, self._yielding = self._yielding, {}
            for other in yielding:
                self._wake(other)

    def _wake_first(self) -> None:
        """Wake as many as there is room for, each once for a try."""
        for key in list(islice(self._waiting, self._free)):
            if not self._waiting[key]:
                self._waiting[key] = True
                self._wake(key)
