"""Probes over the network, without a thread: http, https and tcp on the runner's own loop.

Rules: Kubernetes 1.36 ``pkg/probe/http`` (200 to 399 is success, certificates are not verified, redirects within the
host are followed) and ``pkg/probe/tcp`` (connected is success).
"""

import errno
import os
import socket
from typing import Any, Callable, Dict, List, Optional, Tuple
from urllib.parse import urljoin, urlsplit

from .loop import READ, WRITE, Loop
from .plan import Action
from .worker import Emit, Worker

_MOST_BODY = 10 * 1024
_MOST_REDIRECTS = 10
Result = Tuple[bool, str]


class TimedOutError(Exception):
    """The deadline has passed."""


class Connection:
    """One connection with a deadline for everything on it: ``timeout`` seconds from now, or none."""

    def __init__(self, loop: Loop, timeout: Optional[float]) -> None:
        self._loop = loop
        self._deadline = None if timeout is None else loop.now() + timeout
        self._socket: Any = None

    def _left(self) -> Optional[float]:
        """Return the seconds that are left, None for ever. TimedOutError: there are none."""
        if self._deadline is None:
            return None
        left = self._deadline - self._loop.now()
        if left <= 0:
            raise TimedOutError
        return left

    async def _ready(self, events: int) -> None:
        if not await self._loop.ready(self._socket.fileno(), events, self._left()):
            raise TimedOutError

    async def open(self, host: str, port: int) -> None:
        """Connect. OSError: refused, unreachable."""
        family, address = await self._find(host, port)
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        code = self._socket.connect_ex(address)
        if code == errno.EINPROGRESS:
            await self._ready(WRITE)
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    async def _find(self, host: str, port: int) -> Tuple[int, Tuple[Any, ...]]:
        """Return a host's address family and address. OSError: it has none.

        A name is asked for in a child, for a resolver may take longer than any deadline and would hold up everything.
        """
        numeric = _look_up(host, port, socket.AI_NUMERICHOST)
        if "address" in numeric:
            return numeric["family"], numeric["address"]

        def look_up(emit: Emit) -> None:
            emit(_look_up(host, port, 0))

        worker = Worker(self._loop, look_up, lambda _message: None)
        try:
            done = await self._loop.first(worker.result, timeout=self._left())
        finally:
            worker.stop()
        if done is None:
            raise TimedOutError
        found = worker.result.result() or {"failed": "lookup %s: the resolver failed" % host}
        if "failed" in found:
            raise OSError(found["failed"])
        return found["family"], tuple(found["address"])

    async def secure(self, host: str) -> None:
        """Speak TLS from now on. The certificate is not verified: a probe asks for life, not for identity."""
        import ssl

        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._socket = context.wrap_socket(self._socket, server_hostname=host, do_handshake_on_connect=False)
        await self._repeat(self._socket.do_handshake)

    async def _repeat(self, call: "Callable[[], Any]") -> Any:
        """Call again whenever the socket says that it would block, as TLS may in either direction."""
        while True:
            try:
                return call()
            except BlockingIOError:
                raise
            except OSError as error:
                name = type(error).__name__
                if name == "SSLWantReadError":
                    await self._ready(READ)
                elif name == "SSLWantWriteError":
                    await self._ready(WRITE)
                else:
                    raise

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        while data:
            try:
                data = data[await self._repeat(lambda: self._socket.send(data)) :]  # noqa: B023
            except BlockingIOError:
                await self._ready(WRITE)

    async def receive(self) -> bytes:
        """Return what comes next; empty at the end."""
        while True:
            try:
                data: bytes = await self._repeat(lambda: self._socket.recv(65536))
            except BlockingIOError:
                await self._ready(READ)
            else:
                return data

    def close(self) -> None:
        """Close it, open or not."""
        if self._socket is not None:
            self._socket.close()


def _look_up(host: str, port: int, flags: int) -> Dict[str, Any]:
    """Return what the resolver knows of a host, as a worker can say it."""
    try:
        family, _kind, _protocol, _name, address = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, flags)[0]
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host ("a..b")
        return {"failed": "lookup %s: %s" % (host, getattr(error, "strerror", None) or error)}
    return {"family": int(family), "address": address}


async def tcp(loop: Loop, host: str, port: int, timeout: Optional[float]) -> Result:
    """Connect; that is all."""
    connection = Connection(loop, timeout)
    try:
        await connection.open(host, port)
    except TimedOutError:
        return False, "dial tcp %s:%d: i/o timeout" % (host, port)
    except OSError as error:
        return False, "dial tcp %s:%d: connect: %s" % (host, port, (error.strerror or str(error)).lower())
    else:
        return True, ""
    finally:
        connection.close()


def authority_of(host: str, port: int) -> str:
    """Return host and port as they stand in a URL."""
    return "[%s]:%d" % (host, port) if ":" in host else "%s:%d" % (host, port)


async def http(loop: Loop, host: str, action: Action, timeout: Optional[float]) -> Result:
    """GET; the answer's status decides. ``timeout`` None: whoever calls ends it, as a hook's grace period does."""
    begun = loop.now()
    scheme = (action.scheme or "HTTP").lower()
    path = action.path if action.path.startswith("/") else "/" + action.path
    url = "%s://%s%s" % (scheme, authority_of(host, action.port), path)
    for _ in range(_MOST_REDIRECTS):
        try:
            left = None if timeout is None else begun + timeout - loop.now()
            status, headers, body = await _get(loop, url, action, left)
            target = _redirect(url, status, headers)
        except TimedOutError:
            return False, 'Get "%s": context deadline exceeded (Client.Timeout exceeded while awaiting headers)' % url
        except (OSError, ValueError) as error:
            return False, 'Get "%s": %s' % (url, getattr(error, "strerror", None) or error)
        if target:
            url = target
        elif 200 <= status < 400:
            return True, body
        else:
            return False, "HTTP probe failed with statuscode: %d" % status
    return False, 'Get "%s": stopped after 10 redirects' % url


def _redirect(url: str, status: int, headers: Dict[str, str]) -> str:
    """Return where an answer leads on within the host; empty if it does not. ValueError: to no URL."""
    if status not in (301, 302, 303, 307, 308) or "location" not in headers:
        return ""
    target = urljoin(url, headers["location"])
    return target if urlsplit(target).hostname == urlsplit(url).hostname else ""


async def _get(loop: Loop, url: str, action: Action, timeout: Optional[float]) -> Tuple[int, Dict[str, str], str]:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    connection = Connection(loop, timeout)
    try:
        await connection.open(host, port)
        if parts.scheme == "https":
            await connection.secure(host)
        await connection.send(_request(parts.path or "/", parts.query, authority_of(host, port), action))
        return await _answer(connection)
    finally:
        connection.close()


def _request(path: str, query: str, authority: str, action: Action) -> bytes:
    """Return an HTTP/1.1 request. ValueError: a header that would end the line."""
    headers: List[Tuple[str, str]] = [("Host", authority), ("User-Agent", "kube-probe/1.36"), ("Accept", "*/*")]
    for name, value in action.headers:
        headers = [(old, text) for old, text in headers if old.lower() != name.lower()] + [(name, value)]
    headers.append(("Connection", "close"))
    lines = ["GET %s%s HTTP/1.1" % (path, "?" + query if query else "")]
    lines += ["%s: %s" % header for header in headers if header[1] or header[0].lower() != "accept"]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header of the probe holds an end of line")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


async def _answer(connection: Connection) -> Tuple[int, Dict[str, str], str]:
    data = b""
    while b"\r\n\r\n" not in data and len(data) < _MOST_BODY:
        more = await connection.receive()
        if not more:
            break
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        raise ValueError("malformed HTTP response %r" % lines[0][:80])
    pairs = (line.partition(":") for line in lines[1:])
    headers = {name.strip().lower(): value.strip() for name, _colon, value in pairs}
    return int(words[1]), headers, body[:_MOST_BODY].decode("utf-8", "replace")
