"""A journal on PostgreSQL for reading only: for the command line, and for watching a run.

Its calls block until the server has answered, and the driver's are awaited: an event loop in a thread of its own stands
between them. This module knows nothing of SQL (`reading`), nor of sessions that write.
"""

from __future__ import annotations

import asyncio
import threading
import types
from collections.abc import Collection, Coroutine, Iterator
from typing import Any, Self, TypeVar

from aiopplx.journal._postgres.driver import AsyncpgDatabase
from aiopplx.journal._postgres.opening import open_to_read
from aiopplx.journal._postgres.reading import Reading
from aiopplx.journal._postgres.tables import Tables
from aiopplx.journal._postgres.url import address_of, hidden
from aiopplx.journal._records import Cost, CostsBy, Ledger, Record, State

T = TypeVar("T")

_PAGE = 500


class PostgresReader:
    """A journal on PostgreSQL, for reading only, at any time: during a run, after a crash, from many processes.

    It changes nothing. `with PostgresReader("postgresql://user@host/db") as journal: journal.counts()`. Its calls see
    what was committed at that moment.

    Args:
        url: of the database.

    Attributes:
        path: the name of the database, as messages show it: without a password.

    Raises:
        ConfigError: that is no such URL.
        JournalAway: the server cannot be reached.
        JournalRefused: there is no journal, or it has another version; the error says which.
    """

    def __init__(self, url: str) -> None:
        url = hidden(url)  # what follows may raise, and a traceback shows the variables of this frame
        address = address_of(url, argument="path")
        self.path: str = address.name
        # No statement is prepared by name: this works behind every pooler.
        self._database = AsyncpgDatabase(address)
        self._reading = Reading(Tables(self._database, address.schema), address.name)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="aiopplx reads a journal", daemon=True)
        self._thread.start()
        try:
            self._see(open_to_read(self._database, address))
        except BaseException:
            self.close()
            raise

    def _see(self, looking: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(looking, self._loop).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections. A second call does nothing."""
        if not self._loop.is_closed():
            self._see(self._database.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def counts(self) -> dict[State, int]:
        """The number of records in each state; every state is present."""
        return self._see(self._reading.counts())

    def costs(self, by: CostsBy = "tag") -> list[Cost]:
        """What was spent, most expensive first."""
        return self._see(self._reading.costs(by))

    def ledger(self, samples: int = 200) -> Ledger:
        """Dollars spent, bills of unknown amount, and the latest known costs."""
        return self._see(self._reading.ledger(samples))

    def get(self, *, pk: int | None = None, item: str = "", job_id: str = "", key: str = "") -> Record | None:
        """The record with this row number, name, id or key: the first of these that is given. None if there is none."""
        return self._see(self._reading.get(pk=pk, item=item, job_id=job_id, key=key))

    def replacement(self, *, key: str = "", job_id: str = "") -> Record | None:
        """The record that the user has had made in place of the one with this key or id; None if there is none."""
        return self._see(self._reading.replacement(key=key, job_id=job_id))

    def rows(self, states: Collection[State] = tuple(State), *, after: int = 0, limit: int = 500) -> list[Record]:
        """Records in one of these states whose `pk` is above `after`, lowest first: a page of at most `limit`."""
        return self._see(self._reading.rows(states, after=after, limit=limit))

    def asked(self, *, every_run: bool = False) -> Iterator[Record]:
        """The records of what the last run asked, in the order of its source. See `JournalReader`."""
        is_open = not self.facts()["exhausted"]
        order = self._see(self._reading.order(every_run=every_run or is_open))
        for start in range(0, len(order), _PAGE):
            yield from self._see(self._reading.asked(order[start : start + _PAGE]))

    def result(self, pk: int) -> bytes | None:
        """The stored body of a row's outcome, unchanged; None if there is none.

        Raises:
            ResultDamaged: there is one, and it cannot be read.
        """
        return self._see(self._reading.result(pk))

    def facts(self) -> dict[str, object]:
        """Facts about the journal itself. See `JournalReader`. `clean`: no session has it open, or left it open."""
        return self._see(self._reading.facts())

    def writer(self) -> tuple[int, str] | None:
        """Process and host of the session that opened it last and lives; None if no session does."""
        return self._see(self._reading.writer())
