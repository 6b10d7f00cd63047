"""Several Slurm users behind one node: who may say what of whose pod, and whose trouble is whose."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from slurm_plugin.config import PolicyRule
from slurm_plugin.contract import LogOptions, PodContent, PodIdentity, PodReport, PodUsage, Reachable, Report, Snapshot
from slurm_plugin.errors import PodNotFoundError, PolicyError, SlurmUnavailableError
from slurm_plugin.job import JobId, JobState, JobStatus, PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.tenants import TenantProvider
from tests.vkubelet.fakes import FakeProvider

from .manifests import UID, make_pod

POLICY = (PolicyRule(namespaces=("theirs",), user="mallory"), PolicyRule(namespaces=("default",), user="alice"))
ALICES = PodIdentity(PodUid(UID), "default", "web", "default")


class Tenants:
    def __init__(self, policy: Sequence[PolicyRule] = POLICY) -> None:
        self.alice, self.mallory = FakeProvider(clock=time.time), FakeProvider(clock=time.time)
        providers = {"mallory": self.mallory, "alice": self.alice}
        self.both = TenantProvider(policy, {rule.user: providers[str(rule.user)] for rule in policy})
        self.reports = self.both.reports()

    async def next(self) -> Report:
        """The next report that is not whether Slurm is reached."""
        while isinstance(report := await self.said(), Reachable):
            pass
        return report

    async def said(self) -> Report:
        async with asyncio.timeout(5):
            return await anext(self.reports)

    async def begin(self, *pods: PodIdentity) -> Snapshot:
        """Introduce these pods, and hear what is known of all."""
        await self.both.introduce(pods)
        first = await self.next()
        assert isinstance(first, Snapshot)
        return first


@pytest.fixture
async def tenants() -> AsyncIterator[Tenants]:
    made = Tenants()
    yield made
    await made.reports.aclose()


def said_of_it(job_id: str) -> PodReport:
    job = JobStatus(JobId(job_id), JobState.RUNNING)
    return PodReport(PodUid(UID), "default", "web", JobId(job_id), job, None)


def pod_in(namespace: str, *, uid: str = UID) -> Pod:
    pod = make_pod()
    return pod.model_copy(update={"metadata": pod.metadata.model_copy(update={"namespace": namespace, "uid": uid})})


def job_ids(snapshot: Snapshot) -> list[str | None]:
    return [report.job_id for report in snapshot.reports]


@pytest.mark.parametrize("order", list(itertools.permutations(["introduced", "alice", "mallory"])), ids=",".join)
async def test_in_every_order_of_events_a_pods_own_user_is_believed_of_it(
    tenants: Tenants, order: tuple[str, ...]
) -> None:
    tenants.alice.jobs[PodUid(UID)] = said_of_it("1")
    tenants.mallory.jobs[PodUid(UID)] = said_of_it("66")
    providers = {"alice": tenants.alice, "mallory": tenants.mallory}
    for provider in providers.values():
        provider.snapshot_allowed.clear()
    heard: list[Report] = []

    async def listen() -> None:
        async for report in tenants.reports:
            heard.append(report)  # noqa: PERF401  it never ends

    listening = asyncio.create_task(listen())
    for event in order:
        if event == "introduced":
            await tenants.both.introduce([ALICES])
        else:
            providers[event].snapshot_allowed.set()
        await asyncio.sleep(0.01)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    snapshots = [report for report in heard if isinstance(report, Snapshot)]
    assert [job_ids(snapshot) for snapshot in snapshots] == [["1"]]
    assert not any(isinstance(report, PodReport) and report.job_id == "66" for report in heard)
    assert not snapshots[0].reports[0].stray
    await tenants.both.update(PodUid(UID), PodContent())
    assert (len(tenants.alice.contents), len(tenants.mallory.contents)) == (1, 0)


async def test_nothing_is_told_before_it_is_known_which_pods_there_are(tenants: Tenants) -> None:
    tenants.mallory.jobs[PodUid(UID)] = said_of_it("66")
    waiting = asyncio.create_task(tenants.next())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_directory_made_for_anothers_pod_does_not_make_it_run_as_its_maker(
    tenants: Tenants, caplog: pytest.LogCaptureFixture
) -> None:
    tenants.mallory.jobs[PodUid(UID)] = said_of_it("66")
    assert (await tenants.begin(ALICES)).reports == ()
    assert f"user mallory has a directory for pod {UID}" in caplog.text
    await tenants.both.submit(make_pod(), PodContent())
    assert len(tenants.alice.submissions) == 1
    assert not tenants.mallory.submissions


async def test_a_pod_that_appears_after_somebody_spoke_of_it_is_its_own_users(tenants: Tenants) -> None:
    tenants.mallory.jobs[PodUid(UID)] = said_of_it("66")
    first = await tenants.begin()
    assert [report.stray for report in first.reports] == [True]
    for call in (tenants.both.edit(make_pod()), anext(tenants.both.logs(PodUid(UID), "c", LogOptions()))):
        with pytest.raises(PodNotFoundError):
            await call
    await tenants.both.update(PodUid(UID), PodContent())
    assert not tenants.mallory.contents
    assert await tenants.both.submit(make_pod(), PodContent()) != "66"
    said = await tenants.next()
    assert isinstance(said, PodReport)
    assert (said.job_id, said.stray) == ("101", False)
    await tenants.both.terminate(PodUid(UID), 5)
    assert (len(tenants.alice.terminations), len(tenants.mallory.terminations)) == (1, 0)


async def test_what_is_left_of_a_pod_that_is_gone_is_ended_whoevers_it_is_one_after_the_other(tenants: Tenants) -> None:
    tenants.alice.jobs[PodUid(UID)] = said_of_it("1")
    tenants.mallory.jobs[PodUid(UID)] = said_of_it("66")
    first = await tenants.begin()
    assert job_ids(first) == ["66"]
    await tenants.both.terminate(PodUid(UID), 0)
    assert isinstance(over := await tenants.next(), PodReport)
    assert (over.over, over.stray) == (True, True)
    await tenants.both.forget(PodUid(UID))
    assert (tenants.mallory.forgotten, tenants.alice.forgotten) == ([UID], [])
    while not isinstance(said := await tenants.next(), PodReport) or said.job_id != "1":
        pass
    assert said.stray
    await tenants.both.forget(PodUid(UID))
    assert tenants.alice.forgotten == [UID]


async def test_a_pod_that_no_rule_names_is_nobodys(tenants: Tenants) -> None:
    tenants.mallory.jobs[PodUid(UID)] = said_of_it("66")
    first = await tenants.begin(PodIdentity(PodUid(UID), "elsewhere", "web", "default"))
    assert first.reports == ()
    with pytest.raises(PolicyError):
        await tenants.both.submit(pod_in("elsewhere"), PodContent())


async def test_what_another_user_says_of_a_pod_is_not_believed(tenants: Tenants) -> None:
    await tenants.begin()
    job_id = await tenants.both.submit(make_pod(), PodContent())
    said = await tenants.next()
    assert isinstance(said, PodReport)
    assert said.job_id == job_id
    tenants.mallory.tell(said_of_it("66"))
    await asyncio.sleep(0.05)
    tenants.alice.end(PodUid(UID))
    said = await tenants.next()
    assert isinstance(said, PodReport)
    assert said.job_id == job_id


async def test_usage_is_believed_of_a_pods_own_user_alone(tenants: Tenants) -> None:
    await tenants.begin()
    await tenants.both.submit(make_pod(), PodContent())
    true, forged_one = PodUsage(PodUid(UID), 1.0, ()), PodUsage(PodUid(UID), 2.0, ())
    tenants.alice.usages, tenants.mallory.usages = (true,), (forged_one, PodUsage(PodUid("unknown"), 1.0, ()))
    assert await tenants.both.usage() == (true,)


async def test_a_pod_is_edited_by_its_own_users_provider(tenants: Tenants) -> None:
    with pytest.raises(PodNotFoundError):
        await tenants.both.edit(make_pod())
    await tenants.begin()
    await tenants.both.submit(make_pod(), PodContent())
    await tenants.both.edit(make_pod())
    assert (len(tenants.alice.edits), len(tenants.mallory.edits)) == (1, 0)


# --- a namespace given to another user ---

GIVEN_AWAY = replace(ALICES, namespace="theirs", job_id=JobId("1"))
"""A pod of alice's before the policy gave its namespace to mallory, who has nothing of it."""


@pytest.mark.parametrize("pod", [GIVEN_AWAY, replace(GIVEN_AWAY, namespace="elsewhere")], ids=["another's", "nobody's"])
async def test_a_pod_lives_on_as_the_user_whose_job_it_has(tenants: Tenants, pod: PodIdentity) -> None:
    tenants.alice.jobs[pod.uid] = said_of_it("1")
    first = await tenants.begin(pod)
    assert [(report.job_id, report.stray) for report in first.reports] == [("1", False)]
    await tenants.both.introduce([replace(pod, job_id=None)])  # as it was when it was submitted
    assert await tenants.both.submit(pod_in(pod.namespace), PodContent()) == "1"
    assert not tenants.mallory.submissions
    assert not tenants.alice.submissions
    await tenants.both.update(pod.uid, PodContent())
    await tenants.both.terminate(pod.uid, 5)
    assert (len(tenants.alice.contents), len(tenants.alice.terminations)) == (1, 1)
    assert not tenants.mallory.terminations


@pytest.mark.parametrize(
    "said",
    [
        replace(said_of_it("1"), job=None),  # a file that mallory wrote
        replace(said_of_it("1"), job=None, absent=True),
        said_of_it("66"),  # a job of mallory's own under the pod's name
    ],
    ids=["no job", "absent", "other job"],
)
async def test_a_pod_is_not_taken_over_by_whoever_claims_its_job(tenants: Tenants, said: PodReport) -> None:
    tenants.alice.jobs[ALICES.uid] = said_of_it("1")
    tenants.mallory.jobs[ALICES.uid] = said
    first = await tenants.begin(replace(ALICES, job_id=JobId("1")))
    assert [report.job for report in first.reports] == [said_of_it("1").job]
    await tenants.both.terminate(ALICES.uid, 5)
    assert (len(tenants.alice.terminations), len(tenants.mallory.terminations)) == (1, 0)


async def test_of_a_pod_that_may_be_its_former_users_nothing_is_concluded(tenants: Tenants) -> None:
    tenants.alice.trouble = "root: permission denied"
    tenants.alice.jobs[GIVEN_AWAY.uid] = replace(said_of_it("1"), job=None)
    tenants.alice.snapshot_allowed.clear()
    first = await tenants.begin(GIVEN_AWAY)
    assert [(report.job_id, report.over) for report in first.reports] == [(None, False)]
    with pytest.raises(SlurmUnavailableError, match="as user alice: root: permission denied"):
        await tenants.both.submit(pod_in("theirs"), PodContent())
    tenants.alice.snapshot_allowed.set()
    second = await tenants.next()  # alice has a directory of it, and Slurm was not asked about the job yet
    assert isinstance(second, Snapshot)
    assert [(report.job_id, report.over) for report in second.reports] == [(None, False)]
    for call in (tenants.both.submit(pod_in("theirs"), PodContent()), tenants.both.terminate(GIVEN_AWAY.uid, 5)):
        with pytest.raises(SlurmUnavailableError, match="whether user alice has job 1"):
            await call
    tenants.alice.tell(said_of_it("1"))
    told = await tenants.next()
    assert isinstance(told, PodReport)
    assert told.job_id == "1"


async def test_a_pod_whose_job_nobody_has_is_submitted_as_the_policy_says(tenants: Tenants) -> None:
    assert (await tenants.begin(GIVEN_AWAY)).reports == ()
    await tenants.both.submit(pod_in("theirs"), PodContent())
    assert (len(tenants.mallory.submissions), len(tenants.alice.submissions)) == (1, 0)


# --- a user whom no rule names any more ---


@pytest.fixture
async def without_alice() -> AsyncIterator[Tenants]:
    made = Tenants((PolicyRule(user="mallory"),))
    yield made
    await made.reports.aclose()


ALICES_JOB = replace(ALICES, job_id=JobId("1"), job_user="alice")
NAMED_NO_MORE = "as user alice: no rule of the policy names this user any more, whose job 1 is"


async def test_of_a_user_whom_no_rule_names_any_more_nothing_is_concluded(without_alice: Tenants) -> None:
    first = await without_alice.begin(ALICES_JOB)
    assert first.reports == (PodReport(ALICES.uid, "default", "web", None, None, None, trouble=NAMED_NO_MORE),)
    both, pod = without_alice.both, make_pod()
    written = pod.metadata.annotations | {"slurmlet.io/job-id": "1", "slurmlet.io/job-user": "alice"}
    pod = pod.model_copy(update={"metadata": pod.metadata.model_copy(update={"annotations": written})})
    for call in (
        both.submit(pod, PodContent()),
        both.terminate(ALICES.uid, 5),
        both.forget(ALICES.uid),
        anext(both.logs(ALICES.uid, "c", LogOptions())),
    ):
        with pytest.raises(SlurmUnavailableError, match=NAMED_NO_MORE):
            await call
    await both.update(ALICES.uid, PodContent())
    mallory = without_alice.mallory
    assert not any((mallory.submissions, mallory.terminations, mallory.forgotten, mallory.contents))


async def test_what_a_user_of_the_policy_knows_of_such_a_pod_is_told(without_alice: Tenants) -> None:
    without_alice.mallory.jobs[ALICES.uid] = said_of_it("1")
    first = await without_alice.begin(ALICES_JOB)
    assert [(report.job_id, report.user, report.trouble) for report in first.reports] == [("1", "mallory", "")]


async def test_a_pod_whose_user_is_named_again_is_found(tenants: Tenants) -> None:
    tenants.alice.jobs[ALICES.uid] = said_of_it("1")
    first = await tenants.begin(replace(ALICES_JOB, namespace="theirs"))
    assert [(report.job_id, report.user, report.trouble) for report in first.reports] == [("1", "alice", "")]


async def test_a_pod_from_which_its_users_name_was_taken_is_any_other_pod(without_alice: Tenants) -> None:
    await without_alice.begin(ALICES_JOB)
    await without_alice.both.submit(make_pod(), PodContent())
    assert len(without_alice.mallory.submissions) == 1


# --- one user's trouble -----------------------------------------------------------------------------------------------


async def reachable(tenants: Tenants) -> str | None:
    while not isinstance(said := await tenants.said(), Reachable):
        pass
    return said.error


async def test_one_users_trouble_is_that_users_alone(tenants: Tenants) -> None:
    await tenants.begin()
    assert await reachable(tenants) is None
    tenants.mallory.tell(Reachable("root: disk quota exceeded"))
    assert await reachable(tenants) is None
    await tenants.both.submit(make_pod(), PodContent())
    theirs = pod_in("theirs", uid="2")
    with pytest.raises(SlurmUnavailableError, match="as user mallory: root: disk quota exceeded"):
        await tenants.both.submit(theirs, PodContent())
    tenants.alice.tell(Reachable("slurmctld is away"))
    while (said := await reachable(tenants)) is None:
        pass
    assert said == "as user mallory: root: disk quota exceeded; as user alice: slurmctld is away"
    tenants.mallory.tell(Reachable(None))
    assert await reachable(tenants) is None
    await tenants.both.submit(theirs, PodContent())


async def test_of_a_user_in_trouble_nothing_is_concluded_and_nobody_waits(tenants: Tenants) -> None:
    tenants.mallory.trouble = "root: permission denied"
    theirs = PodIdentity(PodUid("2"), "theirs", "web", "default")
    lost = PodIdentity(PodUid("3"), "theirs", "lost", "default")
    tenants.alice.jobs[PodUid(UID)] = said_of_it("1")
    tenants.mallory.jobs[theirs.uid] = PodReport(theirs.uid, "theirs", "web", JobId("2"), None, None)
    tenants.mallory.snapshot_allowed.clear()
    first = await tenants.begin(ALICES, theirs, lost)
    assert {report.uid: report.job_id for report in first.reports} == {UID: "1", "2": None, "3": None}
    assert not any(report.over for report in first.reports)
    both, uid = tenants.both, theirs.uid
    for call in (both.terminate(uid, 5), both.forget(uid), both.update(uid, PodContent())):
        with pytest.raises(SlurmUnavailableError, match="as user mallory: root: permission denied"):
            await call
    tenants.mallory.snapshot_allowed.set()
    second = await tenants.next()
    assert isinstance(second, Snapshot)
    assert {report.uid: report.job_id for report in second.reports} == {UID: "1", "2": "2"}


async def test_what_the_cluster_has_is_asked_of_another_user_when_the_first_fails(tenants: Tenants) -> None:
    async def fails() -> None:
        raise SlurmUnavailableError("the token has expired")

    tenants.mallory.cluster = fails  # type: ignore[method-assign,assignment]
    assert await tenants.both.cluster() == tenants.alice.state
    tenants.alice.cluster = fails  # type: ignore[method-assign,assignment]
    with pytest.raises(SlurmUnavailableError, match="expired"):
        await tenants.both.cluster()
