"""The pod's door: a socket on the node through which the same user comes into the running containers.

It lies in the run's own scratch directory, closed to everybody else; where that is stands in a file of the job
directory. What happens behind it (``visits``) is loaded when somebody comes.
"""

import contextlib
import errno
import json
import os
import resource
import socket
import sys
from typing import TYPE_CHECKING, Callable, Iterator, List, Optional, Sequence

from .container import ContainerLife
from .loop import READ, Task
from .shared import Shared

if TYPE_CHECKING:
    from .visits import Visit

_NAME = "door"
_LEAVE_SECONDS = 1.0
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_AGAIN_SECONDS = 1.0
# So many are kept for the pod itself, which is not to fail of its visitors, and so many a visitor may need at once.
_OWN_DESCRIPTORS = 128
_DESCRIPTORS = 8
_FEWEST = 2  # one who stays to hear of the pod's end, and one through whom something is asked


@contextlib.contextmanager
def short(path: str) -> Iterator[str]:
    """Give a socket's path a short name for a while: it may have 107 bytes at most. OSError: its directory can't be opened."""
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield "/proc/self/fd/%d/%s" % (directory, os.path.basename(path))
    finally:
        os.close(directory)


class Door:
    """The listening side. ``lives`` are the pod's containers, now and later; ``admit`` starts those that were added."""

    def __init__(self, shared: Shared, lives: Sequence[ContainerLife], admit: Callable[[], None]) -> None:
        self._admit = admit
        self._shared = shared
        self._lives = lives
        self._serving: Optional[Task] = None
        self._visits: List[Visit] = []
        self._most = max(_FEWEST, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OWN_DESCRIPTORS) // _DESCRIPTORS)

    def open(self) -> None:
        """Listen, and say where. A pod whose door can't be made runs all the same; its job's output tells why."""
        path = os.path.join(self._shared.scratch.path, _NAME)
        listener = socket.socket(socket.AF_UNIX)
        try:
            with short(path) as name:
                listener.bind(name)
            os.chmod(path, 0o600)
            listener.listen(64)
            self._publish(path)
        except OSError as error:
            sys.stderr.write("slurmlet: nobody can enter this pod: %s\n" % error)
            listener.close()
            return
        listener.setblocking(False)
        self._serving = self._shared.loop.spawn(self._serve(listener), "door")

    def _publish(self, path: str) -> None:
        run = self._shared.book.facts.run
        target = self._shared.directory.door
        temporary = "%s.%d.tmp" % (target, os.getpid())
        with open(temporary, "w", encoding="utf-8") as stream:
            json.dump({"job_id": run.job_id, "restart": run.restart, "path": path}, stream)
        os.rename(temporary, target)

    async def _serve(self, listener: socket.socket) -> None:
        try:
            while True:
                await self._shared.loop.ready(listener.fileno(), READ)
                if not self._let_in(listener):  # who waits is still there: to ask at once again would take a whole core
                    await self._shared.loop.sleep(_AGAIN_SECONDS)
        finally:
            listener.close()

    def _let_in(self, listener: socket.socket) -> bool:
        """Let in who waits; False if there is no room."""
        self._visits = [visit for visit in self._visits if not visit.ended.done]
        if len(self._visits) >= self._most:
            return False
        try:
            from .visits import Visit

            connection, _address = listener.accept()
        except ImportError:  # no descriptor for its file, or what is in it
            return False
        except OSError as error:
            return error.errno not in _NO_ROOM  # else it has gone again
        self._visits.append(Visit(self._shared, self._lives, connection, self._admit))
        return True

    async def close(self) -> None:
        """Let nobody in any more; give those inside a moment to hear how what they are with has ended."""
        if self._serving is None:
            return
        self._serving.cancel()
        await self._shared.loop.first(self._serving)
        deadline = self._shared.loop.now() + _LEAVE_SECONDS
        for visit in self._visits:
            visit.leave()
            await self._shared.loop.first(visit.ended, timeout=max(0.0, deadline - self._shared.loop.now()))
