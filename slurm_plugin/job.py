"""What a Slurm job is, in Slurm's own terms. Data only.

States and flags: ``job_states.html`` and ``slurm.h`` of Slurm 22.05 to 26.05. Base states exclude each other; flags
come beside them.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

JobId = NewType("JobId", str)
PodUid = NewType("PodUid", str)


class JobState(StrEnum):
    """Slurm's twelve base states."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    NODE_FAIL = "NODE_FAIL"
    PREEMPTED = "PREEMPTED"
    BOOT_FAIL = "BOOT_FAIL"
    DEADLINE = "DEADLINE"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"

    @property
    def ended(self) -> bool:
        """Whether no process of the job will run again (a requeue apart, which is a flag)."""
        return self not in _ALIVE


_ALIVE = frozenset({JobState.PENDING, JobState.RUNNING, JobState.SUSPENDED})


class JobFlag(StrEnum):
    """What may stand beside a base state."""

    COMPLETING = "COMPLETING"
    CONFIGURING = "CONFIGURING"
    EXPEDITING = "EXPEDITING"
    LAUNCH_FAILED = "LAUNCH_FAILED"
    POWER_UP_NODE = "POWER_UP_NODE"
    RECONFIG_FAIL = "RECONFIG_FAIL"
    REQUEUED = "REQUEUED"
    REQUEUE_FED = "REQUEUE_FED"
    REQUEUE_HOLD = "REQUEUE_HOLD"
    RESIZING = "RESIZING"
    RESV_DEL_HOLD = "RESV_DEL_HOLD"
    REVOKED = "REVOKED"
    SIGNALING = "SIGNALING"
    SPECIAL_EXIT = "SPECIAL_EXIT"
    STAGE_OUT = "STAGE_OUT"
    STOPPED = "STOPPED"
    UPDATE_DB = "UPDATE_DB"


_AGAIN = frozenset(
    {JobFlag.COMPLETING, JobFlag.REQUEUED, JobFlag.REQUEUE_HOLD, JobFlag.REQUEUE_FED, JobFlag.SPECIAL_EXIT}
)


@dataclass(frozen=True, slots=True)
class ExitCode:
    """How the batch script ended: its exit status, or the signal that killed it (0 is none)."""

    status: int
    signal: int


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What Slurm says of one job. Times are seconds since the epoch, None while unknown.

    ``reason`` is Slurm's own word for a pending job (``Priority``, ``Resources``…) or for its end; "" is none.
    A pending job's ``start_time`` is Slurm's estimate; ``priority``, and roughly ``position`` and ``queue_length`` among
    the jobs that wait for its partition, are known for a pending job at most.
    ``restart_count`` is Slurm's count of requeues. ``cancelled_by`` is the uid or name that sacct gives, "" if unknown.
    """

    job_id: JobId
    state: JobState
    flags: frozenset[JobFlag] = frozenset()
    reason: str = ""
    exit_code: ExitCode | None = None
    partition: str = ""
    node_list: str = ""
    batch_host: str = ""
    submit_time: int | None = None
    start_time: int | None = None
    end_time: int | None = None
    restart_count: int | None = None
    cancelled_by: str = ""
    priority: int | None = None
    position: int | None = None
    queue_length: int | None = None

    @property
    def ended(self) -> bool:
        """Whether every process of this job is gone for good: an ended state, not completing, not to be requeued."""
        return self.state.ended and not self.flags & _AGAIN


@dataclass(frozen=True, slots=True)
class JobKey:
    """What a pod's jobs are looked for by when no id is known: exactly this name, and exactly this working directory."""

    name: str
    directory: str


@dataclass(frozen=True, slots=True)
class Gres:
    """A generic resource per node: ``gpu:a100:2`` is ("gpu", "a100", 2); an empty type is any."""

    name: str
    type: str
    count: int


@dataclass(frozen=True, slots=True)
class Dependency:
    """A job waits for those of these pods, by name: ``after``, ``afterany``, ``afterok`` or ``afternotok``."""

    kind: str
    pods: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """How many tasks a job has and on how many nodes; ``tasks_per_node`` is the most that any node has."""

    nodes: int = 1
    ntasks: int = 1
    tasks_per_node: int = 1


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and under whose name a job runs; an empty text leaves it to Slurm's default.

    ``dependencies`` are sbatch's own terms, with job ids: ``afterok:12:13``.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    reservation: str = ""
    constraint: str = ""
    licenses: str = ""
    wckey: str = ""
    comment: str = ""
    dependencies: tuple[str, ...] = ()
    priority: int | None = None
    nice: int | None = None
    exclusive: bool = False
    requeue: bool = False


@dataclass(frozen=True, slots=True)
class BatchJob:
    """One job to submit.

    ``warning_seconds``: how long before the time limit Slurm sends USR1 to the batch process.
    ``time_limit_minutes``: None is the partition's default. ``cpus`` is per task; ``memory_mib``, ``tmp_mib`` and
    ``gres`` are per node, a memory of None is Slurm's default.
    ``interpreters``: the Python candidates on the compute node, tried in order. ``archive``: the runner's zipapp;
    ``archive_digest``: its SHA-256 in hex, checked before it is run.
    """

    name: str
    directory: str
    archive: str
    archive_digest: str
    interpreters: tuple[str, ...]
    cpus: int
    memory_mib: int | None
    tmp_mib: int | None
    gres: tuple[Gres, ...]
    time_limit_minutes: int | None
    warning_seconds: int
    placement: Placement = field(default_factory=Placement)
    extra_arguments: tuple[str, ...] = ()
    layout: Layout = Layout()

    @property
    def cpus_per_node(self) -> int:
        """The most CPUs that the job takes of any node."""
        return self.cpus * self.layout.tasks_per_node
