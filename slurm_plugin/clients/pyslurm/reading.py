"""What ``child`` says of pyslurm's objects → the dataclasses of ``job`` and ``cluster``. Pure.

What pyslurm loses on the way: of an exit status of 128 or more it tells what is above 128.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from ... import parse
from ...cluster import Cluster, Partition, SlurmNode
from ...errors import UnparsableOutputError
from ...job import ExitCode, JobId, JobState, JobStatus
from ...queueing import WaitingJob

Row = Mapping[str, Any]
T = TypeVar("T")

_ABSENT = {None, "None", "N/A", "(null)", "None assigned"}


@dataclass(frozen=True, slots=True)
class Found:
    """A job with what it can be looked for by."""

    status: JobStatus
    name: str
    directory: str


def jobs(answer: Any) -> dict[JobId, Found]:
    """Return jobs of slurmctld's or of accounting's by id, without tasks of arrays and parts of heterogeneous jobs."""
    found = _read(
        "jobs", answer,
        lambda: [_job(row) for row in _rows(answer) if not (row["array_id"] or row["heterogeneous_id"])],
    )  # fmt: skip
    return {job.status.job_id: job for job in found}


def waiting(answer: Any) -> tuple[WaitingJob, ...]:
    """Return everybody's waiting jobs: a whole array is one."""
    return _read(
        "waiting", answer,
        lambda: tuple(
            WaitingJob(str(row["array_id"] or row["id"]), tuple(_text(row["partition"]).split(",")), row["priority"] or 0)
            for row in _rows(answer)
        ),
    )  # fmt: skip


def cluster(answer: Any, *, name: str, version: str) -> Cluster:
    """Return what the cluster has."""
    return _read(
        "cluster", answer,
        lambda: Cluster(
            name=name,
            version=version,
            partitions=tuple(_partition(row) for row in _rows(answer["partitions"])),
            nodes=tuple(_node(row) for row in _rows(answer["nodes"])),
        ),
    )  # fmt: skip


def _read(asked: str, answer: Any, read: Callable[[], T]) -> T:
    try:
        return read()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"there is no field {error}" if isinstance(error, KeyError) else str(error)
        raise UnparsableOutputError(("pyslurm", asked), why, str(answer)) from error


def _rows(answer: Any) -> Iterable[Row]:
    if not isinstance(answer, list):
        raise TypeError("not a list")
    return answer


def _job(row: Row) -> Found:
    state, flags = parse.job_state(str(row["state"]))
    ended = state.ended
    status = JobStatus(
        job_id=JobId(str(row["id"])),
        state=state,
        flags=flags,
        reason=_text(row["state_reason"]),
        exit_code=ExitCode(row["exit_code"] or 0, row["exit_code_signal"] or 0) if ended else None,
        partition=_text(row["partition"]),
        node_list=_text(row["allocated_nodes"] if "allocated_nodes" in row else row["nodelist"]),
        batch_host=_text(row.get("batch_host")),
        submit_time=row["submit_time"] or None,
        start_time=row["start_time"] or None,
        end_time=(row["end_time"] or None) if ended else None,
        restart_count=row.get("requeue_count"),
        cancelled_by=_text(row.get("cancelled_by")) if state is JobState.CANCELLED else "",
    )
    return Found(status, _text(row["name"]), _text(row["working_directory"]))


def _text(value: object) -> str:
    return "" if value in _ABSENT else str(value)


def _node(row: Row) -> SlurmNode:
    return SlurmNode(
        name=str(row["name"]),
        states=parse.node_states(str(row["state"]).upper()),
        cpus=row["effective_cpus"] or row["total_cpus"] or 0,
        cpus_allocated=row["allocated_cpus"] or 0,
        memory_mib=max(0, (row["real_memory"] or 0) - (row["memory_reserved_for_system"] or 0)),
        memory_allocated_mib=row["allocated_memory"] or 0,
        tmp_mib=row["temporary_disk"] or 0,
        gres=_gres(row["configured_gres"]),
        gres_allocated=_gres(row["allocated_gres"]),
        features=frozenset(row["available_features"] or ()),
        partitions=frozenset(row["partitions"] or ()),
    )


def _gres(counts: Mapping[str, int]) -> Mapping[tuple[str, str], int]:
    pairs = {(name, kind): int(count) for key, count in counts.items() for name, _, kind in [key.partition(":")]}
    # What is allocated is told with and without its type; the sum would count it twice.
    typed = {name for name, kind in pairs if kind}
    return MappingProxyType(
        {pair: count for pair, count in pairs.items() if count and (pair[1] or pair[0] not in typed)}
    )


def _partition(row: Row) -> Partition:
    return Partition(
        name=str(row["name"]),
        default=bool(row["is_default"]),
        up=row["state"] == "UP",
        default_time_minutes=_limit(row["default_time"]),
        max_time_minutes=_limit(row["max_time"]),
    )


def _limit(value: object) -> int | None:
    return value if isinstance(value, int) else None
