"""What pyslurm 25.11.2 told of a Slurm 26.05, but for what the tests change."""

from typing import Any

import pytest

from slurm_plugin.clients.pyslurm import reading
from slurm_plugin.errors import UnparsableOutputError
from slurm_plugin.job import ExitCode, JobFlag, JobId, JobState

QUEUED = {
    "id": 1, "name": "x", "user_id": 2001, "state": "PENDING", "state_reason": "None", "exit_code": 0,
    "exit_code_signal": 0, "partition": "cpu", "allocated_nodes": None, "batch_host": None, "submit_time": 1795891148,
    "start_time": None, "end_time": None, "requeue_count": 0, "array_id": None, "heterogeneous_id": None,
    "working_directory": "/scratch/alice",
}  # fmt: skip
NODE = {
    "name": "gn1", "state": "IDLE+DRAIN", "effective_cpus": 16, "total_cpus": 16, "allocated_cpus": 2,
    "real_memory": 64000, "memory_reserved_for_system": 1000, "allocated_memory": 300, "temporary_disk": 1000,
    "configured_gres": {"gpu:a100": 4}, "allocated_gres": {"gpu": 1, "gpu:a100": 1},
    "available_features": ["a100", "nvlink"], "partitions": ["gpu"],
}  # fmt: skip


def job(**changed: Any) -> reading.Found:
    (found,) = reading.jobs([QUEUED | changed]).values()
    return found


def test_a_waiting_job_has_not_ended_and_was_on_no_node() -> None:
    found = job()
    assert (found.name, found.directory, found.status.job_id) == ("x", "/scratch/alice", JobId("1"))
    assert (found.status.state, found.status.reason, found.status.exit_code) == (JobState.PENDING, "", None)
    assert (found.status.node_list, found.status.restart_count) == ("", 0)


def test_a_job_that_failed_tells_how() -> None:
    status = job(state="FAILED", exit_code=7, end_time=9).status
    assert (status.exit_code, status.end_time) == (ExitCode(7, 0), 9)


def test_a_flag_hides_the_state_and_is_told() -> None:
    status = job(state="COMPLETING").status
    assert JobFlag.COMPLETING in status.flags
    assert not status.ended


def test_tasks_of_an_array_are_no_jobs_of_ours_and_wait_as_one() -> None:
    assert reading.jobs([QUEUED | {"array_id": 1}]) == {}
    (waiting,) = reading.waiting([{"id": 2, "partition": "cpu,gpu", "priority": 0, "array_id": 1}])
    assert (waiting.job_id, waiting.partitions, waiting.priority) == ("1", ("cpu", "gpu"), 0)


def test_a_nodes_gpus_are_counted_once_by_their_type() -> None:
    partition = {"name": "gpu", "state": "UP", "is_default": False, "default_time": 60, "max_time": "UNLIMITED"}
    cluster = reading.cluster({"nodes": [NODE], "partitions": [partition]}, name="testbed", version="26.05.5")
    (node,) = cluster.nodes
    assert (dict(node.gres), dict(node.gres_allocated)) == ({("gpu", "a100"): 4}, {("gpu", "a100"): 1})
    assert (node.memory_mib, node.usable) == (63000, False)
    (read,) = cluster.partitions
    assert (read.up, read.default, read.default_time_minutes, read.max_time_minutes) == (True, False, 60, None)


@pytest.mark.parametrize("answer", [None, {}, [{"id": 1}], [QUEUED | {"state": "SLEEPING"}]])
def test_nonsense_is_said_to_be_some(answer: object) -> None:
    with pytest.raises(UnparsableOutputError):
        reading.jobs(answer)
