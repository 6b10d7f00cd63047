"""What every SlurmClient promises, tried on a real Slurm; written once, inherited by the tests of each client.

The site must have a QOS ``small`` of at most two submitted jobs per user, and partitions ``cpu`` (default) and ``gpu``.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest

from slurm_plugin.clients.base import SlurmClient
from slurm_plugin.errors import SubmissionRejectedError
from slurm_plugin.job import ExitCode, JobId, JobKey, JobState, JobStatus
from slurm_plugin.queueing import QueueTelling

T = TypeVar("T")
PATIENCE_SECONDS = 120


async def until(look: Callable[[], Awaitable[T | None]]) -> T:
    """Look again and again until there is something to see."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (seen := await look()) is None:  # noqa: ASYNC110  nobody tells us when Slurm has changed
            await asyncio.sleep(0.1)
    return seen


def script(body: str, *options: str) -> str:
    return "\n".join(
        ["#!/bin/bash", "#SBATCH --output=/dev/null", *(f"#SBATCH {option}" for option in options), body, ""]
    )


class Jobs:
    """Submits jobs for one test and cancels them after it."""

    def __init__(self, client: SlurmClient, directory: str) -> None:
        self.client = client
        self.directory = directory
        self.submitted: list[JobId] = []

    async def submit(self, body: str, *options: str) -> JobId:
        job_id = await self.client.submit(script(body, *options), directory=self.directory)
        self.submitted.append(job_id)
        return job_id

    async def when(self, job_id: JobId, holds: Callable[[JobStatus], bool]) -> JobStatus:
        """Wait until the queue shows the job in such a condition."""

        async def look() -> JobStatus | None:
            job = (await self.client.jobs()).get(job_id)
            return job if job is not None and holds(job) else None

        return await until(look)

    async def state(self, job_id: JobId, state: JobState) -> JobStatus:
        return await self.when(job_id, lambda job: job.state == state and not job.flags)


class SlurmClientContract:
    """Inherited with fixtures ``client`` (the one to try) and ``directory`` (of its user's, there already)."""

    limit_words = "MaxSubmit"
    """What a refusal by a limit on the number of jobs says."""
    tells_default_partition = True
    tells_cluster_name = True

    @pytest.fixture
    async def jobs(self, client: SlurmClient, directory: str) -> AsyncIterator[Jobs]:
        jobs = Jobs(client, directory)
        yield jobs
        for job_id in jobs.submitted:
            await client.cancel(job_id)

    async def test_a_jobs_ending_is_known_to_the_queue_and_to_accounting(self, client: SlurmClient, jobs: Jobs) -> None:
        start = int(time.time())
        job_id = await jobs.submit("exit 7")
        job = await jobs.when(job_id, lambda job: job.ended)
        assert (job.state, job.exit_code) == (JobState.FAILED, ExitCode(7, 0))
        assert job.batch_host
        assert job.start_time is not None
        assert job.end_time is not None
        assert start - 5 <= job.start_time <= job.end_time

        async def accounted() -> JobStatus | None:
            found = (await client.ended_jobs([job_id], since=start)).get(job_id)
            return found if found is not None and found.ended else None

        job = await until(accounted)
        assert (job.state, job.exit_code) == (JobState.FAILED, ExitCode(7, 0))

    async def test_accounting_knows_nothing_of_a_job_that_never_was(self, client: SlurmClient) -> None:
        assert await client.ended_jobs([JobId("4000000000")], since=0) == {}

    async def test_a_refused_job_is_refused_in_slurms_own_words(self, jobs: Jobs) -> None:
        with pytest.raises(SubmissionRejectedError, match="Invalid account") as caught:
            await jobs.submit("true", "--account=nobody")
        assert not caught.value.limit

    async def test_a_limit_on_the_number_of_jobs_is_said_to_be_one(self, jobs: Jobs) -> None:
        with pytest.raises(SubmissionRejectedError, match=self.limit_words) as caught:  # noqa: PT012  the third or an earlier one
            for _ in range(3):
                await jobs.submit("true", "--hold", "--qos=small")
        assert caught.value.limit

    async def test_a_job_is_found_by_its_exact_name_and_directory(self, client: SlurmClient, jobs: Jobs) -> None:
        since, name = int(time.time()), f"contract/a:{uuid.uuid4()}"
        other = await jobs.submit("true", "--hold", f"--job-name={name}0")
        job_id = await jobs.submit("true", "--hold", f"--job-name={name}")
        again = await jobs.submit("true", "--hold", f"--job-name={name}")
        found = await client.find(name, directory=jobs.directory, since=since)
        assert [job.job_id for job in found] == [job_id, again]
        assert other not in {job.job_id for job in found}
        assert await client.find(name, directory="/", since=since) == ()
        keys = [JobKey(name, jobs.directory), JobKey(f"{name}0", jobs.directory), JobKey(name, "/")]
        queued = await client.queued(keys)
        ids = {key: {job.job_id for job in found} for key, found in queued.items()}
        assert ids == {keys[0]: {job_id, again}, keys[1]: {other}}
        assert await client.find(name[:-1], directory=jobs.directory, since=since) == ()

    async def test_a_signal_reaches_the_batch_process_and_no_other(self, jobs: Jobs, client: SlurmClient) -> None:
        since, ready = int(time.time()), f"ready:{uuid.uuid4()}"
        trap = "trap 'kill -0 $child && exit 9; exit 1' TERM; sleep 300 & child=$!"
        job_id = await jobs.submit(f"{trap}; scontrol update jobid=$SLURM_JOB_ID name={ready}; wait; exit 2")

        async def renamed() -> bool | None:
            return bool(await client.find(ready, directory=jobs.directory, since=since)) or None

        await until(renamed)
        await client.signal_batch(job_id, "TERM")
        assert (await jobs.when(job_id, lambda job: job.ended)).exit_code == ExitCode(9, 0)

    async def test_signalling_a_held_job_neither_waits_nor_ends_it(self, client: SlurmClient, jobs: Jobs) -> None:
        job_id = await jobs.submit("true", "--hold")
        async with asyncio.timeout(10):
            await client.signal_batch(job_id, "TERM")
        assert (await client.jobs())[job_id].state == JobState.PENDING

    async def test_a_held_job_is_among_everybodys_waiting_ones_and_a_running_one_is_not(
        self, client: SlurmClient, jobs: Jobs
    ) -> None:
        assert isinstance(client, QueueTelling)
        running = await jobs.submit("sleep 60")
        await jobs.state(running, JobState.RUNNING)
        held = await jobs.submit("true", "--hold")
        await client.find("nobody:s", directory="/", since=int(time.time()))  # slurmrestd: as of the last whole list
        found = {each.job_id: each for each in await client.waiting()}
        assert (found[held].priority, running in found) == (0, False)

    async def test_cancelling_ends_a_pending_and_a_running_job_and_again_is_a_no_op(
        self, client: SlurmClient, jobs: Jobs
    ) -> None:
        pending, running = await jobs.submit("true", "--hold"), await jobs.submit("sleep 300")
        await jobs.state(running, JobState.RUNNING)
        for job_id in (pending, running):
            await client.cancel(job_id)
            assert (await jobs.when(job_id, lambda job: job.ended)).state == JobState.CANCELLED
            await client.cancel(job_id)
            await client.signal_batch(job_id, "TERM")

    async def test_a_job_that_never_was_is_cancelled_and_signalled_in_vain(self, client: SlurmClient) -> None:
        await client.cancel(JobId("4000000000"))
        await client.signal_batch(JobId("4000000000"), "TERM")

    async def test_a_requeued_job_is_the_same_job_with_one_more_restart(self, jobs: Jobs) -> None:
        job_id = await jobs.submit(
            '[ -n "$SLURM_RESTART_COUNT" ] || scontrol requeue $SLURM_JOB_ID; sleep 60', "--requeue"
        )
        job = await jobs.when(job_id, lambda job: bool(job.restart_count))
        assert job.restart_count == 1
        assert not job.ended
        # Why it waits is only known once the scheduler has looked at it again.
        assert (await jobs.when(job_id, lambda job: job.state == JobState.PENDING and bool(job.reason))).reason

    async def test_a_job_cannot_forge_another_by_its_name(self, client: SlurmClient, jobs: Jobs) -> None:
        forged = r"x\n4000000000|COMPLETED|0:0|0|cpu|1|1|1|n|n|None"
        job_id = await jobs.submit(f"scontrol update jobid=$SLURM_JOB_ID name=$'{forged}' && exit 5")
        assert (await jobs.when(job_id, lambda job: job.ended)).exit_code == ExitCode(5, 0)
        assert JobId("4000000000") not in await client.jobs()

    async def test_tasks_of_a_foreign_array_are_no_jobs_of_ours(self, client: SlurmClient, jobs: Jobs) -> None:
        array = await jobs.submit("sleep 300", "--array=1-2", "--hold")
        job_id = await jobs.submit("true", "--hold")
        known = await client.jobs()
        assert job_id in known
        assert array not in known

    async def test_many_jobs_are_submitted_at_once(self, client: SlurmClient, jobs: Jobs) -> None:
        ids = await asyncio.gather(*(jobs.submit("true", "--hold") for _ in range(24)))
        assert len(set(ids)) == 24
        assert set(ids) <= set(await client.jobs())

    async def test_the_cluster_has_nodes_in_partitions_and_gpus_by_type(self, client: SlurmClient) -> None:
        cluster = await client.cluster()
        assert cluster.name or not self.tells_cluster_name
        assert cluster.version[0].isdigit()
        partitions = {partition.name: partition for partition in cluster.partitions}
        assert partitions["cpu"].default or not self.tells_default_partition
        assert partitions["gpu"].up
        assert all(
            node.cpus > 0 and node.memory_mib > 0 and node.partitions <= set(partitions) for node in cluster.nodes
        )
        gpus = [kind for node in cluster.nodes if "gpu" in node.partitions for kind in node.gres]
        assert ("gpu", "a100") in gpus
