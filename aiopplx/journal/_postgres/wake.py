"""Who waits for rows that other sessions hold, and what is told of those that this session changes.

On the channel of a schema every session tells the numbers of the rows that it has changed, and nothing else of them, so
whoever may listen learns nothing. They are told after the change is committed, together for a twentieth of a
second, because the server commits one transaction with a notification at a time. A notification may be lost. So rows
that somebody waits for are also looked at, all of them in one statement, from time to time.

This module knows nothing of steps, of leases or of what a row means.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Generator, Sequence
from typing import Any

from aiopplx.journal._errors import JournalError
from aiopplx.journal._postgres.hearing import LOOK, Hearing
from aiopplx.journal._postgres.holding import Held, end
from aiopplx.journal._postgres.lease import Timing
from aiopplx.journal._postgres.statements import NOTIFY, STANDS

ROWS, FREED = "e", "f"
"""The words before the numbers of rows that were changed, and of rows that were freed: these are not said one by one,
since there may be thousands.
"""
_LONGEST = 7_000
"""Characters of one notification. The server allows 7,999 bytes."""


class Wake:
    """The followers of one session, and what it tells others.

    Args:
        held: its statements.
        hearing: where others are heard.
        timing: how often rows are looked at, and how long changes are gathered.
    """

    def __init__(self, held: Held, hearing: Hearing, timing: Timing) -> None:
        self.hearing = hearing
        self._held = held
        self._look_each = timing.look if hearing.hears else LOOK
        self._told_after = timing.told
        self._followers: dict[int, set[asyncio.Event]] = {}
        self._known: dict[int, tuple[object, ...]] = {}
        self._changed: set[int] = set()
        self._freed = False
        self._telling: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        hearing.on(ROWS, self._heard)
        hearing.on(FREED, lambda said: self.wake_all())

    # --- what is heard -----------------------------------------------------------------------------------------------

    def _heard(self, said: str) -> None:
        """Rows were changed; with `""`, others may have been."""
        if not said:
            self.wake_all()
        for number in said.split(","):
            if number.isascii() and number.isdecimal():
                self._wake(int(number))

    def wake_all(self) -> None:
        """Whoever waits, looks."""
        for pk in list(self._followers):
            self._wake(pk)

    def _wake(self, pk: int) -> None:
        for event in self._followers.get(pk, ()):
            event.set()

    # --- waiting -----------------------------------------------------------------------------------------------------

    async def follow(self, pks: Collection[int], timeout: float) -> None:
        """See `Journal`."""
        with self._registered(pks) as changed:
            # Read after registering: a later change wakes us, and an earlier one is seen now.
            rows = await self._held.fetch(STANDS, pks=list(pks))
            if len(rows) < len(set(pks)) or not all(row["is_held"] for row in rows) or changed.is_set():
                return
            for row in rows:
                self._known.setdefault(row["pk"], _standing(row))
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look(), name="aiopplx looks at rows")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await changed.wait()

    @contextlib.contextmanager
    def _registered(self, pks: Collection[int]) -> Generator[asyncio.Event]:
        changed = asyncio.Event()
        for pk in pks:
            self._followers.setdefault(pk, set()).add(changed)
        try:
            yield changed
        finally:
            for pk in set(pks):
                self._followers[pk].discard(changed)
                if not self._followers[pk]:
                    del self._followers[pk]
                    self._known.pop(pk, None)

    async def _look(self) -> None:
        """Look at all rows that are followed, as long as any is."""
        while True:
            await asyncio.sleep(self._look_each)
            if not self._followers:
                return
            pks = list(self._followers)
            with contextlib.suppress(JournalError):  # the next look sees it
                found = {row["pk"]: row for row in await self._held.fetch(STANDS, pks=pks)}
                for pk in pks:
                    row = found.get(pk)
                    if row is None or not row["is_held"] or self._known.get(pk, _standing(row)) != _standing(row):
                        self._wake(pk)

    # --- telling -----------------------------------------------------------------------------------------------------

    def changed(self, pks: Collection[int]) -> None:
        """These rows were changed here: others are told soon."""
        self._changed.update(pks)
        self._tell_soon()

    def freed(self) -> None:
        """Rows were freed here: others are told soon."""
        self._freed = True
        self._tell_soon()

    def _tell_soon(self) -> None:
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell_later(), name="aiopplx tells of changes")

    async def _tell_later(self) -> None:
        while self._changed or self._freed:
            await asyncio.sleep(self._told_after)
            await self.tell()

    async def tell(self) -> None:
        """Tell what was changed until now. What cannot be told is seen when others look."""
        said, self._changed = _said(sorted(self._changed)), set()
        if self._freed:
            said.append(f"{FREED}:1")
            self._freed = False
        if said:
            with contextlib.suppress(JournalError):
                await self._held.fetch(NOTIFY, channel=self.hearing.channel, said=said)

    async def close(self, seconds: float) -> None:
        """End its tasks, in so many seconds at most, and wake whoever waits."""
        self.wake_all()
        await end([self._telling, self._looking], seconds)


def _standing(row: Any) -> tuple[object, ...]:
    """What a follower would see of a row that was changed."""
    return row["state"], row["fence"], row["updated"]


def _said(pks: Sequence[int]) -> list[str]:
    """Row numbers as notifications, each short enough."""
    said: list[str] = []
    for pk in pks:
        if said and len(said[-1]) < _LONGEST:
            said[-1] += f",{pk}"
        else:
            said.append(f"{ROWS}:{pk}")
    return said
