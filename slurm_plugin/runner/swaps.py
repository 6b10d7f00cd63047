"""Whether a container's mounts are what was checked: between the check and the mount, a link may come into a path's place.

Kubernetes' kubelet mounts the very directory that it opened (``pkg/volume/util/subpath``), for which a user has no right;
so it is looked at after the runtime has mounted it, while the container waits at its gate.
"""

import os
import signal
import stat
import sys
from typing import Any, Sequence

from .gate import Gate
from .join import JoinError, open_by_entering
from .loop import Loop
from .process import send
from .proctree import started_at
from .runtimes import Bind, Setting
from .streams import close_all

_LOOK_SECONDS = 0.5
_MOST_LINKS = 40  # path_resolution(7)


class Check:
    """What a gate asks of a container with such mounts. ``refusal``: why it may not go on; empty if it may, or is not known."""

    def __init__(self, loop: Loop, runtime: Any, binds: Sequence[Bind]) -> None:
        self._loop = loop
        self._runtime = runtime
        self._left = [bind for bind in binds if bind.identity]
        self.refusal = ""

    def look(self, root: int) -> bool:
        """Compare, once that can be done. False: not yet. ``root``: the process below which the container's are, or 0."""
        if not self._left:
            return True
        for pid in self._runtime.inner_processes(root) if root else ():
            try:
                for bind in self._left:
                    self._compare(pid, bind)
            except (OSError, JoinError):
                continue  # it has ended, or it does not let itself be looked at
            self._left = []
            return True
        return False

    def passes(self) -> bool:
        """Return whether the container may go on: all was looked at, and nothing was swapped."""
        if self._left and not self.refusal:
            self.refusal = "%s: it can't be told what was mounted" % self._left[0].target
        return not self.refusal

    def _compare(self, pid: int, bind: Bind) -> None:
        try:
            found = _stat_below("/proc/%d/root" % pid, bind.target)
        except PermissionError:  # it is the container's own user namespace that has mounted its root
            descriptor = open_by_entering(self._loop, pid, bind.target, os.O_PATH)
            try:
                found = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        if (found.st_dev, found.st_ino) != bind.identity:
            self.refusal = "%s was swapped for something else before it was mounted" % bind.source


def _stat_below(root: str, path: str) -> os.stat_result:
    """Return what is at a path for one whose root directory is ``root``: no link leads out of it. OSError."""
    opened = [os.open(root, os.O_PATH | os.O_DIRECTORY)]
    try:
        at, names, links = [opened[0]], path.split("/"), 0
        while names:
            name = names.pop(0)
            if name == "..":
                at = at[:-1] or [opened[0]]
            if name in ("", ".", ".."):
                continue
            opened.append(os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=at[-1]))
            if not stat.S_ISLNK(os.fstat(opened[-1]).st_mode):
                at.append(opened[-1])
                continue
            links += 1
            if links > _MOST_LINKS:
                raise OSError("too many links in %s" % path)
            target = os.readlink(name, dir_fd=at[-1])
            names = target.split("/") + names
            at = [opened[0]] if target.startswith("/") else at
        return os.fstat(at[-1])
    finally:
        close_all(opened)


def guard(runtime: Any, setting: Setting) -> None:
    """Be at the gate of a rank that no runner waits for: in a process of its own, for this one becomes the container."""
    rank = os.getpid()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        if os.fork() == 0:
            loop = Loop()
            loop.run(_stand(loop, runtime, setting, rank))
    finally:
        os._exit(0)


async def _stand(loop: Loop, runtime: Any, setting: Setting, rank: int) -> None:
    check, since = Check(loop, runtime, setting.binds), started_at(rank)
    gate = Gate(loop, runtime.gate_directory(setting), lambda: check.look(rank), check.passes)
    while not gate.passed.done and started_at(rank) == since:
        await loop.first(gate.passed, timeout=_LOOK_SECONDS)
    gate.close()
    if check.refusal and started_at(rank) == since:
        sys.stderr.write("slurmlet: %s\n" % check.refusal)
        send(runtime.init_process(rank), signal.SIGKILL)
