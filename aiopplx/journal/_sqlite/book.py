"""The steps of a submission as changes of the journal's tables, each whole or not at all.

Each change asks for the state that it needs in the same statement that makes it. This module knows nothing of threads,
of when a transaction is committed, or of what a full disk means.
"""

from __future__ import annotations

import sqlite3

from aiopplx.journal._protocol import Claim, ImpossibleStep, Record, State
from aiopplx.journal._sqlite.intake import Intake
from aiopplx.journal._sqlite.rows import mask, pack
from aiopplx.journal._steps import DROPPED, DROPPED_ERROR, FROM, billed, duplicate, endings, impossible, keeps


class Book(Intake):
    """The tables, for the one writer: all that is done to them."""

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
        if raw and keeps(state, self.results):
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
            (self.now(), pk, mask(FROM["taken"])),
        )
        if done.rowcount and self.results == "until_taken":
            self.connection.execute("DELETE FROM result WHERE pk = ?", (pk,))

    def unread(self, is_unread: bool) -> None:
        """See `Journal`."""
        self.connection.execute("INSERT OR REPLACE INTO meta(k, v) VALUES ('unread', ?)", (int(is_unread),))

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
        with self.together():
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
        self.check_key(row.item, row.tag, key)
        with self.together():
            self.to_the_past(claim.pk)
            self.renew(claim.pk, key=key, body=body, api=api)

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
        values["pk"], values["fence"], values["now"] = claim.pk, self.fence, self.now()
        values["states"] = mask(FROM[step] if states is None else states)
        if claim.fence != self.fence or self.connection.execute(sql, values).rowcount != 1:
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


def _storable(text: str) -> str:
    """Half a surrogate pair, as JSON can hold one, is no UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")
