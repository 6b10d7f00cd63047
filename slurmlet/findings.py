"""What `slurmlet doctor` finds: one line for each check, and the checks of files that both of its patients have."""

import asyncio
import datetime
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from sidecar.config import PairSettings
from sidecar.middleware import TokenFile
from sidecar.tls import server_context
from slurm_plugin.errors import HostError, SlurmletError

SECONDS = 90.0
"""The most that one check takes."""
_SOON_DAYS = 14


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. ``said``: what is there, or what is to be mended."""

    fine: bool
    what: str
    said: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.fine else 'FAIL'}  {self.what}: {self.said}"


async def attempt(what: str, check: Awaitable[str]) -> Finding:
    """Make a check: what it returns is what is there, a SlurmletError is what is to be mended."""
    try:
        async with asyncio.timeout(SECONDS):
            return Finding(True, what, await check)
    except SlurmletError as error:
        return Finding(False, what, str(error))
    except TimeoutError:
        return Finding(False, what, f"no answer within {SECONDS:g} s")


async def certificate(path: str) -> str:
    """Say how long a certificate is good. Raises HostError for one that is not there, or not for long."""
    try:
        found = x509.load_pem_x509_certificate(await asyncio.to_thread(Path(path).read_bytes))
    except (OSError, ValueError) as error:
        raise HostError(f"{path}: {error}") from error
    left = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    if left.days < _SOON_DAYS:
        raise HostError(f"{path}: is good until {found.not_valid_after_utc:%Y-%m-%d %H:%M}: renew it")
    return f"{path}, good for {left.days} days"


async def pair(settings: PairSettings, client_ca_file: str | None = None) -> str:
    """Say how long a certificate is good. Raises HostError also where its key does not fit, or the clients' CA is none."""
    said = await certificate(settings.certificate_file)
    server_context(settings, client_ca_file)
    return said


async def tokens(path: str) -> str:
    """Say how many tokens a file holds. Raises ConfigurationError if it is none."""
    return f"{path} holds {len(await asyncio.to_thread(TokenFile(path).tokens))}"


async def directory(path: str) -> str:
    """Say that files can be made in a directory of this machine. Raises HostError if they can't."""
    try:
        await asyncio.to_thread(_make_file, path)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error
    return f"{path} can be written"


def _make_file(path: str) -> None:
    with tempfile.TemporaryFile(dir=path):
        pass
