"""The provider contract: what vkubelet asks of anything that runs pods.

Small, asynchronous and idempotent by pod UID, so that either side may be killed at any instant and started elsewhere.
Optional abilities (entering a pod, measuring it) are protocols of their own, beside the provider's.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from .annotations import JOB_ID, JOB_USER
from .claims import PersistentVolume
from .cluster import Cluster
from .job import JobId, JobState, JobStatus, PodUid
from .pod import Pod
from .runner.logins import Login
from .runner.plan import EnvEntry
from .runner.state import RunnerState


@dataclass(frozen=True, slots=True)
class VolumeFile:
    """A file of a volume: a relative path without ``..``, its bytes and its permission bits."""

    path: str
    data: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class PodContent:
    """What a pod gets from other objects, resolved.

    ``env`` is by container, ``volumes`` (files) and ``claims`` (the PersistentVolumes behind its claims) by volume;
    ``logins`` come from its pull secrets. ``jobs``: the jobs of the pods that it depends on, by their names in its
    namespace; "" where there is nothing to wait for any more.
    """

    env: Mapping[str, tuple[EnvEntry, ...]] = field(default_factory=dict)
    volumes: Mapping[str, tuple[VolumeFile, ...]] = field(default_factory=dict)
    jobs: Mapping[str, str] = field(default_factory=dict)
    claims: Mapping[str, PersistentVolume] = field(default_factory=dict)
    logins: tuple[Login, ...] = ()


@dataclass(frozen=True, slots=True)
class PodReport:
    """All that is known of one pod's job at one moment.

    ``job`` is Slurm's word, ``runner`` the runner's; either may be None while unknown. ``absent``: slurmctld was asked
    and does not know the job any more, accounting was asked too, and ``job`` is what it knew of the job's end, if
    anything. ``stray``: whose pod it is was not told (``Tenanted``), so that nothing but its end may come of this.
    ``user``: the Slurm user whose job it is, "" where the policy names none. ``trouble``: why nothing is known of it now.
    """

    uid: PodUid
    namespace: str
    name: str
    job_id: JobId | None
    job: JobStatus | None
    runner: RunnerState | None
    absent: bool = False
    stray: bool = False
    user: str = ""
    trouble: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing of the job runs any more, for good."""
        return is_over(self.job, absent=self.absent)

    @property
    def waits(self) -> bool:
        """Whether all that is known of the job is that it waits in the queue, if that."""
        begun = self.runner is not None or (self.job is not None and self.job.state is not JobState.PENDING)
        return not (begun or self.absent or self.trouble)


def is_over(job: JobStatus | None, *, absent: bool) -> bool:
    """Whether nothing of a pod's job runs any more, for good (``PodReport``). Asked of every job at each look."""
    return absent or (job is not None and job.ended)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The first thing ``reports()`` yields: every pod that the provider knows. Afterwards come single reports.

    Another one may follow, when more is known than before: a pod that is in none of its reports has no job.
    """

    reports: tuple[PodReport, ...]


@dataclass(frozen=True, slots=True)
class Reachable:
    """Slurm answers, or does not (``error`` says why, in words for an administrator). Sent at each change."""

    error: str | None


Report = Snapshot | PodReport | Reachable


@dataclass(frozen=True, slots=True)
class LogOptions:
    """The kubelet's log parameters. ``since_time`` is seconds since the epoch; None is not asked for.

    ``stream``: ``All``, ``Stdout`` or ``Stderr``.
    """

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since_time: float | None = None
    limit_bytes: int | None = None
    stream: str = "All"


class Provider(Protocol):
    """Runs pods as jobs. Every method may be called again with the same arguments."""

    async def cluster(self) -> Cluster:
        """Return what the cluster has. Raises SlurmUnavailableError or TransportError."""

    async def submit(self, pod: Pod, content: PodContent) -> JobId:
        """Submit the pod's job, or return the job it already has.

        At most one job ever runs a pod UID. Raises TranslationError (field path), SubmissionRejectedError (sbatch's
        words), SlurmUnavailableError (nothing happened), TransportError (outcome unknown: call again, which finds out
        first).
        """

    async def terminate(self, uid: PodUid, grace_seconds: int) -> None:
        """Ask for the end of the pod: TERM now, KILL after the grace period; again with less to shorten it.

        Returns when Slurm has taken the request; the end itself arrives as a report. A pod never submitted is a no-op.
        """

    async def forget(self, uid: PodUid) -> None:
        """Remove what is left of an ended pod on the site. Only after the Pod object is gone. No such pod is a no-op."""

    def reports(self) -> AsyncGenerator[Report, None]:
        """Yield a Snapshot of every known pod, then each change; never goes back in time. One consumer at a time.

        A pod with nothing of its job in its report is one of which nothing can be said for now: it may have a job.
        """

    async def update(self, uid: PodUid, content: PodContent) -> None:
        """Swap a live pod's volume content, each of ``content.volumes`` atomically; all else of it is not looked at.

        A pod that has ended is a no-op, and so is content that is in place already.
        """

    def logs(self, uid: PodUid, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        """Yield a container's log. Raises PodNotFoundError when there is none (yet); closing it stops the reader."""

    async def close(self) -> None:
        """Let go of connections. Jobs are not touched."""


class ContainerProcess(Protocol):
    """A process in a container, with its streams: a command of ``exec``, or the container's own, attached to.

    Reading and writing are back-pressured; b"" is the end. With a terminal, its output is all on ``read``.
    """

    async def write(self, data: bytes) -> None:
        """Write to its standard input; HostError once it reads no more."""

    async def close_stdin(self) -> None:
        """Half-close: the process reads an end of file."""

    async def read(self) -> bytes:
        """Read some of its standard output."""

    async def read_error(self) -> bytes:
        """Read some of its standard error."""

    async def resize(self, columns: int, rows: int) -> None:
        """Tell its terminal the size; without a terminal a no-op."""

    async def wait(self) -> int:
        """Wait for its end; the exit code, 128 + signal when a signal ended it."""


class PodConnection(Protocol):
    """A TCP connection to a port of the pod, made on the compute node. Back-pressured; b"" is the end."""

    async def write(self, data: bytes) -> None:
        """Send; HostError once the other side takes no more."""

    async def close_write(self) -> None:
        """Half-close: the server reads an end of file."""

    async def read(self) -> bytes:
        """Receive some."""


@runtime_checkable
class Enterable(Protocol):
    """A provider whose running pods can be entered. Leaving a context ends what was started in it.

    Entering one raises PodNotFoundError (no such pod or container runs here), HostError (the node's own words: the
    container can't be joined, the connection was refused), TransportError, SlurmUnavailableError.
    """

    def exec(
        self, uid: PodUid, container: str, argv: Sequence[str], *, stdin: bool, tty: bool
    ) -> AbstractAsyncContextManager[ContainerProcess]:
        """Run a command in a running container, with its environment, working directory and user."""

    def attach(self, uid: PodUid, container: str, *, stdin: bool) -> AbstractAsyncContextManager[ContainerProcess]:
        """Join the streams of a running container's own process, from now on; ``wait`` is the container's end.

        Who closes its input without ``stdinOnce`` has come only to write, and is let go (0), as by containerd. Who reads
        too slowly is let go too (HostError): neither the container nor its log waits.
        """

    def connect(self, uid: PodUid, port: int) -> AbstractAsyncContextManager[PodConnection]:
        """Connect to a TCP port on the pod's (first) compute node's loopback, as ``kubectl port-forward`` does."""


@runtime_checkable
class Extendable(Protocol):
    """A provider whose running pods can be given ephemeral containers, as ``kubectl debug`` does."""

    async def extend(self, pod: Pod, content: PodContent) -> None:
        """Start the pod's ephemeral containers that it does not have yet; they appear in its reports. Idempotent by name.

        Raises TranslationError (a field that can't be honoured), and what entering a pod raises (``Enterable``).
        """


@runtime_checkable
class Editable(Protocol):
    """A provider whose submitted pods take up what the API server lets users edit of them."""

    async def edit(self, pod: Pod) -> None:
        """Have the pod, queued or running, take up its images and its ``activeDeadlineSeconds``. Idempotent.

        What a running one has taken up is in its reports (``RunnerState.edition``). One that has ended is a no-op. Raises
        TranslationError (it can't take that up), and what entering a pod raises (``Enterable``).
        """


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """What of a Pod object decides whose pod it is: the API server's word, never the site's.

    ``job_id``: the job that was written on it (``annotations.JOB_ID``), None while none was; ``job_user``: whose it is
    by what was written on it (``annotations.JOB_USER``), "" if nothing was.
    """

    uid: PodUid
    namespace: str
    name: str
    service_account: str
    job_id: JobId | None = None
    job_user: str = ""

    @classmethod
    def of(cls, pod: Pod) -> "PodIdentity":
        """Return a pod's identity."""
        metadata, account = pod.metadata, pod.spec.service_account_name
        return cls(PodUid(metadata.uid), metadata.namespace, metadata.name, account, *job_on(metadata.annotations))


def job_on(annotations: Mapping[str, str]) -> tuple[JobId | None, str]:
    """Return the job that was written on a pod, and whose it is."""
    return JobId(annotations.get(JOB_ID, "")) or None, annotations.get(JOB_USER, "")


@runtime_checkable
class Tenanted(Protocol):
    """A provider of several users' pods, each of which could make up reports of another's."""

    async def introduce(self, pods: Sequence[PodIdentity]) -> None:
        """Tell which pods there are. The first time: all that exist; a provider yields no Snapshot before that.

        Of a pod that was introduced only its own user's word counts; of another one there are ``stray`` reports, it can be
        ended and forgotten, and nothing else. ``submit`` introduces its pod. Idempotent; ``forget`` undoes it.
        """


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    """What one container has used. ``cpu_nanoseconds`` only grows in one run; ``working_set_bytes`` is now's."""

    name: str
    started_at: float
    cpu_nanoseconds: int
    working_set_bytes: int


@dataclass(frozen=True, slots=True)
class ProbeUsage:
    """How often a probe (``kind``: Startup, Liveness, Readiness) ended so (``result``: successful, failed), in all."""

    container: str
    kind: str
    result: str
    total: int


@dataclass(frozen=True, slots=True)
class PodUsage:
    """What the running containers of one pod have used, measured at ``time`` (seconds since the epoch).

    The names come from the site, which the pod's own job can forge: match them with the pod's spec before use.
    """

    uid: PodUid
    time: float
    containers: tuple[ContainerUsage, ...]
    probes: tuple[ProbeUsage, ...] = ()


@runtime_checkable
class Measurable(Protocol):
    """A provider that knows what its pods use."""

    async def usage(self) -> tuple[PodUsage, ...]:
        """Return the usage of every running pod: one cheap question for all, no Slurm RPC per pod."""
