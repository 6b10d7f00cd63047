"""Ranks that do not find each other: each is then a world of its own, and computes the whole alone, without an error.

So it goes with MPICH under ``--mpi=pmix``, and with any MPI library under ``--mpi=none``. It can be seen from outside:
rank 0 has loaded an MPI library, but nothing by which that could ask the process manager that srun offers. Only what is
loaded as a library is seen; a program that is linked statically is not judged.
"""

import os
import re
from typing import FrozenSet, Set

from . import proctree
from .running import RunningContainer
from .shared import Shared

REASON = "RanksAlone"
_LOOKS_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_OPEN_MPI = re.compile(r"libmpi\.so\.[4-9]0|libopen-(pal|rte)\.so")
_MPICH = re.compile(r"libmpich\.so|libmpi\.so\.12|libmpi_(cray|gnu|intel)[\w]*\.so")
_PMIX = re.compile(r"pmix")
_PMI = re.compile(r"libpmi2?\.so|mca_pmix_s[12]\.so")
_INSTEAD = {"Open MPI": "pmix", "MPICH": "pmi2"}


def loaded(pid: int) -> FrozenSet[str]:
    """Return the names of the files that a process, and those below it, have mapped; what has ended has none."""
    names: Set[str] = set()
    for each in [pid] + [process.pid for process in proctree.descendants(pid)]:
        try:
            with open("/proc/%d/maps" % each, encoding="utf-8", errors="replace") as stream:
                names.update(os.path.basename(line.rstrip("\n")) for line in stream if ".so" in line)
        except OSError:
            continue
    return frozenset(names)


def library(names: FrozenSet[str]) -> str:
    """Return which MPI library is among them: ``Open MPI``, ``MPICH`` (and what is made of it) or ``""``."""
    if any(_OPEN_MPI.search(name) for name in names):
        return "Open MPI"
    return "MPICH" if any(_MPICH.search(name) for name in names) else ""


def alone(names: FrozenSet[str], pmi: str, ntasks: int) -> str:
    """Return what is wrong, in words for the user; empty if nothing can be said against these libraries."""
    found = library(names)
    if not found or ntasks < 2:
        return ""
    if pmi == "pmix":
        fits = any(_PMIX.search(name) for name in names)
    elif pmi == "pmi2":
        fits = found == "MPICH" or any(_PMI.search(name) for name in names)  # MPICH has its own client of PMI
    else:
        fits = False
    if fits:
        return ""
    return (
        "rank 0 of %d uses %s, which does not speak to srun --mpi=%s: every rank may be a world of its own (the size of "
        "MPI_COMM_WORLD is 1); try slurmlet.io/mpi: %s" % (ntasks, found, pmi, _INSTEAD[found])
    )


async def watch_worlds(shared: Shared, running: RunningContainer) -> None:
    """Look at rank 0 while its program loads its libraries, and tell once if it can't find the others."""
    ranks, step = running.setting.container.ranks, running.step
    if ranks is None or step is None:
        return
    for seconds in _LOOKS_SECONDS:
        await shared.loop.first(running.gone, timeout=seconds)
        pid = 0 if running.gone.done else running.main_pid()
        if not pid or not step.pmi():
            return
        names = loaded(pid)
        if library(names):
            # What fits may be loaded after the library itself: only the second look counts.
            await shared.loop.first(running.gone, timeout=seconds)
            words = alone(names | loaded(pid), step.pmi(), ranks.ntasks)
            if words:
                shared.book.event(REASON, words, running.setting.container.name, warning=True)
            return
