"""How a session reaches its store: the one object that asks it, for whoever waits for a job and for whoever leaves.

Between a session and its store stand, from the store outwards:

1. `contained`, round a store of the caller's own: it raises errors of this package only, and lets go of whoever is
   cancelled.
2. The clock's guard: a clock that jumps stands still while the store is at work. Following a row is not work
   of the store: it waits for another session, and for that time has to pass.
3. `patience`, round a store that sessions share: a call is made again while it is out of reach.
4. A time limit for whoever waits (`Reach.answer`).

With a real clock a journal in a file needs the last alone, and the others are not there. A session without a journal
needs none of them: its store answers at once.

A disk may stall, and a store of the caller's own may hang. Nothing is sent before its step is on disk, so what is to be
sent waits, and that is right; but whoever wants a job wants it within a time limit, and that holds all the same. A
store has a few real seconds in any case: a job that was found to have ended at its very limit is worth a commit. A step
that is not waited for any more may still be carried out, as after a cancellation (see `Journal`).

This module knows nothing of what a store is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeAlias, TypeVar, cast

from aiopplx._events import Emitter
from aiopplx._http.apart import closed
from aiopplx._http.clock import Clock, Timer
from aiopplx.journal._errors import JournalAway
from aiopplx.journal._protocol import Journal
from aiopplx.journal._unwritten import Unwritten

T = TypeVar("T")

LEAST: Final = 5.0
"""Real seconds for which a store is waited for at least, whatever the time limit."""
SWEEP: Final = 0.5
"""Real seconds between two looks at who has waited for too long: one timer serves all, while anybody waits."""
CLOSING: Final = 3.0
"""Real seconds in which a store should have written everything and closed."""

SILENT: Final = (
    "the journal has not answered within the time limit: its disk stalls, or the store hangs. What it was asked to"
    " write may be written later, or not"
)

Until: TypeAlias = "float | Callable[[], float]"
"""A moment, monotonic seconds of the session's clock; or a function that says it once it matters, which is seldom."""


class Reach:
    """Asks a store, and waits for each answer until a moment.

    Args:
        given: the store: one that the session has opened, and closes; or one of the caller's own.
        clock: the session's.
        emitter: tells that a shared store is away, and that it is back.
        patience: seconds of the clock for which one call of a shared store is made again.
        random: numbers from 0 to 1, so that many sessions do not come back to it at the same moment.
        is_ours: the session has opened it.

    Attributes:
        store: the store as everybody in the session calls it.
        is_ours: see above.
    """

    __slots__ = ("_clock", "_given", "_late", "_sweeps", "_timer", "_waiting", "is_ours", "store")

    def __init__(
        self,
        given: Journal,
        clock: Clock,
        emitter: Emitter,
        *,
        patience: float,
        random: Callable[[], float],
        is_ours: bool = True,
    ) -> None:
        self.is_ours: bool = is_ours
        self._given = cast("_Leavable", given if is_ours else _contained(given))
        self._clock = clock
        # Until when, by the session's clock; at which sweep at the earliest; and how often the task was cancelled.
        self._waiting: dict[asyncio.Task[Any], tuple[Until, int, int]] = {}  # Any: a task of whatever kind
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: Timer | None = None
        self._sweeps = 0
        store = cast("Journal", self._given)
        if store.remembers or not is_ours:
            store = clock.guard(store, but=("follow",))
        if store.shares:
            from aiopplx._core.store.patience import patient  # few sessions need it

            store = patient(store, clock, emitter, seconds=patience, random=random)
        self.store: Journal = store

    async def answer(self, call: Awaitable[T], until: Until, least: float = LEAST) -> T:
        """What the store answers.

        Args:
            call: what it was asked.
            until: how long it is waited for.
            least: real seconds for which it is waited in any case.

        Raises:
            JournalAway: it has not answered by then. The step may be carried out later, or not.
        """
        clock, waiting = self._clock, self._waiting
        if clock.jumps:
            return await self._held(call, until() if callable(until) else until)
        task = asyncio.current_task()
        assert task is not None, "coroutines are awaited in tasks"  # noqa: S101 - for mypy
        cancels = task.cancelling()
        # The sweep after that one is the first for which so many seconds have passed.
        waiting[task] = (until, self._sweeps + int(least / SWEEP), cancels)
        if self._timer is None:
            self._timer = clock.wire_at(clock.wire_now() + SWEEP, self._sweep)
        try:
            return await call
        except asyncio.CancelledError:
            if task in self._late and task.uncancel() <= cancels:
                raise JournalAway(SILENT) from None
            raise
        finally:
            del waiting[task]
            if self._late:
                self._late.discard(task)

    def within(self, call: Awaitable[T], seconds: float) -> Coroutine[Any, Any, T]:  # Any: nobody sends into it
        """The same for so many seconds of the session's clock from now. Raises `JournalAway`."""
        return self.answer(call, self._clock.now() + seconds)

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
        self._sweeps += 1
        now = clock.now()
        for task, (until, earliest, _) in self._waiting.items():
            if self._sweeps > earliest and task not in self._late and now >= (until() if callable(until) else until):
                self._late.add(task)
                task.cancel()

    # --- leaving -----------------------------------------------------------------------------------------------------

    async def close(self, tell: Callable[[list[Unwritten]], object]) -> None:
        """Close a store that the session has opened, in `CLOSING` real seconds. Then nobody waits for any store.

        A journal whose disk stalls keeps its file locked; it writes what it was given, and closes, when that is over.

        Args:
            tell: called if the store has not answered, with the steps that may not be written.
        """
        is_late = False
        try:
            if self.is_ours:
                await closed(self._given.close(), CLOSING)
        except TimeoutError:
            is_late = True
        finally:
            unwritten = [Unwritten(*each) for each in self._given.abandon()]
            if unwritten or is_late:
                tell(unwritten)


def _contained(given: Journal) -> object:
    from aiopplx._core.store.contained import Contained  # the same

    return Contained(given)


class _Leavable(Protocol):
    """A store that nobody need wait for."""

    async def close(self) -> None: ...

    def abandon(self) -> Sequence[tuple[str, str, str]]:
        """Wait for it no longer. Returns the steps that may not be written: name, key and id."""
        ...
