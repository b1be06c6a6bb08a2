"""Both clocks keep what a session asks of a clock, and the jumping one jumps at the right moments."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx import ConfigError
from aiopplx.testing import Clock, JumpingClock

DAY = 86_400.0
CLOCKS: dict[str, Callable[[], Clock]] = {"fast": lambda: Clock(5_000_000.0), "jumping": JumpingClock}


@pytest.fixture(params=CLOCKS)
def clock(request: pytest.FixtureRequest) -> Clock:
    """On either, a day is over at once."""
    return CLOCKS[request.param]()


class Forever:
    """What nobody ends: a test is over when the clock ends it."""

    def __init__(self) -> None:
        self.was_cancelled = False

    async def __call__(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise


# --- what holds for both ---------------------------------------------------------------------------------------------


async def test_sleep_takes_its_seconds_of_the_clock(clock: Clock) -> None:
    began, dated = clock.now(), clock.wall()
    await clock.sleep(DAY)
    assert clock.now() - began >= DAY
    assert clock.wall() - dated >= 0.9 * DAY  # real wall time may be corrected in between


async def test_sleepers_sleep_in_parallel_and_wake_in_order(clock: Clock) -> None:
    woken: list[int] = []

    async def sleeper(days: int) -> None:
        await clock.sleep(days * 20 * DAY)
        woken.append(days)

    await asyncio.gather(*(sleeper(days) for days in (3, 1, 2)))
    assert woken == [1, 2, 3]


async def test_cancelled_sleeper_ends_at_once_and_wakes_nobody(clock: Clock) -> None:
    sleeper = asyncio.create_task(clock.sleep(1e9 * DAY))
    await asyncio.sleep(0)
    sleeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeper
    began = clock.now()
    await clock.sleep(DAY)
    assert clock.now() - began < 1e6 * DAY


async def test_event_that_comes_is_told_from_a_timeout(clock: Clock) -> None:
    event = asyncio.Event()
    assert await clock.wait(event, DAY) is False
    assert await clock.wait(event, -1.0) is False
    clock.call_at(clock.now() + DAY, event.set)
    assert await clock.wait(event, 1e9 * DAY) is True


async def test_timeout_cancels_what_takes_longer(clock: Clock) -> None:
    forever = Forever()
    with pytest.raises(TimeoutError):
        async with clock.timeout(DAY):
            await forever()
    assert forever.was_cancelled
    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]  # a test is a task


async def test_timeout_lets_pass_what_is_done_in_time(clock: Clock) -> None:
    async with clock.timeout(1e9 * DAY):
        await clock.sleep(DAY)
    async with clock.timeout(None):
        await clock.sleep(DAY)
    with pytest.raises(KeyError):
        async with clock.timeout(1e9 * DAY):
            raise KeyError


async def test_cancellation_from_outside_is_no_timeout(clock: Clock) -> None:
    async def bounded() -> None:
        async with clock.timeout(1e9 * DAY):
            await Forever()()

    task = asyncio.create_task(bounded())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_inner_of_two_timeouts_ends_first(clock: Clock) -> None:
    async with clock.timeout(1e9 * DAY):
        with pytest.raises(TimeoutError):
            async with clock.timeout(DAY):
                await Forever()()
        await clock.sleep(DAY)


async def test_waiting_for_futures_cancels_none_of_them(clock: Clock) -> None:
    done, never = asyncio.create_task(clock.sleep(DAY)), asyncio.create_task(Forever()())
    await clock.wait_all([done, never], 20 * DAY)
    assert (done.done(), never.done()) == (True, False)
    await clock.wait_all([done], None)
    never.cancel()
    await asyncio.gather(never, return_exceptions=True)


async def test_timer_is_called_once_and_never_early(clock: Clock) -> None:
    called: list[float] = []
    due = clock.now() + DAY
    clock.call_at(due, lambda: called.append(clock.now()))
    clock.call_at(due, lambda: called.append(clock.now())).cancel()
    await clock.sleep(2 * DAY)
    assert len(called) == 1
    assert called[0] >= due - clock.tick  # a timer of the loop may be a hair early


async def test_timer_of_the_past_is_called_at_once(clock: Clock) -> None:
    event = asyncio.Event()
    clock.call_at(clock.now() - DAY, event.set)
    assert await clock.wait(event, 20 * DAY)


async def test_exchanges_are_bounded_by_real_seconds() -> None:
    """However fast the clock: a wait of its own, which is over in no time, is far from the limit of an exchange."""
    clock, called = CLOCKS["fast"](), list[bool]()
    began = clock.wire_now()
    timer = clock.wire_at(began + DAY, lambda: called.append(True))
    await clock.sleep(2 * DAY)
    assert clock.wire_now() - began < DAY
    assert not called
    timer.cancel()


# --- the fast one ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", [0.0, -1.0, math.nan])
def test_speed_that_makes_no_time_pass_is_refused(speed: float) -> None:
    with pytest.raises(ConfigError, match="speed"):
        Clock(speed)


def test_clock_at_speed_one_shows_the_machines_time() -> None:
    before = time.time()
    assert before <= Clock().wall() <= time.time()
    before = time.monotonic()
    assert before <= Clock().now() <= time.monotonic()


def test_faster_clock_starts_today_and_runs_ahead() -> None:
    assert time.time() <= Clock(60.0).wall() <= time.time() + 60.0 * 3600.0  # an hour is longer than any test run


def test_later_clock_of_one_speed_is_never_behind() -> None:
    earlier = Clock(1000.0).wall()
    assert Clock(1000.0).wall() >= earlier


def test_clocks_that_begin_at_one_moment_agree() -> None:
    since = time.time() - 10.0
    assert Clock(60.0, since=since).wall() - since >= 600.0
    assert Clock(60.0, since=since).wall() <= Clock(60.0, since=since).wall()


def test_ticks_of_a_faster_clock_are_longer() -> None:
    assert Clock(60.0).tick == pytest.approx(60.0 * Clock().tick)
    assert Clock(60.0).suspension == pytest.approx(60.0 * Clock().suspension)


# --- the one that jumps ----------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=20))
def test_jumps_are_exactly_to_the_due_moments_in_order(delays: list[float]) -> None:
    async def main() -> None:
        clock = JumpingClock()
        began = clock.now()
        woken: list[float] = []

        async def sleeper(delay: float) -> None:
            await clock.sleep(delay)
            woken.append(clock.now())

        await asyncio.gather(*(sleeper(delay) for delay in delays))
        assert woken == sorted(began + delay for delay in delays)

    asyncio.run(main())


async def test_callbacks_due_together_run_in_the_order_scheduled() -> None:
    clock, called = JumpingClock(), list[int]()
    due = clock.now() + DAY
    for number in range(20):
        clock.call_at(due, lambda number=number: called.append(number))  # type: ignore[misc]  # mypy on a default in a lambda
    await clock.sleep(DAY)
    assert called == list(range(20))


async def test_time_stands_still_while_something_is_busy() -> None:
    clock, woken = JumpingClock(), asyncio.Event()
    began = clock.now()
    with clock.busy():
        clock.call_at(began + DAY, woken.set)
        with clock.busy():
            await turns()
        await turns()
        assert clock.now() == began
    await woken.wait()
    assert clock.now() == began + DAY


async def test_clock_waiter_inside_something_busy_is_woken() -> None:
    clock, other = JumpingClock(), asyncio.Event()
    began = clock.now()

    async def server() -> None:
        with clock.idle():
            await clock.sleep(DAY)
        await turns()  # and here it is busy again
        assert clock.now() == began + DAY

    with clock.busy():
        clock.call_at(began + 2 * DAY, other.set)
        await server()
    await other.wait()
    assert clock.now() == began + 2 * DAY


async def test_time_stands_still_while_callbacks_follow_one_another() -> None:
    """Each of them asks the clock for something, as the parts of a session do."""
    clock, woken = JumpingClock(), asyncio.Event()
    began = clock.now()
    clock.call_at(began + DAY, woken.set)
    for _ in range(500):
        await asyncio.sleep(0)
        clock.call_at(began + 2 * DAY, lambda: None).cancel()
    assert clock.now() == began
    await woken.wait()


async def test_cancelled_timer_is_not_jumped_to() -> None:
    clock = JumpingClock()
    began = clock.now()
    timers = [clock.call_at(began + DAY + n, lambda: None) for n in range(1000)]
    for timer in timers:
        timer.cancel()
        timer.cancel()
    await clock.sleep(2 * DAY)
    assert clock.now() == began + 2 * DAY
    assert clock.due == 0


async def test_moment_that_never_comes_is_not_jumped_to() -> None:
    clock = JumpingClock()
    began = clock.now()
    clock.call_at(math.inf, lambda: None).cancel()
    sleeper = asyncio.create_task(clock.sleep(math.inf))
    await clock.sleep(DAY)
    await turns()
    assert clock.now() == began + DAY
    sleeper.cancel()
    await asyncio.gather(sleeper, return_exceptions=True)


class Counting(asyncio.SelectorEventLoop):
    """A loop that counts its turns."""

    turns = 0

    def _run_once(self) -> None:
        self.turns += 1
        super()._run_once()  # type: ignore[misc]  # asyncio's own, which its stubs leave out


def test_hang_uses_no_turn_of_the_loop() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Counting)
        clock = JumpingClock()
        await clock.sleep(DAY)
        forever = asyncio.create_task(Forever()())
        for hang in (clock.busy(), anyio.CancelScope()):
            with hang:
                timer = clock.call_at(clock.now() + DAY, lambda: None)
                if isinstance(hang, anyio.CancelScope):
                    timer.cancel()
                await turns()
                before = loop.turns
                await asyncio.sleep(0.05)  # real time: what is counted is what happens in it
                assert loop.turns - before < 10
                timer.cancel()
        forever.cancel()
        await asyncio.gather(forever, return_exceptions=True)

    with asyncio.Runner(loop_factory=Counting) as runner:
        runner.run(main())


async def test_limit_of_an_exchange_comes_with_the_jumps() -> None:
    clock, late = JumpingClock(), asyncio.Event()
    began = clock.now()
    with clock.busy():
        clock.wire_at(clock.wire_now() + 60.0, late.set)
        with clock.idle():
            await late.wait()
    assert clock.now() - began == pytest.approx(60.0)


async def test_exchange_limit_comes_in_real_time_without_jumps() -> None:
    clock, late = JumpingClock(), asyncio.Event()
    began = clock.now()
    with clock.busy():
        clock.wire_at(clock.wire_now() + 0.01, late.set)
        await late.wait()
    assert clock.now() == began


async def test_limit_that_bounds_no_exchange_causes_no_jump() -> None:
    clock, early = JumpingClock(), asyncio.Event()
    began = clock.now()
    clock.wire_at(clock.wire_now() + DAY, early.set)
    await early.wait()
    assert clock.now() == began


async def test_cancelled_task_at_its_time_limit_is_cancelled() -> None:
    clock = JumpingClock()

    async def bounded() -> None:
        async with clock.timeout(DAY):
            await Forever()()

    task = asyncio.create_task(bounded())
    await asyncio.sleep(0)
    clock.call_at(clock.now() + DAY, task.cancel)  # at the same moment as the limit
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_coroutines_of_a_guarded_object_hold_time_still() -> None:
    class Store:
        size = 7

        async def write(self, what: str, *, twice: bool) -> str:
            await turns()
            return what * (1 + twice)

        async def follow(self) -> float:
            await turns()
            return clock.now()

        def note(self) -> str:
            return "noted"

    clock, woken = JumpingClock(), asyncio.Event()
    began = clock.now()
    store = clock.guard(Store(), but=["follow"])
    clock.call_at(began + DAY, woken.set)
    assert await store.write("a", twice=True) == "aa"
    assert clock.now() == began
    assert (store.size, store.note()) == (7, "noted")
    assert await store.follow() == began + DAY
    assert Clock().guard(store) is store


def test_clock_goes_on_in_another_loop() -> None:
    clock = JumpingClock(wall=1_000.0)
    assert clock.wall() == 1_000.0

    async def left() -> None:
        clock.call_at(clock.now() + 1.0, lambda: None)
        clock.busy().__enter__()
        await asyncio.sleep(0)

    asyncio.run(left())
    asyncio.run(clock.sleep(DAY))
    assert clock.wall() == 1_000.0 + DAY
    assert repr(clock) == "<JumpingClock at 86400.000 s, 0 due, 0 busy>"


async def turns() -> None:
    """More turns of the loop than a clock watches."""
    for _ in range(200):
        await asyncio.sleep(0)
