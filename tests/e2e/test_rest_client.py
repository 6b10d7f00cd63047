"""slurmrestd keeps what a SlurmClient promises, over TCP with a token and over a unix socket without one."""

import asyncio
import os
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from slurm_plugin.clients.base import SlurmClient
from slurm_plugin.clients.rest.client import RestClient
from slurm_plugin.clients.rest.connection import Address, Connection
from slurm_plugin.clients.rest.tokens import HostTokens, NoTokens, TokenFile
from slurm_plugin.errors import SlurmUnavailableError
from slurm_plugin.job import JobState
from testbed.paths import Layout
from tests.slurm_plugin.clients.contract import Jobs, SlurmClientContract, script

from .test_command_client import on_the_login_node
from .testbed import Testbed
from .waiting import wait_until

pytestmark = pytest.mark.e2e

DIRECTORY = "/scratch/alice"
OLD = os.environ.get("SLURM") == "22.05"
not_in_v0_0_38 = pytest.mark.skipif(OLD, reason="v0.0.38 can't: docs/connections.md")


@pytest.fixture(scope="module")
def socket(testbed: Testbed) -> Iterator[Path]:
    """The socket of a slurmrestd of alice's own, which asks the kernel who calls."""
    place = Layout.from_environment().share / "slurmrestd"
    place.mkdir(exist_ok=True)
    os.chown(place, 2001, 2001)
    socket = place / f"{uuid.uuid4().hex[:8]}.sock"
    enter = ("nsenter", "-t", testbed.environment["SLURMLET_TESTBED_SITE_PID"], "-m", "--")
    become = ("setpriv", "--reuid=alice", "--regid=alice", "--init-groups", "--pdeathsig=KILL")
    daemon = subprocess.Popen(
        (*enter, *become, "slurmrestd", "-a", "rest_auth/local", f"unix:{socket}"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until("alice's slurmrestd to listen", socket.exists, seconds=30)
    yield socket
    daemon.kill()
    daemon.wait(10)


@pytest.fixture
async def connection(testbed: Testbed) -> AsyncIterator[Connection]:
    """Over TCP, with tokens that scontrol gives on the login node."""
    host = on_the_login_node(testbed)
    address = Address(testbed.environment["SLURMLET_TESTBED_SLURMRESTD"])
    connection = Connection(address, HostTokens(host, lifespan_seconds=600), user="alice")
    yield connection
    await connection.close()
    await host.close()


class RestClientContract(SlurmClientContract):
    limit_words = "job submit limit"
    tells_default_partition = False
    tells_cluster_name = not OLD

    test_a_jobs_ending_is_known_to_the_queue_and_to_accounting = not_in_v0_0_38(
        SlurmClientContract.test_a_jobs_ending_is_known_to_the_queue_and_to_accounting
    )
    test_a_signal_reaches_the_batch_process_and_no_other = not_in_v0_0_38(
        SlurmClientContract.test_a_signal_reaches_the_batch_process_and_no_other
    )
    test_a_requeued_job_is_the_same_job_with_one_more_restart = not_in_v0_0_38(
        SlurmClientContract.test_a_requeued_job_is_the_same_job_with_one_more_restart
    )

    @pytest.fixture
    def directory(self) -> str:
        return DIRECTORY


class TestOverTCP(RestClientContract):
    @pytest.fixture
    async def client(self, connection: Connection) -> SlurmClient:
        return RestClient(connection, user="alice")


class TestOverAUnixSocket(RestClientContract):
    @pytest.fixture
    async def client(self, socket: Path) -> AsyncIterator[SlurmClient]:
        connection = Connection(Address(f"unix:{socket}"), NoTokens(), user="alice")
        yield RestClient(connection, user="alice")
        await connection.close()


async def test_a_token_file_is_read_again_when_it_changes(testbed: Testbed, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("eyJhbGciOiJIUzI1NiJ9.eyJzdW4iOiJhbGljZSJ9.wrong\n")
    address = Address(testbed.environment["SLURMLET_TESTBED_SLURMRESTD"])
    connection = Connection(address, TokenFile(str(token)), user="alice")
    client = RestClient(connection, user="alice")
    try:
        with pytest.raises(SlurmUnavailableError, match="token"):
            await client.jobs()
        host = on_the_login_node(testbed)
        token.write_bytes((await host.run(["scontrol", "token", "lifespan=600"], timeout=30)).stdout)
        await host.close()
        await client.jobs()
    finally:
        await connection.close()


async def test_a_jobs_way_through_slurm_is_seen_between_two_whole_lists(connection: Connection) -> None:
    client = RestClient(connection, user="alice")
    jobs = Jobs(client, DIRECTORY)
    await client.jobs()  # the whole list; what follows is told by states and single jobs
    job_id = await jobs.submit("exit 3", "--hold")
    seen = await jobs.state(job_id, JobState.PENDING)
    assert seen.reason == "JobHeldUser"
    host_job = await jobs.submit(f"scontrol release {job_id}")
    ended = await jobs.when(job_id, lambda job: job.ended)
    assert ended.exit_code is not None
    assert ended.exit_code.status == 3
    assert (await jobs.when(host_job, lambda job: job.ended)).state == JobState.COMPLETED


@not_in_v0_0_38
async def test_a_job_has_the_environment_of_its_user_and_the_scripts_own_options(connection: Connection) -> None:
    client = RestClient(connection, user="alice")
    jobs = Jobs(client, DIRECTORY)
    name = f"rest/{uuid.uuid4()}"
    job_id = await jobs.submit(
        'scontrol update jobid=$SLURM_JOB_ID comment="$HOME $USER $SLURM_CPUS_PER_TASK $SLURM_MEM_PER_NODE"; sleep 60',
        f'--job-name="{name}"', "--cpus-per-task=2", '--mem="300M"', "--time=7", '--signal="B:USR1@400"',
        '--dependency="singleton"', '--open-mode="append"', '--export="NONE"', "--no-requeue", "--ntasks=1",
    )  # fmt: skip
    # The warning comes 400 s before a limit of 420 s: at once, and to the batch script alone.
    ended = await jobs.when(job_id, lambda job: job.ended)
    assert ended.exit_code is not None
    assert ended.exit_code.signal == 10
    found = await client.find(name, directory=DIRECTORY, since=int(time.time()) - 60)
    assert [job.job_id for job in found] == [job_id]
    answer = await connection.get(f"/slurm/{{v}}/job/{job_id}", timeout=30)
    assert answer.body["jobs"][0]["comment"] == "/home/alice alice 2 300"
    assert answer.body["jobs"][0]["requeue"] is False


async def test_two_jobs_of_one_name_never_run_at_once(connection: Connection) -> None:
    client = RestClient(connection, user="alice")
    jobs = Jobs(client, DIRECTORY)
    options = (f"--job-name=rest/{uuid.uuid4()}", "--dependency=singleton")
    first, second = await asyncio.gather(jobs.submit("sleep 60", *options), jobs.submit("sleep 60", *options))
    first, second = sorted((first, second), key=int)
    await jobs.state(first, JobState.RUNNING)
    assert (await jobs.state(second, JobState.PENDING)).reason == "Dependency"
    for job_id in (second, first):
        await client.cancel(job_id)


async def test_nobody_listening_means_that_nothing_was_submitted() -> None:
    connection = Connection(Address("http://127.0.0.1:9"), NoTokens(), user="alice")
    with pytest.raises(SlurmUnavailableError, match="can't reach slurmrestd"):
        await RestClient(connection, user="alice").submit(script("true"), directory=DIRECTORY)
    await connection.close()
