import asyncio
import heapq
import itertools
from collections.abc import Callable

import pytest

from slurm_plugin.errors import SlurmletError, SlurmUnavailableError
from vkubelet.workqueue import Backoff, Timer, WorkQueue


class Alarm:
    def __init__(self, at: float, callback: Callable[[], object]) -> None:
        self.at, self.callback, self.cancelled = at, callback, False

    def when(self) -> float:
        return self.at

    def cancel(self) -> None:
        self.cancelled = True


class FakeTimers:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        alarm = Alarm(self.now + delay, callback)
        heapq.heappush(self._alarms, (alarm.at, next(self._numbers), alarm))
        return alarm

    def advance(self, seconds: float) -> None:
        self.now += seconds
        while self._alarms and self._alarms[0][0] <= self.now:
            alarm = heapq.heappop(self._alarms)[2]
            if not alarm.cancelled:
                alarm.callback()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Handler:
    """Counts calls; waits for ``gate`` if it is closed; ``outcomes`` are raised or returned in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.outcomes: list[Exception | float | None] = []
        self.running = 0
        self.most_running = 0

    async def __call__(self, key: str) -> float | None:
        self.calls.append(key)
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def timers() -> FakeTimers:
    return FakeTimers()


@pytest.fixture
async def queue(handler: Handler, timers: FakeTimers):
    made: WorkQueue[str] = WorkQueue(handler, name="test", workers=4, backoff=Backoff(1.0, 5.0), timers=timers)
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_key_added_many_times_before_it_is_handled_is_handled_once(queue, handler):
    for _ in range(5):
        queue.add("a")
    await settle()
    assert handler.calls == ["a"]


async def test_a_change_during_the_work_is_handled_once_more_and_never_at_the_same_time(queue, handler):
    handler.gate.clear()
    queue.add("a")
    await settle()
    queue.add("a")
    queue.add("a")
    await settle()
    assert handler.calls == ["a"]
    handler.gate.set()
    await settle()
    assert handler.calls == ["a", "a"]
    assert handler.most_running == 1


async def test_different_keys_are_handled_at_the_same_time_up_to_the_number_of_workers(queue, handler):
    handler.gate.clear()
    for key in "abcdef":
        queue.add(key)
    await settle()
    assert handler.most_running == 4
    handler.gate.set()
    await settle()
    assert sorted(handler.calls) == list("abcdef")


async def test_what_the_handler_returns_is_when_it_is_called_again(queue, handler, timers):
    handler.outcomes = [3.0]
    queue.add("a")
    await settle()
    timers.advance(2.9)
    await settle()
    assert handler.calls == ["a"]
    timers.advance(0.1)
    await settle()
    assert handler.calls == ["a", "a"]


async def test_failures_are_tried_again_with_doubling_waits_up_to_a_limit_and_success_forgets_them(
    queue, handler, timers
):
    handler.outcomes = [SlurmUnavailableError("away")] * 4 + [None, SlurmletError("no")]
    queue.add("a")
    await settle()
    for wait in (1.0, 2.0, 4.0, 5.0):
        before = len(handler.calls)
        timers.advance(wait - 0.01)
        await settle()
        assert len(handler.calls) == before
        timers.advance(0.01)
        await settle()
        assert len(handler.calls) == before + 1
    queue.add("a")
    await settle()
    timers.advance(1.0)
    await settle()
    assert len(handler.calls) == 7


async def test_of_two_planned_times_the_earlier_counts(queue, handler, timers):
    queue.add("a", delay=10)
    queue.add("a", delay=2)
    queue.add("a", delay=5)
    timers.advance(2)
    await settle()
    assert handler.calls == ["a"]
    timers.advance(20)
    await settle()
    assert handler.calls == ["a"]


async def test_a_bug_met_by_one_key_stops_no_other(queue, handler, timers, caplog):
    handler.outcomes = [ZeroDivisionError()]
    queue.add("a")
    await settle()
    queue.add("b")
    timers.advance(1)
    await settle()
    assert handler.calls == ["a", "b", "a"] or handler.calls == ["a", "a", "b"]
    assert "ZeroDivisionError" in caplog.text


async def test_a_forgotten_key_is_not_called_again(queue, handler, timers):
    queue.add("a", delay=2)
    queue.forget("a")
    timers.advance(3)
    await settle()
    assert handler.calls == []
