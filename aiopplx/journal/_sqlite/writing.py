"""The statements that change a journal's tables: new rows, and the steps of a submission, each complete or without
effect.

The statement of each step is made from the table of steps, once, when this module is imported. It checks the key and
the state that the step needs and makes the change at the same time; only if that changed nothing is the row read, to
find out why. This module knows nothing of threads, of when a transaction is committed, or of what a full disk means.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

import msgspec

from aiopplx.journal._errors import JournalBroken, duplicate, key_taken, name_taken
from aiopplx.journal._kinds import kind_label
from aiopplx.journal._names import item_name as name_of
from aiopplx.journal._names import job_name, sha_of
from aiopplx.journal._packing import pack, pack_meta, tag_text
from aiopplx.journal._records import (
    DELIVERABLE,
    REPLACEABLE,
    REPLACEABLE_IF_ASKED,
    REUSABLE,
    Claim,
    Origin,
    Record,
    Results,
    State,
)
from aiopplx.journal._sqlite.log import has_all
from aiopplx.journal._sqlite.reading import Statements, mask
from aiopplx.journal._steps import RULES, SENDING, Kind, Rule, Step
from aiopplx.journal._taking import assignments, keeps, may_take

# --- one statement for each step -------------------------------------------------------------------------------------


def _where(rule: Rule) -> str:
    where = f"pk = :pk AND key IS nullif(:key, '') AND (1 << state) & {mask(rule.origins)}"
    if rule is SENDING:  # a mark is not made twice, unless it was taken back
        where += f" AND (attempts < :attempts OR attempts = :attempts AND state = {int(State.QUEUED)})"
    return where


def _update(rule: Rule) -> str:
    changed = [f"state = {int(rule.leads_to)}", "touched = :fence", "updated = :now", *assignments(rule, ":now")]
    return f"UPDATE job SET {', '.join(changed)} WHERE {_where(rule)}"  # noqa: S608 - names of our own table


def _keep(rule: Rule) -> str:
    return (
        "INSERT OR REPLACE INTO result(pk, enc, size, body) SELECT :pk, :enc, :size, :packed"  # noqa: S608 - our own
        f" WHERE EXISTS (SELECT 1 FROM job WHERE {_where(rule)})"
    )


_UPDATES: Mapping[Rule, str] = {rule: _update(rule) for rule in RULES}
_KEEPS: Mapping[Rule, str] = {rule: _keep(rule) for rule in RULES}
_REWRITING = frozenset(rule for rule in RULES if rule.starts_over or "body" in rule.columns)
"""Of steps that change the bytes to be sent."""

_PAST = """
    INSERT INTO past(pk, key, job_id, api, kind, state, word, error, cost, updated)
    SELECT pk, key, job_id, api, kind, state, word, error, cost, updated FROM job WHERE pk = ?"""


# --- where a row comes from ------------------------------------------------------------------------------------------

_NOWHERE = Origin()
_ALONE = "NOT EXISTS (SELECT 1 FROM origin WHERE origin.pk = job.pk)"
_COMES_FROM = "INSERT OR REPLACE INTO origin(run, place, pk, question, meta) VALUES (?, ?, ?, ?, ?)"
_STANDS_AT = f"UPDATE job SET run = ?, place = ? WHERE pk = ? AND run <> ? AND {_ALONE}"  # noqa: S608 - our own
# A second row of this run asks for the same job, so the place of the first is written where there can be several.
_STOOD_AT = f"""
    INSERT INTO origin(run, place, pk, question, meta)
    SELECT run, place, pk, '', x'' FROM job WHERE pk = ? AND run = ? AND place <> ? AND {_ALONE}"""  # noqa: S608 - our own
# One row asks again, so one line of an earlier run goes: if several rows asked for the job then, each takes its own.
_CAME_FROM = """
    DELETE FROM origin WHERE (run, place) = (
        SELECT run, place FROM origin WHERE pk = ? AND run <> ? ORDER BY run, place LIMIT 1)"""
_NOW_HAS = "UPDATE origin SET question = ?, meta = ? WHERE pk = ?"
_HAS = """
    INSERT INTO origin(run, place, pk, question, meta)
    SELECT run, CASE run WHEN '' THEN pk ELSE place END, pk, ?, ? FROM job WHERE pk = ?"""


class WritingStatements(Statements):
    """The tables, for the one writer.

    Args:
        connection: the writer's connection.
        path: the journal's file.
        fence: the number of this opening, for its claims; the file must still have it.
        results: how long result bodies are kept.
        replace: another question under a known tag takes the place of one that has ended.
        now: wall clock, seconds since 1970.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        fence: int,
        *,
        results: Results,
        replace: bool,
        now: Callable[[], float],
    ) -> None:
        super().__init__(connection, path, now=now)
        self.fence = fence
        self.results: Results = results
        self._moment = 0.0  # of the transaction; 0.0 until something in it asks
        self._replaceable = REPLACEABLE_IF_ASKED if replace else REPLACEABLE
        self._has_past = self.one("SELECT 1 FROM past") is not None

    def begin(self) -> None:
        """Called in every transaction. All that is written in it has one moment.

        Raises:
            JournalBroken: another writer has opened the file since. The lock prevents that, unless its file was
                removed.
        """
        self._moment = 0.0
        (epoch,) = self.one("SELECT v FROM meta WHERE k = 'epoch'")
        if epoch != self.fence:
            raise JournalBroken(
                f"another process has taken the journal {self.path} over (was its .lock file removed?). This process"
                " can no longer write to it, and must not send anything more",
                path=self.path,
                is_final=True,
            )

    def _read_clock(self) -> float:
        self._moment = self.now()
        return self._moment

    def mark_clean(self) -> None:
        """Record that this opening was closed properly."""
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.execute(
            "UPDATE meta SET v = 1 WHERE k = 'clean' AND (SELECT v FROM meta WHERE k = 'epoch') = ?", (self.fence,)
        )
        has_all(self.connection)
        self.connection.execute("COMMIT")

    @contextmanager
    def _together(self) -> Generator[None]:
        """All changes of one step, or none, within a transaction that has other steps too."""
        self.connection.execute("SAVEPOINT step")
        try:
            yield
        except BaseException:
            if self.connection.in_transaction:  # a full disk may have ended the whole transaction
                self.connection.execute("ROLLBACK TO step")
                self.connection.execute("RELEASE step")
            raise
        self.connection.execute("RELEASE step")

    # --- finding and queueing ----------------------------------------------------------------------------------------

    def find_or_queue(
        self,
        item: str,
        *,
        tag: str | int | None,
        key: str,
        body: bytes,
        sha: bytes,
        api: str,
        origin: Origin | None = None,
    ) -> Record:
        """See `Journal`."""
        run = self._run(origin.run) if origin is not None else ""
        queued = self._insert(item, run, tag=tag, key=key, body=body, sha=sha, api=api, origin=origin or _NOWHERE)
        if queued is not None:
            return queued
        pk = self.find(item=item)
        if pk is None:
            raise self._key_taken(item, tag, key)
        found = self._claimed(pk)
        if found.sha in (sha, b""):
            self._touch(found)
            return found if origin is None else self._came_from(found, origin)
        if not self._is_replaceable(found):
            raise name_taken(item, tag, found.state.name)
        self._check_key(item, tag, key)
        with self._together():
            if found.attempts:
                self._to_the_past(pk)
            self._replace(pk, key=key, body=body, sha=sha, api=api)
            found = self._claimed(pk)
            return found if origin is None else self._came_from(found, origin)

    def alike(self, sha: bytes, api: str, item: str, beginning: str) -> list[Record]:
        """What there is for whoever would reuse an answer. Its index is made for those who ask."""
        self.connection.execute("CREATE INDEX IF NOT EXISTS job_sha ON job(sha)")
        newest = "SELECT max(pk) FROM job WHERE sha = ? AND api = ? AND"
        found = self.connection.execute(
            f"SELECT pk FROM job WHERE item = ? UNION {newest} (1 << state) & ? UNION {newest} instr(item, ?) = 1"  # noqa: S608 - ours
            " ORDER BY 1",
            (item, sha, api, mask(REUSABLE), sha, api, beginning),
        )
        records = [self.record(pk) for (pk,) in found.fetchall() if pk is not None]
        return [record for record in records if record is not None]

    def claim(self, pk: int) -> Record | None:
        """See `Journal`. The only writer holds every row."""
        return self.record(pk, fence=self.fence)

    def _claimed(self, pk: int) -> Record:
        found = self.claim(pk)
        assert found is not None, "rows are never removed"  # noqa: S101 - for the type checkers
        return found

    def _run(self, run: str) -> str:
        """The stored id of a run: those of later openings come after those of earlier ones, whatever clocks say."""
        return f"{self.fence:06x}{run}" if run else ""

    def _insert(
        self, item: str, run: str, *, tag: str | int | None, key: str, body: bytes, sha: bytes, api: str, origin: Origin
    ) -> Record | None:
        """The new row; None if its name or key is in use. It is not looked up first, since most are new."""
        if self._has_past and self._is_past(key):
            return None
        now, kind = self._moment or self._read_clock(), kind_label(api, body)
        meta = pack_meta(origin.meta) if origin.meta else None
        done = self.connection.execute(
            "INSERT OR IGNORE INTO job(item, tag, key, sha, api, kind, state, touched, updated, run, place)"
            " VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?)",
            (item, tag_text(tag), key, sha, api, kind, self.fence, now, run, origin.place),
        )
        pk = done.lastrowid or 0
        if not done.rowcount:
            return None
        try:
            self.connection.execute("INSERT INTO request(pk, body) VALUES (?, ?)", (pk, body))
            if meta is not None:
                self.connection.execute(_COMES_FROM, (run, origin.place if run else pk, pk, "", meta))
        except BaseException:
            self.connection.execute("DELETE FROM request WHERE pk = ?", (pk,))
            self.connection.execute("DELETE FROM job WHERE pk = ?", (pk,))
            raise
        return Record(
            pk=pk,
            item=item,
            tag=tag,
            key=key,
            body=body,
            sha=sha,
            api=api,
            kind=kind,
            state=State.QUEUED,
            updated=now,
            claim=Claim(pk, self.fence),
            meta=origin.meta,
        )

    def _came_from(self, found: Record, origin: Origin) -> Record:
        """A row that was there already comes from here this time."""
        pk, run, place, meta = found.pk, self._run(origin.run), origin.place, pack_meta(origin.meta)
        question = "" if found.body else origin.question
        if not origin.meta and not question and self.connection.execute(_STANDS_AT, (run, place, pk, run)).rowcount:
            return found
        with self._together():
            if not run:  # a call of its own: the row keeps its place in the run of a batch
                done = self.connection.execute(_NOW_HAS, (question, meta, pk))
                if not done.rowcount:
                    self.connection.execute(_HAS, (question, meta, pk))
            else:
                self.connection.execute(_STOOD_AT, (pk, run, place))
                self.connection.execute(_CAME_FROM, (pk, run))
                self.connection.execute(_COMES_FROM, (run, place, pk, question, meta))
        return msgspec.structs.replace(found, question=question, meta=origin.meta)

    def _is_past(self, key: str) -> bool:
        return self.one("SELECT 1 FROM past WHERE key = ?", key) is not None

    def _check_key(self, item: str, tag: str | int | None, key: str) -> None:
        """Raises `ItemConflict` if a submission, current or past, has this key."""
        if self.one("SELECT 1 FROM job WHERE key = ?", key) is not None or self._is_past(key):
            raise self._key_taken(item, tag, key)

    def _key_taken(self, item: str, tag: str | int | None, key: str) -> Exception:
        used = self.one(
            "SELECT item FROM job WHERE key = ?"
            " UNION ALL SELECT job.item FROM past JOIN job USING (pk) WHERE past.key = ?",
            key,
            key,
        )
        return key_taken(item, tag, used[0])

    def _touch(self, found: Record) -> None:
        """Record that this opening has asked for it: from now on its name is reserved."""
        if found.state in self._replaceable:
            self.connection.execute(
                "UPDATE job SET touched = ? WHERE pk = ? AND touched < ?", (self.fence, found.pk, self.fence)
            )

    def _is_replaceable(self, found: Record) -> bool:
        if found.state not in self._replaceable or (found.state is State.QUEUED and found.first_sent is not None):
            return False
        (touched,) = self.one("SELECT touched FROM job WHERE pk = ?", found.pk)
        return bool(touched < self.fence)

    def _replace(self, pk: int, *, key: str, body: bytes, sha: bytes, api: str) -> None:
        """Turn the row into a newly queued one, for another request."""
        self.connection.execute(
            "UPDATE job SET state = 0, key = ?, api = ?, kind = ?, sha = ?, job_id = NULL, first_sent = NULL,"
            " accepted_at = NULL, ended_at = NULL, word = '', error = '', cost = NULL, delivered = 0, touched = ?,"
            " updated = ? WHERE pk = ?",
            (key, api, kind_label(api, body), sha, self.fence, self._moment or self._read_clock(), pk),
        )
        self.connection.execute("UPDATE request SET body = ? WHERE pk = ?", (body, pk))
        self.connection.execute("DELETE FROM result WHERE pk = ?", (pk,))

    def adopt(self, job_id: str, *, api: str, tag: str | int | None = None) -> Record:
        """See `Journal`."""
        known = self.find(job_id=job_id)
        if known is not None:
            return self._claimed(known)
        item = job_name(job_id) if tag is None else name_of(tag, sha_of(b""))
        other = self.get(item=item)
        if other is not None:
            raise name_taken(item, tag, other.state.name)
        now = self._moment or self._read_clock()
        with self._together():
            pk = self.connection.execute(
                "INSERT INTO job(item, tag, sha, api, kind, state, job_id, accepted_at, touched, updated)"
                " VALUES (?, ?, x'', ?, ?, ?, ?, ?, ?, ?)",
                (item, tag_text(tag), api, kind_label(api, b""), State.ACCEPTED, job_id, now, self.fence, now),
            ).lastrowid
            self.connection.execute("INSERT INTO request(pk, body) VALUES (?, x'')", (pk,))
        return self._claimed(pk or 0)

    # --- steps -------------------------------------------------------------------------------------------------------

    def apply(self, claim: Claim, step: Step) -> None:
        """See `Journal`. A claim of an earlier opening is lost: this one holds every row."""
        rule, pk = step.rule, claim.pk
        if claim.fence != self.fence and rule.kind is not Kind.FACT:
            may_take(step, pk, self.record(pk), is_live=False, is_latest=False, path=self.path)
        values: dict[str, object] = msgspec.structs.asdict(step)
        values["pk"], values["fence"], values["now"] = pk, self.fence, self._moment or self._read_clock()
        if rule in _REWRITING:
            self._rewrite(claim, step, values)
            return
        if step.raw and keeps(step, self.results):
            # First, and only if the step may be taken: if it fails, there is nothing to undo.
            self._check_id(pk, step.job_id)
            values["enc"], values["size"], values["packed"] = pack(step.raw)
            self.connection.execute(_KEEPS[rule], values)
        try:
            done = self.connection.execute(_UPDATES[rule], values).rowcount
        except sqlite3.IntegrityError:
            self._check_id(pk, step.job_id)
            raise
        if done != 1:
            self._not_taken(claim, step)

    def _rewrite(self, claim: Claim, step: Step, values: Mapping[str, object]) -> None:
        """A step that changes the bytes to be sent: rare, and in several tables."""
        row = self.record(claim.pk)
        if not may_take(step, claim.pk, row, is_live=True, is_latest=True, path=self.path) or row is None:
            return
        if step.new_key:
            self._check_key(row.item, row.tag, step.new_key)
        with self._together():
            if step.rule.starts_over:
                self._to_the_past(claim.pk)
                self.connection.execute("DELETE FROM result WHERE pk = ?", (claim.pk,))
            self.connection.execute(_UPDATES[step.rule], {**values, "kind": kind_label(step.api, step.body)})
            self.connection.execute("UPDATE request SET body = ? WHERE pk = ?", (step.body, claim.pk))

    def _not_taken(self, claim: Claim, step: Step) -> None:
        """Does nothing if the step was already taken; otherwise raises the error that says why it was refused."""
        is_live = claim.fence == self.fence
        row = self.record(claim.pk)
        may = may_take(step, claim.pk, row, is_live=is_live, is_latest=is_live, path=self.path)
        assert not may, "the statement asks what the table says"  # noqa: S101 - they come from one table

    def _check_id(self, pk: int, job_id: str) -> None:
        """Raises `DuplicateJob` if another row has this id."""
        other = self.one("SELECT key FROM job WHERE job_id = ? AND pk <> ?", job_id, pk) if job_id else None
        if other is not None:
            raise duplicate(job_id, other[0] or "", path=self.path)

    def _to_the_past(self, pk: int) -> None:
        """Copy the row's submission to the past, before another replaces it."""
        self.connection.execute(_PAST, (pk,))
        self._has_past = True

    # --- other marks -------------------------------------------------------------------------------------------------

    def delivered(self, pk: int, key: str, state: State) -> None:
        """See `Journal`."""
        done = self.connection.execute(
            "UPDATE job SET delivered = 1, updated = ? WHERE pk = ? AND key IS ? AND state = ? AND (1 << state) & ?",
            (self._moment or self._read_clock(), pk, key or None, state, mask(DELIVERABLE)),
        )
        if done.rowcount and self.results == "until_delivered":
            self.connection.execute("DELETE FROM result WHERE pk = ?", (pk,))
            self.connection.execute("UPDATE origin SET question = '', meta = x'' WHERE pk = ?", (pk,))
            # What has no result may be submitted again, and needs its bytes.
            self.connection.execute(
                "UPDATE request SET body = x'' WHERE pk = ? AND (SELECT state FROM job WHERE job.pk = request.pk) = ?",
                (pk, State.DONE),
            )

    def remember(self, name: str, value: bytes) -> None:
        """See `Journal`."""
        self.connection.execute("INSERT OR REPLACE INTO learnt(name, value) VALUES (?, ?)", (name, value))

    def exhausted(self, is_exhausted: bool) -> None:
        """See `Journal`. The file stores the opposite, as `unread`."""
        self.connection.execute("INSERT OR REPLACE INTO meta(k, v) VALUES ('unread', ?)", (int(not is_exhausted),))
