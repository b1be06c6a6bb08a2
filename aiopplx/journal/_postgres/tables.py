"""The statements of one schema, sent: the schema's name, the session's number and the moment are put in here.

This module knows nothing of what the statements do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from aiopplx.journal._postgres.room import Database, Row, Value
from aiopplx.journal._postgres.statements import Statement, statement

_compiled: Callable[[str, str], Statement] = lru_cache(maxsize=1024)(statement)


class Tables:
    """The tables of a schema.

    Args:
        database: where they are.
        schema: its name.
        clock: moments in place of the server's, for tests; None for the server's.

    Attributes:
        me: the session's number, 0 for one that only reads.
    """

    def __init__(self, database: Database, schema: str, *, clock: Callable[[], float] | None = None) -> None:
        self.database = database
        self.schema = schema
        self.me: int = 0
        self._clock = clock

    async def fetch(self, text: str, **values: Value) -> list[Row]:
        """The rows of one statement, which is one transaction."""
        sql, given = self.prepared(text, values)
        return await self.database.fetch(sql, *given)

    async def many(self, texts: Sequence[str], **values: Value) -> list[Row]:
        """Several statements in one transaction, which choose among the same values. Returns the rows of the last."""
        return await self.database.many(*(self.prepared(text, values) for text in texts))

    def prepared(self, text: str, values: dict[str, Value]) -> tuple[str, list[Value]]:
        """A statement and its values, as the database takes them."""
        sql = _compiled(text, self.schema)
        given = {"me": self.me, **values}
        if "now" in sql.names and "now" not in given:
            given["now"] = self._clock() if self._clock is not None else None
        return sql.text, sql.values(given)
