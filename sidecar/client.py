"""A provider behind a sidecar: ``contract.Provider`` with all its abilities over HTTP.

Nothing is kept here that must survive: the sidecar finds out by UID whether a pod was submitted before, so a call whose
answer was lost is made again. The stream of reports is taken up where it broke off.
"""

import asyncio
import errno
import json
import logging
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import aiohttp

from slurm_plugin.cluster import Cluster
from slurm_plugin.contract import (
    ContainerProcess,
    LogOptions,
    PodConnection,
    PodContent,
    PodIdentity,
    PodReport,
    PodUsage,
    Reachable,
    Report,
    Snapshot,
)
from slurm_plugin.errors import ConfigurationError, HostError, SlurmletError, SlurmUnavailableError, TransportError
from slurm_plugin.job import JobId, PodUid
from slurm_plugin.pod import Pod

from . import failures, pieces, wire
from .codec import decode, encode
from .config import ClientSettings
from .middleware import TokenFile
from .streams import MOST_BYTES, RemoteStream
from .tls import Files, handshake_failure, load_pair

log = logging.getLogger(__name__)

_UNIX = "unix:"
_CONNECT_SECONDS = 15.0
_HUNG_UP = (errno.ECONNRESET, errno.EPIPE)
_QUERY_SECONDS = 90.0
# sbatch may take two minutes and more where slurmctld delays its clients.
_SUBMIT_SECONDS = 300.0
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
_SILENCE_SECONDS = 3 * wire.PULSE_SECONDS


class SidecarProvider:
    """Runs pods through one sidecar. ``socket_path``: the unix socket that leads to one that calls, while it is connected.

    ``submit_seconds``: how long the answer to a change is waited for. ``silence_seconds``: after how long without a sign
    of life a log or the reports have broken off.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        socket_path: str = "",
        submit_seconds: float = _SUBMIT_SECONDS,
        silence_seconds: float = _SILENCE_SECONDS,
    ) -> None:
        self._settings = settings
        self._silence_seconds = silence_seconds
        self._submit_seconds = submit_seconds
        url = settings.url or _UNIX + socket_path
        self._socket_path = url.removeprefix(_UNIX) if url.startswith(_UNIX) else ""
        self._base = "http://sidecar" if self._socket_path else url.rstrip("/")
        self._tokens = TokenFile(settings.token_file) if settings.token_file else None
        pair = settings.certificate
        secrets = [settings.ca_file, pair.certificate_file if pair else None, pair.key_file if pair else None]
        self._files = Files(*(path for path in secrets if path is not None))
        self._pods: dict[PodUid, PodIdentity] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._secure: ssl.SSLContext | bool = True

    # --- the contract ---------------------------------------------------------------------------------------------

    async def cluster(self) -> Cluster:
        """See Provider."""
        found: Cluster = await self._ask("GET", wire.CLUSTER, Cluster)
        return found

    async def introduce(self, pods: Sequence[PodIdentity]) -> None:
        """See Tenanted. The sidecar is told whenever the stream of reports is taken up: it forgets when it is started anew."""
        self._pods = (self._pods or {}) | {pod.uid: pod for pod in pods}

    async def submit(self, pod: Pod, content: PodContent) -> JobId:
        """See Provider. After TransportError call again: the sidecar knows the pod by its UID."""
        identity = PodIdentity.of(pod)
        await self.introduce((identity,))
        body = encode(wire.Submit(pod, content), wire.Submit)
        try:
            said: wire.Submitted = await self._ask(
                "POST", wire.PODS, wire.Submitted, body, timeout=self._submit_seconds, lost=TransportError
            )
        except SlurmletError as error:
            if not error.transient and identity.job_id is None:
                self._leave_out(identity.uid)  # it has no job, and nobody will say when it is gone
            raise
        job_id = JobId(said.job_id)
        known = (self._pods or {}).get(identity.uid, identity)  # whose job it is may have been told already
        await self.introduce((replace(known, job_id=job_id),))  # by which a sidecar with another policy knows it
        return job_id

    async def terminate(self, uid: PodUid, grace_seconds: int) -> None:
        """See Provider."""
        body = encode(wire.Terminate(grace_seconds), wire.Terminate)
        await self._change("POST", _path(wire.TERMINATE, uid), body, timeout=self._submit_seconds)

    async def forget(self, uid: PodUid) -> None:
        """See Provider."""
        await self._change("DELETE", _path(wire.POD, uid), timeout=self._submit_seconds)
        self._leave_out(uid)

    def _leave_out(self, uid: PodUid) -> None:
        if self._pods is not None:
            self._pods.pop(uid, None)

    async def update(self, uid: PodUid, content: PodContent) -> None:
        """See Provider."""
        await self._change("PUT", _path(wire.CONTENT, uid), encode(content, PodContent))

    async def edit(self, pod: Pod) -> None:
        """See Editable."""
        path = _path(wire.POD, PodUid(pod.metadata.uid))
        await self._change("PUT", path, encode(wire.Edit(pod), wire.Edit))

    async def extend(self, pod: Pod, content: PodContent) -> None:
        """See Extendable."""
        path = _path(wire.CONTAINERS, PodUid(pod.metadata.uid))
        body = encode(wire.Extend(pod, content), wire.Extend)
        await self._change("POST", path, body, timeout=self._submit_seconds)

    async def usage(self) -> tuple[PodUsage, ...]:
        """See Measurable."""
        found: tuple[PodUsage, ...] = await self._ask("GET", wire.USAGE, tuple[PodUsage, ...])
        return found

    async def logs(self, uid: PodUid, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        """See Provider."""
        path = _path(wire.LOGS, uid).replace("{container}", quote(container, safe=""))
        body = encode(wire.LogRequest(options), wire.LogRequest)
        try:
            session = await self._connected()
            async with session.post(
                self._base + path, json=body, headers=await self._headers(), timeout=self._endless(), ssl=self._secure
            ) as said:
                await _raise_for(said, self._name, self._settings.token_file)
                async for data in pieces.read(said.content.iter_any()):
                    yield data
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransportError(f"{self._name}: {self._why(error)}") from error

    async def reports(self) -> AsyncGenerator[Report, None]:
        """See Provider. While the sidecar is away Slurm counts as unreachable, and nothing is guessed."""
        place, told, failures_so_far = ("", 0), None, 0
        while True:
            try:
                async for line in self._lines(*place):
                    place, failures_so_far = (line.epoch, line.sequence), 0
                    if isinstance(line.report, Reachable):
                        if line.report != told:
                            told = line.report
                            yield told
                    else:
                        self._note_users(line.report)
                        yield line.report
            except SlurmletError as error:
                away = Reachable(str(error))
            else:
                away = Reachable(f"{self._name}: the stream of reports ended")
            if away != told and failures_so_far:  # a sidecar that is only started anew is no news
                log.warning("%s", away.error)
                told = away
                yield away
            await asyncio.sleep(_RETRY_SECONDS[min(failures_so_far, len(_RETRY_SECONDS) - 1)])
            failures_so_far += 1

    def _note_users(self, report: Snapshot | PodReport) -> None:
        """Remember whose jobs pods have, for a sidecar that is started anew with another policy."""
        for each in report.reports if isinstance(report, Snapshot) else (report,):
            if each.user and self._pods is not None and (known := self._pods.get(each.uid)) is not None:
                self._pods[each.uid] = replace(known, job_id=each.job_id, job_user=each.user)

    async def _lines(self, epoch: str, sequence: int) -> AsyncGenerator[wire.Line, None]:
        query = f"?epoch={quote(epoch)}&sequence={sequence}"
        if self._pods is not None:
            pods = wire.Introduce(tuple(self._pods.values()))
            await self._ask("POST", wire.IDENTITIES, dict[str, Any], encode(pods, wire.Introduce))
        try:
            session = await self._connected()
            async with session.get(
                self._base + wire.REPORTS + query,
                headers=await self._headers(),
                timeout=self._endless(),
                ssl=self._secure,
            ) as said:
                await _raise_for(said, self._name, self._settings.token_file)
                rest = b""
                async for data in said.content.iter_any():
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        if line:
                            yield decode(json.loads(line), wire.Line)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise SlurmUnavailableError(f"{self._name}: {self._why(error)}") from error

    # --- entering -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def exec(
        self, uid: PodUid, container: str, argv: Sequence[str], *, stdin: bool, tty: bool
    ) -> AsyncGenerator[ContainerProcess, None]:
        """See Enterable."""
        async with self._stream(uid, wire.Open("exec", container, tuple(argv), stdin, tty)) as stream:
            yield stream

    @asynccontextmanager
    async def attach(self, uid: PodUid, container: str, *, stdin: bool) -> AsyncGenerator[ContainerProcess, None]:
        """See Enterable."""
        async with self._stream(uid, wire.Open("attach", container, (), stdin)) as stream:
            yield stream

    @asynccontextmanager
    async def connect(self, uid: PodUid, port: int) -> AsyncGenerator[PodConnection, None]:
        """See Enterable."""
        async with self._stream(uid, wire.Open("connect", port=port)) as stream:
            yield stream

    @asynccontextmanager
    async def _stream(self, uid: PodUid, asked: wire.Open) -> AsyncGenerator[RemoteStream, None]:
        try:
            session = await self._connected()
            socket = await session.ws_connect(
                self._base + _path(wire.STREAM, uid),
                headers=await self._headers(),
                heartbeat=wire.PULSE_SECONDS,
                ssl=self._secure,
                max_msg_size=MOST_BYTES,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransportError(f"{self._name}: {self._why(error)}") from error
        try:
            stream = await RemoteStream.open(socket, asked)
        except BaseException:
            await socket.close()
            raise
        try:
            yield stream
        finally:
            await stream.close()

    # --- the way there --------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return self._settings.words

    def _why(self, error: Exception) -> str:
        if self._settings.name is not None and isinstance(error, aiohttp.ClientConnectorError):
            return "it is not connected"
        pair, ca_file = self._settings.certificate, self._settings.ca_file
        cut = isinstance(error, aiohttp.ServerDisconnectedError) or getattr(error, "errno", None) in _HUNG_UP
        hung_up = (cut or isinstance(error, ConnectionError)) and self._base.startswith("https:")
        why = handshake_failure(
            error, hung_up=hung_up, ca_file=ca_file, pair=pair, believed_by="the sidecar's client_ca_file"
        )
        return why or str(error) or type(error).__name__

    async def _change(self, method: str, path: str, body: Any = None, *, timeout: float = _QUERY_SECONDS) -> None:
        await self._ask(method, path, dict[str, Any], body, timeout=timeout, lost=TransportError)

    async def _ask(
        self, method: str, path: str, kind: Any, body: Any = None, *, timeout: float = _QUERY_SECONDS,
        lost: Callable[[str], SlurmletError] = SlurmUnavailableError,
    ) -> Any:  # fmt: skip
        """Ask for something of a kind; ``lost`` is what no answer to something that was sent means."""
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=_CONNECT_SECONDS)
        try:
            session = await self._connected()
            async with session.request(
                method, self._base + path, json=body, headers=await self._headers(), timeout=limits, ssl=self._secure
            ) as said:
                await _raise_for(said, self._name, self._settings.token_file, lost)
                return decode(await said.json(), kind)
        except aiohttp.ClientConnectorError as error:  # nothing was sent
            raise SlurmUnavailableError(f"{self._name}: {self._why(error)}") from error
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise lost(f"{self._name}: {method} {path}: {self._why(error)}") from error

    def _endless(self) -> aiohttp.ClientTimeout:
        """Return the limits of an answer that goes on for ever, in which there is a sign of life now and then."""
        return aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=self._silence_seconds)

    async def _headers(self) -> dict[str, str]:
        if self._tokens is None:
            return {}
        try:
            known = await asyncio.to_thread(self._tokens.tokens)
        except ConfigurationError as error:
            raise SlurmUnavailableError(f"{self._name}: {error}") from error
        return {"Authorization": f"Bearer {known[0].decode('ascii', 'replace')}"}

    async def _connected(self) -> aiohttp.ClientSession:
        """Return the session, ``_secure`` being what its next connections are made with: the files as they are now."""
        if self._session is None:
            self._secure = self._tls()
            path = self._socket_path
            connector = aiohttp.UnixConnector(path, limit=0) if path else aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(connector=connector)
        elif self._files.changed():
            try:
                self._secure = self._tls()
            except SlurmUnavailableError as error:
                self._files.forget()  # read in the middle of their renewal, they need not change again
                log.error("%s; the old ones stay", error)  # noqa: TRY400  its text says all
        return self._session

    def _tls(self) -> ssl.SSLContext | bool:
        if self._socket_path:
            return True
        try:
            context = ssl.create_default_context(cafile=self._settings.ca_file)
            if self._settings.certificate is not None:
                load_pair(context, self._settings.certificate)
        except (OSError, ssl.SSLError, ConfigurationError) as error:
            raise SlurmUnavailableError(f"{self._name}: sidecar.ca_file or certificate: {error}") from error
        return context

    async def close(self) -> None:
        """Close the connections. Neither the sidecar nor jobs are touched."""
        if self._session is not None:
            await self._session.close()
        self._session = None


async def _raise_for(
    said: aiohttp.ClientResponse,
    name: str,
    token_file: str | None,
    lost: Callable[[str], SlurmletError] = SlurmUnavailableError,
) -> None:
    """Raise the error that an answer stands for. A proxy's own words about its trouble are ``lost``: no answer came."""
    if said.status == 401:
        ours = token_file or "none: no token_file is given"
        raise SlurmUnavailableError(
            f"{name} does not believe our token ({ours}): it must be a line of the sidecar's own token_file"
        )
    if said.status >= 300:
        try:
            body = await said.json()
        except (aiohttp.ClientError, ValueError):
            body = None
        if not isinstance(body, dict) or "error" not in body:
            kind = lost if said.status >= 500 else SlurmUnavailableError
            raise kind(f"{name} answered {said.status}, which no sidecar does")
        raise failures.from_json(body)


def _path(template: str, uid: PodUid) -> str:
    if not uid:
        raise HostError("the pod has no UID")
    return template.replace("{uid}", quote(uid, safe=""))
