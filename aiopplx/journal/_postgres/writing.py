"""The calls of a journal that write: new rows, claims, and the steps of a submission.

A statement asks for what it needs and makes the change at the same time. Only if that changed nothing is the row read,
to find out why: it may have been done before, by a statement whose answer was lost.

This module knows nothing of connections, of the order of calls, or of when a lease ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from aiopplx.journal._errors import ClaimLost, JournalAway, JournalBroken
from aiopplx.journal._packing import pack, pack_meta, tag_text
from aiopplx.journal._postgres import statements as sql
from aiopplx.journal._postgres.holding import Held
from aiopplx.journal._postgres.reading import Seen, seen_of
from aiopplx.journal._postgres.room import Taken, Value
from aiopplx.journal._records import Claim, Origin, Record, Results, State
from aiopplx.journal._steps import SENDING, Kind, Step
from aiopplx.journal.store import (
    REPLACEABLE,
    REPLACEABLE_IF_ASKED,
    duplicate,
    item_name,
    job_name,
    keeps,
    key_taken,
    kind_label,
    may_take,
    name_taken,
    sha_of,
    short_name,
    tenant_of,
)

JOB_ID, KEYS = "job_id", frozenset({"job_key", "past_key"})
"""The constraints that two rows with one id, or with one key, break."""
_AGAIN = 5
"""How many times a step is tried whose row changes between the statement and the look at it."""


class Writing:
    """The calls of one session that write.

    Args:
        held: its statements, and its line among the sessions.
        name: of the journal, for error messages.
        results: how long results are kept.
        replace: another question under a known tag takes the place of one that has ended.
        changed: told of each row that was changed.
    """

    def __init__(
        self, held: Held, name: str, *, results: Results, replace: bool, changed: Callable[[int], object]
    ) -> None:
        self._held = held
        self._name = name
        self._results: Results = results
        self._replaceable = REPLACEABLE_IF_ASKED if replace else REPLACEABLE
        self._changed = changed

    # --- the right to write ------------------------------------------------------------------------------------------

    def _claimed(self, seen: Seen) -> Record:
        """The record of a row that this session has just tried to claim, with its claim if it has it."""
        if seen.owner == self._held.me or seen.record.state.is_final:
            return msgspec.structs.replace(seen.record, claim=Claim(seen.record.pk, seen.fence))
        # It was free when it was read, and taken by another session meanwhile.
        return msgspec.structs.replace(seen.record, is_held=True)

    async def _claim(self, text: str, **values: Value) -> tuple[Record, int] | None:
        """A row, claimed if it was free, and the session that last asked for it."""
        rows = await self._held.hold(text, **values)
        return (self._claimed(seen_of(rows[0], self._held.me)), rows[0]["touched"]) if rows else None

    async def claim(self, pk: int) -> Record | None:
        """See `Journal`."""
        found = await self._claim(sql.CLAIM, pk=pk)
        return found[0] if found is not None else None

    async def free(self, limit: int, but: Collection[int]) -> list[Record]:
        """See `Journal`."""
        rows = await self._held.hold(sql.CLAIM_FREE, limit=max(0, limit), pks=list(but))
        return [self._claimed(seen_of(row, self._held.me)) for row in rows]

    async def held(self, but: Collection[int]) -> list[Claim]:
        """See `Journal`."""
        rows = await self._held.fetch(sql.HELD, pks=list(but))
        return [Claim(row["pk"], row["fence"]) for row in rows]

    async def forget(self, seconds: float, limit: int) -> int:
        """See `Journal`."""
        return len(await self._held.fetch(sql.FORGET, seconds=float(seconds), limit=limit))

    async def release(self, claim: Claim) -> bool:
        """See `Journal`. Whether it was held."""
        return bool(await self._held.fetch(sql.RELEASE, pk=claim.pk, fence=claim.fence))

    # --- finding and queueing ----------------------------------------------------------------------------------------

    async def find_or_queue(
        self,
        item: str,
        *,
        tag: str | int | None,
        key: str,
        body: bytes,
        sha: bytes,
        api: str,
        origin: Origin,
        is_known: bool,
    ) -> Record:
        """See `Journal`. `is_known` is False if nothing is said of where the question comes from."""
        run, kind, item = self._run(origin.run), kind_label(api, body), short_name(item)
        new = await self._held.hold(
            sql.QUEUE,
            item=item,
            tag=tag_text(tag),
            key=key,
            sha=sha,
            api=api,
            kind=kind,
            run=run,
            place=origin.place,
            tenant=_text(tenant_of(item)),
            body=body,
            meta=pack_meta(origin.meta),
        )
        if new:
            return Record(
                pk=new[0]["pk"],
                item=item,
                tag=tag,
                key=key,
                body=body,
                sha=sha,
                api=api,
                kind=kind,
                state=State.QUEUED,
                updated=new[0]["updated"],
                claim=Claim(new[0]["pk"], new[0]["fence"]),
                meta=origin.meta,
            )
        found = await self._claim(sql.CLAIM_ITEM, item=item, sha=sha)
        if found is None:
            raise await self._key_taken(item, tag, key)
        record, touched = found
        if record.sha not in (sha, b""):
            record = await self._replaced(record, key=key, body=body, sha=sha, api=api, tag=tag)
        elif record.state in self._replaceable and touched != self._held.me:
            await self._held.fetch(sql.TOUCH, pk=record.pk)
        return await self._came_from(record, origin, run) if is_known else record

    def _run(self, run: str) -> str:
        """The stored id of a run: those of sessions opened later come after the others, whatever clocks say."""
        return f"{self._held.me:08x}{run}" if run else ""

    async def _replaced(
        self, record: Record, *, key: str, body: bytes, sha: bytes, api: str, tag: str | int | None
    ) -> Record:
        """The row of another request, turned into a newly queued one. Raises `ItemConflict` if that cannot be."""
        try:
            done = await self._held.hold(
                sql.REPLACE,
                pk=record.pk,
                sha=sha,
                states=[int(state) for state in self._replaceable],
                key=key,
                body=body,
                api=api,
                kind=kind_label(api, body),
            )
        except Taken:  # another session used the key at this moment
            raise await self._key_taken(record.item, tag, key) from None
        if not done:
            if record.state in self._replaceable and await self._held.fetch(sql.KEY_USER, key=key):
                raise await self._key_taken(record.item, tag, key)
            raise name_taken(record.item, tag, record.state.name)
        self._changed(record.pk)
        found = await self.claim(record.pk)
        assert found is not None, "no row is removed that has no outcome"  # noqa: S101 - for the type checkers
        return found

    async def _came_from(self, found: Record, origin: Origin, run: str) -> Record:
        """A row that was there already comes from here this time."""
        question = "" if found.body else _text(origin.question)
        is_bare = not origin.meta and not question
        if is_bare and await self._held.fetch(sql.STANDS_AT, pk=found.pk, run=run, place=origin.place):
            return found
        texts = [sql.STOOD_AT, sql.CAME_FROM, sql.COMES_FROM] if run else [sql.NOW_HAS]
        await self._held.many(
            texts, pk=found.pk, run=run, place=origin.place, question=question, meta=pack_meta(origin.meta)
        )
        return msgspec.structs.replace(found, question=question, meta=origin.meta)

    async def adopt(self, job_id: str, *, api: str, tag: str | int | None) -> Record:
        """See `Journal`."""
        known = await self._claim(sql.CLAIM_JOB, job_id=job_id)
        if known is not None:
            return known[0]
        item = short_name(job_name(job_id) if tag is None else item_name(tag, sha_of(b"")))
        await self._held.hold(
            sql.ADOPT, item=item, tag=tag_text(tag), api=api, kind=kind_label(api, b""), job_id=job_id
        )
        known = await self._claim(sql.CLAIM_JOB, job_id=job_id)
        if known is not None:
            return known[0]
        other = await self._held.fetch(sql.BY_ITEM, item=item)
        if not other:
            raise self._restless("adopt")
        raise name_taken(item, tag, State(other[0]["state"]).name)

    async def _key_taken(self, item: str, tag: str | int | None, key: str) -> Exception:
        used = await self._held.fetch(sql.KEY_USER, key=key)
        return key_taken(item, tag, used[0]["item"] or "") if used else self._restless("find_or_queue")

    def _restless(self, what: str) -> JournalAway:
        return JournalAway(
            f"the rows of the journal {self._name} change faster than {what} can look at them: try it again",
            path=self._name,
            is_there=True,
        )

    # --- steps -------------------------------------------------------------------------------------------------------

    async def apply(self, claim: Claim, step: Step) -> bool:
        """See `Journal`."""
        is_intent = step.rule.kind is Kind.INTENT
        if is_intent:
            await self._held.ensure()
        entered = self._held.entered
        for _ in range(_AGAIN):
            is_anothers = await self._take(claim, step)
            if is_anothers is not None:
                break
        else:
            raise self._restless(step.rule.name)
        if is_intent and (entered != self._held.entered or not self._held.may_intend()):
            # It is written, but nothing may be sent on it any more: asked again, it finds itself done, or not its own.
            await self._held.ensure()
            await self._check(claim, step)
        return is_anothers

    async def _take(self, claim: Claim, step: Step) -> bool | None:
        """Take the step, or find that it was taken: True if another session did. None if the row changed between the
        statement and the look."""
        pk = claim.pk
        is_kept = keeps(step, self._results)
        enc, size, packed = pack(step.raw) if is_kept else (0, 0, b"")
        values: dict[str, Value] = {
            "pk": pk,
            "fence": claim.fence,
            "key": step.key,
            "attempts": step.attempts,
            "job_id": _text(step.job_id),
            "word": _text(step.word),
            "error": _text(step.error),
            "cost": step.cost,
            "new_key": step.new_key,
            "body": step.body,
            "api": step.api,
            "kind": kind_label(step.api, step.body) if "kind" in step.rule.columns else "",
            "is_kept": is_kept,
            "enc": enc,
            "size": size,
            "packed": packed,
        }
        try:
            done = await self._held.hold(sql.STEPS[step.rule], **values)
        except Taken as taken:
            raise await self._in_use(pk, step, taken) from None
        if done:
            self._changed(pk)
            return False
        seen = await self._seen(pk)
        if not self._may_take(claim, step, seen):
            return seen is not None and seen.touched != self._held.me
        if step.new_key and seen is not None and await self._held.fetch(sql.KEY_USER, key=step.new_key):
            raise await self._key_taken(seen.record.item, seen.record.tag, step.new_key)
        if step.rule is SENDING and seen is not None and await self._held.fetch(sql.KEY_OF_THE_PAST, key=step.key):
            raise key_taken(seen.record.item, seen.record.tag, "removed after its time")
        return None

    async def _seen(self, pk: int) -> Seen | None:
        rows = await self._held.fetch(sql.BY_PK, pk=pk)
        return seen_of(rows[0], self._held.me) if rows else None

    def _may_take(self, claim: Claim, step: Step, seen: Seen | None) -> bool:
        me = self._held.me
        return may_take(
            step,
            claim.pk,
            seen.record if seen is not None else None,
            is_live=seen is not None and seen.is_live(claim, me),
            is_latest=seen is None or seen.is_latest(claim, me),
            path=self._name,
        )

    async def _check(self, claim: Claim, step: Step) -> None:
        """Raises `ClaimLost` if this session does not hold the row any more."""
        seen = await self._seen(claim.pk)
        if seen is None or not seen.is_live(claim, self._held.me):
            raise ClaimLost(
                f"another session now owns row {claim.pk}: nothing may be sent on the step {step.rule.name!r}",
                path=self._name,
                idempotency_key=step.key,
            )

    async def _in_use(self, pk: int, step: Step, taken: Taken) -> Exception:
        """The error for an id, or a key, that another row has."""
        if taken.constraint == JOB_ID:
            other = await self._held.fetch(sql.BY_JOB_ID, job_id=step.job_id)
            return duplicate(step.job_id, (other[0]["key"] or "") if other else "", path=self._name)
        seen = await self._seen(pk) if taken.constraint in KEYS else None
        if seen is None:
            return JournalBroken(f"the journal {self._name} refused a step: {taken.constraint}", path=self._name)
        return await self._key_taken(seen.record.item, seen.record.tag, step.new_key)


def _text(text: str) -> str:
    """The text without what the server cannot store."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
