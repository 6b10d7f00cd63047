"""The reports of a provider for many readers, who come back, and of whom none is left with what was last heard."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from sidecar import feed as feeding
from sidecar.feed import Feed, Numbered
from slurm_plugin.contract import PodReport, Reachable, Report, Snapshot
from slurm_plugin.job import PodUid
from tests.vkubelet.fakes import FakeProvider


def report(uid: str) -> PodReport:
    return PodReport(PodUid(uid), "ns", uid, None, None, None)


class Told(FakeProvider):
    """A provider that reports what it is told to: a report, or an error to raise."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: 1000.0)
        self.items: asyncio.Queue[Report | Exception] = asyncio.Queue()

    async def reports(self) -> AsyncGenerator[Report, None]:
        while True:
            item = await self.items.get()
            if isinstance(item, Exception):
                raise item
            yield item


async def heard(feed: Feed, provider: Told, *items: Report | Exception) -> None:
    """Have the feed hear of something."""
    before = feed._sequence  # its numbers are what a reader comes back with
    for item in items:
        provider.items.put_nowait(item)
    async with asyncio.timeout(10):
        await feed._after(before + len(items) - 1)


async def some(reports: AsyncGenerator[Numbered, None], count: int) -> list[Numbered]:
    async with asyncio.timeout(10):
        return [await anext(reports) for _ in range(count)]


async def test_a_bug_in_the_provider_is_told_and_the_listening_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "_RETRY_SECONDS", 0.01)
    provider = Told()
    feed = Feed(provider)
    task = asyncio.create_task(feed.run())
    await heard(feed, provider, Reachable(None), Snapshot(()))
    await heard(feed, provider, KeyError("x"))
    assert feed.reachable == Reachable("KeyError: 'x'")
    await heard(feed, provider, Reachable(None), Snapshot((report("a"),)))
    assert feed.reachable.error is None
    assert feed.pods == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_reader_cut_off_in_the_middle_hears_every_change_again_and_no_second_snapshot() -> None:
    provider = Told()
    feed = Feed(provider)
    task = asyncio.create_task(feed.run())
    await heard(feed, provider, Reachable(None), Snapshot((report("a"),)))
    async with aclosing(feed.read("", 0)) as reading:
        first = await some(reading, 3)
        assert [type(item.report) for item in first] == [Reachable, Snapshot, Reachable]
        await heard(feed, provider, report("b"), report("c"))
        (cut,) = await some(reading, 1)
        assert cut.report == report("b")
    await heard(feed, provider, report("d"))
    async with aclosing(feed.read(cut.epoch, cut.sequence)) as reading:
        again = await some(reading, 4)
    assert [item.report for item in again] == [report("b"), report("c"), report("d"), Reachable(None)]
    async with aclosing(feed.read(again[-1].epoch, again[-1].sequence)) as reading:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(reading)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
