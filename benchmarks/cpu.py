"""CPU seconds by part, to say where a rate comes from: read from /proc, children that were waited for included."""

import os
import resource
from collections.abc import Mapping
from pathlib import Path

from testbed import processes
from testbed.paths import Layout

_TICKS = os.sysconf("SC_CLK_TCK")
SLURM = "slurmctld, slurmdbd, munged"
_PARTS = {
    "kube-apiserver, etcd": ("kube-apiserver", "etcd"),
    "scheduler, controllers": ("kube-scheduler", "kube-controller-manager"),
    SLURM: ("slurmctld", "slurmdbd", "munged", "mariadbd"),
}


def _table() -> dict[int, tuple[int, float]]:
    """Return every process's parent and CPU seconds."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
            found[int(entry.name)] = (int(fields[1]), sum(int(ticks) for ticks in fields[11:15]) / _TICKS)
    return found


def seconds(agent: int) -> dict[str, float]:
    """Return the CPU seconds used so far by the agent (process id ``agent``), what it started, and the testbed's parts."""
    table, layout = _table(), Layout.from_environment()
    used = {"agent": table[agent][1] if agent in table else 0.0, "host agent, sbatch": 0.0}
    sshd = processes.pid(layout, "sshd") or 0  # of a login node, where the host agent then runs
    family, added = {agent, sshd}, {agent, sshd}
    while added:
        added = {pid for pid, (parent, _) in table.items() if parent in added}
        family |= added
    used["host agent, sbatch"] = sum(table[pid][1] for pid in family - {agent} if pid in table)
    for part, names in _PARTS.items():
        pids = [processes.pid(layout, name) for name in names]
        used[part] = sum(table[pid][1] for pid in pids if pid in table)
    return used


def children() -> float:
    """Return the CPU seconds of all that this process started and waited for, and of what that waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def since(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return what was used between two readings."""
    return {part: after[part] - before.get(part, 0.0) for part in after}
