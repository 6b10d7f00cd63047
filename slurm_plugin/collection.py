"""Collecting what an agent that died left half made in its root: directories and files under temporary names.

Whatever has a pod's name in the root is known (``watching``), reported, and removed by ``Provider.forget`` once nobody
wants the pod: at once by the agent that finds no such Pod, after an age where nobody can be asked (an interLink plugin).
Temporary names (``hostagent.walking.temporary_name``) are nobody's: renamed or removed in the call that made them, unless
that call's process was killed. So age alone decides, and no job can be using one.
"""

import logging
import math

from .errors import HostError
from .hosts.base import Host

log = logging.getLogger(__name__)

_TEMPORARY = ".slurmlet-*"
_DEPTH = 2  # the root's own files, those of its rooms, and the job directories in the making
_EVERY_SECONDS = 3600.0
_TIMEOUT = 60.0


class Collection:
    """Looks through one root now and then, as one Slurm user. ``hours``: younger ones are let be."""

    def __init__(self, host: Host, hours: float) -> None:
        self._host = host
        self._minutes = math.ceil(hours * 60)
        self._next = float("-inf")

    async def collect(self, root: str, now: float) -> None:
        """Remove what is old enough, at most once an hour (``now``: a monotonic clock). What can't be removed is logged."""
        if now < self._next:
            return
        self._next = now + min(_EVERY_SECONDS, self._minutes * 60)
        try:
            for path, is_directory in await self._found(root):
                log.warning("removing %s, which was left half made", path)
                await self._remove(path, is_directory=is_directory)
        except (HostError, TimeoutError) as error:
            log.warning("looking for leftovers in %s: %s", root, error)

    async def _found(self, root: str) -> list[tuple[str, bool]]:
        argv = ("find", root, "-maxdepth", str(_DEPTH), "-name", _TEMPORARY, "-mmin", f"+{self._minutes}")
        done = await self._host.run((*argv, "-prune", "-printf", r"%y%p\0"), timeout=_TIMEOUT)
        if done.exit_code != 0:
            log.warning("looking for leftovers in %s: %s", root, done.stderr.decode(errors="replace").strip()[:500])
        entries = [entry.decode(errors="surrogateescape") for entry in done.stdout.split(b"\0") if entry]
        return [(entry[1:], entry[0] == "d") for entry in entries if entry[0] in "dfl"]

    async def _remove(self, path: str, *, is_directory: bool) -> None:
        if is_directory:
            await self._host.remove_tree(path)
        else:
            await self._host.run(("rm", "-f", "--", path), timeout=_TIMEOUT)
