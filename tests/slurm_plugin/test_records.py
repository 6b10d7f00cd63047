from dataclasses import replace
from typing import Any

import pytest

from slurm_plugin.job import JobFlag, JobId, JobState, JobStatus, PodUid
from slurm_plugin.records import NOBODY, WITHDRAWN, PodRecord, Records
from slurm_plugin.runner.plan import APP
from slurm_plugin.runner.state import ContainerState, RunnerState, Running
from slurm_plugin.runner.usage import ContainerUsed, Usage
from slurm_plugin.watching import DirectoryView, UsageView

UID = PodUid("u")
JOB, TWIN = JobId("100"), JobId("101")


def state(version: int, *, job_id: str = "100", restart: int = 0, final: bool = False) -> RunnerState:
    return RunnerState(1, version, job_id, restart, "cn1", (), (), 1.0, 0.0, final, False, "", "", (), ())


def view(
    job_id: str | None = "100", claim: str | None = None, state: RunnerState | None = None, **more: Any
) -> DirectoryView:
    claimed = None if claim is None else (JobId(claim), 0)
    return DirectoryView(UID, "default", "web", JobId(job_id) if job_id else None, claimed, state, **more)


def status(job_id: str = "100", state: JobState = JobState.RUNNING, *flags: JobFlag) -> JobStatus:
    return JobStatus(JobId(job_id), state, frozenset(flags))


@pytest.fixture
def records() -> Records:
    """One pod, submitted as job 100."""
    records = Records()
    records.see_directory(view())
    return records


def record(records: Records) -> PodRecord:
    found = records.get(UID)
    assert found is not None
    return found


def see_queue(records: Records, *jobs: JobStatus, now: float = 0.0) -> tuple[list[PodUid], list[JobId]]:
    changed, missing = records.see_queue(records.unsettled(), {job.job_id: job for job in jobs}, now)
    return changed, [record.job_id for record in missing if record.job_id]


def asked(records: Records) -> list[JobId | None]:
    return [record.job_id for record in records.unsettled()]


def test_a_withdrawn_attempt_is_no_end_and_a_forbidden_pod_is(records: Records) -> None:
    withdrawn = DirectoryView(PodUid("u2"), "default", "p", None, (NOBODY, WITHDRAWN), None)
    records.see_directory(withdrawn)
    assert not [record for record in records if record.uid == "u2" and record.report().over]
    records.see_directory(replace(withdrawn, claim=(NOBODY, 0)))
    assert [record for record in records if record.uid == "u2" and record.report().over]


def test_what_changes_nothing_is_no_change(records: Records) -> None:
    assert not records.see_directory(view())
    assert see_queue(records, status()) == ([UID], [])
    assert see_queue(records, status()) == ([], [])


@pytest.mark.parametrize(
    ("old", "new", "taken"),
    [
        (state(1), state(2), True),
        (state(2), state(2), False),
        (state(2), state(1), False),
        (state(9), state(1, restart=1), True),
        (state(1, restart=1), state(9), False),
        (state(9, job_id="100"), state(1, job_id="101"), True),
    ],
)
def test_a_runners_state_is_replaced_only_by_a_later_one(
    records: Records, old: RunnerState, new: RunnerState, taken: bool
) -> None:
    records.see_directory(view(state=old))
    assert records.see_directory(view(state=new)) == taken
    assert record(records).runner == (new if taken else old)


def test_a_view_without_a_state_takes_none_away(records: Records) -> None:
    records.see_directory(view(state=state(1), claim="100"))
    records.see_directory(view(job_id=None))
    assert record(records).runner == state(1)
    assert record(records).job_id == JOB


def test_the_job_that_claimed_the_pod_is_the_pods_job(records: Records) -> None:
    see_queue(records, status("100", JobState.PENDING))
    assert records.see_directory(view(claim="101"))
    report = record(records).report()
    assert (report.job_id, report.job) == (TWIN, None)


def test_the_end_of_a_twin_is_not_the_end_of_the_pod(records: Records) -> None:
    see_queue(records, status("100", JobState.CANCELLED))
    assert record(records).settled
    records.see_directory(view(claim="101"))
    assert not record(records).settled
    assert asked(records) == [TWIN]


def test_a_job_that_claims_the_pod_is_not_ending_because_its_twin_is(records: Records) -> None:
    see_queue(records, status(state=JobState.COMPLETED))
    records.see_directory(view(claim="101"))
    assert not record(records).ending
    see_queue(records, status("101", JobState.COMPLETED), now=60)
    assert record(records).ending


def test_a_claim_for_nobody_ends_the_pod(records: Records) -> None:
    assert records.see_directory(view(job_id=None, claim=NOBODY))
    assert record(records).report().over
    assert record(records).job_id == JOB
    assert asked(records) == []


def test_a_directory_that_is_gone_ends_nothing(records: Records) -> None:
    assert not records.see_directory(view(gone=True))
    assert records.get(UID) is not None


def test_a_job_can_not_have_ended_before_it_was_submitted_nor_before_its_directory_was_made() -> None:
    records = Records()
    records.add(UID, "default", "web").submitted_id = JOB
    assert record(records).since is None
    records.see_directory(view(staged_at=1000))
    assert record(records).since == 1000
    records.see_directory(view(staged_at=2000))
    assert record(records).since == 1000
    see_queue(records, replace(status(), submit_time=1500))
    assert record(records).since == 1500


def test_a_name_that_could_not_be_read_at_first_is_filled_in() -> None:
    records = Records()
    records.see_directory(DirectoryView(UID, "", "", JOB, None, None))
    assert records.add(UID, "default", "web").job_name == "default/web:u"


@pytest.mark.parametrize("again", [JobFlag.COMPLETING, JobFlag.REQUEUED, JobFlag.SPECIAL_EXIT])
def test_a_job_that_still_ends_or_will_run_again_is_asked_about_further(records: Records, again: JobFlag) -> None:
    see_queue(records, status("100", JobState.FAILED, again))
    assert record(records).report().job == status("100", JobState.FAILED, again)
    assert asked(records) == [JOB]
    records.see_directory(view(claim="100", state=state(1, final=True)))
    see_queue(records, status("100", JobState.FAILED))
    assert asked(records) == []


@pytest.mark.parametrize("runner", [None, state(1)])
def test_the_runners_last_word_is_waited_for_although_slurm_says_that_the_job_has_ended(
    records: Records, runner: RunnerState | None
) -> None:
    records.see_directory(view(claim="100", state=runner))
    ended = status("100", JobState.COMPLETED)
    assert see_queue(records, ended, now=0.0) == ([], [])
    assert see_queue(records, ended, now=9.0) == ([], [])
    assert not record(records).report().over
    records.see_directory(view(claim="100", state=state(2, final=True)))
    assert see_queue(records, ended, now=9.5) == ([UID], [])
    assert record(records).report().over


def test_a_last_word_that_never_comes_is_not_waited_for_long(records: Records) -> None:
    records.see_directory(view(claim="100", state=state(1)))
    ended = status("100", JobState.NODE_FAIL)
    see_queue(records, ended, now=0.0)
    assert see_queue(records, ended, now=10.0) == ([UID], [])
    assert record(records).report().over


def test_a_job_that_never_began_has_no_last_word(records: Records) -> None:
    assert see_queue(records, status("100", JobState.CANCELLED)) == ([UID], [])


def test_a_job_submitted_during_the_query_is_not_missing(records: Records) -> None:
    before = records.unsettled()
    records.add(PodUid("late"), "default", "late").submitted_id = TWIN
    assert records.see_queue(before, {JOB: status()}, 0.0) == ([UID], [])


PATIENCE = 90.0


def see_accounting(records: Records, now: float, *jobs: JobStatus) -> list[PodUid]:
    _, missing = records.see_queue(records.unsettled(), {}, now)
    return records.see_accounting(missing, {job.job_id: job for job in jobs}, now, PATIENCE)


def test_absent_is_not_finished(records: Records) -> None:
    see_queue(records, status())
    assert see_accounting(records, 0.0) == []
    assert see_accounting(records, PATIENCE - 1) == []
    assert not record(records).report().over
    assert record(records).report().job == status()


def test_absent_for_too_long_is_lost(records: Records) -> None:
    see_queue(records, status())
    see_accounting(records, 0.0)
    assert see_accounting(records, PATIENCE) == [UID]
    report = record(records).report()
    assert (report.absent, report.job, report.over) == (True, None, True)


def test_a_job_that_is_back_in_the_queue_was_never_lost(records: Records) -> None:
    see_accounting(records, 0.0)
    see_queue(records, status(), now=50.0)
    assert see_accounting(records, PATIENCE) == []


def test_accounting_tells_how_a_job_ended(records: Records) -> None:
    ended = status("100", JobState.TIMEOUT)
    assert see_accounting(records, 0.0, ended) == [UID]
    assert record(records).report().job == ended
    assert asked(records) == []


@pytest.mark.parametrize("runner", [None, state(1)])
def test_the_last_word_is_waited_for_too_where_the_queue_forgets_jobs_at_once(
    records: Records, runner: RunnerState | None
) -> None:
    records.see_directory(view(claim="100", state=runner))
    see_queue(records, status(), now=0.0)
    ended = status("100", JobState.COMPLETED)
    assert see_accounting(records, 2.0, ended) == []
    assert not record(records).report().over
    records.see_directory(view(claim="100", state=state(2, final=True)))
    assert see_accounting(records, 3.0, ended) == [UID]


def test_a_last_word_that_never_comes_is_not_waited_for_long_by_accounting_either(records: Records) -> None:
    records.see_directory(view(claim="100", state=state(1)))
    ended = status("100", JobState.NODE_FAIL)
    assert see_accounting(records, 2.0, ended) == []
    assert see_accounting(records, 12.0, ended) == [UID]


def test_what_accounting_still_calls_running_has_not_ended(records: Records) -> None:
    assert see_accounting(records, 0.0, status()) == []


def test_the_runners_last_word_settles_what_neither_knows(records: Records) -> None:
    records.see_directory(view(claim="100", state=state(1, final=True)))
    assert see_accounting(records, 0.0) == [UID]
    assert record(records).report().over


DAY = 86400


def submitted(at: int, restarts: int = 0, state: JobState = JobState.RUNNING) -> JobStatus:
    return JobStatus(JOB, state, submit_time=at, restart_count=restarts)


def test_a_job_id_that_slurm_gives_again_is_another_job(records: Records) -> None:
    """Slurm begins anew when it has lost its state, and when there are no more ids."""
    see_queue(records, submitted(1000))
    assert see_queue(records, submitted(1060)) == ([UID], [])
    report = record(records).report()
    assert (report.over, report.job) == (True, None)
    assert asked(records) == []


def test_an_id_that_was_given_again_before_we_looked_is_another_job_by_when_ours_was_submitted() -> None:
    records = Records()
    records.see_directory(view(submitted_at=1000))
    see_queue(records, submitted(1000 + DAY))
    assert record(records).report().job == submitted(1000 + DAY)  # whose clock is wrong nobody knows
    records = Records()
    records.see_directory(view(submitted_at=1000, state=state(1, final=True)))
    assert see_queue(records, submitted(1001 + DAY)) == ([UID], [])
    assert record(records).report().over


def test_a_job_that_slurm_put_back_into_the_queue_is_still_ours(records: Records) -> None:
    records.see_directory(view(submitted_at=1000))
    see_queue(records, submitted(1000))
    again = submitted(1000 + 2 * DAY, 1, JobState.PENDING)
    assert see_queue(records, again) == ([UID], [])
    assert record(records).report().job == again
    assert see_queue(records, submitted(2000 + 2 * DAY, 2)) == ([UID], [])
    assert not record(records).report().over


def test_of_two_pods_with_one_job_id_each_hears_what_slurm_says() -> None:
    records = Records()
    records.see_directory(view(submitted_at=1000, state=state(1, final=True)))
    later = DirectoryView(PodUid("v"), "default", "db", JOB, None, None, submitted_at=1000 + 3 * DAY)
    records.see_directory(later)
    changed, _ = see_queue(records, submitted(1000 + 3 * DAY))
    assert changed == [UID, PodUid("v")]
    assert [each.report().over for each in records] == [True, False]


def test_a_forgotten_pod_is_unknown(records: Records) -> None:
    records.remove(UID)
    records.remove(UID)
    assert list(records) == []
    assert records.get(UID) is None


@pytest.mark.parametrize(
    ("job", "runner", "running"),
    [
        (None, None, False),
        (status(), None, True),
        (status(state=JobState.SUSPENDED), None, True),
        (status(state=JobState.PENDING), None, False),
        (status(state=JobState.PENDING), state(1), True),
        (None, state(1), True),
        (None, state(1, final=True), False),
        (None, state(1, job_id="7"), False),
        (JobStatus(JOB, JobState.PENDING, restart_count=1), state(1), False),  # requeued
    ],
)
def test_a_runner_can_be_spoken_to_while_it_runs(
    job: JobStatus | None, runner: RunnerState | None, running: bool
) -> None:
    assert PodRecord(UID, "default", "web", submitted_id=JOB, job=job, runner=runner).running == running


def test_a_job_that_has_claimed_the_pod_runs_though_neither_slurm_nor_the_runner_was_heard(records: Records) -> None:
    records.see_directory(view(claim="101"))
    assert record(records).running


def test_usage_counts_for_the_containers_that_run_in_this_run_of_the_job(records: Records) -> None:
    used = Usage("100", 0, 9.0, (ContainerUsed("main", 2.0, 7, 8), ContainerUsed("main", 1.0, 5, 5)), ())
    records.see_usage(UsageView(UID, used))
    records.see_usage(UsageView(PodUid("unknown"), used))
    assert records.usage() == ()
    container = ContainerState("main", APP, Running(2.0), None, 0, started=True, ready=True, image_id="")
    runner = state(1)._replace(containers=(container,))
    records.see_directory(view(state=runner))
    (usage,) = records.usage()
    assert (usage.uid, usage.time) == (UID, 9.0)
    assert [(c.name, c.started_at, c.cpu_nanoseconds) for c in usage.containers] == [("main", 2.0, 7)]
    records.see_usage(UsageView(UID, used._replace(restart=1)))
    assert records.usage() == ()
    records.see_usage(UsageView(UID, used))
    records.see_directory(view(state=runner._replace(version=2, final=True)))
    assert records.usage() == ()


def test_while_accounting_can_not_be_asked_no_absence_makes_a_job_lost(records: Records) -> None:
    _, missing = records.see_queue(records.unsettled(), {}, 0.0)
    assert records.see_no_accounting(missing, 0.0) == []
    assert records.see_no_accounting(missing, 10 * PATIENCE) == []
    assert see_accounting(records, 10 * PATIENCE + 1) == []
    assert see_accounting(records, 11 * PATIENCE) == [UID]
