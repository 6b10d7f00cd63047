"""Who is whose child, read from /proc. Every answer may be old by the time it is used."""

import os
from typing import Dict, List, NamedTuple, Sequence, Set


class Process(NamedTuple):
    """One line of /proc/PID/stat, the part that matters. ``session`` is the session leader's PID."""

    pid: int
    parent: int
    session: int
    zombie: bool


def processes() -> List[Process]:
    """Return every process that /proc shows."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % name, "rb") as stream:
                # The command's name is in parentheses and may hold anything, parentheses too.
                fields = stream.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it has ended
        if len(fields) < 4:
            continue  # it was ending while we read
        found.append(Process(int(name), int(fields[1]), int(fields[3]), fields[0] == b"Z"))
    return found


def descendants(root: int) -> List[Process]:
    """Return all processes under ``root`` (without it), parents first."""
    children: Dict[int, List[Process]] = {}
    for process in processes():
        children.setdefault(process.parent, []).append(process)
    found: List[Process] = []
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(0), []):
            found.append(child)
            waiting.append(child.pid)
    return found


def families(roots: Sequence[int]) -> Dict[int, Set[int]]:
    """Return, for each root, it and all below it and in its session: from one look at /proc for all of them."""
    found: Dict[int, Set[int]] = {root: {root} for root in roots}
    if not found:
        return found
    children: Dict[int, List[int]] = {}
    for process in processes():
        children.setdefault(process.parent, []).append(process.pid)
        if process.session in found:
            found[process.session].add(process.pid)
    for members in found.values():
        waiting = list(members)
        while waiting:
            below = [pid for pid in children.get(waiting.pop(), []) if pid not in members]
            members.update(below)
            waiting += below
    return found


def session(leader: int) -> Set[int]:
    """Return the living members of a session."""
    return {process.pid for process in processes() if process.session == leader and not process.zombie}


def alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not waited for does not."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as stream:
            return stream.read().rpartition(b")")[2].split()[:1] not in ([b"Z"], [b"X"], [])
    except OSError:
        return False


def started_at(pid: int) -> int:
    """Return when a process was started, in clock ticks since the node's start: with its PID, who it is. 0: it has ended."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as stream:
            fields = stream.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return int(fields[19]) if len(fields) > 19 else 0  # proc(5), field 22


def namespace_depth(pid: int) -> int:
    """Return in how many PID namespaces a process is (1: only the outermost visible one); 0 if it has ended."""
    try:
        with open("/proc/%d/status" % pid) as stream:
            for line in stream:
                if line.startswith("NSpid:"):
                    return len(line.split()) - 1
    except OSError:
        return 0
    return 1


class Remembered:
    """A process that took a look at all of /proc to find, for as long as it lives and has not lost its number."""

    def __init__(self) -> None:
        self._pid = 0
        self._since = 0

    def keep(self, pid: int) -> None:
        """Remember this one."""
        self._pid, self._since = pid, started_at(pid)

    def living(self) -> int:
        """Return its PID; 0 if there is none any more."""
        return self._pid if self._since and started_at(self._pid) == self._since else 0
