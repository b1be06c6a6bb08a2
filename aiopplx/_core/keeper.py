"""What a session writes into its journal of each submission, and what it makes of what it finds there.

Between the engine, which asks what to do with a submission, and the journal, which knows how far it had come. This
module knows nothing of how a journal is kept, of HTTP, or of batches.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Literal, TypeAlias

from aiopplx._core.watch import make_job, outcome_error
from aiopplx._errors import AiopplxError, APIError, InDoubt, InvalidRequest, JobExpired, JobFailed, ProtocolError
from aiopplx._job import Job, JobStatus, Snapshot
from aiopplx._submission import Submission
from aiopplx._wire.api import API
from aiopplx._wire.call import Reply
from aiopplx.journal._protocol import (
    ImpossibleStep,
    Journal,
    JournalError,
    Occurrences,
    Record,
    ResultDamaged,
    State,
    item_name,
    sha_of,
)

logger = logging.getLogger("aiopplx")

OnDoubt: TypeAlias = Literal["resend", "hold"]

KEY_LIFE = 24 * 3600.0
"""Seconds for which a server is trusted to remember a key. Nobody says for how long Perplexity does; 24 hours is the
least that comparable services promise."""
RESENDS = 16
"""Attempts in all, over all runs, after which a submission in doubt is not sent again unasked."""

_AGAIN = frozenset({State.FAILED, State.EXPIRED, State.REJECTED})
_STATES = {
    JobStatus.COMPLETED: State.DONE,
    JobStatus.FAILED: State.FAILED,
    JobStatus.CANCELLED: State.FAILED,
    JobStatus.INCOMPLETE: State.FAILED,
    JobStatus.EXPIRED: State.EXPIRED,
}


class _Way:
    """A submission that this session is sending.

    Attributes:
        sub: which.
        over: set when it is sent no longer.
        marked: it is marked as being sent, by this run.
    """

    __slots__ = ("marked", "over", "sub")

    def __init__(self, sub: Submission) -> None:
        self.sub = sub
        self.over = asyncio.Event()
        self.marked = False


class Keeper:
    """Keeps a session's journal.

    Args:
        journal: where it is written.
        api_named: the API of a name that a record has.
        on_doubt: what happens to a submission whose fate is unknown; None: sent again where the API honours keys, held
            where it does not.
        retry_failed: submissions that failed, expired or were refused are submitted again, under a new key.
        wall: seconds since 1970, for the age of a key.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        api_named: Callable[[str], API],
        on_doubt: OnDoubt | None,
        retry_failed: bool,
        wall: Callable[[], float],
    ) -> None:
        self.journal = journal
        self._api_named = api_named
        self._on_doubt = on_doubt
        self._retry_failed = retry_failed
        self._wall = wall
        self._occurrences = Occurrences()
        self._under_way: dict[int, _Way] = {}

    @property
    def stores_results(self) -> bool:
        """True if a result that was written can be read back."""
        return self.journal.results != "refetch"

    # --- finding -----------------------------------------------------------------------------------------------------

    async def begin(self, sub: Submission) -> Job | None:
        """Write a submission down, or find it.

        Returns:
            Its job, if it is over already; None if there is something to do: `load` it if `sub.stored`, look at
            `sub.job_id` if that is set, submit it otherwise.

        Raises:
            ItemConflict: its tag is known for another request.
            JournalError: it could not be written; nothing was sent.
        """
        request = sub.request
        assert request is not None, "a submission has its request until it is accepted"  # noqa: S101 - for the checker
        sha = sha_of(request.canonical())
        item = item_name(sub.tag, sha, self._occurrences.count(sha) if sub.tag is None else 1)
        record = await self._claimed(sub, item, sha)
        sub.key, sub.claim = record.key, record.claim
        if record.body:
            sub.body = record.body
        sub.api = self._api_named(record.api)
        try:
            job = await self._found(sub, record)
        except BaseException:
            self.let_go(sub)
            raise
        if job is not None or sub.stored or sub.job_id:
            self.let_go(sub)
        return job

    async def _claimed(self, sub: Submission, item: str, sha: bytes) -> Record:
        """The record, once nobody else in this session is sending it: one tag asked for twice is one submission."""
        while True:
            record = await self.journal.find_or_queue(
                item, tag=sub.tag, key=sub.key, body=sub.body, sha=sha, api=sub.api.name
            )
            other = self._under_way.get(record.pk)
            if other is None:
                self._under_way[record.pk] = _Way(sub)
                return record
            await other.over.wait()

    def let_go(self, sub: Submission) -> None:
        """It is no longer being sent: whoever asks for the same may look what became of it."""
        if sub.claim is not None and (way := self._way(sub)) is not None:
            del self._under_way[sub.claim.pk]
            way.over.set()

    def _way(self, sub: Submission) -> _Way | None:
        way = self._under_way.get(sub.claim.pk) if sub.claim is not None else None
        return way if way is not None and way.sub is sub else None

    async def _found(self, sub: Submission, record: Record) -> Job | None:
        match record.state:
            case State.QUEUED:
                return None
            case State.ACCEPTED:
                sub.job_id = record.job_id
                return None
            case State.SENDING | State.IN_DOUBT:
                return await self._doubtful(sub, record)
            case _ if self._retry_failed and record.state in _AGAIN:
                await self.pay_again(sub, record)
                return None
            case _:
                return await self._ended(sub, record)

    async def _doubtful(self, sub: Submission, record: Record) -> Job | None:
        age = self._wall() - record.first_sent if record.first_sent is not None else 0.0
        # Asked of the API that it went to, which need not be the one that this session submits to.
        if self._resends(sub.api) and 0 <= age < KEY_LIFE and record.attempts < RESENDS:
            sub.was_in_doubt = True
            return None
        error = in_doubt(record)
        await self.journal.doubtful(record.claim, error.message)
        return make_job("", JobStatus.IN_DOUBT, error, None, sub)

    def _resends(self, api: API) -> bool:
        return self._on_doubt == "resend" if self._on_doubt is not None else api.has_idempotency

    async def pay_again(self, sub: Submission, record: Record) -> None:
        """A new submission in an old one's place, under a new key."""
        sub.key = uuid.uuid4().hex
        # What was adopted has no body of its own; whoever asks for it by its tag says what it is.
        sub.body = sub.api.rekeyed(record.body, sub.key) if record.body else self._frozen(sub)
        await self.journal.requeue(record.claim, key=sub.key, body=sub.body, api=sub.api.name)

    @staticmethod
    def _frozen(sub: Submission) -> bytes:
        if sub.request is None:
            raise InvalidRequest("the journal does not know what this job was asked: it was adopted. Submit it anew")
        return sub.api.freeze(sub.request, sub.key)

    async def _ended(self, sub: Submission, record: Record) -> Job | None:
        if record.has_result:
            sub.stored = True
            return None
        if record.state is State.DONE:
            # Its result was not kept, or not for this long: the server has it for days, and looking is free.
            sub.settled = True
            sub.job_id = record.job_id
            return None
        return self.job_of(record, None, sub)

    def job_of(self, record: Record, raw: bytes | None, sub: Submission | None = None) -> Job:
        """A record as the value that users get; a stored answer is read anew, by whatever this version knows."""
        api = self._api_named(record.api)
        snapshot: Snapshot | None = None
        error: AiopplxError | None = None
        if raw:
            try:
                snapshot = api.read_job(Reply(200, {}, raw), record.job_id)
                error = outcome_error(snapshot)
            except ProtocolError as problem:
                error = problem
        status = snapshot.status if snapshot is not None else _STATUS_OF[record.state]
        if snapshot is None and error is None:
            error = _error_of(record)
        return make_job(record.job_id, status, error, snapshot, sub, api=record.api, key=record.key, tag=record.tag)

    async def running(self) -> int:
        """How many submissions are, or may be, billed and have not ended."""
        counts = await self.journal.counts()
        return counts[State.ACCEPTED] + counts[State.SENDING]

    async def load(self, sub: Submission) -> Job:
        """A job that ended, read back from the journal."""
        assert sub.claim is not None, "what was stored has its claim"  # noqa: S101 - for the checker
        record = await self.journal.get(pk=sub.claim.pk)
        assert record is not None, "records are not removed while a session holds them"  # noqa: S101 - for the checker
        return self.job_of(record, await self._result(record), sub)

    async def _result(self, record: Record) -> bytes | None:
        try:
            return await self.journal.result(record.pk)
        except ResultDamaged as error:
            logger.warning("%s", error)
            return None

    async def find(self, job_id: str) -> Record | None:
        """What the journal knows of a job of this id."""
        return await self.journal.get(job_id=job_id)

    async def kept(self, record: Record) -> Job | None:
        """A job that ended, if its result is here and whole."""
        raw = await self._result(record) if record.has_result else None
        return self.job_of(record, raw) if raw else None

    # --- by the user's own word --------------------------------------------------------------------------------------

    async def in_doubt(self) -> list[Job]:
        """Everything whose fate is unknown and that nobody is sending at this moment."""
        found: list[Job] = []
        after = 0
        while page := await self.journal.rows((State.IN_DOUBT, State.SENDING), after=after):
            found += [self.job_of(record, None) for record in page if record.pk not in self._under_way]
            after = page[-1].pk
        return found

    async def resubmission(self, job: Job, *, timeout: float) -> Submission:
        """A submission under a new key, in the place of one that has no result. Raises `InvalidRequest`."""
        record = await self._record_of(job)
        if record.state not in _AGAIN | {State.SENDING, State.IN_DOUBT}:
            raise InvalidRequest(
                f"the journal says {record.state.name} of this job: only one without a result is submitted again"
            )
        api = self._api_named(record.api)
        sub = Submission(
            api,
            record.body,
            record.key,
            tag=record.tag,
            index=None,
            timeout=timeout,
            repeatable=self._resends(api),
        )
        sub.claim = record.claim
        self._under_way[record.pk] = _Way(sub)
        try:
            if record.state is State.SENDING:
                await self.journal.doubtful(record.claim, record.error)
            await self.pay_again(sub, record)
        except BaseException:
            self.let_go(sub)
            raise
        return sub

    async def adopt(self, job_id: str, api: API, *, instead_of: Job | None, tag: str | int | None) -> Job:
        """Take in a job from elsewhere, or find the id of one in doubt."""
        api.get(job_id)  # refuses what is no id
        if instead_of is None:
            return self.job_of(await self.journal.adopt(job_id, api=api.name, tag=tag), None)
        record = await self._record_of(instead_of)
        if record.state is State.SENDING:
            await self.journal.doubtful(record.claim, record.error)
        await self.journal.accepted(record.claim, job_id)
        return self.job_of(await self._record_of(instead_of), None)

    async def drop(self, job: Job) -> Job:
        """Give up one in doubt."""
        record = await self._record_of(job)
        if record.state is State.SENDING:
            await self.journal.doubtful(record.claim, record.error)
        await self.journal.drop(record.claim)
        return self.job_of(await self._record_of(job), None)

    async def _record_of(self, job: Job) -> Record:
        record = (
            await self.journal.get(key=job.idempotency_key, job_id=job.id) if job.idempotency_key or job.id else None
        )
        if record is None:
            raise InvalidRequest(
                f"the journal does not know this job ({job.id or job.idempotency_key or 'no id, no key'})"
            )
        if record.pk in self._under_way:
            raise InvalidRequest("it is being sent at this moment: wait for what becomes of it")
        return record

    # --- writing -----------------------------------------------------------------------------------------------------

    async def sending(self, sub: Submission) -> None:
        """On disk before the first byte leaves. Raises `JournalError`: then nothing may leave."""
        if sub.claim is None:
            return
        if (way := self._way(sub)) is not None:
            way.marked = True
        await self.journal.sending(sub.claim)

    async def not_sent(self, sub: Submission) -> None:
        """Nothing that was sent can have made a job. A run that ends now must not leave it looking as if it might."""
        way = self._way(sub)
        if sub.claim is None or way is None or sub.was_in_doubt or not way.marked:
            return
        way.marked = False
        try:
            await self.journal.back_to_queued(sub.claim)
        except JournalError as error:
            logger.debug("it stays marked as being sent: %s", error)

    async def accepted(self, sub: Submission, job_id: str) -> None:
        """Its id is on disk before anybody looks at it. Raises `DuplicateJob`, `JournalError`."""
        try:
            if sub.claim is not None:
                await self.journal.accepted(sub.claim, job_id)
        finally:
            self.let_go(sub)

    async def not_accepted(self, sub: Submission, job: Job) -> None:
        """There is no job to look at: refused, stopped, in doubt, or ended in the answer to the submission itself."""
        if sub.claim is None:
            return
        try:
            if job.id:
                await self.ended(sub, job)
            elif isinstance(job.error, InDoubt):
                await self.journal.doubtful(sub.claim, job.error.message)
            elif job.status is JobStatus.REJECTED and _is_final_refusal(job.error):
                await self.journal.ended(sub.claim, State.REJECTED, error=job.error.message if job.error else "")
            else:
                await self.not_sent(sub)
        finally:
            self.let_go(sub)

    async def refrozen(self, sub: Submission) -> None:
        """The same question goes to another API, under the same key: nothing was created at the first."""
        if sub.claim is None:
            return
        await self.not_sent(sub)
        await self.journal.refreeze(sub.claim, body=sub.body, api=sub.api.name)

    async def ended(self, sub: Submission | None, job: Job) -> None:
        """The outcome is on disk before it is handed out. What may still change (a time limit) is not written."""
        state = _STATES.get(job.status)
        if state is None or (sub is not None and sub.settled):
            return
        if state is State.DONE and not job.ok:
            state = State.FAILED
        claim = sub.claim if sub is not None else None
        if claim is None:
            record = await self.journal.get(job_id=job.id)
            if record is None:
                return
            claim = record.claim
        error = job.error.message if job.error is not None else ""
        try:
            await self.journal.ended(
                claim, state, job_id=job.id, word=job.server_status, raw=job.raw, error=error, cost=job.cost
            )
        except ImpossibleStep:
            # Two watched one job, and the other was first. A terminal state is final.
            logger.debug("job %s had ended in the journal before", job.id)

    def unread(self, is_unread: bool) -> None:
        """A source is being read, or was read to its end."""
        self.journal.unread(is_unread)

    def taken(self, sub: Submission) -> None:
        """Its outcome was handed out."""
        if sub.claim is not None:
            self.journal.taken(sub.claim)


def in_doubt(record: Record) -> InDoubt:
    """What a record is told as whose fate is unknown."""
    return InDoubt(
        "sent, and no usable answer came before that run ended. A job may exist and be billed; its id is unknown."
        " session.in_doubt() lists it: resubmit(pay_again=True), adopt(job_id) or drop it",
        idempotency_key=record.key,
        tag=record.tag,
        attempts=record.attempts,
    )


_STATUS_OF = {
    State.QUEUED: JobStatus.STOPPED,
    State.SENDING: JobStatus.IN_DOUBT,
    State.ACCEPTED: JobStatus.IN_PROGRESS,
    State.DONE: JobStatus.UNREADABLE,
    State.FAILED: JobStatus.FAILED,
    State.IN_DOUBT: JobStatus.IN_DOUBT,
    State.EXPIRED: JobStatus.EXPIRED,
    State.REJECTED: JobStatus.REJECTED,
}


def _error_of(record: Record) -> AiopplxError | None:
    match record.state:
        case State.FAILED:
            return JobFailed(record.error or f"{record.word or 'FAILED'}, no reason given")
        case State.EXPIRED:
            return JobExpired(record.error or "the server does not know this job any more")
        case State.REJECTED:
            return APIError(record.error or "refused")
        case State.SENDING | State.IN_DOUBT:
            return in_doubt(record)
        case State.DONE:
            return ProtocolError("the stored answer cannot be read; session.get(id) may still have it")
        case _:
            return None


def _is_final_refusal(error: AiopplxError | None) -> bool:
    """Was it the request that was refused, so that the same bytes will be refused again?"""
    if isinstance(error, JournalError):
        return False
    return isinstance(error, APIError) and error.status in (400, 404, 405, 410, 413, 415, 422)
