"""Commands and files on this machine, as this user or, with a prefix, as another one."""

import asyncio
import logging
import os
import socket
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from tempfile import TemporaryFile
from typing import IO

from .agent import AgentHost
from .callback import Expected, expected_call
from .channel import NoPythonError, StreamChannel

log = logging.getLogger(__name__)

_LAST_WORDS_BYTES = 4096
# What another user's agent is given of our environment: that user can read it. All else may be a secret of ours.
_SHOWN_TO_OTHERS = ("PATH", "LANG", "LC_ALL", "TZ")
# The agent gives its processes a second between TERM and KILL.
_END_SECONDS = 5.0


class LocalHost(AgentHost):
    """The agent as a child process. ``prefix`` is put before its argv, e.g. ``("sudo", "-n", "-u", "alice")``."""

    def __init__(
        self, *, python: str = sys.executable, prefix: Sequence[str] = (), now: Callable[[], float] = time.monotonic
    ) -> None:
        async def opener(argv: tuple[str, ...]) -> LocalChannel:
            shown = {name: os.environ[name] for name in _SHOWN_TO_OTHERS if name in os.environ}
            return await LocalChannel.open((*prefix, *argv), environment=shown if prefix else None)

        super().__init__("this machine", opener, pythons=(python,), now=now)

    def expect(self, address: str) -> AbstractAsyncContextManager[Expected]:
        """Be called, once, on an address of this machine (``callback.Callee``)."""
        return expected_call(address)


class LocalChannel(StreamChannel):
    """A child process at the other end of a socket pair. Made by ``open``.

    Its standard error is a file: a pipe might be held open by what outlives the agent, and would then be waited for.
    """

    def __init__(
        self, process: Process, errors: IO[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        super().__init__(reader, writer)
        self._process = process
        self._errors = errors

    @classmethod
    async def open(cls, argv: tuple[str, ...], *, environment: Mapping[str, str] | None = None) -> "LocalChannel":
        """Start ``argv``, out of reach of this terminal's signals. ``environment`` None: ours."""
        ours, theirs = socket.socketpair()
        errors = TemporaryFile()  # noqa: SIM115 - closed with the channel
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=errors,
                    start_new_session=True,
                    cwd="/",
                    env=environment,
                )
        except OSError as error:
            ours.close()
            errors.close()
            raise NoPythonError(f"{argv[0]}: {error.strerror}") from error
        reader, writer = await asyncio.open_connection(sock=ours, limit=cls.LIMIT)
        return cls(process, errors, reader, writer)

    async def ended(self) -> tuple[int | None, str]:
        """Return the exit code and the last words."""
        try:
            async with asyncio.timeout(_END_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
            return None, self._last_words()
        return code if code >= 0 else 128 - code, self._last_words()

    def _last_words(self) -> str:
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
        return self._errors.read().decode(errors="replace")

    async def close(self) -> None:
        """Let the agent end by the end of its input; kill it if it does not. What another user runs (sudo) can't be killed."""
        self._writer.transport.abort()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            await self._kill()
        self._errors.close()

    async def _kill(self) -> None:
        try:
            self._process.kill()
        except ProcessLookupError:
            pass  # it has just ended
        except PermissionError:
            log.warning("process %d does not end, and is not ours to kill: left alone", self._process.pid)
            return
        await self._process.wait()
