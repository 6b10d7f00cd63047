"""The reconciler between an API server and a provider that do what the test says."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from slurm_plugin.contract import PodReport, Reachable
from slurm_plugin.errors import (
    HostError,
    SlurmletError,
    SlurmUnavailableError,
    SubmissionRejectedError,
    TransportError,
    UnparsableOutputError,
    UnsupportedFieldError,
)
from slurm_plugin.job import JobId, JobState, JobStatus, PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.runner.state import Event
from tests.vkubelet.fakes import FakeProvider
from tests.vkubelet.kube import FakeKube
from vkubelet.content import Content
from vkubelet.errors import InvalidError, UnavailableError
from vkubelet.events import Recorder
from vkubelet.pods import PodController

NAMESPACE = "/api/v1/namespaces/default"


class World:
    """One agent's pods, and everything around them."""

    def __init__(self) -> None:
        self.kube = FakeKube()
        self.provider = FakeProvider(clock=time.time)
        self.reachable: list[str | None] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        recorder = Recorder(self.kube, "slurm")  # type: ignore[arg-type]
        content = Content(self.kube, dict)  # type: ignore[arg-type]
        self.controller = PodController(
            self.kube, self.provider, content, recorder,  # type: ignore[arg-type]
            node="slurm", node_ips=("10.0.0.1",), workers=8, reachable=self.reachable.append,
        )  # fmt: skip
        runs = (recorder.run(), content.watch_services(), self.controller.run())
        self._tasks = [asyncio.create_task(run) for run in runs]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def create(self, name: str = "p", *, restart: str = "Never", uid: str | None = None, **fields: Any) -> Pod:
        metadata = {"name": name, "namespace": "default", **fields.pop("metadata", {})}
        container = {"name": "main", "image": "i", **fields.pop("container", {})}
        spec = {"nodeName": "slurm", "restartPolicy": restart, "containers": [container], **fields.pop("spec", {})}
        body = {"metadata": metadata, "spec": spec, "status": {"phase": "Pending"} | fields.pop("status", {})}
        return Pod.model_validate(self.kube.put(f"{NAMESPACE}/pods/{name}", body, uid=uid or f"uid-{name}"))

    def delete(self, name: str = "p", *, grace: int = 30) -> None:
        body = self.kube.objects[f"{NAMESPACE}/pods/{name}"]
        body["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}
        self.kube.put(f"{NAMESPACE}/pods/{name}", body)

    async def create_and_delete(self, count: int) -> None:
        """Create pods of which none is submitted yet, and delete them."""
        names = [f"p{number}" for number in range(count)]
        for name in names:
            self.create(name)
        await self.until(lambda: self.provider.submissions)
        await self.settle()
        for name in names:
            self.delete(name)
        under_way = {pod.metadata.name for pod in self.provider.submissions}
        await self.until(lambda: not any(self.exists(name) for name in names if name not in under_way), seconds=10)

    def status(self, name: str = "p") -> dict[str, Any]:
        return self.kube.objects[f"{NAMESPACE}/pods/{name}"]["status"]

    def exists(self, name: str = "p") -> bool:
        return f"{NAMESPACE}/pods/{name}" in self.kube.objects

    def waiting(self, name: str = "p") -> str:
        states = self.status(name).get("containerStatuses") or [{"state": {}}]
        return states[0]["state"].get("waiting", {}).get("reason", "")

    def events(self) -> list[tuple[str, str]]:
        return [(body["reason"], body["message"]) for verb, path, body in self.kube.writes if path.endswith("/events")]

    async def until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110  what is waited for happens in other tasks
                await asyncio.sleep(0.005)

    async def settle(self) -> None:
        """Let everything that can happen now happen."""
        for _ in range(200):
            await asyncio.sleep(0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.stop()


def report(uid: str, name: str, state: JobState = JobState.RUNNING, *, absent: bool = False) -> PodReport:
    job = JobStatus(JobId("7"), state, start_time=1000)
    return PodReport(PodUid(uid), "default", name, JobId("7"), job, None, absent=absent)


async def test_what_was_said_before_it_was_known_whose_pod_it_is_counts_for_no_pod_that_exists(world: World) -> None:
    world.start()
    world.provider.tell(replace(report("uid-p", "p", JobState.FAILED), stray=True))
    await world.settle()
    world.create()
    await world.until(lambda: world.provider.submissions)
    await world.until(lambda: "phase" in world.status())
    assert world.status()["phase"] == "Pending"


async def test_a_pod_whose_user_can_submit_nothing_says_why_it_waits(world: World) -> None:
    away = SlurmUnavailableError("as user carol: root: disk quota exceeded")
    world.provider.refuse = lambda pod: away if pod.metadata.name == "carols" else None
    world.start()
    world.create("carols")
    world.create("p")
    await world.until(lambda: {"carols", "p"} <= {pod.metadata.name for pod in world.provider.submissions})
    await world.until(lambda: world.events())
    assert any("as user carol" in message for reason, message in world.events() if reason == "SlurmUnreachable")
    await world.until(lambda: "as user carol" in str(world.status("carols")))
    world.provider.refuse = lambda _pod: None
    await world.until(lambda: PodUid("uid-carols") in world.provider.jobs)


async def test_a_running_pod_whose_user_can_not_be_asked_stays_says_why_and_is_not_deleted(world: World) -> None:
    """As a ``TenantProvider`` answers whose policy names the pod's user no more."""
    trouble = "as user alice: no rule of the policy names this user any more"

    async def refuse(_uid: PodUid, _grace: int) -> None:
        raise SlurmUnavailableError(trouble)

    world.provider.terminate = refuse  # type: ignore[method-assign]
    world.create(status={"phase": "Running", "startTime": "2026-01-01T00:00:00Z"})
    world.provider.jobs[PodUid("uid-p")] = PodReport(PodUid("uid-p"), "default", "p", None, None, None, trouble=trouble)
    world.start()
    told = ("SlurmUnreachable", f"Slurm does not answer: {trouble}")
    await world.until(lambda: told in world.events())
    world.delete()
    await world.settle()
    assert world.events() == [told], "once"
    assert world.exists()
    assert world.status()["phase"] == "Running"
    assert world.provider.submissions == []


async def test_a_pod_is_submitted_runs_and_ends_with_its_exit_code(world: World) -> None:
    world.start()
    pod = world.create()
    await world.until(lambda: world.waiting() == "ContainerCreating")
    world.provider.run(pod)
    await world.until(lambda: world.status()["phase"] == "Running")
    world.provider.run(pod, exit_code=3)
    await world.until(lambda: world.status()["phase"] == "Failed")
    assert world.status()["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    assert len(world.provider.submissions) == 1
    phases = [status["phase"] for status in world.kube.statuses(f"{NAMESPACE}/pods/p")]
    assert phases == ["Pending", "Running", "Failed"]


async def test_nothing_is_submitted_before_the_provider_told_what_it_knows(world: World) -> None:
    world.provider.snapshot_allowed.clear()
    world.create()
    world.start()
    await world.settle()
    assert world.provider.submissions == []
    world.provider.snapshot_allowed.set()
    await world.until(lambda: world.provider.submissions)


async def test_a_pod_that_the_provider_knows_is_not_submitted_again(world: World) -> None:
    world.provider.jobs[PodUid("uid-p")] = report("uid-p", "p")
    world.create()
    world.start()
    await world.until(lambda: world.status().get("startTime"))
    assert world.provider.submissions == []


async def test_a_pod_that_was_staged_and_perhaps_never_submitted_is_submitted(world: World) -> None:
    world.provider.jobs[PodUid("uid-p")] = PodReport(PodUid("uid-p"), "default", "p", None, None, None)
    world.provider.refuse = lambda _pod: TransportError("sbatch gave no answer")
    world.create()
    world.start()
    await world.until(lambda: world.provider.submissions)


async def test_a_running_pod_whose_job_id_was_lost_is_not_submitted_again(world: World) -> None:
    world.provider.jobs[PodUid("uid-p")] = PodReport(PodUid("uid-p"), "default", "p", None, None, None)
    world.create(status={"phase": "Running"})
    world.start()
    await world.until(lambda: world.reachable)
    await world.settle()
    assert world.provider.submissions == []
    assert world.status()["phase"] == "Running"


async def test_an_ended_pod_is_left_alone_whatever_is_reported(world: World) -> None:
    world.provider.jobs[PodUid("uid-p")] = report("uid-p", "p", JobState.COMPLETED)
    world.create(status={"phase": "Succeeded"})
    world.start()
    await world.settle()
    world.provider.tell(report("uid-p", "p", JobState.COMPLETED, absent=True))
    await world.settle()
    assert world.kube.writes == []
    assert world.provider.terminations == []


async def test_a_job_of_an_ended_pod_is_ended(world: World) -> None:
    world.provider.jobs[PodUid("uid-p")] = report("uid-p", "p")
    world.create(status={"phase": "Failed"})
    world.start()
    await world.until(lambda: world.provider.terminations == [("uid-p", 30)])


async def test_a_mirror_pod_is_ignored(world: World) -> None:
    world.create(metadata={"annotations": {"kubernetes.io/config.mirror": "x"}})
    world.start()
    await world.settle()
    assert world.provider.submissions == []


async def test_a_deleted_pod_gets_its_grace_its_end_is_written_and_then_object_and_directory_go(world: World) -> None:
    world.start()
    world.provider.obeys = False
    pod = world.create()
    await world.until(lambda: world.provider.jobs)
    world.provider.run(pod)
    await world.until(lambda: world.status()["phase"] == "Running")
    world.delete(grace=30)
    await world.until(lambda: world.provider.terminations == [("uid-p", 30)])
    await world.settle()
    assert world.exists()
    assert world.provider.forgotten == []
    world.provider.end(PodUid("uid-p"))
    await world.until(lambda: not world.exists())
    await world.until(lambda: world.provider.forgotten == ["uid-p"])
    assert world.kube.statuses(f"{NAMESPACE}/pods/p")[-1]["phase"] == "Failed"
    (deletion,) = [body for verb, _, body in world.kube.writes if verb == "DELETE"]
    assert deletion == {"uid": "uid-p", "grace": 0}


async def test_a_deletion_is_heard_though_our_own_write_came_after_it_and_was_answered_sooner(world: World) -> None:
    world.start()
    pod = world.create()
    await world.until(lambda: world.provider.jobs)
    announce, held = world.kube._announce, []
    world.kube._announce = lambda *told, **how: held.append((told, how))  # type: ignore[method-assign]  a slow watch
    world.delete(grace=30)
    world.provider.run(pod)
    path = f"{NAMESPACE}/pods/p"
    await world.until(lambda: "Running" in {status.get("phase") for status in world.kube.statuses(path)})
    await world.settle()
    world.kube._announce = announce  # type: ignore[method-assign]
    for told, how in held:
        announce(*told, **how)
    await world.until(lambda: world.provider.terminations == [("uid-p", 30)], seconds=5)


async def test_a_shortened_grace_is_passed_on_and_the_same_one_is_not(world: World) -> None:
    world.start()
    world.provider.obeys = False
    world.create()
    await world.until(lambda: world.provider.jobs)
    world.delete(grace=30)
    await world.until(lambda: world.provider.terminations)
    world.delete(grace=30)
    await world.settle()
    world.delete(grace=5)
    await world.until(lambda: world.provider.terminations == [("uid-p", 30), ("uid-p", 5)])


async def test_a_pod_that_was_never_submitted_is_deleted_without_asking_the_provider(world: World) -> None:
    world.provider.snapshot_allowed.clear()
    world.create()
    world.start()
    await world.settle()
    world.delete()
    world.provider.snapshot_allowed.set()
    await world.until(lambda: not world.exists())
    assert (world.provider.submissions, world.provider.terminations) == ([], [])


async def test_a_forced_deletion_ends_the_job_and_removes_what_is_left(world: World) -> None:
    world.start()
    world.create()
    await world.until(lambda: world.provider.jobs)
    world.kube.remove(f"{NAMESPACE}/pods/p")
    await world.until(lambda: world.provider.forgotten == ["uid-p"])
    assert world.provider.terminations == [("uid-p", 0)]


async def test_a_pod_whose_object_went_while_the_agent_was_away_is_ended_and_forgotten(world: World) -> None:
    world.provider.jobs[PodUid("uid-old")] = report("uid-old", "old")
    world.start()
    await world.until(lambda: world.provider.forgotten == ["uid-old"])
    assert world.provider.terminations == [("uid-old", 0)]


async def test_a_pod_of_another_node_in_the_same_root_is_not_touched(world: World) -> None:
    world.kube.objects[f"{NAMESPACE}/pods/other"] = {"metadata": {"uid": "uid-other"}}
    world.kube.follow = _only_bound(world.kube)  # type: ignore[method-assign]
    world.provider.jobs[PodUid("uid-other")] = report("uid-other", "other")
    world.start()
    await world.settle()
    assert f"{NAMESPACE}/pods/other" in world.kube.reads
    assert (world.provider.terminations, world.provider.forgotten) == ([], [])


def _only_bound(kube: FakeKube) -> Any:
    follow = kube.follow

    async def bound(path: str, prepare: Any, **parameters: str) -> Any:
        hidden = {where: body for where, body in kube.objects.items() if "spec" not in body and "/pods/" in where}
        for where in hidden:
            del kube.objects[where]
        stream = follow(path, prepare, **parameters)
        yield await anext(stream)
        kube.objects.update(hidden)
        async for change in stream:
            yield change

    return bound


async def test_a_recreated_pod_of_the_same_name_is_another_pod(world: World) -> None:
    world.start()
    world.create(uid="uid-1")
    await world.until(lambda: world.provider.jobs)
    world.kube.remove(f"{NAMESPACE}/pods/p")
    world.create(uid="uid-2")
    await world.until(lambda: world.provider.forgotten == ["uid-1"] and "uid-2" in world.provider.jobs)
    assert world.exists()


async def test_a_report_about_nobody_harms_nobody(world: World) -> None:
    world.start()
    world.provider.tell(report("uid-ghost", "ghost", JobState.COMPLETED))
    await world.until(lambda: world.provider.forgotten == ["uid-ghost"])
    world.create()
    await world.until(lambda: world.provider.submissions)


async def test_a_running_pod_that_the_provider_does_not_know_is_lost(world: World) -> None:
    world.create(status={"phase": "Running", "startTime": "2026-01-01T00:00:00Z"})
    world.start()
    await world.until(lambda: world.status()["phase"] == "Failed")
    assert world.status()["reason"] == "SlurmJobLost"
    assert world.provider.submissions == []


async def test_a_rejected_job_fails_a_pod_that_is_not_always_restarted(world: World) -> None:
    world.provider.refuse = lambda _pod: SubmissionRejectedError("Invalid account or account/partition combination")
    world.start()
    world.create(restart="OnFailure")
    await world.until(lambda: world.status()["phase"] == "Failed")
    assert world.status()["reason"] == "SlurmRejected"
    assert "Invalid account" in world.status()["message"]
    await world.until(lambda: [e for e in world.events() if e[0] == "SlurmRejected" and "Invalid account" in e[1]])


async def test_pods_of_a_rejected_replicaset_wait_and_share_one_call(world: World) -> None:
    world.provider.refuse = lambda _pod: SubmissionRejectedError("Invalid account")
    world.start()
    owner = {"ownerReferences": [{"uid": "rs", "controller": True}]}
    for number in range(20):
        world.create(f"p{number}", restart="Always", metadata=owner)
    await world.until(lambda: all(world.waiting(f"p{n}") == "SlurmRejected" for n in range(20)))
    assert len(world.provider.submissions) == 1
    assert {world.status(f"p{n}")["phase"] for n in range(20)} == {"Pending"}


async def test_pods_of_one_owner_share_one_call_too_while_slurm_takes_none_and_come_when_it_is_back(
    world: World,
) -> None:
    world.provider.refuse = lambda _pod: SlurmUnavailableError("Required partition not available (inactive or drain)")
    world.start()
    owner = {"ownerReferences": [{"uid": "job", "controller": True}]}
    for number in range(20):
        world.create(f"p{number}", metadata=owner)
    await world.until(lambda: all("partition" in world.status(f"p{n}").get("message", "") for n in range(20)))
    await asyncio.sleep(2)
    assert len(world.provider.submissions) == 1
    world.provider.refuse = lambda _pod: None
    world.provider.tell(Reachable("slurmctld is away"))
    world.provider.tell(Reachable(None))
    await world.until(lambda: len(world.provider.submissions) == 21, seconds=5)


async def test_a_slurm_that_is_slow_to_take_jobs_holds_up_nothing_else(world: World) -> None:
    world.start()
    running, ending = world.create("running"), world.create("ending")
    await world.until(lambda: len(world.provider.jobs) == 2)
    world.provider.takes_jobs.clear()
    for number in range(40):
        world.create(f"p{number}")
    await world.until(lambda: len(world.provider.submissions) > 5)
    world.provider.run(running)
    await world.until(lambda: world.status("running")["phase"] == "Running", seconds=30)
    world.delete("ending")
    await world.until(lambda: world.provider.terminations == [(ending.metadata.uid, 30)], seconds=30)
    world.provider.takes_jobs.set()
    await world.until(lambda: {f"uid-p{n}" for n in range(40)} <= set(world.provider.jobs), seconds=30)


async def test_a_pod_that_only_waits_is_told_of_when_no_other_waits_to_be_submitted(world: World) -> None:
    world.start()
    world.provider.takes_jobs.clear()
    for number in range(10):
        world.create(f"p{number}")
    await world.until(lambda: len(world.provider.submissions) == 4)
    await world.settle()
    world.provider.tell(report("uid-queued", "queued", JobState.PENDING))
    world.create("queued")
    await world.settle()
    assert "conditions" not in world.status("queued")
    world.provider.tell(report("uid-queued", "queued"))
    await world.until(lambda: world.status("queued").get("conditions"), seconds=5)
    world.provider.takes_jobs.set()
    names = [f"p{number}" for number in range(10)]
    await world.until(lambda: all(world.waiting(name) for name in names), seconds=5)
    await world.until(lambda: [reason for reason, _ in world.events()].count("SlurmSubmitted") == 10, seconds=5)


async def test_pods_that_were_deleted_while_they_waited_to_be_submitted_hold_up_nothing(world: World) -> None:
    world.start()
    world.provider.takes_jobs.clear()
    await world.create_and_delete(60)
    names = [f"new{number}" for number in range(20)]
    for name in names:
        world.create(name)
    await world.settle()
    world.provider.takes_jobs.set()
    await world.until(lambda: {f"uid-{name}" for name in names} <= set(world.provider.jobs), seconds=10)


async def test_pods_that_can_be_read_no_more_while_they_wait_to_be_submitted_hold_up_nothing(world: World) -> None:
    world.start()
    world.provider.takes_jobs.clear()
    names = [f"p{number}" for number in range(20)]
    for name in names:
        world.create(name)
    await world.until(lambda: len(world.provider.submissions) == 4)
    await world.settle()
    left = [name for name in names if name not in {pod.metadata.name for pod in world.provider.submissions}]
    for name in left[:8]:
        body = world.kube.objects[f"{NAMESPACE}/pods/{name}"]
        body["spec"]["ephemeralContainers"] = "of an API server to come"
        world.kube.put(f"{NAMESPACE}/pods/{name}", body)
    await world.settle()
    world.provider.takes_jobs.set()
    await world.until(lambda: {f"uid-{name}" for name in left[8:]} <= set(world.provider.jobs), seconds=10)


async def test_pods_that_ended_by_themselves_while_they_waited_to_be_ended_hold_up_nothing(world: World) -> None:
    world.start()
    names = [f"p{number}" for number in range(60)]
    new = [f"new{number}" for number in range(10)]
    for name in names + new:
        world.create(name)
    await world.until(lambda: len(world.provider.jobs) == 70)
    world.provider.ends_jobs.clear()
    for name in names:
        world.delete(name)
    await world.until(lambda: len(world.provider.terminations) == 2)
    await world.settle()
    asked_for = {uid for uid, _ in world.provider.terminations}
    for name in (left := [name for name in names if f"uid-{name}" not in asked_for]):
        world.provider.end(PodUid(f"uid-{name}"))
    await world.until(lambda: not any(map(world.exists, left)), seconds=10)
    for name in new:
        world.delete(name)
    await world.settle()
    world.provider.ends_jobs.set()
    await world.until(lambda: not any(map(world.exists, names + new)), seconds=10)


async def test_a_pod_that_was_submitted_is_told_of_though_slurm_says_nothing_of_its_job(world: World) -> None:
    world.start()
    world.provider.tells = False
    world.provider.takes_jobs.clear()
    for number in range(10):
        world.create(f"p{number}")
    await world.until(lambda: len(world.provider.submissions) == 4)
    await world.settle()
    world.provider.takes_jobs.set()
    await world.until(lambda: [reason for reason, _ in world.events()].count("SlurmSubmitted") == 10, seconds=5)


async def test_a_slurm_that_is_slow_to_cancel_jobs_holds_up_nothing_else(world: World) -> None:
    world.start()
    names = [f"p{number}" for number in range(40)]
    for name in ("running", *names):
        world.create(name)
    await world.until(lambda: len(world.provider.jobs) == 41)
    world.provider.ends_jobs.clear()
    for name in names:
        world.delete(name)
    await world.until(lambda: world.provider.terminations)
    world.create("new")
    await world.until(lambda: "uid-new" in world.provider.jobs, seconds=30)
    world.provider.ends_jobs.set()
    await world.until(lambda: not any(map(world.exists, names)), seconds=30)


async def test_a_limit_leaves_the_pod_pending_whatever_its_restart_policy(world: World) -> None:
    world.provider.refuse = lambda _pod: SubmissionRejectedError("QOSMaxSubmitJobPerUserLimit", limit=True)
    world.start()
    world.create()
    await world.until(lambda: world.waiting() == "SlurmLimit")
    assert world.status()["phase"] == "Pending"


async def test_an_unsupported_field_is_named_in_the_status(world: World) -> None:
    world.provider.refuse = lambda _pod: UnsupportedFieldError("spec.hostPID", "can't be honoured")
    world.start()
    world.create()
    await world.until(lambda: world.status()["phase"] == "Failed")
    assert world.status()["reason"] == "PodFeatureUnsupported"
    assert world.status()["message"] == "Pod was rejected: spec.hostPID: can't be honoured"


async def test_an_unknown_outcome_is_asked_for_again(world: World) -> None:
    answers = iter((TransportError("connection lost"), None))
    world.provider.refuse = lambda _pod: next(answers)
    world.start()
    world.create()
    await world.until(lambda: len(world.provider.submissions) == 2)
    assert world.status()["phase"] == "Pending"


@pytest.mark.parametrize("error", [TransportError("connection lost"), UnparsableOutputError(("sbatch",), "no id", "")])
async def test_a_deletion_after_an_unknown_outcome_asks_for_the_end_and_waits_for_the_answer(
    world: World, error: SlurmletError
) -> None:
    world.provider.refuse = lambda _pod: error
    world.start()
    world.create()
    await world.until(lambda: world.provider.submissions)
    world.delete()
    await world.until(lambda: world.provider.terminations)
    await world.settle()
    assert world.exists()
    world.provider.tell(report("uid-p", "p", JobState.CANCELLED, absent=True))
    await world.until(lambda: not world.exists())


async def test_trouble_of_the_sites_is_told_and_tried_again(world: World) -> None:
    answers = iter((HostError("/home/alice: disk quota exceeded"), None))
    world.provider.refuse = lambda _pod: next(answers)
    world.start()
    world.create()
    await world.until(lambda: len(world.provider.submissions) == 2)
    await world.until(lambda: ("FailedCreatePodSandBox", "/home/alice: disk quota exceeded") in world.events())


async def test_while_slurm_is_away_pods_wait_and_come_when_it_is_back(world: World) -> None:
    world.start()
    await world.until(lambda: world.reachable == [None])
    world.provider.tell(Reachable("slurmctld is away"))
    await world.until(lambda: world.reachable[-1] == "slurmctld is away")
    world.create()
    await world.until(lambda: world.waiting() == "ContainerCreating")
    assert world.provider.submissions == []
    world.provider.tell(Reachable(None))
    await world.until(lambda: world.provider.submissions)


async def test_a_missing_configmap_is_a_config_error_and_recovers(world: World) -> None:
    world.start()
    reference = {"configMapKeyRef": {"name": "later", "key": "k"}}
    world.create(container={"env": [{"name": "A", "valueFrom": reference}]})
    await world.until(lambda: world.waiting() == "CreateContainerConfigError")
    assert world.status()["containerStatuses"][0]["state"]["waiting"]["message"] == 'configmap "later" not found'
    world.kube.put(f"{NAMESPACE}/configmaps/later", {"data": {"k": "v"}})
    await world.until(lambda: world.provider.jobs)
    assert [(e.name, e.value) for e in world.provider.contents[PodUid("uid-p")].env["main"]] == [("A", "v")]


async def test_a_key_that_appears_in_a_configmap_that_was_there_is_found(world: World) -> None:
    world.kube.put(f"{NAMESPACE}/configmaps/settings", {"data": {}})
    world.start()
    world.create(container={"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "k"}}}]})
    await world.until(lambda: world.waiting() == "CreateContainerConfigError")
    world.kube.put(f"{NAMESPACE}/configmaps/settings", {"data": {"k": "v"}})
    await world.until(lambda: world.provider.submissions)


async def test_a_missing_volume_keeps_containers_creating_and_is_an_event(world: World) -> None:
    world.start()
    world.create(spec={"volumes": [{"name": "v", "secret": {"secretName": "later"}}]})
    await world.until(lambda: [e for e in world.events() if e[0] == "FailedMount"])
    await world.until(lambda: world.waiting() == "ContainerCreating")
    world.kube.put(f"{NAMESPACE}/secrets/later", {"data": {"k": "dg=="}})
    await world.until(lambda: world.provider.submissions)
    (file,) = world.provider.contents[PodUid("uid-p")].volumes["v"]
    assert (file.path, file.data) == ("k", b"v")


async def test_runner_events_are_told_once_however_often_they_are_reported(world: World) -> None:
    world.start()
    pod = world.create()
    await world.until(lambda: world.provider.jobs)
    pulled = Event(1, "Normal", "Pulled", "Container image", "main", time.time())
    both = (pulled, Event(2, "Normal", "Started", "Started", "main", time.time()))
    world.provider.run(pod, events=(pulled,))
    await world.until(lambda: world.status()["phase"] == "Running")
    world.provider.run(pod, events=both)
    await world.settle()
    world.provider.run(pod, exit_code=0, events=both)
    await world.until(lambda: ("Started", "Started") in world.events() and world.status()["phase"] == "Succeeded")
    await world.settle()
    assert [reason for reason, _ in world.events() if reason in {"Pulled", "Started"}] == ["Pulled", "Started"]
    (told,) = [body for _, path, body in world.kube.writes if path.endswith("/events") and body["reason"] == "Pulled"]
    assert told["involvedObject"]["fieldPath"] == "spec.containers{main}"


async def test_a_status_that_says_nothing_new_is_not_written(world: World) -> None:
    world.start()
    pod = world.create()
    await world.until(lambda: world.provider.jobs)
    world.provider.run(pod)
    await world.until(lambda: world.status()["phase"] == "Running")
    before = len(world.kube.statuses(f"{NAMESPACE}/pods/p"))
    for _ in range(5):
        world.provider.tell(world.provider.jobs[PodUid("uid-p")])
        await world.settle()
    assert len(world.kube.statuses(f"{NAMESPACE}/pods/p")) == before


async def test_a_status_write_that_fails_is_repeated_and_one_that_is_invalid_is_not(world: World) -> None:
    answers = iter((UnavailableError("away"), InvalidError("422")))
    world.kube.fail = lambda _verb, path: next(answers, None) if path.endswith("/pods/p/status") else None
    world.start()
    pod = world.create()
    await world.until(lambda: len(world.kube.statuses(f"{NAMESPACE}/pods/p")) == 2)
    await world.settle()
    assert len(world.kube.statuses(f"{NAMESPACE}/pods/p")) == 2
    world.provider.run(pod)
    await world.until(lambda: world.status()["phase"] == "Running")


async def test_readiness_gates_that_others_set_are_followed(world: World) -> None:
    world.start()
    pod = world.create(spec={"readinessGates": [{"conditionType": "example.org/gate"}]})
    await world.until(lambda: world.provider.jobs)
    world.provider.run(pod)
    await world.until(lambda: world.status()["phase"] == "Running")
    body = world.kube.objects[f"{NAMESPACE}/pods/p"]
    body["status"]["conditions"].append({"type": "example.org/gate", "status": "True"})
    world.kube.put(f"{NAMESPACE}/pods/p", body)
    await world.until(
        lambda: {c["type"]: c["status"] for c in world.status()["conditions"]}.get("Ready") == "True"
    )  # fmt: skip
    assert "example.org/gate" in {c["type"] for c in world.status()["conditions"]}


async def test_a_pod_that_our_models_can_not_read_can_still_be_deleted(world: World) -> None:
    world.start()
    body = {"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"image": 7}]}, "status": {}}
    world.kube.put(f"{NAMESPACE}/pods/p", body, uid="uid-p")
    await world.settle()
    world.delete()
    await world.until(lambda: not world.exists())
