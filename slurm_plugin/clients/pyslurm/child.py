"""The program that speaks to Slurm's library; it runs alone, by any Python of 3.6 or later that has pyslurm.

Each line of its standard input is a question, ``{"ask": name, …}``; each gets one line of an answer: ``{"answer": …}``; or
``{"error": {"number", "words"}}``, Slurm's own error; or ``{"refused": words}``, where pyslurm can't carry a value. The first
line says what pyslurm this is, or why there is none: ``{"missing": words}``. It ends with its input. What Slurm's library prints goes to
standard error. Tried with pyslurm 25.11.2.
"""

import json
import os
import sys
from typing import Any, Dict, List, Optional, Tuple

Answer = Dict[str, Any]

_QUEUED = (
    "id", "name", "user_id", "state", "state_reason", "exit_code", "exit_code_signal", "partition", "allocated_nodes",
    "batch_host", "submit_time", "start_time", "end_time", "requeue_count", "array_id", "heterogeneous_id", "working_directory",
)  # fmt: skip
_WAITING = ("id", "state", "partition", "priority", "array_id")
_ACCOUNTED = (
    "id", "name", "user_id", "state", "state_reason", "exit_code", "exit_code_signal", "partition", "nodelist",
    "submit_time", "start_time", "end_time", "cancelled_by", "array_id", "heterogeneous_id", "working_directory",
)  # fmt: skip
_NODE = (
    "name", "state", "effective_cpus", "total_cpus", "allocated_cpus", "real_memory", "memory_reserved_for_system",
    "allocated_memory", "temporary_disk", "configured_gres", "allocated_gres", "available_features", "partitions",
)  # fmt: skip
_PARTITION = ("name", "state", "is_default", "default_time", "max_time")


def _row(thing: Any, names: Tuple[str, ...]) -> Answer:
    return {name: getattr(thing, name) for name in names}


def _hello(slurm: Any) -> Answer:
    configuration = slurm.slurmctld.Config.load()
    return {"version": configuration.version, "cluster": configuration.cluster_name}


def _submit(slurm: Any, fields: Answer) -> int:
    return int(slurm.JobSubmitDescription(**fields).submit())


def _jobs(slurm: Any) -> List[Answer]:
    uid = os.getuid()
    return [_row(job, _QUEUED) for job in slurm.Jobs.load().values() if job.user_id == uid]


def _waiting(slurm: Any) -> List[Answer]:
    return [_row(job, _WAITING) for job in slurm.Jobs.load().values() if job.state == "PENDING"]


def _ended(slurm: Any, since: int, ids: Optional[List[int]] = None, names: Optional[List[str]] = None) -> List[Answer]:
    wanted = slurm.db.JobFilter(ids=ids, names=names, users=[os.getuid()], start_time=since)
    return [_row(job, _ACCOUNTED) for job in slurm.db.Jobs.load(wanted).values()]


def _signal(slurm: Any, job_id: int, signal: str) -> None:
    slurm.Job(job_id).send_signal(signal, steps="batch")


def _cancel(slurm: Any, job_id: int) -> None:
    slurm.Job(job_id).cancel()


def _cluster(slurm: Any) -> Answer:
    return {
        "nodes": [_row(node, _NODE) for node in slurm.Nodes.load().values()],
        "partitions": [_row(partition, _PARTITION) for partition in slurm.Partitions.load().values()],
    }


_QUESTIONS: Dict[str, Any] = {
    "hello": _hello, "submit": _submit, "jobs": _jobs, "waiting": _waiting, "ended": _ended, "signal": _signal,
    "cancel": _cancel, "cluster": _cluster,
}  # fmt: skip


def _answer(slurm: Any, question: Answer) -> Answer:
    ask = _QUESTIONS[question.pop("ask")]
    try:
        return {"answer": ask(slurm, **question)}
    except slurm.RPCError as error:
        return {"error": {"number": error.errno, "words": str(error)}}
    except (ValueError, OverflowError) as error:
        return {"refused": str(error)}


def main() -> None:
    """Answer until there are no more questions."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(something: Answer) -> None:
        answers.write(json.dumps(something) + "\n")
        answers.flush()

    try:
        import pyslurm
    except ImportError as error:
        say({"missing": str(error)})
        return
    say({"answer": pyslurm.__version__})
    for line in sys.stdin:
        say(_answer(pyslurm, json.loads(line)))


if __name__ == "__main__":
    main()
