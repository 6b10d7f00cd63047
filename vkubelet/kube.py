"""The only module that speaks to the API server: plain JSON in, plain JSON out.

Generated model classes are deliberately not used: 5,000 pods take 4.4 s and 186 MB as models, 0.12 s as JSON. Every
failure is one class of ``errors``, mapped here once; retrying is the caller's decision, except for a credential that
expired, which is loaded again once.

``follow`` is a list and a watch that never ends: it goes on from the last resource version, lists again when that is
too old, and waits with jitter when the server is away.
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

import aiohttp

from slurm_plugin.errors import ConfigurationError, shorten

from .credentials import Access
from .errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    KubeError,
    NotFoundError,
    ReplacedError,
    UnauthorizedError,
    UnavailableError,
)
from .metrics import CountedRequest

log = logging.getLogger(__name__)

Json = dict[str, Any]
T = TypeVar("T")

_CALL = aiohttp.ClientTimeout(total=30, sock_connect=10)
_PAGE = 500
# The server ends a watch, and a dead connection is one that does not end: what a router has forgotten says nothing. So
# watches are short. One costs the server little when it goes on where the last one was; jittered, lest all begin at once.
_WATCH_SECONDS = (18, 24)
_WATCH_SILENCE_SECONDS = 5
_SHORTEST_WATCH_SECONDS = 1.0
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_RELOAD_SECONDS = 10.0
_LOAD_AGAIN_SECONDS = 5.0
_MESSAGE = 400
_METADATA_ALONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class Patch(StrEnum):
    """The kinds of PATCH."""

    STRATEGIC = "application/strategic-merge-patch+json"
    MERGE = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """Everything there is at one moment: what is not in it does not exist."""

    items: tuple[T, ...]


@dataclass(frozen=True, slots=True)
class Changed(Generic[T]):
    """One object after a change; ``deleted`` says that it is as it last was."""

    item: T
    deleted: bool


class Kube:
    """A connection to one API server. Every method raises KubeError's classes and nothing else."""

    def __init__(self, load: Callable[[], Awaitable[Access]], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._load = load
        self._clock = clock
        self._access: Access | None = None
        self._session: aiohttp.ClientSession | None = None
        self._loading = asyncio.Lock()
        self._loaded_at = 0.0
        self._failed: tuple[float, str] | None = None

    async def close(self) -> None:
        """Close all connections; what waits on them fails."""
        if self._session is not None:
            await self._session.close()
        self._session = None

    async def get(self, path: str, **parameters: str) -> Json:
        """Return one object."""
        return await self._call("GET", path, parameters=parameters)

    async def get_metadata(self, path: str) -> Json:
        """Return an object's metadata alone, as the API server's own cache has it: a moment late, and cheap."""
        return await self._call("GET", path, parameters={"resourceVersion": "0"}, accept=_METADATA_ALONE)

    async def create(self, path: str, body: Json) -> Json:
        """Create an object and return it. Raises AlreadyExistsError."""
        return await self._call("POST", path, body=body)

    async def patch(self, path: str, body: Json, *, kind: Patch = Patch.STRATEGIC) -> Json:
        """Patch an object and return it. With ``metadata.uid`` in the body: ReplacedError if it is another one."""
        return await self._call("PATCH", path, body=body, content_type=kind)

    async def delete(self, path: str, *, uid: str, grace_seconds: int) -> None:
        """Delete the object that has this UID. Raises NotFoundError, or ReplacedError if the name has another one."""
        options = {"gracePeriodSeconds": grace_seconds, "preconditions": {"uid": uid}}
        await self._call("DELETE", path, body={"kind": "DeleteOptions", "apiVersion": "v1", **options})

    async def list_all(self, path: str, prepare: Callable[[Json], T], **parameters: str) -> tuple[tuple[T, ...], str]:
        """Return all objects, each prepared as soon as it is read, and the list's resource version. Read in pages."""
        items: list[T] = []
        asked = {**parameters, "limit": str(_PAGE)}
        while True:
            page = await self._call("GET", path, parameters=asked)
            items += [prepare(item) for item in page.get("items") or ()]
            more = page["metadata"].get("continue")
            if not more:
                return tuple(items), str(page["metadata"]["resourceVersion"])
            asked["continue"] = more

    async def follow(
        self, path: str, prepare: Callable[[Json], T], **parameters: str
    ) -> AsyncGenerator[Listed[T] | Changed[T], None]:
        """Yield what is there, then every change, for ever; after a gap everything anew. ``prepare`` must be quick.

        Raises nothing of the API server's: whatever fails is logged and tried again.
        """
        version: str | None = None
        failures = 0
        while True:
            try:
                if version is None:
                    items, version = await self.list_all(path, prepare, **parameters)
                    yield Listed(items)
                started = time.monotonic()
                async with aclosing(self._watch(path, version, parameters)) as events:
                    async for kind, item in events:
                        failures = 0
                        version = str(item["metadata"]["resourceVersion"])
                        if kind != "BOOKMARK":
                            yield Changed(prepare(item), kind == "DELETED")
                if time.monotonic() - started < _SHORTEST_WATCH_SECONDS:
                    raise UnavailableError("the server ended the watch at once")
                failures = 0
            except GoneError as error:
                log.info("listing %s again: %s", path, error)
                version = None
                if failures:  # what was just listed is too old as well: a list is dear
                    await _pause(failures)
                failures += 1
            except KubeError as error:
                level = logging.WARNING if error.transient else logging.ERROR
                log.log(level, "watching %s: %s", path, error)
                await _pause(failures)
                failures += 1

    async def _watch(
        self, path: str, version: str, parameters: Mapping[str, str]
    ) -> AsyncGenerator[tuple[str, Json], None]:
        """Yield events until the server ends the watch. Raises GoneError when ``version`` is too old."""
        seconds = random.randint(*_WATCH_SECONDS)  # noqa: S311  jitter, not a secret
        asked = {
            **parameters, "watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }  # fmt: skip
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=seconds + _WATCH_SILENCE_SECONDS)
        what = f"watch {path}"
        async with self._request("GET", path, what, parameters=asked, timeout=timeout) as response:
            async for line in _lines(response.content):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _error(what, int(event["object"].get("code") or 500), event["object"])
                yield event["type"], event["object"]

    async def _call(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, str] | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Json:
        data = None if body is None else json.dumps(body).encode()
        what = f"{method} {path}"
        async with self._request(
            method, path, what, parameters=parameters or {}, data=data, content_type=content_type, accept=accept
        ) as response:
            result: Json = json.loads(await response.read())
            return result

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        what: str,
        *,
        parameters: Mapping[str, str],
        data: bytes | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: aiohttp.ClientTimeout = _CALL,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and give its good answer; after one 401 with a credential loaded anew."""
        headers = {"Accept": accept} | ({} if data is None else {"Content-Type": content_type})
        for attempt in (1, 2):
            session, access = await self._connected()
            url = access.server + path
            counted = CountedRequest("WATCH" if "watch" in parameters else method, path)
            try:
                async with session.request(
                    method,
                    url,
                    params=dict(parameters),
                    data=data,
                    headers=headers | await access.headers(),
                    timeout=timeout,
                    server_hostname=access.tls_server_name,
                    proxy=access.proxy,
                    allow_redirects=False,
                ) as response:
                    counted.answered(str(response.status))
                    if response.status == 401 and attempt == 1 and await self._renewed(access):
                        continue
                    if response.status >= 300:
                        raise await _refusal(what, response)
                    yield response
                    return
            except (aiohttp.ClientError, TimeoutError, OSError, json.JSONDecodeError) as error:
                counted.answered("none")
                raise UnavailableError(f"{what}: {error or type(error).__name__}") from error
            except RuntimeError as error:  # what aiohttp says of a session that another request has just renewed
                if not session.closed:
                    raise
                raise UnavailableError(f"{what}: {error}") from error

    async def _connected(self) -> tuple[aiohttp.ClientSession, Access]:
        async with self._loading:
            if self._access is None or self._session is None:
                self._access = await self._loaded()
                connector = aiohttp.TCPConnector(ssl=self._access.tls, limit=0)
                self._session = aiohttp.ClientSession(connector=connector, read_bufsize=2**20)
                self._loaded_at = self._clock()
            return self._session, self._access

    async def _loaded(self) -> Access:
        """Load the credential. Who has waited while another's attempt failed gets that one's error, at once."""
        if self._failed is not None and self._clock() - self._failed[0] < _LOAD_AGAIN_SECONDS:
            raise UnauthorizedError(self._failed[1])
        try:
            access = await self._load()
        except ConfigurationError as error:
            # Loaded once already when the agent started: a file that is being replaced, a plugin that fails or hangs.
            self._failed = self._clock(), f"the credential can't be loaded again: {error}"
            raise UnauthorizedError(self._failed[1]) from error
        self._failed = None
        return access

    async def _renewed(self, refused: Access) -> bool:
        """Load the credential again, unless that was just done; whether another try makes sense."""
        async with self._loading:
            if self._access is not refused:
                return True
            if self._clock() - self._loaded_at < _RELOAD_SECONDS:
                return False
            await self.close()
            self._access = None
            return True


async def _pause(failures: int) -> None:
    """Wait before trying again after so many failures before this one."""
    wait = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
    await asyncio.sleep(wait * random.uniform(0.8, 1.2))  # noqa: S311  jitter, not a secret


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield whole lines of any length; a last one without its end is what a cut connection leaves, and is dropped."""
    rest = b""
    async for chunk in content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line


async def _refusal(what: str, response: aiohttp.ClientResponse) -> KubeError:
    body = await response.read()
    try:
        status = json.loads(body)
    except ValueError:
        status = {"message": body.decode(errors="replace")}
    if not isinstance(status, dict):
        status = {}
    return _error(what, response.status, status, retry_after=response.headers.get("Retry-After"))


def _error(what: str, code: int, status: Json, *, retry_after: str | None = None) -> KubeError:
    """Turn a Status of the API server into ours: the one place where codes are read."""
    message = f"{what}: {code} {shorten(str(status.get('message') or status.get('reason') or 'no message'), _MESSAGE)}"
    deleting = what.startswith("DELETE")
    match code:
        case 401:
            return UnauthorizedError(message)
        case 403:
            return ForbiddenError(message)
        case 404:
            return NotFoundError(message)
        case 409 if deleting:
            return ReplacedError(message)
        case 409:
            return (AlreadyExistsError if status.get("reason") == "AlreadyExists" else ConflictError)(message)
        case 410:
            return GoneError(message)
        case 422:
            causes = (status.get("details") or {}).get("causes") or ()
            replaced = any(cause.get("field") == "metadata.uid" for cause in causes)
            return (ReplacedError if replaced else InvalidError)(message)
        case _ if code == 429 or code >= 500:
            return UnavailableError(message, retry_after=_seconds(retry_after))
        case _:
            return KubeError(message)


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdecimal() else None
