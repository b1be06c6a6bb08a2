"""Until when a session may send, and when it may declare others dead, by its own clock."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import time
from typing import Any, cast

import pytest

from aiopplx.journal._postgres.holding import Held, awake_or_not
from aiopplx.journal._postgres.lease import Lease, Timing


def beaten(*moments: float) -> Lease:
    lease = Lease(30.0)
    for moment in moments:
        lease.beaten(moment)
    return lease


def test_session_sends_for_two_thirds_of_a_lease() -> None:
    lease = beaten(100.0)
    assert [lease.may_intend(moment) for moment in (100.0, 119.9, 120.0, 200.0)] == [True, True, False, False]


def test_session_that_never_beat_sends_nothing() -> None:
    assert not Lease(30.0).may_intend(0.0)
    assert not Lease(30.0).may_reap(1e9)


def test_lost_lease_ends_sending_until_the_next_beat() -> None:
    lease = beaten(100.0)
    lease.lost()
    assert not lease.may_intend(100.0)
    lease.beaten(101.0)
    assert lease.may_intend(101.0)


def test_others_are_dead_after_two_leases_without_a_gap() -> None:
    moments = [float(moment) for moment in range(0, 61, 6)]
    assert not beaten(*moments[:-1]).may_reap(60.0)
    assert beaten(*moments).may_reap(60.0)
    assert not beaten(*moments).may_reap(90.0)  # it may be dead itself by now


def test_gap_begins_the_two_leases_anew() -> None:
    lease = beaten(*range(0, 61, 6), 80.0)
    assert not lease.may_reap(80.0)
    for moment in range(86, 140, 6):
        lease.beaten(float(moment))
        assert not lease.may_reap(float(moment))
    lease.beaten(140.0)
    assert lease.may_reap(140.0)


OUTAGES = [float(seconds) for seconds in range(0, 70, 2)]
PHASES = [0.0, 1.9, 3.7, 5.6, 7.4]
"""Seconds from an outage back to a session's last beat before it, at one beat each 7.5."""
BACK = [0.0, 1.0, 5.0, 11.0]
"""Seconds from its end to a session's first beat after it: a connection may take ten."""


def test_outage_makes_no_session_dead_for_another() -> None:
    timing = Timing()

    def beats(outage: float, phase: float, back: float) -> list[float]:
        before = [-phase - timing.beat * n for n in range(20)]
        return [*reversed(before), *(outage + back + timing.beat * n for n in range(20))]

    for outage, ours, theirs, back, backs in itertools.product(OUTAGES, PHASES, PHASES, BACK, BACK):
        lease, other = Lease(timing.lease), beats(outage, theirs, backs)
        for moment in beats(outage, ours, back):
            lease.beaten(moment)
            if lease.may_reap(moment):
                last = max(beat for beat in other if beat <= moment)
                assert moment - last <= timing.lease, (outage, ours, theirs, back, backs)


@pytest.mark.parametrize(("jump", "may"), [(0.0, True), (9.0, True), (-3600.0, True), (11.0, False), (3600.0, False)])
def test_servers_clock_that_is_set_on_begins_anew(jump: float, may: bool) -> None:
    """Every lease has run out then, also of those who live: they have to beat once before anybody is declared dead."""
    lease = Lease(30.0)
    for moment in range(0, 67, 6):
        lease.beaten(float(moment), 5_000.0 + moment + (jump if moment == 66 else 0.0))
    assert lease.may_reap(66.0) is may
    for moment in range(72, 133, 6):
        lease.beaten(float(moment), 5_000.0 + moment + jump)
    assert lease.may_reap(132.0)


def test_new_number_begins_the_two_leases_anew() -> None:
    lease = beaten(*range(0, 61, 6))
    lease.lost()
    lease.beaten(61.0)
    assert not lease.may_reap(61.0)


def test_four_beats_fit_into_a_lease() -> None:
    timing = Timing()
    assert timing.beat * 4 <= timing.lease
    assert timing.beat < timing.lease * 2 / 3


class Answering:
    """A database that knows the session."""

    beats = 0

    async def many(self, *statements: object) -> list[dict[str, float]]:
        return [{"id": 1, "said": 0.0}]

    async def fetch(self, sql: str, *values: object) -> list[dict[str, float]]:
        return [{"id": 1, "said": 0.0}]

    async def beat(self, sql: str, *values: object) -> list[dict[str, float]]:
        self.beats += 1
        return [{"id": 1, "said": 0.0}]


async def test_suspended_session_beats_before_it_sends_more() -> None:
    """Whatever the loop's own clock says, which stands still meanwhile."""
    moments = [100.0]
    database = Answering()
    held = Held(cast("Any", database), "schema", clock=None, timing=Timing(beat=600.0), now=lambda: moments[0])
    assert await held.enter({}, {})
    await held.ensure()
    assert (held.may_intend(), database.beats) == (True, 0)
    moments[0] += 3600.0
    assert not held.may_intend()
    await held.ensure()
    assert (held.may_intend(), database.beats) == (True, 1)
    await held.stop()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="this is the name of the clock on Linux")
def test_age_of_a_lease_counts_the_time_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 7200.0}.__getitem__)
    assert awake_or_not() == 7200.0


async def test_slow_freeing_holds_no_beat_up() -> None:
    """A dead session may have held a hundred thousand jobs."""
    went_on = asyncio.Event()
    is_freed: list[bool] = []

    class Freeing(Answering):
        async def fetch(self, sql: str, *values: object) -> list[dict[str, float]]:
            if "DELETE" in sql:
                before = self.beats
                while self.beats < before + 5:  # noqa: ASYNC110 - the beats are what is awaited
                    await asyncio.sleep(0.001)
                is_freed.append(True)
            return [{"id": 1, "said": 0.0}]

    moments = itertools.count(0.0, 2.0)
    held = Held(
        cast("Any", Freeing()), "schema", clock=None, timing=Timing(lease=30.0, beat=0.01), now=lambda: next(moments)
    )
    held.on_freed = went_on.set
    assert await held.enter({}, {})
    async with asyncio.timeout(60):
        await went_on.wait()
    await held.stop()
    assert is_freed[0]


async def test_beats_leave_one_at_a_time() -> None:
    """One connection carries one statement at a time, and two beats of one moment would end it."""

    class Slow(Answering):
        is_busy = False

        async def beat(self, sql: str, *values: object) -> list[dict[str, float]]:
            assert not self.is_busy, "another beat is on its way"
            self.is_busy = True
            self.beats += 1
            await asyncio.sleep(0)
            self.is_busy = False
            return [{"id": 1, "said": 0.0}]

    database = Slow()
    held = Held(cast("Any", database), "schema", clock=None, timing=Timing(lease=2400.0, beat=600.0))
    assert await held.enter({}, {})
    held._lease.lost()
    await asyncio.gather(*(held.ensure() for _ in range(5)))
    await held.stop()
    assert database.beats == 1, "the others find its lease renewed"


async def test_unexpected_failure_does_not_end_the_beats(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Answering):
        went_on = asyncio.Event()

        async def beat(self, sql: str, *values: object) -> list[dict[str, float]]:
            self.beats += 1
            if self.beats == 1:
                raise RuntimeError("as nobody expects")
            self.went_on.set()
            return [{"id": 1, "said": 0.0}]

    database = Failing()
    held = Held(cast("Any", database), "schema", clock=None, timing=Timing(lease=40.0, beat=0.01))
    assert await held.enter({}, {})
    async with asyncio.timeout(20):
        await database.went_on.wait()
    await held.stop()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
