import json

import pytest

from slurm_plugin.doubts import Doubts
from slurm_plugin.job import JobId, JobState, PodUid
from slurm_plugin.jobdir import Root
from slurm_plugin.records import Records
from slurm_plugin.submission import Submission
from slurm_plugin.watching import DirectoryView

from .fakes import FakeHost, FakeSlurm

ROOT = Root("/home/alice/root")


class Site:
    """Pods with a job each, what Slurm has of them, and a clock."""

    def __init__(self) -> None:
        self.host, self.slurm, self.records, self.now = FakeHost(), FakeSlurm(), Records(), 1000.0
        self.doubts = Doubts(self.slurm, Submission(self.host, self.slurm), self.records, lambda: self.now)

    def pod(self, name: str, *, twin: bool = False) -> None:
        uid = PodUid(f"uid-{name}")
        job_id = self.job(name)
        self.records.see_directory(DirectoryView(uid, "default", name, job_id, None, None))
        if twin:
            self.job(name)

    def job(self, name: str) -> JobId:
        script = f'#!/bin/bash\n#SBATCH --job-name="default/{name}:uid-{name}"\n'
        return self.slurm.accept(script, ROOT.job_dir(f"uid-{name}").path)

    def claim(self, name: str, claim: str) -> None:
        self.host.files[ROOT.job_dir(f"uid-{name}").claim] = claim.encode()

    async def settle(self, seconds: float = 0) -> list[tuple[str, ...]]:
        """Look again after so many seconds; what was asked of Slurm then."""
        self.now += seconds
        self.slurm.asked.clear()
        await self.doubts.settle(await self.slurm.jobs(), ROOT)
        return self.slurm.asked


@pytest.fixture
def site() -> Site:
    return Site()


async def test_twins_of_all_pods_in_doubt_are_found_by_one_look_and_cancelled(site: Site) -> None:
    for name in ("a", "b", "c"):
        site.pod(name, twin=True)
    site.doubts.add(PodUid("uid-a"))
    site.doubts.add(PodUid("uid-c"))
    assert await site.settle() == [("queued",), ("cancel", "101"), ("cancel", "105")]


async def test_every_pod_that_was_there_before_us_is_in_doubt(site: Site) -> None:
    site.pod("a")
    site.pod("b", twin=True)
    site.doubts.add_all()
    assert await site.settle() == [("queued",), ("cancel", "102")]


async def test_a_twin_that_appears_late_is_cancelled_when_it_does(site: Site) -> None:
    site.pod("a")
    site.doubts.add_all()
    assert await site.settle() == []
    site.job("a")
    assert await site.settle(500) == [("queued",), ("cancel", "101")]


async def test_while_all_jobs_are_known_nobody_looks_and_else_now_and_then(site: Site) -> None:
    site.pod("a")
    site.doubts.add_all()
    assert await site.settle() == []
    site.job("foreign")
    assert await site.settle() == [("queued",)]
    assert await site.settle(14) == []
    assert await site.settle(1) == [("queued",)]
    site.slurm.set("101", state=JobState.COMPLETED)
    assert await site.settle(15) == []


async def test_a_doubt_ends_after_ten_minutes(site: Site) -> None:
    site.pod("b", twin=True)
    site.doubts.add_all()
    assert await site.settle(600) == [("queued",), ("cancel", "101")]
    site.job("b")
    assert await site.settle(15) == []


async def test_a_job_that_slurm_accepts_when_its_pod_is_gone_waits_for_nothing_and_is_cancelled(site: Site) -> None:
    site.records.add(PodUid("uid-a"), "default", "a")
    site.doubts.add(PodUid("uid-a"))
    site.records.remove(PodUid("uid-a"))
    assert await site.settle() == []
    site.job("a")
    assert await site.settle(30) == [("queued",), ("cancel", "100")]


async def test_the_directory_of_one_pod_keeps_no_other_pods_twin_alive(site: Site) -> None:
    site.pod("a", twin=True)
    site.pod("b", twin=True)
    site.claim("a", "nonsense")
    site.doubts.add_all()
    assert await site.settle() == [("queued",), ("cancel", "103")]


async def test_of_two_jobs_the_one_that_claimed_the_pod_is_kept(site: Site) -> None:
    site.pod("a", twin=True)
    site.claim("a", json.dumps({"job_id": "101", "restart": 0}))
    site.doubts.add_all()
    assert await site.settle() == [("queued",), ("cancel", "100")]


async def test_no_job_of_a_pod_without_a_known_job_is_a_twin(site: Site) -> None:
    site.records.add(PodUid("uid-a"), "default", "a")
    site.job("a")
    site.doubts.add_all()
    assert await site.settle() == [("queued",)]
