"""Departures that were fetched ahead: when one is asked for, how many are held, and what processes send together."""

from __future__ import annotations

from collections import Counter

import pytest
from _virtual import START, Steps, World
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._policy.departures import AT_ONCE, GOOD_FOR, GUESS, Fetched
from aiopplx._policy.limits import Limits
from aiopplx._wire.call import Lane


def fetched(per_minute: float = 60.0, burst: float = 1.0) -> Fetched:
    source = Fetched(lambda: None)
    source.allow(per_minute, burst)
    return source


def held(source: Fetched, now: float, *moments: float) -> Fetched:
    for moment in moments:
        source.want(now)
        source.order(now)
        source.came(now, 1, moment - now)
    return source


def test_nothing_is_fetched_unless_somebody_waits() -> None:
    calls: list[str] = []
    source = Fetched(lambda: calls.append("wanted"))
    source.allow(60.0, 1.0)
    assert (source.order(START), source.delay(START), calls) == (0, AT_ONCE, [])
    source.want(START)
    source.want(START)
    assert (calls, source.order(START), source.order(START), source.delay(START)) == (["wanted"], 1, 0, GUESS)


@pytest.mark.parametrize(("per_minute", "ahead"), [(1.0, 1), (1_200.0, 1), (1_201.0, 2), (60_000.0, 2)])
def test_two_are_held_above_twenty_a_second(per_minute: float, ahead: int) -> None:
    source = fetched(per_minute)
    source.want(START)
    assert source.order(START) == ahead
    source.came(START, ahead, 5.0)
    source.want(START)
    assert source.order(START) == 0
    assert source.delay(START) == 5.0
    source.leave(START + 5.0)
    source.want(START + 5.0)
    assert source.order(START + 5.0) == 1


def test_held_departure_says_when_it_leaves() -> None:
    source = held(fetched(), START, START + 3.0)
    assert (source.delay(START), source.waits_for_answer()) == (3.0, False)
    assert source.delay(START + 3.5) == -0.5
    source.leave(START + 3.5)
    assert source.waits_for_answer()


def test_departure_of_the_past_leaves_at_once() -> None:
    """What a limit has saved up is due since long, and not stale."""
    assert held(fetched(60.0, 60.0), START, START - 50.0).delay(START) == 0.0


def test_departure_that_was_not_used_is_forgotten() -> None:
    source = held(fetched(), START, START)
    late = START + 1.1
    assert source.delay(late) == AT_ONCE
    source.want(late)
    assert source.order(late) == 1


def test_departure_that_did_not_come_is_asked_for_again() -> None:
    source = fetched()
    source.want(START)
    source.failed(source.order(START))
    assert source.delay(START) == AT_ONCE
    source.want(START)
    assert source.order(START) == 1


def test_request_that_leaves_without_one_takes_none() -> None:
    source = fetched()
    source.leave(START)
    source.back(START)
    source.accepted(START, START)
    assert held(source, START, START + 2.0).delay(START) == 2.0


# --- several processes -----------------------------------------------------------------------------------------------


class Row:
    """What the database does in one statement."""

    def __init__(self) -> None:
        self.tat = START

    def reserve(self, now: float, count: int, source: Fetched) -> float:
        self.tat = max(self.tat, now) + count * source.interval
        return self.tat - now - count * source.interval - source.saved


def process(world: World, row: Row, source: Fetched, name: int, log: list[tuple[float, int]], stall: float) -> Steps:
    while True:
        source.want(world.now)
        if count := source.order(world.now):
            first = row.reserve(world.now, count, source)
            yield world.chance.uniform(0.0, 0.02)
            source.came(world.now, count, first)
        delay = source.delay(world.now)
        if delay > 0.0:
            yield delay
            continue
        source.leave(world.now)
        log.append((world.now, name))
        if world.chance.random() < 0.02:
            yield stall
        if world.now > START + 60.0:
            return


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 8),
    per_minute=st.sampled_from([60.0, 600.0, 2_000.0]),
    stall=st.sampled_from([0.0, 0.5, 3.0]),
)
def test_processes_together_never_send_more_than_allowed(
    seed: int, count: int, per_minute: float, stall: float
) -> None:
    world, row, log = World(seed), Row(), list[tuple[float, int]]()
    sources = [fetched(per_minute) for _ in range(count)]
    world.run(process(world, row, source, name, log, stall) for name, source in enumerate(sources))
    moments = [moment for moment, _ in log]
    interval = 60.0 / per_minute
    # What is held may leave late, by as much as it is good for.
    most = (10.0 + GOOD_FOR) / interval + 1 + 2 * count
    assert max(sum(begin <= moment < begin + 10.0 for moment in moments) for begin in moments[::25]) <= most
    if not stall:
        assert len(moments) >= 0.9 * 60.0 / interval, "and what is allowed is used"
        shares = Counter(name for _, name in log)
        assert min(shares.values()) >= 0.75 * max(shares.values()) - 2


# --- in the limits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("poll", "page", "names"),
    [(None, None, ["submit"] * 5), (600.0, 300.0, ["submit", "poll", "list", "poll", "poll"])],
)
def test_each_limit_of_a_tier_is_shared(poll: float | None, page: float | None, names: list[str]) -> None:
    limits = Limits()
    limits.allow_tier(60.0, poll, page, with_others=True)
    for lane, name in zip(Lane, names, strict=True):
        # The list of an API without a limit of its own on it is not shared.
        expected = {"list": page, "submit": 60.0, "poll": poll}[name]
        limits.lanes[lane].want(START)
        wanted = {which for which, source in limits.fetched.items() if source.order(START)}
        assert wanted == ({name} if expected and (lane is not Lane.LIST or page) else set())
        for which in wanted:
            limits.fetched[which].failed(1)


def test_shared_rate_holds_submissions_alone() -> None:
    limits = Limits()
    limits.allow(60.0, with_others=True)
    assert limits.lanes[Lane.SUBMIT].delay(START) > 0.0
    assert limits.lanes[Lane.POLL].delay(START) <= 0.0
    limits.allow(60.0)
    assert limits.lanes[Lane.SUBMIT].delay(START) <= 0.0


def test_departures_in_hand_stay_when_another_session_opens() -> None:
    limits = Limits()
    limits.allow(60.0, with_others=True)
    held(limits.fetched["submit"], START, START + 4.0)
    limits.allow(30.0, with_others=True)
    assert (limits.lanes[Lane.SUBMIT].delay(START), limits.fetched["submit"].interval) == (4.0, 2.0)


def test_nothing_is_fetched_while_a_refusal_is_obeyed() -> None:
    limits = Limits()
    limits.allow(60.0, with_others=True)
    held(limits.fetched["submit"], START, START)
    limits.lanes[Lane.SUBMIT].leave(START)
    limits.refused(Lane.SUBMIT, START + 0.1, START)
    limits.lanes[Lane.SUBMIT].want(START + 0.1)
    assert limits.fetched["submit"].order(START + 0.1) == 0
    limits.lanes[Lane.SUBMIT].want(START + 20.0)
    assert limits.fetched["submit"].order(START + 20.0) == 1
