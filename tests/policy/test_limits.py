"""Whether submissions and polls share a limit is found out, and never guessed where they do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from _limits import BEGAN, AtRandom, Bucket, Run
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._policy.limiter import Limiter
from aiopplx._policy.limits import Limits
from aiopplx._wire.call import Lane


def told(limits: Limits, lane: Lane, now: float, limit: int, remaining: int) -> None:
    limits.of(lane).leave(now)
    limits.of(lane).back(now)
    limits.said(lane, now, now, {"limit": limit, "remaining": remaining}, None, accepted=True)


def with_a_rate(limits: Limits, lane: Lane) -> None:
    """Requests of this lane meet a bucket, until its rate is known."""
    limit = limits.of(lane)
    run = Run(Bucket(50, 10), limit, 40, seed=3).run()
    assert limit.rate is not None
    limits.of(lane).in_flight = 0
    assert run.refused


def test_limits_are_apart_until_it_shows():
    limits = Limits()
    assert len({limits.submit, limits.poll, limits.list}) == 3
    assert not limits.is_shared
    assert limits.of(Lane.CANCEL) is limits.poll


# what a poll is told: the limit and how many are left, where submissions were told 50 and 20
@pytest.mark.parametrize(
    ("limit", "remaining", "joins"),
    [(50, 20, True), (50, 15, True), (50, 28, True), (50, 45, False), (6_000, 20, False), (6_000, 5_999, False)],
)
def test_headers_show_that_polls_share_a_limit(limit: int, remaining: int, joins: bool):
    limits = Limits()
    told(limits, Lane.SUBMIT, BEGAN, 50, 20)
    told(limits, Lane.POLL, BEGAN, limit, remaining)
    assert limits.is_shared is joins
    assert (limits.submit is limits.poll) is joins


def test_two_unused_limits_of_one_size_are_not_joined():
    limits = Limits()
    told(limits, Lane.SUBMIT, BEGAN, 500, 499)
    told(limits, Lane.POLL, BEGAN, 500, 498)
    assert not limits.is_shared


def leave_at_once(limits: Limits, lane: Lane, now: float, most: int = 200) -> int:
    """So many requests of this lane leave before one of them is answered."""
    source = limits.lanes[lane]
    for number in range(most):
        if source.delay(now) > 0.0:
            return number
        source.leave(now)
    return most


def test_first_polls_beside_a_known_rate_are_few():
    limits, now = Limits(), BEGAN
    for is_refused in (False, True, True, False, True):
        limits.submit.leave(now)
        limits.submit.back(now)
        if is_refused:
            limits.refused(Lane.SUBMIT, now + 0.2, now)
        else:
            limits.submit.accepted(now + 0.2, now)
        now += 1.0
    assert limits.submit.rate is not None
    assert not limits.is_shared
    assert leave_at_once(limits, Lane.POLL, now) == 2

    def accept(times: int) -> None:
        for _ in range(times):
            limits.poll.back(now)
            limits.poll.accepted(now + 1.0, now)

    accept(16)
    assert leave_at_once(limits, Lane.POLL, now + 1.0) <= 6
    accept(320)
    assert leave_at_once(limits, Lane.POLL, now + 1.0) >= 80, "where polls are accepted they are soon free again"


@pytest.mark.parametrize(
    ("known", "refused"), [(Lane.SUBMIT, Lane.POLL), (Lane.SUBMIT, Lane.CANCEL), (Lane.POLL, Lane.SUBMIT)]
)
def test_refusal_joins_it_to_a_limit_that_is_known(known: Lane, refused: Lane):
    limits = Limits()
    with_a_rate(limits, known)
    one = limits.of(known)
    limits.of(refused).leave(BEGAN + 500.0)
    limits.of(refused).back(BEGAN + 500.0)
    limits.refused(refused, BEGAN + 500.3, BEGAN + 500.0)
    assert limits.is_shared
    assert limits.submit is limits.poll is one
    assert limits.list is not one


def test_late_refused_poll_slows_no_submission_down():
    limits = Limits()
    limit = limits.submit
    Run(Bucket(300, 2), limit, 15, seed=1).run()
    limit.in_flight = 0
    rate = limit.rate
    assert rate == pytest.approx(5.0, rel=0.4)
    limits.poll.leave(BEGAN + 500.0)
    limits.poll.back(BEGAN + 500.0)
    limits.refused(Lane.POLL, BEGAN + 500.3, BEGAN + 500.0)
    assert limits.is_shared
    assert limit.rate == rate


def test_refusal_while_nothing_is_known_joins_nothing():
    limits = Limits()
    for _ in range(20):
        limits.refused(Lane.POLL, BEGAN, BEGAN)
    assert not limits.is_shared


def accept(limits: Limits, lane: Lane, times: int, since: float) -> None:
    """So many are accepted, one a second."""
    for second in range(times):
        limits.of(lane).leave(since + second)
        limits.of(lane).back(since + second)
        limits.of(lane).accepted(since + second + 0.2, since + second)


@pytest.mark.parametrize(("polls", "joins"), [(10, True), (100, False)])
def test_refused_poll_joins_nothing_if_too_many_were_accepted(polls: int, joins: bool):
    limits = Limits()
    with_a_rate(limits, Lane.SUBMIT)  # 50 a minute
    limits.submit.leave(BEGAN + 499.8)
    limits.submit.back(BEGAN + 499.8)
    limits.refused(Lane.SUBMIT, BEGAN + 500.0, BEGAN + 499.8)
    accept(limits, Lane.SUBMIT, 40, BEGAN + 501.0)
    accept(limits, Lane.POLL, polls, BEGAN + 501.0)
    limits.refused(Lane.POLL, BEGAN + 551.3, BEGAN + 551.0)
    assert limits.is_shared is joins


def test_limits_joined_by_noise_are_two_again():
    limits = Limits()
    with_a_rate(limits, Lane.SUBMIT)
    limits.refused(Lane.POLL, BEGAN + 500.3, BEGAN + 500.0)
    assert limits.is_shared
    Run(AtRandom(0.2, 3), limits.submit, 400, seed=3).run()
    assert limits.submit.usual > 0.0
    for at in (BEGAN + 5_000.0, BEGAN + 6_000.0):
        limits.refused(Lane.POLL, at, at - 0.3)
        assert not limits.is_shared
    assert limits.poll is not limits.submit
    assert limits.poll.usual == limits.submit.usual


def test_noise_of_one_limit_is_expected_of_all():
    limits = Limits()
    with_a_rate(limits, Lane.SUBMIT)
    Run(AtRandom(0.2, 3), limits.submit, 400, seed=3).run()
    limits.refused(Lane.LIST, BEGAN + 5_000.0, BEGAN + 5_000.0)
    assert limits.list.usual == limits.submit.usual > 0.0
    assert limits.list.rate is None


def test_refused_list_joins_nothing():
    limits = Limits()
    with_a_rate(limits, Lane.SUBMIT)
    limits.refused(Lane.LIST, BEGAN + 500.0, BEGAN + 500.0)
    assert not limits.is_shared


def test_what_is_in_flight_is_counted_over_the_joining():
    limits = Limits()
    with_a_rate(limits, Lane.SUBMIT)
    for _ in range(3):
        limits.poll.leave(BEGAN + 500.0)
    limits.refused(Lane.POLL, BEGAN + 500.3, BEGAN + 500.0)
    assert limits.submit.in_flight == 3


# --- what the user says -----------------------------------------------------------------------------------------------


def test_given_rate_is_of_submissions_alone():
    limits = Limits()
    limits.allow(20.0)
    for _ in range(10):
        limits.refused(Lane.POLL, BEGAN, BEGAN)
    assert limits.submit.is_given
    assert not limits.is_shared
    assert not limits.poll.is_given


@pytest.mark.parametrize(("poll", "is_shared"), [(None, True), (6_000.0, False)])
def test_tier_gives_each_limit_or_one_for_all(poll: float | None, is_shared: bool):
    limits = Limits()
    limits.allow_tier(50.0, poll, None)
    limits.allow_tier(50.0, poll, None)
    assert limits.is_shared is is_shared
    assert (limits.submit.rate, limits.submit.burst) == (50.0 / 60.0, 50.0)
    assert limits.poll.rate == (poll or 50.0) / 60.0


def test_what_was_found_holds_again_after_a_given_rate():
    limits = Limits()
    with_a_rate(limits, Lane.SUBMIT)
    limits.refused(Lane.POLL, BEGAN + 500.0, BEGAN + 500.0)
    found = limits.submit
    limits.allow(20.0)
    assert limits.submit is not found
    assert not limits.is_shared
    limits.allow(30.0)
    assert limits.submit.rate == 0.5
    limits.allow(None)
    assert limits.submit is limits.poll is found
    assert limits.is_shared


def test_refusal_of_a_given_rate_is_told_once():
    limits = Limits()
    limits.allow(20.0)
    assert not limits.is_refused_as_given()
    limits.refused(Lane.SUBMIT, BEGAN, BEGAN)
    assert limits.is_refused_as_given()
    limits.refused(Lane.SUBMIT, BEGAN + 50.0, BEGAN + 50.0)
    assert not limits.is_refused_as_given()


def test_next_api_begins_with_nothing_known():
    limits = Limits()
    with_a_rate(limits, Lane.SUBMIT)
    limits.forget()
    assert limits.submit.rate is None


# --- for a later run --------------------------------------------------------------------------------------------------


def test_later_run_knows_each_rate_and_its_limit():
    limits = Limits()
    with_a_rate(limits, Lane.SUBMIT)
    limits.refused(Lane.POLL, BEGAN + 500.0, BEGAN + 500.0)
    later = Limits()
    later.start_from(limits.export(1_000.0), BEGAN, 1_100.0)
    assert later.is_shared
    assert later.submit.rate == pytest.approx(limits.submit.rate)


@pytest.mark.parametrize("given_by", [lambda limits: limits.allow(7), lambda limits: limits.allow_tier(7, 60, None)])
def test_what_the_user_says_is_above_what_was_kept(given_by: Callable[[Limits], None]):
    limits = Limits()
    with_a_rate(limits, Lane.SUBMIT)
    later = Limits()
    given_by(later)
    later.start_from(limits.export(1_000.0), BEGAN, 1_100.0)
    assert later.submit.rate == 7.0 / 60.0


@pytest.mark.parametrize("kept", [b"", b"{", b"[]", b'{"submit": 5}', b"\xff\xfe", b'{"submit":{"rate":"x"}}'])
def test_what_cannot_be_read_is_passed_over(kept: bytes):
    limits = Limits()
    limits.start_from(kept, BEGAN, 1_000.0)
    assert limits.submit.rate is None


@given(
    counts=st.dictionaries(st.sampled_from(["limit", "remaining", "used", "reset"]), st.integers(0, 10**12)),
    lane=st.sampled_from(Lane),
    accepted=st.booleans(),
    until=st.none() | st.floats(0, 60),
)
def test_no_counts_shut_a_limit_for_long(counts: Mapping[str, int], lane: Lane, accepted: bool, until: float | None):
    limits = Limits()
    limits.said(lane, BEGAN, BEGAN, counts, until, accepted=accepted)
    limit: Limiter = limits.of(lane)
    assert limit.delay(BEGAN) <= max(12.0, until or 0.0) + 1e-6
