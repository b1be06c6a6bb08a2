"""The clock of a session: every moment that a session reads, and every wait that it makes, comes from one object.

Three kinds of time meet here, and most bugs of clocks come from taking one for another:

- *Monotonic* seconds (`now`) order and measure: due moments, time limits, pauses. They mean nothing outside of this
  process and are never compared with a server's clock.
- *Wall* time (`wall`), seconds since 1970, is for what people read and for what outlives the process, such as the age
  of an idempotency key in a journal. It may be set back, so nothing waits for it.
- *Wire* time (`wire_now`) bounds one HTTP exchange. A test may let an hour of policy pass in a second, but no socket
  becomes faster by that. So these few bounds stay in real seconds, whatever the speed.

Whoever waits asks the clock to wait, and nobody else converts between its seconds and real ones. That is what makes a
clock replaceable: at sixty times the speed a session lives through a four-minute job in four seconds, with every policy
unchanged, and `aiopplx.testing.JumpingClock` leaves out the waiting altogether. For that one, whatever must hold time
still (an exchange, a commit) says so by `busy`. Here that costs nothing. This module knows nothing of what is waited
for.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Final, Protocol, TypeVar

from aiopplx._errors import ConfigError

T = TypeVar("T")

TICK: Final = 0.01
"""Real seconds. What is due within one tick can happen together: one wake-up of the loop for many."""
SUSPENSION: Final = 30.0
"""Real seconds. A timer that comes later than this was not held up by other work: the machine was suspended."""

_BEGAN: Final = time.time()
"""From where faster clocks count wall time. One moment for all of them, so that sessions which follow one another on
one journal, each with a clock of the same speed, never see a date of the future."""


class Timer(Protocol):
    """What `call_at` returns."""

    def cancel(self) -> None:
        """Do not call, if it has not been called yet."""
        ...


class Nothing:
    """A context manager, in both forms, that does nothing: one object for all uses, since it is on the hot path."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        return None


NOTHING: Final = Nothing()


class Clock:
    """Real time, or real time made faster. `Session(clock=Clock(60))` lives through a minute in each second.

    Args:
        speed: seconds of this clock in one real second.
        since: seconds since 1970, the moment from which on its wall time runs at that speed. Default: when this process
            began. Processes that share a journal give the same, or the dates of one lie in the future of the next.

    Attributes:
        tick: seconds; whatever is due within them can happen together.
        suspension: seconds; a timer that is later than this means that the machine was suspended.
        jumps: whether it leaves out waiting (`aiopplx.testing.JumpingClock`).

    Raises:
        ConfigError: the speed is not above 0.
    """

    __slots__ = ("_since", "_speed", "suspension", "tick")

    jumps = False

    def __init__(self, speed: float = 1.0, *, since: float | None = None) -> None:
        self._speed = speed  # first: a traceback with variables shows this object
        if not speed > 0:
            raise ConfigError(f"the speed of a clock must be above 0, not {speed!r}")
        self._since = _BEGAN if since is None else since
        self.tick: float = TICK * speed
        self.suspension: float = SUSPENSION * speed

    def __repr__(self) -> str:
        return f"Clock({self._speed!r})"

    # --- reading -----------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Monotonic seconds, for measuring and for waiting. Never compared with a server's clock."""
        return time.monotonic() * self._speed

    def wall(self) -> float:
        """Seconds since 1970: the real ones at first, and from there on at this clock's speed.

        At speed 1 it is the machine's own clock, and follows when that is corrected.
        """
        real = time.time()
        return real if self._speed == 1.0 else self._since + (real - self._since) * self._speed

    # --- waiting -----------------------------------------------------------------------------------------------------

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        await asyncio.sleep(seconds / self._speed)

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for `event`, at most `seconds`; True if it came."""
        try:
            async with self.timeout(max(0.0, seconds)):
                await event.wait()
        except TimeoutError:
            return False
        return True

    async def wait_all(
        self, futures: Collection[asyncio.Future[Any]], seconds: float | None
    ) -> None:  # Any: results are not looked at
        """Wait until all `futures` are done, at most `seconds`; None: without a limit. None of them is cancelled."""
        await asyncio.wait(futures, timeout=None if seconds is None else max(0.0, seconds) / self._speed)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """As `asyncio.timeout`, in this clock's seconds. None is no limit, and costs next to nothing."""
        return NOTHING if seconds is None else asyncio.timeout(seconds / self._speed)

    def timeout_at(self, when: float) -> AbstractAsyncContextManager[object]:
        """The same until a moment of `now`; infinity is no limit."""
        return NOTHING if when == math.inf else self.timeout(max(0.0, when - self.now()))

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` on the running loop when `now()` has come to `when`; at the next turn if it has already."""
        delay = max(0.0, when - self.now()) / self._speed
        return asyncio.get_running_loop().call_later(delay, callback)

    # --- the time of the wire ----------------------------------------------------------------------------------------

    def wire_now(self) -> float:
        """Seconds by which one exchange is bounded: real ones, whatever the speed."""
        return time.monotonic()

    def wire_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` when `wire_now()` has come to `when`. It may come early, and should read the time itself."""
        return asyncio.get_running_loop().call_later(max(0.0, when - time.monotonic()), callback)

    # --- what holds time still ---------------------------------------------------------------------------------------

    def busy(self) -> AbstractContextManager[object]:
        """Inside, something goes on that takes real time (an exchange, a commit): a clock that jumps does not jump.

        The object may be kept and entered any number of times, also at once.
        """
        return NOTHING

    def idle(self) -> AbstractContextManager[object]:
        """Inside, something that is `busy` elsewhere waits for this very clock: for a clock that jumps it is not busy.

        For a server that delays its answer by seconds of this clock, while its client awaits it.
        """
        return NOTHING

    def guard(self, thing: T, *, but: Collection[str] = ()) -> T:
        """The same `thing`, whose coroutines are `busy` while they are awaited, except those of the methods in `but`.

        For what works in a thread or at a server of its own, such as a journal.
        """
        return thing
