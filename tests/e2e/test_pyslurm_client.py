"""Slurm's library, by way of the real pyslurm, keeps what a SlurmClient promises.

On Slurm 26.05 only, for which pyslurm can be built: with `make test-versions`.
"""

import os
from collections.abc import AsyncIterator

import pytest

from slurm_plugin.clients.base import SlurmClient
from slurm_plugin.clients.pyslurm.client import PyslurmClient
from slurm_plugin.clients.pyslurm.library import Library
from slurm_plugin.job import ExitCode
from testbed.paths import Layout
from testbed.site import pyslurm
from tests.slurm_plugin.clients.contract import Jobs, SlurmClientContract

from .test_command_client import on_the_login_node
from .testbed import Testbed

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.environ.get("SLURM") != pyslurm.SLURM, reason="no pyslurm can be had for this Slurm"),
]


@pytest.fixture(scope="module")
def python() -> str:
    """A Python of the login node's that has pyslurm."""
    return pyslurm.ensure(Layout.from_environment().cache)


class TestPyslurmClient(SlurmClientContract):
    limit_words = "job submit limit"

    @pytest.fixture
    async def client(self, testbed: Testbed, python: str) -> AsyncIterator[SlurmClient]:
        host = on_the_login_node(testbed)
        client = PyslurmClient(Library(host, python=python))
        yield client
        await client.close()
        await host.close()

    async def test_a_job_gets_the_gpus_the_memory_and_the_warning_that_its_script_asks_for(
        self, client: SlurmClient, jobs: Jobs
    ) -> None:
        said = '"$SLURM_JOB_PARTITION ${CUDA_VISIBLE_DEVICES//[!,]/} $SLURM_MEM_PER_NODE $SLURM_CPUS_PER_TASK $HOME"'
        job_id = await jobs.submit(
            f"[ {said} = 'gpu , 300 2 /home/alice' ] || exit 1; sleep 60",
            "--partition=gpu", '--gres="gpu:a100:2"', '--mem="300M"', "--time=7", '--signal="B:USR1@400"',
            "--cpus-per-task=2", "--ntasks=1", '--export="NONE"', "--no-requeue", '--open-mode="append"',
        )  # fmt: skip
        # The warning comes 400 s before a limit of 420 s: at once, and to the batch script alone.
        ended = await jobs.when(job_id, lambda job: job.ended)
        assert (ended.partition, ended.exit_code) == ("gpu", ExitCode(0, 10))

    @pytest.fixture
    def directory(self) -> str:
        return "/scratch/alice"
