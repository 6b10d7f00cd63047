"""Errors across the wire: one table, in both directions. Pure."""

from collections.abc import Mapping
from typing import Any

from slurm_plugin.errors import (
    HostError,
    InvalidAnnotationError,
    InvalidQuantityError,
    PodNotFoundError,
    PolicyError,
    SlurmError,
    SlurmletError,
    SlurmUnavailableError,
    SubmissionRejectedError,
    TooLargeError,
    TranslationError,
    TransportError,
    UnsupportedFieldError,
)

_STATUS: dict[type[SlurmletError], int] = {
    UnsupportedFieldError: 422,
    InvalidAnnotationError: 422,
    InvalidQuantityError: 422,
    PolicyError: 403,
    TooLargeError: 422,
    TranslationError: 422,
    SubmissionRejectedError: 409,
    PodNotFoundError: 404,
    SlurmUnavailableError: 503,
    TransportError: 504,
    HostError: 500,
    SlurmError: 502,
}
_KINDS = {kind.__name__: kind for kind in _STATUS}


def status(error: SlurmletError) -> int:
    """Return the HTTP status of an error: that of the nearest class which has one."""
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)


def to_json(error: SlurmletError) -> dict[str, Any]:
    """Return an error as the body of its answer."""
    kind = next((kind for kind in type(error).__mro__ if kind in _STATUS), HostError)
    said: dict[str, Any] = {"error": kind.__name__, "message": str(error)}
    if isinstance(error, TranslationError):
        said |= {"field": error.field, "message": str(error).removeprefix(f"{error.field}: ")}
    if isinstance(error, SubmissionRejectedError):
        said |= {"message": error.words, "limit": error.limit}
    return said


def from_json(said: Mapping[str, Any]) -> SlurmletError:
    """Return the error that an answer's body stands for; what is none of ours is a HostError with its words."""
    kind, message = _KINDS.get(str(said.get("error")), HostError), str(said.get("message") or "no reason was given")
    if issubclass(kind, TranslationError):
        return kind(str(said.get("field") or "pod"), message)
    if issubclass(kind, SubmissionRejectedError):
        return kind(message, limit=bool(said.get("limit")))
    return kind(message)
