"""The step of a container that runs on every rank, where Slurm's own commands fail."""

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slurm_plugin.jobdir import JobDir
from slurm_plugin.runner.book import Book, Facts
from slurm_plugin.runner.claim import Run
from slurm_plugin.runner.image import ImageConfig, ReadyImage
from slurm_plugin.runner.loop import Loop
from slurm_plugin.runner.plan import Ranks
from slurm_plugin.runner.rank import RANK
from slurm_plugin.runner.ranks import RankStep
from slurm_plugin.runner.runtimes import Setting
from slurm_plugin.runner.shared import Shared

from .jobs import QUICK, container, pod


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


def test_of_what_ranks_were_told_only_the_last_runs_is_kept(tmp_path: Path) -> None:
    (tmp_path / "srun").touch(mode=0o755)
    what = container("a", "true", ranks=Ranks(2, 2, 1, 1, "pmix", (), label=False, gpus_per_task=0))
    plan = pod(what, scratch=str(tmp_path / "scratch"))
    book = Book(plan, Facts(Run("42", 0), "cn1", (), ()))
    shared = Shared(Loop(), JobDir(str(tmp_path / "job")), plan, book, QUICK)
    shared.host["PATH"] = str(tmp_path)
    image = ReadyImage("", "", ImageConfig((), (), (), "", ""))
    for run in ("a.0", "a.1", "a.2", "b.0"):
        scratch = str(tmp_path / run)
        named = what._replace(name=run[0])
        setting = Setting(named, plan.runtime, image, ("true",), (), "/", {}, (), "", scratch, {})
        RankStep(shared, setting).launch()
    assert sorted(os.listdir(tmp_path / "job" / "run")) == ["ranks-a.2.json", "ranks-b.0.json"]
