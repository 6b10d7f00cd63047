"""A pod's end as interLink can tell it: by its containers alone."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.interlink.requests import pods_of
from sidecar.interlink.statuses import lost, status_of
from slurm_plugin.contract import PodReport
from slurm_plugin.job import JobId, JobState, JobStatus, PodUid
from slurm_plugin.runner.plan import APP, INIT
from slurm_plugin.runner.state import ContainerState, RunnerState, Running, Terminated, Waiting

from .test_requests import UID, recorded

(POD,) = pods_of(recorded("status"))
JOB = JobId("7")


def runner(*states: ContainerState, final: bool, reason: str = "") -> RunnerState:
    return RunnerState(
        format=1, version=1, job_id=JOB, restart=0, node="cn1", pod_ips=(), host_ips=(), started_at=1.0,
        finished_at=2.0 if final else 0.0, final=final, terminating=False, reason=reason, message="", containers=states,
        events=(),
    )  # fmt: skip


def container(name: str, kind: str, state: Any) -> ContainerState:
    return ContainerState(name, kind, state, None, 0, started=False, ready=False, image_id="")


def ended(code: int) -> Terminated:
    return Terminated(code, 0, "", "", 1.0, 2.0)


def told(state: JobState | None, said: RunnerState | None, *, absent: bool = False) -> Any:
    job = None if state is None else JobStatus(JOB, state)
    return status_of(POD, PodReport(PodUid(UID), "physics", "recorded", JOB, job, said, absent), now=3.0)


def codes(answer: Any) -> list[int]:
    return [each["state"]["terminated"]["exitCode"] for each in answer["containers"]]


@pytest.mark.parametrize(
    "answer",
    [
        told(JobState.CANCELLED, None),  # while it waited
        told(JobState.TIMEOUT, runner(container("main", APP, Running(1.0)), final=False)),
        told(JobState.FAILED, runner(container("first", INIT, ended(1)), container("main", APP, Waiting("", "")), final=True)),
        told(JobState.COMPLETED, runner(container("first", INIT, ended(0)), container("main", APP, ended(0)), final=True, reason="DeadlineExceeded")),
        told(None, None, absent=True),
        status_of(POD, lost(POD), now=3.0),
    ],
)  # fmt: skip
def test_a_pod_that_failed_has_no_container_that_waits_runs_or_ended_well(answer: Any) -> None:
    assert codes(answer)
    assert 0 not in codes(answer)


def test_a_pod_that_succeeded_has_containers_that_did() -> None:
    said = runner(container("first", INIT, ended(0)), container("main", APP, ended(0)), final=True)
    assert codes(told(JobState.COMPLETED, said)) == [0]


STATES = st.one_of(st.just(Waiting("", "")), st.just(Running(1.0)), st.builds(ended, st.sampled_from([0, 3])))


@given(job=st.sampled_from([None, *JobState]), main=STATES, first=STATES, final=st.booleans(), absent=st.booleans())
def test_every_answer_has_every_container_for_interlink_takes_none_for_success(
    job: JobState | None, main: Any, first: Any, final: bool, absent: bool
) -> None:
    answer = told(
        job, runner(container("first", INIT, first), container("main", APP, main), final=final), absent=absent
    )
    assert [each["name"] for each in answer["containers"]] == ["main"]
    assert [each["name"] for each in answer["initContainers"]] == ["first"]
