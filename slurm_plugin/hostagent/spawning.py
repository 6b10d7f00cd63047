"""Starting a command as the Host's contract says: no shell, a clean environment, a session of its own."""

import contextlib
import os
import pwd
import signal
import subprocess
from typing import Dict, Sequence

from .protocol import decode_text, encode_text

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Process = subprocess.Popen  # one name for the annotations: Popen is not generic on old interpreters


def environment() -> Dict[str, str]:
    """Return what every command gets and nothing else; PATH is the one this user was given at login."""
    try:
        entry = pwd.getpwuid(os.geteuid())
        user, home, shell = entry.pw_name, entry.pw_dir, entry.pw_shell
    except KeyError:
        user, home, shell = str(os.geteuid()), "/", ""
    return {
        "PATH": os.environ.get("PATH") or _DEFAULT_PATH,
        "HOME": home,
        "USER": user,
        "LOGNAME": user,
        "SHELL": shell or "/bin/sh",
        "LANG": "C.UTF-8",
    }


_ENVIRONMENT = {encode_text(name): encode_text(value) for name, value in environment().items()}


def spawn(argv: Sequence[str]) -> "Process[bytes]":
    """Start a command with three pipes, in ``/``; OSError with the command's name if the machine refuses."""
    if not argv:
        raise ValueError("an empty argv")
    words = [encode_text(word) for word in argv]
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=_ENVIRONMENT,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as error:
        raise OSError(error.errno, error.strerror, decode_text(words[0])) from error


def signal_group(process: "Process[bytes]", number: int) -> None:
    """Signal a command and what it started. The command must not have been reaped: its number could be another's."""
    # All gone, or only those are left that gained other rights (a set-user-id program).
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def kill_group(process: "Process[bytes]") -> None:
    """Kill a command and what it started."""
    signal_group(process, signal.SIGKILL)


def exit_code(status: int) -> int:
    """Return a shell's view of ``Popen.returncode``: 128 + signal when a signal ended it."""
    return status if status >= 0 else 128 - status
