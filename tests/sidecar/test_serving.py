"""A sidecar on TCP: who is let in, and certificates that are renewed while it runs."""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError

from sidecar.client import SidecarProvider
from sidecar.config import ClientSettings, PairSettings, ServerSettings
from sidecar.serving import notify, serve
from slurm_plugin.errors import ConfigurationError, SlurmletError
from testbed.kubernetes.pki import Authority, Pair
from tests.vkubelet.fakes import FakeProvider, cluster

from .calls import authority, free_port, settings_of


class Place:
    """Two authorities, a server's certificate of the first and its port."""

    def __init__(self, directory: Path) -> None:
        self.ours, self.theirs = authority(directory / "a", "ours"), authority(directory / "b", "theirs")
        self.serving = directory / "serving"
        self.serving.mkdir()
        self.use(self.ours.server("login", ["127.0.0.1"]), self.ours)
        self.port = free_port()

    def use(self, pair: Pair, client_authority: Authority) -> None:
        for source, name in ((pair.key, "key"), (pair.certificate, "crt"), (client_authority.pair.certificate, "ca")):
            shutil.copy(source, self.serving / f"{name}.new")
            os.replace(self.serving / f"{name}.new", self.serving / name)

    @property
    def settings(self) -> ServerSettings:
        pair = PairSettings(certificate_file=str(self.serving / "crt"), key_file=str(self.serving / "key"))
        return ServerSettings(port=self.port, certificate=pair, client_ca_file=str(self.serving / "ca"))

    def client(self, believed: Authority, certificate: Pair | None) -> SidecarProvider:
        return SidecarProvider(
            ClientSettings(
                url=f"https://127.0.0.1:{self.port}",
                ca_file=str(believed.pair.certificate),
                certificate=settings_of(certificate) if certificate else None,
            )
        )


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    task = asyncio.create_task(serve(FakeProvider(clock=lambda: 0.0), place.settings, look_seconds=0.05))
    async with asyncio.timeout(60):
        while not await _listens(place.port):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    yield place
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def closing(client: SidecarProvider) -> AsyncIterator[SidecarProvider]:
    try:
        yield client
    finally:
        await client.close()


async def test_a_client_certificate_of_the_right_authority_is_let_in(place: Place) -> None:
    async with closing(place.client(place.ours, place.ours.client("agent", "agent"))) as client:
        assert await client.cluster() == cluster()


async def test_no_certificate_or_one_of_another_authority_is_not(place: Place) -> None:
    for certificate in (None, place.theirs.client("agent", "agent")):
        async with closing(place.client(place.ours, certificate)) as client:
            with pytest.raises(SlurmletError, match="sidecar"):
                await client.cluster()


async def test_a_sidecar_of_another_authority_is_not_spoken_to(place: Place) -> None:
    async with closing(place.client(place.theirs, place.ours.client("agent", "agent"))) as client:
        with pytest.raises(SlurmletError, match="its certificate is not believed"):
            await client.cluster()


async def test_renewed_certificates_are_used_without_a_restart(place: Place) -> None:
    old, new = place.ours.client("agent", "agent"), place.theirs.client("agent", "agent")
    place.use(place.theirs.server("login", ["127.0.0.1"]), place.theirs)

    async def spoken_to() -> bool:
        async with closing(place.client(place.theirs, new)) as client:
            try:
                return await client.cluster() == cluster()
            except SlurmletError:
                return False

    async with asyncio.timeout(20):
        while not await spoken_to():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    async with closing(place.client(place.theirs, old)) as client:
        with pytest.raises(SlurmletError):  # the authority that was replaced is believed no more
            await client.cluster()


async def test_a_client_whose_certificate_is_read_in_the_middle_of_its_renewal_keeps_the_old_one_and_reads_it_again(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, mine = place.ours.client("agent", "agent"), tmp_path / "mine.crt"
    shutil.copy(good.certificate, mine)
    client = place.client(place.ours, Pair(certificate=mine, key=good.key))
    async with closing(client):
        assert await client.cluster() == cluster()
        mine.write_bytes(b"-----BEGIN CERT")
        assert await client.cluster() == cluster()
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert str(mine) in caplog.text
        stamp = mine.stat()
        mine.write_bytes(good.certificate.read_bytes())
        os.utime(mine, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # its time tells nothing of the change
        before = client._secure
        assert await client.cluster() == cluster()
        assert client._secure is not before


async def test_a_port_that_is_taken_is_named(place: Place) -> None:
    with pytest.raises(ConfigurationError, match=str(place.port)):
        await serve(FakeProvider(clock=lambda: 0.0), place.settings)


async def test_a_certificate_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    pair = PairSettings(certificate_file=str(tmp_path / "no.crt"), key_file=str(tmp_path / "no.key"))
    (tmp_path / "tokens").write_text("t")
    settings = ServerSettings(port=1, certificate=pair, token_file=str(tmp_path / "tokens"))
    with pytest.raises(ConfigurationError, match=r"no\.crt"):
        await serve(FakeProvider(clock=lambda: 0.0), settings)


@pytest.mark.parametrize(
    "settings",
    [{}, {"certificate": {"certificate_file": "/c", "key_file": "/k"}}, {"client_ca_file": "/c", "unix_socket": "/s"}],
)
def test_an_unguarded_port_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ServerSettings.model_validate(settings)


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "n"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        notify("READY=1")
        assert line.recv(100) == b"READY=1"
