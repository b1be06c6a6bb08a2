"""A limit of so many in any span of time: when it is found, and what ends the belief in it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._policy.spans import BRIEFEST, MOST, Span

START = 10_000.0


def served(limit: tuple[int, float], asked: Sequence[float], span: Span | None = None) -> Span:
    """What was told to requests that arrive at these seconds, one at a time, by a window; until it is found."""
    span, accepted = span or Span(), list[float]()
    most, seconds = limit
    for at in asked:
        now = START + at
        if sum(before > now - seconds for before in accepted) < most:
            accepted.append(now)
            if span.accept(now, now):
                break
        else:
            span.refuse(now)
    return span


def every(gap: float, until: float) -> list[float]:
    return [n * gap for n in range(int(until / gap))]


@pytest.mark.parametrize(("most", "seconds"), [(3, 1.0), (5, 1.0), (15, 5.0), (60, 60.0), (100, 60.0), (250, 600.0)])
def test_window_is_found_once_it_has_opened_again(most: int, seconds: float):
    """All places at once, a refusal now and then while it is closed, and all places again a little late."""
    asked = [0.3 * seconds / most * n for n in range(most + 1)] + [0.6 * seconds, 0.9 * seconds]
    span = served((most, seconds), [cycle * 1.04 * seconds + at for cycle in range(3) for at in asked])
    assert span.most == most
    assert span.seconds == pytest.approx(1.04 * seconds)


def test_place_is_free_again_a_span_later():
    span = served((4, 10.0), every(0.5, 26.0))
    assert span.most == 4
    last_four = sorted(at for at in span.taken)[-4:]
    assert span.opens(0, 1.0) == pytest.approx(last_four[0] + span.seconds)
    assert span.opens(1, 1.0) == pytest.approx(last_four[1] + span.seconds), "what is on its way takes a place"
    assert span.opens(0, 2.0) == pytest.approx(last_four[0] + span.seconds / 2.0)
    assert span.opens(4, 1.0) < START, "more are on their way than there are places: nothing is known of them"


def test_even_bucket_is_no_window():
    span, tokens, before = Span(), 12.0, 0.0
    for at in every(0.1, 60.0):
        tokens, before = min(12.0, tokens + (at - before) * 1.3), at
        if tokens >= 1.0:
            tokens -= 1.0
            span.accept(START + at, START + at)
        else:
            span.refuse(START + at)
    assert (span.most, span.is_over) == (0, True)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("share", [0.15, 0.3, 0.6])
def test_refusals_at_random_end_any_belief(share: float, seed: int):
    span, chance = Span(), random.Random(seed)
    for n in range(1_000):
        now = START + 0.1 * n
        if chance.random() < share:
            span.refuse(now)
        else:
            span.accept(now, now)
        if span.is_over:
            break
    assert span.is_over


def test_window_that_became_smaller_is_believed_no_more():
    span = served((8, 4.0), every(0.1, 10.0))
    assert span.most == 8
    served((2, 4.0), [20.0 + at for at in every(0.25, 10.0)], span)
    assert span.is_over


def test_window_that_became_larger_is_a_shorter_span():
    span = served((8, 4.0), every(0.1, 10.0))
    before = span.seconds
    for n in range(30):
        span.accept(START + 20.0 + 0.25 * n, START)
    assert span.most == 8
    assert span.seconds == pytest.approx(2.0)
    assert span.seconds < before


def test_slowest_windows_are_left_to_the_rate():
    """Three in a minute are less than any published limit."""
    assert served((3, 60.0), every(2.0, 300.0)).is_over


EVENTS = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.001, 0.1, 1.0, 30.0]), st.floats(0.0, 2.0)), max_size=400
)


@given(events=EVENTS)
def test_no_order_of_answers_breaks_it(events: list[tuple[bool, float, float]]):
    span, now = Span(), START
    for is_accepted, later, earlier in events:
        now += later
        span.accept(now - earlier, now - 1.0) if is_accepted else span.refuse(now - earlier)
        assert len(span.taken) <= 2 * MOST + 3
        assert span.taken == sorted(span.taken)
        assert not span.most or span.seconds >= BRIEFEST
        assert span.opens(0, 1.0) < now + max(span.seconds, 1.0) + 2.0
