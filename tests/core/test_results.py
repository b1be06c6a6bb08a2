"""What a batch hands out and when, and how many outcomes may wait in memory for a slow consumer."""

from __future__ import annotations

import pytest
from _places import Held, outcome

from aiopplx._core.batch.results import READY, Place


@pytest.mark.parametrize(
    ("ordered", "finished", "handed_out"),
    [
        (False, [2, 0, 1], [2, 0, 1, None]),
        (False, [], [None]),
        (True, [0, 1, 2], [0, 1, 2, None]),
        (True, [2, 0, 1], [0, 1, 2, None]),
        (True, [2, 1], [None]),
    ],
)
def test_order_in_which_outcomes_are_handed_out(
    ordered: bool, finished: list[int], handed_out: list[int | None]
) -> None:
    batch = Held(3, ordered=ordered)
    for index in finished:
        batch.finish(index)
    assert [batch.take() for _ in handed_out] == handed_out
    assert batch.results.handed_out == sum(index is not None for index in handed_out)


def test_news_come_with_each_outcome_and_each_taking() -> None:
    batch = Held(1)
    news = batch.results.news
    batch.finish(0)
    assert news.is_set()
    news.clear()
    batch.take()
    assert news.is_set()


def test_jobs_beyond_the_room_wait_until_one_is_taken() -> None:
    batch = Held(READY + 2)
    rooms = [place.has_room() for place in batch.places]
    assert rooms == [True] * READY + [False] * 2
    assert [place.is_parked for place in batch.places[READY:]] == [True, True]
    for place in batch.places[:READY]:
        place.deliver(outcome(place.index or 0))
    assert batch.unparked == []
    batch.take()
    assert batch.unparked == [batch.places[READY].sub]
    assert batch.places[READY].has_room()
    assert not batch.places[READY + 1].has_room()


def test_jobs_are_unparked_in_the_order_of_parking() -> None:
    batch = Held(READY + 3)
    for index in (*range(READY), READY + 2, READY, READY + 1):
        batch.places[index].has_room()
    for index in range(3):
        batch.places[index].polled(None)
    assert batch.unparked == [batch.places[index].sub for index in (READY + 2, READY, READY + 1)]


def test_poll_without_an_outcome_gives_its_room_on() -> None:
    batch = Held(READY + 1)
    for place in batch.places:
        place.has_room()
    batch.places[0].polled(None)
    assert batch.unparked == [batch.places[READY].sub]
    assert batch.places[READY].has_room()


def test_next_in_the_order_always_has_room() -> None:
    batch = Held(READY + 1, ordered=True)
    for index in range(1, READY + 1):
        batch.finish(index)
    assert batch.take() is None
    batch.finish(0)
    assert [batch.take() for _ in range(READY + 1)] == list(range(READY + 1))


def test_stored_outcomes_beyond_the_room_are_read_back_later() -> None:
    batch = Held(READY + 1, is_stored=True)
    for index in range(READY + 1):
        batch.finish(index)
    jobs = [place.job is not None for place in batch.places]
    assert jobs == [True] * READY + [False]
    assert batch.unparked == []
    assert [batch.take() for _ in range(READY + 1)] == list(range(READY + 1))


@pytest.mark.parametrize("ordered", [False, True])
def test_place_that_is_put_back_is_the_first_again(ordered: bool) -> None:
    batch = Held(2, ordered=ordered)
    batch.finish(0)
    batch.finish(1)
    place = batch.results.next()
    assert isinstance(place, Place)
    batch.results.put_back(place)
    assert [batch.take(), batch.take()] == [0, 1]


def test_letting_go_holds_nothing_and_ignores_what_comes_later() -> None:
    batch = Held(3)
    batch.finish(1)
    assert [job.id for job in batch.results.undelivered()] == ["job-1"]
    assert batch.results.let_go() == [batch.places[0], batch.places[2]]
    batch.finish(0)
    assert batch.take() is None
    assert batch.results.undelivered() == []
