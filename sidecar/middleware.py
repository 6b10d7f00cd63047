"""What every request passes: who asks, and the one table from errors to answers."""

import asyncio
import hmac
import json
import logging
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry, Counter

from slurm_plugin.errors import ConfigurationError, SlurmletError

from . import failures

log = logging.getLogger(__name__)

_OPEN = frozenset({"/healthz", "/readyz"})


class TokenFile:
    """The tokens that are believed, one a line; read again when the file changes."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._seen: tuple[int, int, int] | None = None
        self._tokens: tuple[bytes, ...] = ()

    def tokens(self) -> tuple[bytes, ...]:
        """Return them. Raises ConfigurationError where the file can't be read or holds none."""
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen != self._seen:
                self._tokens = tuple(line.strip() for line in self._path.read_bytes().splitlines() if line.strip())
                self._seen = seen
        except OSError as error:
            raise ConfigurationError(f"token_file: {self._path}: {error.strerror}") from error
        if not self._tokens:
            raise ConfigurationError(f"token_file: {self._path}: holds no token")
        return self._tokens


def authentication(tokens: TokenFile | None) -> Middleware:
    """Return what lets through only who knows a token; None: TLS, or the socket's mode, has decided already."""

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if tokens is not None and request.path not in _OPEN:
            kind, _, given = request.headers.get("Authorization", "").partition(" ")
            known = await asyncio.to_thread(tokens.tokens)
            # Every token is compared, so that the time taken tells nothing.
            fits = [hmac.compare_digest(given.encode(errors="replace"), token) for token in known]
            if kind.lower() != "bearer" or not any(fits):
                return answer(401, {"error": "Unauthorized", "message": "a bearer token of the sidecar's is needed"})
        return await handler(request)

    return authenticate


def answer(status: int, body: object) -> web.Response:
    """Return a JSON answer."""
    return web.json_response(body, status=status, dumps=lambda data: json.dumps(data, ensure_ascii=False))


def counting(registry: CollectorRegistry) -> Middleware:
    """Return what counts requests and turns errors into answers."""
    requests = Counter(
        "slurmlet_sidecar_requests_total",
        "Answers by path and status.",
        ("method", "path", "status"),
        registry=registry,
    )

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
        except SlurmletError as error:
            response = answer(failures.status(error), failures.to_json(error))
            log.warning("%s %s: %s", request.method, request.path, error)
        except ValueError as error:
            response = answer(400, {"error": "BadRequest", "message": str(error)})
        except web.HTTPException as error:
            response = answer(error.status, {"error": "BadRequest", "message": error.reason})
            if "Allow" in error.headers:  # RFC 9110: a 405 names the methods there are
                response.headers["Allow"] = error.headers["Allow"]
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            response = answer(500, {"error": "HostError", "message": "the sidecar failed; its log says why"})
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else "none"
        requests.labels(request.method, path, str(response.status)).inc()
        return response

    return count
