from slurm_plugin.clients.rest.queue import Queue
from slurm_plugin.clients.rest.reading import Row
from slurm_plugin.job import JobFlag, JobId, JobState, JobStatus

ONE, TWO = JobId("1"), JobId("2")


def row(
    job_id: JobId, state: JobState = JobState.RUNNING, user: str = "alice", flags: frozenset[JobFlag] = frozenset()
) -> Row:
    return Row(JobStatus(job_id, state, flags), "ns/pod:1", "/pods/1", user)


def listed(*rows: Row) -> Queue:
    queue = Queue("alice")
    queue.see_list({row.status.job_id: row for row in rows}, 100, now=0.0)
    return queue


def test_only_the_users_own_jobs_are_kept() -> None:
    assert set(listed(row(ONE), row(TWO, user="bob")).jobs) == {ONE}


def test_a_job_whose_state_changed_is_asked_for() -> None:
    queue = listed(row(ONE, JobState.COMPLETED), row(TWO, JobState.COMPLETED))
    assert queue.see_states({ONE: frozenset({"COMPLETED"}), TWO: frozenset({"COMPLETED", "COMPLETING"})}) == (TWO,)


def test_a_job_that_left_is_gone() -> None:
    queue = listed(row(ONE), row(TWO))
    queue.see_states({TWO: frozenset({"RUNNING"})})
    assert set(queue.jobs) == {TWO}


def test_a_submitted_job_is_asked_for_until_it_is_seen() -> None:
    queue = listed()
    queue.submitted(ONE)
    assert queue.see_states({}) == (ONE,)
    queue.see_job(ONE, row(ONE), now=1.0)
    assert set(queue.jobs) == {ONE}


def test_the_others_are_asked_for_in_turn() -> None:
    ids = [JobId(str(number)) for number in range(1, 9)]
    queue = listed(*(row(job_id) for job_id in ids))
    states = dict.fromkeys(ids, frozenset({"RUNNING"}))
    first = queue.see_states(states)
    for job_id in first:
        queue.see_job(job_id, row(job_id), now=5.0)
    second = queue.see_states(states)
    assert len(first) < len(ids)
    assert not set(first) & set(second)


def test_the_whole_list_is_due_after_a_minute() -> None:
    queue = Queue("alice")
    assert queue.stale(0.0)
    queue.see_list({}, None, now=0.0)
    assert not queue.stale(59.0)
    queue.see_no_change(50.0)
    assert not queue.stale(100.0)
    assert queue.stale(110.0)
