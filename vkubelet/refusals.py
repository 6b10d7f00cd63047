"""What a failed submission makes of a pod, in Kubernetes' words. Pure.

A refusal concerns the pod (or its owner's limits) and is shown on it; everything else is trouble of ours or of Slurm's
and is tried again without a word about the pod.
"""

from slurm_plugin.errors import (
    InvalidAnnotationError,
    InvalidQuantityError,
    PolicyError,
    SlurmletError,
    SlurmUnavailableError,
    SubmissionRejectedError,
    TooLargeError,
    TranslationError,
)

from .errors import NodeAffinityError
from .owners import Refusal

_REJECTED_LIMIT_SECONDS = 300.0
_LIMITS_LIMIT_SECONDS = 30.0


def refusal_of(error: SlurmletError) -> Refusal | None:
    """Return the refusal that an error is, None if it is none."""
    match error:
        case SubmissionRejectedError(limit=True):
            return Refusal("SlurmLimit", f"Slurm does not take the job yet: {error.words}")
        case SubmissionRejectedError():
            return Refusal("SlurmRejected", str(error))
        case TranslationError():
            return Refusal(_reason(error), f"Pod was rejected: {error}")
        case _:
            return None


def _reason(error: TranslationError) -> str:
    match error:
        case TooLargeError(resource=resource):
            return f"OutOf{resource}"  # as a kubelet's admission says it
        case NodeAffinityError():
            return "NodeAffinity"
        case PolicyError():
            return "SlurmPolicyDenied"
        case InvalidAnnotationError():
            return "InvalidAnnotation"
        case InvalidQuantityError():
            return "UnexpectedAdmissionError"
        case _:
            return "PodFeatureUnsupported"


def retry_limit(error: SlurmletError) -> float:
    """Return the longest wait, in seconds, before a refused pod that waits is tried again."""
    limit = isinstance(error, SlurmUnavailableError) or (isinstance(error, SubmissionRejectedError) and error.limit)
    return _LIMITS_LIMIT_SECONDS if limit else _REJECTED_LIMIT_SECONDS
