"""The claim: which job, and which start of it, may run this pod. Made by link(), the one atomic step that NFS has.

Whatever happened between vkubelet and sbatch, however many jobs were accepted for a pod: one holds the claim.
"""

import contextlib
import json
import os
from typing import Any, NamedTuple, Optional

from slurm_plugin.jobdir import JobDir

from .linking import link


class Run(NamedTuple):
    """One start of a job: ``restart`` is Slurm's SLURM_RESTART_COUNT, 0 at first."""

    job_id: str
    restart: int


def read_claim(directory: JobDir) -> Optional[Run]:
    """Return who holds the pod; None if nobody does. ValueError: the file is not a claim."""
    try:
        with open(directory.claim, encoding="utf-8") as stream:
            data: Any = json.load(stream)
        return Run(str(data["job_id"]), int(data["restart"]))
    except FileNotFoundError:
        return None
    except (KeyError, TypeError) as error:
        raise ValueError("%s is not a claim: %r" % (directory.claim, error)) from error


def take_claim(directory: JobDir, run: Run) -> Optional[Run]:
    """Claim the pod. Return None on success, else the run that holds it.

    A later start of the same job (a requeue) takes over from an earlier one; nobody takes over from another job.
    OSError: the directory was removed (a withdrawn attempt, a pod that is gone), and is not to be made again.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory.run, mode=0o700)
    own = os.path.join(
        directory.run, ".claim.%s.%d.%s.%d" % (run.job_id, run.restart, os.uname().nodename, os.getpid())
    )
    with open(own, "w", encoding="utf-8") as stream:
        json.dump(dict(run._asdict()), stream)
    try:
        if link(own, directory.claim):
            return None
        holder = read_claim(directory)
        if holder is None or holder.job_id != run.job_id or holder.restart >= run.restart:
            return holder or run
        # One winner for each restart count, then a rename that everybody sees.
        if not link(own, "%s.%d" % (directory.claim, run.restart)):
            return read_claim(directory) or run
        os.rename(own, directory.claim)
        return None
    finally:
        if os.path.exists(own):
            os.unlink(own)
