"""The provider of pods as Slurm jobs: the contract (``contract.Provider``) on one Host, one SlurmClient and one root.

It keeps nothing that must survive: what it knows comes from Slurm and from the job directories, and is read anew at
each start. Two sources run beside each other: one query for all jobs per interval, whatever their number, and one
process on the Host that tells the changes of the runners' state files.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from weakref import WeakValueDictionary

from .archive import Archive
from .cancellations import say_who_cancelled
from .clients.base import SlurmClient
from .cluster import Cluster
from .collection import Collection
from .config import SiteSettings
from .contract import ContainerProcess, LogOptions, PodConnection, PodContent, PodReport, PodUsage, Report
from .doubts import Doubts
from .editing import edit_plan, wanted
from .entering import Entering
from .errors import (
    HostError,
    PodNotFoundError,
    SlurmletError,
    SlurmUnavailableError,
    SubmissionRejectedError,
    TransportError,
    UnsupportedFieldError,
)
from .hosts.base import Host
from .job import JobId, PodUid
from .jobdir import JobDir, Root
from .logs import ContainerLog
from .pod import Pod
from .queueing import Places
from .records import PodRecord, Records
from .render import render
from .reporting import Reporting
from .site import find_python, prepare_site, watch_writable
from .staging import ephemeral_directory, job_directory
from .submission import Submission
from .termination import Termination
from .translate import Site, extension, job_name, translate
from .updating import update_volume
from .watching import Synced, UsageView, watch_directories

log = logging.getLogger(__name__)

# How long accounting may lag behind the queue before a job that neither knows counts as lost.
_PATIENCE_SECONDS = 90.0
_CLOCK_SKEW_SECONDS = 3600
# How old what is known of the nodes may be when a pod's size is checked.
_CLUSTER_SECONDS = 60.0


class SlurmProvider:
    """Runs the pods of one virtual node as jobs of one Slurm user."""

    def __init__(
        self, host: Host, client: SlurmClient, settings: SiteSettings, *, archive: Archive, node: str, owner: str
    ) -> None:
        """Make a provider. ``owner`` says in words whose pods these are: the node, and of which Kubernetes cluster."""
        self._host = host
        self._client = client
        self._settings = settings
        self._archive = archive
        self._node = node
        self._owner = owner
        self._records = Records()
        self._places = Places(client, seconds=settings.slurm.queue_seconds)
        self._submission = Submission(host, client)
        self._termination = Termination(host, client, time.monotonic)
        self._entering = Entering(host, self._site, self._records.get, settings.slurm.enter_idle_seconds)
        self._collection = Collection(host, settings.slurm.orphan_hours)
        self._reporting = Reporting(lambda: tuple(record.report() for record in self._records), self._report)
        self._locks: WeakValueDictionary[PodUid, asyncio.Lock] = WeakValueDictionary()
        self._doubts = Doubts(client, self._submission, self._records, time.monotonic)
        self._forgetting: set[PodUid] = set()
        self._hurry = asyncio.Event()
        self._looked = asyncio.Event()
        self._accounting_away = False
        self._site_made: Site | None = None
        self._site_lock = asyncio.Lock()
        self._cluster_lock = asyncio.Lock()
        self._cluster: tuple[float, Cluster] | None = None

    # --- the site -------------------------------------------------------------------------------------------------

    async def _site(self) -> Site:
        """Return what translations depend on; at the first call the root and the runner's archive are put in place."""
        async with self._site_lock:
            if self._site_made is None:
                self._site_made = await prepare_site(
                    self._host, self._settings, archive=self._archive, node=self._node, owner=self._owner
                )
            return self._site_made

    async def _root(self) -> Root:
        return (await self._site()).root

    async def cluster(self) -> Cluster:
        """Return what the cluster has, or the part of it that this node stands for."""
        whole = await self._client.cluster()
        self._cluster = time.monotonic(), whole.part(self._settings.slurm.partitions)
        return self._cluster[1]

    async def _known_cluster(self) -> Cluster:
        """Return what the cluster has, as of a minute ago at most; many pods at once ask once."""
        async with self._cluster_lock:
            if self._cluster is None or time.monotonic() - self._cluster[0] > _CLUSTER_SECONDS:
                return await self.cluster()
            return self._cluster[1]

    # --- submit, terminate, forget, update ------------------------------------------------------------------------

    def _alone(self, uid: PodUid) -> asyncio.Lock:
        """Return what is held while something is done to a pod; it is there as long as somebody has it."""
        return self._locks.setdefault(uid, asyncio.Lock())

    async def submit(self, pod: Pod, content: PodContent) -> JobId:
        """Submit the pod's job, or return the job it already has (``contract.Provider.submit``)."""
        uid = PodUid(pod.metadata.uid)
        site = await self._site()
        async with self._alone(uid):
            record = self._records.get(uid)
            if record is not None and record.job_id is not None:
                return record.job_id
            translation = translate(
                pod, replace(site, cluster=await self._known_cluster()), content.jobs, content.claims
            )
            script = render(translation.job)
            entries = job_directory(translation.plan, script, content)
            record = self._records.add(uid, pod.metadata.namespace, pod.metadata.name)
            directory = JobDir(translation.job.directory)
            try:
                job_id, doubt = await self._submission.submit(
                    directory, job_name(pod), script, entries, since=_created(pod)
                )
            except SlurmletError as error:
                if not isinstance(error, SubmissionRejectedError | SlurmUnavailableError):  # of which nothing came
                    self._doubts.add(uid)
                if not isinstance(error, TransportError) and await self._host.list_directory(directory.path) is None:
                    self._records.remove(uid)  # nothing was staged, or it was withdrawn: no job can run it
                raise
            if doubt:
                self._doubts.add(uid)
            record.submitted_id = job_id
            self._hurry.set()
            return job_id

    async def terminate(self, uid: PodUid, grace_seconds: int) -> None:
        """Ask for the end of the pod (``contract.Provider.terminate``)."""
        directory = (await self._root()).job_dir(uid)
        async with self._alone(uid):
            record = self._records.get(uid)
            if record is None or record.settled or record.ending:
                return
            if record.job_id is None:
                await self._end_unknown(record, directory)
            if record.job_id is not None:
                await self._termination.terminate(record, record.job_id, directory, grace_seconds)
                self._hurry.set()

    async def _end_unknown(self, record: PodRecord, directory: JobDir) -> None:
        """End a pod whose submission's outcome is unknown: no job may run it any more, unless one does already."""
        if not await self._submission.forbid(directory):
            record.claimed_by = await self._submission.claimant(directory)
            return
        await self._submission.cancel_all(directory, record.job_name)
        record.absent = True
        self._reporting.tell(record.uid)

    async def forget(self, uid: PodUid) -> None:
        """Remove what is left of an ended pod; one that has not ended yet is cancelled and removed then."""
        record = self._records.get(uid)
        if record is not None and not record.settled:
            if uid not in self._forgetting:
                await self.terminate(uid, 0)
                self._forgetting.add(uid)
            return
        await self._entering.forget(uid)
        directory = (await self._root()).job_dir(uid)
        async with self._alone(uid):  # an update under way would make parts of it anew
            await self._host.remove_tree(directory.path)
            self._records.remove(uid)
        self._termination.ended(uid)
        self._forgetting.discard(uid)

    async def update(self, uid: PodUid, content: PodContent) -> None:
        """Swap a live pod's volume content, each volume atomically (``contract.Provider.update``)."""
        directory = (await self._root()).job_dir(uid)
        async with self._alone(uid):
            record = self._records.get(uid)
            if record is not None and not record.settled:
                for volume, files in content.volumes.items():
                    await update_volume(self._host, directory, volume, files)

    async def logs(self, uid: PodUid, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        """Yield a container's log (``contract.Provider.logs``)."""
        record = self._records.get(uid)
        if record is None:
            raise PodNotFoundError(f"no pod with UID {uid} has run here")
        directory = (await self._root()).job_dir(uid)
        reader = ContainerLog(self._host, directory, container, lambda: record.report())
        async with contextlib.aclosing(reader.read(options)) as stream:
            async for data in stream:
                yield data

    async def usage(self) -> tuple[PodUsage, ...]:
        """Return the usage of every running pod, as its runner last told (``contract.Measurable``): nobody is asked."""
        return self._records.usage()

    async def extend(self, pod: Pod, content: PodContent) -> None:
        """Start the pod's ephemeral containers that it does not have yet (``contract.Extendable``)."""
        uid = PodUid(pod.metadata.uid)
        site = await self._site()
        directory = site.root.job_dir(uid)
        for container in extension(pod, site, content.claims):
            entries = ephemeral_directory(container, content)
            await self._host.stage(directory.ephemeral_container(container.name), entries)
        await self._entering.admit(uid)

    async def edit(self, pod: Pod) -> None:
        """Have the pod take up its images and its deadline (``contract.Editable``)."""
        uid, site = PodUid(pod.metadata.uid), await self._site()
        async with self._alone(uid):
            record = self._records.get(uid)
            if record is None or record.settled:
                return
            changed = await edit_plan(self._host, site.root.job_dir(uid), pod, site.settings.pods)
            runner = record.runner if record.running else None
        if runner is None or runner.final or runner.edition == wanted(pod):
            return
        if runner.edition is not None:
            await self._entering.admit(uid)
        elif changed:
            raise UnsupportedFieldError("spec", "the pod's runner is of an older version and takes up no edits")

    # --- entering (contract.Enterable) ----------------------------------------------------------------------------

    def exec(
        self, uid: PodUid, container: str, argv: Sequence[str], *, stdin: bool, tty: bool
    ) -> AbstractAsyncContextManager[ContainerProcess]:
        """Run a command in a running container."""
        return self._entering.exec(uid, container, argv, stdin=stdin, tty=tty)

    def attach(self, uid: PodUid, container: str, *, stdin: bool) -> AbstractAsyncContextManager[ContainerProcess]:
        """Join the streams of a running container's own process."""
        return self._entering.attach(uid, container, stdin=stdin)

    def connect(self, uid: PodUid, port: int) -> AbstractAsyncContextManager[PodConnection]:
        """Connect to a TCP port on the pod's compute node."""
        return self._entering.connect(uid, port)

    # --- reports --------------------------------------------------------------------------------------------------

    async def reports(self) -> AsyncGenerator[Report, None]:
        """Yield a Snapshot of every known pod, then each change (``contract.Provider.reports``)."""
        sources = {"directories": self._watch, "queue": self._poll, "root": self._write}
        async with contextlib.aclosing(self._reporting.reports(sources)) as stream:
            async for report in stream:
                yield report

    def _report(self, uid: PodUid) -> PodReport | None:
        record = self._records.get(uid)
        return None if record is None else record.report()

    async def _watch(self, well: Callable[[], None]) -> None:
        """Follow the job directories until the stream breaks."""
        site = await self._site()
        python = await find_python(self._host, self._settings.slurm.interpreters)
        interval = str(self._settings.slurm.state_seconds)
        argv = (python, "-I", "-S", "-B", site.archive, "watch", site.root.path, "--interval", interval)
        async with contextlib.aclosing(watch_directories(self._host, argv)) as stream:
            async for view in stream:
                if isinstance(view, Synced):
                    self._doubts.add_all()
                    self._looked.set()
                    well()
                elif isinstance(view, UsageView):
                    self._records.see_usage(view)
                elif self._records.see_directory(view):
                    log.debug("directory changed", extra={"uid": view.uid, "job_id": view.job_id or ""})
                    self._changed(view.uid)
                    if view.state is not None and view.state.final:
                        self._hurry.set()  # the job is about to leave: look at once, not at the next interval

    async def _write(self, well: Callable[[], None]) -> None:
        """Find out whether the root can be written."""
        await watch_writable(self._host, lambda: self._site_made, well)

    async def _poll(self, well: Callable[[], None]) -> None:
        """Ask Slurm for all our jobs, once per interval, and sooner (within bounds) when something is known to change.

        Not before the directories have said which jobs these are: a pod that is told of without Slurm's word on its job
        is one that may run, and who knows it as ended would have each of them cancelled.
        """
        interval = self._settings.slurm.poll_seconds
        await self._looked.wait()
        while True:
            started = time.monotonic()
            self._hurry.clear()
            await self._poll_once()
            well()
            await asyncio.sleep(max(0.0, started + min(interval, max(0.5, interval / 4)) - time.monotonic()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, started + interval - time.monotonic())):
                    await self._hurry.wait()

    async def _poll_once(self) -> None:
        asked = self._records.unsettled()  # before the query: a job submitted meanwhile is not missing
        jobs = await self._places.of(await self._client.jobs())
        changed, missing = self._records.see_queue(asked, jobs, time.monotonic())
        try:
            if missing:
                changed += await self._ask_accounting(missing)
            found = [record for uid in changed if (record := self._records.get(uid)) is not None]
            ours = [record for record in found if not self._termination.under_way(record.uid)]
            await say_who_cancelled(self._host, self._client, ours, since=int(time.time()) - _CLOCK_SKEW_SECONDS)
        except SlurmUnavailableError as error:
            self._accounting_fails(error)
        finally:
            # Where accounting does not answer, what the queue said counts all the same: it says it only once.
            for uid in changed:
                self._changed(uid)
        for uid in tuple(self._forgetting):
            await self._each(uid, self.forget(uid))
        await self._doubts.settle(jobs, await self._root())
        await self._collection.collect((await self._root()).path, time.monotonic())

    async def _each(self, uid: PodUid, doing: Awaitable[None]) -> None:
        """Do something for one pod: a directory that its job has made unusable is no trouble of the others."""
        try:
            await doing
        except HostError as error:
            log.warning("pod %s: %s", uid, error)

    async def _ask_accounting(self, missing: Sequence[PodRecord]) -> list[PodUid]:
        known = [record.since for record in missing if record.since is not None]
        since = min([int(time.time()) - _CLOCK_SKEW_SECONDS, *known])
        try:
            job_ids = {record.job_id for record in missing if record.job_id is not None}
            ended = await self._client.ended_jobs(job_ids, since=since)
        except SlurmUnavailableError as error:
            self._accounting_fails(error)
            return self._records.see_no_accounting(missing, time.monotonic())
        if self._accounting_away:
            log.warning("accounting answers again")
        self._accounting_away = False
        return self._records.see_accounting(missing, ended, time.monotonic(), _PATIENCE_SECONDS)

    def _accounting_fails(self, error: SlurmUnavailableError) -> None:
        """Say so once: Slurm runs jobs and takes new ones all the same, so that the node stays as it is."""
        if not self._accounting_away:
            log.warning("accounting does not answer; jobs that have left the queue wait for it: %s", error)
        self._accounting_away = True

    def _changed(self, uid: PodUid) -> None:
        record = self._records.get(uid)
        if record is not None and record.settled:
            self._termination.ended(uid)
        self._reporting.tell(uid)

    async def close(self) -> None:
        """Let go of connections. Jobs are not touched."""
        self._termination.close()
        await self._entering.close()
        await self._client.close()
        await self._host.close()


def _created(pod: Pod) -> int:
    """Return the pod's creation in epoch seconds, less what clocks may differ; 0 if it does not say."""
    text = pod.metadata.creation_timestamp
    return 0 if not text else max(0, int(datetime.fromisoformat(text).timestamp()) - _CLOCK_SKEW_SECONDS)
