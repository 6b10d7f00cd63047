"""No container: the command is a process of the node. For sites and tests that have no container runtime.

There is no image and no mount namespace: a volume stays where it is on the node, and only a mount whose path is the
volume's own is there.
"""

import os
from typing import Dict

from ..process import Launch, StartError
from .base import Setting, job_variables

ISOLATED = False
NEEDS_IMAGE = False
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _find(word: str, path: str) -> str:
    """Return the executable that a shell would find. StartError, in runc's words, if there is none."""
    if "/" in word:
        return word
    for directory in path.split(":"):
        candidate = os.path.join(directory or ".", word)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    raise StartError('exec: "%s": executable file not found in $PATH' % word)


def prepare(setting: Setting) -> None:
    """There is nothing to be made."""


def launch(setting: Setting) -> Launch:
    """Return what to execute. StartError if the command does not exist."""
    environment: Dict[str, str] = {name: setting.host[name] for name in _INHERITED if name in setting.host}
    environment.update(job_variables(setting))
    environment.update(setting.environment)
    executable = _find(setting.command[0], environment.get("PATH", _DEFAULT_PATH))
    return Launch((executable,) + setting.command[1:], environment, setting.working_dir or "/")


def main_process(pid: int) -> int:
    """Return whom a signal for the container is for: the process itself."""
    return pid


def init_process(pid: int) -> int:
    """Return whose KILL ends the container: the process itself (the rest of its session is killed after it)."""
    return pid
