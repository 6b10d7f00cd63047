"""The provider contract through a sidecar: what goes in at one end comes out at the other."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from sidecar import wire
from sidecar.client import SidecarProvider
from sidecar.config import ClientSettings, DialSettings, ServerSettings
from sidecar.serving import serve
from sidecar.switchboard import Switchboard
from slurm_plugin.contract import (
    ContainerProcess,
    ContainerUsage,
    Editable,
    Enterable,
    Extendable,
    LogOptions,
    Measurable,
    PodConnection,
    PodContent,
    PodIdentity,
    PodReport,
    PodUsage,
    Reachable,
    Report,
    Snapshot,
    VolumeFile,
)  # fmt: skip
from slurm_plugin.editing import wanted
from slurm_plugin.errors import (
    HostError,
    PodNotFoundError,
    SlurmUnavailableError,
    SubmissionRejectedError,
    TransportError,
    UnsupportedFieldError,
)  # fmt: skip
from slurm_plugin.job import JobId, PodUid
from slurm_plugin.metrics import COMMAND_SECONDS
from slurm_plugin.pod import Pod
from tests.vkubelet.api.streaming.local import LocalPods, eventually
from tests.vkubelet.fakes import FakeProvider, cluster
from vkubelet.podlog import JsonFormatter

from .calls import Lines, connected

UID = PodUid("0a-1")
TOKEN = "a-token-of-the-tests"
SITE = "site-a"


class Site(FakeProvider):
    """A provider that can be entered: its containers are processes of this machine."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: 1000.0)
        self.inside = LocalPods()
        self.introduced: list[PodIdentity] = []

    async def introduce(self, pods: Sequence[PodIdentity]) -> None:
        self.introduced += pods

    async def extend(self, pod: Pod, content: PodContent) -> None:
        self.extended = pod, content

    def exec(
        self, uid: PodUid, container: str, argv: Sequence[str], *, stdin: bool, tty: bool
    ) -> AbstractAsyncContextManager[ContainerProcess]:
        return self.inside.exec(uid, container, argv, stdin=stdin, tty=tty)

    def attach(self, uid: PodUid, container: str, *, stdin: bool) -> AbstractAsyncContextManager[ContainerProcess]:
        return self.inside.attach(uid, container, stdin=stdin)

    def connect(self, uid: PodUid, port: int) -> AbstractAsyncContextManager[PodConnection]:
        return self.inside.connect(uid, port)


class Running:
    """A sidecar on a unix socket that can be killed and started again. ``calls``: it calls a switchboard as well."""

    def __init__(self, directory: Path) -> None:
        self.calls: DialSettings | None = None
        self.board: Switchboard | None = None
        self.socket = directory / "s"
        self.tokens = directory / "tokens"
        self.tokens.write_text(f"another\n{TOKEN}\n")
        self.site = Site()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        settings = ServerSettings(unix_socket=str(self.socket), token_file=str(self.tokens))
        self._task = asyncio.create_task(serve(self.site, settings, dial=self.calls))
        async with asyncio.timeout(60):
            while not self.socket.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        if self.board is not None:
            await connected(self.board, SITE)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self.socket.unlink(missing_ok=True)
            self._task = None
            await eventually(lambda: not self.site.inside.inside)  # nobody is in a container any more


@pytest.fixture(params=["is called", "calls"])
async def sidecar(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    running = Running(tmp_path)
    async with AsyncExitStack() as stack:
        if request.param == "calls":
            lines = Lines(tmp_path / "lines")
            running.board = await stack.enter_async_context(lines.board([SITE]))
            running.calls = lines.dial(SITE)
        await running.start()
        yield running
        await running.stop()


@pytest.fixture
async def client(sidecar: Running, tmp_path: Path) -> AsyncIterator[SidecarProvider]:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    if sidecar.board is None:
        client = SidecarProvider(ClientSettings(url=f"unix:{sidecar.socket}", token_file=str(token)))
    else:
        settings = ClientSettings(name=SITE, token_file=str(token))
        client = SidecarProvider(settings, socket_path=sidecar.board.socket_of(SITE))
    yield client
    await client.close()


def pod(uid: str = UID) -> Pod:
    return Pod.model_validate(
        {
            "metadata": {"name": "a", "namespace": "ns", "uid": uid},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }
    )


async def until(reports: AsyncGenerator[Report, None], wanted: type[Report]) -> Report:
    async with asyncio.timeout(60):
        async for report in reports:
            if isinstance(report, wanted):
                return report
    raise AssertionError("the reports ended")


async def test_it_is_a_provider_with_its_abilities(client: SidecarProvider) -> None:
    assert isinstance(client, Enterable)
    assert isinstance(client, Editable)
    assert isinstance(client, Extendable)
    assert isinstance(client, Measurable)


async def test_a_pod_is_submitted_with_its_content_once(client: SidecarProvider, sidecar: Running) -> None:
    content = PodContent(volumes={"v": (VolumeFile("f", b"\0\xff", 0o400),)})
    first = await client.submit(pod(), content)
    assert await client.submit(pod(), content) == first
    assert sidecar.site.contents[UID] == content
    assert len(sidecar.site.jobs) == 1


async def test_what_is_done_to_a_pod_is_logged_with_its_uid_and_job(
    client: SidecarProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="sidecar.app")
    job_id = await client.submit(pod(), PodContent())
    await client.terminate(UID, 5)
    lines = [json.loads(JsonFormatter().format(each)) for each in caplog.records if each.name == "sidecar.app"]
    assert [(line["message"], line["uid"]) for line in lines] == [
        ("submitted", UID),
        ("end asked for, with 5 s of grace", UID),
    ]
    assert lines[0]["job_id"] == job_id


async def test_a_running_pod_is_given_containers(client: SidecarProvider, sidecar: Running) -> None:
    content = PodContent(volumes={"v": (VolumeFile("f", b"x", 0o400),)})
    await client.extend(pod(), content)
    assert sidecar.site.extended == (pod(), content)


async def test_the_cluster_and_usage_are_told(client: SidecarProvider, sidecar: Running) -> None:
    sidecar.site.usages = (PodUsage(UID, 5.0, (ContainerUsage("c", 1.0, 2, 3),)),)
    assert await client.cluster() == cluster()
    assert await client.usage() == sidecar.site.usages


async def test_the_end_the_content_and_the_forgetting_of_a_pod_arrive(
    client: SidecarProvider, sidecar: Running
) -> None:
    await client.submit(pod(), PodContent())
    await client.update(UID, PodContent(volumes={"v": ()}))
    await client.edit(pod())
    await client.terminate(UID, 7)
    await client.forget(UID)
    assert sidecar.site.edits == [wanted(pod())]
    assert sidecar.site.contents[UID].volumes == {"v": ()}
    assert sidecar.site.terminations == [(UID, 7)]
    assert sidecar.site.forgotten == [UID]


@pytest.mark.parametrize(
    "error",
    [
        UnsupportedFieldError("spec.x", "no"), SubmissionRejectedError("words", limit=True), SlurmUnavailableError("away"),
        TransportError("lost"), PodNotFoundError("none"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_an_error_arrives_as_what_it_was(client: SidecarProvider, sidecar: Running, error: Exception) -> None:
    sidecar.site.refuse = lambda _pod: error  # type: ignore[assignment,return-value]
    with pytest.raises(type(error)) as caught:
        await client.submit(pod(), PodContent())
    assert str(caught.value) == str(error)
    assert vars(caught.value) == vars(error)


async def test_a_log_is_read_and_a_reader_that_goes_away_is_noticed(client: SidecarProvider, sidecar: Running) -> None:
    await client.submit(pod(), PodContent())
    options = LogOptions(tail_lines=3)
    assert b"".join([data async for data in client.logs(UID, "c", options)]) == b"one\ntwo\n"
    assert sidecar.site.log_options == [options]
    sidecar.site.log_closed.clear()
    async with aclosing(client.logs(UID, "c", LogOptions(follow=True))) as log:
        assert await anext(log)
    async with asyncio.timeout(60):
        await sidecar.site.log_closed.wait()


async def test_a_log_that_is_not_there_is_said_not_to_be(client: SidecarProvider) -> None:
    with pytest.raises(PodNotFoundError):
        await anext(client.logs(PodUid("none"), "c", LogOptions()))


@pytest.mark.slow
async def test_reports_go_on_after_the_sidecar_was_away(client: SidecarProvider, sidecar: Running) -> None:
    job_id = await client.submit(pod(), PodContent())
    async with aclosing(client.reports()) as reports:
        assert [report.job_id for report in (await until(reports, Snapshot)).reports] == [job_id]  # type: ignore[union-attr]
        await sidecar.stop()
        while (away := await until(reports, Reachable)).error is None:  # type: ignore[union-attr]
            pass
        assert "sidecar" in away.error  # type: ignore[union-attr]
        await sidecar.start()
        while (await until(reports, Reachable)).error is not None:  # type: ignore[union-attr]
            pass
        sidecar.site.end(UID)
        async with asyncio.timeout(60):
            async for report in reports:
                if not isinstance(report, Reachable | Snapshot) and report.over:
                    break


async def test_whose_pods_there_are_is_told_a_sidecar_that_was_started_anew_before_it_says_anything(
    client: SidecarProvider, sidecar: Running
) -> None:
    mine, theirs = (PodIdentity(PodUid(uid), "default", uid, "default") for uid in ("0a-1", "0a-2"))
    await client.introduce([mine])
    async with aclosing(client.reports()) as reports:
        await until(reports, Snapshot)
        assert sidecar.site.introduced == [mine]
        await client.introduce([theirs])
        await client.forget(mine.uid)
        job_id = await client.submit(pod(), PodContent())
        sidecar.site.introduced.clear()
        await sidecar.stop()
        while (await until(reports, Reachable)).error is None:  # type: ignore[union-attr]
            pass
        await sidecar.start()
        await until(reports, Snapshot)
        assert sidecar.site.introduced == [theirs, replace(PodIdentity.of(pod()), job_id=job_id)]


async def test_whose_jobs_pods_have_is_told_a_sidecar_that_was_started_anew_and_may_not_know_the_user_any_more(
    client: SidecarProvider, sidecar: Running
) -> None:
    mine = PodIdentity(PodUid("0a-1"), "default", "0a-1", "default")
    await client.introduce([mine])
    async with aclosing(client.reports()) as reports:
        await until(reports, Snapshot)
        sidecar.site.tell(PodReport(mine.uid, "default", "0a-1", JobId("7"), None, None, user="alice"))
        await until(reports, PodReport)
        await sidecar.stop()
        sidecar.site.introduced.clear()
        await sidecar.start()
        await until(reports, Snapshot)
        assert sidecar.site.introduced == [replace(mine, job_id=JobId("7"), job_user="alice")]


async def test_whose_job_a_pod_has_is_remembered_though_it_was_told_before_its_submission_was_answered(
    client: SidecarProvider, sidecar: Running
) -> None:
    await client.introduce([])
    async with aclosing(client.reports()) as reports:
        await until(reports, Snapshot)
        sidecar.site.takes_jobs.clear()
        submission = asyncio.create_task(client.submit(pod(), PodContent()))
        await eventually(lambda: bool(sidecar.site.submissions))
        sidecar.site.tell(PodReport(UID, "default", "web", JobId("101"), None, None, user="alice"))
        await until(reports, PodReport)
        sidecar.site.takes_jobs.set()
        job_id = await submission
        await sidecar.stop()
        sidecar.site.introduced.clear()
        await sidecar.start()
        await until(reports, Snapshot)
        assert sidecar.site.introduced == [replace(PodIdentity.of(pod()), job_id=job_id, job_user="alice")]


async def test_a_pod_that_was_refused_is_not_told_a_sidecar_that_was_started_anew(
    client: SidecarProvider, sidecar: Running
) -> None:
    await client.introduce([])
    sidecar.site.refuse = lambda _pod: SubmissionRejectedError("Invalid account")
    with pytest.raises(SubmissionRejectedError):
        await client.submit(pod(), PodContent())
    sidecar.site.introduced.clear()
    async with aclosing(client.reports()) as reports:
        await until(reports, Snapshot)
    assert sidecar.site.introduced == []


async def test_a_second_snapshot_arrives_whole(client: SidecarProvider, sidecar: Running) -> None:
    async with aclosing(client.reports()) as reports:
        await until(reports, Snapshot)
        await client.submit(pod(), PodContent())
        sidecar.site.tell(Snapshot(()))
        assert await until(reports, Snapshot) == Snapshot(())


async def test_a_command_has_its_streams_and_its_exit_code(client: SidecarProvider) -> None:
    argv = ["sh", "-c", "cat; echo wrong >&2; exit 3"]
    async with client.exec(UID, "c", argv, stdin=True, tty=False) as process:
        data = os.urandom(3_000_000)
        writing = asyncio.create_task(_write(process, data))
        read = b""
        while piece := await process.read():
            read += piece
        assert read == data
        assert await process.read_error() == b"wrong\n"
        assert await process.wait() == 3
        await writing


async def _write(process: ContainerProcess, data: bytes) -> None:
    await process.write(data)
    await process.close_stdin()


@pytest.mark.slow
async def test_a_client_that_reads_nothing_for_a_while_is_not_cut_off(
    client: SidecarProvider, sidecar: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "PULSE_SECONDS", 1.0)
    async with client.exec(UID, "c", ["head", "-c", "9000000", "/dev/zero"], stdin=False, tty=False) as process:
        read = len(await process.read())
        await asyncio.sleep(3)  # as somebody looks at one page of `less`
        while piece := await process.read():
            read += len(piece)
        assert read == 9_000_000
        assert await process.wait() == 0


@pytest.mark.slow
async def test_a_command_that_reads_nothing_for_a_while_is_not_cut_off(
    client: SidecarProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "PULSE_SECONDS", 1.0)
    async with client.exec(UID, "c", ["sh", "-c", "sleep 3; wc -c"], stdin=True, tty=False) as process:
        writing = asyncio.create_task(_write(process, bytes(9_000_000)))
        assert await process.read() == b"9000000\n"
        assert await process.wait() == 0
        await writing


class Breaking(LocalPods):
    """What is read of its processes breaks off; what is written to its connections finds nobody."""

    @asynccontextmanager
    async def exec(
        self, uid: PodUid, container: str, argv: Sequence[str], *, stdin: bool, tty: bool
    ) -> AsyncIterator[ContainerProcess]:
        async with super().exec(uid, container, argv, stdin=stdin, tty=tty) as process:
            process.read = self._broken  # type: ignore[method-assign]
            yield process

    @asynccontextmanager
    async def connect(self, uid: PodUid, port: int) -> AsyncIterator[PodConnection]:
        async with super().connect(uid, port) as connection:
            connection.write = self._deaf  # type: ignore[method-assign]
            yield connection

    async def _broken(self) -> bytes:
        raise HostError("the node went away")

    async def _deaf(self, _data: bytes) -> None:
        raise HostError("the server takes no more")


async def test_the_words_of_what_breaks_in_the_middle_arrive(client: SidecarProvider, sidecar: Running) -> None:
    sidecar.site.inside = Breaking()
    async with client.exec(UID, "c", ["sleep", "300"], stdin=False, tty=False) as process:
        with pytest.raises(HostError, match="the node went away"):
            await process.read()
        with pytest.raises(HostError, match="the node went away"):
            await process.wait()


@pytest.mark.slow
async def test_a_server_that_listens_no_more_is_heard_to_its_end(
    client: SidecarProvider, sidecar: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "PULSE_SECONDS", 1.0)
    sidecar.site.inside = Breaking()

    async def late(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3)
        writer.write(b"last words")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(late, "127.0.0.1", 0)
    async with server, client.connect(UID, server.sockets[0].getsockname()[1]) as connection:
        for _ in range(40):  # more than a window
            await connection.write(bytes(10_000))
        assert await connection.read() == b"last words"
        assert await connection.read() == b""


async def test_leaving_a_command_ends_it(client: SidecarProvider, sidecar: Running) -> None:
    async with client.exec(UID, "c", ["sleep", "300"], stdin=False, tty=False):
        assert sidecar.site.inside.inside == 1
    async with asyncio.timeout(60):
        while sidecar.site.inside.inside:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_port_is_connected_to(client: SidecarProvider) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    async with server, client.connect(UID, server.sockets[0].getsockname()[1]) as connection:
        await connection.write(b"hello")
        await connection.close_write()
        assert await connection.read() == b"HELLO"
        assert await connection.read() == b""


async def test_a_container_that_is_not_there_is_said_not_to_be(client: SidecarProvider, sidecar: Running) -> None:
    sidecar.site.inside.missing = True
    with pytest.raises(PodNotFoundError):
        async with client.exec(UID, "c", ["true"], stdin=False, tty=False):
            raise AssertionError("entered")


async def test_a_wrong_token_is_refused_and_the_right_one_read_again(sidecar: Running, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("wrong")
    client = SidecarProvider(ClientSettings(url=f"unix:{sidecar.socket}", token_file=str(mine)))
    with pytest.raises(SlurmUnavailableError, match="token"):
        await client.cluster()
    sidecar.tokens.write_text("wrong\n")
    assert await client.cluster() == cluster()
    await client.close()


async def test_health_and_readiness_need_no_token_and_everything_else_does(sidecar: Running) -> None:
    async with aiohttp.ClientSession("http://s", connector=aiohttp.UnixConnector(str(sidecar.socket))) as session:
        for path, status in {
            "/healthz": 200,
            "/metrics": 401,
            "/openapi.json": 401,
            wire.CLUSTER: 401,
            "/x": 401,
        }.items():
            async with session.get(path) as response:
                assert (path, response.status) == (path, status)
        async with asyncio.timeout(60):
            while (await session.get("/readyz")).status != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with session.get("/metrics", headers=headers) as response:
            figures = await response.text()
            assert "slurmlet_sidecar_slurm_reachable 1.0" in figures
            assert f"# TYPE {COMMAND_SECONDS.describe()[0].name} histogram" in figures
        for body in (b"", b"[]", b'{"grace_seconds": -1}', b"{" * 9999):
            async with session.post(f"{wire.PODS}/x/terminate", data=body, headers=headers) as response:
                assert response.status == 400


async def test_the_description_names_every_route(sidecar: Running) -> None:
    from sidecar.app import Sidecar
    from sidecar.openapi import document

    described = {(path, method.upper()) for path, verbs in document()["paths"].items() for method in verbs}
    application = Sidecar(sidecar.site).application()
    served = {(str(r.resource.canonical), r.method) for r in application.router.routes() if r.resource is not None}
    ours = {(path, method) for path, method in served if method != "HEAD"}
    assert ours == {(path, method) for path, method in described if method != "PARAMETERS"}


@pytest.mark.slow
async def test_a_quiet_log_is_followed_and_a_line_that_leads_nowhere_ends_it(
    sidecar: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    client = SidecarProvider(ClientSettings(url=f"unix:{sidecar.socket}", token_file=str(token)), silence_seconds=1)
    monkeypatch.setattr(wire, "PULSE_SECONDS", 0.1)
    await client.submit(pod(), PodContent())
    async with aclosing(client.logs(UID, "c", LogOptions(follow=True))) as log:
        assert [await anext(log), await anext(log)] == [b"one\n", b"two\n"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):  # the sidecar has nothing to say, and is believed to live
                await anext(log)
    monkeypatch.setattr(wire, "PULSE_SECONDS", 60)
    async with aclosing(client.logs(UID, "c", LogOptions(follow=True))) as log:
        assert [await anext(log), await anext(log)] == [b"one\n", b"two\n"]
        with pytest.raises(TransportError):
            await anext(log)
    await client.close()


class Proxy:
    """Answers everything in its own words, as one that stands before a sidecar does while that is away."""

    def __init__(self, status: int, text: str, media: str) -> None:
        self._answer = status, text, media

    async def answer(self, _request: web.Request) -> web.Response:
        status, text, media = self._answer
        return web.Response(status=status, text=text, content_type=media)


@pytest.mark.parametrize(
    ("status", "text", "media"),
    [
        (502, "<html>Bad Gateway</html>", "text/html"),
        (504, '{"message": "upstream timed out"}', "application/json"),
        (200, "<html>maintenance</html>", "text/html"),
        (200, "{}", "application/json"),
    ],
)
async def test_a_proxys_answer_to_a_change_leaves_its_outcome_unknown(
    tmp_path: Path, status: int, text: str, media: str
) -> None:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", Proxy(status, text, media).answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "proxy")).start()
    client = SidecarProvider(ClientSettings(url=f"unix:{tmp_path}/proxy"))
    with pytest.raises(TransportError):
        await client.submit(pod(), PodContent())
    with pytest.raises(SlurmUnavailableError):
        await client.cluster()
    await client.close()
    await runner.cleanup()
