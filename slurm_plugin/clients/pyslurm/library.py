"""The process that has Slurm's library in it: started when first asked, one question at a time, killed when it does not answer.

A question to the library can't be taken back, so whoever stops waiting ends the process, and the next question starts another.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from ...errors import ConfigurationError, SlurmletError, SlurmUnavailableError, shorten
from ...hosts.base import HostProcess
from ...metrics import counted_command
from . import failures

log = logging.getLogger(__name__)

_START_SECONDS = 60.0
_KEPT_WORDS = 2000
_CHILD = Path(__file__).with_name("child.py").read_text("utf-8")

Answer = dict[str, Any]


class ProcessHost(Protocol):
    """The part of a Host that is needed here: it keeps a process."""

    def process(self, argv: tuple[str, ...]) -> AbstractAsyncContextManager[HostProcess]:
        """See Host."""


class Library:
    """pyslurm on a Host. ``python``: the path of a Python there that can import it."""

    def __init__(self, host: ProcessHost, *, python: str) -> None:
        self._host = host
        self._python = python
        self._turn = asyncio.Lock()
        self._process: HostProcess | None = None
        self._ending: contextlib.AsyncExitStack | None = None
        self._rest = b""
        self._said = b""
        self._release: tuple[str, str] | None = None

    async def release(self) -> tuple[str, str]:
        """Return the cluster's name and Slurm's version, as slurmctld said them when the process was last started."""
        async with self._turn:
            await self._started()
        assert self._release is not None  # noqa: S101  for mypy: it is started
        return self._release

    async def ask(
        self, question: str, *, timeout: float, unanswered: Callable[[str], SlurmletError], **words: Any
    ) -> Answer:
        """Return the answer, an error of Slurm's among them (``{"error": …}``); waiting for a turn is no part of the time-out.

        Raises ``unanswered`` where there is none: what the question changed is unknown then. SlurmUnavailableError or
        ConfigurationError where it was not even asked.
        """
        async with self._turn:
            process = await self._started()
            with counted_command(f"pyslurm {question}") as statuses:
                answer = await self._exchange(process, {"ask": question, **words}, timeout, unanswered)
                statuses.append(int("answer" not in answer))
            return answer

    async def close(self) -> None:
        """End the process."""
        async with self._turn:
            await self._end()

    async def _started(self) -> HostProcess:
        """Return the process, started and found to be of the right version."""
        if self._process is None:
            stack = contextlib.AsyncExitStack()
            self._process = await stack.enter_async_context(self._host.process((self._python, "-u", "-c", _CHILD)))
            self._ending, self._rest, self._said = stack, b"", b""
            listener = asyncio.create_task(self._listen(self._process), name="pyslurm's words")
            stack.push_async_callback(_stopped, listener)
            try:
                await self._greet(self._process)
            except BaseException:
                await self._end()
                raise
        return self._process

    async def _greet(self, process: HostProcess) -> None:
        first = await self._exchange(process, None, _START_SECONDS, SlurmUnavailableError)
        if "missing" in first:
            raise ConfigurationError(
                f"{self._python} has no pyslurm that works: {first['missing']}; install the one of your Slurm's release "
                "(slurm.client.python names the Python)"
            )
        ours = str(first["answer"])
        answer = await self._exchange(process, {"ask": "hello"}, _START_SECONDS, SlurmUnavailableError)
        if "answer" not in answer:
            raise failures.query(answer.get("error", {}), f"of version {ours}")
        theirs = str(answer["answer"]["version"])
        if _release(ours) != _release(theirs):
            raise ConfigurationError(
                f"pyslurm {ours} ({self._python}) is of another release than Slurm {theirs}: their first two numbers must "
                "be the same; install pyslurm's version for it, or set slurm.client.kind to command"
            )
        self._release = str(answer["answer"]["cluster"] or ""), theirs

    async def _exchange(
        self, process: HostProcess, question: Answer | None, timeout: float, unanswered: Callable[[str], SlurmletError]
    ) -> Answer:
        what = f"pyslurm, {question['ask']}" if question else "pyslurm"
        try:
            async with asyncio.timeout(timeout):
                if question is not None:
                    await process.write(json.dumps(question).encode() + b"\n")
                line = await self._line(process)
            answer = json.loads(line)
        except TimeoutError as error:
            await self._end()
            raise unanswered(f"{what}: no answer within {timeout:g} s") from error
        except ValueError as error:
            await self._end()
            said = shorten(self._said.decode(errors="replace").strip(), 500) or "without a word"
            raise unanswered(f"{what}: it ended: {said}") from error
        except BaseException:
            await self._end()
            raise
        if not isinstance(answer, dict):
            await self._end()
            raise unanswered(f"{what}: expected an object, found {answer!r:.200}")
        return answer

    async def _line(self, process: HostProcess) -> bytes:
        """Return the next line; a ValueError at the end, or for what can be no line."""
        pieces = [self._rest]
        while b"\n" not in pieces[-1]:
            data = await process.read()
            if not data:
                raise ValueError("ended")
            pieces.append(data)
        line, _, self._rest = b"".join(pieces).partition(b"\n")
        return line

    async def _listen(self, process: HostProcess) -> None:
        """Keep the end of what the library prints: it says there why it gives up."""
        while data := await process.read_error():
            log.debug("pyslurm: %s", data.decode(errors="replace").strip())
            self._said = (self._said + data)[-_KEPT_WORDS:]

    async def _end(self) -> None:
        ending, self._process, self._ending = self._ending, None, None
        if ending is not None:
            await ending.aclose()


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def _release(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version: 25.11.2 and 25.11.0-rc1 are of one release, and so are 26.5.0 and 26.05.1."""
    return tuple(int(number) for number in version.split(".")[:2] if number.isdecimal())
