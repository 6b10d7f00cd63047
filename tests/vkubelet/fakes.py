"""A provider without Slurm: what the tests tell it to do, it does at once, and it keeps count."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

from slurm_plugin.cluster import Cluster, Partition, SlurmNode
from slurm_plugin.contract import LogOptions, PodContent, PodReport, PodUsage, Reachable, Report, Snapshot
from slurm_plugin.editing import wanted
from slurm_plugin.errors import PodNotFoundError, SlurmletError
from slurm_plugin.job import JobId, JobState, JobStatus, PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.runner.plan import APP, Edition
from slurm_plugin.runner.state import ContainerState, Event, RunnerState, Running, Terminated


def slurm_node(name: str = "cn1", **fields: object) -> SlurmNode:
    values: dict[str, object] = {
        "name": name, "states": frozenset({"IDLE"}), "cpus": 16, "cpus_allocated": 0, "memory_mib": 32000,
        "memory_allocated_mib": 0, "tmp_mib": 1000, "gres": {}, "gres_allocated": {}, "features": frozenset(),
        "partitions": frozenset({"cpu"}),
    }  # fmt: skip
    return SlurmNode(**{**values, **fields})  # type: ignore[arg-type]


def cluster(*nodes: SlurmNode) -> Cluster:
    partition = Partition("cpu", default=True, up=True, default_time_minutes=60, max_time_minutes=None)
    gpu = slurm_node("gn1", gres={("gpu", "a100"): 4})
    return Cluster("test", "24.11.5", (partition,), nodes or (slurm_node(), gpu))


class FakeProvider:
    """``refuse`` decides about a submission; ``submissions`` are all that were tried, refused ones included."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.jobs: dict[PodUid, PodReport] = {}
        self.submissions: list[Pod] = []
        self.contents: dict[PodUid, PodContent] = {}
        self.terminations: list[tuple[PodUid, int]] = []
        self.forgotten: list[PodUid] = []
        self.refuse: Callable[[Pod], SlurmletError | None] = lambda _pod: None
        self.edits: list[Edition] = []
        self.refuse_edit: SlurmletError | None = None
        self.log_chunks: list[bytes] = [b"one\n", b"two\n"]
        self.log_options: list[LogOptions] = []
        self.log_closed = asyncio.Event()
        self.usages: tuple[PodUsage, ...] = ()
        self.obeys = True
        self.tells = True
        self.trouble: str | None = None  # before the first Snapshot
        self.state = cluster()
        self._news: asyncio.Queue[Report] = asyncio.Queue()
        self.snapshot_allowed = asyncio.Event()
        self.snapshot_allowed.set()
        self.takes_jobs = asyncio.Event()
        self.takes_jobs.set()
        self.ends_jobs = asyncio.Event()
        self.ends_jobs.set()

    async def cluster(self) -> Cluster:
        return self.state

    async def submit(self, pod: Pod, content: PodContent) -> JobId:
        uid = PodUid(pod.metadata.uid)
        self.submissions.append(pod)
        await asyncio.sleep(0)
        await self.takes_jobs.wait()
        if error := self.refuse(pod):
            raise error
        if uid not in self.jobs:
            job_id = JobId(str(100 + len(self.submissions)))
            job = JobStatus(job_id, JobState.PENDING, reason="Priority")
            self.contents[uid] = content
            self.tell(PodReport(uid, pod.metadata.namespace, pod.metadata.name, job_id, job, None))
        job_id_now = self.jobs[uid].job_id
        assert job_id_now is not None
        return job_id_now

    def tell(self, report: Report) -> None:
        if isinstance(report, PodReport):
            self.jobs[report.uid] = report
        if self.tells:
            self._news.put_nowait(report)

    def run(self, pod: Pod, *, exit_code: int | None = None, events: tuple[Event, ...] = ()) -> None:
        """Let the pod's job run its containers, or end them with an exit code and itself with them."""
        uid = PodUid(pod.metadata.uid)
        report, now = self.jobs[uid], self.clock()
        assert report.job is not None
        assert report.job_id is not None
        ended = exit_code is not None
        condition = Terminated(exit_code, 0, "", "", now, now) if exit_code is not None else Running(now)
        states = tuple(
            ContainerState(c.name, APP, condition, None, 0, started=not ended, ready=not ended, image_id="")
            for c in pod.spec.containers
        )
        runner = RunnerState(
            format=1, version=1, job_id=report.job_id, restart=0, node="cn1", pod_ips=("10.0.0.5",), host_ips=("10.0.0.5",),
            started_at=now, finished_at=now if ended else 0.0, final=ended, terminating=False, reason="", message="",
            containers=states, events=events, edition=wanted(pod),
        )  # fmt: skip
        state = JobState.RUNNING if not ended else JobState.COMPLETED if exit_code == 0 else JobState.FAILED
        job = replace(report.job, state=state, reason="", start_time=int(now))
        self.tell(replace(report, job=job, runner=runner))

    async def terminate(self, uid: PodUid, grace_seconds: int) -> None:
        self.terminations.append((uid, grace_seconds))
        await self.ends_jobs.wait()
        if self.obeys and uid in self.jobs:
            self.end(uid)

    def end(self, uid: PodUid) -> None:
        report = self.jobs[uid]
        assert report.job is not None
        self.tell(replace(report, job=replace(report.job, state=JobState.CANCELLED)))

    async def forget(self, uid: PodUid) -> None:
        self.forgotten.append(uid)
        self.jobs.pop(uid, None)

    async def reports(self) -> AsyncGenerator[Report, None]:
        if self.trouble:
            yield Reachable(self.trouble)
        await self.snapshot_allowed.wait()
        yield Snapshot(tuple(self.jobs.values()))
        yield Reachable(None)
        while True:
            yield await self._news.get()

    async def update(self, uid: PodUid, content: PodContent) -> None:
        self.contents[uid] = content

    async def edit(self, pod: Pod) -> None:
        self.edits.append(wanted(pod))
        if self.refuse_edit is not None:
            raise self.refuse_edit

    async def logs(self, uid: PodUid, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        self.log_options.append(options)
        if uid not in self.jobs:
            raise PodNotFoundError(f"no log of {container}")
        try:
            for chunk in self.log_chunks:
                yield chunk
            if options.follow:
                await asyncio.Event().wait()
        finally:
            self.log_closed.set()

    async def usage(self) -> tuple[PodUsage, ...]:
        return self.usages

    async def close(self) -> None:
        return
