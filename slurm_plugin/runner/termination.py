"""How a run of a container ended: its code, reason and termination message.

Limits: 4096 bytes a container, 12 KiB a pod; 2048 bytes or 80 lines from the log (Kubernetes 1.36,
``pkg/kubelet/kuberuntime/kuberuntime_container.go``, ``pkg/kubelet/container/helpers.go``).
"""

import os
import re
import signal
from typing import NamedTuple, Optional

_MAX_BYTES = 4096
_MAX_POD_BYTES = 12 * 1024
LOG_BYTES = 2048
LOG_LINES = 80

# What Apptainer prints when it can't execute the command; it then exits with 255, which a command may do as well.
_NOT_STARTED = re.compile(r"^FATAL:\s+(.*(?:executable file not found in \$PATH|no such file or directory|permission denied|exec format error))\s*$", re.M | re.I)  # fmt: skip
_SETUP_FAILED = re.compile(r"^FATAL:\s+(.*\S)\s*$", re.M)
APPTAINER_FAILED = 255
CANNOT_START = 128
_GO_SIGNALLED = 2
_CONTINUED = 128 + signal.SIGCONT
_IMAGE_GONE = (128 + signal.SIGSEGV, 128 + signal.SIGBUS)


class Exit(NamedTuple):
    """A wait status, read: ``signal`` is 0 for a process that ended by itself."""

    code: int
    signal: int


def read_status(status: int) -> Exit:
    """Read a wait status as shells and container runtimes do: 128 + the signal."""
    if os.WIFSIGNALED(status):
        return Exit(128 + os.WTERMSIG(status), os.WTERMSIG(status))
    return Exit(os.WEXITSTATUS(status), 0)


def never_started(code: int, errors: str, *, entered: bool) -> str:
    """Return why a command was never executed, from how the runtime ended; empty if it was.

    ``entered``: the container was set up, so that only the command itself can have been at fault.
    """
    if entered and code != APPTAINER_FAILED:
        return ""
    match = (_NOT_STARTED if entered else _SETUP_FAILED).search(errors)
    if match:
        return "failed to start the container: " + match.group(1)
    return "" if entered else "failed to start the container: the runtime ended with exit code %d" % code


def cut_short(code: int, *, entered: bool, executed: bool) -> bool:
    """Return whether the runtime may have ended by a signal to it, so that its exit code is not the command's.

    Before the container is set up every code is the runtime's. Before the command is seen to execute 2 is a Go
    program's that a signal ends, 255 Apptainer's that finds the image gone (its FUSE process got the signal as well).
    Later these may be the runtime's doing: 128 + SIGCONT, which Slurm sends before TERM (Apptainer's init says it when
    it has a signal left for a command that is gone already), and the faults of a command that the image vanished under.
    """
    late = code == _CONTINUED or code in _IMAGE_GONE
    if executed:
        return late
    return late or code in (_GO_SIGNALLED, APPTAINER_FAILED) if entered else code != 0


def message_limit(containers: int) -> int:
    """Return how many bytes each of so many containers may leave."""
    return min(_MAX_BYTES, _MAX_POD_BYTES // max(1, containers))


def read_message(name: str, limit: int, directory: Optional[int] = None) -> str:
    """Return the first bytes of a termination message file; empty if there is none, or the container made it something else."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except OSError:
        return ""  # the container removed it, or never had it
    try:
        return os.read(descriptor, limit).decode("utf-8", "replace")
    except OSError:
        return ""  # a directory, a pipe
    finally:
        os.close(descriptor)


def message(text: str, policy: str, code: int, log_tail: str) -> str:
    """Return a container's termination message: its file's text or (``FallbackToLogsOnError``) the end of its log."""
    if text or policy != "FallbackToLogsOnError" or code == 0:
        return text
    return log_tail
