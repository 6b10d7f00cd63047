"""Slurm's commands for the machine's side: `sbatch` in the state's bin directory is the site's sbatch, run as alice.

A wrapper replaces itself with the command (nsenter, then setpriv), so that arguments, terminal, standard streams, signals and exit
status are the command's own. The working directory stays if alice can write there, else it is her home, so that
sbatch, which puts a job's output beside where it was called, works from the project's root as well.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from testbed.site import users
from testbed.site.namespace import ENVIRONMENT, Namespace

COMMANDS = ("squeue", "sbatch", "sacct", "scontrol", "scancel", "sinfo", "srun", "sdiag", "sacctmgr", "apptainer")

LOGIN = "/opt/slurmlet/bin/login"
"""In the site: `login DIRECTORY HOME USER COMMAND …` makes the environment a login would, and becomes COMMAND."""

_LOGIN = f"""\
#!/bin/sh
# Becomes a command in the environment of a login; the account is changed already.
{{ cd "$1" 2>/dev/null && [ -w . ]; }} || cd "$2" || exit
export HOME="$2" USER="$3" LOGNAME="$3" SHELL=/bin/bash PATH={shlex.quote(ENVIRONMENT["PATH"])}
shift 3
exec "$@"
"""


def write(namespace: Namespace, directory: Path) -> None:
    """Write the wrappers into `directory` and what they need into the site; they are for this life of the namespace."""
    namespace.write(LOGIN, _LOGIN, mode=0o755)
    directory.mkdir(parents=True, exist_ok=True)
    for name in COMMANDS:
        partial = directory / f".{name}.partial"
        partial.write_text(script(namespace, name), encoding="utf-8")
        partial.chmod(0o755)
        partial.replace(directory / name)


def script(namespace: Namespace, command: str, *, person: users.Person = users.ALICE) -> str:
    """Return the wrapper of `command`. Only words of ours are in it; the caller's arguments pass as `"$@"`."""
    before = shlex.join(namespace.enter((LOGIN,), user=person.name))
    after = shlex.join((person.home, person.name, command))
    return f'#!/bin/sh\n# {command} on the testbed\'s HPC site, as {person.name}.\nexec {before} "$PWD" {after} "$@"\n'
