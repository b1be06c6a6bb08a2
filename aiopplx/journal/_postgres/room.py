"""The room behind which PostgreSQL's driver lies: six calls, and the errors that can come out of them.

Whoever uses it writes SQL and knows no driver. Another driver takes this one's place by another class with these calls.
`driver` is the only module that imports one.

What an error of the database means
-----------------------------------
An error either says that a statement was not carried out, or it says nothing about that: a connection that is lost
while a statement is on its way may have carried it out. Both of these are `JournalAway`: whoever asked asks again, and
every statement here finds itself done when it is asked again. A server that cannot write at present (it starts, it
stops, it is a replica, it has too many connections) is away in the same way. Once a journal is open, so is one that
lets nobody in any more: a password that was changed, a replica whose settings are not those of the primary, a right
that was taken away. Nothing that runs ends of that, and it goes on when somebody has put it right.

This module knows nothing of tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from aiopplx.journal._errors import JournalAway, JournalBroken, JournalError, JournalFull, JournalRefused

Value: TypeAlias = bool | int | float | str | bytes | Sequence[int] | Sequence[float] | Sequence[str] | None
"""What a statement may be given."""
Row: TypeAlias = Mapping[str, Any]
"""Columns by name; what type each has, the statement says."""
Heard: TypeAlias = Callable[[str], object]
"""Called with the text of each notification; with `""` when some may have been missed: after every reconnection."""


class Database(Protocol):
    """A database, reached by a few connections that come and go.

    Each call raises `JournalAway` if the server could not be reached, or was lost on the way: whether the statement was
    carried out is then unknown. `JournalFull`, `JournalBroken`: it was not. `Taken`: it was not, because of a
    constraint.
    """

    async def fetch(self, sql: str, *values: Value) -> list[Row]:
        """One statement, which is one transaction. Returns its rows."""
        ...

    async def execute(self, sql: str, *values: Value) -> None:
        """One statement; or several without values, in one round trip and one transaction."""
        ...

    async def many(self, *statements: tuple[str, Sequence[Value]]) -> list[Row]:
        """Several statements in one transaction. Returns the rows of the last one."""
        ...

    async def listen(self, channel: str, heard: Heard) -> None:
        """Call `heard` with each notification on this channel from now on, over all losses of the connection."""
        ...

    async def beat(self, sql: str, *values: Value) -> list[Row]:
        """`fetch` on the connection that listens: if it fails, nothing was heard either."""
        ...

    def opened(self) -> None:
        """All was there that is needed: what the server refuses from now on it may allow again, and is away until then.

        Before this call a refusal is `JournalRefused` or `JournalBroken`.
        """
        ...

    async def close(self) -> None:
        """Close all connections, in a few seconds. A second call does nothing."""
        ...


class Taken(Exception):
    """A constraint forbids the statement; it was not carried out.

    Attributes:
        constraint: its name.
    """

    def __init__(self, constraint: str) -> None:
        super().__init__(constraint)
        self.constraint = constraint


AWAY = frozenset({"08", "57", "40"})
"""Classes of SQLSTATE: the connection; the operator (a server that stops, a statement that is ended); serialization."""
AWAY_CODES = frozenset({"53300", "25006", "55P03"})
"""Too many connections; a server that only reads, as an old primary does; a lock that is not to be had."""
FULL = frozenset({"53100", "53200"})
"""The disk, or the memory, of the server is full."""
REFUSING = frozenset({"28", "58"})
"""Classes of SQLSTATE: who may come in; the system below the server. Of an open journal: it is away."""
REFUSING_CODES = frozenset({"3D000", "3F000", "42501", "XX000"})
"""No such database, no such schema, no right to it; a fault of the server's own. Of an open journal: it is away."""


def error_of(sqlstate: str, said: str, *, name: str, is_open: bool) -> JournalError:
    """The error for the caller of a statement that the server refused.

    Args:
        sqlstate: the code, `""` if the server said nothing: the connection was lost.
        said: what was said.
        name: the database, for people.
        is_open: it was opened before, and worked.
    """
    if not sqlstate or sqlstate[:2] in AWAY or sqlstate in AWAY_CODES:
        return JournalAway(f"the database {name} cannot be reached ({said})", path=name)
    if is_open and (sqlstate[:2] in REFUSING or sqlstate in REFUSING_CODES):
        return JournalAway(f"the database {name} refuses what it allowed before ({said}, {sqlstate})", path=name)
    if sqlstate[:2] == "28":
        return JournalRefused(
            f"the server of the journal {name} lets nobody in as this user: {said}",
            path=name,
            reason="unusable",
            remedy="Check the user and the password, and pg_hba.conf",
        )
    if sqlstate in FULL:
        return JournalFull(
            f"the server of the journal {name} has no room left: {said}. Nothing was written; make space, then go on",
            path=name,
        )
    return JournalBroken(f"the journal {name} refused a statement: {said} ({sqlstate}). Nothing was written", path=name)
