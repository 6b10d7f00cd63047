"""A mailbox of changes: what is told twice before it is read is read once. No I/O."""

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class Mailbox(Generic[Key, Item]):
    """Keys in the order of their first telling; ``read`` makes the item at the moment it is taken."""

    def __init__(self, read: Callable[[Key], Item | None]) -> None:
        self._read = read
        self._keys: dict[Key, None] = {}
        self._some = asyncio.Event()

    def tell(self, key: Key) -> None:
        """Note that there is something new about this key."""
        self._keys[key] = None
        self._some.set()

    def clear(self) -> None:
        """Drop what was told and not taken."""
        self._keys.clear()
        self._some.clear()

    async def take(self) -> Item:
        """Wait for a key and return its item; keys whose item is None are skipped."""
        while True:
            await self._some.wait()
            while self._keys:
                key = next(iter(self._keys))
                del self._keys[key]
                if not self._keys:
                    self._some.clear()
                if (item := self._read(key)) is not None:
                    return item
            self._some.clear()
