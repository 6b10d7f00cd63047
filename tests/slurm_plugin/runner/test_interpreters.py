"""A pod runs the same under old and new Pythons, from 3.6 on, those that are here. (Two that Debian supplies: tests/e2e.)"""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from slurm_plugin import archive
from slurm_plugin.runner import plan
from tests.slurm_plugin.test_archive import OLD_AND_NEW, found

from .jobs import Job, assert_many_sided, many_sided

pytestmark = pytest.mark.slow


class ArchivedJob(Job):
    """Its runner is the archive, in an environment as poor as a job's: no locale is in it."""

    def start(self, *, python: str = "", **_others: Any) -> subprocess.Popen[str]:
        program = Path(self.directory.path).parent / "slurmlet.pyz"
        program.write_bytes(archive.build().data)
        argv = [python, "-I", "-S", "-B", str(program), "run", self.directory.path]
        environment = {"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "42", "SLURMD_NODENAME": "cn1"}
        process = subprocess.Popen(
            argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/"
        )
        self.processes.append(process)
        return process


@pytest.mark.parametrize("python", OLD_AND_NEW[::3])
def test_a_pod_runs_on_old_and_new_pythons(tmp_path: Path, python: str) -> None:
    if (program := found(python)) is None:
        pytest.skip(f"no {python} here")
    values = {"SLURMLET_FILES": str(tmp_path), "VALUE": "it's ☃"}
    env = [plan.EnvEntry(name, value, expand=False, node_field="") for name, value in values.items()]
    what = many_sided()
    job = ArchivedJob(tmp_path / "pods" / "job", what, {each.name: env for each in what.containers})
    try:
        assert_many_sided(job, job.run(python=program))
    finally:
        job.close()
