"""By what an OOM kill is told from any other."""

from pathlib import Path

import pytest

from slurm_plugin.runner.oom import Kills, kills


@pytest.mark.parametrize(
    ("membership", "file", "text"),
    [
        ("0::/slurm/job_1/step_batch", "slurm/job_1/step_batch/memory.events", "low 0\noom 5\noom_kill 3\n"),
        ("4:cpu,memory:/slurm/job_1", "memory/slurm/job_1/memory.oom_control", "under_oom 0\noom_kill 3\n"),
    ],
)
def test_the_kernel_counts_the_kills_of_the_jobs_cgroup(tmp_path: Path, membership: str, file: str, text: str) -> None:
    path = tmp_path / "cgroup" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    (tmp_path / "self").write_text(f"1:name=systemd:/x\n{membership}\n")
    assert kills(str(tmp_path / "self"), str(tmp_path / "cgroup")) == 3


def test_without_a_memory_cgroup_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "self").write_text("0::/\n")
    assert kills(str(tmp_path / "self"), str(tmp_path)) == 0
    assert kills(str(tmp_path / "missing"), str(tmp_path)) == 0


def test_a_kill_is_told_of_one_container_alone() -> None:
    count = 1
    found = Kills(lambda: count)
    since = found.so_far()
    assert not found.take(since), "it was before this container began"
    count = 2
    assert found.take(since)
    assert not found.take(since), "a neighbour that something else killed"
    count = 3
    assert found.take(since)
