"""``watch <root>``: tells the provider, line by line in JSON, what the runners of all pods have written.

It runs on the login node and reads: every file by a fresh open (a stat is not to be trusted on NFS), and only what may
still change. Lines: first one for every pod, then ``{"synced": true}``, then one whenever something changed; a
``{"ping": n}`` at least every five seconds. The end of its standard input ends it: whoever asked has gone.
"""

import errno
import json
import os
import select
import stat
import sys
import time
from typing import Any, Callable, Dict, List, Optional, TextIO, Tuple

from slurm_plugin.jobdir import NO_JOB_ID, JobDir, Root, check_uid

from .bytecode import keep
from .state import state_from_json
from .usage import usage_from_json

_INTERVAL_SECONDS = 0.25
_PING_SECONDS = 5.0
_USAGE_SECONDS = 5.0  # between two looks at a pod's usage, which its runner writes every ten seconds at most
_MOST_OF_TIME = 0.1  # scanning may take a tenth of the time
_LARGEST_BYTES = 1 << 20  # what is larger no runner has written
_LONGEST_JOB_ID = 10  # digits: Slurm's are 32 bits wide


def read_fresh(path: str) -> Optional[bytes]:
    """Return a file's content now; None if there is none. A handle gone stale is opened again.

    The pod's own job can write there: a link, a pipe or a file without end is a ValueError or an OSError, never a wait.
    """
    for attempt in (1, 2, 3):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as stream:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise ValueError("%s is not a regular file" % path)
                data = stream.read(_LARGEST_BYTES + 1)
                if len(data) > _LARGEST_BYTES:
                    raise ValueError("%s is larger than %d bytes" % (path, _LARGEST_BYTES))
                return data
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ESTALE or attempt == 3:
                raise
    return None


class Watched:
    """One pod's directory, and what was last read of it."""

    def __init__(self, uid: str, directory: JobDir) -> None:
        self.uid = uid
        self._directory = directory
        self._plan = ("", "")
        self._staged_at: Optional[int] = None
        self._job_id: Optional[str] = None
        self._submitted_at: Optional[int] = None
        self._claim: Optional[Dict[str, Any]] = None
        self._state: Optional[Dict[str, Any]] = None
        self._raw: Optional[bytes] = None
        self._requeues: Optional[bool] = None
        self._error = ""
        self._reported = False
        self._usage: Optional[bytes] = None
        self._usage_at = 0.0

    @property
    def settled(self) -> bool:
        """Whether nothing in it will change: the runner's state is final, the job's id is known, and it has one run."""
        final = self._state is not None and bool(self._state.get("final")) and self._job_id is not None
        return final and not self._may_run_again()

    def _may_run_again(self) -> bool:
        """Whether Slurm may requeue the job, which its script says: the next run writes its own states."""
        if self._requeues is None:
            self._requeues = b"\n#SBATCH --requeue\n" in (read_fresh(self._directory.script) or b"")
        return self._requeues

    def look(self) -> List[Dict[str, Any]]:
        """Read what may have changed; return the lines to print.

        What can't be read is told once and taken as absent: the rest, above all the job's id, counts all the same.
        """
        before, words = self._seen(), ""
        for read in (self._read_plan, self._read_job_id, self._read_state, self._read_claim):
            try:
                read()
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                words = "can't read what the runner wrote: %s" % error
        lines = []  # type: List[Dict[str, Any]]
        if words and words != self._error:
            lines.append({"uid": self.uid, "error": words})
        self._error = words
        if before != self._seen() or not self._reported:
            self._reported = True
            lines.append(self._line())
        return lines

    def look_at_usage(self, now: float) -> List[Dict[str, Any]]:
        """Read what a pod that runs has used, now and then; return the line to print if it is news."""
        if self._state is None or now < self._usage_at:
            return []
        self._usage_at = now + _USAGE_SECONDS
        try:
            raw = read_fresh(self._directory.usage)
            if raw is None or raw == self._usage:
                return []
            self._usage = raw
            usage = dict(json.loads(raw.decode("utf-8")))
            usage_from_json(usage)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return [{"uid": self.uid, "error": "can't read its usage: %s" % error}]
        return [{"uid": self.uid, "usage": usage}]

    def _line(self) -> Dict[str, Any]:
        namespace, name = self._plan
        return {
            "uid": self.uid,
            "namespace": namespace,
            "name": name,
            "staged_at": self._staged_at,
            "job_id": self._job_id,
            "submitted_at": self._submitted_at,
            "claim": self._claim,
            "state": self._state,
        }

    def _seen(self) -> Tuple[Any, ...]:
        return (self._plan, self._job_id, self._claim, self._raw)

    def _read_plan(self) -> None:
        if self._plan == ("", ""):
            data = read_fresh(self._directory.plan)
            if data is not None:
                plan = json.loads(data.decode("utf-8"))
                self._plan = (str(plan["namespace"]), str(plan["name"]))
                # The script is written once, before any job exists.
                self._staged_at = _written_at(self._directory.script)

    def _read_job_id(self) -> None:
        if self._job_id is None:
            data = read_fresh(self._directory.job_id)
            text = data.decode("ascii").strip() if data else ""
            self._job_id = _job_id(text) if text else None
            self._submitted_at = _written_at(self._directory.job_id) if text else None

    def _read_state(self) -> None:
        raw = read_fresh(self._directory.state)
        if raw != self._raw:
            state = None if raw is None else dict(json.loads(raw.decode("utf-8")))
            if state is not None:
                state_from_json(state)  # whoever reads our lines may rely on their form
            self._state, self._raw = state, raw

    def _read_claim(self) -> None:
        if not self._claim_is_current():
            data = read_fresh(self._directory.claim)
            claim = None if data is None else dict(json.loads(data.decode("utf-8")))
            if claim is not None:
                claim = {"job_id": _job_id(str(claim["job_id"])), "restart": int(claim["restart"])}
            self._claim = claim

    def _claim_is_current(self) -> bool:
        """A claim passes to another run only when that run then writes its state."""
        claim, state = self._claim, self._state
        return claim is not None and state is not None and claim.get("restart") == state.get("restart")


class Voice:
    """What the watcher prints. ``clock``: any that only goes forward, in seconds."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._pings = 0
        self._last_ping = clock()

    def say(self, line: Dict[str, Any]) -> None:
        """Print a line, at the latest with the next ``flush``."""
        self._stream.write(json.dumps(line, separators=(",", ":")) + "\n")

    def alive(self, wait: float = 0.0) -> None:
        """Say that the watcher lives, if it is time or will be in ``wait`` seconds: silence is taken for a dead line."""
        now = self._clock()
        if now - self._last_ping + wait > _PING_SECONDS:
            self._pings, self._last_ping = self._pings + 1, now
            self.say({"ping": self._pings})
            self.flush()

    def flush(self) -> None:
        """Have everything on its way."""
        self._stream.flush()


class Watch:
    """All pods under one root. ``alive`` is called between two pods: a look at thousands may take minutes."""

    def __init__(self, root: Root, write: Callable[[Dict[str, Any]], None], alive: Callable[[], None]) -> None:
        self._root = root
        self._write = write
        self._alive = alive
        self._pods: Dict[str, Watched] = {}

    def scan(self) -> None:
        """Look at everything once, and write what changed."""
        try:
            found = {name for name in os.listdir(self._root.pods) if _is_uid(name)}
        except FileNotFoundError:
            found = set()
        for uid in sorted(set(self._pods) - found):
            del self._pods[uid]
            self._write({"uid": uid, "gone": True})
        for uid in sorted(found - set(self._pods)):
            self._pods[uid] = Watched(uid, self._root.job_dir(uid))
        for pod in list(self._pods.values()):
            for line in () if pod.settled else pod.look():
                self._write(line)
            for line in () if pod.settled else pod.look_at_usage(time.monotonic()):
                self._write(line)
            self._alive()


def _written_at(path: str) -> Optional[int]:
    """Return when a file was written, in epoch seconds; None if that can't be told."""
    try:
        return int(os.lstat(path).st_mtime)
    except OSError:
        return None


def _job_id(text: str) -> str:
    text.encode("ascii")
    if not text.isdigit() or len(text) > _LONGEST_JOB_ID or int(text) >= NO_JOB_ID:
        raise ValueError("not the id of a job: %r" % (text[:80],))
    return text


def _is_uid(name: str) -> bool:
    try:
        check_uid(name)
    except ValueError:
        return False
    return True


def _arguments(arguments: List[str]) -> Tuple[str, float]:
    """Return the root and the interval. ValueError for anything else."""
    if len(arguments) == 3 and arguments[1] == "--interval":
        return arguments[0], float(arguments[2])
    if len(arguments) == 1:
        return arguments[0], _INTERVAL_SECONDS
    raise ValueError("watch takes ROOT [--interval SECONDS], not %r" % (arguments,))


def _input_has_ended(seconds: float) -> bool:
    """Wait so long; return whether standard input has ended meanwhile."""
    deadline = time.monotonic() + seconds
    while True:
        left = max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select([0], [], [], left)
        if readable and not os.read(0, 4096):
            return True
        if left <= 0:
            return False


def watch(arguments: List[str]) -> int:
    """Watch until standard input ends; return the exit code."""
    root, interval = _arguments(arguments)

    voice = Voice(sys.stdout)
    watched = Watch(Root(root), voice.say, voice.alive)
    synced = False
    try:
        while True:
            begun = time.monotonic()
            watched.scan()
            if not synced:
                synced = True
                voice.say({"synced": True})
                voice.flush()
                keep()
            wait = max(interval, (time.monotonic() - begun) / _MOST_OF_TIME)
            voice.alive(wait)
            voice.flush()
            if _input_has_ended(min(wait, _PING_SECONDS)):
                return 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # lest Python complains when it flushes at its end
        return 0
