import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.vkubelet.kube import FakeKube
from vkubelet.events import Event, Recorder, Subject, event_name

POD = Subject("Pod", "default", "p", "uid-p")


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def recorder(kube: FakeKube, clock: Clock) -> AsyncIterator[Recorder]:
    made = Recorder(kube, "slurm", clock=clock)  # type: ignore[arg-type]
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_repeated_event_is_counted_in_one_object(recorder, kube, clock):
    for _ in range(3):
        recorder.tell(POD, "Warning", "Failed", "no")
        clock.now += 10
    await settle()
    (event,) = kube.objects.values()
    assert (event["count"], event["firstTimestamp"], event["lastTimestamp"]) == (
        3, "2023-11-14T22:13:20Z", "2023-11-14T22:13:40Z",
    )  # fmt: skip
    assert event["source"] == {"component": "kubelet", "host": "slurm"}


async def test_a_counted_event_that_expired_is_told_anew(recorder, kube, clock):
    recorder.tell(POD, "Warning", "Failed", "no")
    await settle()
    kube.objects.clear()
    clock.now += 1
    for _ in range(2):
        recorder.tell(POD, "Warning", "Failed", "no")
        await settle()
    assert len(kube.objects) == 1


async def test_a_numbered_event_is_the_same_object_after_a_restart(kube):
    for _ in range(2):
        recorder = Recorder(kube, "slurm")  # type: ignore[arg-type]
        task = asyncio.create_task(recorder.run())
        recorder.tell_once(POD, "Normal", "Pulled", "image", at=1_700_000_000.0, key="7/0/1")
        await settle()
        task.cancel()
    assert len(kube.objects) == 1


async def test_a_numbered_event_that_was_counted_elsewhere_changes_its_object(recorder, kube):
    for count, message in ((1, "no"), (5, "no"), (9, "(combined from similar events): nothing")):
        at = 1_700_000_000.0
        recorder.tell_once(POD, "Warning", "Unhealthy", message, at=at, key="7/0/1", count=count, last_at=at + count)
        await settle()
    assert [verb for verb, _, _ in kube.writes] == ["POST", "PATCH", "PATCH"]
    (event,) = kube.objects.values()
    assert (event["count"], event["message"]) == (9, "(combined from similar events): nothing")
    assert (event["firstTimestamp"], event["lastTimestamp"]) == ("2023-11-14T22:13:20Z", "2023-11-14T22:13:29Z")


async def test_a_counted_numbered_event_that_has_expired_is_made_anew_with_its_count(recorder, kube):
    recorder.tell_once(POD, "Warning", "Unhealthy", "no", at=1_700_000_000.0, key="7/0/1", count=40)
    await settle()
    (event,) = kube.objects.values()
    assert event["count"] == 40


async def test_more_than_the_queue_holds_is_dropped_and_nothing_waits(recorder, kube):
    for number in range(10_000):
        recorder.tell(POD, "Normal", "X", str(number))
    await settle()
    assert 0 < len(kube.objects) <= 2000


async def test_a_warning_is_told_though_thousands_of_other_events_came_before_it(recorder, kube):
    for number in range(3000):
        recorder.tell(POD, "Normal", "SlurmSubmitted", f"job {number}")
    recorder.tell(POD, "Warning", "Failed", "no")
    await settle()
    assert "Failed" in [event["reason"] for event in kube.objects.values()]


def test_names_are_valid_and_differ():
    long = Subject("Pod", "default", "x" * 253, "u")
    first = Event(long, "Normal", "A", "m", 1.0, "1")
    assert len(event_name(first)) <= 253
    assert event_name(first) != event_name(Event(long, "Normal", "A", "m", 1.0, "2"))
    assert event_name(first) == event_name(Event(long, "Normal", "A", "n", 2.0, "1", 7))
