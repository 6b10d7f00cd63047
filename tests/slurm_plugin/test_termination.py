import asyncio
from collections.abc import Awaitable, Callable

import pytest

from slurm_plugin.errors import HostError, TransportError
from slurm_plugin.job import JobId, JobState, JobStatus, PodUid
from slurm_plugin.jobdir import JobDir
from slurm_plugin.records import PodRecord
from slurm_plugin.runner.state import RunnerState
from slurm_plugin.termination import Termination

from .fakes import FakeHost, FakeSlurm, run_at_once

DIRECTORY = JobDir("/pods/1")
JOB = JobId("100")
TERM, CANCEL = ("signal", "100", "TERM"), ("cancel", "100")


class Scene:
    """One pod and the termination of it, in virtual time."""

    def __init__(self, state: JobState | None, runner: RunnerState | None = None) -> None:
        self.host, self.slurm = FakeHost(), FakeSlurm()
        self.record = PodRecord(PodUid("u"), "default", "web", submitted_id=JOB, runner=runner)
        if state is not None:
            self.record.job = self.slurm.statuses[JOB] = JobStatus(JOB, state, restart_count=0)
        self.termination = Termination(self.host, self.slurm, asyncio.get_running_loop().time)

    async def terminate(self, grace_seconds: int) -> None:
        await self.termination.terminate(self.record, self.record.job_id or JOB, DIRECTORY, grace_seconds)

    async def after(self, seconds: float) -> list[tuple[str, ...]]:
        """What Slurm was asked until then, since the last time."""
        await asyncio.sleep(seconds)
        asked, self.slurm.asked = self.slurm.asked, []
        return asked


def in_scene(
    state: JobState | None = JobState.RUNNING, runner: RunnerState | None = None
) -> Callable[[Callable[[Scene], Awaitable[None]]], Callable[[], None]]:
    """Run a test with a scene, in virtual time."""

    def decorate(test: Callable[[Scene], Awaitable[None]]) -> Callable[[], None]:
        async def play() -> None:
            made = Scene(state, runner)
            await test(made)
            made.termination.close()

        def run() -> None:
            run_at_once(play())

        run.__name__ = test.__name__
        return run

    return decorate


def runner_of(job_id: str = "100", restart: int = 0, *, final: bool = False) -> RunnerState:
    return RunnerState(1, 1, job_id, restart, "cn1", (), (), 1.0, 0.0, final, False, "", "", (), ())


@in_scene()
async def test_a_running_job_gets_term_and_is_cancelled_when_its_grace_is_over(scene: Scene) -> None:
    await scene.terminate(30)
    assert scene.host.files[DIRECTORY.grace] == b"30"
    assert await scene.after(39) == [TERM]
    assert await scene.after(2) == [CANCEL]
    assert await scene.after(10) == [CANCEL]


@in_scene()
async def test_a_job_that_ends_in_time_is_not_cancelled(scene: Scene) -> None:
    await scene.terminate(30)
    scene.termination.ended(PodUid("u"))
    assert await scene.after(3600) == [TERM]


@in_scene(JobState.PENDING)
async def test_a_waiting_job_is_cancelled_without_a_signal(scene: Scene) -> None:
    await scene.terminate(30)
    assert await scene.after(1) == [CANCEL]
    assert scene.host.files == {}


@in_scene(None)
async def test_a_job_that_slurm_was_not_asked_about_yet_is_cancelled(scene: Scene) -> None:
    await scene.terminate(30)
    assert await scene.after(1) == [CANCEL]


@in_scene(JobState.PENDING, runner_of())
async def test_a_job_whose_runner_speaks_already_gets_its_grace_although_slurm_lags_behind(scene: Scene) -> None:
    await scene.terminate(30)
    assert await scene.after(1) == [TERM]


@pytest.mark.parametrize("runner", [runner_of("99"), runner_of(final=True)])
def test_the_runner_of_another_job_or_one_that_ended_is_not_waited_for(runner: RunnerState) -> None:
    async def play(scene: Scene) -> None:
        await scene.terminate(30)
        assert await scene.after(1) == [CANCEL]

    in_scene(JobState.PENDING, runner)(play)()


@in_scene(JobState.SUSPENDED)
async def test_a_suspended_job_gets_term_and_then_is_cancelled(scene: Scene) -> None:
    await scene.terminate(5)
    assert await scene.after(16) == [TERM, CANCEL]


@in_scene()
async def test_no_grace_is_an_immediate_cancellation(scene: Scene) -> None:
    await scene.terminate(0)
    assert await scene.after(1) == [CANCEL]


@in_scene()
async def test_asking_again_with_as_much_or_more_grace_changes_nothing(scene: Scene) -> None:
    await scene.terminate(30)
    await scene.terminate(30)
    await scene.after(10)
    await scene.terminate(30)
    await scene.terminate(600)
    assert scene.host.files[DIRECTORY.grace] == b"30"
    assert await scene.after(31) == [CANCEL]


@in_scene()
async def test_asking_again_with_less_grace_shortens_it(scene: Scene) -> None:
    await scene.terminate(600)
    assert await scene.after(10) == [TERM]
    await scene.terminate(5)
    assert scene.host.files[DIRECTORY.grace] == b"5"
    assert await scene.after(14) == [TERM]
    assert await scene.after(2) == [CANCEL]
    assert await scene.after(5) == []


@in_scene()
async def test_a_grace_of_none_shortens_any(scene: Scene) -> None:
    await scene.terminate(600)
    await scene.terminate(0)
    assert await scene.after(1) == [TERM, CANCEL]


@in_scene()
async def test_a_request_that_did_not_arrive_is_made_again(scene: Scene) -> None:
    scene.slurm.break_("signal_batch")
    with pytest.raises(TransportError):
        await scene.terminate(30)
    await scene.terminate(30)
    assert await scene.after(1) == [TERM]


@in_scene()
async def test_cancelling_goes_on_while_slurm_is_away(scene: Scene) -> None:
    await scene.terminate(1)
    await scene.after(1)
    scene.slurm.break_("cancel")
    assert await scene.after(11) == []
    assert await scene.after(10) == [CANCEL]


@in_scene(JobState.PENDING)
async def test_a_twin_that_turns_out_to_run_the_pod_is_ended_too(scene: Scene) -> None:
    await scene.terminate(30)
    assert await scene.after(1) == [CANCEL]
    scene.record.claimed_by = JobId("99")
    assert await scene.after(10) == [("cancel", "99")]


@in_scene(JobState.PENDING)
async def test_asking_again_after_a_twin_took_the_pod_signals_the_twin(scene: Scene) -> None:
    await scene.terminate(30)
    assert await scene.after(1) == [CANCEL]
    scene.record.claimed_by = JobId("99")
    scene.record.runner = runner_of("99")
    await scene.terminate(30)
    assert await scene.after(1) == [("signal", "99", "TERM")]


@in_scene()
async def test_a_full_disk_keeps_no_job_from_being_ended(scene: Scene) -> None:
    """Whoever deletes pods may do so to make room."""

    async def write(path: str, data: bytes, *, mode: int = 0o600) -> None:
        raise HostError(f"{path}: No space left on device")

    scene.host.write = write  # type: ignore[method-assign]
    await scene.terminate(30)
    assert await scene.after(39) == [TERM]
    assert await scene.after(2) == [CANCEL]


class SlowSlurm(FakeSlurm):
    """A slurmctld that takes a second for each cancellation."""

    at_once = most_at_once = 0

    async def cancel(self, job_id: JobId) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(1)
        self.at_once -= 1
        await super().cancel(job_id)


def test_thousands_of_jobs_that_outlive_their_grace_are_not_cancelled_all_at_once() -> None:
    async def play() -> None:
        slurm = SlowSlurm()
        termination = Termination(FakeHost(), slurm, asyncio.get_running_loop().time)
        for number in range(1000):
            job = JobId(str(number))
            record = PodRecord(PodUid(f"u{number}"), "default", "web", submitted_id=job)
            record.job = JobStatus(job, JobState.RUNNING, restart_count=0)
            await termination.terminate(record, job, DIRECTORY, 30)
        await asyncio.sleep(600)
        termination.close()
        assert len({asked for asked in slurm.asked if asked[0] == "cancel"}) == 1000
        assert slurm.most_at_once <= 8

    run_at_once(play())


@pytest.mark.parametrize("grace_seconds", [0, 30])
def test_a_job_that_ends_while_slurm_is_asked_to_end_it_is_left_alone_afterwards(grace_seconds: int) -> None:
    async def play(scene: Scene) -> None:
        scene.slurm.answered.clear()
        asking = asyncio.create_task(scene.terminate(grace_seconds))
        await asyncio.sleep(1)
        scene.record.job = JobStatus(JOB, JobState.COMPLETED, restart_count=0)
        scene.termination.ended(PodUid("u"))
        scene.slurm.answered.set()
        await asking
        assert len(await scene.after(3600)) == 1
        assert not scene.termination.under_way(PodUid("u"))

    in_scene()(play)()


@in_scene()
async def test_closing_stops_everything_and_touches_no_job(scene: Scene) -> None:
    await scene.terminate(30)
    scene.termination.close()
    assert await scene.after(3600) == [TERM]
