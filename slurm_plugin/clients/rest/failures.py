"""What an answer of slurmrestd's that is no success means. Pure.

slurmrestd passes on Slurm's error numbers (``slurm/slurm_errno.h``) and texts, 500 being the status of nearly all of
them, so the numbers decide where there is one, and else the same texts as with Slurm's commands.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import SlurmError, SlurmletError, SlurmUnavailableError, SubmissionRejectedError, TransportError, shorten
from .. import failures

NO_CHANGE = 1900
_UNKNOWN_JOB = 2017
_NOT_NOW = 2020  # nothing of the job runs: it is pending, held or suspended
_ALREADY_DONE = 2021
_LIMIT = 2050
_LIMIT_WORDS = "Job violates accounting/QOS policy"
_NOTHING_FOUND = 9003
_UNAUTHORIZED = (401, 403, 511)
_NO_SUCH_PATH = "Unable find requested URL"
_BAD_TOKEN = ("Protocol authentication error", "Invalid authentication credential", "Unspecified error: slurm_load")


@dataclass(frozen=True, slots=True)
class Answer:
    """What slurmrestd answered: the HTTP status, the JSON object ({} where it is none) and the text."""

    asked: tuple[str, ...]
    status: int
    body: Mapping[str, Any]
    text: str = ""

    @property
    def errors(self) -> tuple[tuple[int, str], ...]:
        """Slurm's errors: number and words."""
        return tuple(
            (int(error.get("error_number") or 0), ": ".join(_words(error))) for error in self.body.get("errors") or ()
        )

    @property
    def numbers(self) -> frozenset[int]:
        """Slurm's error numbers, those of single jobs (``status``) included."""
        one_by_one = (entry.get("error") or {} for entry in self.body.get("status") or () if isinstance(entry, Mapping))
        return frozenset({number for number, _ in self.errors} | {int(error.get("code") or 0) for error in one_by_one})

    @property
    def words(self) -> str:
        """What it says went wrong, shortened."""
        said = "; ".join(words for _, words in self.errors if words) or self.text.strip()
        return shorten(said, 500) or f"HTTP status {self.status} without a word"

    @property
    def fine(self) -> bool:
        """Whether it is a success: one that says something, for a proxy's page of maintenance may come with 200."""
        return self.status < 300 and bool(self.body) and not any(number for number, _ in self.errors)

    @property
    def no_such_path(self) -> bool:
        """Whether slurmrestd has no such path: it speaks other versions."""
        return self.status == 404 and not self.body

    @property
    def unauthorized(self) -> bool:
        """Whether the token is wrong or has expired; v0.0.38 says so in words, as an error of 500, 26.05 with 511."""
        return self.status in _UNAUTHORIZED or (
            not self.fine and any(text in words for _, words in self.errors for text in _BAD_TOKEN)
        )


def _words(error: Mapping[str, Any]) -> list[str]:
    return [str(error[key]) for key in ("description", "error", "source") if error.get(key)]


def submission(answer: Answer) -> SlurmletError:
    """Say what a failed submission means: nothing accepted and may be later, refused, or an unknown outcome.

    slurmrestd does not tell which limit refused a job: its number of jobs, whose end would make room, or the job's own
    size where the QOS has ``DenyOnLimit``. It counts as the former, for that loses nothing: the pod waits, and says why.
    """
    causes = [failures.cause(words) for _, words in answer.errors]
    if TransportError in causes or not answer.body:
        return TransportError(f"slurmrestd may have submitted the job: {answer.words}")
    if SlurmUnavailableError in causes:
        return SlurmUnavailableError(f"Slurm took no job: {answer.words}")
    limit = _LIMIT in answer.numbers or _LIMIT_WORDS in answer.words  # v0.0.38 gives no number
    return SubmissionRejectedError(answer.words, limit=limit)


def submission_unread(answer: Answer) -> SlurmletError:
    """Say what a success without a job's id means: there may be a job."""
    return TransportError(
        f"slurmrestd may have submitted the job: expected a job_id, found {shorten(str(answer.body), 400)}"
    )


def query(answer: Answer) -> SlurmletError:
    """Say what a failed query means; it changed nothing."""
    what = f"slurmrestd, {' '.join(answer.asked)}: {answer.words}"
    if not answer.body or any(failures.cause(words) for _, words in answer.errors):
        return SlurmUnavailableError(what)
    return SlurmError(what)


def change(answer: Answer, *, signal: bool) -> SlurmletError | None:
    """Say what a failed cancellation or signal means; None where there is nothing left to do.

    ``signal``: it was a signal, of which a job that does not run needs none.
    """
    harmless = {0, _UNKNOWN_JOB, _ALREADY_DONE, *([_NOT_NOW] if signal else [])}
    if answer.numbers & {_UNKNOWN_JOB, _ALREADY_DONE, _NOT_NOW} and answer.numbers <= harmless:
        return None
    what = f"slurmrestd, {' '.join(answer.asked)}: {answer.words}"
    causes = [failures.cause(words) for _, words in answer.errors]
    if TransportError in causes or not answer.body:
        return TransportError(what)
    return SlurmUnavailableError(what) if SlurmUnavailableError in causes else SlurmError(what)


def unknown_job(answer: Answer) -> bool:
    """Whether a query was for a job that slurmctld does not know (any more)."""
    return _UNKNOWN_JOB in answer.numbers


def nothing_found(answer: Answer) -> bool:
    """Whether accounting has nothing to say to a question; v0.0.38 calls that an error."""
    return _NOTHING_FOUND in answer.numbers


def accounting_is_off(answer: Answer) -> bool:
    """Whether this cluster keeps no accounts (``AccountingStorageType=accounting_storage/none``)."""
    return "accounting storage is disabled" in answer.words or "not supported" in answer.words.lower()
