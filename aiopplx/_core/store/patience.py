"""A shared store that is out of reach for a while, as during a fail-over: the same call is made again until it answers.

Every step finds itself done when it is asked for again, so a call whose answer was lost may be repeated. While the
store is away no step is written, so nothing is sent; whoever waits goes on waiting, up to its own time limit. That is
told once, as PAUSED, and once more when the store answers, as RESUMED. This module knows nothing of what the calls do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

from aiopplx._events import Emitter, Event, EventKind
from aiopplx._http.clock import Clock
from aiopplx.journal._errors import JournalAway
from aiopplx.journal._protocol import Journal

FIRST, LONGEST = 0.25, 5.0
"""Seconds before a call is made again, at first and at most; each pause is up to twice the one before."""

_AT_ONCE = ("delivered", "exhausted", "may_intend", "close")
"""Calls that are not made again: they return at once, and a session that closes does not wait."""


def patient(store: Journal, clock: Clock, emitter: Emitter, *, seconds: float, random: Callable[[], float]) -> Journal:
    """The same store, whose calls wait until it can be reached.

    Args:
        store: one that several sessions share.
        clock: measures the pauses.
        emitter: tells that the store is away, and that it is back.
        seconds: for which one call is made again; then it raises `JournalAway`.
        random: numbers from 0 to 1, so that many sessions do not come back at the same moment.
    """
    return cast("Journal", _Patient(store, clock, emitter, seconds, random))


class _Patient:
    """Stands for a store."""

    def __init__(
        self, store: Journal, clock: Clock, emitter: Emitter, seconds: float, random: Callable[[], float]
    ) -> None:
        self._store = store
        self._clock = clock
        self._emitter = emitter
        self._seconds = seconds
        self._random = random
        self._is_away = False

    def __getattr__(self, name: str) -> object:
        value: object = getattr(self._store, name)
        if name in _AT_ONCE or not callable(value):
            return value
        awaited = cast("Callable[..., Awaitable[object]]", value)

        async def call(*args: object, **words: object) -> object:
            return await self._until_there(awaited, args, words)

        return call

    async def _until_there(
        self, call: Callable[..., Awaitable[object]], args: tuple[object, ...], words: dict[str, object]
    ) -> object:
        pause, until = FIRST, self._clock.now() + self._seconds
        while True:
            try:
                outcome = await call(*args, **words)
            except JournalAway as error:
                if not self._is_away and not error.is_there:
                    self._is_away = True
                    reason = f"{error.message}: nothing is sent until the journal can be reached again"
                    self._emitter.emit(Event(kind=EventKind.PAUSED, reason=reason))
                if self._clock.now() >= until:
                    raise
            else:
                if self._is_away:
                    self._is_away = False
                    self._emitter.emit(Event(kind=EventKind.RESUMED, reason="the journal can be reached again"))
                return outcome
            await self._clock.sleep(pause * (0.5 + self._random() / 2))
            pause = min(2 * pause, LONGEST)
