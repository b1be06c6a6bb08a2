"""The calls of a journal that read, for a session and for a reader alike.

This module knows nothing of connections, nor of what is done with a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

import msgspec

from aiopplx.journal._errors import ResultDamaged
from aiopplx.journal._packing import meta_of, tag_of, unpacked
from aiopplx.journal._postgres import statements as sql
from aiopplx.journal._postgres.room import Row, Value
from aiopplx.journal._postgres.tables import Tables
from aiopplx.journal._records import Claim, Cost, CostsBy, Ledger, Record, State
from aiopplx.journal.store import NOTE, Bills, added_up, ledger_of, short_name


class Seen(msgspec.Struct, frozen=True):
    """A row as it was read: its record, and who may write it.

    Attributes:
        record: the record, without a claim.
        owner: the session that holds it, None if nobody does.
        fence: the number of its latest claim.
        touched: the session that has taken its last step, or asked for it since.
    """

    record: Record
    owner: int | None
    fence: int
    touched: int

    def is_latest(self, claim: Claim, me: int) -> bool:
        """Whether no later claim was given, and no other session holds it."""
        return self.fence == claim.fence and self.owner in (None, me)

    def is_live(self, claim: Claim, me: int) -> bool:
        """Whether this claim allows writing. Of a final row every session has one."""
        return self.fence == claim.fence and (self.owner == me or (self.owner is None and self.record.state.is_final))


def seen_of(row: Row, me: int) -> Seen:
    """A row that was read by the session of this number."""
    state, owner = State(row["state"]), row["owner"]
    record = Record(
        pk=row["pk"],
        item=row["item"],
        tag=tag_of(row["tag"]),
        key=row["key"] or "",
        body=row["body"] or b"",
        sha=row["sha"],
        api=row["api"],
        kind=row["kind"],
        state=state,
        attempts=row["attempts"],
        first_sent=row["first_sent"],
        job_id=row["job_id"] or "",
        accepted_at=row["accepted_at"],
        ended_at=row["ended_at"],
        word=row["word"],
        error=row["error"],
        cost=row["cost"],
        delivered=row["delivered"],
        has_result=row["has_result"],
        updated=row["updated"],
        age=row["age"],
        is_held=owner not in (None, me) and not state.is_final,
        question=row["question"] or "",
        meta=meta_of(row["meta"]),
    )
    return Seen(record, owner, row["fence"], row["touched"])


class Reading:
    """The tables, for reading.

    Args:
        tables: of the schema.
        name: of the journal, for error messages.
    """

    def __init__(self, tables: Tables, name: str) -> None:
        self._tables = tables
        self._name = name

    async def _records(self, text: str, **values: Value) -> list[Record]:
        me = self._tables.me
        return [seen_of(row, me).record for row in await self._tables.fetch(text, **values)]

    async def get(self, *, pk: int | None, item: str, job_id: str, key: str) -> Record | None:
        """The record with this row number, name, id or key: the first of these that is given."""
        if pk is not None:
            found = await self._records(sql.BY_PK, pk=pk)
        elif item:
            found = await self._records(sql.BY_ITEM, item=short_name(item))
        elif job_id:
            found = await self._records(sql.BY_JOB_ID, job_id=job_id)
        else:
            found = await self._records(sql.BY_KEY, key=key)
        return found[0] if found else None

    async def rows(self, states: Collection[State], *, after: int, limit: int) -> list[Record]:
        """A page of records in one of these states, above row `after`."""
        return await self._records(sql.PAGE, states=[int(state) for state in states], after=after, limit=limit)

    async def alike(self, sha: bytes, api: str, item: str, beginning: str) -> list[Record]:
        """What there is for whoever would reuse an answer."""
        return await self._records(sql.ALIKE, sha=sha, api=api, item=short_name(item), beginning=beginning)

    async def counts(self) -> dict[State, int]:
        """The number of records in each state."""
        found = dict.fromkeys(State, 0)
        for row in await self._tables.fetch(sql.COUNTS):
            found[State(row["state"])] = row["count"]
        return found

    async def costs(self, by: CostsBy) -> list[Cost]:
        """What was spent, most expensive first."""
        return added_up(
            (
                Bills(
                    tag_of(row["tag"]), row["api"], State(row["state"]), row["count"], row["dollars"], row["unpriced"]
                )
                for row in await self._tables.fetch(sql.BILLS)
            ),
            by,
        )

    async def ledger(self, samples: int) -> Ledger:
        """What a budget starts with."""
        latest = await self._tables.fetch(sql.SAMPLES, samples=samples)
        known = {
            kind: [row["cost"] for row in rows] for kind, rows in itertools.groupby(latest, key=lambda row: row["kind"])
        }
        spent = await self._tables.fetch(sql.SPENT)
        bills = (
            Bills(None, "", State(row["state"]), row["count"], row["dollars"], row["unpriced"], row["kind"])
            for row in spent
        )
        return ledger_of(bills, known)

    async def recall(self, name: str) -> bytes | None:
        """What was remembered under this name."""
        found = await self._tables.fetch(sql.RECALL, name=name)
        return found[0]["value"] if found else None

    async def result(self, pk: int) -> bytes | None:
        """The body of a row's outcome.

        Raises:
            ResultDamaged: it cannot be read.
        """
        found = await self._tables.fetch(sql.RESULT, pk=pk)
        if not found:
            return None
        row = found[0]
        raw = unpacked(row["enc"], row["size"], row["body"])
        if raw is None:
            raise ResultDamaged(
                f"the result in row {pk} of the journal {self._name} is damaged. The job has ended; its result can be"
                " fetched again while the server keeps it",
                path=self._name,
                job_id=row["job_id"] or "",
            )
        return raw

    # --- for people ----------------------------------------------------------------------------------------------

    async def order(self, *, every_run: bool) -> list[tuple[str, int, int]]:
        """Run, place and row of what was asked: of the last run, then of none; or of every one, the last run first."""
        found = [(row["run"], row["place"], row["pk"]) for row in await self._tables.fetch(sql.ORDER)]
        if every_run or not found:
            return found
        wanted = (found[0][0], "")
        return [line for line in found if line[0] in wanted]

    async def asked(self, order: Sequence[tuple[str, int, int]]) -> list[Record]:
        """The records of some lines of `order`, each with the columns of its place in its run."""
        pks = sorted({pk for _, _, pk in order})
        records = {record.pk: record for record in await self._records(sql.BY_PKS, pks=pks)}
        lines = {
            (row["run"], row["place"], row["pk"]): (row["question"], meta_of(row["meta"]))
            for row in await self._tables.fetch(sql.ASKED, pks=pks)
        }
        found: list[Record] = []
        for line in order:
            record = records.get(line[2])
            if record is not None and line in lines:
                question, meta = lines[line]
                record = msgspec.structs.replace(record, question=question, meta=meta)
            if record is not None:
                found.append(record)
        return found

    async def replacement(self, *, key: str, job_id: str) -> Record | None:
        """The record in place of a past submission that had this key or id."""
        found = await self._tables.fetch(sql.REPLACED, key=key, job_id=job_id)
        return await self.get(pk=found[0]["pk"], item="", job_id="", key="") if found else None

    async def facts(self) -> dict[str, object]:
        """See `JournalReader.facts`."""
        kept = {row["k"]: row["v"] for row in await self._tables.fetch(sql.META)}
        learnt = {row["name"]: row["value"] for row in await self._tables.fetch(sql.LEARNT)}
        return {
            "base_url": kept.get("base_url", ""),
            "created": float(kept["created"]),
            "made_by": kept["made_by"],
            "openings": int(kept["openings"]),
            "clean": kept["clean"] == "true",
            "exhausted": kept["exhausted"] == "true",
            "notes": {name.removeprefix(NOTE): value for name, value in learnt.items() if name.startswith(NOTE)},
        }

    async def writer(self) -> tuple[int, str] | None:
        """Process and host of the session that was opened last and lives; None if none seems to."""
        found = await self._tables.fetch(sql.WRITER)
        return (found[0]["pid"], found[0]["host"]) if found else None
