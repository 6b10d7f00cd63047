"""Several Slurm users behind one node: who may say what of whose pod."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from slurm_plugin.config import PolicyRule
from slurm_plugin.contract import PodContent, PodReport, PodUsage, Reachable, Report, Snapshot
from slurm_plugin.errors import PodNotFoundError
from slurm_plugin.job import JobId, PodUid
from slurm_plugin.tenants import TenantProvider
from tests.vkubelet.fakes import FakeProvider

from .manifests import UID, make_pod

POLICY = (PolicyRule(namespaces=("theirs",), user="mallory"), PolicyRule(user="alice"))


class Tenants:
    def __init__(self) -> None:
        self.alice, self.mallory = FakeProvider(clock=time.time), FakeProvider(clock=time.time)
        self.both = TenantProvider(POLICY, {"mallory": self.mallory, "alice": self.alice})
        self.reports = self.both.reports()

    async def next(self) -> Report:
        async with asyncio.timeout(5):
            while isinstance(report := await anext(self.reports), Reachable):
                pass
            return report


@pytest.fixture
async def tenants() -> AsyncIterator[Tenants]:
    made = Tenants()
    yield made
    await made.reports.aclose()


def forged(job_id: str) -> PodReport:
    return PodReport(PodUid(UID), "default", "web", JobId(job_id), None, None)


async def test_a_directory_made_for_anothers_pod_does_not_make_it_run_as_its_maker(tenants: Tenants) -> None:
    tenants.mallory.jobs[PodUid(UID)] = forged("66")
    assert isinstance(await tenants.next(), Snapshot)
    await tenants.both.submit(make_pod(), PodContent())
    assert len(tenants.alice.submissions) == 1
    assert not tenants.mallory.submissions


async def test_what_another_user_says_of_a_pod_is_not_believed(tenants: Tenants) -> None:
    assert isinstance(await tenants.next(), Snapshot)
    job_id = await tenants.both.submit(make_pod(), PodContent())
    said = await tenants.next()
    assert isinstance(said, PodReport)
    assert said.job_id == job_id
    tenants.mallory.tell(forged("66"))
    await asyncio.sleep(0.05)
    tenants.alice.end(PodUid(UID))
    said = await tenants.next()
    assert isinstance(said, PodReport)
    assert said.job_id == job_id


async def test_usage_is_believed_of_a_pods_own_user_alone(tenants: Tenants) -> None:
    await tenants.both.submit(make_pod(), PodContent())
    true, forged_one = PodUsage(PodUid(UID), 1.0, ()), PodUsage(PodUid(UID), 2.0, ())
    tenants.alice.usages, tenants.mallory.usages = (true,), (forged_one, PodUsage(PodUid("unknown"), 1.0, ()))
    assert await tenants.both.usage() == (true,)


async def test_a_pod_is_edited_by_its_own_users_provider(tenants: Tenants) -> None:
    with pytest.raises(PodNotFoundError):
        await tenants.both.edit(make_pod())
    await tenants.both.submit(make_pod(), PodContent())
    await tenants.both.edit(make_pod())
    assert (len(tenants.alice.edits), len(tenants.mallory.edits)) == (1, 0)
