from pathlib import Path

import pytest

from slurm_plugin.jobdir import JobDir
from slurm_plugin.runner.claim import Run, read_claim, take_claim


def test_the_first_run_claims_the_pod_and_another_job_learns_whose_it_is(tmp_path: Path) -> None:
    directory = JobDir(str(tmp_path))
    assert take_claim(directory, Run("7", 0)) is None
    assert take_claim(directory, Run("8", 0)) == Run("7", 0)
    assert read_claim(directory) == Run("7", 0)


def test_a_later_start_of_the_same_job_takes_over_and_an_earlier_one_does_not(tmp_path: Path) -> None:
    directory = JobDir(str(tmp_path))
    assert take_claim(directory, Run("7", 1)) is None
    assert take_claim(directory, Run("7", 2)) is None
    assert take_claim(directory, Run("7", 1)) == Run("7", 2)


def test_a_pod_whose_directory_was_removed_can_not_be_claimed_and_stays_removed(tmp_path: Path) -> None:
    """A claim in it would be taken for an attempt at the pod, whose directory is staged anew."""
    path = tmp_path / "pods" / "a1"
    path.parent.mkdir()
    with pytest.raises(FileNotFoundError):
        take_claim(JobDir(str(path)), Run("7", 0))
    assert not path.exists()
