"""slurmrestd's answers → the dataclasses of ``job`` and ``cluster``. Pure.

Fields are read by their shape, not by the version: what was a number or null in v0.0.38 is ``{"set", "infinite",
"number"}`` later, a text becomes a list of words, and partitions get sections; versions between change some fields and
not others. What no version has is an UnparsableOutputError, never a guess. Tried on recorded answers of Slurm 22.05 to 26.05.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ... import parse
from ...cluster import Partition, SlurmNode
from ...errors import UnparsableOutputError
from ...job import ExitCode, JobFlag, JobId, JobState, JobStatus
from ...queueing import WaitingJob

Json = Mapping[str, Any]
Source = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A job with what it can be looked for by."""

    status: JobStatus
    name: str
    directory: str
    user: str


def queue(answer: Json, source: Source) -> dict[JobId, Row]:
    """Return the jobs of ``/slurm/…/jobs`` by id, without tasks of arrays and parts of heterogeneous jobs (never ours)."""
    return {row.status.job_id: row for row in _rows(answer, source, _queued)}


def waiting(answer: Json, source: Source) -> tuple[WaitingJob, ...]:
    """Return everybody's waiting jobs of ``/slurm/…/jobs``: a whole array is one."""
    try:
        return tuple(
            WaitingJob(str(job["job_id"]), tuple(_text(job["partition"]).split(",")), number(job.get("priority")) or 0)
            for job in answer.get("jobs", ())
            if JobState.PENDING.value in _words(job["job_state"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(error, answer, source) from error


def accounting(answer: Json, source: Source) -> dict[JobId, Row]:
    """Return the jobs of ``/slurmdb/…/jobs`` by id, likewise."""
    return {row.status.job_id: row for row in _rows(answer, source, _accounted)}


def states(answer: Json, source: Source) -> dict[JobId, frozenset[str]]:
    """Return the words of each job's state, of ``/slurm/…/jobs/state``."""
    try:
        return {JobId(str(job["job_id"])): frozenset(_words(job["state"])) for job in answer["jobs"]}
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(error, answer, source) from error


def words_of(status: JobStatus) -> frozenset[str]:
    """Return a job's state as ``states`` tells it."""
    return frozenset({status.state.value, *(flag.value for flag in status.flags)})


def nodes(answer: Json, source: Source) -> tuple[SlurmNode, ...]:
    """Return the nodes of ``/slurm/…/nodes``. CPUs and memory are what jobs may have: without what is set aside."""
    try:
        return tuple(_node(node) for node in answer["nodes"])
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(error, answer, source) from error


def partitions(answer: Json, source: Source) -> tuple[Partition, ...]:
    """Return the partitions of ``/slurm/…/partitions``."""
    try:
        return tuple(_partition(partition) for partition in answer["partitions"])
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(error, answer, source) from error


def number(value: object) -> int | None:
    """Read a number in any version's form; None where it is unset or infinite."""
    if isinstance(value, Mapping):
        return int(value["number"]) if value.get("set") and not value.get("infinite") else None
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value)
    raise ValueError(f"{value!r} is not a number")


def _unreadable(error: Exception, answer: Json, source: Source) -> UnparsableOutputError:
    why = f"there is no field {error}" if isinstance(error, KeyError) else str(error)
    return UnparsableOutputError(source, why, str(answer))


def _rows(answer: Json, source: Source, read: Any) -> Iterator[Row]:
    try:
        jobs = answer["jobs"]
    except KeyError as error:  # an object that is no list of jobs must not read as a queue without any
        raise _unreadable(error, answer, source) from error
    for job in jobs:
        try:
            if not number(job["array_job_id"] if "array_job_id" in job else job["array"]["job_id"]) and not number(
                job["het_job_id"] if "het_job_id" in job else job["het"]["job_id"]
            ):
                yield read(job)
        except (KeyError, TypeError, ValueError) as error:
            raise _unreadable(error, job, source) from error


def _queued(job: Json) -> Row:
    state, flags = _state(job["job_state"])
    status = JobStatus(
        job_id=JobId(str(job["job_id"])),
        state=state,
        flags=flags,
        reason=_text(job["state_reason"]),
        exit_code=_exit_code(job["exit_code"]) if state.ended else None,
        partition=_text(job["partition"]),
        node_list=_text(job["nodes"]),
        batch_host=_text(job["batch_host"]),
        submit_time=_time(job["submit_time"]),
        start_time=_time(job["start_time"]),
        end_time=_time(job["end_time"]) if state.ended else None,
        restart_count=number(job["restart_cnt"]),
    )
    return Row(status, _text(job["name"]), _text(job["current_working_directory"]), _text(job["user_name"]))


def _accounted(job: Json) -> Row:
    state, flags = _state(job["state"]["current"])
    times = job["time"]
    status = JobStatus(
        job_id=JobId(str(job["job_id"])),
        state=state,
        flags=flags,
        reason=_text(job["state"].get("reason")),
        exit_code=_accounted_exit(job["exit_code"], state) if state.ended else None,
        partition=_text(job["partition"]),
        node_list=_text(job["nodes"]),
        submit_time=_time(times["submission"]),
        start_time=_time(times["start"]),
        end_time=_time(times["end"]) if state.ended else None,
        cancelled_by=_text(job.get("kill_request_user")) if state is JobState.CANCELLED else "",
    )
    user = job.get("user") or (job.get("association") or {}).get("user")
    return Row(status, _text(job["name"]), _text(job["working_directory"]), _text(user))


def _words(value: object) -> list[str]:
    words = [value] if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else []
    if not words or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{value!r} is not a state")
    return words


def _state(value: object) -> tuple[JobState, frozenset[JobFlag]]:
    """Read a state: one word, a flag in place of the base state, up to v0.0.38; base state and flags as a list later."""
    words = _words(value)
    if len(words) == 1:
        return parse.job_state(words[0])
    bases = [JobState(word) for word in words if word in JobState.__members__]
    flags = [JobFlag(word) for word in words if word not in JobState.__members__]
    if len(bases) != 1:
        raise ValueError(f"{value!r} is not a job's state")
    return bases[0], frozenset(flags)


def _text(value: object) -> str:
    return "" if value is None or value in {"None", "N/A", "(null)", "None assigned"} else str(value)


def _time(value: object) -> int | None:
    return number(value) or None


def _exit_code(value: object) -> ExitCode:
    if isinstance(value, Mapping):
        signal = value.get("signal") or {}
        named = signal.get("id", signal.get("signal_id"))
        return ExitCode(status=number(value["return_code"]) or 0, signal=number(named) or 0)
    status = number(value) or 0
    return ExitCode(status=status >> 8 & 0xFF, signal=status & 0x7F)


def _accounted_exit(value: object, state: JobState) -> ExitCode | None:
    """Read an exit code of accounting's; Slurm 22.05 says SUCCESS of every job there, of failed ones too."""
    code = _exit_code(value)
    return None if state is JobState.FAILED and code == ExitCode(0, 0) else code


def _names(value: object) -> frozenset[str]:
    names = map(str, value) if isinstance(value, list | tuple) else filter(None, _text(value).split(","))
    return _set(tuple(names))


@lru_cache(maxsize=4096)
def _set(names: tuple[str, ...]) -> frozenset[str]:
    """Nodes are many, their features and partitions few."""
    return frozenset(names)


def _node(node: Json) -> SlurmNode:
    words = [*_words(node["state"]), *node.get("state_flags", ())]
    return SlurmNode(
        name=str(node["name"]),
        states=parse.node_states("+".join(words).upper()),
        cpus=number(node.get("effective_cpus")) or number(node["cpus"]) or 0,
        cpus_allocated=number(node["alloc_cpus"]) or 0,
        memory_mib=max(0, (number(node["real_memory"]) or 0) - (number(node.get("specialized_memory")) or 0)),
        memory_allocated_mib=number(node["alloc_memory"]) or 0,
        tmp_mib=number(node["temporary_disk"]) or 0,
        gres=parse.gres(_text(node["gres"])),
        gres_allocated=parse.gres(_text(node.get("gres_used"))),
        features=_names(node["features"]),
        partitions=_names(node["partitions"]),
    )


def _partition(partition: Json) -> Partition:
    flags = {str(flag).upper() for flag in partition.get("flags", ())}
    if "defaults" in partition:
        state = partition["partition"]["state"]
        default, most = partition["defaults"]["time"], partition["maximums"]["time"]
        nodes = partition["maximums"].get("nodes")
        flags |= {str(flag).upper() for flag in partition["partition"].get("flags", ())}
    else:
        state, default, most = partition["state"], partition["default_time_limit"], partition["max_time_limit"]
        nodes = partition.get("maximum_nodes_per_job")
    return Partition(
        name=str(partition["name"]),
        default="DEFAULT" in flags,
        up=_words(state) == ["UP"],
        default_time_minutes=_limit(default),
        max_time_minutes=_limit(most),
        max_nodes=_limit(nodes),
    )


def _limit(value: object) -> int | None:
    """Read a limit; -1 is unlimited in v0.0.38."""
    limit = number(value)
    return None if limit is None or limit < 0 else limit
