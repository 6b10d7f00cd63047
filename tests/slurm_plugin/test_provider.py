"""The provider's two sources between a Host and a Slurm in memory: what one pod or one answer spoils, and what not."""

import asyncio
import gc
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from slurm_plugin.archive import Archive
from slurm_plugin.config import SiteSettings
from slurm_plugin.contract import PodContent, PodReport, Reachable, Report, Snapshot
from slurm_plugin.errors import (
    HostError,
    SlurmletError,
    SlurmUnavailableError,
    SubmissionRejectedError,
    TransportError,
    UnparsableOutputError,
)
from slurm_plugin.hosts.base import Completed, HostProcess
from slurm_plugin.job import JobId, JobState, JobStatus, PodUid
from slurm_plugin.jobdir import JobDir
from slurm_plugin.provider import SlurmProvider
from slurm_plugin.runner.plan import plan_from_json

from .fakes import FakeHost, FakeSlurm
from .manifests import DIGEST, UID, container, make_pod


class Watcher:
    """The archive's ``watch``: it has seen everything, and there is no more than this."""

    def __init__(self, lines: Sequence[Mapping[str, object]], slow: asyncio.Event | None) -> None:
        self._slow = slow
        self._lines = (*lines, {"synced": True})
        self._said = False

    async def write(self, data: bytes) -> None:
        raise AssertionError("nobody writes to a watcher")

    async def close_stdin(self) -> None:
        return

    async def read(self) -> bytes:
        if self._slow is not None:
            await self._slow.wait()
        if self._said:
            await asyncio.Event().wait()
        self._said = True
        return b"".join(json.dumps(line).encode() + b"\n" for line in self._lines)

    async def read_error(self) -> bytes:
        return b""

    async def wait(self) -> int:
        return 0


class LoginNode(FakeHost):
    stuck = False
    slow: asyncio.Event | None = None  # the watcher has looked at nothing before

    def __init__(self, *found: Mapping[str, object]) -> None:
        super().__init__()
        self.found = found

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        if argv[0] == "ln":
            return await super().run(argv, stdin=stdin, timeout=timeout)
        self.commands.append(tuple(argv))
        return Completed(tuple(argv), 0, b"1000\n", b"")

    def process(self, argv: Sequence[str]) -> AbstractAsyncContextManager[HostProcess]:
        @asynccontextmanager
        async def context() -> AsyncIterator[HostProcess]:
            yield Watcher(self.found, self.slow)

        return context()

    async def remove_tree(self, path: str) -> None:
        if self.stuck:
            raise HostError(f"{path}: Permission denied")
        await super().remove_tree(path)


class Slurm(FakeSlurm):
    accounting_away = False
    left: frozenset[JobId] = frozenset()  # jobs that the queue knows no more
    lagging: Mapping[JobId, JobStatus] = {}  # what accounting still says of jobs
    bug: Exception | None = None

    async def jobs(self) -> Mapping[JobId, JobStatus]:
        if self.bug is not None:
            raise self.bug
        return {job_id: status for job_id, status in (await super().jobs()).items() if job_id not in self.left}

    def _accounting(self) -> None:
        if self.accounting_away:
            raise SlurmUnavailableError("sacct: Problem talking to the database")

    async def ended_jobs(self, job_ids: Collection[JobId], *, since: int) -> Mapping[JobId, JobStatus]:
        self._accounting()
        ended = {**await super().ended_jobs(job_ids, since=since), **self.lagging}
        return {job_id: job for job_id, job in ended.items() if job.end_time is None or job.end_time >= since}

    async def find(self, name: str, *, directory: str, since: int) -> tuple[JobStatus, ...]:
        self._accounting()
        return await super().find(name, directory=directory, since=since)


class Place:
    """A provider and all that it stands on."""

    def __init__(self, *found: Mapping[str, object]) -> None:
        self.host, self.slurm = LoginNode(*found), Slurm()
        settings = SiteSettings.model_validate({"slurm": {"host": {"kind": "local"}, "poll_seconds": 0.2}})
        self.provider = SlurmProvider(
            self.host, self.slurm, settings, archive=Archive(b"", DIGEST), node="hpc", owner="test"
        )
        self.reports: AsyncGenerator[Report, None] = self.provider.reports()

    async def until(self, condition: Callable[[Report], object]) -> Report:
        async with asyncio.timeout(10):
            async for report in self.reports:
                if condition(report):
                    return report
        raise AssertionError("the reports ended")

    async def submit(self, uid: str = UID) -> JobId:
        return await self.provider.submit(make_pod(metadata={"uid": uid}), PodContent())


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    made = Place()
    await made.until(lambda report: isinstance(report, Snapshot))
    yield made
    await made.reports.aclose()
    await made.provider.close()


def of(uid: str, state: JobState) -> Callable[[Report], bool]:
    return lambda report: (
        isinstance(report, PodReport) and report.uid == uid and report.job is not None and report.job.state == state
    )


async def test_an_end_that_the_queue_tells_is_reported_though_accounting_is_away(place: Place) -> None:
    job_id = await place.submit()
    await place.until(of(UID, JobState.PENDING))
    place.slurm.accounting_away = True
    place.slurm.set(job_id, state=JobState.CANCELLED)
    await place.until(of(UID, JobState.CANCELLED))


async def test_an_end_that_the_queue_tells_stays_one_though_accounting_lags_behind(place: Place) -> None:
    job_id = await place.submit()
    await place.until(of(UID, JobState.PENDING))
    place.slurm.lagging = {job_id: place.slurm.set(job_id, state=JobState.RUNNING)}
    place.slurm.set(job_id, state=JobState.CANCELLED)
    said = await place.until(lambda report: isinstance(report, PodReport) and report.job is not None)
    assert isinstance(said, PodReport)
    assert said.over


async def test_who_cancelled_many_jobs_is_asked_for_once(place: Place) -> None:
    uids = [f"{number:08}{UID[8:]}" for number in range(20)]
    jobs = [await place.submit(uid) for uid in uids]
    await place.until(of(uids[-1], JobState.PENDING))
    place.host.commands.clear()
    for job_id in jobs:
        place.slurm.set(job_id, state=JobState.CANCELLED, cancelled_by="1000")
    await place.until(of(uids[-1], JobState.CANCELLED))
    assert place.host.commands.count(("id", "-nu", "1000")) == 1


async def test_many_pods_at_once_ask_once_what_the_cluster_has(place: Place) -> None:
    before = place.slurm.asked.count(("cluster",))
    await asyncio.gather(*(place.submit(f"{number}{UID[1:]}") for number in range(2, 8)))
    assert place.slurm.asked.count(("cluster",)) - before == 1


async def test_slurm_is_reachable_though_accounting_is_away(place: Place) -> None:
    job_id = await place.submit()
    await place.until(of(UID, JobState.PENDING))
    place.slurm.accounting_away = True
    place.slurm.left = frozenset({job_id})
    other = "7" + UID[1:]
    await place.submit(other)
    said = await place.until(lambda report: isinstance(report, Reachable) or of(other, JobState.PENDING)(report))
    assert isinstance(said, PodReport)
    place.slurm.accounting_away = False
    place.slurm.set(job_id, state=JobState.NODE_FAIL)
    await place.until(of(UID, JobState.NODE_FAIL))


async def test_a_pod_whose_submission_is_in_doubt_stays_known_until_that_is_settled(place: Place) -> None:
    place.slurm.break_("submit")
    with pytest.raises(TransportError):
        await place.submit()
    place.slurm.accounting_away = True
    with pytest.raises(SlurmUnavailableError):
        await place.submit()
    place.slurm.accept_late()
    await place.provider.terminate(PodUid(UID), 0)
    assert place.slurm.asked[-1] == ("cancel", "100")
    await place.until(lambda report: isinstance(report, PodReport) and report.uid == UID and report.over)


async def test_what_sbatch_says_that_makes_no_sense_leaves_a_doubt(place: Place) -> None:
    place.slurm.refuses = UnparsableOutputError(("sbatch",), "expected one line with a job id", "")
    with pytest.raises(UnparsableOutputError):
        await place.submit()
    await place.provider.terminate(PodUid(UID), 0)
    await place.until(lambda report: isinstance(report, PodReport) and report.uid == UID and report.over)


@pytest.mark.parametrize("before", [None, TransportError("lost")])
async def test_a_pod_that_was_withdrawn_is_known_no_more(place: Place, before: Exception | None) -> None:
    for error in filter(None, [before, SubmissionRejectedError("no")]):
        place.slurm.refuses = error
        with pytest.raises(type(error)):
            await place.submit()
    await place.provider.terminate(PodUid(UID), 0)
    assert not [path for path in place.host.files if path.endswith("/claim")]


@pytest.mark.parametrize("refusal", [SubmissionRejectedError("no"), SlurmUnavailableError("not now")])
async def test_of_a_submission_that_surely_came_to_nothing_no_twin_is_looked_for(
    place: Place, refusal: SlurmletError
) -> None:
    place.slurm.refuses = refusal
    with pytest.raises(type(refusal)):
        await place.submit()
    place.slurm.refuses = None
    place.slurm.accept('#!/bin/bash\n#SBATCH --job-name="mine"\n', "/home/alice")
    await place.submit("7" + UID[1:])
    await place.until(of("7" + UID[1:], JobState.PENDING))
    assert ("queued",) not in place.slurm.asked


async def test_of_pods_that_were_refused_nothing_stays_in_memory(place: Place) -> None:
    def locks() -> int:
        gc.collect()
        return sum(isinstance(each, asyncio.Lock) for each in gc.get_objects())

    place.slurm.refuses = SubmissionRejectedError("Invalid account")
    before = locks()
    for number in range(20):
        pod = make_pod(metadata={"uid": f"u{number}"})
        with pytest.raises(SubmissionRejectedError):
            await place.provider.submit(pod, PodContent())
        await place.provider.terminate(PodUid(pod.metadata.uid), 0)
    assert locks() - before < 20


async def test_a_queued_pod_is_edited_in_its_plan(place: Place) -> None:
    await place.provider.edit(make_pod(container(image="other:2")))  # no such pod: nothing happens
    await place.submit()
    await place.provider.edit(make_pod(container(image="other:2"), metadata={"uid": UID}))
    (plan,) = (data for path, data in place.host.files.items() if path.endswith(f"{UID}/plan.json"))
    assert [each.image.name for each in plan_from_json(json.loads(plan)).containers] == ["other:2"]


async def test_a_directory_that_can_not_be_removed_stops_nothing_else(place: Place) -> None:
    await place.submit()
    await place.until(of(UID, JobState.PENDING))
    await place.provider.forget(PodUid(UID))
    place.host.stuck = True
    await place.until(of(UID, JobState.CANCELLED))
    other = "7" + UID[1:]
    job_id = await place.submit(other)
    await place.until(of(other, JobState.PENDING))
    place.slurm.set(job_id, state=JobState.RUNNING)
    said = await place.until(lambda report: isinstance(report, Reachable) or of(other, JobState.RUNNING)(report))
    assert isinstance(said, PodReport)


async def test_a_bug_in_a_source_is_told_and_tried_again_and_ends_nothing(place: Place) -> None:
    place.slurm.bug = KeyError("ours")
    said = await place.until(lambda report: isinstance(report, Reachable))
    assert isinstance(said, Reachable)
    assert "KeyError" in str(said.error)
    place.slurm.bug = None
    await place.until(lambda report: isinstance(report, Reachable) and report.error is None)


async def test_a_twin_in_doubt_is_cancelled_and_slurm_stays_reachable_though_accounting_is_away(place: Place) -> None:
    place.slurm.break_("submit")
    with pytest.raises(TransportError):
        await place.submit()
    await place.submit()
    place.slurm.accounting_away = True
    place.slurm.accept_late()
    async with asyncio.timeout(10):
        while ("cancel", "101") not in place.slurm.asked:  # noqa: ASYNC110  what is waited for happens in the poll
            await asyncio.sleep(0.01)
    other = "7" + UID[1:]
    await place.submit(other)
    said = await place.until(lambda report: isinstance(report, Reachable) or of(other, JobState.PENDING)(report))
    assert isinstance(said, PodReport)


async def test_how_a_job_ended_is_known_though_it_did_long_before_the_agent_was_back() -> None:
    now = int(time.time())
    pod = {"uid": UID, "namespace": "default", "name": "web", "job_id": "100", "claim": None, "state": None}
    place = Place({**pod, "staged_at": now - 5 * 3600})
    job_id = place.slurm.accept('#!/bin/bash\n#SBATCH --job-name="default/web"\n', "/elsewhere")
    place.slurm.set(job_id, state=JobState.NODE_FAIL, end_time=now - 4 * 3600)
    place.slurm.left = frozenset({job_id})

    def ended(report: Report) -> bool:
        reports = report.reports if isinstance(report, Snapshot) else (report,)
        return any(of(UID, JobState.NODE_FAIL)(each) for each in reports)

    await place.until(ended)
    await place.reports.aclose()
    await place.provider.close()


async def test_a_job_that_claimed_the_pod_of_a_submission_in_doubt_is_ended_at_once(place: Place) -> None:
    place.slurm.break_("submit")
    with pytest.raises(TransportError):
        await place.submit()
    place.slurm.accept_late()
    place.slurm.set("100", state=JobState.RUNNING)
    directory = JobDir(next(path for path in place.host.directories if path.endswith(f"/pods/{UID}")))
    await place.host.stage(directory.run, ())
    await place.host.write(directory.claim, b'{"job_id": "100", "restart": 0}')
    await place.provider.terminate(PodUid(UID), 30)
    assert ("signal", "100", "TERM") in place.slurm.asked


async def test_the_first_that_is_told_of_a_pod_is_what_slurm_says_of_its_job() -> None:
    """Else whoever hears of an ended pod as of one that may still run would have its job cancelled."""
    pod = {"uid": UID, "namespace": "default", "name": "web", "job_id": "100", "claim": None, "state": None}
    place = Place({**pod, "staged_at": 1})
    place.host.slow = asyncio.Event()
    job_id = place.slurm.accept('#!/bin/bash\n#SBATCH --job-name="default/web"\n', "/elsewhere")
    place.slurm.set(job_id, state=JobState.NODE_FAIL)
    asyncio.get_running_loop().call_later(0.3, place.host.slow.set)
    said = await place.until(lambda report: isinstance(report, Snapshot))
    assert isinstance(said, Snapshot)
    assert [report.over for report in said.reports] == [True]
    await place.reports.aclose()
    await place.provider.close()


async def test_a_job_that_slurm_calls_ended_is_not_ended_again_while_its_last_word_is_waited_for() -> None:
    claim = {"job_id": "100", "restart": 0}
    place = Place({"uid": UID, "namespace": "default", "name": "web", "job_id": "100", "claim": claim, "state": None})
    job_id = place.slurm.accept('#!/bin/bash\n#SBATCH --job-name="default/web"\n', "/elsewhere")
    place.slurm.set(job_id, state=JobState.COMPLETED)
    await place.until(lambda report: isinstance(report, Snapshot))
    await place.provider.terminate(PodUid(UID), 0)
    assert ("cancel", job_id) not in place.slurm.asked
    place.slurm.set(job_id, state=JobState.PENDING, restart_count=1)
    await place.until(of(UID, JobState.PENDING))
    await place.provider.terminate(PodUid(UID), 0)
    assert ("cancel", job_id) in place.slurm.asked
    await place.reports.aclose()
    await place.provider.close()
