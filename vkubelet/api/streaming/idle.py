"""Connections on which nothing happens for hours are closed."""

import asyncio


class Idleness:
    """When something last happened. One that lasts ``seconds`` ends ``wait``."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()

    def touch(self) -> None:
        """Something happened."""
        self._last = self._loop.time()

    async def wait(self) -> None:
        """Return when nothing has happened for so long."""
        # One sleep in hours instead of an Event per byte.
        while (left := self._last + self.seconds - self._loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left)
