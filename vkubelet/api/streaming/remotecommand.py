"""exec and attach over streams of either protocol: who reads what, half-closes, sizes of terminals, the end.

The order at the end is what the clients rely on: first all output, then the status, then the streams close. Source:
``k8s.io/kubelet/pkg/cri/streaming/remotecommand`` of Kubernetes 1.36.
"""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from slurm_plugin.contract import ContainerProcess
from slurm_plugin.errors import SlurmletError

from . import status
from .channels import Incoming, Outgoing, pour
from .failures import unexpected_told
from .negotiation import RequestRefusedError
from .together import stop, together

log = logging.getLogger(__name__)

_FLAT_OBJECT = re.compile(rb"\{[^{}]*\}")
_LONGEST_RESIZE = 256
_LARGEST_TERMINAL = 0xFFFF


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which streams the client asks for."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


def wanted(query: Mapping[str, str]) -> Wanted:
    """Read the parameters; a terminal has no stderr of its own. Raises RequestRefusedError."""
    stdin, stdout, stderr, tty = (query.get(name) == "1" for name in ("input", "output", "error", "tty"))
    stderr = stderr and not tty
    if not (stdin or stdout or stderr):
        raise RequestRefusedError(400, "you must specify at least 1 of stdin, stdout, stderr")
    return Wanted(stdin, stdout, stderr, tty)


@dataclass(frozen=True, slots=True)
class Streams:
    """The streams of one command; None is not wanted. ``version`` names how the status is said."""

    version: str
    error: Outgoing
    stdin: Incoming | None = None
    stdout: Outgoing | None = None
    stderr: Outgoing | None = None
    resize: Incoming | None = None


async def carry(process: AbstractAsyncContextManager[ContainerProcess], streams: Streams, *, what: str) -> None:
    """Run a process with its streams and tell its end. ConnectionError once the client is gone.

    Whatever the provider raises is told: a client takes an error stream that ends empty for exit code 0.
    """
    try:
        with unexpected_told(what):
            async with process as running:
                result = status.ended(await _run(running, streams))
    except SlurmletError as error:
        log.info("%s: %s", what, error)
        result = status.failed(f"error executing command in container: {error}")
    except ConnectionError as error:
        # The client's end most likely, and then the words go nowhere.
        log.info("%s: broken off: %s", what, error)
        result = status.failed(f"the connection to the command was lost: {error}")
    for stream in (streams.stdout, streams.stderr):
        if stream is not None:
            await stream.close()
    if said := status.encode(result, streams.version):
        await streams.error.write(said)
    await streams.error.close()


async def _run(process: ContainerProcess, streams: Streams) -> int:
    """Carry bytes until the process and its output have ended; its exit code. Raises what the provider raises."""
    ending: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    feeding = asyncio.create_task(_client_half(process, streams), name="standard input and sizes")
    output = together(
        _drain(process.read, streams.stdout),
        _drain(process.read_error, streams.stderr),
        _end(process, ending),
        name="command",
    )
    running = asyncio.create_task(output, name="output and end")
    try:
        await asyncio.wait((feeding, running), return_when=asyncio.FIRST_COMPLETED)
        if feeding.done():
            feeding.result()  # or a process would wait for ever for input that we failed to give it
        await running
        return ending.result()
    finally:
        await stop(feeding, running)


async def _client_half(process: ContainerProcess, streams: Streams) -> None:
    """Carry what the client says, for as long as somebody listens; that it stops is no error of the command's."""
    try:
        parts: list[Coroutine[Any, Any, None]] = []
        if streams.stdin is not None:
            parts.append(pour(streams.stdin, process.write, process.close_stdin, closed="standard input is closed"))
        if streams.resize is not None:
            parts.append(_resize(process, streams.resize))
        await together(*parts, name="standard input or sizes")
    except (SlurmletError, ConnectionError) as error:
        log.debug("standard input or sizes: %s", error)


async def _end(process: ContainerProcess, ending: "asyncio.Future[int]") -> None:
    ending.set_result(await process.wait())


async def _drain(read: Callable[[], Awaitable[bytes]], stream: Outgoing | None) -> None:
    """Send what a process writes; what nobody wants is read all the same, or it would block."""
    while data := await read():
        if stream is not None:
            await stream.write(data)


async def _resize(process: ContainerProcess, stream: Incoming) -> None:
    """Tell the terminal its sizes: a flat JSON object each, one after the other."""
    text = b""
    while data := await stream.read():
        text += data
        end = 0
        for found in _FLAT_OBJECT.finditer(text):
            end = found.end()
            if (size := _size(found.group())) is not None:
                await process.resize(*size)
        text = text[end:][-_LONGEST_RESIZE:]


def _size(text: bytes) -> tuple[int, int] | None:
    try:
        value = json.loads(text)
        columns, rows = value["Width"], value["Height"]
    except (ValueError, KeyError):
        return None
    fit = all(isinstance(each, int) and 0 < each <= _LARGEST_TERMINAL for each in (columns, rows))
    return (columns, rows) if fit else None
