"""Scratch space that runners left behind because they were killed: the next one of the same user on the node removes it.

A run's scratch is in use while its job has a process here, its runner above all. A scratch directory says which node it is
of, for its file system may be shared by several. What ranks of other nodes left is not looked at: where Apptainer is
setuid, nobody could tell whether they still run.
"""

import os
import re
import stat
import sys
from typing import Iterator, Optional, Set

from .claim import Run
from .node import node_name
from .proctree import processes
from .volumes import MEMORY, NODE_FILE, remove_tree

_NAME = re.compile(r"slurmlet-[A-Za-z0-9][A-Za-z0-9._-]*-([0-9]+)\.([0-9]+)\Z")
_JOB = b"SLURM_JOB_ID="


def clear(base: str, own: Run) -> None:
    """Remove what ended runs left in ``base`` and in memory. What can't be removed is named in the job's output."""
    try:
        found = [path for where in (base, MEMORY) if os.path.isdir(where) for path in _scratches(where, own)]
        if not found:
            return
        alive = jobs_here()
        for path in found:
            run = _run_of(os.path.basename(path))
            if run is not None and (run.job_id not in alive or run.job_id == own.job_id):
                sys.stdout.write("slurmlet: removing %s, which a killed run left behind\n" % path)
                remove_tree(path)
    except OSError as error:
        sys.stderr.write("slurmlet: looking for what killed runs left behind: %s\n" % error)


def _scratches(where: str, own: Run) -> Iterator[str]:
    """Yield the scratch directories of this user and this node, those of other runs."""
    for name in os.listdir(where):
        run, path = _run_of(name), os.path.join(where, name)
        if run is None or (run.job_id == own.job_id and run.restart >= own.restart):
            continue
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and (where == MEMORY or _is_here(path)):
            yield path


def _run_of(name: str) -> Optional[Run]:
    match = _NAME.match(name)
    return Run(match.group(1), int(match.group(2))) if match else None


def _is_here(path: str) -> bool:
    try:
        # Not to wait for the writer of a pipe that somebody may have left there.
        descriptor = os.open(os.path.join(path, NODE_FILE), os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, encoding="utf-8", errors="replace") as stream:
            return stream.read(1024).strip() == node_name()
    except FileNotFoundError:
        return False


def jobs_here() -> Set[str]:
    """Return the jobs that processes of this user on this machine belong to, by their first environment."""
    found = set()  # type: Set[str]
    for process in processes():
        try:
            with open("/proc/%d/environ" % process.pid, "rb") as stream:
                variables = stream.read().split(b"\0")
        except OSError:
            continue  # another's, or it has ended
        found.update(each[len(_JOB) :].decode("ascii", "replace") for each in variables if each.startswith(_JOB))
    return found
