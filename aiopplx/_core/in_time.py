"""How long a store is waited for: by whoever waits for a job, and by whoever leaves.

A disk may stall, and a store of the caller's own may hang. Nothing is sent before its step is on disk, so what is to be
sent waits, and that is right; but whoever wants a job wants it within a time limit, and that holds all the same. The
moment that is given here is that limit. A store has a few real seconds in any case: a job that was found to have ended
at its very limit is worth a commit.

A step that is not waited for any more may still be carried out, as after a cancellation (see `Journal`). One timer
serves all who wait, and comes only while somebody does. This module knows nothing of what a store is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

from aiopplx._http.clock import Clock, Timer
from aiopplx.journal._errors import JournalAway

T = TypeVar("T")

LEAST: Final = 5.0
"""Real seconds for which a store is waited for at least, whatever the time limit."""
SWEEP: Final = 0.5
"""Real seconds between two looks at who has waited for too long."""

SILENT: Final = (
    "the journal has not answered within the time limit: its disk stalls, or the store hangs. What it was asked to"
    " write may be written later, or not"
)


class InTime:
    """Waits for the answers of a store, each until a moment.

    Args:
        clock: the session's.
    """

    __slots__ = ("_clock", "_late", "_timer", "_waiting")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Until when, by the session's clock, and at least until when, by real time; and how often it was cancelled.
        self._waiting: dict[asyncio.Task[Any], tuple[float, float, int]] = {}  # Any: a task of whatever kind
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: Timer | None = None

    async def answer(self, call: Awaitable[T], until: float, least: float = LEAST) -> T:
        """What the store answers.

        Args:
            call: what it was asked.
            until: monotonic seconds of the session's clock.
            least: real seconds for which it is waited in any case.

        Raises:
            JournalAway: it has not answered by then. The step may be carried out later, or not.
        """
        task = asyncio.current_task()
        assert task is not None, "coroutines are awaited in tasks"  # noqa: S101 - for mypy
        clock, waiting = self._clock, self._waiting
        if clock.jumps:
            return await self._held(call, until)
        now = clock.wire_now()
        cancels = task.cancelling()
        waiting[task] = (until, now + least, cancels)
        if self._timer is None:
            self._timer = clock.wire_at(now + SWEEP, self._sweep)
        try:
            return await call
        except asyncio.CancelledError:
            if task in self._late and task.uncancel() <= cancels:
                raise JournalAway(SILENT) from None
            raise
        finally:
            del waiting[task]
            self._late.discard(task)

    async def within(self, call: Awaitable[T], seconds: float) -> T:
        """The same for so many seconds of the session's clock from now. Raises `JournalAway`."""
        return await self.answer(call, self._clock.now() + seconds)

    async def _held(self, call: Awaitable[T], until: float) -> T:
        """The same with a clock that jumps: it stands still for some real seconds while the store is at work."""
        try:
            async with self._clock.timeout_at(until):
                return await call
        except TimeoutError:
            raise JournalAway(SILENT) from None

    def _sweep(self) -> None:
        clock = self._clock
        self._timer = clock.wire_at(clock.wire_now() + SWEEP, self._sweep) if self._waiting else None
        now, wire_now = clock.now(), clock.wire_now()
        for task, (until, least, _) in self._waiting.items():
            if wire_now >= least and now >= until and task not in self._late:
                self._late.add(task)
                task.cancel()
