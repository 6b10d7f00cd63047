from dataclasses import replace

import pytest

from slurm_plugin import parse
from slurm_plugin.errors import SlurmUnavailableError, UnparsableOutputError
from slurm_plugin.job import JobId, JobState, JobStatus
from slurm_plugin.podstatus import queue_place
from slurm_plugin.queueing import Line, Places, WaitingJob, rough, rough_start

NOW = 1_700_000_000
OURS = JobStatus(JobId("7"), JobState.PENDING, reason="Priority", partition="cpu,gpu", start_time=NOW + 60)
JOBS = {OURS.job_id: OURS}


@pytest.mark.parametrize(
    ("number", "told"), [(1, 1), (20, 20), (21, 20), (99, 100), (149, 100), (151, 200), (5432, 5000), (99999, 100000)]
)
def test_small_numbers_are_exact_and_large_ones_rough(number: int, told: int) -> None:
    assert rough(number) == told


def test_on_its_way_through_a_long_queue_a_job_is_told_a_few_dozen_places() -> None:
    assert len({rough(number) for number in range(1, 50_001)}) < 70


@pytest.mark.parametrize(
    ("ahead", "grain"), [(60, 300), (3599, 300), (3600, 3600), (86399, 3600), (86400, 86400), (10**6, 86400)]
)
def test_an_expected_start_is_rounded_up_the_more_the_further_it_is(ahead: int, grain: int) -> None:
    told = rough_start(NOW + ahead, NOW)
    assert told is not None
    assert told % grain == 0
    assert 0 <= told - (NOW + ahead) < grain


def test_no_start_is_expected_in_the_past() -> None:
    assert rough_start(None, NOW) is rough_start(NOW, NOW) is rough_start(NOW - 1, NOW) is None


def test_a_job_of_several_partitions_is_placed_where_fewest_are_before_it() -> None:
    waiting = (
        WaitingJob("1", ("cpu",), 90), WaitingJob("2_[1-9]", ("cpu",), 80), WaitingJob("3", ("gpu",), 60),
        WaitingJob("4", ("gpu",), 10), WaitingJob("7", ("cpu", "gpu"), 50), WaitingJob("8", ("cpu",), 0),
    )  # fmt: skip
    job = Line(waiting).placed(JOBS, NOW)[OURS.job_id]
    assert (job.priority, job.position, job.queue_length) == (50, 2, 3)
    assert queue_place(job) == (
        "about 2 of 3 waiting in partition cpu,gpu; priority 50; expected to start by 2023-11-14T22:15:00Z"
    )


def test_a_held_job_and_one_that_nobody_tells_have_no_place() -> None:
    for waiting in ((), (WaitingJob("7", ("cpu",), 0),)):
        job = Line(waiting).placed(JOBS, NOW)[OURS.job_id]
        assert (job.priority, job.position) == (None, None)
    running = {OURS.job_id: replace(OURS, state=JobState.RUNNING)}
    assert Line([WaitingJob("7", ("cpu",), 5)]).placed(running, NOW) == running
    assert queue_place(running[OURS.job_id]) == ""


class Client:
    def __init__(self) -> None:
        self.asked = 0
        self.away = False

    async def waiting(self) -> tuple[WaitingJob, ...]:
        self.asked += 1
        if self.away:
            raise SlurmUnavailableError("away")
        return (WaitingJob("7", ("cpu",), 50),)


async def test_places_are_asked_for_seldom_and_only_while_a_job_waits() -> None:
    client, now = Client(), [0.0]
    places = Places(client, seconds=30, monotonic=lambda: now[0], clock=lambda: NOW)
    running = {OURS.job_id: replace(OURS, state=JobState.RUNNING)}
    assert await places.of(running) == running
    assert client.asked == 0
    for now[0] in (1, 2, 30):
        assert (await places.of(JOBS))[OURS.job_id].position == 1
    assert client.asked == 1
    client.away, now[0] = True, 31
    assert (await places.of(JOBS))[OURS.job_id].position == 1, "what was known stays"
    assert client.asked == 2
    assert (await Places(client, seconds=0).of(JOBS))[OURS.job_id].position is None
    assert client.asked == 2


def test_the_queues_lines_are_read_and_nonsense_is_none() -> None:
    assert parse.waiting("7|50|cpu,gpu\n8_[1-3%1]|4294901757|low\n", ("squeue",)) == (
        WaitingJob("7", ("cpu", "gpu"), 50), WaitingJob("8_[1-3%1]", ("low",), 4294901757),
    )  # fmt: skip
    with pytest.raises(UnparsableOutputError):
        parse.waiting("7|high|cpu\n", ("squeue",))
