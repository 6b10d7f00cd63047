import os
from pathlib import Path

from slurm_plugin.runner import gate


def test_a_gate_that_an_attempt_left_which_started_nothing_is_used_again(tmp_path: Path) -> None:
    directory = tmp_path / "gate"
    gate.make(str(directory))
    before = sorted(os.listdir(directory))
    gate.make(str(directory))
    assert sorted(os.listdir(directory)) == before
