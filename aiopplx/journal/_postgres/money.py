"""One budget for all sessions of a journal: its cap, and what each submission holds back until its cost is known.

The sums stand in one row, and what makes them up in the rows of the submissions. Both are changed by one statement:
`hold` before something is sent, and the step that ends it. So the sum of what is spent and held never passes the cap,
whoever dies at which moment, and a dead session's holds are found by their rows.

This module knows nothing of how much is held back.
"""

from __future__ import annotations

from collections.abc import Collection

from aiopplx.journal._errors import ClaimLost
from aiopplx.journal._postgres import statements as sql
from aiopplx.journal._postgres.holding import Held
from aiopplx.journal._postgres.room import Value
from aiopplx.journal._records import Claim, Room


class Money:
    """The calls of a session that are about its budget.

    Args:
        held: its statements.
        name: of the journal, for error messages.
    """

    def __init__(self, held: Held, name: str) -> None:
        self._held = held
        self._name = name
        self._cap: float | None = None

    async def cap(self, dollars: float) -> float | None:
        """Set the cap of all sessions. Returns the one before, None if there was none."""
        self._cap = dollars
        row = (await self._held.fetch(sql.CAP, dollars=dollars))[0]
        if row["is_new"]:
            await self._add_up()
        before: float | None = row["before"]
        return before

    async def _add_up(self) -> None:
        """Set the sums from the rows. Somebody may have emptied the table: then this session's cap is that of all."""
        await self._held.many([sql.MAKE_MONEY, sql.LOCK_MONEY, sql.RECOUNT], dollars=self._cap)

    async def hold(self, claim: Claim, dollars: float, *, again: bool) -> bool:
        """See `Pool`. Raises `ClaimLost`."""
        values: dict[str, Value] = {"pk": claim.pk, "fence": claim.fence, "dollars": dollars, "again": again}
        found = (await self._held.fetch(sql.HOLD, **values))[0]
        if not found["is_there"]:
            await self._add_up()
            found = (await self._held.fetch(sql.HOLD, **values))[0]
        if not found["is_mine"]:
            raise ClaimLost(f"another session now owns row {claim.pk}: nothing is held back for it", path=self._name)
        return bool(found["is_held"])

    async def room(self, *, but: Collection[int] = ()) -> Room:
        """See `Pool`."""
        rows = await self._held.fetch(sql.ROOM, pks=list(but))
        if not rows:
            await self._add_up()
            rows = await self._held.fetch(sql.ROOM, pks=list(but))
        found = rows[0]
        return Room(cap=found["cap"], spent=found["spent"], held=found["held"], may_change=found["may_change"])

    async def recount(self) -> Room:
        """Set the sums from the rows. Needed only after somebody has changed rows by hand."""
        await self._add_up()
        return await self.room()
