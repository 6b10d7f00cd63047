"""The way to one slurmrestd: HTTP over TCP or a unix socket, the token, and the version of the API that both sides speak.

By httpx and not by aiohttp: slurmrestd 26.05 sends more than the Content-Length of its error answers says, and a parser as
strict as aiohttp's then gives nothing of the answer.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from ...errors import SlurmletError, SlurmUnavailableError, TransportError
from ...metrics import counted_command
from .failures import Answer
from .tokens import Tokens, weakness

VERSIONS = range(45, 37, -1)
"""v0.0.45 (Slurm 26.05) down to v0.0.38 (22.05): the newest that slurmrestd has is spoken."""
_UNIX = "unix:"
_CONNECTIONS = 16
_CONNECT_SECONDS = 15.0
_PING_SECONDS = 30.0
# Shorter than any proxy's patience: a request on a connection that the other side has just closed is of unknown outcome.
_IDLE_SECONDS = 10.0


# Several values of one name are a list: of the commas that slurmrestd documents it takes none.
Query = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Address:
    """Where slurmrestd listens: ``http(s)://HOST:PORT`` or ``unix:/PATH``. ``ca_file``: whom to believe, for https."""

    url: str
    ca_file: str | None = None

    @property
    def base(self) -> str:
        """The beginning of every URL."""
        return "http://slurmrestd" if self.url.startswith(_UNIX) else self.url.rstrip("/")

    def client(self) -> httpx.AsyncClient:
        """Make what opens connections."""
        limits = httpx.Limits(max_connections=_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS)
        if self.url.startswith(_UNIX):
            transport = httpx.AsyncHTTPTransport(uds=self.url.removeprefix(_UNIX), limits=limits)
        else:
            secure = ssl.create_default_context(cafile=self.ca_file)
            transport = httpx.AsyncHTTPTransport(verify=secure, limits=limits, trust_env=False)
        return httpx.AsyncClient(transport=transport, trust_env=False)


class Connection:
    """Asks slurmrestd as one user. Connections are opened when needed and used again."""

    def __init__(self, address: Address, tokens: Tokens, *, user: str) -> None:
        self._address = address
        self._tokens = tokens
        self._user = user
        self._client: httpx.AsyncClient | None = None
        self._version: int | None = None
        self._negotiation = asyncio.Lock()

    async def version(self) -> int:
        """Return the API version in use, 38 for v0.0.38; asked for once. Raises SlurmUnavailableError."""
        async with self._negotiation:
            if self._version is None:
                for version in VERSIONS:
                    answer = await self._send("GET", f"/slurm/v0.0.{version}/ping", (), None, _PING_SECONDS)
                    if not (answer.no_such_path or answer.body or answer.unauthorized):
                        raise SlurmUnavailableError(
                            f"what answers at {self._address.url} is no slurmrestd: {answer.words}"
                        )
                    if not answer.no_such_path:
                        self._version = version
                        break
                else:
                    raise SlurmUnavailableError(
                        f"slurmrestd at {self._address.url} speaks none of v0.0.{VERSIONS[0]} to v0.0.{VERSIONS[-1]}"
                    )
            return self._version

    async def get(self, path: str, query: Query = (), *, timeout: float) -> Answer:
        """Ask for something; ``{v}`` in the path is the version. No answer is a SlurmUnavailableError."""
        return await self._ask("GET", path, query, None, timeout, SlurmUnavailableError)

    async def change(self, method: str, path: str, query: Query = (), *, body: Any = None, timeout: float) -> Answer:
        """Change something. No answer to what was sent is a TransportError: whether it happened is unknown."""
        return await self._ask(method, path, query, body, timeout, TransportError)

    async def _ask(
        self, method: str, path: str, query: Query, body: Any, timeout: float,
        unanswered: Callable[[str], SlurmletError],
    ) -> Answer:  # fmt: skip
        for attempt in (1, 2):
            version = await self.version()
            target = path.replace("{v}", f"v0.0.{version}")
            answer = await self._send(method, target, query, body, timeout, unanswered)
            if answer.unauthorized:
                self._tokens.refused()
            elif answer.no_such_path:
                self._version = None  # another Slurm answers now
            else:
                return answer
            if attempt == 2 or not (answer.unauthorized or answer.no_such_path):
                break
        if answer.unauthorized:
            token = await self._tokens.token()
            why = f": {weakness(token, self._user, time.time())}" if token else ""
            raise SlurmUnavailableError(
                f"slurmrestd at {self._address.url} refuses {self._user}'s token ({self._tokens.source}; it says: "
                f"{answer.words}){why}"
            )
        return answer

    async def _send(
        self, method: str, path: str, query: Query, body: Any, timeout: float,
        unanswered: Callable[[str], SlurmletError] = SlurmUnavailableError,
    ) -> Answer:  # fmt: skip
        token = await self._tokens.token()
        headers = {"X-SLURM-USER-NAME": self._user} | ({"X-SLURM-USER-TOKEN": token} if token else {})
        # slurmrestd takes no slash or colon as it is.
        words = "&".join(f"{name}={quote(value, safe='')}" for name, value in query)
        target = f"{path}?{words}" if words else path
        if self._client is None:
            self._client = self._address.client()
        limits = httpx.Timeout(timeout, connect=_CONNECT_SECONDS)
        try:
            with counted_command("/".join(path.split("/")[1:4:2])) as statuses:  # slurm/jobs of /slurm/v0.0.45/jobs
                async with asyncio.timeout(timeout + _CONNECT_SECONDS):
                    response = await self._client.request(
                        method, self._address.base + target, headers=headers, json=body, timeout=limits
                    )
                statuses.append(0 if response.is_success else response.status_code)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:  # nothing was sent
            raise SlurmUnavailableError(f"can't reach slurmrestd at {self._address.url}: {_why(error)}") from error
        except (httpx.HTTPError, TimeoutError) as error:
            raise unanswered(f"slurmrestd at {self._address.url}, {method} {path}: {_why(error)}") from error
        return await _answer((method, target), response.status_code, response.content)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


_LARGE = 256 * 1024


async def _answer(asked: tuple[str, ...], status: int, text: bytes) -> Answer:
    try:
        # Thousands of jobs are tens of MiB of JSON: that must not hold up the Lease.
        body = await asyncio.to_thread(json.loads, text) if len(text) > _LARGE else json.loads(text)
    except ValueError:
        body = None
    fine = isinstance(body, dict)
    return Answer(asked, status, body if fine else {}, "" if fine else text[:2000].decode(errors="replace"))
