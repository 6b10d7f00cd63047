import time

from vkubelet.turns import Turns


def test_whoever_finds_no_turn_is_woken_in_order_when_one_is_given_back() -> None:
    woken: list[str] = []
    turns = Turns[str](1, woken.append)
    assert turns.take("a")
    assert not turns.take("b")
    assert not turns.take("c")
    assert not turns.take("b")
    turns.give_back()
    assert woken == ["b"]
    assert turns.take("b")
    turns.give_back()
    assert woken == ["b", "c"]


def test_one_that_was_woken_and_wants_no_turn_keeps_nobody_waiting_for_good() -> None:
    woken: list[str] = []
    turns = Turns[str](2, woken.append)
    assert turns.take("a")
    assert turns.take("b")
    for key in ("gone", "c", "d"):
        assert not turns.take(key)
    turns.give_back()
    turns.give_back()
    assert woken == ["gone", "c", "d"]


def test_who_wants_no_turn_lets_those_go_first_who_wait_for_one_for_a_while() -> None:
    woken: list[str] = []
    turns, now = Turns[str](1, woken.append), time.monotonic()
    assert turns.take("a")
    assert turns.yields("telling", now) is None
    assert not turns.take("b")
    assert turns.yields("long there", now - 11) is None
    left = turns.yields("telling", now)
    assert left is not None
    assert 5 < left <= 10
    turns.give_back()
    assert woken == ["b", "telling"]
