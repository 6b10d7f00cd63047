"""The step of a container that runs on every rank, where Slurm's own commands fail."""

import json
import os
import signal
import sys
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

from .conftest import MakeJob
from .jobs import PROJECT, QUICK, container, pod, shell


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
    plan = pod(what, scratch=str(tmp_path / "scratch"), uid=f"ranks-{os.getpid()}")
    book = Book(plan, Facts(Run("42", 0), "cn1", (), ()))
    shared = Shared(Loop(), JobDir(str(tmp_path / "job")), plan, book, QUICK)
    shared.host["PATH"] = str(tmp_path)
    (tmp_path / "containers").mkdir()
    image = ReadyImage("", "", ImageConfig((), (), (), "", ""))
    for run in ("a.0", "a.1", "a.2", "b.0"):
        scratch = str(tmp_path / "containers" / run)
        named = what._replace(name=run[0])
        setting = Setting(named, plan.runtime, image, ("true",), (), "/", {}, (), "", scratch, {})
        RankStep(shared, setting).launch()
    shared.scratch.remove()
    assert sorted(os.listdir(tmp_path / "job" / "run")) == ["ranks-a.2.json", "ranks-b.0.json"]


SRUN = """\
#!/bin/sh
for spec; do :; done
on() {{ SLURMD_NODENAME=$1 {python} -I -S -c 'import sys; sys.path.insert(0, sys.argv[1])
from slurm_plugin.runner import rank
sys.exit(getattr(rank, sys.argv[2])(sys.argv[3]))' {project} $2 "$spec"; }}
case "$*" in *" --clean "*) on cn1 clean; on cn2 clean; exit;; esac
SLURM_PROCID=0 on cn1 run_rank & zero=$!
SLURM_PROCID=1 on cn1 run_rank & SLURM_PROCID=2 on cn2 run_rank
wait $zero
"""


def test_what_ranks_had_on_their_nodes_goes_with_the_next_run(job: MakeJob, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "srun").write_text(SRUN.format(python=sys.executable, project=PROJECT))
    (programs / "srun").chmod(0o755)
    mine = f"{tmp_path}/$SLURM_PROCID"
    script = f"test -e {mine} || {{ touch {mine}; exit 3; }}; ls {tmp_path}/pods/scratch/*42.0$NODE/containers > {mine}"
    node = 'NODE=; test "$SLURMD_NODENAME" = cn1 || NODE=.$SLURMD_NODENAME; '
    ranks = Ranks(2, 3, 2, 1, "pmix", (), label=False, gpus_per_task=0)
    j = job(pod(shell("a", node + script, ranks=ranks, restart_policy="OnFailure"), uid=f"ranks-{os.getpid()}"))
    runner = j.start(environment={"PATH": f"{programs}:{os.environ['PATH']}"})
    assert runner.wait(60) == 0
    assert j.container("a").restart_count == 1
    for rank, own in (("0", "a.1"), ("1", "a.1.rank1"), ("2", "a.1.rank2")):
        found = {name for name in (tmp_path / rank).read_text().split() if name.startswith("a.")}
        assert own in found
        assert not {name for name in found if name.startswith("a.0")}, rank
    assert list(j.scratch.iterdir()) == []
