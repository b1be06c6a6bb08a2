"""What only the user may decide about a row of the journal: submit it again, adopt a job for it, or drop it.

A submission whose outcome is unknown may be a job that is billed, so nothing happens to it unless the user says so.
Each answer of the store is waited for within the bound of a single call, `RetryPolicy.call_seconds`.

This module knows nothing of how a submission is sent, or of how rows are kept.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar, cast

from aiopplx._checks.builtin import as_builtin
from aiopplx._core.freezing import submission_of
from aiopplx._core.lifecycle import Lifecycle
from aiopplx._errors import InvalidRequest
from aiopplx._job import Job
from aiopplx._submission import Submission
from aiopplx._wire.api import API
from aiopplx._wire.request import check_tag
from aiopplx.journal import _steps as steps
from aiopplx.journal._errors import JournalError
from aiopplx.journal._jobs import job_of
from aiopplx.journal._records import Claim, Record, State
from aiopplx.journal._standing import choices_of, words_of

T = TypeVar("T")


class Decisions:
    """The decisions over one session's journal.

    Args:
        life: knows what is alive in this session.
    """

    def __init__(self, life: Lifecycle) -> None:
        self._life = life
        self._store = life.store

    async def in_doubt(self) -> list[Job]:
        """Every submission whose outcome is unknown and that nobody is sending now. Raises `JournalError`."""
        jobs: list[Job] = []
        after = 0
        while page := await self._in_time(self._store.rows((State.IN_DOUBT, State.SENDING), after=after)):
            live = self._life.live.by_row
            jobs += [job_of(record, None) for record in page if record.pk not in live and not record.is_held]
            after = page[-1].pk
        return jobs

    async def resubmission(self, job: Job, *, timeout: float) -> Submission:
        """A submission under a new key, in place of one that has no result; QUEUED.

        Raises:
            InvalidRequest: the journal does not know the job, or it has a result.
            JournalError: it could not be written; nothing was sent.
        """
        record, _ = await self._claimed(job)
        if "resubmit" not in choices_of(record):
            raise InvalidRequest(
                f"the journal says of this job that it is {words_of(record.state)}: only one without a result is"
                " submitted again"
            )
        api = self._life.routing.named(record.api)
        sub = submission_of(record, api, timeout=timeout)
        await self._life.resubmit(sub, record)
        return sub

    async def adopt(self, job_id: str, api: API, *, instead_of: Job | None, tag: str | int | None) -> Job:
        """Record a job from elsewhere, or say which job came of a submission whose outcome was unknown.

        Raises:
            InvalidRequest: that is not a job id, or the journal does not know `instead_of`.
            JournalError: it could not be written; `JournalAway`: it may be written later, or not.
        """
        api.get(job_id)  # refuses what is not an id
        tag = as_builtin(tag)
        check_tag(tag)
        if instead_of is None:
            adopted = await self._in_time(self._store.adopt(job_id, api=api.name, tag=tag), job_id=job_id)
            self._life.hand_on(adopted.claim)
            return job_of(adopted, None)
        record, claim = await self._claimed(instead_of)
        await self._doubtful(record, claim)
        accepted = self._store.apply(claim, steps.accepted(key=record.key, job_id=job_id))
        await self._in_time(accepted, job_id=job_id, key=record.key)
        self._life.hand_on(claim)
        return await self._read(record)

    async def drop(self, job: Job) -> Job:
        """Give up a submission whose outcome is unknown. Raises `InvalidRequest`, `ImpossibleStep`, `JournalError`."""
        record, claim = await self._claimed(job)
        await self._doubtful(record, claim)
        await self._in_time(self._store.apply(claim, steps.dropped(key=record.key)), key=record.key)
        return await self._read(record)

    async def _doubtful(self, record: Record, claim: Claim) -> None:
        if record.state is State.SENDING:
            doubtful = self._store.apply(claim, steps.doubtful(key=record.key, error=record.error))
            await self._in_time(doubtful, key=record.key)

    async def _read(self, record: Record) -> Job:
        now = await self._in_time(self._store.get(pk=record.pk), key=record.key)
        return job_of(now or record, None)

    def _check_free(self, record: Record) -> None:
        if record.pk in self._life.live.by_row:
            raise InvalidRequest("it is being sent at this moment: wait for what becomes of it")

    async def _claimed(self, job: Job) -> tuple[Record, Claim]:
        if not isinstance(cast("object", job), Job):
            raise InvalidRequest(f"must be a Job, such as those of session.in_doubt(), not {type(job).__name__}")
        known = job.idempotency_key or job.id
        record = await self._found(job) if known else None
        if record is not None:
            self._check_free(record)
            named, claimed = record, self._in_time(self._store.claim(record.pk), job_id=job.id, key=record.key)
            record = await claimed
            if record is not None:
                self._check_free(record)  # meanwhile another call may have taken it
                if record.key != named.key:
                    raise InvalidRequest("it was submitted again meanwhile: wait for what becomes of that")
        if record is None:
            raise InvalidRequest(f"the journal does not know this job ({known or 'no id, no key'})")
        if record.claim is None:
            raise InvalidRequest("another session has it in hand at this moment: wait for what becomes of it")
        return record, record.claim

    async def _found(self, job: Job) -> Record | None:
        named = self._store.get(key=job.idempotency_key, job_id=job.id)
        return await self._in_time(named, job_id=job.id, key=job.idempotency_key)

    async def _in_time(self, call: Awaitable[T], *, job_id: str = "", key: str = "") -> T:
        """What the store answers. Raises `JournalError`, which names the job."""
        life = self._life
        try:
            return await life.reach.within(call, life.client.policy.call_seconds)
        except JournalError as error:
            raise error.about(job_id=job_id, idempotency_key=key) from error.__cause__
