"""The emulated clock: real time, real time made faster, or the time of a clock that a test hands in.

Two times meet here. *Emulated* seconds are what jobs, rates and expiry count; *the client's* seconds are what somebody
lives in who waits for an answer, and what a `Retry-After` tells him. With `time_scale` the first are faster than the
second. With a clock that the client lives in as well they are the same. It knows nothing of jobs or of HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import AbstractContextManager
from typing import Protocol


class Time(Protocol):
    """What is needed of a clock to live in its time: `aiopplx.testing.Clock` and `JumpingClock` have it."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def wall(self) -> float:
        """Seconds since 1970."""
        ...

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for `event`, at most `seconds`; True if it came."""
        ...

    def idle(self) -> AbstractContextManager[object]:
        """Inside, an answer waits for this clock, which therefore must not stand still for the exchange."""
        ...


class RealTime:
    """The machine's own time."""

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for `event`, at most `seconds`; True if it came."""
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def idle(self) -> AbstractContextManager[object]:
        """Nothing: real time needs no leave to pass."""
        return contextlib.nullcontext()


class Clock:
    """Emulated wall time, which can be moved forward.

    Args:
        scale: emulated seconds in each second of `time`.
        time: what the client lives in.
    """

    def __init__(self, scale: float, time: Time | None = None) -> None:
        if scale <= 0:
            raise ValueError("time_scale must be more than 0: emulated seconds per real second")
        self.scale = scale
        self.time = time if time is not None else RealTime()
        self._skipped = 0.0
        self._began_wall = self.time.wall()
        self._began = self.time.now()

    def elapsed(self) -> float:
        """Seconds of the client since the clock was made."""
        return self.time.now() - self._began

    def now(self) -> float:
        """Emulated seconds since 1970."""
        return self._began_wall + self._skipped + self.elapsed() * self.scale

    def advance(self, seconds: float) -> None:
        """Moves the emulated time forward, so that a test of a seven-day expiry takes no time."""
        if seconds < 0:
            raise ValueError("time only moves forward: seconds must not be negative")
        self._skipped += seconds

    def real(self, emulated: float) -> float:
        """How many of the client's seconds such an emulated span lasts: what a client must wait."""
        return emulated / self.scale
