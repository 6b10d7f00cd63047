"""Live pods' volumes follow their objects, cheaply."""

import asyncio
import base64
from collections.abc import Coroutine
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from slurm_plugin.contract import PodContent
from slurm_plugin.job import PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.resolution.volumes import volume_files
from tests.slurm_plugin.fakes import run_at_once
from vkubelet.content import Content
from vkubelet.kube import Json
from vkubelet.podcache import PodCache, cached_pod
from vkubelet.tokens import Tokens
from vkubelet.upkeep import Upkeep

from .fakes import FakeProvider
from .kube import FakeKube

MAPS = "/api/v1/namespaces/default/configmaps"
SECRETS = "/api/v1/namespaces/default/secrets"
ROUND = 60.0


class Kept:
    """An upkeep with everything around it; ``writes`` are the provider's updates."""

    def __init__(self) -> None:
        self.kube = FakeKube()
        self.cache = PodCache()
        self.warnings: list[str] = []
        self.writes: list[tuple[str, dict[str, dict[str, bytes]]]] = []
        provider = FakeProvider(clock=lambda: 0.0)
        provider.update = self._update  # type: ignore[method-assign]
        clock = asyncio.get_running_loop().time
        self.content = Content(self.kube, dict, clock=clock)  # type: ignore[arg-type]
        self.upkeep = Upkeep(
            self.content, provider, self.cache.get, lambda _pod, reason, text: self.warnings.append(f"{reason}: {text}"),
            clock=clock,
        )  # fmt: skip

    async def _update(self, uid: PodUid, content: PodContent) -> None:
        volumes = {name: {file.path: file.data for file in files} for name, files in content.volumes.items()}
        self.writes.append((uid, volumes))

    def pod(self, name: str, *volumes: Json, labels: Json | None = None) -> Pod:
        body: Json = {
            "metadata": {"name": name, "namespace": "default", "labels": labels or {}},
            "spec": {"containers": [], "volumes": [{"name": f"v{n}", **source} for n, source in enumerate(volumes)]},
        }
        cached = cached_pod(self.kube.put(f"/api/v1/namespaces/default/pods/{name}", body, uid=name))
        self.cache.put(cached)
        return cached.parse()

    async def submit(self, pod: Pod) -> None:
        objects = await self.content.volume_objects(pod, seen_at=0)
        self.upkeep.submitted(pod, PodContent(volumes=volume_files(pod, objects, {})))


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(3600):
            await test

    run_at_once(bounded())


async def started(kept: Kept) -> asyncio.Task[None]:
    return asyncio.create_task(kept.upkeep.run())


def test_a_change_reaches_every_pod_of_it_within_a_minute_and_nobody_else() -> None:
    async def scenario() -> None:
        kept = Kept()
        kept.kube.put(f"{MAPS}/a", {"data": {"k": "1"}})
        kept.kube.put(f"{MAPS}/b", {"data": {"k": "1"}})
        for name, source in (("p", "a"), ("q", "a"), ("r", "b")):
            await kept.submit(kept.pod(name, {"configMap": {"name": source}}))
        task = await started(kept)
        await asyncio.sleep(ROUND)
        assert kept.writes == [], "what a pod was submitted with is not written again"
        kept.kube.put(f"{MAPS}/a", {"data": {"k": "2"}})
        await asyncio.sleep(ROUND)
        assert sorted(kept.writes) == [("p", {"v0": {"k": b"2"}}), ("q", {"v0": {"k": b"2"}})]
        task.cancel()

    run(scenario())


def test_many_pods_of_one_object_cost_one_read_per_round() -> None:
    async def scenario() -> None:
        kept = Kept()
        kept.kube.put(f"{MAPS}/a", {"data": {"k": "1"}})
        for number in range(500):
            await kept.submit(kept.pod(f"p{number}", {"configMap": {"name": "a"}}))
        task = await started(kept)
        await asyncio.sleep(ROUND)
        kept.kube.reads.clear()
        await asyncio.sleep(10 * ROUND)
        assert len(kept.kube.reads) <= 21, "one per round of 30 s, whatever the number of pods"
        kept.kube.reads.clear()
        kept.kube.put(f"{MAPS}/a", {"data": {"k": "2"}})
        await asyncio.sleep(ROUND)
        assert len(kept.writes) == 500
        assert len(kept.kube.reads) <= 4
        task.cancel()

    run(scenario())


def test_immutable_objects_are_not_looked_at_again() -> None:
    async def scenario() -> None:
        kept = Kept()
        kept.kube.put(f"{SECRETS}/s", {"immutable": True, "data": {"k": base64.b64encode(b"1").decode()}})
        await kept.submit(kept.pod("p", {"secret": {"secretName": "s"}}))
        task = await started(kept)
        await asyncio.sleep(ROUND)
        kept.kube.reads.clear()
        kept.kube.put(f"{SECRETS}/s", {"immutable": True, "data": {}})
        await asyncio.sleep(5 * ROUND)
        assert kept.kube.reads == []
        assert kept.writes == []
        task.cancel()

    run(scenario())


def test_labels_reach_the_downward_api_at_once() -> None:
    async def scenario() -> None:
        kept = Kept()
        labels = {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
        await kept.submit(kept.pod("p", labels, labels={"a": "1"}))
        task = await started(kept)
        kept.upkeep.see(kept.pod("p", labels, labels={"a": "1"}))
        await asyncio.sleep(1)
        assert kept.writes == []
        kept.upkeep.see(kept.pod("p", labels, labels={"a": "2"}))
        await asyncio.sleep(1)
        assert kept.writes == [("p", {"v0": {"labels": b'a="2"'}})]
        task.cancel()

    run(scenario())


def test_what_vanishes_keeps_its_old_content_says_so_and_the_other_volumes_go_on() -> None:
    async def scenario() -> None:
        kept = Kept()
        kept.kube.put(f"{MAPS}/a", {"data": {"k": "1"}})
        kept.kube.put(f"{MAPS}/b", {"data": {"k": "1"}})
        await kept.submit(kept.pod("p", {"configMap": {"name": "a"}}, {"configMap": {"name": "b"}}))
        task = await started(kept)
        kept.kube.remove(f"{MAPS}/a")
        kept.kube.put(f"{MAPS}/b", {"data": {"k": "2"}})
        await asyncio.sleep(ROUND)
        assert kept.writes == [("p", {"v1": {"k": b"2"}})]
        assert kept.warnings[0] == 'FailedMount: MountVolume.SetUp failed for volume "v0" : configmap "a" not found'
        kept.kube.put(f"{MAPS}/a", {"data": {"k": "3"}})
        await asyncio.sleep(ROUND)
        assert kept.writes[1:] == [("p", {"v0": {"k": b"3"}})]
        task.cancel()

    run(scenario())


def test_an_agent_that_starts_anew_writes_what_changed_meanwhile() -> None:
    async def scenario() -> None:
        kept = Kept()
        kept.kube.put(f"{MAPS}/a", {"data": {"k": "2"}})
        kept.upkeep.see(kept.pod("p", {"configMap": {"name": "a"}}))
        kept.upkeep.see(kept.pod("none", {"emptyDir": {}}))
        task = await started(kept)
        await asyncio.sleep(ROUND)
        assert kept.writes == [("p", {"v0": {"k": b"2"}})]
        task.cancel()

    run(scenario())


def test_a_token_that_ran_out_while_the_machine_slept_is_renewed_soon_after_it_woke() -> None:
    async def scenario() -> None:
        kept, slept, issued = Kept(), 0.0, 0

        def wall() -> float:
            return asyncio.get_running_loop().time() + slept

        def issue(_body: Json) -> Json:
            nonlocal issued
            issued += 1
            expiry = datetime.fromtimestamp(wall() + 7200, UTC).isoformat()
            return {
                "spec": {"expirationSeconds": 7200},
                "status": {"token": f"t{issued}", "expirationTimestamp": expiry},
            }

        kept.content.tokens = Tokens(kept.kube, clock=wall, jitter=lambda: 0.0)  # type: ignore[arg-type]
        kept.kube.creations["/api/v1/namespaces/default/serviceaccounts/default/token"] = issue
        source = {"projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 7200}}]}}
        await kept.submit(kept.pod("p", source))
        task = await started(kept)
        await asyncio.sleep(ROUND)
        slept = 8000.0  # timers stand still meanwhile
        await asyncio.sleep(ROUND)
        assert kept.writes == [("p", {"v0": {"token": b"t2"}})]
        task.cancel()

    run(scenario())


def test_a_pod_that_ended_is_left_alone() -> None:
    async def scenario() -> None:
        kept = Kept()
        kept.kube.put(f"{MAPS}/a", {"data": {"k": "1"}})
        await kept.submit(kept.pod("p", {"configMap": {"name": "a"}}))
        task = await started(kept)
        kept.upkeep.drop(PodUid("p"))
        kept.kube.reads.clear()
        kept.kube.put(f"{MAPS}/a", {"data": {"k": "2"}})
        await asyncio.sleep(5 * ROUND)
        assert (kept.writes, kept.kube.reads) == ([], [])
        task.cancel()

    run(scenario())


def test_a_pods_objects_are_looked_at_every_half_minute_whoever_comes_and_goes() -> None:
    async def scenario(begun: float) -> None:
        kept = Kept()
        task = await started(kept)
        await asyncio.sleep(begun)
        for number in range(200):
            kept.kube.put(f"{MAPS}/{number}", {"data": {"k": "1"}})
            await kept.submit(kept.pod(f"p{number}", {"configMap": {"name": str(number)}}))
        looked = {name: [asyncio.get_running_loop().time()] for name in ("0", "100", "199")}
        for second in range(150):
            kept.kube.reads.clear()
            await asyncio.sleep(1)
            for name, times in looked.items():
                times += [asyncio.get_running_loop().time()] * (f"{MAPS}/{name}" in kept.kube.reads)
            if second in range(40, 140):
                for number in (second - 40, 238 - second):  # those at the front go, and those at the end
                    if str(number) not in looked:
                        kept.upkeep.drop(PodUid(f"p{number}"))
        for times in looked.values():
            gaps = [after - before for before, after in pairwise(times)]
            assert max(gaps) < 32
            assert len(gaps) <= 6
        task.cancel()

    for begun in (0.0, 1.0, 17.0, 29.0):
        run(scenario(begun))


def test_an_answer_that_does_not_come_holds_up_no_other_object() -> None:
    async def scenario() -> None:
        kept = Kept()
        for name in ("a", "b"):
            kept.kube.put(f"{MAPS}/{name}", {"data": {"k": "1"}})
            await kept.submit(kept.pod(name, {"configMap": {"name": name}}))
        kept.kube.silent.add(f"{MAPS}/a")
        task = await started(kept)
        await asyncio.sleep(3 * ROUND)
        kept.kube.put(f"{MAPS}/b", {"data": {"k": "2"}})
        await asyncio.sleep(ROUND)
        assert kept.writes == [("b", {"v0": {"k": b"2"}})]
        assert kept.kube.reads.count(f"{MAPS}/a") <= 2, "nor is it asked for again meanwhile"
        task.cancel()

    run(scenario())
