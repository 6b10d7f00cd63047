"""The step of a container that runs on every rank, where Slurm's own commands fail."""

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slurm_plugin.jobdir import JobDir
from slurm_plugin.runner.loop import Loop
from slurm_plugin.runner.plan import Ranks
from slurm_plugin.runner.rank import RANK
from slurm_plugin.runner.ranks import RankStep

from .jobs import container


def test_a_signal_that_no_command_can_be_started_for_is_said_and_fails_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / RANK).write_text(json.dumps({"pid": 1, "step": "0"}))
    loop = Loop()
    shared: Any = SimpleNamespace(loop=loop, directory=JobDir(str(tmp_path)), host={"PATH": str(tmp_path)})
    ranks = Ranks(1, 2, 2, 1, "pmix", (), label=False, gpus_per_task=0)
    setting: Any = SimpleNamespace(scratch=str(tmp_path), container=container("a", "true", ranks=ranks))
    loop.run(RankStep(shared, setting).signal(signal.SIGTERM, loop.promise()))
    told = capfd.readouterr().err
    assert "srun can't be started" in told
    assert "scancel can't be started" in told
