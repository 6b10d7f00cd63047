import pytest

from vkubelet.owners import OwnerGate, Refusal

NO = Refusal("SlurmRejected", "Invalid account")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def woken() -> list[str]:
    return []


@pytest.fixture
def gate(clock, woken) -> OwnerGate[str]:
    return OwnerGate(woken.append, clock=clock)


def test_a_new_owners_first_pod_goes_alone_and_wakes_the_others_when_it_is_accepted(gate, woken):
    assert gate.enter("rs", "a") is None
    assert gate.enter("rs", "b")
    assert gate.enter("rs", "c")
    gate.accepted("rs", "a")
    assert sorted(woken) == ["b", "c"]
    assert gate.enter("rs", "b") is None
    assert gate.enter("rs", "c") is None


def test_a_deployment_that_is_always_rejected_calls_sbatch_at_most_ten_times_in_five_minutes(gate, clock):
    pods = [f"pod-{n}" for n in range(200)]
    calls = 0
    while clock.now < 300:
        for pod in pods:
            if gate.enter("rs", pod) is None:
                calls += 1
                gate.rejected("rs", pod, NO, limit_seconds=300)
        clock.now += 1
    assert 3 <= calls <= 10


def test_waits_after_rejections_double_up_to_the_limit(gate, clock):
    waits = []
    for _ in range(7):
        assert gate.enter("rs", "a") is None
        gate.rejected("rs", "a", NO, limit_seconds=300)
        waits.append(gate.wait_seconds("rs"))
        clock.now += waits[-1]
    assert waits == [10, 20, 40, 80, 160, 300, 300]


def test_rejections_of_jobs_under_way_at_once_count_as_one(gate):
    gate.enter("rs", "a")
    gate.accepted("rs", "a")
    for pod in "bcd":
        assert gate.enter("rs", pod) is None
    for pod in "bcd":
        gate.rejected("rs", pod, NO, limit_seconds=300)
    assert gate.wait_seconds("rs") == 10


def test_a_closed_owner_says_why_and_an_open_one_does_not(gate, clock):
    gate.enter("rs", "a")
    gate.rejected("rs", "a", NO, limit_seconds=300)
    assert gate.refusal("rs") == NO
    assert gate.refusal("other") is None
    clock.now = 10
    gate.enter("rs", "a")
    gate.accepted("rs", "a")
    assert gate.refusal("rs") is None


def test_a_pod_that_leaves_without_a_verdict_lets_the_next_one_try(gate, woken):
    gate.enter("rs", "a")
    gate.enter("rs", "b")
    gate.left("rs", "a")
    assert woken == ["b"]
    assert gate.enter("rs", "b") is None


def test_of_many_owners_those_are_forgotten_that_were_refused_long_ago(gate, clock):
    for number in range(10_001):
        assert gate.enter(f"job-{number}", "a") is None
        gate.rejected(f"job-{number}", "a", NO, limit_seconds=300)
    clock.now = 100.0
    gate.rejected("closed", "a", NO, limit_seconds=300)
    assert gate.enter("new", "b") is None
    gate.accepted("new", "b")
    assert gate.refusal("job-0") is None
    assert gate.refusal("closed") is NO
    assert gate.enter("closed", "a")
