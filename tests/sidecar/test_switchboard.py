"""Sidecars that call: who is let in, whose place is taken, and what happens when a line breaks."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.client import SidecarProvider
from sidecar.config import ClientSettings, DialSettings
from sidecar.dialling import try_call
from sidecar.serving import serve
from sidecar.switchboard import Switchboard, certificate_names
from slurm_plugin.cluster import Cluster
from slurm_plugin.errors import SlurmUnavailableError, TransportError
from tests.vkubelet.fakes import FakeProvider, cluster

from .calls import Lines, authority, connected


class Named(FakeProvider):
    """A provider whose cluster tells which site it is."""

    def __init__(self, name: str) -> None:
        super().__init__(clock=lambda: 0.0)
        self.name = name

    async def cluster(self) -> Cluster:
        return replace(cluster(), name=self.name)


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    return Lines(tmp_path)


@asynccontextmanager
async def calling(dial: DialSettings, name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(serve(Named(name), None, dial=dial))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def who(board: Switchboard, name: str) -> str:
    client = SidecarProvider(ClientSettings(name=name), socket_path=board.socket_of(name))
    try:
        return (await client.cluster()).name
    finally:
        await client.close()


async def is_away(board: Switchboard, name: str) -> bool:
    return not await asyncio.to_thread(Path(board.socket_of(name)).exists)


async def until_said(caplog: pytest.LogCaptureFixture, words: str) -> None:
    async with asyncio.timeout(60):
        while words not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_each_sidecar_is_found_by_its_name(lines: Lines) -> None:
    async with (
        lines.board(["site-a", "site-b"]) as board,
        calling(lines.dial("site-a"), "first"),
        calling(lines.dial("site-b"), "second"),
    ):
        await connected(board, "site-a")
        await connected(board, "site-b")
        assert [await who(board, "site-a"), await who(board, "site-b")] == ["first", "second"]


async def test_one_that_is_away_is_said_to_be_and_nothing_was_sent(lines: Lines) -> None:
    async with lines.board(["site-a"]) as board:
        with pytest.raises(SlurmUnavailableError, match="the sidecar site-a, which calls us: it is not connected"):
            await who(board, "site-a")


async def test_an_unknown_name_is_refused_on_both_sides(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    async with lines.board(["site-a"]) as board, calling(lines.dial("site-x"), "x"):
        await until_said(caplog, "no sidecar is expected whose certificate is for site-x; known are site-a")
        await until_said(caplog, "no connection to the agent at https://127.0.0.1:")
        assert await is_away(board, "site-a")


async def test_a_certificate_of_another_authority_is_refused(
    lines: Lines, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = authority(tmp_path / "theirs", "theirs")
    dial = lines.dial("site-a", by=theirs)
    async with lines.board(["site-a"]) as board, calling(dial, "x"):
        await until_said(caplog, f"it may refuse our certificate, {dial.certificate.certificate_file}")
        await until_said(caplog, "signed by an authority in the agent's switchboard.client_ca_file?")
        assert await is_away(board, "site-a")


async def test_a_sidecar_does_not_speak_to_an_agent_of_another_authority(
    lines: Lines, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = authority(tmp_path / "theirs", "theirs")
    dial = lines.dial("site-a", believed=theirs)
    async with lines.board(["site-a"]) as board, calling(dial, "x"):
        await until_said(caplog, "its certificate is not believed: ")
        await until_said(caplog, f"signed by an authority in {dial.ca_file}?")
        assert await is_away(board, "site-a")


async def test_whether_a_call_would_be_taken_is_tried_without_taking_the_line(lines: Lines, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="the agent at https://127.0.0.1:.*Cannot connect"):
        await try_call(lines.dial("site-a"))
    theirs = authority(tmp_path / "theirs", "theirs")
    async with lines.board(["site-a"]) as board, calling(lines.dial("site-a"), "first"):
        await connected(board, "site-a")
        assert "takes calls of this certificate" in await try_call(lines.dial("site-a"))
        with pytest.raises(TransportError, match="no sidecar is expected whose certificate is for site-x"):
            await try_call(lines.dial("site-x"))
        with pytest.raises(TransportError, match="its certificate is not believed"):
            await try_call(lines.dial("site-a", believed=theirs))
        with pytest.raises(TransportError, match="it may refuse our certificate"):
            await try_call(lines.dial("site-a", by=theirs))
        assert await who(board, "site-a") == "first"


async def test_the_newer_of_two_with_one_name_takes_its_place(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    async with lines.board(["site-a"]) as board, calling(lines.dial("site-a"), "old"):
        await connected(board, "site-a")
        assert await who(board, "site-a") == "old"
        async with calling(lines.dial("site-a"), "new"):
            await until_said(caplog, "its earlier connection is given up")
            await until_said(caplog, "another sidecar has called with this certificate's name; again in 60 s")
            await connected(board, "site-a")
            assert await who(board, "site-a") == "new"


@pytest.mark.slow
async def test_a_sidecar_calls_again_when_the_agent_was_away(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with calling(lines.dial("site-a"), "first"):
        for _ in range(2):
            async with lines.board(["site-a"]) as board:
                await connected(board, "site-a")
                assert await who(board, "site-a") == "first"


def test_a_certificate_is_for_its_dns_names_or_else_its_common_name() -> None:
    subject = ((("organizationName", "o"),), (("commonName", "site-a"),))
    assert certificate_names({"subject": subject}) == {"site-a"}
    assert certificate_names({"subject": subject, "subjectAltName": (("DNS", "b"), ("IP Address", "1.2.3.4"))}) == {"b"}
    assert certificate_names(None) == set()
