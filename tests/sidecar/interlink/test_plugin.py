"""A sidecar as an interLink plugin: raw requests as interLink's Go code sends them, and our own client of plugins."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from sidecar.config import InterLinkServerSettings
from sidecar.feed import Feed
from sidecar.interlink.config import InterLinkSettings
from sidecar.interlink.plugin import Plugin
from sidecar.interlink.provider import InterLinkProvider
from sidecar.interlink.requests import creation
from sidecar.serving import InterLinkServing, serve
from slurm_plugin.config import LocalHostSettings, SiteSettings, SlurmSettings
from slurm_plugin.contract import LogOptions, PodReport, Reachable, Snapshot
from slurm_plugin.errors import SlurmUnavailableError, SubmissionRejectedError, TransportError, UnsupportedFieldError
from slurm_plugin.job import JobId, JobState, JobStatus, PodUid
from slurm_plugin.podstatus import pod_status
from tests.vkubelet.fakes import FakeProvider

from .test_provider import until
from .test_requests import UID, recorded

SITE = SiteSettings(slurm=SlurmSettings(host=LocalHostSettings(kind="local")))


ACCELERATORS = [
    {"resourceType": "nvidia.com/gpu", "available": "4"},
    {"resourceType": "amd.com/gpu", "available": "0"},
]


@pytest.fixture
def site() -> FakeProvider:
    return FakeProvider(clock=lambda: 1000.0)


@pytest.fixture
async def socket(site: FakeProvider, tmp_path: Path) -> AsyncIterator[str]:
    path = str(tmp_path / "s")
    async with _served(site, InterLinkServerSettings(unix_socket=path)):
        yield path


@asynccontextmanager
async def _served(
    site: FakeProvider, settings: InterLinkServerSettings, site_settings: SiteSettings = SITE
) -> AsyncIterator[None]:
    task = asyncio.create_task(serve(site, None, interlink=InterLinkServing(settings, site_settings)))
    await _until(lambda: Path(settings.unix_socket or "").exists())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def _until_async(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


Ask = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
async def ask(socket: str) -> AsyncIterator[Ask]:
    """Ask as interLink does: GET requests have bodies, and no answer is taken before the site is known."""
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket)) as session:

        async def ask(method: str, path: str, body: object = None, **headers: str) -> tuple[int, str]:
            data = None if body is None else json.dumps(body).encode()
            async with session.request(method, f"http://plugin{path}", data=data, headers=headers) as answer:
                return answer.status, await answer.text()

        async def ready() -> bool:
            return json.loads((await ask("POST", "/pinglink"))[1])["status"] == "ok"

        await _until_async(ready)
        yield ask


def terminated(answer: str) -> Any:
    (status,) = json.loads(answer)
    return status["containers"][0]["state"].get("terminated")


@pytest.mark.parametrize("name", ["create", "requests"])
async def test_a_recorded_pod_is_created_runs_ends_and_goes(ask: Ask, site: FakeProvider, name: str) -> None:
    code, answer = await ask("POST", "/create", recorded(name))
    assert (code, json.loads(answer)) == (200, {"PodUID": UID, "PodJID": "101"})
    assert site.contents[PodUid(UID)].volumes["keys"][0].data == b"\x00\xff"
    assert json.loads((await ask("POST", "/create", recorded(name)))[1])["PodJID"] == "101"

    (status,) = json.loads((await ask("GET", "/status", recorded("status")))[1])
    assert {key: status[key] for key in ("name", "UID", "namespace", "JID")} == {
        "name": "recorded", "UID": UID, "namespace": "physics", "JID": "101",
    }  # fmt: skip
    assert "waiting" in status["containers"][0]["state"]
    assert [each["name"] for each in status["initContainers"]] == ["first"]

    site.run(site.submissions[0])
    await _until_answers(ask, lambda text: "running" in json.loads(text)[0]["containers"][0]["state"])
    assert await ask("GET", "/getLogs", recorded("logs")) == (200, "one\ntwo\n")
    assert site.log_options == [LogOptions(tail_lines=5)]
    site.run(site.submissions[0], exit_code=3)
    await _until_answers(ask, lambda text: bool(terminated(text)))
    assert terminated((await ask("GET", "/status", recorded("status")))[1])["exitCode"] == 3

    site.obeys = False  # it has ended
    assert (await ask("POST", "/delete", recorded("delete")))[0] == 200
    await _until_answers(ask, lambda text: text == "null")
    assert site.forgotten == [UID]


async def _until_answers(ask: Ask, wanted: Callable[[str], bool]) -> None:
    async def answers() -> bool:
        return wanted((await ask("GET", "/status", recorded("status")))[1])

    await _until_async(answers)


async def test_a_deleted_pod_has_its_grace_period_and_goes_once_it_has_ended(ask: Ask, site: FakeProvider) -> None:
    await ask("POST", "/create", recorded("create"))
    await _until_answers(ask, lambda text: text != "null")
    site.obeys = False
    assert (await ask("DELETE", "/delete", recorded("delete")))[0] == 200
    assert site.terminations[0] == (UID, 30)
    assert not site.forgotten
    site.end(PodUid(UID))
    await _until(lambda: site.forgotten == [UID])


async def test_deleting_what_is_not_known_is_no_error(ask: Ask) -> None:
    assert (await ask("DELETE", "/delete", recorded("delete")))[0] == 200


async def test_a_pod_that_was_created_once_and_is_not_known_is_lost_and_no_success(ask: Ask) -> None:
    (body,) = recorded("status")
    body["metadata"]["annotations"]["JobID"] = "7"
    ending = terminated((await ask("GET", "/status", [body]))[1])
    assert ending["exitCode"] != 0


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UnsupportedFieldError("spec.x", "can't be"), 422, "spec.x: can't be"),
        (SubmissionRejectedError("invalid partition"), 409, "invalid partition"),
    ],
)
async def test_a_refusal_is_a_plain_text_that_names_the_thing(
    ask: Ask, site: FakeProvider, error: Any, code: int, words: str
) -> None:
    site.refuse = lambda _pod: error
    status, text = await ask("POST", "/create", recorded("create"))
    assert (status, words in text, text.startswith("{")) == (code, True, False)


async def test_slurm_that_does_not_answer_is_asked_again_for_a_while(ask: Ask, site: FakeProvider) -> None:
    errors: list[Exception] = [SlurmUnavailableError("slurmctld is away")]
    site.refuse = lambda _pod: errors.pop() if errors else None  # type: ignore[return-value]
    assert (await ask("POST", "/create", recorded("create")))[0] == 200
    assert len(site.submissions) == 2


async def test_a_creation_that_failed_without_an_answer_leaves_no_job_behind(
    site: FakeProvider, tmp_path: Path
) -> None:
    site.refuse = lambda _pod: TransportError("the line broke")
    feed = Feed(site)
    hearing = asyncio.create_task(feed.run())
    await _until(lambda: feed.ready)
    plugin = Plugin(site, feed, settings=SITE, patience=-1.0)
    runner = web.AppRunner(plugin.application())
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "p")).start()
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(tmp_path / "p"))) as session:
        async with session.post("http://plugin/create", json=recorded("create")) as answer:
            assert answer.status == 504
        await _until(lambda: site.forgotten == [UID])
    assert site.terminations == [(UID, 0)]
    await runner.cleanup()
    hearing.cancel()
    await asyncio.gather(hearing, return_exceptions=True)


async def test_the_ping_tells_what_usable_nodes_have_and_lives_while_slurm_does_not(
    ask: Ask, site: FakeProvider
) -> None:
    code, text = await ask("GET", "/status", [])
    assert (code, json.loads(text)["resources"]) == (
        200,
        {"cpu": "32", "memory": "64000Mi", "accelerators": ACCELERATORS},
    )
    assert json.loads((await ask("GET", "/system-info"))[1])["slurm_connected"] is True
    site.tell(Reachable("slurmctld is away"))

    async def said() -> bool:
        return not json.loads((await ask("GET", "/system-info"))[1])["slurm_connected"]

    await _until_async(said)
    info = json.loads((await ask("GET", "/system-info"))[1])
    assert (info["status"], info["error"]) == ("error", "slurmctld is away")
    code, text = await ask("POST", "/pinglink")
    assert (code, json.loads(text)["status"]) == (200, "slurmctld is away")
    assert json.loads(text)["resources"]["cpu"] == "32"


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/create"), ("POST", "/delete"), ("GET", "/status"), ("GET", "/getLogs")]
)
async def test_nonsense_is_answered_and_ends_nothing(ask: Ask, method: str, path: str) -> None:
    for body in ("x", [5], {"pod": 5}):
        assert (await ask(method, path, body))[0] == 400
    assert (await ask("POST", "/updateCache", "x"))[0] == 200


async def test_before_every_pod_is_known_nothing_is_created_and_nothing_said(
    site: FakeProvider, socket: str, tmp_path: Path
) -> None:
    late = FakeProvider(clock=lambda: 1000.0)
    late.snapshot_allowed.clear()
    path = str(tmp_path / "late")
    async with (
        _served(late, InterLinkServerSettings(unix_socket=path)),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
    ):
        for verb, method in (("POST", "/create"), ("GET", "/status"), ("DELETE", "/delete")):
            body = recorded({"/create": "create", "/status": "status", "/delete": "delete"}[method])
            async with session.request(verb, f"http://plugin{method}", json=body) as answer:
                assert answer.status == 503
    assert not late.submissions


async def test_a_token_is_asked_for_where_one_is_configured(site: FakeProvider, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("of-the-virtual-kubelet\n")
    path = str(tmp_path / "guarded")
    settings = InterLinkServerSettings(unix_socket=path, token_file=str(tokens))
    async with (
        _served(site, settings),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
    ):
        for token, code in (("wrong", 401), ("of-the-virtual-kubelet", 200)):
            headers = {"Authorization": f"Bearer {token}"}
            async with session.post("http://plugin/pinglink", headers=headers) as answer:
                assert answer.status == code


async def test_our_own_client_of_plugins_runs_a_pod_through_our_own_plugin(
    ask: Ask, site: FakeProvider, socket: str, tmp_path: Path
) -> None:
    settings = InterLinkSettings(url=f"unix://{socket}", directory=str(tmp_path / "pods"), poll_seconds=0.2)
    provider = InterLinkProvider(settings)
    (pod, content), uid = creation(recorded("create")), PodUid(UID)
    assert await provider.submit(pod, content) == "101"
    assert site.contents[uid].volumes["keys"][0].data == b"\x00\xff"
    assert (await provider.cluster()).nodes[0].cpus == 32
    site.run(pod, exit_code=3)
    snapshot = await until(provider, lambda item: isinstance(item, Snapshot) and item.reports[0].over)
    assert isinstance(snapshot, Snapshot)
    (report,) = snapshot.reports
    assert pod_status(pod, report, now=0, node_ips=())["phase"] == "Failed"
    async with aclosing(provider.logs(uid, "main", LogOptions())) as stream:
        assert b"".join([data async for data in stream]) == b"one\ntwo\n"
    await provider.forget(uid)
    await _until(lambda: site.forgotten == [UID])
    await provider.close()


async def test_pods_that_ended_long_ago_are_removed_and_no_others(site: FakeProvider, tmp_path: Path) -> None:
    now = time.time()
    ends = {"long-ago": now - 7200, "just-now": now - 10, "runs": None, "unknown-end": None}
    for uid, end in ends.items():
        job = JobStatus(
            JobId("1"), JobState.RUNNING if uid == "runs" else JobState.COMPLETED, end_time=end and int(end)
        )
        site.jobs[PodUid(uid)] = PodReport(PodUid(uid), "ns", uid, JobId("1"), job, None)
    slurm = SITE.slurm.model_copy(update={"orphan_hours": 1.0})
    settings = InterLinkServerSettings(unix_socket=str(tmp_path / "c"))
    async with _served(site, settings, SITE.model_copy(update={"slurm": slurm})):
        await _until(lambda: bool(site.forgotten))
    assert site.forgotten == ["long-ago"]
