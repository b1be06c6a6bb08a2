"""What a session has learnt about the service, kept in its store for later sessions.

A run that begins with what the last one knew need not find it out again. Losing it costs some requests and no result,
so a store that fails here ends nothing. This module knows nothing of what is learnt, or of what it is good for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import msgspec

from aiopplx._core.store.reaching import Reach
from aiopplx.journal._errors import JournalError

logger = logging.getLogger("aiopplx")

ENDS = 50
"""Jobs that end before what was learnt is written again: a crash loses no more than that."""
KEEPING = 2.0
"""Real seconds that the store has to keep each of these, or to give it: a session waits for that, and for no result."""
NOW = 0.0
"""The moment until which the store is waited for: nobody waits for what is learnt, so it has these few seconds."""
DURATIONS, LIMITS = "durations", "limits"
NAMES = (DURATIONS, LIMITS)
"""Under which a store has what was learnt."""


class Part(msgspec.Struct, frozen=True):
    """One thing that is learnt.

    Attributes:
        name: one of `NAMES`, or a note's.
        restore: goes on from what an earlier session had exported.
        export: what is to be kept; `b""` if nothing was learnt.
    """

    name: str
    restore: Callable[[bytes], object]
    export: Callable[[], bytes]


async def recalled(reach: Reach) -> dict[str, bytes]:
    """What earlier sessions have learnt, by name."""
    known: dict[str, bytes] = {}
    if reach.store.remembers:
        try:
            for name in NAMES:
                value = await reach.answer(reach.store.recall(name), NOW, KEEPING)
                known[name] = value or b""
        except JournalError as error:
            logger.debug("what was learnt earlier could not be read: %s", error)
    return known


class Learnt:
    """Goes on from what earlier sessions have learnt, and writes down what this one learns.

    Args:
        reach: asks the store. One that forgets is told nothing.
        known: what was `recalled`.
        parts: what is learnt.
    """

    __slots__ = ("_ends", "_known", "_parts", "_reach")

    def __init__(self, reach: Reach, known: Mapping[str, bytes], *parts: Part) -> None:
        self._reach = reach
        self._known = dict(known)
        self._parts = parts if reach.store.remembers else ()
        self._ends = 0
        for part in self._parts:
            if value := self._known.get(part.name):
                part.restore(value)

    async def job_ended(self) -> None:
        """After some of these, what was learnt is written."""
        self._ends += 1
        if self._ends == 1 or self._ends % ENDS == 0:  # what is noted is there with the first outcome
            await self.keep()

    async def keep(self) -> None:
        """Write what has changed."""
        reach = self._reach
        try:
            for part in self._parts:
                value = part.export()
                if value and value != self._known.get(part.name):
                    await reach.answer(reach.store.remember(part.name, value), NOW, KEEPING)
                    self._known[part.name] = value
        except JournalError as error:
            logger.debug("what was learnt could not be kept: %s", error)
