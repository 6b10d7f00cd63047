"""The stream of reports that several sources make together: their first words, their changes, and their troubles.

A source is a coroutine that tells changes for ever; it is begun again, with back-off, whenever it breaks. Its name
stands before its error in what is said of Slurm.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

from .contract import PodReport, Reachable, Report, Snapshot
from .errors import SlurmletError
from .job import PodUid
from .mailbox import Mailbox

log = logging.getLogger(__name__)

# A source calls its argument once its first look is complete, and whenever it is well again.
Source = Callable[[Callable[[], None]], Awaitable[None]]

_RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
_HEALTHY_SECONDS = 90.0  # a source that ran so long has not broken again and again


class Reporting:
    """Reports of pods, read at the moment they are taken.

    ``known``: every pod's report; ``read``: one pod's, None if it is not known.
    """

    def __init__(self, known: Callable[[], tuple[PodReport, ...]], read: Callable[[PodUid], PodReport | None]) -> None:
        self._known = known
        self._read_pod = read
        self._mailbox: Mailbox[PodUid | None, Report] = Mailbox(self._read)
        self._errors: dict[str, str] = {"slurm": "not yet asked"}

    def tell(self, uid: PodUid) -> None:
        """Note that there is something new about a pod."""
        self._mailbox.tell(uid)

    def _read(self, key: PodUid | None) -> Report | None:
        return self._reachable() if key is None else self._read_pod(key)

    async def reports(self, sources: Mapping[str, Source]) -> AsyncGenerator[Report, None]:
        """Yield a Snapshot once every source's first look is complete, then each change (``Provider.reports``)."""
        self._mailbox.clear()
        first = {name: asyncio.Event() for name in sources}
        tasks = [
            asyncio.create_task(self._forever(name, source, first[name]), name=name) for name, source in sources.items()
        ]
        try:
            complete = False
            while True:
                if not complete and all(event.is_set() for event in first.values()):
                    complete = True
                    self._mailbox.clear()
                    yield self._reachable()
                    yield Snapshot(self._known())
                item = await self._next(tasks, first if not complete else {})
                if isinstance(item, Reachable) or (complete and item is not None):
                    yield item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _next(self, sources: list[asyncio.Task[None]], first: Mapping[str, asyncio.Event]) -> Report | None:
        """Wait for the next change, for one of ``first`` to happen (None), or for a source to fail (its error)."""
        waits: list[asyncio.Task[object]] = [asyncio.create_task(self._mailbox.take(), name="next report")]
        waits += [asyncio.create_task(event.wait()) for event in first.values() if not event.is_set()]
        try:
            await asyncio.wait([*waits, *sources], return_when=asyncio.FIRST_COMPLETED)
            for source in sources:
                if source.done():
                    source.result()  # a source never ends but by an error of ours
            taken = waits[0]
            return taken.result() if taken.done() else None  # type: ignore[return-value]
        finally:
            for task in waits:
                task.cancel()

    async def _forever(self, name: str, source: Source, first: asyncio.Event) -> None:
        """Run a source again whenever it breaks, with back-off; tell whether Slurm is reachable."""

        def well() -> None:
            first.set()
            self._set_error(name, None)

        failures = 0
        while True:
            started = time.monotonic()
            try:
                await source(well)
            except (SlurmletError, TimeoutError) as error:
                failures = 0 if time.monotonic() - started > _HEALTHY_SECONDS else failures + 1
                log.warning("%s: %s", name, error)
                self._set_error(name, str(error))
            except Exception as error:
                # A bug of ours must not end the agent: its pods' logs, deletions and Lease go on, and somebody is told.
                failures += 1
                log.exception("%s failed", name)
                self._set_error(name, f"{type(error).__name__}: {error}")
            await asyncio.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])

    def _reachable(self) -> Reachable:
        return Reachable("; ".join(f"{what}: {error}" for what, error in sorted(self._errors.items())) or None)

    def _set_error(self, what: str, error: str | None) -> None:
        before = self._reachable()
        self._errors.pop("slurm", None)
        if error is None:
            self._errors.pop(what, None)
        else:
            self._errors[what] = error
        if self._reachable() != before:
            self._mailbox.tell(None)
