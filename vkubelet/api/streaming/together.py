"""Several things done at once, of which the first error is the error: a TaskGroup without its ExceptionGroup."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def together(*parts: Coroutine[Any, Any, None], name: str) -> None:
    """Await all, in tasks of this name. Raises the first error of any, after the others were cancelled.

    A part that was cancelled from within did not do its work, which a TaskGroup would pass over: CancelledError.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part, name=name) for part in parts]
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    for task in tasks:
        task.result()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    found = errors.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


async def stop(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks and wait until they have ended, however they do."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
