"""What the words of a failed Slurm command mean. Pure.

Slurm's commands tell causes apart by text alone; these are the texts of ``src/common/slurm_errno.c`` and of the
commands, 22.05 to 26.05. An sbatch may have been heard although it failed: only where it is sure that slurmctld took
nothing is that said.
"""

import re

from ..errors import (
    HostError,
    PodNotFoundError,
    SlurmError,
    SlurmletError,
    SlurmUnavailableError,
    SubmissionRejectedError,
    TransportError,
    shorten,
)  # fmt: skip
from ..hosts.base import Completed

# Nobody was reached, or said no before taking anything, and will say otherwise later.
_NOT_NOW = (
    "connect failure",
    "Connection refused",
    "Connection timed out",
    "Host name lookup failure",
    "No route to host",
    "Munge encode failed",
    "Protocol authentication error",
    "Invalid authentication credential",
    "authentication plugin",
    "in standby mode",
    "temporarily unable to accept job",
    "Resource temporarily unavailable",
    "Problem talking to the database",
    "persistent connection",
    "Required partition not available",
    "Required node not available",
    # slurmctld is ending or has just begun, has no room for the job's files, or is of another version for a while.
    "submissions disabled",
    "Unable to create job record, try again",
    "I/O error writing script/environment to file",
    "Rate limit exceeded",
    "Incompatible versions of client and server code",
    # The command had no slurm.conf that it could read: one that is being edited, a configless site's that was not given.
    "Unable to process configuration file",
    "Could not establish a configuration source",
)
# The request may have arrived.
_PERHAPS_HEARD = (
    "Socket timed out",
    "Zero Bytes were transmitted",
    "Unable to contact slurm controller",
    "Transport endpoint is not connected",
    "Connection reset by peer",
    "Broken pipe",
    "Munge decode failed",
    "Unexpected message received",
    "Message receive failure",
    "Message send failure",
    "Communication connection failure",
    "Communication shutdown failure",
    "Interrupted system call",
)
# A limit on how many jobs someone may have (resource_limits.html): the end of another job makes room. The other limits
# refuse this job for what it is, and the sentence about "job submit limit" stands under all of them.
_LIMIT = re.compile(r"(?:Max|Grp)(?:SubmitJob|Submit|Job)s?", re.IGNORECASE)
_NOT_A_JOB = ("Invalid job id specified", "already completing or completed", "has already finished")
_SHOWN_WORD = 40
_PREFIX = re.compile(r"^(?:sbatch|squeue|sacct|scancel|scontrol|srun): (?:(?:error|fatal): )?", re.MULTILINE)
_SIGNAL_EXITS = range(129, 193)  # 255 is an option that sbatch does not know


def words(result: Completed) -> str:
    """Return what a command said on standard error, without its own name before each line."""
    return _PREFIX.sub("", result.stderr.decode("utf-8", "replace").strip())


def submission(result: Completed) -> SlurmletError:
    """Say what a failed sbatch means: nothing accepted and may be later, refused, or an unknown outcome.

    sbatch may try several times, each with its words: one attempt that may have been heard is enough for doubt, else
    the last word counts.
    """
    said = words(result)
    causes = [cause(line) for line in said.splitlines()] or [None]
    if TransportError in causes or result.exit_code in _SIGNAL_EXITS:
        return TransportError(f"sbatch (exit code {result.exit_code}) may have submitted the job: {shorten(said)}")
    if causes[-1] is SlurmUnavailableError:
        return SlurmUnavailableError(f"Slurm took no job: {shorten(said)}")
    silence = f"exit code {result.exit_code} without a word"
    return SubmissionRejectedError(shorten(said) or silence, limit=bool(_LIMIT.search(said)))


def query(result: Completed) -> SlurmletError:
    """Say what a failed query means; it changed nothing."""
    said = words(result)
    if any(map(cause, said.splitlines())):
        return SlurmUnavailableError(f"{command(result.argv)}: {shorten(said)}")
    return SlurmError(f"{command(result.argv)} failed with exit code {result.exit_code}: {shorten(said)}")


def change(result: Completed) -> SlurmletError | None:
    """Say what a failed scancel means; None where there is no such job any more, so that nothing is left to do."""
    said = words(result)
    if any(text in said for text in _NOT_A_JOB):
        return None
    causes = [cause(line) for line in said.splitlines()]
    if TransportError in causes:
        return TransportError(f"{command(result.argv)}: {shorten(said)}")
    if SlurmUnavailableError in causes:
        return SlurmUnavailableError(f"{command(result.argv)}: {shorten(said)}")
    return SlurmError(f"{command(result.argv)} failed with exit code {result.exit_code}: {shorten(said)}")


def step(exit_code: int | None, stderr: str) -> SlurmletError:
    """Say why a step came to nothing: Slurm's own words stand behind ``srun:``, the rest is the program's."""
    said = _PREFIX.sub("", stderr.strip())
    srun = [line for line in stderr.splitlines() if line.startswith("srun: ")]
    if any(text in line for text in _NOT_A_JOB for line in srun):
        return PodNotFoundError(f"the pod's job is over: {shorten(said)}")
    if any(map(cause, srun)):
        return SlurmUnavailableError(f"srun: {shorten(said)}")
    return HostError(shorten(said) or f"srun ended with exit code {exit_code} without a word")


def accounting_is_off(result: Completed) -> bool:
    """Whether sacct failed because this cluster keeps no accounts (``AccountingStorageType=accounting_storage/none``)."""
    return "accounting storage is disabled" in words(result)


def cause(line: str) -> type[SlurmletError] | None:
    """Return what a line, of a command or of slurmrestd, says of the way to Slurm: closed for now, perhaps heard (TransportError), or nothing."""
    lowered = line.lower()
    if any(text.lower() in lowered for text in _NOT_NOW):
        return SlurmUnavailableError
    return TransportError if any(text.lower() in lowered for text in _PERHAPS_HEARD) else None


def command(argv: tuple[str, ...]) -> str:
    """Return a command as it is shown in an error: without its environment and its long lists."""
    words = argv[2:] if argv[0] == "env" else argv
    return " ".join(word for word in words if len(word) <= _SHOWN_WORD)
