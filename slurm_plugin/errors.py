"""The one tree of errors that the parts of Slurmlet raise to each other.

A caller decides by class and by ``transient``, never by text: ``transient`` means that the same call may succeed later
without anybody changing the pod or the configuration. Errors of the standard library and of other libraries are
wrapped where they enter (a Host, a SlurmClient, the API server's client) and chained; programming errors
(TypeError, KeyError, …) are deliberately not wrapped.
"""

from typing import ClassVar

_SHOWN = 2000


def shorten(text: str, limit: int = _SHOWN) -> str:
    """Cut a text for a message so that nobody's log is flooded; says how much was cut."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} more characters)"


class SlurmletError(Exception):
    """Base of every error that Slurmlet raises on purpose."""

    transient: ClassVar[bool] = False


class ConfigurationError(SlurmletError):
    """The configuration, or what it points to, is wrong; the message names the path and what was expected."""


class TranslationError(SlurmletError):
    """The pod can't be a Slurm job here. ``field`` is the path in the Pod object."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class UnsupportedFieldError(TranslationError):
    """The pod asks for something that a Slurm job can't give."""


class InvalidAnnotationError(TranslationError):
    """An annotation's value is not what its key takes."""


class InvalidQuantityError(TranslationError):
    """A resource quantity that Kubernetes itself would not accept."""


class TooLargeError(TranslationError):
    """The pod is larger than the largest node that it could run on. ``resource`` is Kubernetes' name of what it lacks."""

    def __init__(self, field: str, resource: str, message: str) -> None:
        super().__init__(field, message)
        self.resource = resource


class PolicyError(TranslationError):
    """The site's policy does not allow this namespace or service account what the pod asks for."""


class SlurmError(SlurmletError):
    """Slurm said no, or said nothing sensible."""


class SlurmUnavailableError(SlurmError):
    """Slurm (or the way to it) does not answer; nothing was changed."""

    transient = True


class SubmissionRejectedError(SlurmError):
    """sbatch refused the job; no job exists. ``words`` is sbatch's own message.

    ``limit``: a limit of the user's (MaxSubmitJobs and the like) refused it, so that it may be accepted later.
    """

    def __init__(self, words: str, *, limit: bool = False) -> None:
        super().__init__(f"Slurm rejected the job: {words}")
        self.words = words
        self.limit = limit


class JobNotFoundError(SlurmError):
    """No such job, in squeue or in accounting."""


class UnparsableOutputError(SlurmError):
    """A Slurm command printed something that its documentation does not allow."""

    def __init__(self, argv: tuple[str, ...], why: str, output: str) -> None:
        super().__init__(f"can't read the output of {' '.join(argv)}: {why}; it was: {shorten(output, 400)!r}")
        self.argv = argv


class HostError(SlurmletError):
    """A file operation or command on a Host failed for a reason that trying again won't mend (full, read-only, denied)."""


class PodNotFoundError(SlurmletError):
    """The Host has no such pod, container or log."""


class TransportError(SlurmletError):
    """The connection failed in mid-call: the outcome is unknown and must be found out before anything is repeated."""

    transient = True
