"""The Host contract: runs an argv, stages, reads, writes and follows files, as exactly one user."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ran to its end. ``exit_code`` is 128 + signal when a signal ended it."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file to write: a path relative to the staged directory, its bytes and its permission bits."""

    path: str
    data: bytes
    mode: int = 0o600


@dataclass(frozen=True, slots=True)
class StagedLink:
    """A symbolic link to make: a relative path, and the target as text."""

    path: str
    target: str


StagedEntry = StagedFile | StagedLink


class HostProcess(Protocol):
    """A running command with its streams. Reading is back-pressured; b"" is the end."""

    async def write(self, data: bytes) -> None:
        """Write to its standard input."""

    async def close_stdin(self) -> None:
        """Half-close: the command reads an end of file."""

    async def read(self) -> bytes:
        """Read some of its standard output."""

    async def read_error(self) -> bytes:
        """Read some of its standard error."""

    async def wait(self) -> int:
        """Wait for its end; the exit code, 128 + signal when a signal ended it."""


class Host(Protocol):
    """One user on one machine.

    Every call raises TransportError when the connection fails (outcome unknown), HostError when the machine refuses
    (the message is the machine's own words), and takes its time-out in seconds.
    """

    async def user(self) -> str:
        """Return the name of the user that this Host acts as, as the machine itself says it."""

    async def home(self) -> str:
        """Return that user's home directory."""

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        """Run a command to its end in a clean environment (PATH, HOME, USER, LOGNAME, SHELL, LANG=C.UTF-8).

        Raises TimeoutError after ``timeout`` (the command is killed; what it did is unknown), HostError if it can't be started.
        """

    def process(self, argv: Sequence[str]) -> AbstractAsyncContextManager[HostProcess]:
        """Start a command with streams; leaving the context kills it if it still runs."""

    async def stage(self, directory: str, entries: Sequence[StagedEntry]) -> bool:
        """Make ``directory`` (0700) with these entries, all or nothing; False if it already existed (then untouched).

        Missing parents are made 0700; a parent that is a symbolic link, another user's, or writable by others is a HostError.
        """

    async def swap_link(self, path: str, target: str) -> None:
        """Make ``path`` a symbolic link to ``target``, atomically, whatever link it was before."""

    async def write(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        """Write a whole file, atomically (a temporary name in the same directory, then rename)."""

    async def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes | None:
        """Read a file, or part of it; None if there is no such file."""

    async def list_directory(self, path: str) -> tuple[str, ...] | None:
        """Return the names in a directory, sorted; None if there is no such directory."""

    async def remove_tree(self, path: str) -> None:
        """Remove a directory and everything in it, following no symbolic link; none there is a no-op."""

    def follow(self, path: str, *, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield what a growing file holds from ``offset`` on, within 0.1 s of its being written; the caller closes it.

        Waits for a file that does not exist yet; one that is shorter than ``offset`` is another one, and begins anew. Back-pressured: a slow consumer holds a bounded amount.
        """

    async def close(self) -> None:
        """Close the connection; processes started through it that still run are killed."""
