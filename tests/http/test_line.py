"""The line at the gate: who waits, who goes next, and what ends the waiting."""

from __future__ import annotations

import asyncio

import pytest
from _virtual import ask_for_silence

from aiopplx._errors import OutOfCredit
from aiopplx._http.line import Line
from aiopplx._policy.gate import Gate
from aiopplx._policy.retry import Bounds
from aiopplx._wire.call import Lane

START = 10_000.0
NO_BOUNDS = Bounds()


class Clock:
    """It stands still until a test moves it."""

    def __init__(self) -> None:
        self.time = START
        self.waits: asyncio.Queue[float] = asyncio.Queue()
        self.woken = asyncio.Event()

    def now(self) -> float:
        return self.time

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        self.waits.put_nowait(seconds)
        woken = asyncio.ensure_future(self.woken.wait())
        changed = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait({woken, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            changed.cancel()
        return event.is_set()

    def move(self, seconds: float) -> None:
        self.time += seconds
        self.woken.set()
        self.woken = asyncio.Event()

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        return asyncio.timeout(0 if seconds == 0.0 else None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def line(clock: Clock) -> Line:
    return Line(Gate(per_minute=60), clock)


def waiting(line: Line, *names: str, bounds: Bounds = NO_BOUNDS) -> tuple[list[str], list[asyncio.Task[None]]]:
    """Starts a task for each name that waits for a submission to leave, and lists those that left."""
    left: list[str] = []

    async def wait(name: str) -> None:
        await line.wait(Lane.SUBMIT, bounds, START)
        left.append(name)

    return left, [asyncio.ensure_future(wait(name)) for name in names]


async def test_open_gate_is_passed_in_one_step(line: Line):
    assert line.passes(Lane.SUBMIT, START)
    assert not line.passes(Lane.SUBMIT, START), "the pace holds the second one back"
    assert line.passes(Lane.POLL, START)


async def test_departures_may_be_fetched_ahead_from_elsewhere(clock: Clock):
    line, wanted = Line(Gate(), clock), asyncio.Event()
    limits = line.gate.limits
    limits.on_want.add(wanted.set)
    limits.allow(60.0, with_others=True)
    source = limits.fetched["submit"]
    left, tasks = waiting(line, "a", "b", "c", bounds=Bounds(until=START + 1.0))
    assert await clock.waits.get() == 1.0, "it holds none yet, and is asked again"
    assert wanted.is_set()
    assert source.order(clock.now()) == 1
    source.came(clock.now(), 1, 0.0)
    line.opened()
    await tasks[0]
    assert source.order(clock.now()) == 1, "the next one waits"
    source.came(clock.now(), 1, 2.0)
    line.opened()
    for task in tasks[1:]:
        with pytest.raises(TimeoutError):  # the next departure that it holds is known, and comes too late
            await task
    assert left == ["a"]


async def test_nothing_is_fetched_in_a_silence(clock: Clock):
    line = Line(Gate(), clock)
    line.gate.limits.allow(60.0, with_others=True)
    line.gate.heard_of_silence(START, 5.0)
    _, (task,) = waiting(line, "a")
    assert await clock.waits.get() == 5.0
    assert line.gate.limits.fetched["submit"].order(START) == 0
    task.cancel()
    await asyncio.wait([task])


async def test_first_come_is_first_served(line: Line, clock: Clock):
    assert line.passes(Lane.SUBMIT, START)
    left, tasks = waiting(line, "a", "b", "c")
    for count in range(1, 4):
        assert await clock.waits.get() == 1.0
        clock.move(1.0)
        await tasks[count - 1]
        assert left == ["a", "b", "c"][:count]


async def test_nobody_overtakes_a_waiter(line: Line, clock: Clock):
    assert line.passes(Lane.SUBMIT, START)
    left, (task,) = waiting(line, "a")
    await clock.waits.get()
    clock.time += 1.0  # the moment has come, and the one in front has not noticed yet
    assert not line.passes(Lane.SUBMIT, START)
    clock.move(0.0)
    await task
    assert left == ["a"]


async def test_lanes_do_not_wait_for_one_another(line: Line, clock: Clock):
    assert line.passes(Lane.SUBMIT, START)
    _, (task,) = waiting(line, "a")
    await clock.waits.get()
    assert line.passes(Lane.POLL, START)
    clock.move(1.0)
    await task


async def test_first_in_line_asks_again_after_a_change(line: Line, clock: Clock):
    ask_for_silence(line.gate, START, 100.0)
    left, (task,) = waiting(line, "a")
    assert await clock.waits.get() == 100.0
    clock.time += 60.0
    line.wake()
    assert await clock.waits.get() == 40.0
    assert left == []
    clock.move(40.0)
    await task


async def test_next_moves_up_when_the_first_gives_up(line: Line, clock: Clock):
    assert line.passes(Lane.SUBMIT, START)
    left, (first, second) = waiting(line, "a", "b")
    await clock.waits.get()
    first.cancel()
    await clock.waits.get()
    clock.move(1.0)
    await second
    assert left == ["b"]
    assert line.passes(Lane.POLL, START)


async def test_stop_reaches_waiters_as_copies(line: Line, clock: Clock):
    ask_for_silence(line.gate, START, 100.0)
    _, (task,) = waiting(line, "a")
    await clock.waits.get()
    error = OutOfCredit("no credit")
    line.gate.halt(error, Lane.SUBMIT, START)
    line.wake()
    with pytest.raises(OutOfCredit) as raised:
        await task
    assert raised.value is not error


@pytest.mark.parametrize(
    "bounds",
    [Bounds(until=START + 99.0), Bounds(silence=99.0), Bounds(unanswered=5.0)],
    ids=["until", "silence", "unanswered"],
)
async def test_pointless_wait_ends_at_once(line: Line, bounds: Bounds):
    line.gate.submit_failed(START - 10.0)
    ask_for_silence(line.gate, START, 100.0)
    with pytest.raises(TimeoutError):
        await line.wait(Lane.SUBMIT, bounds, START)


async def test_wait_behind_another_ends_at_its_moment(line: Line, clock: Clock):
    ask_for_silence(line.gate, START, 100.0)
    _, (task,) = waiting(line, "a")
    await clock.waits.get()
    with pytest.raises(TimeoutError):
        await line.wait(Lane.SUBMIT, Bounds(until=START), START)
    clock.move(100.0)
    await task
