"""One pod's life: init containers in order, sidecars as they come, apps together, and the way out.

Order of the end (Kubernetes 1.36, KEP-753): preStop hooks at once, TERM to the app containers, KILL after the grace
period; then sidecar containers, the last started first, with what is left of it.
"""

import math
import os
import signal
import sys
from typing import Dict, List, Optional

from slurm_plugin.jobdir import JobDir

from . import ephemeral, plan, volumes
from .backoff import Timings
from .book import Book
from .container import ContainerLife
from .door import Door
from .grace import Grace
from .limits import EVICTED, GRACE_SECONDS, watch_limits
from .loop import Loop, Promise, Task, Timer
from .meter import Meter
from .planfile import read_plan
from .shared import Shared

DEADLINE_EXCEEDED = "DeadlineExceeded"
DEADLINE_WORDS = "Pod was active on the node longer than the specified deadline"
TIME_LIMIT_WORDS = "Slurm's time limit of the job is about to be reached"
_GRACE_POLL_SECONDS = 1.0


class PodLife:
    """The state machine of one pod. ``run`` returns the job's exit code."""

    def __init__(self, loop: Loop, directory: JobDir, pod: plan.Plan, book: Book, timings: Timings) -> None:
        self._loop = loop
        self._plan = pod
        self._book = book
        self._shared = Shared(loop, directory, pod, book, timings)
        self._lives = [ContainerLife(self._shared, container) for container in pod.containers]
        self._door = Door(self._shared, self._lives, self._take_up)
        self._begun: Dict[str, Task] = {}
        self._grace: Optional[Grace] = None
        self._done = False
        self._began = loop.now()
        self._deadline: Optional[Timer] = None

    @property
    def scratch_base(self) -> str:
        """Where runs on this node have their scratch space."""
        return os.path.dirname(self._shared.scratch.path)

    async def run(self) -> int:
        """Live; return the exit code that Slurm shall see."""
        self._set_deadline(self._plan.deadline_seconds)
        meter = Meter(self._loop, self._shared.directory.usage, self._book, self._lives, self._shared.probe_counts)
        self._loop.spawn(meter.run(), "meter")
        try:
            if await self._set_up():
                limits = watch_limits(self._shared, self._plan.volumes, self.evict)
                self._loop.spawn(limits, "size limits")
                self._door.open()
                await self._work()
                self._done = True
                await self._end_sidecars()
        finally:
            await self._door.close()
            if self._shared.rank_specs:
                from .ranks import clean

                await clean(self._shared)
            self._shared.scratch.remove()
        return self._exit_code()

    def _set_deadline(self, seconds: int) -> None:
        """End the pod so many seconds after its beginning; 0 is never."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds:
            left = self._began + seconds - self._loop.now()
            self._deadline = self._loop.call_later(left, lambda: self.terminate(DEADLINE_EXCEEDED, DEADLINE_WORDS))

    async def _set_up(self) -> bool:
        """Make the volumes, trying until they can be made; False if the pod is ended before."""
        while not self._shared.stopping.done:
            try:
                self._shared.scratch.make()
                self._shared.places = volumes.prepare(self._plan, self._shared.directory, self._shared.scratch)
                self._shared.write_hosts()
            except (volumes.VolumeError, OSError) as error:
                self._book.event("FailedMount", str(error), warning=True)
                await self._loop.first(self._shared.stopping, timeout=self._shared.timings.base)
            else:
                return True
        return False

    # The work

    def _of_kind(self, *kinds: str) -> List[ContainerLife]:
        return [life for life in self._lives if life.container.kind in kinds]

    def _begin(self, life: ContainerLife) -> None:
        self._begun[life.name] = self._loop.spawn(life.live(), "life of " + life.name)

    async def _work(self) -> None:
        """Run until every app container is over (or an init container has failed for good)."""
        for life in self._of_kind(plan.INIT, plan.SIDECAR):
            if self._shared.stopping.done:
                break
            self._begin(life)
            if life.container.kind == plan.SIDECAR:
                await self._loop.first(life.started, life.over)
                continue
            await life.over
            if life.ending is None or life.ending.exit_code != 0:
                return
        if not self._shared.stopping.done:
            for life in self._of_kind(plan.APP):
                self._begin(life)
        for life in self._of_kind(plan.APP):
            if life.name in self._begun:
                await life.over

    def _take_up(self) -> None:
        """Look what was edited of the pod and added to it. OSError, ValueError, KeyError, TypeError: it can't be read."""
        self._take_edits(read_plan(self._shared.directory))
        self._add_ephemeral()

    def _take_edits(self, edited: plan.Plan) -> None:
        """Take up images and the deadline; nothing else of a live pod's plan changes."""
        if plan.edition_of(edited) == self._book.edition or self._shared.stopping.done or self._done:
            return
        images = {each.name: each.image for each in edited.containers}
        for life in self._lives:
            image = images.get(life.name, life.container.image)
            if image != life.container.image:
                life.redefine(image)
        self._set_deadline(edited.deadline_seconds)
        self._book.take_up(plan.edition_of(edited))

    def _add_ephemeral(self) -> None:
        """Start what was added since the last look."""
        known = {life.name for life in self._lives}
        for container in ephemeral.added(self._shared.directory, known):
            if self._shared.stopping.done or self._done:
                return
            self._book.add(container)
            life = ContainerLife(self._shared, container)
            self._lives.append(life)
            self._begin(life)

    async def _end_sidecars(self) -> None:
        """Stop the sidecars that still run, in reverse order; wait until every container is over."""
        grace = self._grace or Grace(self._loop, self._plan.grace_seconds)
        if self._grace is None:
            self._stop(self._of_kind(plan.SIDECAR, plan.EPHEMERAL), grace)
        for life in self._lives:
            if life.name in self._begun:
                await life.over

    def _stop(self, lives: List[ContainerLife], grace: Grace) -> None:
        """Have containers stopped: sidecars after all others and each after those that were started after it."""
        for index, life in enumerate(lives):
            after: List[ContainerLife] = []
            if life.container.kind == plan.SIDECAR:
                after = [other for other in self._lives if other.container.kind != plan.SIDECAR]
                after += [other for other in lives[index + 1 :] if other.container.kind == plan.SIDECAR]
            turn = self._all_gone(after)
            words = "Stopping container " + life.name
            self._loop.spawn(life.stop(grace, words, turn, alone=True), "stop of " + life.name)

    def _all_gone(self, lives: List[ContainerLife]) -> Promise:
        """Return the promise that none of them runs any more."""

        async def wait() -> None:
            for life in lives:
                if life.name in self._begun:
                    await life.over

        return self._loop.spawn(wait(), "turn")

    # The end

    def evict(self, message: str) -> None:
        """End the pod for what it does to the node, with the kubelet's short grace period."""
        self.terminate(EVICTED, message, at_most=GRACE_SECONDS)

    def terminate(self, reason: str = "", message: str = "", *, at_most: float = math.inf) -> None:
        """End the pod: nothing is started any more, what runs is stopped. Again: the grace may become shorter."""
        seconds = min(at_most, self._asked_grace())
        if self._grace is not None:
            self._grace.shorten(seconds)
            return
        # Once its work is done a pod can't be too late any more.
        self._book.terminate(*(("", "") if self._done else (reason, message)))
        self._grace = Grace(self._loop, seconds)
        self._shared.stopping.resolve()
        self._stop(self._lives, self._grace)
        self._loop.spawn(self._watch_grace(), "grace")

    def _asked_grace(self) -> float:
        """Return the grace period that applies now: what the request says, else the pod's own."""
        try:
            with open(self._shared.directory.grace, encoding="ascii") as stream:
                return max(0.0, float(stream.read().strip()))
        except FileNotFoundError:
            return float(self._plan.grace_seconds)
        except (OSError, ValueError) as error:
            sys.stderr.write("slurmlet: can't read the grace period, the pod's own applies: %s\n" % error)
            return float(self._plan.grace_seconds)

    async def _watch_grace(self) -> None:
        """Look for a shorter grace period while containers end: the file may change after the last TERM."""
        before = self._asked_grace()
        while True:
            await self._loop.sleep(_GRACE_POLL_SECONDS)
            now = self._asked_grace()
            if now != before and self._grace is not None:
                self._grace.shorten(now)
            before = now

    def _exit_code(self) -> int:
        """Return the first app container's code that is not 0; an init container's if no app was to run."""
        for life in self._of_kind(plan.APP) + self._of_kind(plan.INIT):
            if life.ending is not None and life.ending.exit_code != 0:
                return life.ending.exit_code & 0xFF
        if any(life.ending is None for life in self._of_kind(plan.APP)):
            return 128 + signal.SIGTERM  # ended before it began
        return 1 if self._book.reason else 0
