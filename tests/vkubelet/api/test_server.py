"""The TLS port over real connections: what it shows and whom it believes, while files come, go and change."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port
from cryptography import x509
from cryptography.x509.oid import NameOID

from slurm_plugin.errors import ConfigurationError
from tests.vkubelet.kube import FakeKube
from vkubelet.api.auth import certificate_identity
from vkubelet.api.server import ClientAuthority, Server
from vkubelet.api.serving import CertificateFromFiles
from vkubelet.config import CertificateFiles

from .authorities import Authority

LOOK_SECONDS = 0.02


class Place:
    """A server's files, and the port where it is to listen."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.serving = directory / "serving.pem"
        self.client_ca = directory / "client-ca.pem"
        self.port = unused_port()
        self.authority = Authority("serving")
        self.clients = Authority("clients")
        self.authority.issue(self.serving, "first")
        self.client_ca.write_text(self.clients.pem)

    def server(self, request_seconds: float = 30, strangers: int | None = None) -> Server:
        application = web.Application()
        application.router.add_get("/", self._who)
        files = CertificateFiles(certificate_file=self.serving, key_file=self.serving)
        return Server(
            application,
            CertificateFromFiles(files, look_seconds=LOOK_SECONDS),
            ClientAuthority(FakeKube(), self.client_ca, file_seconds=LOOK_SECONDS),  # type: ignore[arg-type]
            host="127.0.0.1",
            port=self.port,
            request_seconds=request_seconds,
            strangers=strangers,
        )

    async def _who(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        identity = certificate_identity(request.transport.get_extra_info("peercert"))
        return web.Response(text=identity.user if identity is not None else "nobody")

    async def ask(self, certificate: Path | None = None) -> tuple[str, str]:
        """Who serves, and who we are to it. OSError if it does not want us."""
        context = ssl.create_default_context(cadata=self.authority.pem)
        if certificate is not None:
            context.load_cert_chain(certificate)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        try:
            shown = x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            body = (await reader.read()).decode().rpartition("\r\n")[2]
        finally:
            writer.transport.abort()
        if not body:
            raise ConnectionResetError("closed without an answer")
        return str(shown.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value), body

    async def until(self, answer: tuple[str, str] | None, certificate: Path | None = None) -> None:
        """Wait until it answers so; None: until it does not want us."""
        async with asyncio.timeout(60):
            while True:
                found = None
                with suppress(OSError):
                    found = await self.ask(certificate)
                if found == answer:
                    return
                await asyncio.sleep(LOOK_SECONDS)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@asynccontextmanager
async def serving(place: Place, request_seconds: float = 30, strangers: int | None = None) -> AsyncIterator[None]:
    running = asyncio.create_task(place.server(request_seconds, strangers).run())
    try:
        await place.until(("first", "nobody"))
        yield
        assert not running.done()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def logged(caplog: pytest.LogCaptureFixture, words: str) -> None:
    async with asyncio.timeout(60):
        while not any(words in message for message in caplog.messages):  # noqa: ASYNC110  a log has no event
            await asyncio.sleep(LOOK_SECONDS)


async def test_a_certificate_that_is_deleted_and_then_written_anew_ends_nothing(place, caplog):
    async with serving(place):
        place.serving.unlink()
        await logged(caplog, "serving.pem")
        assert await place.ask() == ("first", "nobody")
        place.serving.write_text("half of it")
        await logged(caplog, "the old one stays")
        assert await place.ask() == ("first", "nobody")
        place.authority.issue(place.serving, "second")
        await place.until(("second", "nobody"))
    assert all(record.levelno <= logging.WARNING for record in caplog.records)


async def test_a_certificate_of_another_type_of_key_replaces_the_old_one(place):
    async with serving(place):
        place.authority.issue(place.serving, "second", rsa_key=True)
        await place.until(("second", "nobody"))


async def test_a_client_ca_that_is_withdrawn_is_believed_no_more_and_a_missing_file_changes_nothing(place, caplog):
    early = place.clients.issue(place.directory / "early.pem", "early")
    others = Authority("others")
    late = others.issue(place.directory / "late.pem", "late")
    async with serving(place):
        assert await place.ask(early) == ("first", "early")
        place.client_ca.unlink()
        await logged(caplog, "what was believed stays so")
        assert await place.ask(early) == ("first", "early")
        place.client_ca.write_text(place.clients.pem + others.pem)
        await place.until(("first", "late"), late)
        assert await place.ask(early) == ("first", "early")
        place.client_ca.write_text(others.pem)
        await place.until(None, early)
        assert await place.ask(late) == ("first", "late")
        assert await place.ask() == ("first", "nobody")


@pytest.mark.parametrize("spoil", [lambda file: file.unlink(), lambda file: file.write_text("nonsense")])
@pytest.mark.parametrize("which", ["serving", "client_ca"])
async def test_what_is_wrong_from_the_beginning_is_an_error(place, which, spoil):
    file = getattr(place, which)
    spoil(file)
    with pytest.raises(BaseExceptionGroup) as group:
        await place.server().run()
    assert group.group_contains(ConfigurationError, match=file.name)


async def test_who_does_not_speak_tls_is_left_and_logged(place, caplog):
    caplog.set_level(logging.INFO)
    async with serving(place):
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await reader.read() in {b"", b"\x15\x03\x01\x00\x02\x02\x46"}  # perhaps an alert
        writer.close()
        await logged(caplog, "127.0.0.1: connection closed, no TLS")
        assert await place.ask() == ("first", "nobody")


async def test_who_takes_for_ever_to_say_what_they_want_is_left(place, caplog):
    caplog.set_level(logging.INFO)
    async with serving(place, request_seconds=0.3), asyncio.timeout(60):
        caplog.clear()
        silent, writer = await asyncio.open_connection("127.0.0.1", place.port)  # and never shakes hands
        assert await silent.read() == b""
        writer.close()
        await logged(caplog, "connection closed, no TLS")
        context = ssl.create_default_context(cadata=place.authority.pem)
        slow, writer = await asyncio.open_connection("127.0.0.1", place.port, ssl=context)
        writer.write(b"GET / HTTP/1.1\r\n")

        async def drip() -> None:
            while True:
                writer.write(b"X-More: x\r\n")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        with suppress(ConnectionResetError):  # what still dripped when it was left is answered by a reset
            assert await slow.read() == b""
        dripping.cancel()
        writer.close()
        await logged(caplog, "connection closed, no whole request")
        assert await place.ask() == ("first", "nobody")


async def test_who_has_asked_something_may_take_time_for_the_next(place, caplog):
    caplog.set_level(logging.INFO)
    async with serving(place, request_seconds=0.3), asyncio.timeout(60):
        context = ssl.create_default_context(cadata=place.authority.pem)
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port, ssl=context)
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"nobody")).startswith(b"HTTP/1.1 200 OK")
            await asyncio.sleep(0.6)
        writer.transport.abort()
    assert not any("no whole request" in message for message in caplog.messages)


async def test_a_request_may_be_as_long_as_a_kubelet_takes_it(place):
    """A command is in the query: a script of many lines makes a long one."""
    async with serving(place), asyncio.timeout(60):
        context = ssl.create_default_context(cadata=place.authority.pem)
        for size, status in ((500_000, b"200 OK"), (2_000_000, b"400 Bad Request")):
            reader, writer = await asyncio.open_connection("127.0.0.1", place.port, ssl=context)
            writer.write(b"GET /?command=%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * size))
            assert status in await reader.readline()
            writer.transport.abort()


@pytest.mark.parametrize("tls", [False, True], ids=["silent", "after the handshake"])
async def test_of_many_who_ask_nothing_the_oldest_is_left_for_the_next(place, caplog, tls):
    context = ssl.create_default_context(cadata=place.authority.pem) if tls else None
    async with serving(place, strangers=10), asyncio.timeout(60):
        caplog.clear()
        opened = [await asyncio.open_connection("127.0.0.1", place.port, ssl=context) for _ in range(30)]
        for reader, _ in opened[:20]:
            with suppress(ConnectionError):
                assert await reader.read() == b""
        assert await place.ask() == ("first", "nobody")
        assert not opened[-1][0].at_eof()
        for _, writer in opened:
            writer.transport.abort()
    assert len([message for message in caplog.messages if "the oldest are closed" in message]) == 1
