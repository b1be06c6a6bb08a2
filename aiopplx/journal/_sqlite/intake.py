"""How a submission gets its row: found again by its name, new, or in the place of one that was never paid for.

This module knows nothing of the steps that follow, of threads, or of when a transaction is committed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager

from aiopplx.journal._names import sha_of
from aiopplx.journal._protocol import JournalBroken, Record, Results, State, job_name
from aiopplx.journal._protocol import item_name as name_of
from aiopplx.journal._sqlite.rows import Rows, tag_text
from aiopplx.journal._steps import REPLACEABLE, key_taken, name_taken


class Intake(Rows):
    """The tables, for the one writer: names, keys and new rows.

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
        self.results: Results = results
        self.now = now
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
    def together(self) -> Generator[None]:
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
        now = self.now()
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

    def check_key(self, item: str, tag: str | int | None, key: str) -> None:
        """Raises `ItemConflict` if a submission, of now or of the past, has this key."""
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
        """Remember that this opening has asked for it: from now on its name is spoken for."""
        if found.state in REPLACEABLE:
            self.connection.execute(
                "UPDATE job SET touched = ? WHERE pk = ? AND touched < ?", (self.fence, found.pk, self.fence)
            )

    def _is_free(self, found: Record) -> bool:
        if found.state not in REPLACEABLE or (found.state is State.QUEUED and found.first_sent is not None):
            return False
        (touched,) = self.one("SELECT touched FROM job WHERE pk = ?", found.pk)
        return bool(touched < self.fence)

    def _replace(self, found: Record, *, key: str, body: bytes, sha: bytes, api: str) -> Record:
        self.check_key(found.item, found.tag, key)
        with self.together():
            if found.attempts:
                self.to_the_past(found.pk)
            self.renew(found.pk, key=key, body=body, api=api)
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
        now = self.now()
        with self.together():
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

    # --- a row that begins again ------------------------------------------------------------------------------------

    def to_the_past(self, pk: int) -> None:
        """Keep what is known of the submission in this row, before another takes its place."""
        self.connection.execute(
            "INSERT INTO past(pk, key, job_id, api, state, word, error, cost, updated)"
            " SELECT pk, key, job_id, api, state, word, error, cost, updated FROM job WHERE pk = ?",
            (pk,),
        )
        self._has_past = True

    def renew(self, pk: int, *, key: str, body: bytes, api: str) -> None:
        """Make the row one that was just queued, under another key."""
        self.connection.execute(
            "UPDATE job SET state = 0, key = ?, api = ?, job_id = NULL, first_sent = NULL, accepted_at = NULL,"
            " word = '', error = '', cost = NULL, taken = 0, touched = ?, updated = ? WHERE pk = ?",
            (key, api, self.fence, self.now(), pk),
        )
        self.connection.execute("UPDATE request SET body = ? WHERE pk = ?", (body, pk))
        self.connection.execute("DELETE FROM result WHERE pk = ?", (pk,))
