"""How often the kernel has killed for memory in this job's cgroup; by it a KILL is told from an OOM kill."""

import os
from typing import Callable


def _count(path: str, key: str) -> int:
    try:
        with open(path) as stream:
            for line in stream:
                words = line.split()
                if len(words) == 2 and words[0] == key:
                    return int(words[1])
    except OSError:
        return 0  # no such controller here: nothing can be told
    return 0


def kills(membership: str = "/proc/self/cgroup", mounted: str = "/sys/fs/cgroup") -> int:
    """Return the number of OOM kills so far, from memory.events (v2) or memory.oom_control (v1); 0 if unknown."""
    total = 0
    try:
        with open(membership) as stream:
            lines = stream.read().splitlines()
    except OSError:
        return 0
    for line in lines:
        _number, controllers, path = line.split(":", 2)
        if not controllers:
            total += _count(os.path.join(mounted, path.lstrip("/"), "memory.events"), "oom_kill")
        elif "memory" in controllers.split(","):
            total += _count(os.path.join(mounted, "memory", path.lstrip("/"), "memory.oom_control"), "oom_kill")
    return total


class Kills:
    """The OOM kills of the job, each told of one container at most: the kernel counts them without saying whose they were.

    So the first container that is found killed after some has them all, and a neighbour that something else killed a
    moment later is not named. Of several that died of one shortage the later ones may be ``Error`` for it.
    """

    def __init__(self, count: Callable[[], int] = kills) -> None:
        self._count = count
        self._told = 0

    def so_far(self) -> int:
        """Return how many there were."""
        return self._count()

    def take(self, since: int) -> bool:
        """Return whether there was one after ``since`` that no container has been told as its own; it is told now."""
        count = self._count()
        if count <= max(since, self._told):
            return False
        self._told = count
        return True
