"""Which events are told, how often, and how many times they say that it happened."""

from slurm_plugin.runner.happenings import Happenings
from slurm_plugin.runner.state import MAX_EVENTS

HOUR = 3600


def fails(happenings: Happenings, words: str, now: float, *, container: str = "a") -> bool:
    return happenings.add("Warning", "Unhealthy", words, container, now)


def test_a_probe_that_fails_each_second_is_one_event_that_is_told_seventeen_times_an_hour() -> None:
    happenings = Happenings()
    told = [second for second in range(HOUR) if fails(happenings, "Readiness probe failed: no", float(second))]
    assert told == [0, 10, 20, 40, 80, 160, 320, *range(620, HOUR, 300)]
    assert len(told) == 17
    (event,) = happenings.events
    assert (event.sequence, event.times, event.at, event.last_at) == (1, HOUR, 0.0, HOUR - 1.0)


def test_what_happens_to_another_container_or_for_another_reason_is_another_event() -> None:
    happenings = Happenings()
    assert fails(happenings, "no", 0.0)
    assert fails(happenings, "no", 0.0, container="b")
    assert happenings.add("Normal", "Pulled", "no", "a", 0.0)
    assert happenings.add("Normal", "Unhealthy", "no", "a", 0.0)
    assert [(event.sequence, event.times) for event in happenings.events] == [(1, 1), (2, 1), (3, 1), (4, 1)]


def test_failures_that_differ_in_their_words_alone_are_ten_events_and_one_for_all_the_others() -> None:
    happenings = Happenings()
    told = [second for second in range(HOUR) if fails(happenings, f"failed after {second} s", float(second))]
    assert told == [*range(11), 20, 30, 50, 90, 170, 330, *range(630, HOUR, 300)]
    assert [event.times for event in happenings.events] == [1] * 10 + [HOUR - 10]
    assert happenings.events[-1].message == "(combined from similar events): failed after 3599 s"


def test_similar_events_of_long_ago_combine_nothing() -> None:
    happenings = Happenings()
    for number in range(20):
        assert fails(happenings, f"failed {number}", number * 61.0)
    assert [event.times for event in happenings.events] == [1] * 20


def test_the_last_events_are_kept_and_what_was_dropped_begins_anew() -> None:
    happenings = Happenings()
    fails(happenings, "no", 0.0)
    for number in range(MAX_EVENTS):
        happenings.add("Normal", f"Reason{number}", "", "a", 1.0)
    assert len(happenings.events) == MAX_EVENTS
    assert fails(happenings, "no", 2.0)
    assert (happenings.events[-1].sequence, happenings.events[-1].times) == (MAX_EVENTS + 2, 1)
