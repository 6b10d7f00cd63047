"""One child process: started with nothing of the runner's but what it is given, signalled, and reaped by the loop."""

import fcntl
import os
import signal
import struct
import sys
import termios
from typing import Dict, NamedTuple, Tuple

from .loop import Loop, Promise

_OOM_SCORE_ADJ = b"500"  # the kernel shall kill a container before the runner
_PR_SET_CHILD_SUBREAPER = 36


class Launch(NamedTuple):
    """What to execute. ``argv[0]`` is a path; ``env`` is the whole environment; ``umask`` is the container's."""

    argv: Tuple[str, ...]
    env: Dict[str, str]
    cwd: str


class Stdio(NamedTuple):
    """Descriptors for a child's 0, 1 and 2. ``terminal``: they are a terminal, to become its controlling one."""

    stdin: int
    stdout: int
    stderr: int
    terminal: bool


class StartError(Exception):
    """The child could not be executed; nothing of it runs."""


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none escapes. Linux 3.4 or later."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.stderr.write("slurmlet: can't become a child subreaper: %s\n" % os.strerror(ctypes.get_errno()))


def fork(*pipe: int) -> int:
    """Fork. OSError: there is no room for another process; the descriptors of what was to be its pipe are closed then."""
    try:
        return os.fork()
    except OSError:
        for descriptor in pipe:
            os.close(descriptor)
        raise


def start(loop: Loop, launch: Launch, stdio: Stdio) -> Tuple[int, Promise]:
    """Start a child in a session of its own. Returns its PID and the promise of its wait status.

    Returns once the program is executing. Raises StartError with the system's words, OSError if there can be no child.
    """
    read_end, write_end = os.pipe()
    pid = fork(read_end, write_end)
    if pid == 0:
        _become(loop, launch, stdio, write_end)
    os.close(write_end)
    with open(read_end, "rb") as failure:
        why = failure.read()
    ended = loop.child(pid)
    if why:
        raise StartError(why.decode("utf-8", "replace"))
    return pid, ended


def _become(loop: Loop, launch: Launch, stdio: Stdio, failure: int) -> None:
    """Turn the forked child into the program. Never returns."""
    try:
        loop.leave_in_child()
        os.setsid()
        if stdio.terminal:
            fcntl.ioctl(stdio.stdin, termios.TIOCSCTTY, 0)
        for target, source in enumerate((stdio.stdin, stdio.stdout, stdio.stderr)):
            os.dup2(source, target)
        like_a_new_process()
        os.chdir(launch.cwd or "/")
        os.execve(launch.argv[0], list(launch.argv), launch.env)  # noqa: S606
    except BaseException as error:
        text = "%s: %s" % (launch.argv[0], error.strerror) if isinstance(error, OSError) else str(error)
        os.write(failure, text.encode("utf-8", "replace"))
    finally:
        os._exit(127)


def take_signals() -> None:
    """In a forked child: let every signal do what it does by default. What is ignored here would stay so in a container."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP):  # the first two Python ignores
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def keep_only(*descriptors: int) -> None:
    """In a forked child that goes on: close all others. What it held open would not end when the runner closes it."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in descriptors:
            try:
                os.close(int(name))
            except OSError:
                continue  # what the directory was listed with


def like_a_new_process() -> None:
    """Undo what this program has of its own and a container must not inherit."""
    take_signals()
    os.umask(0o022)
    _raise_oom_score()


def _raise_oom_score() -> None:
    try:
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    except OSError:
        return  # a /proc that hides it: the kernel's own choice stands
    try:
        os.write(descriptor, _OOM_SCORE_ADJ)
    except OSError:
        return  # already higher, and lowering is not allowed
    finally:
        os.close(descriptor)


def send(pid: int, number: int) -> None:
    """Signal a process; one that has ended is no error."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        sys.stderr.write("slurmlet: can't send signal %d to process %d: %s\n" % (number, pid, error))


def open_terminal() -> Tuple[int, int]:
    """Return a new terminal: our side and the child's, 80 columns by 24 lines."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    return ours, theirs
