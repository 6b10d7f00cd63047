"""How pods are brought to their ends, and whether one that a report names exists: the report may be forged."""

import asyncio
import time

import pytest

from slurm_plugin.contract import PodReport
from slurm_plugin.job import JobId, PodUid
from tests.vkubelet.fakes import FakeProvider
from tests.vkubelet.kube import FakeKube
from vkubelet.podends import PodEnds
from vkubelet.podwork import Work
from vkubelet.turns import Turns

POD = "/api/v1/namespaces/shop/pods/web-0"


@pytest.mark.parametrize(("uid", "expected"), [("u1", True), ("another", False)])
async def test_a_pod_of_that_name_is_it_only_with_the_uid(uid: str, expected: bool) -> None:
    kube = FakeKube()
    kube.put(POD, {}, uid=uid)
    ends = PodEnds(kube, FakeProvider(clock=time.time), Turns(1, lambda _uid: None))
    assert await ends.is_elsewhere(PodReport(PodUid("u1"), "shop", "web-0", None, None, None)) is expected


@pytest.mark.parametrize(
    ("namespace", "name"), [("", ""), ("shop", ""), ("..", ".."), ("shop/pods/web-0?x=", "y"), ("shop", "web-0/log")]
)
async def test_what_can_be_no_name_never_becomes_a_path(namespace: str, name: str) -> None:
    kube = FakeKube()
    ends = PodEnds(kube, FakeProvider(clock=time.time), Turns(1, lambda _uid: None))
    assert not await ends.is_elsewhere(PodReport(PodUid("u1"), namespace, name, None, None, None))
    assert not kube.reads


async def test_news_of_a_pod_that_is_to_end_do_not_put_off_when_its_end_is_asked_for_again() -> None:
    uid = PodUid("u1")
    ends = PodEnds(FakeKube(), FakeProvider(clock=time.time), Turns(1, lambda _uid: None))
    work = Work(report=PodReport(uid, "shop", "web-0", JobId("7"), None, None))
    first = await ends.ensure_over(uid, work, grace=30)
    await asyncio.sleep(0.05)
    second = await ends.ensure_over(uid, work, grace=30)
    assert first == pytest.approx(90)
    assert second is not None
    assert second < 89.96
