"""Runs a command inside a running container: its namespaces, root, environment, working directory; the same user.

Works where the container's user namespace is the user's own (Apptainer without setuid, or with ``--userns``: ``setuid``), and for
the ``process`` runtime, which has no namespaces. Nothing of the container's environment acts on the node: it is given to execve inside.
"""

import errno
import fcntl
import os
import termios
from typing import Any, Dict, List, NamedTuple, NoReturn, Sequence, Tuple

from .loop import Loop, Promise
from .process import Stdio, keep_only, open_terminal, take_signals
from .proctree import started_at

_NAMESPACES = ("user", "mnt", "ipc", "uts", "pid")  # user first: it gives the right to enter the others
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CANNOT_EXECUTE = 126
NOT_FOUND = 127


class Inside(NamedTuple):
    """What a command inside starts with. ``pid`` is a process of the container, ``since`` when that was started."""

    pid: int
    since: int
    environment: Dict[str, str]
    cwd: str


class JoinError(Exception):
    """The container can't be entered."""


def beside(pid: int, cwd: str) -> Inside:
    """Return what a command beside a container's process starts with: its environment. JoinError if it has ended."""
    since = started_at(pid)
    try:
        with open("/proc/%d/environ" % pid, "rb") as stream:
            entries = stream.read().split(b"\0")
    except OSError as error:
        raise JoinError("the container's process %d can't be read: %s" % (pid, error.strerror)) from error
    pairs = (entry.decode("utf-8", "surrogateescape").partition("=") for entry in entries if entry)
    return Inside(pid, since, {name: value for name, equals, value in pairs if equals}, cwd)


def start_inside(
    loop: Loop, inside: Inside, argv: Sequence[str], stdio: Stdio, handout: Any = None
) -> Tuple[int, Promise]:
    """Start a command inside. Returns the PID of our child (its session is the command's) and its wait status.

    The command's exit code is the child's; a signal is 128 + it; 126 and 127 are a shell's (can't execute, not found).
    With a terminal, ``handout`` is a Unix socket: the command gets a terminal of the container's own, whose name means
    something inside, and our side of that is sent there. Where the container can't make one, nothing is sent, and
    ``stdio``, a terminal of the node, is the command's.
    """
    import ctypes  # before the fork: inside, there is no Python to import from

    libc = ctypes.CDLL(None, use_errno=True)
    pid = os.fork()
    if pid == 0:
        code = CANNOT_EXECUTE
        try:
            loop.leave_in_child()
            os.setsid()
            _take(stdio)
            keep_only(0, 1, 2, -1 if handout is None else handout.fileno())
            code = _run_inside(libc, inside, list(argv), handout)
        except BaseException as error:
            os.write(2, ("can't enter the container: %s\n" % error).encode("utf-8", "replace"))
        finally:
            os._exit(code)
    return pid, loop.child(pid)


def _take(stdio: Stdio) -> None:
    for target, source in enumerate((stdio.stdin, stdio.stdout, stdio.stderr)):
        os.dup2(source, target)


def _different(pid: int) -> List[str]:
    return [
        name
        for name in _NAMESPACES
        if os.readlink("/proc/%d/ns/%s" % (pid, name)) != os.readlink("/proc/self/ns/" + name)
    ]


def _enter(libc: Any, pid: int, since: int = -1) -> None:
    """Enter a process's namespaces and root; only a new child is then in its PID namespace. JoinError if we may not.

    ``since``: when the process was started, lest another has its number by now.
    """
    import ctypes

    names = _different(pid)
    descriptors = [(name, os.open("/proc/%d/ns/%s" % (pid, name), os.O_RDONLY)) for name in names]
    if since not in (-1, started_at(pid)):
        raise JoinError("its process %d has ended" % pid)
    root = -1
    for name, descriptor in descriptors:
        if name == "mnt":  # its root may be open only to those in its user namespace, and /proc is still the node's
            root = os.open("/proc/%d/root" % pid, os.O_RDONLY | os.O_DIRECTORY)
        if libc.setns(descriptor, 0) != 0:
            code = ctypes.get_errno()
            why = "; a setuid Apptainer made it, whose option --userns would help" if "user" not in names else ""
            raise JoinError("its %s namespace: %s%s" % (name, os.strerror(code), why if code == errno.EPERM else ""))
    if root >= 0:
        os.fchdir(root)
        os.chroot(".")


def open_inside(loop: Loop, pid: int, path: str) -> int:
    """Return a descriptor of a directory as a process of a container sees it. JoinError, OSError: it can't be had.

    A file system that the container's own user namespace has mounted by FUSE is closed to us: it has to be entered.
    """
    try:
        return os.open("/proc/%d/root%s" % (pid, path), os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return open_by_entering(loop, pid, path, os.O_RDONLY | os.O_DIRECTORY)


def open_by_entering(loop: Loop, pid: int, path: str, flags: int) -> int:
    """Return a descriptor of what a container's process has at a path, whatever links lead there. JoinError, OSError.

    A child enters the container, opens the path there and hands it out.
    """
    import array
    import ctypes
    import socket

    libc = ctypes.CDLL(None, use_errno=True)
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            loop.leave_in_child()
            _enter(libc, pid)
            found = os.open(path, flags)
            theirs.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [found]))])
        finally:
            os._exit(0)
    loop.child(child)
    theirs.close()
    with ours:
        _data, control, _flags, _address = ours.recvmsg(1, socket.CMSG_SPACE(4))
    if not control:
        raise JoinError("process %d can't be joined" % pid)
    return array.array("i", control[0][2])[0]


def _run_inside(libc: Any, inside: Inside, argv: List[str], handout: Any) -> int:
    _enter(libc, inside.pid, inside.since)
    if handout is not None:
        _own_terminal(handout)
    child = os.fork()
    if child == 0:
        _execute(inside, argv, terminal=handout is not None)
    _, status = os.waitpid(child, 0)
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _own_terminal(handout: Any) -> None:
    """Put a terminal of the container's own in the place of the node's, if it has any to give."""
    import array
    import socket

    try:
        ours, theirs = open_terminal()
        os.ttyname(theirs)
    except OSError:
        return
    handout.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [ours]))])
    os.close(ours)
    _take(Stdio(theirs, theirs, theirs, True))


def _execute(inside: Inside, argv: List[str], *, terminal: bool) -> NoReturn:
    code = CANNOT_EXECUTE
    try:
        if terminal:  # a session of its own, led from inside: what a shell needs for its jobs
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        take_signals()
        os.umask(0o022)
        _go_to(inside.cwd or "/")
        environment = dict(inside.environment)
        environment.setdefault("PATH", _DEFAULT_PATH)
        os.execvpe(argv[0], argv, environment)  # noqa: S606
    except FileNotFoundError as error:
        code = NOT_FOUND
        words = os.strerror(error.errno or 0).lower() if "/" in argv[0] else "executable file not found in $PATH"
        _say('exec: "%s": %s' % (argv[0], words))
    except OSError as error:
        _say('exec: "%s": %s' % (argv[0], os.strerror(error.errno or 0).lower()))
    except BaseException as error:
        _say("%s: %s" % (argv[0], error))
    finally:
        os._exit(code)


def _go_to(directory: str) -> None:
    try:
        os.chdir(directory)
    except OSError as error:
        raise JoinError("its working directory %s: %s" % (directory, error.strerror)) from error


def _say(words: str) -> None:
    os.write(2, (words + "\n").encode("utf-8", "surrogateescape"))
