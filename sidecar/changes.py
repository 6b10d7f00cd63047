"""Changes that are made whole, whoever asked for them."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def whole(change: Coroutine[Any, Any, T]) -> T:
    """Finish a change also if whoever asked for it goes away: asking again is then told its outcome."""
    task = asyncio.ensure_future(change)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)
