from typing import Any

from slurm_plugin.contract import PodReport
from slurm_plugin.job import JobId, JobState, JobStatus, PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.runner.state import Event, RunnerState
from vkubelet.podevents import PodEvents

POD = Pod.model_validate({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": []}})


class Told:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.once: list[tuple[str, int]] = []

    def tell(self, _subject: Any, kind: str, reason: str, _message: str) -> None:
        self.events.append((kind, reason))

    def tell_once(
        self, _subject: Any, _kind: str, _reason: str, _message: str, *, key: str, count: int = 1, **_: Any
    ) -> None:
        self.once.append((key, count))


def history(*states: tuple[JobState, int]) -> list[tuple[str, str]]:
    told = Told()
    events = PodEvents(told, lambda: 0.0)  # type: ignore[arg-type]
    for state, restarts in states:
        job = JobStatus(JobId("7"), state, restart_count=restarts)
        events.tell_news(POD, PodReport(PodUid("u"), "default", "p", JobId("7"), job, None))
    return told.events


RUNNING, SUSPENDED, PENDING = JobState.RUNNING, JobState.SUSPENDED, JobState.PENDING


def test_a_suspension_and_its_end_are_told_once_each() -> None:
    states = ((PENDING, 0), (RUNNING, 0), (SUSPENDED, 0), (SUSPENDED, 0), (RUNNING, 0), (JobState.COMPLETED, 0))
    assert history(*states) == [("Warning", "SlurmSuspended"), ("Normal", "SlurmResumed")]


def test_a_requeue_is_told_once_however_it_is_seen() -> None:
    assert history((RUNNING, 0), (PENDING, 0), (PENDING, 1), (RUNNING, 1)) == [("Warning", "SlurmRequeued")]
    assert history((SUSPENDED, 0), (PENDING, 1), (RUNNING, 1)) == [("Warning", "SlurmRequeued")]
    assert history((RUNNING, 0), (RUNNING, 1)) == [("Warning", "SlurmRequeued")], "the wait was not seen"
    assert history((PENDING, 0), (PENDING, 1), (RUNNING, 1)) == [("Warning", "SlurmRequeued")], "its start was not seen"
    assert history((RUNNING, 0), (PENDING, 0), (RUNNING, 1), (PENDING, 1)) == [("Warning", "SlurmRequeued")] * 2


def test_what_was_before_the_agent_began_is_not_told() -> None:
    assert history((SUSPENDED, 3), (SUSPENDED, 3)) == []


def test_a_runners_event_is_told_once_and_again_when_it_was_counted_further() -> None:
    told = Told()
    events = PodEvents(told, lambda: 4000.0)  # type: ignore[arg-type]

    def see(restart: int, *happened: tuple[int, int, float]) -> list[tuple[str, int]]:
        listed = tuple(Event(s, "Warning", "Unhealthy", "no", "", 900.0, times, at) for s, times, at in happened)
        runner = RunnerState(1, 1, "7", restart, "cn1", (), (), 1.0, 0.0, False, False, "", "", (), listed)
        told.once.clear()
        events.tell_news(POD, PodReport(PodUid("u"), "default", "p", JobId("7"), None, runner))
        return told.once

    assert see(0, (1, 1, 1100.0), (2, 1, 1100.0)) == [("7/0/1", 1), ("7/0/2", 1)]
    assert see(0, (1, 1, 1100.0), (2, 1, 1100.0)) == []
    assert see(0, (1, 5, 1200.0), (2, 1, 1100.0), (3, 1, 1200.0)) == [("7/0/1", 5), ("7/0/3", 1)]
    assert see(0, (2, 1, 1100.0), (3, 2, 999.0)) == [], "longer ago than the API server keeps events"
    assert see(1, (1, 1, 1300.0)) == [("7/1/1", 1)]


def test_an_annotation_that_does_nothing_is_told_with_the_submission() -> None:
    told = Told()
    metadata = POD.metadata.model_copy(update={"annotations": {"slurm-job.vk.io/mpi-flags": "--x", "a/b": "c"}})
    PodEvents(told, lambda: 0.0).tell_submitted(POD.model_copy(update={"metadata": metadata}), JobId("7"))  # type: ignore[arg-type]
    assert told.events == [("Warning", "AnnotationIgnored")]
