"""One timer serves many exchanges and cancels only those that are late."""

from __future__ import annotations

import asyncio
import math

import pytest

from aiopplx._http.limit import Limit
from aiopplx.testing import Clock, JumpingClock


async def waiting(limit: Limit, clock: JumpingClock, seconds: float) -> float:
    """An exchange whose answer is held back for so long. Returns when it was over."""
    try:
        with limit, clock.idle():
            await clock.sleep(seconds)
    except TimeoutError:
        return -clock.now()
    return clock.now()


async def test_only_the_exchange_that_is_late_is_ended() -> None:
    clock = JumpingClock()
    limit, began = Limit(60.0, clock), clock.now()
    first = asyncio.create_task(waiting(limit, clock, 59.0))
    late = asyncio.create_task(waiting(limit, clock, 61.0))
    await clock.sleep(30.0)
    second = asyncio.create_task(waiting(limit, clock, 50.0))
    also_late = asyncio.create_task(waiting(limit, clock, 1e6))
    ended = await asyncio.gather(first, late, second, also_late)
    assert ended == pytest.approx([began + 59.0, -(began + 60.0), began + 80.0, -(began + 90.0)])


async def test_limit_starts_afresh_when_it_is_used_again() -> None:
    clock = JumpingClock()
    limit = Limit(60.0, clock)
    for seconds in (59.0, 59.0, 61.0, 59.0):
        ended = await waiting(limit, clock, seconds)
        assert (ended > 0.0) is (seconds < 60.0)


async def test_cancellation_from_outside_is_not_a_time_limit() -> None:
    clock = JumpingClock()
    task = asyncio.create_task(waiting(Limit(60.0, clock), clock, 1e6))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_closed_limit_leaves_no_timer() -> None:
    clock = JumpingClock()
    limit = Limit(60.0, clock)
    with limit:
        assert clock.due == 1
    limit.close()
    limit.close()
    assert clock.due == 0


async def test_limit_counts_real_seconds_under_a_fast_clock() -> None:
    clock = Clock(1e6)
    with Limit(60.0, clock):
        await clock.sleep(3600.0)


async def test_closed_limit_ends_who_is_inside_as_late() -> None:
    limit = Limit(3600.0, Clock())
    inside = asyncio.Event()

    async def wait() -> str:
        try:
            with limit:
                inside.set()
                await asyncio.Event().wait()
        except TimeoutError:
            return "late"
        return "in time"

    task = asyncio.create_task(wait())
    await inside.wait()
    limit.close()
    assert await task == "late"
    assert not task.cancelling()


def test_limit_is_kept_for_a_task() -> None:
    async def main() -> None:
        said: list[str] = []

        def callback() -> None:
            try:
                Limit(60.0, Clock()).__enter__()
            except RuntimeError as error:
                said.append(str(error))

        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(0)
        assert "kept for a task" in said[0]

    asyncio.run(main())


def noticing(clock: Clock) -> tuple[Limit, list[float]]:
    """A limit of a minute with a notice after eight seconds, and when that came."""
    limit, noticed = Limit(60.0, clock, 8.0), list[float]()
    limit.notice = lambda: noticed.append(clock.now())
    return limit, noticed


async def test_slow_exchange_is_noticed_once_before_it_is_late() -> None:
    clock = JumpingClock()
    limit, noticed = noticing(clock)
    began = clock.now()
    slow = asyncio.create_task(waiting(limit, clock, 1e6))
    await clock.sleep(4.0)
    second = asyncio.create_task(waiting(limit, clock, 20.0))  # nobody begins between the notices of these two
    await clock.sleep(16.0)
    also_slow = asyncio.create_task(waiting(limit, clock, 30.0))
    quick = asyncio.create_task(waiting(limit, clock, 7.0))
    ended = await asyncio.gather(slow, second, also_slow, quick)
    assert [when - began for when in noticed] == pytest.approx([8.0, 12.0, 28.0], abs=1.0)
    assert ended == pytest.approx([-(began + 60.0), began + 24.0, began + 50.0, began + 27.0])


async def test_quick_exchanges_are_never_noticed() -> None:
    clock = JumpingClock()
    limit, noticed = noticing(clock)
    for _ in range(20):
        await waiting(limit, clock, 7.0)
        await clock.sleep(3.0)  # the clock calls the timer early now, since nothing is open
    assert noticed == []


async def test_limit_knows_since_when_exchanges_are_open() -> None:
    clock = JumpingClock()
    limit = Limit(60.0, clock)
    assert limit.open_since(0.0) == math.inf
    began = clock.wire_now()
    with limit:
        assert began <= limit.open_since(began) <= clock.wire_now()
        assert limit.open_since(clock.wire_now() + 1.0) == math.inf
    assert limit.open_since(0.0) == math.inf
