"""A clock that leaves out the waiting: when nothing can happen before the next due moment, it is that moment.

This is a discrete-event simulation on a real event loop. Time stands still while anything can run, so that whatever
happens takes no time, and moves in jumps from one due moment to the next. Three questions make up the rule:

- *Is something on the wire?* Each exchange, and each step of a journal that runs in a thread, is counted by `busy`.
  While one is out, no jump is made: its answer belongs to this moment. One that waits for this clock itself (the
  emulator holds its answer back for some seconds) is taken out of the count by `idle`, or both would wait for ever.
- *Can something run?* An event loop does not say whether a callback is ready. So the clock watches some turns of the
  loop, each of which runs all that was ready and reads all sockets. If in all of these turns nobody began or ended an
  exchange, set or cancelled a timer, then whatever the last event set off has come to rest. A chain of more callbacks
  than that, none of which asks the clock for anything, would see a jump in its middle: it loses some time, not its way.
- *Is something due?* If not, nothing is watched and no turn is used up: a test that hangs sleeps.

An exchange with a server that does not run on this clock may never end. Its time limit therefore runs in both times,
the jumps and the real seconds, whichever comes first. This module knows nothing of what is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import inspect
import itertools
import math
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Final, TypeVar, cast

from aiopplx._http.clock import NOTHING, Clock, Timer
from aiopplx.testing._timers import Due, EitherTimer, Timeout

T = TypeVar("T")

TURNS: Final = 30
"""Turns of the loop without a sign of life after which nothing can run. The longest chain in the package is about ten
(a poll's answer wakes a batch, that its consumer, that its source, that a submitter). A turn takes microseconds."""
BEGAN: Final = 1_000_000.0
"""Where `now()` begins: the same in each run, and far from 0, which looks like "never"."""
HOLDS: Final = 10.0
"""Real seconds for which a step of a journal holds time still: its disk may stall for ever, and nothing else would go
on, not even the limits that are there for that."""
CANCELLED_MANY: Final = 64
"""So many cancelled timers, and more of them than of others, and they are thrown out."""


class JumpingClock(Clock):
    """A clock that jumps to the next due moment when nothing is on the wire: half an hour takes milliseconds.

        clock = JumpingClock()
        async with Emulator(duration=1800, clock=clock) as server:
            async with Session("any-key", base_url=server.url, clock=clock) as session:
                job = await session.ask("Why?")

    All that is to live in the same time gets the same clock: sessions, the emulator, and a test's own waits
    (`clock.sleep`, `clock.timeout`). What a test awaits in any other way (`asyncio.sleep`, its own requests) takes no
    time of this clock and does not hold it back; `with clock.busy():` does. One clock serves one event loop: on another
    it begins anew, at the moment that it had come to.

    Args:
        wall: seconds since 1970 at which it begins. Default: now.
    """

    __slots__ = (
        "_busy",
        "_busy_now",
        "_cancelled",
        "_idle",
        "_idle_now",
        "_loop",
        "_now",
        "_order",
        "_quiet",
        "_timers",
        "_wall",
        "_watching",
    )

    jumps = True

    def __init__(self, *, wall: float | None = None) -> None:
        super().__init__()
        self._now = BEGAN
        self._forget()
        self._wall = (time.time() if wall is None else wall) - BEGAN
        self._order = itertools.count()
        self._busy_now: AbstractContextManager[object] = _Count(self._begin, self._end)
        self._idle_now: AbstractContextManager[object] = _Count(self._begin_idle, self._end_idle)
        self._loop: asyncio.AbstractEventLoop | None = None

    def _forget(self) -> None:
        self._timers: list[Due] = []
        self._cancelled = 0
        self._busy = self._idle = self._quiet = 0
        self._watching = False

    def __repr__(self) -> str:
        return f"<JumpingClock at {self._now - BEGAN:.3f} s, {self.due} due, {self._busy - self._idle} busy>"

    @property
    def due(self) -> int:
        """How many timers are set."""
        return sum(1 for timer in self._timers if timer.callback is not None)

    # --- reading -----------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds that move only in jumps."""
        return self._now

    def wall(self) -> float:
        """Seconds since 1970, which move with `now()`."""
        return self._wall + self._now

    # --- waiting -----------------------------------------------------------------------------------------------------

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has jumped so far."""
        if seconds <= 0.0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_at(self._now + seconds, lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()

    async def wait_all(
        self, futures: Collection[asyncio.Future[Any]], seconds: float | None
    ) -> None:  # Any: results are not looked at
        """Wait until all `futures` are done, at most `seconds`, of jumps or of real time, whichever come first: what is
        waited for may hold time still. None: without a limit. None of them is cancelled.
        """
        try:
            async with self.timeout(seconds):
                await asyncio.wait(futures, timeout=seconds)
        except TimeoutError:
            return

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """As `asyncio.timeout`, in this clock's seconds. None is no limit."""
        return NOTHING if seconds is None else Timeout(self, self._now + seconds)

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` on the running loop when the clock has jumped to `when`."""
        return self._set(when, callback, is_wire=False)

    def _set(self, when: float, callback: Callable[[], object], *, is_wire: bool) -> Due:
        self._bind()
        timer = Due(max(when, self._now), next(self._order), callback, self._unset, is_wire=is_wire)
        if when == math.inf:  # never: the clock must not jump there
            timer.callback = None
            return timer
        heapq.heappush(self._timers, timer)
        self._stir()
        return timer

    def _unset(self) -> None:
        self._cancelled += 1
        if self._cancelled > max(CANCELLED_MANY, len(self._timers) // 2):
            self._timers = [timer for timer in self._timers if timer.callback is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0
        self._quiet = 0

    # --- the time of the wire ----------------------------------------------------------------------------------------

    def wire_now(self) -> float:
        """Seconds by which one exchange is bounded: the jumps, and the real seconds beside them."""
        return self._now + asyncio.get_running_loop().time()

    def wire_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` at `when` by `wire_now()`: after that many seconds of jumps, or of real time, or once nothing
        is on the wire.
        """
        return EitherTimer(max(0.0, when - self.wire_now()), self._call_on_wire, callback)

    def _call_on_wire(self, delay: float, callback: Callable[[], object]) -> Timer:
        """For what matters only while something is on the wire: the clock does not jump to it otherwise."""
        return self._set(self._now + delay, callback, is_wire=True)

    # --- what holds time still ---------------------------------------------------------------------------------------

    def busy(self) -> AbstractContextManager[object]:
        """Inside, the clock does not jump. Any number of these may be open."""
        return self._busy_now

    def idle(self) -> AbstractContextManager[object]:
        """Inside, one thing that is `busy` elsewhere waits for this very clock, and does not hold it back."""
        return self._idle_now

    def guard(self, thing: T, *, but: Collection[str] = ()) -> T:
        """The same `thing`, whose coroutines are `busy` while they are awaited, save those of the methods in `but`.

        One that takes more than ten real seconds is `busy` no longer.
        """
        return cast("T", _Guarded(thing, self, but))

    def _begin(self) -> None:
        self._bind()
        self._busy += 1
        self._quiet = 0

    def _end(self) -> None:
        self._busy -= 1
        self._stir()

    def _begin_idle(self) -> None:
        self._bind()
        self._idle += 1
        self._stir()

    def _end_idle(self) -> None:
        self._idle -= 1
        self._quiet = 0

    # --- jumping -----------------------------------------------------------------------------------------------------

    def _bind(self) -> None:
        """Belong to the running loop. What another one left is gone with it."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop = loop
            self._forget()

    def _stir(self) -> None:
        """Something happened: watch anew, if there is anything to jump to."""
        self._quiet = 0
        if not self._watching and self._timers and self._busy <= self._idle and self._loop is not None:
            self._watching = True
            self._loop.call_soon(self._turn, self._loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            return
        self._watching = False
        if self._busy > self._idle:
            return  # the end of what is busy looks again
        self._quiet += 1
        if self._quiet > TURNS:
            self._jump(loop)
        if self._timers:
            self._watching = True
            loop.call_soon(self._turn, loop)

    def _jump(self, loop: asyncio.AbstractEventLoop) -> None:
        """Go to the next due moment, and call all that is due then, in the order in which it was asked for."""
        self._quiet = 0
        while self._timers and not self._is_to_jump_to(self._timers[0]):
            self._fire_first(loop)
        if self._timers:
            self._now = self._timers[0].when
        while self._timers and self._timers[0].when <= self._now:
            self._fire_first(loop)

    def _is_to_jump_to(self, timer: Due) -> bool:
        """False for what was cancelled, and for a limit of exchanges when there are none: that one is called early."""
        return timer.callback is not None and not (timer.is_wire and not self._busy)

    def _fire_first(self, loop: asyncio.AbstractEventLoop) -> None:
        timer = heapq.heappop(self._timers)
        if timer.callback is None:
            self._cancelled -= 1
        else:
            timer.fire(loop)


class _Count:
    """`with` this, one more; afterwards one fewer."""

    __slots__ = ("_begin", "_end")

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._begin = begin
        self._end = end

    def __enter__(self) -> None:
        self._begin()

    def __exit__(self, *_: object) -> None:
        self._end()


class _Guarded:
    """Stands for another object; while one of its coroutines is awaited the clock does not jump."""

    def __init__(self, thing: object, clock: JumpingClock, but: Collection[str]) -> None:
        self._thing = thing
        self._clock = clock
        self._but = but

    def __getattr__(self, name: str) -> object:
        value: object = getattr(self._thing, name)
        if not callable(value) or name in self._but:
            return value

        def call(*args: object, **options: object) -> object:
            outcome: object = value(*args, **options)
            return self._held(outcome) if inspect.isawaitable(outcome) else outcome

        return call

    async def _held(self, awaitable: Awaitable[T]) -> T:
        with contextlib.ExitStack() as late, self._clock.busy():
            timer = asyncio.get_running_loop().call_later(HOLDS, lambda: late.enter_context(self._clock.idle()))
            try:
                return await awaitable
            finally:
                timer.cancel()
