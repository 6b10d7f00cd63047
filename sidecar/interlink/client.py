"""Requests to an interLink plugin or API server: one method per operation, errors of ours.

The two differ in their create bodies, in the verb of delete (the API server takes DELETE, plugins POST) and in how they
are pinged. GET requests carry JSON bodies: so interLink's own programs speak.
"""

import json
import ssl
from collections.abc import AsyncGenerator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp

from slurm_plugin.contract import LogOptions, PodContent
from slurm_plugin.errors import (
    ConfigurationError,
    HostError,
    PodNotFoundError,
    SlurmUnavailableError,
    SubmissionRejectedError,
    TransportError,
    shorten,
)
from slurm_plugin.pod import Pod

from . import wire
from .config import InterLinkSettings

_CONNECT_SECONDS = 15.0


class InterLinkClient:
    """One plugin. Connections are kept and shared."""

    def __init__(self, settings: InterLinkSettings) -> None:
        self._settings = settings
        unix, _, path = settings.url.partition("unix://")
        self._base = settings.url.rstrip("/") if unix else "http://plugin"
        self._socket = path if not unix else ""
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            limit = self._settings.concurrent_requests * 2
            if self._socket:
                connector: aiohttp.BaseConnector = aiohttp.UnixConnector(self._socket, limit=limit)
            else:
                connector = aiohttp.TCPConnector(limit=limit, ssl=self._tls())
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session

    def _tls(self) -> ssl.SSLContext | bool:
        settings = self._settings
        if not settings.url.startswith("https:"):
            return True
        try:
            context = ssl.create_default_context(cafile=settings.ca_file)
            if settings.certificate is not None:
                context.load_cert_chain(settings.certificate.certificate_file, settings.certificate.key_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"interlink: certificates: {error}") from error
        return context

    def _headers(self) -> dict[str, str]:
        """Return the headers; the token file is read each time, for somebody may renew it."""
        headers = {"Content-Type": "application/json"}
        if self._settings.token_file is not None:
            try:
                token = Path(self._settings.token_file).read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"interlink.token_file: {error}") from error
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _request(self, method: str, path: str, body: object, *, total: float | None) -> Any:
        timeout = aiohttp.ClientTimeout(total=total, connect=_CONNECT_SECONDS)
        data = None if body is None else json.dumps(body).encode()
        return self._open().request(method, self._base + path, data=data, headers=self._headers(), timeout=timeout)

    async def _ask(self, method: str, path: str, body: object) -> tuple[int, bytes]:
        """Return the answer's code and body. Raises TransportError when none came, SlurmUnavailableError: nothing was sent."""
        try:
            async with self._request(method, path, body, total=self._settings.request_timeout_seconds) as answer:
                return answer.status, await answer.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise SlurmUnavailableError(f"interLink at {self._settings.url} can't be reached: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransportError(
                f"interLink at {self._settings.url}: {path}: {error or 'no answer in time'}"
            ) from error

    async def create(self, pod: Pod, content: PodContent) -> str:
        """Return the job's id.

        Raises SubmissionRejectedError with the plugin's words, SlurmUnavailableError (503, or nothing was sent: later), or
        TransportError.
        """
        made = wire.create_request if self._settings.speaks == "api" else wire.retrieved_pod
        code, answer = await self._ask("POST", "/create", made(pod, content))
        if code == HTTPStatus.SERVICE_UNAVAILABLE:
            raise SlurmUnavailableError(f"interLink at {self._settings.url}: {_words(code, answer)}")
        if code != HTTPStatus.OK:
            raise SubmissionRejectedError(_words(code, answer))
        try:
            return wire.created_job(json.loads(answer), pod.metadata.uid)
        except ValueError as error:
            raise SubmissionRejectedError(f"{error}") from error

    async def delete(self, pod: Pod) -> None:
        """Delete a pod. HostError with the plugin's words."""
        body = pod.model_dump(mode="json", by_alias=True, exclude_unset=True)
        code, answer = await self._ask("DELETE" if self._settings.speaks == "api" else "POST", "/delete", body)
        if code not in (200, 202, 404):
            raise HostError(f"interLink did not delete the pod: {_words(code, answer)}")

    async def status(self, pod: Pod) -> wire.Answer | None:
        """Return what the plugin says of a pod; None if it says nothing of it."""
        body = pod.model_dump(mode="json", by_alias=True, exclude_unset=True)
        code, answer = await self._ask("GET", "/status", [body])
        if code != 200:
            raise HostError(f"interLink's status of pod {pod.metadata.uid}: {_words(code, answer)}")
        try:
            return wire.answer_for(json.loads(answer or b"null"), pod.metadata.uid)
        except ValueError as error:
            raise HostError(f"interLink's status of pod {pod.metadata.uid}: {error}") from error

    async def ping(self) -> dict[str, str]:
        """Return the resources that it tells; empty if it does not tell. Raises HostError, TransportError."""
        if self._settings.speaks == "api":
            code, answer = await self._ask("POST", "/pinglink", None)
        else:
            code, answer = await self._ask("GET", "/status", [])
        if code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            token = self._settings.token_file or "none is given: interlink.token_file"
            raise HostError(f"interLink at {self._settings.url} does not believe our token ({token})")
        if code != 200:
            raise HostError(f"interLink is not well: {_words(code, answer)}")
        try:
            return dict(wire.ping_resources(json.loads(answer)))
        except ValueError:
            return {}  # "any text" is an answer to a ping

    async def logs(self, pod: Pod, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        """Yield a container's log as the plugin streams it. Raises PodNotFoundError with the plugin's words."""
        total = None if options.follow else self._settings.request_timeout_seconds
        left = options.limit_bytes
        try:
            body = wire.log_request(pod, container, options)
            async with self._request("GET", "/getLogs", body, total=total) as answer:
                if answer.status != 200:
                    raise PodNotFoundError(_words(answer.status, await answer.read()))
                async for chunk in answer.content.iter_any():
                    yield chunk if left is None else chunk[:left]
                    left = None if left is None else left - len(chunk)
                    if left is not None and left <= 0:
                        return
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransportError(
                f"interLink at {self._settings.url}: /getLogs: {error or 'no answer in time'}"
            ) from error

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _words(code: int, body: bytes) -> str:
    return shorten(f"{code}: {body.decode(errors='replace').strip() or 'without a word'}", 1000)
