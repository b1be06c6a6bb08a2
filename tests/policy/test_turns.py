"""Whose departure the next one is: the order, and the shares of those who would otherwise wait for ever."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._policy.turns import CONTESTED, FLOOR, OVERDUE, Turn, Turns, Waiting

ALL = Waiting(submit_now=True, poll_now=True, submit=True, poll=True, poll_overdue=OVERDUE)


def given_out(waiting: Waiting, departures: int, *, prefers_results: bool = False) -> Counter[Turn | None]:
    turns = Turns()
    turns.prefers_results = int(prefers_results)
    return Counter(turns.take(waiting) for _ in range(departures))


@pytest.mark.parametrize("waits", list(product([False, True], repeat=4)), ids=str)
def test_departure_goes_to_something_that_waits(waits: tuple[bool, bool, bool, bool]):
    waiting = Waiting(*waits)
    taken = given_out(waiting, 100)
    there = {turn for turn, waits_here in zip(Turn, waits, strict=True) if waits_here}
    assert set(taken) <= (there or {None})
    first = next((turn for turn in Turn if turn in there), None)
    assert Turns().take(waiting) is first


def test_fifth_contested_departure_goes_to_the_batch():
    taken = given_out(Waiting(submit_now=True, submit=True), 100)
    assert taken == {Turn.SUBMIT_NOW: 80, Turn.SUBMIT: 20}


def test_fifth_contested_departure_of_calls_goes_to_a_poll():
    assert given_out(Waiting(submit_now=True, poll_now=True), 100) == {Turn.SUBMIT_NOW: 80, Turn.POLL_NOW: 20}


def test_overdue_poll_of_a_batch_gets_one_in_ten():
    assert given_out(Waiting(submit=True, poll=True, poll_overdue=OVERDUE), 100) == {Turn.SUBMIT: 90, Turn.POLL: 10}
    assert given_out(Waiting(submit=True, poll=True, poll_overdue=OVERDUE - 1), 100) == {Turn.SUBMIT: 100}


def test_preferred_results_get_one_in_two_if_likely():
    likely = Waiting(submit=True, poll=True, poll_is_likely=True)
    unlikely = Waiting(submit=True, poll=True)
    assert given_out(likely, 100, prefers_results=True) == {Turn.SUBMIT: 50, Turn.POLL: 50}
    assert given_out(unlikely, 100, prefers_results=True) == {Turn.SUBMIT: 100}
    assert given_out(likely, 100) == {Turn.SUBMIT: 100}


def test_uncontested_departure_counts_for_nobody():
    turns = Turns()
    for _ in range(CONTESTED - 1):
        assert turns.take(Waiting(submit_now=True, submit=True)) is Turn.SUBMIT_NOW
        for _ in range(7):
            assert turns.take(Waiting(submit_now=True)) is Turn.SUBMIT_NOW
    assert turns.take(Waiting(submit_now=True, submit=True)) is Turn.SUBMIT


@given(st.lists(st.builds(Waiting, *[st.booleans()] * 4, poll_overdue=st.floats(0, 200)), max_size=60))
def test_nobody_waits_for_ever_whatever_waits_beside(before: list[Waiting]):
    turns = Turns()
    for waiting in before:
        turns.take(waiting)
    taken = Counter(turns.take(ALL) for _ in range(CONTESTED * FLOOR))
    assert set(taken) == set(Turn)
