"""Where the JSON Web Token for slurmrestd comes from (``jwt.html``). A token is never logged and never kept in a file by us."""

import asyncio
import base64
import datetime
import json
import os
import re
import time
from pathlib import Path
from typing import Protocol

from ...errors import ConfigurationError, SlurmUnavailableError, shorten
from ..command import CommandHost

_TIMEOUT = 60.0
_JWT = re.compile(r"(?:SLURM_JWT=)?([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*)")


class Tokens(Protocol):
    """Gives the token to use now."""

    @property
    def source(self) -> str:
        """Where it comes from, for messages."""

    async def token(self) -> str | None:
        """Return the token; None where slurmrestd needs none."""

    def refused(self) -> None:
        """Hear that the last one was refused: get another next time."""


class NoTokens:
    """For a unix socket behind which slurmrestd asks the kernel who calls (``rest_auth/local``)."""

    source = "none is sent (authentication: local)"

    async def token(self) -> str | None:
        """See Tokens."""
        return None

    def refused(self) -> None:
        """See Tokens."""


class TokenFile:
    """A file that somebody else renews; read again when it changes. It may hold ``SLURM_JWT=…``, as scontrol prints it."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self.source = path
        self._seen: tuple[int, int, int] | None = None
        self._token = ""

    async def token(self) -> str | None:
        """See Tokens. Raises ConfigurationError where the file holds none."""
        return await asyncio.to_thread(self._read)

    def refused(self) -> None:
        """See Tokens."""
        self._seen = None

    def _read(self) -> str:
        try:
            status = os.stat(self._path)
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen != self._seen:
                self._token = _parse(self._path.read_text("ascii", "replace"), str(self._path))
                self._seen = seen
        except OSError as error:
            raise SlurmUnavailableError(f"can't read slurmrestd's token {self._path}: {error.strerror}") from error
        return self._token


class HostTokens:
    """Tokens that ``scontrol token`` gives to the user on the Host; renewed at half of their life.

    The Host is there anyway, for staging; only slurmctld's key signs, so nothing has to be kept secret in between.
    """

    source = "scontrol token"

    def __init__(self, host: CommandHost, *, lifespan_seconds: int) -> None:
        self._host = host
        self._lifespan = lifespan_seconds
        self._token = ""
        self._renew_at = 0.0
        self._lock = asyncio.Lock()

    async def token(self) -> str | None:
        """See Tokens. Raises SlurmUnavailableError where scontrol gives none."""
        async with self._lock:
            if time.monotonic() >= self._renew_at:
                asked = time.monotonic()
                self._token = await self._ask()
                self._renew_at = asked + self._lifespan / 2
            return self._token

    def refused(self) -> None:
        """See Tokens."""
        self._renew_at = 0.0

    async def _ask(self) -> str:
        argv = ("scontrol", "token", f"lifespan={self._lifespan}")
        try:
            done = await self._host.run(argv, timeout=_TIMEOUT)
        except TimeoutError as error:
            raise SlurmUnavailableError(f"scontrol token gave no answer within {_TIMEOUT:g} s") from error
        if done.exit_code:
            said = shorten((done.stderr or done.stdout).decode(errors="replace").strip(), 300)
            raise SlurmUnavailableError(
                f"scontrol token failed: {said}; does slurm.conf have AuthAltTypes=auth/jwt? (else use token_file)"
            )
        return _parse(done.stdout.decode(errors="replace"), "scontrol token")


def weakness(token: str, user: str, now: float) -> str:
    """Say what is wrong with a token that was refused, as far as it shows in it. ``now``: epoch seconds. Pure."""
    try:
        encoded = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
        until, name = claims.get("exp"), claims.get("sun") or claims.get("username") or user
    except (IndexError, ValueError, AttributeError):
        return "it makes no sense"
    if isinstance(until, (int, float)) and until <= now:
        ended = datetime.datetime.fromtimestamp(min(until, 2**32), datetime.UTC)
        return f"it expired at {ended:%Y-%m-%d %H:%M:%S} UTC: renew it"
    if name != user:
        return f"it is {str(name)!r:.60}'s"
    return f"is it of this cluster, signed with the jwt_key that its slurmctld has now, and may {user} still use Slurm?"


def _parse(text: str, source: str) -> str:
    found = _JWT.fullmatch(text.strip())
    if found is None:
        raise ConfigurationError(
            f"{source} holds no JSON Web Token: expected three parts with dots between, on one line"
        )
    return found[1]
