from pathlib import Path

import pytest

from slurm_plugin.clients.directives import options
from slurm_plugin.clients.rest.submission import request
from slurm_plugin.errors import SubmissionRejectedError

GOLDEN = sorted((Path(__file__).parents[2] / "golden").glob("*/job.sh"))


def job_of(*lines: str, version: int = 42) -> dict[str, object]:
    script = "".join(f"#SBATCH {line}\n" for line in lines)
    job: dict[str, object] = request(options(script), script, directory="/pods/1", version=version)["job"]
    return job


def number(value: int) -> dict[str, object]:
    return {"set": True, "infinite": False, "number": value}


@pytest.mark.parametrize("version", [39, 40, 42, 45])
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.parent.name)
def test_every_option_of_a_rendered_script_has_a_field(path: Path, version: int) -> None:
    script = path.read_text("utf-8")
    read = options(script)
    if {"hint"} & set(read):
        pytest.skip("raw flags")
    body = request(read, script, directory="/pods/1", version=version)
    assert body["script"] == script
    assert body["job"]["dependency"] == "singleton"
    assert body["job"]["name"] == read["job-name"]
    assert body["job"]["kill_warning_flags"] == ["BATCH_JOB"]


def test_numbers_that_may_be_unset_say_so() -> None:
    job = job_of("--mem=300M", "--time=7", "--cpus-per-task=2", "--tmp=5G")
    assert job["memory_per_node"] == number(300)
    assert job["time_limit"] == number(7)
    assert job["cpus_per_task"] == 2
    assert job["temporary_disk_per_node"] == 5120


def test_a_priority_is_a_number_that_may_be_unset_and_was_a_text() -> None:
    assert job_of("--priority=7", version=39)["priority"] == number(7)
    assert job_of("--priority=7", version=38)["priority"] == "7"


def test_a_warning_at_the_time_limit_itself_is_not_left_to_slurms_default() -> None:
    assert job_of("--signal=USR1@0", version=40)["kill_warning_delay"] == number(0)
    assert "kill_warning_delay" not in job_of("--signal=USR1", version=40)


def test_the_first_dialect_has_plain_numbers_and_an_object_for_the_environment() -> None:
    job = job_of("--mem=300M", "--time=7", "--nodes=1-2", "--gres=gpu:a100:1", "--exclusive", version=38)
    assert (job["memory_per_node"], job["time_limit"], job["nodes"]) == (300, 7, [1, 2])
    assert (job["gres"], job["exclusive"]) == ("gpu:a100:1", "true")
    assert isinstance(job["environment"], dict)


def test_the_first_dialect_leaves_out_a_warning_of_the_batch_script_and_takes_the_job() -> None:
    assert job_of("--signal=B:USR1@400", "--time=7", version=38)["time_limit"] == 7
    with pytest.raises(SubmissionRejectedError, match="--signal"):
        job_of("--signal=USR1@400", version=38)


def test_the_first_dialect_counts_nodes_from_least_to_most() -> None:
    assert job_of("--nodes=1", version=38)["nodes"] == [1, 1]


def test_exclusive_has_two_names() -> None:
    assert job_of("--exclusive", version=39)["exclusive"] == ["true"]
    assert job_of("--exclusive", version=42)["shared"] == ["none"]
    assert job_of("--exclusive=user", version=42)["shared"] == ["user"]


def test_each_of_several_resources_is_named() -> None:
    assert job_of("--gres=gpu:a100:2,shard:1")["tres_per_node"] == "gres/gpu:a100:2,gres/shard:1"


def test_a_job_has_a_name_and_the_environment_of_its_user() -> None:
    job = job_of("--ntasks=1")
    assert job["name"]
    assert "SLURM_GET_USER_ENV=1" in job["environment"]  # type: ignore[operator]
    assert "SLURM_NTASKS=1" in job["environment"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "minutes"), [("7", 7), ("7:30", 8), ("1:00:00", 60), ("1-0", 1440), ("1-2:30", 1590), ("2-00:00:01", 2881)]
)
def test_every_form_of_a_time_is_read(text: str, minutes: int) -> None:
    assert job_of(f"--time={text}")["time_limit"] == number(minutes)


@pytest.mark.parametrize(
    "line", ["--gpu-bind=none", "--mem=lots", "--time=soon", "--export=ALL", "--nice=x", "--signal=?"]
)
def test_what_slurmrestd_can_not_be_given_is_refused_by_name(line: str) -> None:
    with pytest.raises(SubmissionRejectedError, match=line.partition("=")[0]):
        job_of(line)
