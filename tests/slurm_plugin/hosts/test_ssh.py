"""SSH's channel as asyncio sees it; what needs an sshd is tried end to end."""

import asyncio

import paramiko
import pytest

from slurm_plugin.errors import TransportError
from slurm_plugin.hosts.ssh import SSHChannel


class Breaking(paramiko.Channel):
    """A channel whose connection breaks as soon as something is sent or received."""

    def __init__(self, error: Exception) -> None:
        super().__init__(1)
        self.error = error

    def sendall(self, s: object) -> None:
        raise self.error

    def recv(self, nbytes: int) -> bytes:
        raise self.error


class Line:
    def close(self) -> None:
        """Nothing was opened."""


@pytest.mark.parametrize(
    "error",
    [OSError("reset"), EOFError(), paramiko.SSHException("Key-exchange timed out")],
    ids=lambda e: type(e).__name__,
)
async def test_whatever_breaks_a_connection_is_told_to_who_writes_and_ends_what_is_read(error: Exception) -> None:
    channel = SSHChannel(Line(), Breaking(error))  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        with pytest.raises(TransportError, match="SSH takes no more"):
            await channel.write(b"something")
        assert await channel.read() == b""
        await channel.close()
