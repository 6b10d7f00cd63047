"""The output of Slurm's commands, as ``commands`` asks for it → the dataclasses of ``job`` and ``cluster``. Pure.

Whole tokens only: a word that Slurm's documentation does not have is an UnparsableOutputError, never a guess. Every
function takes the argv that the text came from, for that error. Tried on recorded output of Slurm 22.05 to 26.05.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from itertools import chain
from types import MappingProxyType

from .cluster import Enforcement, Partition, SlurmNode
from .commands import ACCOUNTING_FIELDS, QUEUE_FIELDS, SEPARATOR, WAITING_FIELDS
from .errors import UnparsableOutputError
from .job import ExitCode, JobFlag, JobId, JobKey, JobState, JobStatus
from .queueing import WaitingJob

Argv = tuple[str, ...]

# squeue shows a flag in place of the base state. What is certain then is only whether the job may still run or wait.
_STATE_BEHIND = {
    JobFlag.COMPLETING: JobState.RUNNING,
    JobFlag.CONFIGURING: JobState.RUNNING,
    JobFlag.POWER_UP_NODE: JobState.RUNNING,
    JobFlag.RESIZING: JobState.RUNNING,
    JobFlag.SIGNALING: JobState.RUNNING,
    JobFlag.STAGE_OUT: JobState.RUNNING,
    JobFlag.STOPPED: JobState.SUSPENDED,
}
# Nodes are many, their features, partitions and states few.
_KNOWN_TEXTS = 4096
_NO_TIME = frozenset({"", "N/A", "NONE", "None", "Unknown", "0"})
_NOTHING = frozenset({"", "N/A", "n/a", "None", "(null)", "None assigned"})


def submitted(output: str, argv: Argv) -> JobId:
    """Return the job id that ``sbatch --parsable`` printed, alone on a line; a site's wrapper may print others."""
    found = [line for line in output.splitlines() if re.fullmatch(r"[0-9]+(?:;\S+)?", line, re.ASCII)]
    if len(found) != 1:
        raise UnparsableOutputError(argv, f"expected one line with a job id, found {len(found)}", output)
    return JobId(found[0].partition(";")[0])


class QueueReader:
    """Reads ``commands.queue`` again and again: a job whose line is the same as the time before is not read anew."""

    def __init__(self) -> None:
        self._rows: Mapping[str, JobStatus | None] = {}

    def read(self, output: str, argv: Argv) -> Mapping[JobId, JobStatus]:
        """Return the jobs by id, without tasks of arrays and parts of heterogeneous jobs (never ours).

        A pending job's ``start_time`` is Slurm's estimate.
        """
        known = self._rows
        self._rows = {line: known[line] if line in known else _row(line, argv) for line in output.splitlines()}
        return {status.job_id: status for status in self._rows.values() if status is not None}


def _row(line: str, argv: Argv) -> JobStatus | None:
    return _read(_queued, line.split(SEPARATOR, len(QUEUE_FIELDS) - 1), argv, line)


def waiting(output: str, argv: Argv) -> tuple[WaitingJob, ...]:
    """Return the jobs of ``commands.waiting``."""
    found = []
    for line in output.splitlines():
        fields = line.split(SEPARATOR)
        try:
            _check_width(fields, WAITING_FIELDS)
            job_id, priority, partitions = fields
            found.append(WaitingJob(job_id, tuple(partitions.split(",")), _whole(priority)))
        except ValueError as error:
            raise UnparsableOutputError(argv, str(error), line) from error
    return tuple(found)


def queue_in(output: str, directory: str, argv: Argv) -> tuple[JobStatus, ...]:
    """Return those jobs of ``commands.find_in_queue`` whose working directory is exactly this one."""
    rows = (_read(_queued, head, argv, output) for head in _rows_in(output, directory, len(QUEUE_FIELDS)))
    return tuple(status for status in rows if status is not None)


def queue_of(output: str, wanted: Collection[JobKey], argv: Argv) -> Mapping[JobKey, tuple[JobStatus, ...]]:
    """Return those jobs of ``commands.queue_with_keys`` that have one of these names and directories, by both."""
    keys = {f"{key.name}{SEPARATOR}{key.directory}": key for key in wanted}
    found: dict[JobKey, tuple[JobStatus, ...]] = {}
    for line in output.split("\n"):
        *head, last = line.split(SEPARATOR, len(QUEUE_FIELDS))
        key = keys.get(last)
        status = None if key is None else _read(_queued, head, argv, line)
        if key is not None and status is not None:
            found[key] = (*found.get(key, ()), status)
    return found


def accounting(output: str, argv: Argv) -> Mapping[JobId, JobStatus]:
    """Return the jobs of ``commands.accounting`` by id."""
    statuses = (
        _read(_accounted, line.split(SEPARATOR, len(ACCOUNTING_FIELDS) - 1), argv, line) for line in output.splitlines()
    )
    return {status.job_id: status for status in statuses if status is not None}


def accounting_in(output: str, directory: str, argv: Argv) -> tuple[JobStatus, ...]:
    """Return those jobs of ``commands.find_in_accounting`` whose working directory is this one, or was not recorded."""
    rows = (
        _read(_accounted, head, argv, output)
        for head in _rows_in(output, directory, len(ACCOUNTING_FIELDS), unknown=True)
    )
    return tuple(status for status in rows if status is not None)


def _rows_in(output: str, directory: str, width: int, *, unknown: bool = False) -> Iterator[list[str]]:
    """Yield the fields before a last one that is the directory; anything else, a forged line too, is another job's."""
    for line in output.split("\n"):
        *head, last = line.split(SEPARATOR, width)
        if len(head) == width and (last == directory or (unknown and not last)):
            yield head


def _read(
    read: Callable[[list[str]], JobStatus | None], fields: list[str], argv: Argv, output: str
) -> JobStatus | None:
    try:
        return read(fields)
    except ValueError as error:
        raise UnparsableOutputError(argv, str(error), output) from error


def _queued(fields: list[str]) -> JobStatus | None:
    _check_width(fields, QUEUE_FIELDS)
    job_id, state, exit_code, restarts, partition, submitted_at, start, end, batch_host, node_list, reason = fields
    if not _is_plain(job_id):
        return None
    base, flags = job_state(state)
    return JobStatus(
        job_id=JobId(job_id),
        state=base,
        flags=flags,
        reason=_text(reason),
        exit_code=_wait_status(exit_code) if base.ended else None,
        partition=partition,
        node_list=_text(node_list),
        batch_host=_text(batch_host),
        submit_time=_time(submitted_at),
        start_time=_time(start),
        end_time=_time(end) if base.ended else None,
        restart_count=_whole(restarts),
    )


def _accounted(fields: list[str]) -> JobStatus | None:
    _check_width(fields, ACCOUNTING_FIELDS)
    job_id, state, exit_code, partition, submitted_at, start, end, node_list, reason = fields
    if not _is_plain(job_id):
        return None
    word, _, canceller = state.partition(" by ")
    base, flags = job_state(word)
    return JobStatus(
        job_id=JobId(job_id),
        state=base,
        flags=flags,
        reason=_text(reason),
        exit_code=_exit_code(exit_code) if base.ended else None,
        partition=partition,
        node_list=_text(node_list),
        submit_time=_time(submitted_at),
        start_time=_time(start),
        end_time=_time(end) if base.ended else None,
        cancelled_by=canceller,
    )


def _check_width(fields: list[str], names: tuple[str, ...]) -> None:
    if len(fields) != len(names):
        raise ValueError(f"expected {len(names)} fields, found {len(fields)}")


def _is_plain(job_id: str) -> bool:
    """Whether an id is a job's own; ``123_4`` and ``123_[1-9%2]`` are an array's, ``12+1`` a heterogeneous job's."""
    if re.fullmatch(r"[0-9]+", job_id, re.ASCII):
        return True
    if re.fullmatch(r"[0-9]+(?:_(?:[0-9]+|\[.*)|\+[0-9]+)", job_id, re.ASCII):
        return False
    raise ValueError(f"{job_id!r} is not the id of a job")


def job_state(word: str) -> tuple[JobState, frozenset[JobFlag]]:
    """Read a job's state said in one word, a flag hiding the base state; ValueError for a word that Slurm does not have."""
    if word in JobState.__members__:
        return JobState(word), frozenset()
    if word in JobFlag.__members__:
        flag = JobFlag(word)
        return _STATE_BEHIND.get(flag, JobState.PENDING), frozenset({flag})
    raise ValueError(f"{word!r} is not a job state")


def _whole(text: str) -> int:
    if re.fullmatch(r"[0-9]+", text, re.ASCII) is None:
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def _time(text: str) -> int | None:
    return None if text in _NO_TIME else _whole(text)


def _text(text: str) -> str:
    return "" if text in _NOTHING else text


def _wait_status(text: str) -> ExitCode:
    """Read squeue's exit code: a raw wait status up to 22.05, ``status:signal`` in later versions."""
    if ":" in text:
        return _exit_code(text)
    status = _whole(text)
    return ExitCode(status=status >> 8 & 0xFF, signal=status & 0x7F)


def _exit_code(text: str) -> ExitCode:
    status, colon, signal = text.partition(":")
    if not colon:
        raise ValueError(f"{text!r} is not an exit code")
    return ExitCode(status=_whole(status), signal=_whole(signal))


# Nodes and partitions: "Key=value Key=value …" with texts of administrators and slurmd (OS, Reason, Comment) among
# them. Those with blanks in them stand behind the keys read here, so the first of each key is the true one.


def nodes(output: str, argv: Argv) -> tuple[SlurmNode, ...]:
    """Return the nodes of ``commands.nodes``. CPUs and memory are what jobs may have: without what is set aside."""
    return tuple(_node(line, argv) for line in output.splitlines() if line.startswith("NodeName="))


def partitions(output: str, argv: Argv) -> tuple[Partition, ...]:
    """Return the partitions of ``commands.partitions``."""
    return tuple(_partition(line, argv) for line in output.splitlines() if line.startswith("PartitionName="))


def configuration(output: str, argv: Argv) -> tuple[str, str]:
    """Return the cluster's name and Slurm's version from ``commands.configuration``."""
    found = dict(re.findall(r"^(ClusterName|SLURM_VERSION) += (\S+) *$", output, re.MULTILINE))
    if len(found) != 2:
        raise UnparsableOutputError(argv, "ClusterName and SLURM_VERSION were not both found", output)
    return found["ClusterName"], found["SLURM_VERSION"]


def enforcement(output: str) -> Enforcement:
    """Return what ``commands.configuration`` says of limits (slurm.conf(5), cgroup.conf(5) of 22.05 to 26.05).

    Memory is kept to by cgroups, or by the accounting's looks at it now and then (``OverMemoryKill``). Cores are also
    kept to by ``task/affinity``, which a job that means to can undo; where memory alone is counted (``CR_Memory``) jobs
    have no cores of their own.
    """
    found = dict(re.findall(r"^(\w+) += (\S+) *$", output, re.MULTILINE))
    task = found.get("TaskPlugin", "").split(",")
    cgroups = {name for name, value in found.items() if name.startswith("Constrain") and value == "yes"}
    constrained = cgroups if "task/cgroup" in task else set[str]()
    shared = "CR_MEMORY" in found.get("SelectTypeParameters", "").upper().split(",")
    return Enforcement(
        cores=("ConstrainCores" in constrained or "task/affinity" in task) and not shared,
        memory="ConstrainRAMSpace" in constrained or "OverMemoryKill" in found.get("JobAcctGatherParams", ""),
        devices="ConstrainDevices" in constrained,
    )


def _node(line: str, argv: Argv) -> SlurmNode:
    # BootTime follows the last key of interest in every version; Reason, Comment and Extra come after it.
    words = _keys(line.partition(" BootTime=")[0])
    try:
        return SlurmNode(
            name=words["NodeName"],
            states=node_states(words["State"]),
            cpus=_whole(words.get("CPUEfctv") or words["CPUTot"]),
            cpus_allocated=_whole(words["CPUAlloc"]),
            memory_mib=max(0, _whole(words["RealMemory"]) - _whole(words.get("MemSpecLimit", "0"))),
            memory_allocated_mib=_whole(words["AllocMem"]),
            tmp_mib=_whole(words["TmpDisk"]),
            gres=gres(words["Gres"]),
            gres_allocated=gres(words.get("GresUsed", "")),
            features=_names(words["AvailableFeatures"]),
            partitions=_names(words.get("Partitions", "")),
        )
    except KeyError as error:
        raise UnparsableOutputError(argv, f"{error.args[0]}= was not found", line) from error
    except ValueError as error:
        raise UnparsableOutputError(argv, str(error), line) from error


def _partition(line: str, argv: Argv) -> Partition:
    words = _keys(line)
    try:
        return Partition(
            name=words["PartitionName"],
            default=words["Default"] == "YES",
            up=words["State"] == "UP",
            default_time_minutes=minutes(words["DefaultTime"]),
            max_time_minutes=minutes(words["MaxTime"]),
            max_nodes=None if words.get("MaxNodes", "UNLIMITED") == "UNLIMITED" else _whole(words["MaxNodes"]),
        )
    except KeyError as error:
        raise UnparsableOutputError(argv, f"{error.args[0]}= was not found", line) from error
    except ValueError as error:
        raise UnparsableOutputError(argv, str(error), line) from error


def _keys(line: str) -> dict[str, str]:
    """Return the values by key, the first of each."""
    return dict(word.split("=", 1) for word in reversed(line.split(" ")) if "=" in word)


@lru_cache(maxsize=_KNOWN_TEXTS)
def _names(text: str) -> frozenset[str]:
    return frozenset() if text in _NOTHING else frozenset(text.split(","))


@lru_cache(maxsize=_KNOWN_TEXTS)
def node_states(text: str) -> frozenset[str]:
    """Return the words of a node's state: ``MIXED+PLANNED``; a ``*`` is the older form of ``NOT_RESPONDING``."""
    words = frozenset(text.replace("*", "").split("+"))
    if not all(re.fullmatch(r"[A-Z][A-Z_]*", word) for word in words):
        raise ValueError(f"{text!r} is not a node's state")
    return words | {"NOT_RESPONDING"} if "*" in text else words


_COUNT = re.compile(r"(?P<count>[0-9]+)(?P<unit>[KMGTP]?)", re.ASCII)
_UNITS = {unit: 1024**power for power, unit in enumerate(["", "K", "M", "G", "T", "P"])}


@lru_cache(maxsize=_KNOWN_TEXTS)
def gres(text: str) -> Mapping[tuple[str, str], int]:
    """Return the counts by (name, type) of ``gpu:a100:4(S:0-1),gpu:h100:2(IDX:0,2-3)``; ``(null)`` and ``N/A`` are none."""
    counts: dict[tuple[str, str], int] = {}
    if text not in _NOTHING:
        for part in re.sub(r"\([^()]*\)", "", text).split(","):
            name, *rest = (word for word in part.split(":") if word != "no_consume")
            number = _COUNT.fullmatch(rest[-1]) if rest else None
            kinds = rest[:-1] if number else rest
            if not name or len(kinds) > 1 or "" in kinds:
                raise ValueError(f"{text!r} is not a list of generic resources")
            kind = (name, kinds[0] if kinds else "")
            counts[kind] = counts.get(kind, 0) + (int(number["count"]) * _UNITS[number["unit"]] if number else 1)
    return MappingProxyType({kind: count for kind, count in counts.items() if count})


_DURATION = re.compile(r"(?:(?P<days>[0-9]+)-)?(?P<hours>[0-9]+):(?P<minutes>[0-9]{2}):(?P<seconds>[0-9]{2})", re.ASCII)


def minutes(text: str) -> int | None:
    """Return a duration of scontrol's (``1-00:00:00``, ``00:10:00``) in whole minutes; UNLIMITED and NONE are None."""
    if text in {"UNLIMITED", "NONE", "INFINITE"}:
        return None
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration")
    return int(match["days"] or 0) * 1440 + int(match["hours"]) * 60 + int(match["minutes"])


def oldest_first(*sources: tuple[JobStatus, ...]) -> tuple[JobStatus, ...]:
    """Merge what several sources say of jobs; of one job the first source's word counts."""
    merged: dict[JobId, JobStatus] = {}
    for status in chain.from_iterable(sources):
        merged.setdefault(status.job_id, status)
    return tuple(sorted(merged.values(), key=lambda status: (status.submit_time or 0, int(status.job_id))))
