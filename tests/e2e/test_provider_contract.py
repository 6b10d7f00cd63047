"""What every provider promises (``contract.Provider``, ``Enterable``), over each way to Slurm, on the real one.

One set of pods for each way, submitted at once; each test looks at its own.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from slurm_plugin.contract import Enterable, LogOptions, PodContent, PodReport, Provider, Reachable, Snapshot
from slurm_plugin.errors import HostError, PodNotFoundError, SlurmUnavailableError, TransportError
from slurm_plugin.job import JobId, JobState, PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.runner.state import Running, Terminated
from testbed.site import pyslurm

from . import ways
from .testbed import Testbed

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

PATIENCE_SECONDS = 120
CONNECTIONS = {
    "command/local": partial(ways.slurm, client="command", host="local"),
    "command/ssh": partial(ways.slurm, client="command", host="ssh"),
    "rest/local": partial(ways.slurm, client="rest", host="local"),
    "rest/ssh": partial(ways.slurm, client="rest", host="ssh"),
    "sidecar": ways.sidecar,
    "interlink": ways.interlink,
}
if os.environ.get("SLURM") == pyslurm.SLURM:  # the one that it can be built for
    CONNECTIONS["pyslurm/local"] = partial(ways.slurm, client="pyslurm", host="local")
SCRIPTS = {
    "ends": "echo one; echo two >&2; exit 3",
    "followed": "echo one; until [ -e $GO.followed ]; do sleep 0.1; done; echo two",
    "entered": "sleep 600",
    "asked": "trap 'echo asked; sleep 0.2; exit 5' TERM; echo ready; sleep 600 & wait",
    "bereft": "echo one; until [ -e $GO.bereft ]; do sleep 0.1; done; echo two; exit 6",
    "inherited": "echo one; until [ -e $GO.inherited ]; do sleep 0.1; done; echo two; exit 7",
}


class Site:
    """One way, the provider that an agent would have now, and what it has reported so far."""

    def __init__(self, way: ways.Way, testbed: Testbed) -> None:
        self.way = way
        self.testbed = testbed
        self.pods = {name: _pod(name, way) for name in SCRIPTS}
        self.reachable: list[str | None] = []
        self._news = asyncio.Condition()
        self.begin()

    def begin(self) -> None:
        """Begin as an agent does that knows nothing."""
        self.provider: Provider = self.way.make()
        self.snapshot: dict[PodUid, PodReport] | None = None
        self.told: dict[PodUid, list[PodReport]] = {}
        self._watching = asyncio.create_task(self._watch(), name="reports")

    async def end(self) -> None:
        """End the agent; its pods go on."""
        self._watching.cancel()
        await asyncio.wait({self._watching})
        await self.provider.close()

    async def _watch(self) -> None:
        async with aclosing(self.provider.reports()) as stream:
            async for item in stream:
                reports = item.reports if isinstance(item, Snapshot) else (item,) if isinstance(item, PodReport) else ()
                async with self._news:
                    if isinstance(item, Snapshot) and self.snapshot is None:
                        self.snapshot = {report.uid: report for report in reports}
                    elif isinstance(item, Reachable):
                        self.reachable.append(item.error)
                    for report in reports:
                        self.told.setdefault(report.uid, []).append(report)
                    self._news.notify_all()

    async def until(self, name: str, what: str) -> PodReport:
        """Wait until a pod's latest report shows it ``running`` or ``over``."""
        uid = self.uid(name)

        def there() -> PodReport | None:
            report = self.told.get(uid, [None])[-1]
            if report is None or (what == "over" and not report.over) or (what == "running" and not _runs(report)):
                return None
            return report

        async with asyncio.timeout(PATIENCE_SECONDS), self._news:
            await self._news.wait_for(lambda: there() or self._watching.done())
        assert not self._watching.done(), f"the reports ended: {self._watching}"
        found = there()
        assert found is not None
        return found

    async def until_all_are_known(self) -> dict[PodUid, PodReport]:
        async with asyncio.timeout(PATIENCE_SECONDS), self._news:
            await self._news.wait_for(lambda: self.snapshot is not None)
        assert self.snapshot is not None
        return self.snapshot

    def uid(self, name: str) -> PodUid:
        return PodUid(self.pods[name].metadata.uid)

    async def submit(self, name: str) -> JobId:
        """Submit as the agent does: again after an error that may pass."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    return await self.provider.submit(self.pods[name], PodContent())
                except (TransportError, SlurmUnavailableError):
                    await asyncio.sleep(0.5)

    async def log(self, name: str, **options: object) -> bytes:
        found = self.provider.logs(self.uid(name), "main", LogOptions(**options))  # type: ignore[arg-type]
        return b"".join([data async for data in found])

    def jobs(self, name: str) -> list[str]:
        """The ids of all jobs that the pod ever had, as Slurm's own commands on the site tell."""
        job_name = f"contract/{name}:{self.uid(name)}"
        queue = self.testbed.run("squeue", "-h", "-t", "all", "-o", "%i", "--name", job_name).stdout.split()
        words = ("-n", "-X", "-P", "-o", "jobid", "-S", "now-1hours", "--name", job_name)
        return sorted({*queue, *self.testbed.run("sacct", *words).stdout.split()})

    def go(self, name: str) -> None:
        """Let a pod go on that waits for this."""
        (self.way.area / f"go.{name}").touch()


def _pod(name: str, way: ways.Way) -> Pod:
    script = f"GO={way.site_area}/go; {SCRIPTS[name]}"
    container = {"name": "main", "image": "none", "command": ["sh", "-c", script]}
    metadata = {"name": name, "namespace": "contract", "uid": f"{way.area.name}-{name}"}
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "containers": [container]}
    return Pod.model_validate({"metadata": metadata, "spec": spec})


def _runs(report: PodReport) -> bool:
    return bool(report.runner and report.runner.containers) and all(
        isinstance(container.state, Running)
        for container in report.runner.containers  # type: ignore[union-attr]
    )


def _exit_code(report: PodReport) -> int | None:
    assert report.runner is not None
    state = report.runner.containers[0].state
    return state.exit_code if isinstance(state, Terminated) else None


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CONNECTIONS)
async def site(
    request: pytest.FixtureRequest, testbed: Testbed, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    directory: Path = tmp_path_factory.mktemp("way")
    with CONNECTIONS[request.param](testbed, directory=directory) as way:
        site = Site(way, testbed)
        try:
            await asyncio.gather(*(site.submit(name) for name in SCRIPTS))
            yield site
            for name in SCRIPTS:
                with suppress(TransportError, SlurmUnavailableError):  # the area's end is the end of it all the same
                    await site.provider.terminate(site.uid(name), 0)
        finally:
            await site.end()


async def test_a_pod_that_is_submitted_again_keeps_its_only_job(site: Site) -> None:
    first = await site.submit("ends")
    assert await site.submit("ends") == first
    assert site.jobs("ends") == [first]


async def test_a_pods_states_are_told_in_order_to_its_end(site: Site) -> None:
    ended = await site.until("ends", "over")
    assert (ended.namespace, ended.name, ended.job_id) == ("contract", "ends", await site.submit("ends"))
    told = site.told[site.uid("ends")]
    versions = [report.runner.version for report in told if report.runner is not None]
    assert versions == sorted(versions)
    assert [report.over for report in told] == sorted(report.over for report in told), "an end was taken back"
    last = told[-1]
    assert last.runner is not None
    assert (last.runner.final, _exit_code(last)) == (True, 3)
    assert last.job is not None
    assert last.job.state is JobState.FAILED


async def test_a_log_is_read_whole_or_in_part_and_a_missing_one_is_said_to_be(site: Site) -> None:
    await site.until("ends", "over")
    assert await site.log("ends") == b"one\ntwo\n"
    assert await site.log("ends", tail_lines=1) == b"two\n"
    with pytest.raises(PodNotFoundError):
        await anext(site.provider.logs(PodUid("never-was"), "main", LogOptions()))


async def test_a_log_is_followed_from_its_first_line_to_its_containers_end(site: Site) -> None:
    await site.until("followed", "running")
    seen = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for data in site.provider.logs(site.uid("followed"), "main", LogOptions(follow=True)):
            seen += data
            if seen == b"one\n":
                site.go("followed")
    assert seen == b"one\ntwo\n"


async def test_a_command_runs_in_a_pod_with_its_streams_and_its_exit_code(site: Site) -> None:
    await site.until("entered", "running")
    assert isinstance(site.provider, Enterable) is ("exec" not in site.way.gaps)
    if not isinstance(site.provider, Enterable):
        return
    argv = ("sh", "-c", "cat; echo word >&2; exit 4")
    async with asyncio.timeout(PATIENCE_SECONDS):
        async with site.provider.exec(site.uid("entered"), "main", argv, stdin=True, tty=False) as process:
            await process.write(b"through\n")
            await process.close_stdin()
            assert await process.read() == b"through\n"
            assert await process.read_error() == b"word\n"
            assert (await process.read(), await process.read_error()) == (b"", b"")
            assert await process.wait() == 4
    with pytest.raises((PodNotFoundError, HostError)):
        async with site.provider.exec(site.uid("entered"), "no-such", ("true",), stdin=False, tty=False):
            pytest.fail("entered a container that is not there")


async def test_a_pod_is_asked_to_end_and_then_forgotten(site: Site) -> None:
    await site.until("asked", "running")
    followed = site.provider.logs(site.uid("asked"), "main", LogOptions(follow=True))
    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(followed) as log:
        assert await anext(log) == b"ready\n"  # its trap is set by that
    await site.provider.terminate(site.uid("asked"), 10)
    ended = await site.until("asked", "over")
    assert ended.job is not None
    if "grace" in site.way.gaps:
        assert ended.absent
    else:
        assert _exit_code(ended) == 5
        # Slurm's own TERM may reach the container beside the runner's, and its trap runs again.
        alone = "batch signal" not in site.way.gaps
        assert (await site.log("asked")).removeprefix(b"ready\n") in {b"asked\n", *([] if alone else [b"asked\n" * 2])}
        assert (ended.job.state is JobState.CANCELLED) is not alone
    directory = site.way.area / "root" / "pods" / site.uid("asked")
    assert directory.exists()
    await site.provider.forget(site.uid("asked"))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while directory.exists():  # noqa: ASYNC110  a plugin removes it in its own time
            await asyncio.sleep(0.1)
    await site.provider.terminate(site.uid("asked"), 0)  # nothing is known of it any more: a no-op, as for any other
    await site.provider.forget(site.uid("asked"))


async def test_nothing_is_lost_when_what_carries_the_provider_dies(site: Site) -> None:
    before = (await site.until("bereft", "running")).job_id
    site.way.crash()
    site.go("bereft")
    ended = await site.until("bereft", "over")
    assert _exit_code(ended) == 6
    assert await site.submit("bereft") == before
    assert site.jobs("bereft") == [before]
    assert await site.log("bereft") == b"one\ntwo\n"


async def test_another_agent_knows_every_pod_and_goes_on_with_it(site: Site) -> None:
    known = {name: (await site.until(name, "running")).job_id for name in ("entered", "inherited")}
    await site.end()
    site.begin()
    snapshot = await site.until_all_are_known()
    assert {name: snapshot[site.uid(name)].job_id for name in known} == known
    assert await site.submit("inherited") == known["inherited"]
    assert site.jobs("inherited") == [known["inherited"]]
    site.go("inherited")
    assert _exit_code(await site.until("inherited", "over")) == 7
    assert await site.log("inherited") == b"one\ntwo\n"
