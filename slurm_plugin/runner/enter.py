"""``enter <job directory>``: the helper step of a pod. It stands between its standard input and output, where the far
side speaks frames (``session``), and the runner's door on this node.

One step per pod, for as long as it is used: a command more is a message, and no step more. Each frame that it writes is
followed by a newline, for srun holds back what does not end with one. It ends with its input, with the runner, or by
TERM, and leaves nothing behind.

srun carries bytes in messages of 1 KiB. So the far side may ask to be called back, by two operations more::

    {"id": n, "op": "caller"}                          the address that srun was called on, as Slurm names it
    {"id": n, "op": "call_back", "port", "secret"}     connect there, show the secret, have another session on that line

Standard input stays what keeps the helper alive.
"""

import json
import os
import signal
import socket
import sys
from typing import Any, Dict, List

from slurm_plugin.hostagent import protocol
from slurm_plugin.jobdir import JobDir

from .dialling import dial
from .line import Line
from .loop import Loop
from .session import EnterError, Session, knock

_LEAVE_SECONDS = 1.0
_CALL_SECONDS = 3.0
_CALLER = "SLURM_LAUNCH_NODE_IPADDR"  # srun(1): "IP address of the node from which the task launch was initiated"


def door_of(directory: JobDir) -> str:
    """Return where the door of this job's runner is. EnterError if it has none."""
    try:
        with open(directory.door, encoding="utf-8") as stream:
            found = json.load(stream)
        path, job_id = str(found["path"]), str(found["job_id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EnterError(
            "the pod's runner has no door: it is just starting, or of an older version (%s)" % error
        ) from error
    if job_id != os.environ.get("SLURM_JOB_ID", job_id):
        raise EnterError("the pod is run by job %s" % job_id)
    return path


class Helper:
    """The program. ``over`` is done when it is to end."""

    def __init__(self, loop: Loop, door: str, source: int, sink: int) -> None:
        self.over = loop.promise()
        self._loop = loop
        self._door = door
        self._calls: List[Session] = []
        operations = {"caller": self._caller, "call_back": self._call_back}
        self._session = Session(loop, door, source, sink, after_frame=b"\n", operations=operations)
        self._session.over.add_callback(self.over.resolve)

    async def run(self) -> int:
        """Serve until the input ends, the runner is gone or ``over`` is resolved."""
        stay = Line(self._loop, knock(self._door), lambda _header, _files: None)
        stay.send({"op": "stay"})
        self._session.begin(protocol.MAGIC)
        await self._loop.first(self.over, stay.over)
        if not self.over.done:  # the pod is over: its commands' ends may still be on their way
            for session in (self._session, *self._calls):
                await session.finish(_LEAVE_SECONDS)
        return 0

    async def _caller(self, _header: protocol.Header) -> str:
        address = os.environ.get(_CALLER, "")
        if not address:
            raise EnterError("Slurm does not say where srun was called: no %s" % _CALLER)
        return address

    async def _call_back(self, header: protocol.Header) -> Dict[str, Any]:
        """Open a session on a line to where srun was called."""
        address, port = await self._caller(header), header["port"]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            connection = await dial(self._loop, family, address, port, seconds=_CALL_SECONDS)
        except (OSError, OverflowError) as error:
            raise EnterError("%s port %s: %s" % (address, port, getattr(error, "strerror", None) or error)) from error
        line = connection.detach()
        session = Session(self._loop, self._door, line, os.dup(line))
        self._calls.append(session)
        session.begin(header["secret"].encode("ascii") + b"\n")

        def hung_up() -> None:
            self._calls.remove(session)
            session.close()

        session.over.add_callback(hung_up)
        return {}


def enter_pod(path: str) -> int:
    """Be the helper step of the pod of a job directory; return the exit code."""
    source, sink = os.dup(0), os.dup(1)
    os.dup2(2, 1)  # what is printed by accident goes to standard error, not into a frame
    loop = Loop()
    try:
        helper = Helper(loop, door_of(JobDir(path)), source, sink)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            loop.on_signal(number, helper.over.resolve)
        return int(loop.run(helper.run()))
    except EnterError as error:
        sys.stderr.write("slurmlet: %s\n" % error)
        return 1
    except protocol.ProtocolError as error:
        sys.stderr.write("slurmlet: %s\n" % error)
        return 65
