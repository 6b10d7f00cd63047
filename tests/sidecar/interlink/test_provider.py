"""Pods through an interLink plugin."""

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from sidecar.interlink.config import InterLinkSettings
from sidecar.interlink.provider import InterLinkProvider
from slurm_plugin.contract import LogOptions, PodContent, PodReport, Reachable, Report, Snapshot
from slurm_plugin.errors import PodNotFoundError, SlurmUnavailableError, SubmissionRejectedError, TransportError
from slurm_plugin.job import PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.podstatus import pod_status

from .plugin import Plugin, ended, running, served

NOTHING = PodContent()


def pod(uid: str = "u-1") -> Pod:
    return Pod.model_validate(
        {
            "metadata": {"name": "p", "namespace": "default", "uid": uid},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox"}]},
        }
    )


@pytest.fixture
def plugin() -> Plugin:
    return Plugin()


@pytest.fixture
async def settings(plugin: Plugin, tmp_path: Path) -> AsyncIterator[InterLinkSettings]:
    async with served(plugin, str(tmp_path / "s")) as url:
        yield InterLinkSettings(url=url, directory=str(tmp_path / "pods"), poll_seconds=0.2, request_timeout_seconds=5)


@pytest.fixture
async def provider(settings: InterLinkSettings) -> AsyncIterator[InterLinkProvider]:
    provider = InterLinkProvider(settings)
    yield provider
    await provider.close()


async def until(provider: InterLinkProvider, wanted: object) -> Report:
    """The first report that ``wanted`` accepts."""
    async with asyncio.timeout(10), aclosing(provider.reports()) as stream:
        async for item in stream:
            if callable(wanted) and wanted(item):
                return item
    raise AssertionError("reports ended")


def modes(directory: str) -> list[int]:
    """The permissions of a directory and of what is in it."""
    path = Path(directory)
    return [stat.S_IMODE(entry.stat().st_mode) for entry in (path, *path.iterdir())]


def phase(item: Report) -> str:
    return (
        ""
        if not isinstance(item, PodReport)
        else str(pod_status(pod(item.uid), item, now=0, node_ips=("10.0.0.1",))["phase"])
    )


async def test_a_pod_runs_and_ends_with_its_exit_code(plugin: Plugin, provider: InterLinkProvider) -> None:
    assert await provider.submit(pod(), NOTHING) == "job-u-1"
    plugin.statuses["u-1"] = [running()]
    async with asyncio.timeout(10), aclosing(provider.reports()) as stream:
        async for item in stream:
            if isinstance(item, Snapshot):
                assert [phase(report) for report in item.reports] == ["Running"]
                plugin.statuses["u-1"] = [ended(3)]
            elif isinstance(item, PodReport):
                break
    assert item.over
    status = pod_status(pod(), item, now=0, node_ips=("10.0.0.1",))
    assert status["phase"] == "Failed"
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3


async def test_a_pod_is_created_once_though_it_is_submitted_twice(plugin: Plugin, provider: InterLinkProvider) -> None:
    assert await provider.submit(pod(), NOTHING) == await provider.submit(pod(), NOTHING)
    assert len(plugin.created) == 1


async def test_a_lost_answer_to_create_makes_no_second_pod(
    plugin: Plugin, provider: InterLinkProvider, settings: InterLinkSettings
) -> None:
    plugin.lose_the_answer = True
    with pytest.raises(TransportError):
        await provider.submit(pod(), NOTHING)
    plugin.lose_the_answer = False
    plugin.statuses["u-1"] = [running()]
    again = InterLinkProvider(settings)
    assert await again.submit(pod(), NOTHING) == "job-u-1"
    assert len(plugin.created) == 1
    await again.close()


async def test_a_pod_whose_creation_never_arrived_is_created_by_the_next_attempt(
    plugin: Plugin, provider: InterLinkProvider
) -> None:
    plugin.lose_the_answer = plugin.loses_the_pod = True
    with pytest.raises(TransportError):
        await provider.submit(pod(), NOTHING)
    plugin.lose_the_answer = plugin.loses_the_pod = False
    assert await provider.submit(pod(), NOTHING) == "job-u-1"


async def test_a_plugin_that_is_away_is_given_nothing_and_keeps_nothing(
    plugin: Plugin, settings: InterLinkSettings, tmp_path: Path
) -> None:
    away = settings.model_copy(update={"url": f"unix://{tmp_path}/later"})
    provider = InterLinkProvider(away)
    with pytest.raises(SlurmUnavailableError, match="later"):
        await provider.submit(pod(), NOTHING)
    await provider.terminate(PodUid("u-1"), 30)  # there is nothing to be deleted
    async with served(plugin, str(tmp_path / "later")):
        assert await provider.submit(pod(), NOTHING) == "job-u-1"
        await provider.close()


async def test_a_pod_that_the_plugin_never_got_can_be_deleted(
    plugin: Plugin, provider: InterLinkProvider, settings: InterLinkSettings
) -> None:
    plugin.lose_the_answer = plugin.loses_the_pod = True
    with pytest.raises(TransportError):
        await provider.submit(pod(), NOTHING)
    await provider.terminate(PodUid("u-1"), 30)
    snapshot = await until(provider, lambda item: isinstance(item, Snapshot))
    assert isinstance(snapshot, Snapshot)
    assert snapshot.reports[0].over
    await provider.forget(PodUid("u-1"))
    assert modes(settings.directory) == [0o700]


async def test_a_refused_pod_of_which_the_plugin_kept_nothing_is_refused_in_its_words(
    plugin: Plugin, provider: InterLinkProvider
) -> None:
    plugin.refuse = "sbatch: error: no such partition"
    with pytest.raises(SubmissionRejectedError, match="no such partition"):
        await provider.submit(pod(), NOTHING)
    plugin.refuse = ""
    assert await provider.submit(pod(), NOTHING) == "job-u-1"


async def test_a_refused_pod_is_refused_in_the_plugins_words_and_deleted(
    plugin: Plugin, provider: InterLinkProvider
) -> None:
    plugin.refuse, plugin.runs_all_the_same = "sbatch: info: have a nice day", True
    with pytest.raises(SubmissionRejectedError, match="504: sbatch: info: have a nice day"):
        await provider.submit(pod(), NOTHING)
    assert plugin.pods == {}
    plugin.refuse = ""
    assert await provider.submit(pod(), NOTHING) == "job-u-1"


async def test_a_plugin_that_can_not_serve_now_is_asked_again_later(
    plugin: Plugin, provider: InterLinkProvider
) -> None:
    plugin.refuse, plugin.refuse_code = "not every pod is known yet", 503
    with pytest.raises(SlurmUnavailableError, match="not every pod is known yet"):
        await provider.submit(pod(), NOTHING)
    plugin.refuse = ""
    assert await provider.submit(pod(), NOTHING) == "job-u-1"


async def test_answers_for_another_pod_or_without_containers_are_no_news(
    plugin: Plugin, provider: InterLinkProvider
) -> None:
    await provider.submit(pod(), NOTHING)
    plugin.answers_for_another = True
    snapshot = await until(provider, lambda item: isinstance(item, Snapshot))
    assert isinstance(snapshot, Snapshot)
    assert [phase(report) for report in snapshot.reports] == ["Pending"]
    plugin.answers_for_another = False
    snapshot = await until(provider, lambda item: isinstance(item, Snapshot))
    assert isinstance(snapshot, Snapshot)
    assert [phase(report) for report in snapshot.reports] == ["Pending"]


async def test_pods_are_known_again_after_a_restart(plugin: Plugin, settings: InterLinkSettings) -> None:
    before = InterLinkProvider(settings)
    await before.submit(pod(), NOTHING)
    await before.close()
    plugin.statuses["u-1"] = [ended(0)]
    after = InterLinkProvider(settings)
    snapshot = await until(after, lambda item: isinstance(item, Snapshot))
    assert isinstance(snapshot, Snapshot)
    assert [phase(report) for report in snapshot.reports] == ["Succeeded"]
    await after.close()


async def test_what_is_written_of_pods_is_for_its_owner_alone(
    provider: InterLinkProvider, settings: InterLinkSettings
) -> None:
    await provider.submit(pod(), NOTHING)
    assert modes(settings.directory) == [0o700, 0o600]


@pytest.mark.parametrize(("speaks", "verb"), [("plugin", "POST"), ("api", "DELETE")])
async def test_a_terminated_pod_is_deleted_by_the_verb_that_each_side_takes(
    plugin: Plugin, settings: InterLinkSettings, speaks: str, verb: str
) -> None:
    provider = InterLinkProvider(settings.model_copy(update={"speaks": speaks}))
    await provider.submit(pod(), NOTHING)
    plugin.statuses["u-1"] = [running()]
    await until(provider, lambda item: isinstance(item, Snapshot))
    await provider.terminate(PodUid("u-1"), 30)
    await provider.terminate(PodUid("u-1"), 30)
    assert plugin.verbs == [verb]
    snapshot = await until(provider, lambda item: isinstance(item, Snapshot))
    assert isinstance(snapshot, Snapshot)
    assert snapshot.reports[0].over
    assert pod_status(pod(), snapshot.reports[0], now=0, node_ips=("10.0.0.1",))["phase"] == "Failed"
    await provider.forget(PodUid("u-1"))
    assert modes(settings.directory) == [0o700]
    await provider.close()


async def test_a_plugin_that_is_away_is_said_and_comes_back(plugin: Plugin, tmp_path: Path) -> None:
    path = str(tmp_path / "later")
    settings = InterLinkSettings(url=f"unix://{path}", directory=str(tmp_path / "pods"), poll_seconds=0.2)
    provider = InterLinkProvider(settings)
    async with asyncio.timeout(20), aclosing(provider.reports()) as stream:
        first = await anext(stream)
        assert isinstance(first, Reachable)
        assert first.error is not None
        assert "later" in first.error
        async with served(plugin, path):
            seen = [await anext(stream)]
            while not isinstance(seen[-1], Snapshot):
                seen.append(await anext(stream))
            assert seen[-2:] == [Reachable(None), Snapshot(())]
    await provider.close()


async def test_logs_are_asked_for_with_every_option_and_cut_by_us(plugin: Plugin, provider: InterLinkProvider) -> None:
    await provider.submit(pod(), NOTHING)
    options = LogOptions(previous=True, timestamps=True, tail_lines=5, since_time=1.0, limit_bytes=21)
    text = b"".join([chunk async for chunk in provider.logs(PodUid("u-1"), "main", options)])
    assert text == b'{"Tail": 5, "Bytes": '
    with pytest.raises(PodNotFoundError):
        await anext(provider.logs(PodUid("u-2"), "main", LogOptions()))


async def test_the_node_offers_what_the_ping_tells_or_else_the_configuration(
    provider: InterLinkProvider, settings: InterLinkSettings
) -> None:
    (node,) = (await provider.cluster()).nodes
    assert (node.cpus, node.memory_mib) == (1, 1024)
    api = InterLinkProvider(settings.model_copy(update={"speaks": "api"}))
    (node,) = (await api.cluster()).nodes
    assert (node.cpus, node.memory_mib) == (96, 256 * 1024)
    await api.close()
