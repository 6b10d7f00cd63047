"""Measures what the pod's containers use, from /proc, and writes the usage file when that says anything new.

A container is what runs below its first process, or in its session. Its CPU is what those processes have used and what
they were told of children that ended before (``cutime``); of a process that ends unwaited-for the last figure stays, so
that the sum never falls. Its working set is the private memory of each process, and the largest shared part once: what
is mapped by several counts once, without asking the kernel for every page (``smaps``), which would cost.
"""

import json
import os
import sys
import time
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

from . import proctree
from .book import Book
from .container import ContainerLife
from .loop import Loop
from .state import Running
from .usage import ContainerUsed, ProbeCount, Usage, usage_to_json

INTERVAL_SECONDS = 10.0
_FIRST_SECONDS = 2.0
_SHARE_OF_TIME = 0.001  # of one core, that measuring may take on a node with very many processes
_LONGEST_SECONDS = 60.0  # between two writes, however little has changed
_NOTABLE_CORES = 0.02
_NOTABLE_MEMORY = 0.05
_TICK_NANOSECONDS = 1000000000 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

ProbeCounts = Dict[Tuple[str, str, str], int]


class _Counter:
    """The CPU of one run of a container: what is visible now, and what has vanished unaccounted."""

    def __init__(self) -> None:
        self._last = 0
        self._lost = 0

    def total(self, ticks: int) -> int:
        """Return the sum in nanoseconds, given what its living processes account for; at least a tick: it has started."""
        self._lost += max(0, self._last - ticks)
        self._last = ticks
        return max(1, ticks + self._lost) * _TICK_NANOSECONDS


class Meter:
    """One pod's. ``lives`` are its containers, ``probes`` the counts so far; both are looked at each time."""

    def __init__(self, loop: Loop, path: str, book: Book, lives: Sequence[ContainerLife], probes: ProbeCounts) -> None:
        self._loop = loop
        self._path = path
        self._book = book
        self._lives = lives
        self._probes = probes
        self._counters: Dict[Tuple[str, float], _Counter] = {}
        self._written: Optional[Usage] = None

    async def run(self) -> None:
        """Measure now and then, until the loop ends."""
        wait = _FIRST_SECONDS
        while True:
            await self._loop.sleep(wait)
            begun = time.process_time()
            try:
                usage = self.measure()
                if _notable(self._written, usage):
                    self._write(usage)
            except OSError as error:  # a full disk, no descriptors left: nothing that the pod is to fail of
                sys.stderr.write("slurmlet: no usage for now: %s\n" % error)
            wait = max(INTERVAL_SECONDS, (time.process_time() - begun) / _SHARE_OF_TIME)

    def measure(self) -> Usage:
        """Return what the running containers have used until now."""
        run, roots = self._book.facts.run, self._roots()
        members = proctree.families([pid for _, _, pid in roots])
        self._counters = {(name, at): self._counters.get((name, at)) or _Counter() for name, at, _ in roots}
        containers = []
        for name, started_at, pid in roots:
            ticks, memory = _sum(members[pid])
            cpu = self._counters[name, started_at].total(ticks)
            if memory:  # else it has just ended
                containers.append(ContainerUsed(name, started_at, cpu, memory))
        probes = tuple(ProbeCount(*key, total=total) for key, total in sorted(self._probes.items()))
        return Usage(run.job_id, run.restart, time.time(), tuple(containers), probes)

    def _roots(self) -> List[Tuple[str, float, int]]:
        """Return name, start and first process of each container that runs."""
        found = []
        for life in self._lives:
            state = self._book.get(life.name).state
            if life.running is not None and life.running.root and isinstance(state, Running):
                found.append((life.name, state.started_at, life.running.root))
        return found

    def _write(self, usage: Usage) -> None:
        temporary = self._path + ".tmp"
        with open(temporary, "w", encoding="ascii") as stream:
            json.dump(usage_to_json(usage), stream, separators=(",", ":"))
        os.rename(temporary, self._path)
        self._written = usage


def _notable(before: Optional[Usage], now: Usage) -> bool:
    """Return whether somebody who reads ``before`` would be misled, or it is very old."""
    if before is None:
        return bool(now.containers)
    seconds = now.time - before.time
    old = {(container.name, container.started_at): container for container in before.containers}
    if not 0 <= seconds < _LONGEST_SECONDS or set(old) != {(c.name, c.started_at) for c in now.containers}:
        return bool(now.containers or before.containers)
    for container in now.containers:
        last = old[container.name, container.started_at]
        cores = (container.cpu_nanoseconds - last.cpu_nanoseconds) / 1e9 / (seconds or 1.0)
        memory = abs(container.working_set_bytes - last.working_set_bytes)
        if cores > _NOTABLE_CORES or memory > _NOTABLE_MEMORY * last.working_set_bytes:
            return True
    return False


def _sum(pids: Iterable[int]) -> Tuple[int, int]:
    """Return the CPU in clock ticks and the working set in bytes of some processes; what has ended counts nothing."""
    ticks = private = shared = 0
    for pid in pids:
        try:
            with open("/proc/%d/stat" % pid, "rb") as stream:
                stat = stream.read().rpartition(b")")[2].split()
            with open("/proc/%d/statm" % pid, "rb") as stream:
                statm = stream.read().split()
            ticks += sum(int(field) for field in stat[11:15])  # utime, stime, cutime, cstime
            private += max(0, int(statm[1]) - int(statm[2]))
            shared = max(shared, int(statm[2]))
        except (OSError, IndexError, ValueError):
            continue
    return ticks, (private + shared) * _PAGE_BYTES
