"""What runs containers: one file each, found by its name."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slurm_plugin.config import RuntimeSettings
from slurm_plugin.runner import plan
from slurm_plugin.runner.runtimes import kinds, load

from .conftest import MakeJob
from .jobs import PROJECT, container, pod

THIRD = '''\
"""Runs a command under env, which tells it its image."""

from ..process import Launch
from .base import Setting

ISOLATED = False
NEEDS_IMAGE = True


def prepare(setting: Setting) -> None:
    pass


def launch(setting: Setting) -> Launch:
    mark = "IMAGE=" + setting.image.path
    return Launch(("/usr/bin/env", mark) + setting.runtime.options + setting.command, setting.environment, "/")


def main_process(pid: int) -> int:
    return pid


def init_process(pid: int) -> int:
    return pid
'''
_CHECK = "import sys; from slurm_plugin.config import RuntimeSettings; print(RuntimeSettings(kind=sys.argv[1]).kind)"


@pytest.mark.parametrize("kind", kinds())
def test_every_runtime_has_what_the_runner_asks_of_it(kind: str) -> None:
    runtime = load(kind)
    wanted = ["prepare", "launch", "main_process", "init_process"]
    wanted += ["settle", "gate_directory", "inner_processes"] if runtime.ISOLATED else []
    wanted += ["pull_commands", "pull_path", "pull_variables", "image_config"] if runtime.NEEDS_IMAGE else []
    assert all(callable(getattr(runtime, name)) for name in wanted)
    assert RuntimeSettings(kind=kind).kind == kind


@pytest.mark.parametrize("kind", ["base", "no.such", "../x", "", "podman"])
def test_a_runtime_that_is_not_there_is_refused_and_the_others_are_named(kind: str) -> None:
    with pytest.raises(ValueError, match="there are apptainer and process"):
        load(kind)
    with pytest.raises(ValueError, match="must be 'apptainer' or 'process'"):
        RuntimeSettings(kind=kind)


def test_a_third_runtime_is_one_more_file(
    job: MakeJob, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = tmp_path / "source"
    shutil.copytree(PROJECT / "slurm_plugin", source / "slurm_plugin", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "slurm_plugin" / "runner" / "runtimes" / "envelope.py").write_text(THIRD)
    tree = tmp_path_factory.mktemp("images") / "tree"  # apart from the jobs' directories
    tree.mkdir()

    checked = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(source)!r}); {_CHECK}", "envelope"]
    assert subprocess.run(checked, capture_output=True, text=True, check=True).stdout == "envelope\n"

    image = plan.Image("tree", str(tree), "IfNotPresent", insecure=False)
    script = container("a", "/bin/sh", "-c", "echo $IMAGE $OPTION", image=image)
    runtime = plan.Runtime("envelope", "", ("OPTION=x",))
    j = job(pod(script, runtime=runtime, image_paths=(str(tree.parent),), images=str(tmp_path / "cache")))
    assert j.run(source=source) == 0, j.state()
    assert j.log("a") == [f"stdout F {tree} x"]
    assert j.reasons("a") == ["Pulled", "Created", "Started"]
