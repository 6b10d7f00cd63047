"""A stream of reports whose line breaks in the middle, at every place: no second snapshot, no change missed, none told again later."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest

from sidecar.client import SidecarProvider
from sidecar.config import ClientSettings, ServerSettings
from sidecar.serving import serve
from slurm_plugin.contract import PodReport, Report, Snapshot
from slurm_plugin.job import JobId, PodUid
from tests.e2e.proxy import Proxy
from tests.vkubelet.fakes import FakeProvider

from .calls import Lines, connected

pytestmark = pytest.mark.slow

SITE = "site-a"
PODS = 20
ROUNDS = 8
LAST = JobId("1000")


class Line:
    """A sidecar, and a client at the far end of a proxy."""

    def __init__(self, site: FakeProvider, client: SidecarProvider, proxy: Proxy) -> None:
        self.site, self.client, self.proxy = site, client, proxy

    def tell(self, pod: int, version: JobId) -> None:
        self.site.tell(PodReport(PodUid(f"p-{pod}"), "ns", f"p-{pod}", version, None, None))


@pytest.fixture(params=["is called", "calls"])
async def line(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Line]:
    site = FakeProvider(clock=lambda: 1000.0)
    async with AsyncExitStack() as stack:
        if request.param == "is called":
            settings, dial = ServerSettings(unix_socket=str(tmp_path / "s")), None
            proxy = stack.enter_context(Proxy(str(tmp_path / "s"), listen=str(tmp_path / "p")).running())
            client = SidecarProvider(ClientSettings(url=f"unix:{tmp_path}/p"))
        else:
            lines = Lines(tmp_path / "lines")
            board = await stack.enter_async_context(lines.board([SITE]))
            proxy = stack.enter_context(Proxy("127.0.0.1", lines.port).running())
            settings, dial = None, lines.dial(SITE).model_copy(update={"url": f"https://127.0.0.1:{proxy.port}"})
            client = SidecarProvider(ClientSettings(name=SITE), socket_path=board.socket_of(SITE))
        serving = asyncio.create_task(serve(site, settings, dial=dial))
        if dial is not None:
            await connected(board, SITE)
        yield Line(site, client, proxy)
        await client.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


@pytest.mark.parametrize("harm", ["reset", "truncate"])
async def test_a_line_that_breaks_again_and_again_loses_no_change_and_brings_no_second_snapshot(
    line: Line, harm: str
) -> None:
    told: list[Report] = []

    async def listen() -> None:
        async with aclosing(line.client.reports()) as reports:
            async for report in reports:
                told.append(report)  # noqa: PERF401  it is looked at meanwhile

    listening = asyncio.create_task(listen())

    async def heard(pod: int, version: JobId) -> None:
        async with asyncio.timeout(60):
            while not any(isinstance(r, PodReport) and r.uid == f"p-{pod}" and r.job_id == version for r in told):
                assert not listening.done(), listening.exception()
                await asyncio.sleep(0.02)

    line.tell(0, JobId("1"))
    async with asyncio.timeout(60):
        while not any(isinstance(report, Snapshot) for report in told):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    for number in range(1, ROUNDS + 1):
        for pod in range(PODS):
            line.tell(pod, JobId(str(number * 10)))
        if harm == "reset":
            line.proxy.reset()
        else:
            line.proxy.truncate(97 * number)  # in the middle of a message, of a frame, of a head
        for pod in range(PODS):
            line.tell(pod, JobId(str(number * 10 + 1)))
        await heard(number % PODS, JobId(str(number * 10 + 1)))
    for pod in range(PODS):
        line.tell(pod, LAST)
    for pod in range(PODS):
        await heard(pod, LAST)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)

    assert line.proxy.accepted > ROUNDS
    assert sum(isinstance(report, Snapshot) for report in told) == 1
    for pod in range(PODS):
        versions = [int(r.job_id or 0) for r in told if isinstance(r, PodReport) and r.uid == f"p-{pod}"]
        assert versions == sorted(versions), "a report went back in time"
