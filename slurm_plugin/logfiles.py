"""One log from its beginning to now, whatever its runner rotates away meanwhile.

The runner renames ``0.log`` to ``0.log.<time>`` and begins a new one. What we were in the midst of is then the oldest
of the new names: it is read to its end there, then what came after it. A log that was removed already is passed over.
"""

import posixpath
from collections.abc import AsyncGenerator

from .hosts.base import Host

CHUNK = 256 * 1024


class LogFile:
    """Reads the file at ``path``. ``offset`` is, once all was read, where its next bytes will be."""

    def __init__(self, host: Host, path: str) -> None:
        self._host = host
        self._path = path
        self._directory, self._name = posixpath.split(path)
        self.offset = 0

    async def read(self) -> AsyncGenerator[bytes, None]:
        """Yield what there is. Raises HostError, TransportError."""
        known = await self._rotated()
        while True:
            data = await self._host.read(self._path, offset=self.offset, limit=CHUNK) or b""
            now = await self._rotated()  # after reading: else nobody knows of which file the bytes are
            if gone := sorted(now - known):
                known = now
                for name in gone:
                    async for piece in self._rest(posixpath.join(self._directory, name)):
                        yield piece
                    self.offset = 0
                continue
            self.offset += len(data)
            if data:
                yield data
            if len(data) < CHUNK:
                return

    async def _rest(self, path: str) -> AsyncGenerator[bytes, None]:
        """Yield a file that does not grow any more, from ``offset`` on."""
        while data := await self._host.read(path, offset=self.offset, limit=CHUNK):
            self.offset += len(data)
            yield data

    async def _rotated(self) -> set[str]:
        names = await self._host.list_directory(self._directory) or ()
        return {name for name in names if name.startswith(self._name + ".")}
