"""Makes what runs (the provider's reports) agree with what is wanted (the Pods bound to our node), and says so.

One pod at a time is worked on by one worker (``workqueue``), by UID. Nothing is kept that must survive: at the start
all Pods are listed and the provider tells all it knows, and only when both are here is anything submitted or ended.

The rules that hold at every moment:
- a pod is submitted only while it is wanted, not ended, and unknown to the provider;
- a terminal phase is never left, and never written before the job is gone;
- an object is deleted only after its end was written, and what is left on the site only after the object is gone;
- while Slurm does not answer nothing is deleted and no phase changes.
"""

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace

from pydantic import ValidationError

from slurm_plugin.contract import PodReport, Provider, Reachable, Report, Snapshot, Tenanted
from slurm_plugin.errors import SlurmletError, SlurmUnavailableError, SubmissionRejectedError
from slurm_plugin.job import PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.podstatus import TERMINAL_PHASES, failed_status, pod_status, waiting_status
from slurm_plugin.resolution.objects import MissingContentError, MissingEnvironmentError

from .admission import Admission, Hold, KnownPod, Neighbours
from .content import Content
from .editing import Editing
from .errors import ForbiddenError, NotFoundError, ReplacedError
from .events import Recorder
from .extending import Extending
from .kube import Json, Kube, Listed
from .metrics import SLURM_REACHABLE, counted_submission, observe_report
from .owners import OwnerGate, Refusal
from .podcache import CachedPod, PodCache, cached_pod
from .podends import PodEnds
from .podevents import PodEvents
from .podlog import about
from .podwork import Work
from .podwriter import PodWriter, pod_path
from .refusals import refusal_of, retry_limit
from .turns import AGAIN_SECONDS, Turns
from .upkeep import Upkeep
from .workqueue import Backoff, WorkQueue

log = logging.getLogger(__name__)

_REPORTS_RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
_CONTENT_BACKOFF = (0.5, 8.0)
_BACKOFF = (0.5, 30.0)
_STARTING, _ENDING = 0.5, 0.25  # of the workers, at most


class PodController:
    """The reconciler. ``cache`` is read by the kubelet API too."""

    def __init__(
        self,
        kube: Kube,
        provider: Provider,
        content: Content,
        recorder: Recorder,
        *,
        node: str,
        node_ips: tuple[str, ...],
        workers: int = 32,
        admission: Admission | None = None,
        reachable: Callable[[str | None], None] = lambda _error: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kube = kube
        self._provider = provider
        self._content = content
        self._events = PodEvents(recorder, clock)
        self._node = node
        self._ips = node_ips
        self._say_reachable = reachable
        self._clock = clock
        self.cache = PodCache()
        self._extending = Extending(provider, content, self._events)
        self._editing = Editing(provider, self._events)
        self._writer = PodWriter(kube, self.cache, self._events)
        self._admission = admission or Admission(node, Neighbours())
        self._admission.neighbours.join(self._known)
        self._work: dict[PodUid, Work] = {}
        self._queue: WorkQueue[PodUid] = WorkQueue(
            self._reconcile, name="pod", workers=workers, backoff=Backoff(*_BACKOFF)
        )
        self._owners: OwnerGate[PodUid] = OwnerGate(self._queue.add, clock=time.monotonic)
        self._turns: Turns[PodUid] = Turns(max(1, int(workers * _STARTING)), self._queue.add)
        self._ends = PodEnds(kube, provider, Turns(max(1, int(workers * _ENDING)), self._queue.add))
        self._content_backoff: Backoff[PodUid] = Backoff(*_CONTENT_BACKOFF)
        self._upkeep = Upkeep(content, provider, self.cache.get, self._events.warn)
        self._listed = asyncio.Event()
        self._told = False
        self._slurm_error: str | None = None

    # --- what comes in --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_pods(), name="watch pods")
            group.create_task(self._read_reports(), name="read reports")
            group.create_task(self._queue.run(), name="pod workers")
            group.create_task(self._upkeep.run(), name="upkeep of volumes")

    async def _watch_pods(self) -> None:
        selector = {"fieldSelector": f"spec.nodeName={self._node}"}
        async with aclosing(self._kube.follow("/api/v1/pods", cached_pod, **selector)) as changes:
            async for change in changes:
                if isinstance(change, Listed):
                    self._take_list(change.items)
                elif change.deleted:
                    self.cache.remove(change.item.uid)
                    self._queue.add(change.item.uid)
                elif self._take_pod(change.item):
                    self._queue.add(change.item.uid)

    def _take_pod(self, pod: CachedPod) -> bool:
        if pod.mirror or not self.cache.put(pod):
            return False
        work = self._work.setdefault(pod.uid, Work())
        if not work.bound:
            work.bound, work.seen_at = True, pod.seen_at
        return True

    def _take_list(self, pods: tuple[CachedPod, ...]) -> None:
        there = {pod.uid for pod in pods}
        for pod in self.cache:
            if pod.uid not in there:
                self.cache.remove(pod.uid)
        for pod in pods:
            self._take_pod(pod)
        if not self._listed.is_set():
            log.info("%d pods are bound to node %s", len(self.cache), self._node)
            gc.collect()
            gc.freeze()  # what is here now stays: the collector need not look at it again
        self._listed.set()
        self._add_all()

    async def _read_reports(self) -> None:
        failures = 0
        await self._listed.wait()
        while True:
            try:
                if isinstance(self._provider, Tenanted):
                    await self._provider.introduce([pod.identity() for pod in self.cache])
                async with aclosing(self._provider.reports()) as reports:
                    async for report in reports:
                        failures = 0
                        self._take_report(report)
            except SlurmletError as error:
                log.warning("reports: %s", error)
                self._set_reachable(str(error))
            await asyncio.sleep(_REPORTS_RETRY_SECONDS[min(failures, len(_REPORTS_RETRY_SECONDS) - 1)])
            failures += 1

    def _take_report(self, report: Report) -> None:
        match report:
            case Reachable(error=error):
                self._set_reachable(error)
            case Snapshot(reports=reports):
                self._take_snapshot(reports)
            case PodReport():
                work = self._work.setdefault(report.uid, Work())
                observe_report(work.report, report, self._clock())
                work.report = report
                self._queue.add(report.uid)

    def _take_snapshot(self, reports: tuple[PodReport, ...]) -> None:
        told = {report.uid: report for report in reports}
        for uid, report in told.items():
            self._work.setdefault(uid, Work()).report = report
        for uid, work in self._work.items():
            if uid not in told:
                work.report, work.submitted = None, False
        log.info("the provider knows %d pods", len(told))
        self._told = True
        self._add_all()

    def _set_reachable(self, error: str | None) -> None:
        recovered = self._slurm_error is not None and error is None
        self._slurm_error = error
        SLURM_REACHABLE.labels(self._node).set(error is None)
        self._say_reachable(error)
        if recovered:
            self._owners.reopen()
            self._add_all()

    def _add_all(self) -> None:
        if self._listed.is_set() and self._told:
            for uid in self._work:
                self._queue.add(uid)

    # --- what is done about it ------------------------------------------------------------------------------------

    async def _reconcile(self, uid: PodUid) -> float | None:
        """Do the next thing for one pod; returns after how many seconds to look again, None for its next change."""
        work = self._work.get(uid)
        if not (self._listed.is_set() and self._told) or work is None:
            return None
        cached = self.cache.get(uid)
        if cached is None or not cached.waits or work.has_job:
            self._turns.forget(uid)
        if cached is None:
            return await self._bury(uid, work)
        if work.report is not None and work.report.stray:
            # Said by somebody before we could say whose pod it is: of a pod that exists it is nothing.
            work.report = None
        if cached.waits and work.only_waits and (left := self._turns.yields(uid, cached.seen_at)) is not None:
            return left  # there is nothing to tell that those who are to be submitted should wait for
        try:
            pod = cached.parse()
        except ValidationError as error:
            return await self._unreadable(cached, work, error)
        self._events.tell_news(pod, work.report)
        if cached.deleting:
            return await self._end(cached, pod, work)
        if cached.phase in TERMINAL_PHASES:
            self._upkeep.drop(uid)
            return await self._ends.ensure_over(uid, work, grace=pod.spec.termination_grace_period_seconds)
        if work.report is not None and (work.has_job or cached.phase == "Running"):
            self._upkeep.see(pod)
            return await self._show(cached, pod, work)
        if cached.phase == "Running" and not work.known:
            lost = PodReport(uid, cached.namespace, cached.name, None, None, None, absent=True)
            return await self._writer.write(cached, pod, work, self._status(pod, lost))
        return None if work.submitted else await self._start_in_turn(cached, pod, work)

    def _status(self, pod: Pod, report: PodReport | None) -> Json:
        return pod_status(pod, report, now=self._clock(), node_ips=self._ips)

    async def _show(self, cached: CachedPod, pod: Pod, work: Work) -> float | None:
        """Write what the report says; give the pod what was edited of it and added to it."""
        again = await self._writer.write(cached, pod, work, self._status(pod, work.report))
        if cached.deleting:
            return again
        for later in (await self._editing.edit(pod, work), await self._extending.extend(pod, work)):
            again = again if later is None else _sooner(later, again)
        return again

    async def _start_in_turn(self, cached: CachedPod, pod: Pod, work: Work) -> float | None:
        """Submit a pod when it is its turn: pods that run or end are not to wait behind thousands that a slow sbatch keeps."""
        if not self._turns.take(cached.uid):
            return AGAIN_SECONDS
        try:
            return await self._start(cached, pod, work)
        finally:
            self._turns.give_back()

    async def _start(self, cached: CachedPod, pod: Pod, work: Work) -> float | None:
        """Submit a pod that is wanted and unknown."""
        if self._slurm_error is not None:
            return await self._wait(cached, pod, work, Refusal("", f"Slurm does not answer: {self._slurm_error}"))
        try:
            jobs, hold = self._admission.jobs(pod)
            if hold := self._admission.hold(cached.json()) or hold:
                return await self._hold(cached, pod, work, hold)
            content = replace(await self._content.resolve(pod, seen_at=work.seen_at), jobs=jobs)
        except MissingContentError as error:
            return await self._await_content(cached, pod, work, error)
        except ForbiddenError as error:
            self._events.warn(pod, "FailedMount", str(error))
            raise
        except SlurmletError as error:
            return await self._refused(cached, pod, work, error)
        if (seconds := self._owners.enter(cached.owner, cached.uid)) is not None:
            refusal = self._owners.refusal(cached.owner)
            return _sooner(seconds, await self._wait(cached, pod, work, refusal) if refusal else None)
        try:
            with counted_submission(cached.seen_at):
                job_id = await self._provider.submit(pod, content)
        except SlurmletError as error:
            nothing_done = isinstance(error, SlurmUnavailableError) or refusal_of(error) is not None
            work.doubtful = work.doubtful or not nothing_done
            return await self._refused(cached, pod, work, error)
        finally:
            self._owners.left(cached.owner, cached.uid)
        work.submitted = True
        self._content_backoff.succeeded(cached.uid)
        self._owners.accepted(cached.owner, cached.uid)
        log.info("submitted", extra=about(pod, job_id))
        self._upkeep.submitted(pod, content)
        self._editing.submitted(pod)
        again = self._turns.yields(cached.uid, cached.seen_at)
        self._events.tell_submitted(pod, job_id, later=again is not None)
        return again

    async def _hold(self, cached: CachedPod, pod: Pod, work: Work, hold: Hold) -> float | None:
        self._events.tell_waiting(pod, hold.reason, hold.message)
        early = await self._wait(cached, pod, work, Refusal("", hold.message))
        return early if hold.seconds is None else _sooner(hold.seconds, early)

    def _known(self, namespace: str, name: str) -> KnownPod | None:
        """Return what is known of a pod of ours that others may depend on."""
        cached = self.cache.find(namespace, name)
        if cached is None:
            return None
        work = self._work.get(cached.uid)
        return KnownPod(cached.phase, work.job_id if work is not None else "")

    async def _await_content(self, cached: CachedPod, pod: Pod, work: Work, error: MissingContentError) -> float | None:
        """Say what is missing, and look again soon: somebody may create it."""
        work.seen_at = time.monotonic()  # what was read before is not to be used again
        if isinstance(error, MissingEnvironmentError):
            self._events.warn(pod, "Failed", f"Error: {error}")
            refusal = Refusal("CreateContainerConfigError", str(error))
        else:
            self._events.warn(pod, "FailedMount", f"MountVolume.SetUp failed: {error}")
            refusal = Refusal("", str(error))
        return _sooner(self._content_backoff.failed(cached.uid), await self._wait(cached, pod, work, refusal))

    async def _refused(self, cached: CachedPod, pod: Pod, work: Work, error: SlurmletError) -> float | None:
        """Decide what a pod becomes that was not submitted: Failed, or waiting with back-off."""
        refusal = refusal_of(error)
        if refusal is None:
            if isinstance(error, SlurmUnavailableError):
                waiting = Refusal("", f"Slurm does not answer: {error}")
                self._events.tell_waiting(pod, "SlurmUnreachable", waiting.message)
                if cached.owner != cached.uid:  # one is enough to find out when it does
                    self._owners.rejected(cached.owner, cached.uid, waiting, limit_seconds=retry_limit(error))
                await self._wait(cached, pod, work, waiting)
            elif not error.transient:
                self._events.warn(pod, "FailedCreatePodSandBox", str(error))
            raise error
        log.warning("not submitted: %s", refusal.message, extra=about(pod))
        limit = retry_limit(error)
        if isinstance(error, SubmissionRejectedError):
            self._owners.rejected(cached.owner, cached.uid, refusal, limit_seconds=limit)
        if pod.spec.restart_policy == "Always" or (isinstance(error, SubmissionRejectedError) and error.limit):
            self._events.warn(pod, refusal.reason, refusal.message)
            seconds = self._owners.wait_seconds(cached.owner) or limit
            return _sooner(seconds, await self._wait(cached, pod, work, refusal))
        status = failed_status(pod, refusal.reason, refusal.message, now=self._clock(), node_ips=self._ips)
        return await self._writer.write(cached, pod, work, status)

    async def _wait(self, cached: CachedPod, pod: Pod, work: Work, refusal: Refusal) -> float | None:
        status = waiting_status(pod, refusal.reason, refusal.message, now=self._clock(), node_ips=self._ips)
        return await self._writer.write(cached, pod, work, status)

    # --- the end --------------------------------------------------------------------------------------------------

    async def _end(self, cached: CachedPod, pod: Pod, work: Work) -> float | None:
        """Bring a pod that is being deleted to its end, write it, and delete the object."""
        asked = pod.metadata.deletion_grace_period_seconds
        grace = pod.spec.termination_grace_period_seconds if asked is None else asked
        self._owners.forget(cached.owner, cached.uid)
        if (again := await self._ends.ensure_over(cached.uid, work, grace=grace)) is not None:
            if work.report is not None:
                again = _sooner(again, await self._show(cached, pod, work))
            return again
        if work.report is not None:
            status = self._status(pod, work.report)
        else:
            status = failed_status(pod, "", "", now=self._clock(), node_ips=self._ips)
        await self._writer.write(cached, pod, work, status, at_once=True)
        try:
            await self._kube.delete(pod_path(cached), uid=cached.uid, grace_seconds=0)
        except (NotFoundError, ReplacedError):
            return None  # gone already
        log.info("ended and deleted", extra=about(pod, work.job_id))
        return None

    async def _bury(self, uid: PodUid, work: Work) -> float | None:
        """End and remove what is left of a pod whose object is gone."""
        report = work.report
        if report is not None and not work.bound and await self._ends.is_elsewhere(report):
            log.error("pod %s/%s (%s) is known here but bound to another node: is this root shared by two nodes?",
                      report.namespace, report.name, uid)  # fmt: skip
            return None
        if (again := await self._ends.ensure_over(uid, work, grace=0)) is not None:
            return again
        if work.known:
            await self._provider.forget(uid)
            log.info("forgotten", extra={"uid": uid, "job_id": work.job_id})
        self._upkeep.drop(uid)
        if self.cache.get(uid) is None:
            self._work.pop(uid, None)
            for each in (self._queue, self._events, self._extending, self._editing):
                each.forget(uid)
            self._content_backoff.succeeded(uid)
            self._owners.forget(uid, uid)
        return None

    async def _unreadable(self, cached: CachedPod, work: Work, error: ValidationError) -> float | None:
        """Say that our models can't read a pod; it never had a job, so that its deletion needs none to end."""
        self._turns.forget(cached.uid)
        log.error("%s/%s can't be read: %s", cached.namespace, cached.name, error, extra={"uid": cached.uid})
        if cached.deleting and await self._ends.ensure_over(cached.uid, work, grace=0) is None:
            await self._kube.delete(pod_path(cached), uid=cached.uid, grace_seconds=0)
        return None


def _sooner(first: float, second: float | None) -> float:
    return first if second is None else min(first, second)
