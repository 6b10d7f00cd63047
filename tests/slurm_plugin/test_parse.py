import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from slurm_plugin import parse
from slurm_plugin.cluster import Enforcement, Partition
from slurm_plugin.errors import UnparsableOutputError
from slurm_plugin.job import ExitCode, JobFlag, JobId, JobKey, JobState, JobStatus

VERSIONS = ["22.05", "24.11", "26.05"]
ARGV = ("squeue",)


class Samples:
    """What one version of Slurm printed."""

    def __init__(self, version: str) -> None:
        self.version = version
        self._directory = Path(__file__).parent / "samples" / version
        self.jobs: Mapping[str, JobId] = json.loads(self.text("jobs.json"))

    def text(self, name: str) -> str:
        return (self._directory / name).read_text(encoding="utf-8")

    def queue(self) -> Mapping[JobId, JobStatus]:
        return parse.QueueReader().read(self.text("squeue.txt"), ARGV)

    def accounting(self) -> Mapping[JobId, JobStatus]:
        return parse.accounting(self.text("sacct.txt"), ARGV)


@pytest.fixture(params=VERSIONS)
def samples(request: pytest.FixtureRequest) -> Samples:
    return Samples(request.param)


def test_every_recorded_job_of_our_kind_is_read_and_no_task_of_an_array(samples: Samples) -> None:
    expected = {JobId(line.partition("|")[0]) for line in samples.text("squeue.txt").splitlines()}
    assert set(samples.queue()) == {job_id for job_id in expected if job_id.isdigit()}
    assert JobId("999") not in samples.queue()
    assert samples.queue()[samples.jobs["hostile"]].state == JobState.RUNNING


def test_running_job_has_its_batch_host_and_start_but_no_end_yet(samples: Samples) -> None:
    job = samples.queue()[samples.jobs["run"]]
    assert (job.state, job.partition, job.batch_host, job.node_list) == (JobState.RUNNING, "gpu", "gn1", "gn1")
    assert job.submit_time is not None
    assert job.start_time is not None
    assert job.submit_time <= job.start_time
    assert (job.end_time, job.exit_code, job.reason, job.restart_count, job.ended) == (None, None, "", 0, False)
    assert samples.accounting()[samples.jobs["run"]].state == JobState.RUNNING


@pytest.mark.parametrize(
    ("case", "state", "exit_code"),
    [
        ("seven", JobState.FAILED, ExitCode(7, 0)),
        ("kill", JobState.FAILED, ExitCode(0, 9)),
        ("ok", JobState.COMPLETED, ExitCode(0, 0)),
        ("timeout", JobState.TIMEOUT, None),
        ("canc", JobState.CANCELLED, None),
    ],
)
def test_an_ending_is_the_same_in_queue_and_accounting(
    samples: Samples, case: str, state: JobState, exit_code: ExitCode | None
) -> None:
    for jobs in (samples.queue(), samples.accounting()):
        job = jobs[samples.jobs[case]]
        assert job.ended
        assert job.state == state
        assert job.end_time is not None
        assert exit_code is None or job.exit_code == exit_code


def test_accounting_says_who_cancelled_a_job(samples: Samples) -> None:
    assert samples.accounting()[samples.jobs["canc"]].cancelled_by == "2001"
    assert samples.accounting()[samples.jobs["timeout"]].cancelled_by == ""


def test_pending_job_says_why_it_waits(samples: Samples) -> None:
    job = samples.queue()[samples.jobs["held"]]
    assert (job.state, job.reason, job.node_list, job.batch_host, job.start_time) == (
        JobState.PENDING,
        "JobHeldUser",
        "",
        "",
        None,
    )
    assert samples.queue()[samples.jobs["dep"]].reason == "Dependency"


def test_pending_jobs_start_is_slurms_estimate(samples: Samples) -> None:
    job = samples.queue()[samples.jobs["begin"]]
    assert job.start_time is not None
    assert job.submit_time is not None
    assert job.start_time == job.submit_time + 3600


def test_requeued_job_is_pending_with_its_restarts_counted(samples: Samples) -> None:
    job = samples.queue()[samples.jobs["requeue"]]
    assert (job.state, job.restart_count, job.ended) == (JobState.PENDING, 1, False)
    assert samples.accounting()[samples.jobs["requeue"]].state == JobState.PENDING


def test_a_job_is_found_by_its_directory_too(samples: Samples) -> None:
    for found in (
        parse.queue_in(samples.text("squeue-find.txt"), "/home/alice", ARGV),
        parse.accounting_in(samples.text("sacct-find.txt"), "/home/alice", ARGV),
    ):
        assert [job.job_id for job in found] == [samples.jobs["ok"]]
    assert parse.queue_in(samples.text("squeue-find.txt"), "/home", ARGV) == ()


ROW = "7|RUNNING|0:0|0|cpu|1800000000|1800000001|1800000100|cn1|cn1|None"


def test_a_forged_line_in_a_working_directory_is_no_job_of_ours() -> None:
    forged = f"{ROW}|/evil\n8|COMPLETED|0:0|0|cpu|1|1|1|n|n|None|/pods/2\n"
    assert parse.queue_in(f"{ROW}|/pods/1\n", "/pods/1", ARGV)[0].job_id == "7"
    assert parse.queue_in(forged, "/pods/1", ARGV) == ()
    assert parse.queue_in(f"{ROW}|/a|b\n", "/a|b", ARGV)[0].job_id == "7"


def test_many_jobs_are_found_by_names_and_directories_in_one_answer() -> None:
    first, second = JobKey("ns/a:1", "/pods/1"), JobKey("ns/b:2", "/pods/2")
    lines = (
        "|ns/a:1|/pods/1",
        "|ns/a:1|/pods/2",
        "|x|ns/a:1|/pods/1",
        "|ns/a:1|/pods/1|",
        "|ns/a:1",
        "",
        "|ns/a:1|/pods/1",
    )
    found = parse.queue_of("\n".join(f"{ROW}{line}" for line in lines), [first, second], ARGV)
    assert [(key, [job.job_id for job in jobs]) for key, jobs in found.items()] == [(first, ["7", "7"])]


def test_accounting_that_keeps_no_directories_is_matched_by_name_alone() -> None:
    row = "7|COMPLETED|0:0|cpu|1800000000|1800000001|1800000100|cn1|None|"
    assert [job.job_id for job in parse.accounting_in(row, "/pods/1", ARGV)] == ["7"]


@pytest.mark.parametrize("state", list(JobState))
def test_every_base_state_is_read(state: JobState) -> None:
    assert parse.QueueReader().read(ROW.replace("RUNNING", state), ARGV)[JobId("7")].state == state


@pytest.mark.parametrize("flag", list(JobFlag))
def test_a_job_shown_by_a_flag_alone_has_not_ended(flag: JobFlag) -> None:
    job = parse.QueueReader().read(ROW.replace("RUNNING", flag), ARGV)[JobId("7")]
    assert job.flags == {flag}
    assert not job.ended


@pytest.mark.parametrize(
    "line",
    [
        ROW.replace("RUNNING", "CF"), ROW.replace("RUNNING", "COMPLETE"), ROW.replace("RUNNING", "running"), ROW.replace("RUNNING", ""),
        ROW.replace("7|", "x|", 1), ROW.replace("7|", "-7|", 1), ROW.replace("RUNNING|0:0", "FAILED|0:"), ROW.replace("1800000001", "2026-11-22T13:08:08"),
        ROW.removesuffix("|None"), "", "squeue: something",
    ],
)  # fmt: skip
def test_what_slurm_does_not_document_is_shown_and_never_taken_for_an_ending(line: str) -> None:
    with pytest.raises(UnparsableOutputError, match="squeue"):
        parse.QueueReader().read(f"{ROW}\n{line}\n", ARGV)


def test_foreign_jobs_of_other_kinds_are_passed_over_whatever_they_say() -> None:
    others = ["30_1", "30_[1-2%1]", "12+1"]
    lines = "".join(f"{ROW.replace('7|', f'{other}|', 1).replace('RUNNING', 'WEIRD')}\n" for other in others)
    assert set(parse.QueueReader().read(lines + ROW, ARGV)) == {"7"}


def test_a_reason_may_hold_the_separator() -> None:
    assert parse.QueueReader().read(ROW.replace("None", "a|b"), ARGV)[JobId("7")].reason == "a|b"


def test_a_job_is_read_anew_only_when_its_line_has_changed() -> None:
    reader = parse.QueueReader()
    other = ROW.replace("7", "8", 1)
    first = reader.read(f"{ROW}\n{other}\n", ARGV)
    second = reader.read(f"{ROW}\n{other.replace('RUNNING', 'SUSPENDED')}\n", ARGV)
    assert second[JobId("7")] is first[JobId("7")]
    assert second[JobId("8")].state == "SUSPENDED"
    assert set(reader.read(f"{other}\n", ARGV)) == {"8"}


@pytest.mark.parametrize(
    ("raw", "exit_code"),
    [("1792", ExitCode(7, 0)), ("9", ExitCode(0, 9)), ("253", ExitCode(0, 125)), ("7:0", ExitCode(7, 0))],
)
def test_squeues_exit_code_has_two_forms(raw: str, exit_code: ExitCode) -> None:
    line = ROW.replace("RUNNING", "FAILED").replace("0:0", raw)
    assert parse.QueueReader().read(line, ARGV)[JobId("7")].exit_code == exit_code


@pytest.mark.parametrize(
    ("output", "job_id"), [("7\n", "7"), ("7;testbed\n", "7"), ("Checking your quota: 12 TB\n\n7\n", "7")]
)
def test_the_job_id_is_read_from_sbatch_whatever_a_wrapper_prints(output: str, job_id: str) -> None:
    assert parse.submitted(output, ARGV) == job_id


@pytest.mark.parametrize("output", ["", "Submitted batch job 7\n", "7\n8\n", "7x\n"])
def test_an_unclear_answer_of_sbatch_is_no_job_id(output: str) -> None:
    with pytest.raises(UnparsableOutputError):
        parse.submitted(output, ARGV)


def test_merged_sources_are_oldest_first_and_the_first_source_wins() -> None:
    first = JobStatus(JobId("9"), JobState.RUNNING, submit_time=20)
    again = JobStatus(JobId("9"), JobState.FAILED, submit_time=20)
    older = JobStatus(JobId("10"), JobState.FAILED, submit_time=10)
    assert parse.oldest_first((first,), (again, older)) == (older, first)


def test_nodes_have_what_jobs_may_have(samples: Samples) -> None:
    nodes = {node.name: node for node in parse.nodes(samples.text("nodes.txt"), ARGV)}
    assert set(nodes) == {"cn1", "cn2", "cn3", "cn4", "gn1", "gn2"}
    gn1 = nodes["gn1"]
    assert (gn1.cpus, gn1.memory_mib, gn1.tmp_mib, gn1.gres) == (16, 64000, 1000, {("gpu", "a100"): 4})
    assert gn1.gres_allocated == {("gpu", "a100"): 2}
    assert gn1.cpus_allocated == 2
    assert gn1.memory_allocated_mib > 0
    assert gn1.features == {"a100", "nvlink"}
    assert gn1.partitions == {"gpu", "low", "high"}
    assert gn1.usable
    assert nodes["cn2"].gres == nodes["cn2"].gres_allocated == nodes["gn2"].gres_allocated == {}


def test_an_administrators_words_change_nothing_of_a_node(samples: Samples) -> None:
    nodes = {node.name: node for node in parse.nodes(samples.text("nodes.txt"), ARGV)}
    assert "State=IDLE BootTime=1" in samples.text("nodes.txt")
    assert nodes["cn4"].states == {"IDLE", "DRAIN"}
    assert not nodes["cn4"].usable


def test_partitions_have_their_limits_in_minutes(samples: Samples) -> None:
    assert parse.partitions(samples.text("partitions.txt"), ARGV) == (
        Partition("cpu", default=True, up=True, default_time_minutes=60, max_time_minutes=1440),
        Partition("gpu", default=False, up=True, default_time_minutes=60, max_time_minutes=2880),
        Partition("low", default=False, up=True, default_time_minutes=60, max_time_minutes=None),
        Partition("high", default=False, up=True, default_time_minutes=60, max_time_minutes=None),
    )


def test_the_cluster_has_a_name_and_a_version(samples: Samples) -> None:
    name, version = parse.configuration(samples.text("config.txt"), ARGV)
    assert name == "testbed"
    assert version.startswith(samples.version)


NODE = (
    "NodeName=n1 CPUAlloc=0 CPUEfctv=14 CPUTot=16 AvailableFeatures=(null) Gres=(null) RealMemory=64000 AllocMem=0 State=DOWN*+CLOUD "
    "TmpDisk=0 Weight=1 CoreSpecCount=1 CPUSpecList=15 MemSpecLimit=2000 Partitions=low  BootTime=None Reason=Not responding"
)


def test_what_is_set_aside_for_the_system_is_not_for_jobs() -> None:
    (node,) = parse.nodes(NODE, ARGV)
    assert (node.cpus, node.memory_mib) == (14, 62000)
    assert node.states == {"DOWN", "CLOUD", "NOT_RESPONDING"}
    assert not node.features


@pytest.mark.parametrize(
    "line",
    [
        NODE.replace(" State=DOWN*+CLOUD", ""),
        NODE.replace("=64000", "=lots"),
        NODE.replace("DOWN*+CLOUD", "up"),
    ],
)
def test_an_unreadable_node_is_an_error_that_shows_it(line: str) -> None:
    with pytest.raises(UnparsableOutputError, match="NodeName=n1"):
        parse.nodes(line, ARGV)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", {}), ("(null)", {}), ("N/A", {}), ("gpu:0", {}), ("gpu:4", {("gpu", ""): 4}), ("gpu", {("gpu", ""): 1}),
        ("gpu:a100:4", {("gpu", "a100"): 4}), ("gpu:a100:4(S:0-1)", {("gpu", "a100"): 4}), ("gpu:a100", {("gpu", "a100"): 1}),
        ("gpu:a100:2(IDX:0,2-3),shard:a100:6(S:0),lustre:no_consume:2K", {("gpu", "a100"): 2, ("shard", "a100"): 6, ("lustre", ""): 2048}),
        ("gpu:a100:2(S:0),gpu:a100:2(S:1)", {("gpu", "a100"): 4}), ("gpu:a100_3g.20gb:2", {("gpu", "a100_3g.20gb"): 2}),
        ("gpu:h100:0(IDX:N/A)", {}),
    ],
)  # fmt: skip
def test_every_form_of_gres_is_counted(text: str, counts: dict[tuple[str, str], int]) -> None:
    assert parse.gres(text) == counts


@pytest.mark.parametrize("text", [",", "gpu:a:b:1", ":1", "gpu::1", "gpu:a100:2(IDX:0"])
def test_garbage_in_gres_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="generic resources"):
        parse.gres(text)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("UNLIMITED", None),
        ("NONE", None),
        ("INFINITE", None),
        ("00:10:00", 10),
        ("1-00:00:00", 1440),
        ("10-12:30:59", 15150),
        ("100:00:00", 6000),
    ],
)
def test_durations_are_whole_minutes(text: str, minutes: int | None) -> None:
    assert parse.minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "10", "soon", "1-", "00:10"])
def test_garbage_in_durations_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse.minutes(text)


def test_five_thousand_nodes_in_twenty_partitions_are_read_in_a_fifth_of_a_second() -> None:
    lines = Samples("24.11").text("nodes.txt").splitlines()
    many = ",".join(f"partition{number}" for number in range(20))
    nodes = "\n".join(lines[number % 6].replace("cpu,low,high", many) for number in range(5000))
    partitions = Samples("24.11").text("partitions.txt") * 5
    best = min(_seconds_to_read(nodes, partitions) for _ in range(5))
    assert best < 0.2


def _seconds_to_read(nodes: str, partitions: str) -> float:
    start = time.process_time()
    assert len(parse.nodes(nodes, ARGV)) == 5000
    assert len(parse.partitions(partitions, ARGV)) == 20
    return time.process_time() - start


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("TaskPlugin              = (null)\n", Enforcement()),
        ("TaskPlugin              = task/affinity\n", Enforcement(cores=True)),
        (
            "TaskPlugin = task/cgroup,task/affinity\nConstrainCores = yes\nConstrainRAMSpace = yes\nConstrainDevices = yes\n",
            Enforcement(cores=True, memory=True, devices=True),
        ),
        ("TaskPlugin = task/affinity\nSelectTypeParameters = CR_MEMORY\n", Enforcement()),
        ("TaskPlugin = task/affinity\nSelectTypeParameters = CR_CORE_MEMORY\n", Enforcement(cores=True)),
        ("TaskPlugin = task/cgroup\nConstrainCores = no\nConstrainRAMSpace = yes\n", Enforcement(memory=True)),
        ("TaskPlugin = task/none\nConstrainRAMSpace = yes\n", Enforcement()),
        ("JobAcctGatherParams     = OverMemoryKill\nTaskPlugin = task/none\n", Enforcement(memory=True)),
    ],
)
def test_the_configuration_says_what_jobs_are_kept_to(said: str, expected: Enforcement) -> None:
    assert parse.enforcement(said) == expected
