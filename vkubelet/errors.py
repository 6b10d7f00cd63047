"""What can go wrong between the agent and the API server, as classes.

A caller decides by class and by ``transient``, never by a status code or a text. Everything that aiohttp raises is
wrapped where it enters (``kube``) and chained; nothing here is raised anywhere else. Bodies are cut, lest an object's
content ends up in a log.
"""

from typing import ClassVar

from slurm_plugin.errors import SlurmletError, TranslationError


class KubeError(SlurmletError):
    """The API server said no, in a way that has no class of its own."""


class UnavailableError(KubeError):
    """No answer, or one that asks to come back later (429, 5xx). A write's outcome is unknown.

    ``retry_after`` is the server's own wish in seconds, None if it named none.
    """

    transient: ClassVar[bool] = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnauthorizedError(KubeError):
    """401: the credential is not accepted, even after it was loaded again. It may be renewed meanwhile."""

    transient: ClassVar[bool] = True


class ForbiddenError(KubeError):
    """403: the agent lacks a right; the message is RBAC's own and names it."""


class NotFoundError(KubeError):
    """404: there is no such object."""


class ConflictError(KubeError):
    """409: another writer was first. Read again, decide again."""

    transient: ClassVar[bool] = True


class AlreadyExistsError(ConflictError):
    """409 on a creation: the name is taken."""


class ReplacedError(KubeError):
    """The object under this name has another UID: drop the work.

    The API server answers a PATCH with 422 (cause ``metadata.uid``) and a DELETE with 409.
    """


class GoneError(KubeError):
    """410: the resource version is too old to go on from. List again."""


class InvalidError(KubeError):
    """422: the API server does not accept the object: a bug of ours, never retried."""


class NodeAffinityError(TranslationError):
    """The pod was bound to a node whose labels it does not select: a scheduler's decision was passed by."""
