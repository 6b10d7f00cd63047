"""What killed runs left on a node: removed when nobody can need it, and only then."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm_plugin.runner.claim import Run
from slurm_plugin.runner.leftovers import clear, jobs_here
from slurm_plugin.runner.volumes import MEMORY, Scratch

OWN = Run("77", 1)
UID = f"5e1d-{os.getpid()}"


def left(base: Path, name: str) -> Path:
    """Scratch as a run makes it, something in it, its memory beside it."""
    scratch = Scratch(str(base), name)
    scratch.make()
    Path(scratch.directory("volumes", "v"), "file").write_text("x")
    (base / name / "volumes").chmod(0o500)
    return Path(scratch.path)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for path in Path(MEMORY).glob(f"slurmlet-{UID}-*"):
        path.rmdir()


def test_scratch_of_a_job_that_has_no_process_here_goes_with_its_memory(node: Path) -> None:
    gone = left(node, f"slurmlet-{UID}-4000000001.0")
    clear(str(node), OWN)
    assert not gone.exists()
    assert not Path(MEMORY, gone.name).exists()


def test_scratch_of_a_job_that_has_a_process_here_stays(node: Path) -> None:
    job = "4000000002"
    stays = left(node, f"slurmlet-{UID}-{job}.0")
    argv = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"SLURM_JOB_ID": job}) as runs:
        assert runs.stdout is not None
        runs.stdout.readline()  # for a moment of its exec it shows no environment
        assert job in jobs_here()
        clear(str(node), OWN)
        assert stays.exists()
        assert Path(MEMORY, stays.name).exists()
        runs.communicate(b"\n")
    clear(str(node), OWN)
    assert not stays.exists()


def test_of_its_own_job_only_what_earlier_runs_left_goes(node: Path) -> None:
    earlier, own, later = (left(node, f"slurmlet-{UID}-77.{restart}") for restart in (0, 1, 2))
    clear(str(node), OWN)
    assert (earlier.exists(), own.exists(), later.exists()) == (False, True, True)
    for path in (own, later):
        Scratch(str(node), path.name).remove()


@pytest.mark.parametrize(
    "change", ["another node's", "nobody says whose", "a pipe", "a link", "another name", "a rank's"]
)
def test_what_may_be_anothers_stays(node: Path, change: str) -> None:
    path = left(node, f"slurmlet-{UID}-4000000003.0" + (".cn9" if change == "a rank's" else ""))
    match change:
        case "another node's":
            (path / "node").write_text("not-this-one")
        case "nobody says whose":
            (path / "node").unlink()
        case "a pipe":  # at which a runner would wait for ever
            (path / "node").unlink()
            os.mkfifo(path / "node")
        case "a link":
            path = path.rename(node / "elsewhere")
            (node / f"slurmlet-{UID}-4000000003.0").symlink_to(path)
        case "another name":
            path = path.rename(node / "slurmlet-something")
    clear(str(node), OWN)
    assert path.exists()


def test_a_base_that_is_not_there_is_no_trouble(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clear(str(node / "missing"), OWN)
    assert capsys.readouterr().err == ""
