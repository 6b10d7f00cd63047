import json
import time
from pathlib import Path
from typing import Any

import pytest

from slurm_plugin.clients.rest import reading
from slurm_plugin.errors import UnparsableOutputError
from slurm_plugin.job import ExitCode, JobId, JobState
from slurm_plugin.queueing import WaitingJob

RECORDED = sorted((Path(__file__).parent / "samples").glob("*.json"))
ASKED = ("GET", "/recorded")


@pytest.fixture(params=RECORDED, ids=lambda path: path.stem)
def said(request: pytest.FixtureRequest) -> dict[str, Any]:
    answers: dict[str, Any] = json.loads(request.param.read_text("utf-8"))
    return answers


def test_jobs_of_every_version_are_read(said: dict[str, Any]) -> None:
    rows = reading.queue(said["jobs"], ASKED)
    states = {row.status.state for row in rows.values()}
    assert {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED} <= states
    failed = [row.status for row in rows.values() if row.status.state is JobState.FAILED]
    assert any(status.exit_code == ExitCode(7, 0) for status in failed)
    for row in rows.values():
        assert row.user in {"alice", "root"}
        assert row.directory.startswith("/")
        assert row.status.submit_time
        assert (row.status.end_time is None) == (not row.status.state.ended)
        assert (row.status.exit_code is None) == (not row.status.state.ended)


def test_everybodys_waiting_jobs_are_read_with_priority_and_partitions(said: dict[str, Any]) -> None:
    job = said["jobs"]["jobs"][0]
    plain = isinstance(job["submit_time"], int)
    waits = {"job_state": "PENDING" if isinstance(job["job_state"], str) else ["PENDING"], "partition": "cpu,low"}
    first = job | waits | {"job_id": 8, "priority": 5 if plain else {"set": True, "infinite": False, "number": 5}}
    found = reading.waiting({"jobs": [first, job | waits | {"job_id": 9, "array_job_id": 9}, job]}, ASKED)
    assert found == (WaitingJob("8", ("cpu", "low"), 5), WaitingJob("9", ("cpu", "low"), 0))


def test_tasks_of_arrays_and_parts_of_heterogeneous_jobs_are_left_out(said: dict[str, Any]) -> None:
    def others(job: dict[str, Any]) -> bool:
        return bool(reading.number(job["array_job_id"]) or reading.number(job["het_job_id"]))

    strangers = {JobId(str(job["job_id"])) for job in said["jobs"]["jobs"] if others(job)}
    assert strangers
    assert not strangers & set(reading.queue(said["jobs"], ASKED))


def test_jobs_of_accounting_are_read(said: dict[str, Any]) -> None:
    rows = reading.accounting(said["accounting"], ASKED)
    assert {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED} <= {row.status.state for row in rows.values()}
    for row in rows.values():
        assert row.status.exit_code != ExitCode(0, 0) or row.status.state is not JobState.FAILED
        assert not row.status.cancelled_by or row.status.state is JobState.CANCELLED


def test_nodes_and_partitions_are_read(said: dict[str, Any]) -> None:
    nodes = {node.name: node for node in reading.nodes(said["nodes"], ASKED)}
    partitions = {partition.name: partition for partition in reading.partitions(said["partitions"], ASKED)}
    assert len(nodes) == 5
    assert any(node.gres == {("gpu", "a100"): 4} for node in nodes.values())
    assert all(node.cpus >= 8 and node.memory_mib and node.partitions <= set(partitions) for node in nodes.values())
    assert all(node.usable for node in nodes.values())
    assert all(partition.up for partition in partitions.values())
    assert partitions["high"].max_time_minutes is None
    assert partitions["cpu"].max_time_minutes == 1440
    assert partitions["cpu"].default_time_minutes == 10


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda path: path.stem)
def test_a_partitions_limit_of_nodes_is_read(recorded: Path) -> None:
    (partition, *_) = json.loads(recorded.read_text("utf-8"))["partitions"]["partitions"]
    assert reading.partitions({"partitions": [partition]}, ASKED)[0].max_nodes is None
    if "maximums" in partition:
        partition["maximums"]["nodes"] = {"set": True, "infinite": False, "number": 3}
    else:
        partition["maximum_nodes_per_job"] = 3
    assert reading.partitions({"partitions": [partition]}, ASKED)[0].max_nodes == 3


def test_five_thousand_nodes_in_twenty_partitions_are_read_in_a_fifth_of_a_second() -> None:
    """From the answer's text on. What was recorded is without the fields that nobody reads."""
    recorded = json.loads(RECORDED[-1].read_text("utf-8"))
    few, partitions = recorded["nodes"]["nodes"], recorded["partitions"]["partitions"]
    names = [f"partition{number}" for number in range(20)]
    nodes = json.dumps({"nodes": [few[n % len(few)] | {"name": f"n{n}", "partitions": names} for n in range(5000)]})
    limits = json.dumps({"partitions": [partitions[0] | {"name": name} for name in names]})

    def seconds() -> float:
        start = time.process_time()
        assert len(reading.nodes(json.loads(nodes), ASKED)) == 5000
        assert len(reading.partitions(json.loads(limits), ASKED)) == 20
        return time.process_time() - start

    assert min(seconds() for _ in range(5)) < 0.2


def test_states_name_every_job_with_its_words(said: dict[str, Any]) -> None:
    if said["states"] is None:
        pytest.skip("the version does not have it")
    states = reading.states(said["states"], ASKED)
    assert states[JobId("1")] <= {state.value for state in JobState}


@pytest.mark.parametrize(
    "change", [{"job_state": "SLEEPING"}, {"job_state": ["RUNNING", "FAILED"]}, {"job_state": []}, {"submit_time": "x"}]
)
def test_what_no_version_says_is_an_error_and_no_guess(change: dict[str, Any]) -> None:
    answers = json.loads(RECORDED[-1].read_text("utf-8"))
    job = next(job for job in answers["jobs"]["jobs"] if not reading.number(job["het_job_id"]))
    with pytest.raises(UnparsableOutputError):
        reading.queue({"jobs": [{**job, "array_job_id": 0, **change}]}, ASKED)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(UnparsableOutputError, match="effective_cpus|cpus|name|state"):
        reading.nodes({"nodes": [{}]}, ASKED)
