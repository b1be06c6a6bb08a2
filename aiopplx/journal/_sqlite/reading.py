"""The statements that read a journal's tables, on any connection.

This module knows nothing of threads, of transactions or of other readers and writers.
"""

from __future__ import annotations

import functools
import itertools
import sqlite3
from collections.abc import Callable, Collection, Iterable
from typing import Any

import msgspec

from aiopplx.journal._errors import ResultDamaged
from aiopplx.journal._packing import meta_of, tag_of, unpacked
from aiopplx.journal._records import (
    Bills,
    Claim,
    Cost,
    CostsBy,
    Ledger,
    Record,
    State,
    added_up,
    age_of,
    ledger_of,
)

_RECORDS = """
    SELECT j.pk, j.item, j.tag, j.key, r.body, j.sha, j.api, j.state, j.attempts, j.first_sent, j.job_id, j.accepted_at,
        j.word, j.error, j.cost, j.delivered, EXISTS (SELECT 1 FROM result x WHERE x.pk = j.pk), j.updated, j.kind,
        j.ended_at, o.question, o.meta
    FROM job j LEFT JOIN request r ON r.pk = j.pk LEFT JOIN origin o
        ON o.pk = j.pk AND NOT EXISTS (
            SELECT 1 FROM origin later WHERE later.pk = j.pk AND (later.run, later.place) > (o.run, o.place))
    WHERE j.pk BETWEEN ? AND ? AND (1 << j.state) & ? ORDER BY j.pk LIMIT ?"""
_BILLS = """
    SELECT tag, api, state, count(*), total(cost), sum(cost IS NULL) FROM (
        SELECT tag, api, state, cost FROM job
        UNION ALL SELECT job.tag, past.api, past.state, past.cost FROM past JOIN job USING (pk))
    GROUP BY tag, api, state"""
_SPENT = """
    SELECT kind, state, count(*), total(cost), sum(cost IS NULL) FROM (
        SELECT kind, state, cost FROM job UNION ALL SELECT kind, state, cost FROM past)
    GROUP BY kind, state"""
_SAMPLES = """
    SELECT kind, cost FROM (
        SELECT kind, cost, row_number() OVER (PARTITION BY kind ORDER BY pk DESC) AS nth
        FROM job WHERE cost IS NOT NULL)
    WHERE nth <= ? ORDER BY kind, nth"""
# A job's own run and place count while no line of `origin` says more. Without a run it comes after all that have one.
_ORDER = """
    SELECT run, place, pk FROM origin
    UNION ALL SELECT run, CASE run WHEN '' THEN pk ELSE place END, pk FROM job
    WHERE NOT EXISTS (SELECT 1 FROM origin WHERE origin.pk = job.pk)
    ORDER BY run DESC, place, pk"""
_LAST = (1 << 63) - 1


@functools.cache
def mask(states: frozenset[State]) -> int:
    """A set of states as one number, so that one SQL text works for every set."""
    return sum(1 << state for state in states)


class Statements:
    """The tables, for reading.

    Args:
        connection: a connection to a checked journal.
        path: its file, for error messages.
        now: wall clock, seconds since 1970, by which ages are measured.
    """

    def __init__(self, connection: sqlite3.Connection, path: str, *, now: Callable[[], float]) -> None:
        self.connection = connection
        self.path = path
        self.now = now

    def one(self, sql: str, *values: object) -> Any:
        """The first row, or None. SQLite's values have no static types."""
        return self.connection.execute(sql, values).fetchone()

    def _record(self, row: Any, fence: int | None) -> Record:
        return Record(
            pk=row[0],
            item=row[1],
            tag=tag_of(row[2]),
            key=row[3] or "",
            body=row[4] or b"",
            sha=row[5],
            api=row[6],
            state=State(row[7]),
            attempts=row[8],
            first_sent=row[9],
            job_id=row[10] or "",
            accepted_at=row[11],
            word=row[12],
            error=row[13],
            cost=row[14],
            delivered=bool(row[15]),
            has_result=bool(row[16]),
            updated=row[17],
            kind=row[18],
            ended_at=row[19],
            question=row[20] or "",
            meta=meta_of(row[21]),
            age=age_of(row[9], self.now()) if row[9] is not None else None,
            claim=Claim(row[0], fence) if fence is not None else None,
        )

    def record(self, pk: int, *, fence: int | None = None) -> Record | None:
        """The record in this row; with a claim under `fence`, if that is given."""
        return next(iter(self._records(pk, pk, State, 1, fence)), None)

    def rows(self, states: Collection[State], *, after: int = 0, limit: int = 500) -> list[Record]:
        """A page of records in one of these states, above row `after`."""
        return self._records(after + 1, _LAST, states, limit)

    def _records(
        self, first: int, last: int, states: Iterable[State], limit: int, fence: int | None = None
    ) -> list[Record]:
        found = self.connection.execute(_RECORDS, (first, last, mask(frozenset(states)), limit))
        return [self._record(row, fence) for row in found]

    def order(self, *, every_run: bool) -> list[tuple[str, int, int]]:
        """Run, place and row of what was asked: of the last run, then of none; or of every one, the last run first."""
        found = self.connection.execute(_ORDER).fetchall()
        if every_run or not found:
            return found
        wanted = (found[0][0], "")
        return [line for line in found if line[0] in wanted]

    def asked(self, run: str, place: int, pk: int) -> Record | None:
        """The record of a row, with the columns of this place of a run."""
        record = self.record(pk)
        line = self.one("SELECT question, meta FROM origin WHERE run = ? AND place = ? AND pk = ?", run, place, pk)
        if record is None or line is None:
            return record
        return msgspec.structs.replace(record, question=line[0], meta=meta_of(line[1]))

    def get(self, *, pk: int | None = None, item: str = "", job_id: str = "", key: str = "") -> Record | None:
        """The record with this row number, name, id or key: the first of these that is given."""
        found = pk if pk is not None else self.find(item=item, job_id=job_id, key=key)
        return self.record(found) if found is not None else None

    def find(self, *, item: str = "", job_id: str = "", key: str = "") -> int | None:
        """The row with this name, id or key: the first of these that is given."""
        if item:
            found = self.one("SELECT pk FROM job WHERE item = ?", item)
        elif job_id:
            found = self.one("SELECT pk FROM job WHERE job_id = ?", job_id)
        else:
            found = self.one("SELECT pk FROM job WHERE key = ?", key)
        return found[0] if found is not None else None

    def replacement(self, *, key: str = "", job_id: str = "") -> Record | None:
        """The record in place of a past submission that had this key or id."""
        found = self.one("SELECT pk FROM past WHERE key = ?", key) if key else None
        if found is None and job_id:
            found = self.one("SELECT pk FROM past WHERE job_id = ?", job_id)
        return self.record(found[0]) if found is not None else None

    def counts(self) -> dict[State, int]:
        """The number of records in each state."""
        found = dict.fromkeys(State, 0)
        for state, count in self.connection.execute("SELECT state, count(*) FROM job GROUP BY state"):
            found[State(state)] = count
        return found

    def costs(self, by: CostsBy = "tag") -> list[Cost]:
        """What was spent, most expensive first."""
        found = self.connection.execute(_BILLS)
        return added_up((Bills(tag_of(tag), api, State(state), *sums) for tag, api, state, *sums in found), by)

    def ledger(self, samples: int = 200) -> Ledger:
        """What a budget starts with."""
        latest = self.connection.execute(_SAMPLES, (samples,)).fetchall()
        known = {kind: [cost for _, cost in costs] for kind, costs in itertools.groupby(latest, key=lambda row: row[0])}
        bills = (
            Bills(None, "", State(state), count, dollars, unpriced, kind)
            for kind, state, count, dollars, unpriced in self.connection.execute(_SPENT)
        )
        return ledger_of(bills, known)

    def recall(self, name: str) -> bytes | None:
        """What was remembered under this name."""
        row = self.one("SELECT value FROM learnt WHERE name = ?", name)
        return row[0] if row is not None else None

    def result(self, pk: int) -> bytes | None:
        """The body of a row's outcome.

        Raises:
            ResultDamaged: it cannot be read.
        """
        row = self.one("SELECT enc, size, body FROM result WHERE pk = ?", pk)
        return self._unpacked(pk, *row) if row is not None else None

    def _unpacked(self, pk: int, encoding: int, size: int, body: bytes) -> bytes:
        raw = unpacked(encoding, size, body)
        if raw is None:
            job_id = (self.one("SELECT job_id FROM job WHERE pk = ?", pk) or ("",))[0]
            raise ResultDamaged(
                f"the result in row {pk} of the journal {self.path} is damaged. The job has ended; its result can be"
                " fetched again while the server keeps it",
                path=self.path,
                job_id=job_id or "",
            )
        return raw
