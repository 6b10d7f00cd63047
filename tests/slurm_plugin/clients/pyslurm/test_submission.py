from pathlib import Path
from typing import Any

import pytest

from slurm_plugin.clients.directives import options
from slurm_plugin.clients.pyslurm.submission import fields
from slurm_plugin.errors import SubmissionRejectedError

GOLDEN = sorted((Path(__file__).parents[2] / "golden").glob("*/job.sh"))


def fields_of(*lines: str) -> dict[str, Any]:
    script = "".join(f"#SBATCH {line}\n" for line in lines)
    return fields(options(script), script, directory="/pods/1")


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.parent.name)
def test_every_option_of_a_rendered_script_has_a_field(path: Path) -> None:
    script = path.read_text("utf-8")
    read = options(script)
    if {"hint"} & set(read):
        pytest.skip("raw flags")
    found = fields(read, script, directory="/pods/1")
    assert (found["script"], found["name"], found["dependencies"]) == (script, read["job-name"], "singleton")
    assert found["signal"]["batch_only"]


def test_sizes_and_times_are_numbers_of_slurms_units() -> None:
    found = fields_of("--mem=2G", "--tmp=1T", "--time=1-02:00:30", "--nice=-5", "--priority=7")
    assert (found["memory_per_node"], found["temporary_disk_per_node"], found["time_limit"]) == (2048, 1024**2, 1561)
    assert (found["nice"], found["priority"]) == (-5, 7)


def test_a_resource_without_a_count_is_one() -> None:
    assert fields_of("--gres=gpu:a100,shard:3")["gres_per_node"] == "gpu:a100:1,shard:3"


def test_a_warning_is_told_by_number_and_to_whom() -> None:
    assert fields_of("--signal=B:USR1@690")["signal"] == {"signal": 10, "time": 690, "batch_only": True}


def test_the_environment_is_what_sbatch_would_give_and_nothing_of_ours() -> None:
    environment = fields_of("--export=NONE", "--ntasks=2")["environment"]
    assert environment["SLURM_NTASKS"] == "2"
    assert environment["SLURM_GET_USER_ENV"] == "1"
    assert environment["SLURM_SUBMIT_DIR"] == "/pods/1"


@pytest.mark.parametrize(
    "line", ["--hint=nomultithread", "--export=ALL", "--exclusive=topo", "--mem=much", "--time=now"]
)
def test_what_has_no_field_is_refused_by_name(line: str) -> None:
    with pytest.raises(SubmissionRejectedError, match=line.partition("=")[0]):
        fields_of(line)
