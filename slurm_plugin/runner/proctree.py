"""Who is whose child, read from /proc. Every answer may be old by the time it is used."""

import os
from typing import Dict, List, NamedTuple, Sequence, Set

_THREADS, _STARTED = 17, 19  # proc(5): fields 20 and 22; what follows the name begins with field 3


class Process(NamedTuple):
    """One line of /proc/PID/stat, the part that matters. ``session`` is the session leader's PID."""

    pid: int
    parent: int
    session: int
    zombie: bool


def _stat(pid: int) -> List[bytes]:
    """Return what follows the name in a process's line; nothing if it has ended, or does while we read."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as stream:
            # The command's name is in parentheses and may hold anything, parentheses too.
            fields = stream.read().rpartition(b")")[2].split()
    except OSError:
        return []
    return fields if len(fields) > _STARTED else []


def processes() -> List[Process]:
    """Return every process that /proc shows."""
    found = []
    for name in os.listdir("/proc"):
        fields = _stat(int(name)) if name.isdigit() else []
        if fields:
            found.append(Process(int(name), int(fields[1]), int(fields[3]), _has_ended(fields)))
    return found


def _has_ended(fields: List[bytes]) -> bool:
    """Return whether only its exit status is left. A process whose first thread has ended looks so, but for its other threads."""
    return fields[0] in (b"Z", b"X") and int(fields[_THREADS]) <= 1


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
    fields = _stat(pid)
    return bool(fields) and not _has_ended(fields)


def started_at(pid: int) -> int:
    """Return when a process was started, in clock ticks since the node's start: with its PID, who it is. 0: it has ended."""
    fields = _stat(pid)
    return int(fields[_STARTED]) if fields else 0


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
