"""Ends a pod whose emptyDir grows beyond its ``sizeLimit``, as the kubelet does by eviction.

Rules and words: Kubernetes 1.36 ``pkg/kubelet/eviction`` (emptyDirLimitEviction; grace period 1 s; every 10 s). An emptyDir
in memory is looked at in the same way: a file system of its own with that size is not to be had without privileges.
"""

import sys
from typing import Any, Callable, Dict, Sequence

from . import plan
from .loop import Loop
from .shared import Shared
from .volumes import usage
from .worker import Emit, Worker

EVICTED = "Evicted"
GRACE_SECONDS = 1.0


async def watch_limits(shared: Shared, volumes: Sequence[plan.Volume], evict: Callable[[str], None]) -> None:
    """Measure emptyDirs that have a limit for as long as the pod lives; ``evict`` is called, with why, at most once."""
    loop, places = shared.loop, shared.places
    limited = [volume for volume in volumes if volume.size_limit and volume.kind in (plan.EMPTY_DIR, plan.MEMORY)]
    while limited:
        await loop.sleep(shared.timings.look)
        sizes = await _measure(loop, {volume.name: places[volume.name] for volume in limited})
        for volume in limited:
            if sizes.get(volume.name, 0) > volume.size_limit:
                words = 'Usage of EmptyDir volume "%s" exceeds the limit "%s". '
                evict(words % (volume.name, quantity(volume.size_limit)))
                return


async def _measure(loop: Loop, places: Dict[str, str]) -> Dict[str, int]:
    """Measure in a process of its own: a large tree takes a while, and probes do not wait."""

    def measure(emit: Emit) -> None:
        emit({name: usage(place) for name, place in places.items()})

    try:
        answer: Any = await Worker(loop, measure, lambda _message: None).result
    except OSError as error:
        sys.stderr.write("slurmlet: can't measure volumes now: %s\n" % error)
        return {}
    return dict(answer or {})


def quantity(size: int) -> str:
    """Return a number of bytes as Kubernetes would write it: ``10Mi``."""
    for power, unit in ((4, "Ti"), (3, "Gi"), (2, "Mi"), (1, "Ki")):
        if size and size % 1024**power == 0:
            return "%d%s" % (size // 1024**power, unit)
    return str(size)
