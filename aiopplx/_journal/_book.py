"""Room: the steps of a submission as changes of the journal's tables, each whole or not at all.

Each change asks for the state that it needs in the same statement that makes it. This module knows nothing of threads,
of when a transaction is committed, or of what a full disk means.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager

from aiopplx._journal import Claim, ImpossibleStep, JournalBroken, Record, Results, State, job_name
from aiopplx._journal import item_name as name_of
from aiopplx._journal._items import sha_of
from aiopplx._journal._rows import Rows, mask, pack, tag_text
from aiopplx._journal._steps import (
    DROPPED,
    DROPPED_ERROR,
    FROM,
    REPLACEABLE,
    billed,
    duplicate,
    endings,
    impossible,
    keeps,
    key_taken,
    name_taken,
)


class Book(Rows):
    """The tables, for the one writer.

    Args:
        connection: the writer's.
        path: the journal's file.
        fence: the number of this opening.
        results: what becomes of result bodies.
        now: wall clock, seconds since 1970; only stored.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: str, fence: int, *, results: Results, now: Callable[[], float]
    ) -> None:
        super().__init__(connection, path, fence)
        self._results: Results = results
        self._now = now
        self._has_past = self.one("SELECT 1 FROM past") is not None

    def check_fence(self) -> None:
        """To be asked in every transaction.

        Raises:
            JournalBroken: the file was opened by another writer since. The lock prevents that, unless somebody
                removed the lock's file.
        """
        (epoch,) = self.one("SELECT v FROM meta WHERE k = 'epoch'")
        if epoch != self.fence:
            raise JournalBroken(
                f"another process has taken the journal {self.path} over (was its .lock file removed?). Nothing more is"
                " written, and nothing more may be sent, here",
                path=self.path,
                is_final=True,
            )

    def mark_clean(self) -> None:
        """Say that this opening ended in order."""
        self.connection.execute(
            "UPDATE meta SET v = 1 WHERE k = 'clean' AND (SELECT v FROM meta WHERE k = 'epoch') = ?", (self.fence,)
        )

    @contextmanager
    def _together(self) -> Generator[None]:
        """All changes of one step, or none, though the transaction goes on with the steps of others."""
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

    def find_or_queue(self, item: str, *, tag: str | int | None, key: str, body: bytes, sha: bytes, api: str) -> Record:
        """See `Journal`."""
        queued = self._insert(item, tag=tag, key=key, body=body, sha=sha, api=api)
        if queued is not None:
            return queued
        found = self.get(item=item)
        if found is None:
            raise self._key_taken(item, tag, key)
        if found.sha in (sha, b""):
            self._touch(found)
            return found
        if self._is_free(found):
            return self._replace(found, key=key, body=body, sha=sha, api=api)
        raise name_taken(item, tag, found.state)

    def _insert(
        self, item: str, *, tag: str | int | None, key: str, body: bytes, sha: bytes, api: str
    ) -> Record | None:
        """The new row; None if its name or its key is taken. Nothing is looked up before: most are new."""
        if self._has_past and self._is_past(key):
            return None
        now = self._now()
        done = self.connection.execute(
            "INSERT OR IGNORE INTO job(item, tag, key, sha, api, state, touched, updated)"
            " VALUES (?, ?, ?, ?, ?, 0, ?, ?)",
            (item, tag_text(tag), key, sha, api, self.fence, now),
        )
        pk = done.lastrowid or 0
        if not done.rowcount:
            return None
        try:
            self.connection.execute("INSERT INTO request(pk, body) VALUES (?, ?)", (pk, body))
        except BaseException:
            self.connection.execute("DELETE FROM job WHERE pk = ?", (pk,))
            raise
        return Record(
            pk=pk,
            fence=self.fence,
            item=item,
            tag=tag,
            key=key,
            body=body,
            sha=sha,
            api=api,
            state=State.QUEUED,
            updated=now,
        )

    def _is_past(self, key: str) -> bool:
        return self.one("SELECT 1 FROM past WHERE key = ?", key) is not None

    def _check_key(self, item: str, tag: str | int | None, key: str) -> None:
        if self.one("SELECT 1 FROM job WHERE key = ?", key) is not None or self._is_past(key):
            raise self._key_taken(item, tag, key)

    def _key_taken(self, item: str, tag: str | int | None, key: str) -> Exception:
        used = self.one(
            "SELECT item FROM job WHERE key = ?1"
            " UNION ALL SELECT job.item FROM past JOIN job USING (pk) WHERE past.key = ?1",
            key,
        )
        return key_taken(item, tag, used[0])

    def _touch(self, found: Record) -> None:
        """Remember that this opening has asked for it: from now on its name is spoken for."""
        if found.state in REPLACEABLE:
            self.connection.execute(
                "UPDATE job SET touched = ?1 WHERE pk = ?2 AND touched < ?1", (self.fence, found.pk)
            )

    def _is_free(self, found: Record) -> bool:
        if found.state not in REPLACEABLE or (found.state is State.QUEUED and found.first_sent is not None):
            return False
        (touched,) = self.one("SELECT touched FROM job WHERE pk = ?", found.pk)
        return bool(touched < self.fence)

    def _replace(self, found: Record, *, key: str, body: bytes, sha: bytes, api: str) -> Record:
        self._check_key(found.item, found.tag, key)
        with self._together():
            if found.attempts:
                self._to_the_past(found.pk)
            self._renew(found.pk, key=key, body=body, api=api)
            self.connection.execute("UPDATE job SET sha = ? WHERE pk = ?", (sha, found.pk))
        renewed = self.record(found.pk)
        assert renewed is not None, "the row that was just written"  # noqa: S101 - for the type checkers
        return renewed

    def adopt(self, job_id: str, *, api: str, tag: str | int | None = None) -> Record:
        """See `Journal`."""
        found = self.get(job_id=job_id)
        if found is not None:
            return found
        item = job_name(job_id) if tag is None else name_of(tag, sha_of(b""))
        other = self.get(item=item)
        if other is not None:
            raise name_taken(item, tag, other.state)
        now = self._now()
        with self._together():
            pk = self.connection.execute(
                "INSERT INTO job(item, tag, sha, api, state, job_id, accepted_at, touched, updated)"
                " VALUES (?, ?, x'', ?, ?, ?, ?, ?, ?)",
                (item, tag_text(tag), api, State.ACCEPTED, job_id, now, self.fence, now),
            ).lastrowid
            self.connection.execute("INSERT INTO request(pk, body) VALUES (?, x'')", (pk,))
        return Record(
            pk=pk or 0,
            fence=self.fence,
            item=item,
            tag=tag,
            key="",
            body=b"",
            sha=b"",
            api=api,
            state=State.ACCEPTED,
            job_id=job_id,
            accepted_at=now,
            updated=now,
        )

    # --- steps -------------------------------------------------------------------------------------------------------

    def sending(self, claim: Claim) -> None:
        """See `Journal`."""
        self._step(
            "sending",
            claim,
            "UPDATE job SET state = 1, attempts = attempts + 1, first_sent = coalesce(first_sent, :now), taken = 0,"
            " error = '', touched = :fence, updated = :now WHERE pk = :pk AND (1 << state) & :states",
        )

    def accepted(self, claim: Claim, job_id: str) -> None:
        """See `Journal`."""
        try:
            self._step(
                "accepted",
                claim,
                "UPDATE job SET state = 2, job_id = :job_id, accepted_at = :now, taken = 0, error = '', word = '',"
                " touched = :fence, updated = :now WHERE pk = :pk AND (1 << state) & :states",
                job_id=job_id,
            )
        except sqlite3.IntegrityError:
            self._check_id(claim.pk, job_id)
            raise
        except ImpossibleStep:
            if claim.fence != self.fence or not self._is_accepted(claim.pk, job_id):
                raise

    def _is_accepted(self, pk: int, job_id: str) -> bool:
        return self.one("SELECT 1 FROM job WHERE pk = ? AND state = 2 AND job_id = ?", pk, job_id) is not None

    def ended(
        self,
        claim: Claim,
        state: State,
        *,
        job_id: str = "",
        word: str = "",
        raw: bytes = b"",
        error: str = "",
        cost: float | None = None,
    ) -> None:
        """See `Journal`."""
        if job_id:
            self._check_id(claim.pk, job_id)
        if raw and keeps(state, self._results):
            # First, and only if the step may be taken: where it fails nothing is to be undone.
            self.connection.execute(
                "INSERT OR REPLACE INTO result(pk, enc, size, body) SELECT ?, ?, ?, ?"
                " WHERE ? = ? AND EXISTS (SELECT 1 FROM job WHERE pk = ? AND (1 << state) & ?)",
                (claim.pk, *pack(raw), claim.fence, self.fence, claim.pk, mask(endings(state))),
            )
        self._step(
            "ended",
            claim,
            "UPDATE job SET state = :state, job_id = coalesce(:job_id, job_id), accepted_at ="
            " CASE WHEN :job_id IS NULL THEN accepted_at ELSE coalesce(accepted_at, :now) END, word = :word,"
            " error = :error, cost = :cost, touched = :fence, updated = :now"
            " WHERE pk = :pk AND (1 << state) & :states",
            endings(state),
            state=state,
            job_id=job_id or None,
            word=_storable(word),
            error=_storable(error),
            cost=billed(cost),
        )

    def taken(self, pk: int) -> None:
        """See `Journal`."""
        done = self.connection.execute(
            "UPDATE job SET taken = 1, updated = ? WHERE pk = ? AND (1 << state) & ?",
            (self._now(), pk, mask(FROM["taken"])),
        )
        if done.rowcount and self._results == "until_taken":
            self.connection.execute("DELETE FROM result WHERE pk = ?", (pk,))

    def doubtful(self, claim: Claim, error: str) -> None:
        """See `Journal`."""
        self._step(
            "doubtful",
            claim,
            "UPDATE job SET state = 5, error = :error, touched = :fence, updated = :now"
            " WHERE pk = :pk AND (1 << state) & :states",
            error=_storable(error),
        )

    def back_to_queued(self, claim: Claim) -> None:
        """See `Journal`."""
        self._step(
            "back_to_queued",
            claim,
            "UPDATE job SET state = 0, first_sent = NULL, touched = :fence, updated = :now"
            " WHERE pk = :pk AND (1 << state) & :states",
        )

    def refreeze(self, claim: Claim, *, body: bytes, api: str) -> None:
        """See `Journal`."""
        with self._together():
            self._step(
                "refreeze",
                claim,
                "UPDATE job SET api = :api, touched = :fence, updated = :now WHERE pk = :pk AND (1 << state) & :states",
                api=api,
            )
            self.connection.execute("UPDATE request SET body = ? WHERE pk = ?", (body, claim.pk))

    def requeue(self, claim: Claim, *, key: str, body: bytes, api: str) -> None:
        """See `Journal`."""
        row = self._may("requeue", claim)
        self._check_key(row.item, row.tag, key)
        with self._together():
            self._to_the_past(claim.pk)
            self._renew(claim.pk, key=key, body=body, api=api)

    def drop(self, claim: Claim) -> None:
        """See `Journal`."""
        self._step(
            "drop",
            claim,
            "UPDATE job SET state = 4, word = :word, error = :error, touched = :fence, updated = :now"
            " WHERE pk = :pk AND (1 << state) & :states",
            word=DROPPED,
            error=DROPPED_ERROR,
        )

    # --- what steps are made of --------------------------------------------------------------------------------------

    def _step(
        self, step: str, claim: Claim, sql: str, states: frozenset[State] | None = None, **values: object
    ) -> None:
        shared = {
            "pk": claim.pk,
            "states": mask(FROM[step] if states is None else states),
            "fence": self.fence,
            "now": self._now(),
        }
        if claim.fence != self.fence or self.connection.execute(sql, shared | values).rowcount != 1:
            raise self._impossible(step, claim)

    def _may(self, step: str, claim: Claim) -> Record:
        row = self.record(claim.pk)
        if row is None or claim.fence != self.fence or row.state not in FROM[step]:
            raise self._impossible(step, claim)
        return row

    def _impossible(self, step: str, claim: Claim) -> Exception:
        row = self.one("SELECT state FROM job WHERE pk = ?", claim.pk)
        return impossible(step, claim.pk, State(row[0]) if row is not None else None, path=self.path)

    def _check_id(self, pk: int, job_id: str) -> None:
        other = self.one("SELECT key FROM job WHERE job_id = ? AND pk <> ?", job_id, pk)
        if other is not None:
            raise duplicate(job_id, other[0] or "", path=self.path)

    def _to_the_past(self, pk: int) -> None:
        self.connection.execute(
            "INSERT INTO past(pk, key, job_id, api, state, word, error, cost, updated)"
            " SELECT pk, key, job_id, api, state, word, error, cost, updated FROM job WHERE pk = ?",
            (pk,),
        )
        self._has_past = True

    def _renew(self, pk: int, *, key: str, body: bytes, api: str) -> None:
        self.connection.execute(
            "UPDATE job SET state = 0, key = ?, api = ?, job_id = NULL, first_sent = NULL, accepted_at = NULL,"
            " word = '', error = '', cost = NULL, taken = 0, touched = ?, updated = ? WHERE pk = ?",
            (key, api, self.fence, self._now(), pk),
        )
        self.connection.execute("UPDATE request SET body = ? WHERE pk = ?", (body, pk))
        self.connection.execute("DELETE FROM result WHERE pk = ?", (pk,))


def _storable(text: str) -> str:
    """Half a surrogate pair, as JSON can hold one, is no UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")
