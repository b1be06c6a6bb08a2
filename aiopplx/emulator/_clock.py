"""The emulated clock: real time, accelerated time, or the time of a clock that a test supplies.

There are two kinds of time. *Emulated* seconds are what jobs, rates and expiry count; *client* seconds are what the
client measures while it waits, and what a `Retry-After` is given in. With `time_scale` emulated time runs faster than
the client's. With a clock that the client uses too, both are the same. This module knows nothing of jobs or of HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import AbstractContextManager
from typing import Protocol


class Time(Protocol):
    """The client's time: what the emulator needs of a clock. `aiopplx.testing.Clock` and `JumpingClock` fit."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def wall(self) -> float:
        """Seconds since 1970."""
        ...

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for `event` for at most `seconds`; True if it was set."""
        ...

    def idle(self) -> AbstractContextManager[object]:
        """Within this block an answer is waiting for the clock, so the open exchange must not keep the clock from
        moving.
        """
        ...


LAST = 253_402_300_799.0
"""Seconds since 1970 of the last moment of the year 9999."""


class RealTime:
    """The machine's own clock."""

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for `event` for at most `seconds`; True if it was set."""
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def idle(self) -> AbstractContextManager[object]:
        """Does nothing: real time always moves."""
        return contextlib.nullcontext()


class Clock:
    """Emulated wall time, which can be moved forward.

    Args:
        scale: emulated seconds in each second of `time`.
        time: the client's time.
    """

    def __init__(self, scale: float, time: Time | None = None) -> None:
        self.scale = scale
        self.time = time if time is not None else RealTime()
        self._skipped = 0.0
        self._began_wall = self.time.wall()
        self._began = self.time.now()

    def elapsed(self) -> float:
        """Client seconds since the clock was made."""
        return self.time.now() - self._began

    def now(self) -> float:
        """Emulated seconds since 1970."""
        return self._began_wall + self._skipped + self.elapsed() * self.scale

    def advance(self, seconds: float) -> None:
        """Moves the emulated time forward, so that testing a seven-day expiry takes no time."""
        if not seconds >= 0:
            raise ValueError("time only moves forward: seconds must not be negative")
        if self.now() + seconds > LAST:
            raise ValueError("seconds must not go beyond the year 9999, the last one that a date of HTTP can name")
        self._skipped += seconds

    def real(self, emulated: float) -> float:
        """How many client seconds this emulated span lasts: what a client must wait."""
        return emulated / self.scale
