"""What a provider should not raise, made an error that a client can be told."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from slurm_plugin.errors import SlurmletError

log = logging.getLogger(__name__)


class UnexpectedError(SlurmletError):
    """Something of ours broke: a bug, or a time-out or a cancellation that nobody translated."""


@contextmanager
def unexpected_told(what: str) -> Iterator[None]:
    """Log with its traceback what is neither a SlurmletError nor the client's end, and raise it as UnexpectedError.

    A cancellation of the running task itself goes through; one that comes from within is as unexpected as the rest.
    """
    try:
        yield
    except (SlurmletError, ConnectionError):
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        log.exception("%s: cancelled from within", what)
        raise UnexpectedError("it was cancelled") from error
    except Exception as error:
        log.exception("%s: unexpected", what)
        raise UnexpectedError(f"{type(error).__name__}: {error}") from error
