"""A journal's file for reading only: for the command line, and for watching a run.

This module knows nothing of SQL (`reading`), nor of the writer.
"""

from __future__ import annotations

import os
import sqlite3
import types
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Self, TypeVar

from aiopplx.journal._errors import JournalError
from aiopplx.journal._names import NOTE
from aiopplx.journal._records import Cost, CostsBy, Ledger, Record, State
from aiopplx.journal._sqlite.errors import journal_error
from aiopplx.journal._sqlite.opening import open_to_read, place_of, writer_of
from aiopplx.journal._sqlite.reading import Statements

T = TypeVar("T")


class SqliteReader:
    """A journal file, for reading only, at any time: during a run, after a crash, from many processes.

    It takes no lock and changes nothing. `with SqliteReader("research.db") as journal: journal.counts()`. Its calls
    return at once, and are for one thread; they see what was committed at that moment.

    Args:
        path: the file.

    Raises:
        JournalRefused: it does not exist, is not a journal, or has another version; the error says which.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: str = place_of(path)
        connection = open_to_read(self.path)
        self._statements = Statements(connection, self.path, now=lambda: _now(connection))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._statements.connection.close()

    def _see(self, work: Callable[[Statements], T]) -> T:
        try:
            return work(self._statements)
        except sqlite3.Error as error:
            said: JournalError = journal_error(error, self.path)
        raise said

    def counts(self) -> dict[State, int]:
        """The number of records in each state; every state is present."""
        return self._see(lambda statements: statements.counts())

    def costs(self, by: CostsBy = "tag") -> list[Cost]:
        """What was spent, most expensive first."""
        return self._see(lambda statements: statements.costs(by))

    def ledger(self, samples: int = 200) -> Ledger:
        """Dollars spent, bills of unknown amount, and the latest known costs."""
        return self._see(lambda statements: statements.ledger(samples))

    def get(self, *, pk: int | None = None, item: str = "", job_id: str = "", key: str = "") -> Record | None:
        """The record with this row number, name, id or key: the first of these that is given. None if there is none."""
        return self._see(lambda statements: statements.get(pk=pk, item=item, job_id=job_id, key=key))

    def replacement(self, *, key: str = "", job_id: str = "") -> Record | None:
        """The record that the user has had made in place of the one with this key or id; None if there is none."""
        return self._see(lambda statements: statements.replacement(key=key, job_id=job_id))

    def rows(self, states: Collection[State] = tuple(State), *, after: int = 0, limit: int = 500) -> list[Record]:
        """Records in one of these states whose `pk` is above `after`, lowest first: a page of at most `limit`."""
        return self._see(lambda statements: statements.rows(states, after=after, limit=limit))

    def asked(self, *, every_run: bool = False) -> Iterator[Record]:
        """The records of what the last run asked, in the order of its source. See `JournalReader`."""
        is_open = not self.facts()["exhausted"]
        order = self._see(lambda statements: statements.order(every_run=every_run or is_open))
        for run, place, pk in order:
            record = self._see(partial(Statements.asked, run=run, place=place, pk=pk))
            if record is not None:
                yield record

    def result(self, pk: int) -> bytes | None:
        """The stored body of a row's outcome, unchanged; None if there is none.

        Raises:
            ResultDamaged: there is one, and it cannot be read.
        """
        return self._see(lambda statements: statements.result(pk))

    def facts(self) -> dict[str, object]:
        """The file's `base_url`, `created` (seconds since 1970), `made_by`, `openings`, `clean`, `exhausted`, `notes`.

        See `JournalReader`. An old file that does not say counts as exhausted.
        """
        kept = dict(self._see(lambda statements: statements.connection.execute("SELECT k, v FROM meta").fetchall()))
        learnt = self._see(
            lambda statements: statements.connection.execute("SELECT name, value FROM learnt").fetchall()
        )
        return {
            "base_url": kept.get("base_url", ""),
            "created": kept.get("created"),
            "made_by": kept.get("made_by", ""),
            "openings": kept.get("epoch", 0),
            "clean": kept.get("clean") == 1,
            "exhausted": kept.get("unread") != 1,
            "notes": {name.removeprefix(NOTE): value for name, value in learnt if name.startswith(NOTE)},
        }

    def writer(self) -> tuple[int, str] | None:
        """Process and host that have the journal open for writing, by their own account; None if nobody seems to."""
        return writer_of(self.path)


_LEARNT = "SELECT name, value FROM learnt"


def _now(connection: sqlite3.Connection) -> float:
    """Seconds since 1970, from SQLite: a reader has no clock of its own, and the writer's is the wall clock too."""
    (now,) = connection.execute("SELECT (julianday('now') - 2440587.5) * 86400.0").fetchone()
    return float(now)
