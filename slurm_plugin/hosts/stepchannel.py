"""A channel that is a command on a Host: what its program says and is told goes through that Host's own connection."""

import asyncio
import contextlib
from collections.abc import Sequence

from ..errors import HostError, SlurmletError, TransportError
from .base import Host, HostProcess

_LAST_WORDS_BYTES = 4096
# A program that reads the end of its input ends by itself; then no signal has to be sent after it.
_END_SECONDS = 3.0


class StepChannel:
    """A running command as a Channel (``channel.Channel``). Made by ``open``."""

    def __init__(self, process: HostProcess, stack: contextlib.AsyncExitStack) -> None:
        self._process = process
        self._stack = stack
        self._words = b""
        self._listening = asyncio.create_task(self._listen(), name="what a step says on standard error")

    @classmethod
    async def open(cls, host: Host, argv: Sequence[str]) -> "StepChannel":
        """Start a command. Raises what ``Host.process`` raises."""
        async with contextlib.AsyncExitStack() as stack:
            process = await stack.enter_async_context(host.process(argv))
            return cls(process, stack.pop_all())

    async def _listen(self) -> None:
        with contextlib.suppress(SlurmletError):  # the reader of its output is told
            while data := await self._process.read_error():
                self._words = (self._words + data)[-_LAST_WORDS_BYTES:]

    async def read(self) -> bytes:
        """Return some bytes as they come; b"" at the end, also after a failure."""
        try:
            return await self._process.read()
        except SlurmletError as error:
            self._words = self._words or str(error).encode()
            return b""

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while too much is unsent. Raises TransportError."""
        try:
            await self._process.write(data)
        except HostError as error:
            raise TransportError(str(error)) from error

    async def ended(self) -> tuple[int | None, str]:
        """After the end: the exit code, if it can be known, and the last of what was printed on standard error."""
        code = None
        with contextlib.suppress(SlurmletError, TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                code = await self._process.wait()
                await asyncio.wait({self._listening})
        return code, self._words.decode(errors="replace")

    async def close(self) -> None:
        """Let the command end by the end of its input; kill it if it does not."""
        with contextlib.suppress(SlurmletError, TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._process.close_stdin()
                await self._process.wait()
        await self._stack.aclose()
        self._listening.cancel()
        await asyncio.wait({self._listening})
