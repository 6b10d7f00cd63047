"""One provider's reports for any number of readers, each of whom may come back and go on where it was.

A provider has one consumer at a time: this. Of each pod the latest report is kept with the number of its change, so a
reader that comes back is told what changed since, once, and a slow one holds nothing. The numbers are of one run of the
sidecar (its ``epoch``); after a restart everybody begins with the whole.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from slurm_plugin.contract import PodReport, Provider, Reachable, Report, Snapshot
from slurm_plugin.errors import SlurmletError
from slurm_plugin.job import PodUid

log = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Numbered:
    """A report with the number to come back with."""

    epoch: str
    sequence: int
    report: Report


class Feed:
    """The reports of one provider."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._epoch = uuid.uuid4().hex
        self._sequence = 0
        self._pods: dict[PodUid, tuple[int, PodReport]] = {}
        self._reachable = (0, Reachable("the sidecar has not yet heard of Slurm"))
        self._complete = False
        self._whole = 0  # the number of the latest Snapshot
        self._changed = asyncio.Condition()

    @property
    def ready(self) -> bool:
        """Whether every pod is known."""
        return self._complete

    @property
    def reachable(self) -> Reachable:
        """What was last heard of Slurm."""
        return self._reachable[1]

    @property
    def pods(self) -> int:
        """How many pods are known."""
        return len(self._pods)

    async def run(self) -> None:
        """Listen to the provider until cancelled."""
        while True:
            try:
                async with aclosing(self._provider.reports()) as reports:
                    async for report in reports:
                        await self._take(report)
            except SlurmletError as error:
                log.warning("reports: %s", error)
                await self._take(Reachable(str(error)))
            except Exception as error:
                # A bug of ours must not leave everybody with what was last heard: somebody is told, and it goes on.
                log.exception("reports failed")
                await self._take(Reachable(f"{type(error).__name__}: {error}"))
            await asyncio.sleep(_RETRY_SECONDS)

    async def _take(self, report: Report) -> None:
        async with self._changed:
            self._sequence += 1
            match report:
                case Snapshot(reports=reports):
                    self._pods = {each.uid: (self._sequence, each) for each in reports}
                    self._complete, self._whole = True, self._sequence
                case PodReport():
                    self._pods[report.uid] = (self._sequence, report)
                case Reachable():
                    self._reachable = (self._sequence, report)
            self._changed.notify_all()

    def report(self, uid: PodUid) -> PodReport | None:
        """Return the latest report of a pod, None if it is not known."""
        known = self._pods.get(uid)
        return None if known is None else known[1]

    async def complete(self) -> None:
        """Wait until every pod is known."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._complete)

    def reports(self) -> tuple[PodReport, ...]:
        """Return the latest report of every pod that is known."""
        return tuple(report for _, report in self._pods.values())

    async def over(self, uid: PodUid) -> None:
        """Wait until nothing of a pod runs any more, or it is not known."""
        async with self._changed:
            await self._changed.wait_for(lambda: (report := self.report(uid)) is None or report.over)

    def forget(self, uid: PodUid) -> None:
        """Drop a pod whose directory is gone."""
        self._pods.pop(uid, None)

    async def read(self, epoch: str, sequence: int) -> AsyncGenerator[Numbered, None]:
        """Yield what is new since then, for ever; the whole if that was in another run."""
        if epoch != self._epoch:
            yield Numbered(self._epoch, 0, self.reachable)
            await self.complete()
            sequence = self._sequence
            yield Numbered(self._epoch, sequence, Snapshot(self.reports()))
            yield Numbered(self._epoch, sequence, self.reachable)
        while True:
            since = sequence
            sequence = await self._after(since)
            changes: list[tuple[int, Report]] = [change for change in self._pods.values() if change[0] > since]
            if self._whole > since:  # pods that are not in it have no job, which no change of theirs would say
                changes = [(sequence, Snapshot(self.reports()))]
            changes += [self._reachable] if self._reachable[0] > since else []
            for _, report in sorted(changes, key=lambda change: change[0]):
                # Only the last of them takes the reader past ``since``: one that is cut off before hears all again.
                yield Numbered(self._epoch, since, report)
            yield Numbered(self._epoch, sequence, self.reachable)

    async def _after(self, sequence: int) -> int:
        """Wait for something newer; the number of the newest."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._sequence > sequence)
            return self._sequence
