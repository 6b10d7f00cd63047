"""What an error of Slurm's library means. Pure.

The numbers are those of ``slurm/slurm_errno.h``, and decide where there is one that does; else the words, which are the same as of
Slurm's commands.
"""

from collections.abc import Mapping
from typing import Any

from ...errors import (
    ConfigurationError,
    SlurmError,
    SlurmletError,
    SlurmUnavailableError,
    SubmissionRejectedError,
    TransportError,
    shorten,
)  # fmt: skip
from .. import failures

_OTHER_VERSION = 1005
_UNKNOWN_JOB = 2017
_NOT_NOW = 2020  # nothing of the job runs: it is pending, held or suspended
_ALREADY_DONE = 2021
_LIMIT = 2050
# Below are the system's numbers: pyslurm looks at errno after a signal whatever the call returned, and finds an old one there.
_FIRST_OF_SLURM = 1000
# pyslurm's own words where accounting does not answer: slurmdbd's number and reason are lost in it.
_NO_ACCOUNTING = ("from slurmdbd", "to slurmdbd")

Error = Mapping[str, Any]


def submission(error: Error) -> SlurmletError:
    """Say what a failed submission means: nothing accepted and may be later, refused, or an unknown outcome.

    The number does not tell which limit refused a job: that on the number of jobs, or one on the job's own size. It
    counts as the former, for that loses nothing: the pod waits, and says why.
    """
    said = _words(error)
    cause = failures.cause(said)
    if cause is TransportError:
        return TransportError(f"Slurm may have taken the job: {said}")
    if cause is SlurmUnavailableError:
        return SlurmUnavailableError(f"Slurm took no job: {said}")
    return SubmissionRejectedError(said, limit=error.get("number") == _LIMIT)


def query(error: Error, asked: str) -> SlurmletError:
    """Say what a failed query means; it changed nothing."""
    said = f"pyslurm, {asked}: {_words(error)}"
    if error.get("number") == _OTHER_VERSION:
        return ConfigurationError(f"{said}: is pyslurm of the Slurm that runs here?")
    if failures.cause(said) or any(words in said for words in _NO_ACCOUNTING):
        return SlurmUnavailableError(said)
    return SlurmError(said)


def change(error: Error, asked: str, *, signal: bool) -> SlurmletError | None:
    """Say what a failed cancellation or signal means; None where there is nothing left to do.

    ``signal``: it was a signal, of which a job that does not run needs none.
    """
    if error.get("number") in {_UNKNOWN_JOB, _ALREADY_DONE} or (signal and error.get("number") == _NOT_NOW):
        return None
    said = f"pyslurm, {asked}: {_words(error)}"
    if 0 < int(error.get("number") or 0) < _FIRST_OF_SLURM:
        return TransportError(said)
    return (failures.cause(said) or SlurmError)(said)


def _words(error: Error) -> str:
    return shorten(str(error.get("words") or f"error {error.get('number')}"), 500)
