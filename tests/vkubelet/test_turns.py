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


def test_one_that_wants_no_turn_any_more_makes_room_for_the_next() -> None:
    woken: list[str] = []
    turns = Turns[str](1, woken.append)
    assert turns.take("a")
    for key in ("gone", "gone too", "c", "d"):
        assert not turns.take(key)
    turns.forget("gone")
    turns.give_back()
    assert woken == ["gone too"]
    turns.forget("gone too")
    assert woken == ["gone too", "c"]


def test_one_that_was_woken_keeps_its_place_if_another_was_quicker() -> None:
    woken: list[str] = []
    turns = Turns[str](1, woken.append)
    assert turns.take("a")
    assert not turns.take("b")
    assert not turns.take("c")
    turns.give_back()
    assert turns.take("quicker")
    assert not turns.take("b")
    turns.give_back()
    assert woken == ["b", "b"]


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
    assert woken == ["b"]
    assert turns.take("b")
    assert woken == ["b", "telling"]


def test_one_that_yields_no_more_is_not_woken() -> None:
    woken: list[str] = []
    turns, now = Turns[str](1, woken.append), time.monotonic()
    assert turns.take("a")
    assert not turns.take("b")
    assert turns.yields("telling", now) is not None
    turns.forget("telling")
    turns.forget("b")
    assert woken == []
