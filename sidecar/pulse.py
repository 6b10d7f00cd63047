"""Signs of life in a stream that may have nothing to say for hours: who hears none has lost the connection."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

T = TypeVar("T")


async def pulsed(items: AsyncGenerator[T, None], seconds: float) -> AsyncGenerator[T | None, None]:
    """Yield the items, and None whenever there was none for so long. Closes ``items``."""
    item: asyncio.Task[T] | None = None
    try:
        while True:
            item = item or asyncio.ensure_future(anext(items))
            done, _ = await asyncio.wait({item}, timeout=seconds)
            if not done:
                yield None
                continue
            try:
                came, item = item.result(), None
            except StopAsyncIteration:
                return
            yield came
    finally:
        if item is not None:
            item.cancel()
            await asyncio.gather(item, return_exceptions=True)
        await items.aclose()
