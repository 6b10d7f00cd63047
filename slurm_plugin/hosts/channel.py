"""A byte channel to a new host agent, and how the agent gets there: nothing has to be installed first.

The command that a Channel runs is a constant of ours: a Python finds our archive on its standard input, checks its
hash, and becomes the agent. What a login shell prints before the agent's magic line is dropped.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from ..archive import Archive
from ..errors import HostError, TransportError
from ..hostagent.protocol import MAGIC

# Exit codes of a shell (or of a prefix such as setpriv) that can't find or start a Python, and of one too old.
NO_PYTHON = frozenset({126, 127})

_MAX_NOISE = 64 << 10

# One line without single quotes, backslashes and exclamation marks: it means the same to every login shell.
_BOOTSTRAP = (
    'import sys;sys.version_info<(3,6) and sys.exit("Python 3.6 or later is needed, this is "+sys.version);'
    "import hashlib,os;"
    "data=sys.stdin.buffer.read(int(sys.argv[1]));"
    'hashlib.sha256(data).hexdigest()==sys.argv[2] or sys.exit("the host agent arrived damaged");'
    # A nameless file: nothing to clean up, nothing for others to find. memfd_create is new in 3.8.
    'file=os.fdopen(os.memfd_create("slurmlet"),"w+b") if hasattr(os,"memfd_create")'
    ' else __import__("tempfile").TemporaryFile();'
    "file.write(data);file.flush();del data;"
    'sys.path.insert(0,"/proc/self/fd/%d"%file.fileno());'
    "from slurm_plugin.hostagent.server import main;"
    "main()"
)


class Channel(Protocol):
    """A running agent's standard input and output."""

    async def read(self) -> bytes:
        """Return some bytes as they come; b"" at the end, also after a failure."""

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while too much is unsent. Raises TransportError. One call at a time."""

    async def close(self) -> None:
        """End the agent and everything it started. May be called more than once."""

    async def ended(self) -> tuple[int | None, str]:
        """After the end: the exit code, if known, and the last of what was printed on standard error."""


class StreamChannel:
    """The half of a Channel that reads and writes, where its line is a socket of ours."""

    READ_BYTES = 256 << 10
    LIMIT = 4 * READ_BYTES  # of a reader's buffer

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        """Return some bytes as they come; b"" at the end, also when the other side died with our bytes unread."""
        try:
            return await self._reader.read(self.READ_BYTES)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while too much is unsent. TransportError once the other side reads no more."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise TransportError(f"the host agent reads no more: {error}") from error


def agent_argv(python: str, archive: Archive) -> tuple[str, ...]:
    """Return the command that becomes the agent of this archive."""
    return (python, "-I", "-S", "-B", "-c", _BOOTSTRAP, str(len(archive.data)), archive.digest)


async def greet(channel: Channel, archive: Archive) -> bytes:
    """Send the archive and wait for the agent's magic line; returns what came after it.

    Raises HostError if there is no agent to be had that way, saying why; TransportError if the channel broke.
    """
    sending = asyncio.create_task(channel.write(archive.data), name="send the host agent")
    try:
        found, rest = await skip_noise(channel)
        if not found:
            raise await _no_agent(channel, rest)
        await sending
    finally:
        sending.cancel()
        await asyncio.wait({sending})
        if not sending.cancelled():
            sending.exception()  # an agent that does not start explains itself better than the broken pipe
    return rest


async def skip_noise(channel: Channel) -> tuple[bool, bytes]:
    """Read up to the other side's magic line: True and what came after it, or False and all that came instead.

    Raises HostError if it prints without end.
    """
    noise = b""
    while MAGIC not in noise:
        if len(noise) > _MAX_NOISE:
            raise HostError(f"the login printed more than {_MAX_NOISE >> 10} KiB before our program started")
        data = await channel.read()
        if not data:
            return False, noise
        noise += data
    return True, noise.partition(MAGIC)[2]


class NoPythonError(HostError):
    """The Python that was tried is not there, or does not start."""


async def _no_agent(channel: Channel, noise: bytes) -> Exception:
    code, words = await channel.ended()
    said = (words or noise.decode(errors="replace")).strip()[-1000:] or "without a word"
    if code in NO_PYTHON:
        return NoPythonError(said)
    if code is None:
        return TransportError(f"the connection ended before the host agent started: {said}")
    return HostError(f"the host agent did not start (exit code {code}): {said}")


async def greet_first(opener: "ChannelOpener", pythons: Sequence[str], archive: Archive) -> tuple[Channel, bytes]:
    """Open a channel to an agent with the first Python that there is. Raises HostError if there is none."""
    tried = []
    for python in pythons:
        try:
            channel = await opener(agent_argv(python, archive))
            try:
                return channel, await greet(channel, archive)
            except BaseException:
                await channel.close()
                raise
        except NoPythonError as error:
            tried.append(f"{python}: {error}")
    raise HostError(f"no Python to run the host agent with; configure one. Tried {'; '.join(tried)}")


class ChannelOpener(Protocol):
    """Makes a channel that runs an argv."""

    async def __call__(self, argv: tuple[str, ...]) -> Channel:
        """Start ``argv``; NoPythonError if its program is not there, TransportError or HostError as for any Host call."""
