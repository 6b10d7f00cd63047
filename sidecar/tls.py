"""TLS with files that somebody else renews: certificates and authorities are read again while connections are made."""

import asyncio
import logging
import os
import ssl

from slurm_plugin.errors import ConfigurationError

from .config import PairSettings

log = logging.getLogger(__name__)


class Files:
    """Files that somebody else renews."""

    def __init__(self, *paths: str) -> None:
        self._paths = paths
        self._seen = self._stamp()

    def changed(self) -> bool:
        """Whether one of them is another than at the last call."""
        seen, self._seen = self._seen, self._stamp()
        return seen != self._seen

    def forget(self) -> None:
        """Have them count as changed at the next call: what was read of them is of no use."""
        self._seen = ()

    def _stamp(self) -> tuple[tuple[int, int] | None, ...]:
        stamps: list[tuple[int, int] | None] = []
        for path in self._paths:
            try:
                status = os.stat(path)
                stamps.append((status.st_mtime_ns, status.st_ino))
            except OSError:
                stamps.append(None)
        return tuple(stamps)


def server_context(pair: PairSettings, client_ca_file: str | None) -> ssl.SSLContext:
    """Return what TLS connections are accepted with. Raises ConfigurationError naming the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_pair(context, pair)
    if client_ca_file is not None:
        try:
            context.load_verify_locations(cafile=client_ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"client_ca_file: {client_ca_file}: {error}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def load_pair(context: ssl.SSLContext, pair: PairSettings) -> None:
    """Load a certificate and its key. Raises ConfigurationError naming both files."""
    try:
        context.load_cert_chain(pair.certificate_file, pair.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"certificate: {pair.certificate_file}, {pair.key_file}: {error}") from error


def handshake_failure(
    error: BaseException, *, hung_up: bool, ca_file: str | None, pair: PairSettings | None, believed_by: str
) -> str | None:
    """Say which of a client's files a failed handshake is about, and what to look at; None if it was something else. Pure.

    ``believed_by``: the setting of the other side that names whose certificates it believes.
    """
    # aiohttp's own errors are SSLErrors in name only; what they hold is one.
    seen = (getattr(error, "certificate_error", None), getattr(error, "os_error", None), error.__cause__, error)
    cause = next((each for each in seen if isinstance(each, ssl.SSLError)), None)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not believed: {getattr(cause, 'verify_message', cause)}; is it for this name and time, and signed by an "
            f"authority in {ca_file or 'the list of this system (no ca_file is given)'}?"
        )
    # A refused client is told with an alert or, where TLS 1.3 had shaken hands already, by nothing at all.
    if cause is not None and "ALERT" in (cause.reason or ""):
        said = (cause.reason or "").lower().replace("_", " ")
    elif hung_up:
        said = "it hung up without an answer"
    else:
        return None
    shown = pair.certificate_file if pair is not None else "none (no certificate is given)"
    return (
        f"{said}: it may refuse our certificate, {shown}: is it valid now, and signed by an authority in {believed_by}?"
    )


class Entrance:
    """TLS whose certificate and client CA are those of the files, whenever these change.

    Each new connection gets the newest, so that an authority that was replaced is believed no more.
    """

    def __init__(self, pair: PairSettings, client_ca_file: str | None) -> None:
        self._pair = pair
        self._client_ca_file = client_ca_file
        self._files = Files(pair.certificate_file, pair.key_file, *([client_ca_file] if client_ca_file else []))
        self._current = server_context(pair, client_ca_file)
        self.context = server_context(pair, client_ca_file)
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    async def keep(self, seconds: float) -> None:
        """Look at the files, for ever."""
        while True:
            await asyncio.sleep(seconds)
            if self._files.changed():
                try:
                    self._current = server_context(self._pair, self._client_ca_file)
                    log.info("certificates were read again")
                except ConfigurationError as error:
                    self._files.forget()  # read in the middle of their renewal, they need not change again
                    log.error("%s; the old ones stay", error)  # noqa: TRY400  its text says all
