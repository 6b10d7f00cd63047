"""Which of several agents works: takeovers by a clock that the test holds, and the end of one who could not renew."""

import asyncio
from typing import Any

import pytest

from vkubelet.config import HaSettings
from vkubelet.errors import ConflictError, KubeError, UnavailableError
from vkubelet.leadership import Leadership, LeadershipLostError

from .kube import FakeKube

SETTINGS = HaSettings(namespace="slurmlet", lease_seconds=15)
PATH = "/apis/coordination.k8s.io/v1/namespaces/slurmlet/leases/slurmlet"


class Election:
    """Candidates with one clock and one API server."""

    def __init__(self) -> None:
        self.now = 0.0
        self.kube = FakeKube()

    def candidate(self, identity: str, settings: HaSettings = SETTINGS) -> Leadership:
        return Leadership(self.kube, settings, identity=identity, clock=lambda: self.now)  # type: ignore[arg-type]

    @property
    def lease(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.kube.objects[PATH]["spec"]
        return spec


async def test_the_first_leads_and_others_only_when_it_has_not_renewed_for_the_whole_duration() -> None:
    election = Election()
    a, b = election.candidate("a"), election.candidate("b")
    assert await a._try()
    assert not await b._try()
    election.now = 14
    assert not await b._try()
    assert await a._try()
    election.now = 20
    assert not await b._try()  # sees the renewal only now, and counts from here
    election.now = 34
    assert not await b._try()
    election.now = 35
    assert await b._try()
    assert (election.lease["holderIdentity"], election.lease["leaseTransitions"]) == ("b", 1)
    assert not await a._try()


async def test_of_two_that_find_it_free_one_leads() -> None:
    election = Election()
    a, b = election.candidate("a"), election.candidate("b")
    await a._try()
    await a.release()
    election.kube.fail = lambda verb, _path: ConflictError("changed") if verb == "PATCH" else None
    assert not await b._try()
    election.kube.fail = lambda _verb, _path: None
    assert await b._try()
    await a.release()  # which is not its own any more
    assert election.lease["holderIdentity"] == "b"


async def test_who_can_not_renew_stops_before_another_may_begin() -> None:
    quick = HaSettings(namespace="slurmlet", lease_seconds=1)
    election = Election()
    loop = asyncio.get_running_loop()
    leader = Leadership(election.kube, quick, identity="a", clock=loop.time)  # type: ignore[arg-type]
    await leader.acquire()
    begun = loop.time()

    def away(verb: str, _path: str) -> KubeError | None:
        return UnavailableError("no answer") if verb == "PATCH" else None

    election.kube.fail = away
    with pytest.raises(LeadershipLostError, match="not renewed"):
        await leader.hold()
    assert loop.time() - begun < 1


async def test_who_finds_another_holder_stops_at_once() -> None:
    quick = HaSettings(namespace="slurmlet", lease_seconds=1)
    election = Election()
    leader = election.candidate("a", quick)
    await leader.acquire()
    lease = election.kube.objects[PATH]
    election.kube.put(PATH, lease | {"spec": lease["spec"] | {"holderIdentity": "b"}})
    with pytest.raises(LeadershipLostError, match="another agent's"):
        await leader.hold()
