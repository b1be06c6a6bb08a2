"""The life of a submission: begin, send, accept, finish. Nothing else changes its phase or writes its facts.

There is one way for all: `ask`, `submit`, `resubmit` and each of a batch's submitters run `Lifecycle.submit`, which
takes a submission from NEW to where its sender has nothing more to do: it runs and is polled, or its phase is terminal.
It returns nothing, and raises nothing but cancellation; every other end is delivered to the listeners.

The order of promises is the same at each step: the store's step returns, then the phase changes. At the end it is
visible in one place (`_end`): what became of it is written, the phase changes, the budget is settled, slots are free,
listeners have their job, and the event goes out. After the write all of this is synchronous, so that no cancellation
can come between two parts of it. Delivery comes before the event, because the event runs the caller's code.

This module knows nothing of batches, of calls that wait, of HTTP, or of when a job is polled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

from aiopplx._core import outcomes
from aiopplx._core.announcing import Announcer
from aiopplx._core.finding import Search, queued_again
from aiopplx._core.freezing import freeze_again, submission_of
from aiopplx._core.live import Live
from aiopplx._core.sending import send
from aiopplx._core.shared.elsewhere import Elsewhere
from aiopplx._core.shared.holding import Collector, Holder, is_collected
from aiopplx._core.slots import Slots
from aiopplx._core.store.reaching import LEAST, SILENT, Reach, Until
from aiopplx._errors import AiopplxError, ProtocolError
from aiopplx._events import Emitter, log
from aiopplx._http.apart import is_ours
from aiopplx._job import Job, JobStatus, Snapshot, outcome_error, took
from aiopplx._policy.polling import Ended, Polls
from aiopplx._policy.recovery import Decision, decide
from aiopplx._policy.retry import Bounds
from aiopplx._submission import DOUBTFUL, POLLABLE, TERMINAL, Listener, Phase, Submission
from aiopplx.journal import _steps as steps
from aiopplx.journal._errors import ClaimLost, DuplicateJob, ImpossibleStep, JournalError, RowRemoved
from aiopplx.journal._jobs import in_doubt, question_in
from aiopplx.journal._names import Names
from aiopplx.journal._protocol import Journal
from aiopplx.journal._records import OVER, Claim, Record, State
from aiopplx.journal._steps import Kind, Step

if TYPE_CHECKING:
    from aiopplx._core.poller import Poller
    from aiopplx._core.spending import Spending
    from aiopplx._core.store.learnt import Learnt
    from aiopplx._http.client import Client
    from aiopplx._wire.api import API
    from aiopplx.apis._registry import Routing

_ENDED = frozenset(state.name for state in OVER)
_KNOWN = _ENDED - {State.REJECTED.name} | {State.ACCEPTED.name}
"""What becomes of a row if the service has said something of its job, whoever heard that."""
UNSURE = 0.5
"""Seconds after which a submission is marked again, while this session is not sure that it still holds the row."""
AWAY = 10.0
"""Seconds for which a step is still tried in a store that is out of reach, although the submission's time is up."""
MARKING = 1.0
"""Real seconds for which a mark is waited for at least, even past the time limit: one that comes later is of no use."""
TAKING_BACK = 1.0
"""Real seconds in which a mark should have been taken back: whoever takes it back is about to end."""


class Lifecycle:
    """Takes submissions through their phases.

    It keeps the record of each attempt for whoever sends (`sending.Owner`, which the client knows as `Attempts`), and
    hears from the poller what polls bring (`poller.Sink`).

    Args:
        reach: asks the store, where they are written down.
        routing: which API they go to.
        client: sends them.
        spending: what may be spent.
        emitter: tells what happens.
        max_in_flight: jobs that may run at the service at once, as far as this session knows.
        retry_failed: rows that failed, expired or were refused are submitted again, under a new key.
        new_key: makes an idempotency key.

    Attributes:
        live: the submissions that are alive.
        slots: of `max_in_flight`.
        announcer: tells what becomes of them.
        poller: polls what runs; it needs this object first.
        learnt: told when a job has ended.
        elsewhere: the submissions that another session holds.
        collector: takes what nobody holds; None where the store is not shared.
        store: where they are written down.
        reach: asks it, and waits for the answer.
    """

    poller: Poller
    learnt: Learnt
    collector: Collector | None = None

    def __init__(
        self,
        reach: Reach,
        routing: Routing,
        client: Client,
        spending: Spending,
        emitter: Emitter,
        *,
        max_in_flight: int,
        retry_failed: bool,
        new_key: Callable[[], str],
    ) -> None:
        self.reach: Reach = reach
        self.store: Journal = reach.store
        store = reach.store
        self.routing = routing
        self.client = client
        self.spending = spending
        self.live: Live = Live()
        self.announcer: Announcer = Announcer(
            emitter, client.clock, has_journal=store.remembers, is_awaited=self.is_awaited
        )
        self.slots: Slots = Slots(max_in_flight, client.clock)
        self.elsewhere: Elsewhere = Elsewhere(self, client.clock)
        self.new_key = new_key
        self._clock = client.clock
        self._retry_failed = retry_failed
        # A store that forgets is asked for ids and nothing else: steps of rows that nobody can read are not even built.
        self._remembers = store.remembers
        self._shares = store.shares

    # --- the one way --------------------------------------------------------------------------------------------------

    async def submit(
        self,
        sub: Submission,
        names: Names | None,
        bounds: Bounds,
        runner: asyncio.Task[None] | None = None,
    ) -> None:
        """Take a submission to where its sender has nothing more to do.

        Args:
            sub: NEW, or QUEUED by `requeue`, with its listener.
            names: counts the equal requests without a tag of its batch; None for a call, which without a tag
                is like no other.
            bounds: on all waiting before the first attempt, and on attempts.
            runner: the task that this runs in; None to have it found.
        """
        first = sub.listeners[0]
        sub.runner = runner or asyncio.current_task()
        try:
            while True:
                try:
                    await self._submit_as_found(sub, first, names, bounds)
                    break
                except ClaimLost:
                    pass  # its row is another session's by now: what that one makes of it is the outcome here too
                except AiopplxError as error:
                    with contextlib.suppress(ClaimLost):
                        await self._refuse(sub, error)
                        break
                self._begin_anew(sub)
        except asyncio.CancelledError as problem:
            if not is_ours(asyncio.current_task()):
                self._broke(sub, problem)
            else:
                self._cut_short(sub, problem)
                raise
        except GeneratorExit:
            raise
        except BaseException as problem:
            # A fault of ours, or of a policy of the caller's. Or the program ends: if it goes on all the same, as a
            # notebook does, nobody may wait for ever.
            self._broke(sub, problem)
            if not isinstance(problem, Exception):
                raise
        finally:
            sub.runner = None
            self.live.sent(sub)
            if first not in sub.listeners:
                self.slots.free(first)  # one who left while it was on the wire kept the slot till now

    async def _submit_as_found(self, sub: Submission, first: Listener, names: Names | None, bounds: Bounds) -> None:
        if sub.phase is Phase.FOLLOWING:
            sub.to(Phase.NEW)  # the row that it followed is over, or free
        if sub.phase is Phase.NEW:
            await self._begin(sub, names, bounds)
        if sub.phase in TERMINAL or sub.phase is Phase.FOLLOWING:
            return
        if sub.phase in POLLABLE and self._shares:
            self.poller.watch(sub, self._clock.now())  # other sessions may wait for it, so it waits for no slot
        if first.takes_slot:
            if not await self.slots.take(first, bounds.until):
                self._has_no_slot(sub, first)
                return
            if sub.phase in TERMINAL:
                return  # it ran already, and was polled for somebody else meanwhile
        if sub.phase in POLLABLE:
            self._take_up(sub, bounds)
            return
        await self.spending.reserve(sub, bounds.until)
        snapshot, now = await send(sub, self, bounds)
        await self._accept(sub, snapshot, now)

    def _begin_anew(self, sub: Submission) -> None:
        """Its row is another session's, and what that one makes of it is the outcome here too: look it up again."""
        for listener in sub.listeners:
            self.slots.free(listener)
        self.spending.settle(sub, None, is_billed=False)
        self.live.remove(sub)
        self.live.sent(sub)
        sub.claim, sub.was_elsewhere = None, True
        if sub.phase is not Phase.NEW:
            sub.to(Phase.NEW)

    def _has_no_slot(self, sub: Submission, listener: Listener) -> None:
        """Its listener's time is up. A job of an earlier run goes on, for whoever else waits for it."""
        if sub.phase not in POLLABLE:
            raise outcomes.no_slot()
        self._stop_waiting(sub, [listener], "max_in_flight jobs were running all the time", None)
        if sub.listeners:
            self.poller.watch(sub, self._clock.now())

    def _broke(self, sub: Submission, problem: BaseException) -> None:
        """Its sender dies: whoever listens hears of it now, or from the poller if there is a job.

        Nothing is written: what its row says is true, and no less cautious.
        """
        log(logging.ERROR, "submission %s failed unexpectedly", sub.key, exc_info=True)
        if sub.phase in POLLABLE:
            self.poller.watch(sub, self._clock.now())
        elif sub.phase not in TERMINAL:
            error = outcomes.unexpected(problem, is_doubtful=sub.phase in DOUBTFUL)
            job = sub.as_job(outcomes.status_of_refusal(error, self.client.gate.stop), error)
            self._end(sub, job, is_billed=job.status is JobStatus.IN_DOUBT)

    def _cut_short(self, sub: Submission, problem: BaseException) -> None:
        """Whoever made it has left. If others listen, only its sender was ended, and they hear of it."""
        if not is_collected(sub):
            self._broke(sub, problem)
        elif sub.listeners and sub.phase in POLLABLE:
            self.poller.watch(sub, self._clock.now())
        else:
            self.detach(sub)

    # --- begin: it is written down, or its row says what became of it -------------------------------------------------

    async def _begin(self, sub: Submission, names: Names | None, bounds: Bounds) -> None:
        """Write it down before it is promised to anybody, or find what became of it."""
        if not self._remembers:
            record = await self.store.find_or_queue("", tag=sub.tag, key=sub.key, body=b"", sha=b"", api=sub.api.name)
            sub.claim = record.claim
            sub.to(Phase.QUEUED)
            return
        # Whoever only submits has nothing to come back for before there is an id.
        first = sub.listeners[0] if sub.listeners else None
        needs_id = first is not None and not first.takes_slot and not first.is_late
        search = Search(self.reach, self.live, sub, names, needs_id=needs_id)
        try:
            async with self._clock.timeout_at(bounds.until):
                record, other = await search.run()
        except TimeoutError:
            sub.job_id = search.job_id
            if not sub.job_id:
                raise outcomes.silent_store() if search.asks_the_store else outcomes.busy_item() from None
            why = SILENT if search.asks_the_store else "another call, or another session, had it in hand all the time"
            self._stop_waiting(sub, list(sub.listeners), why, None)
            return
        except RowRemoved as error:
            sub.job_id = search.job_id
            sub.is_told = True
            self._end(sub, sub.as_job(JobStatus.UNREADABLE, error), is_billed=False)
            return
        except JournalError as error:
            sub.job_id = search.job_id
            self._store_failed(error)
            raise
        self.announcer.store_works()
        sub.key, sub.job_id, sub.named = record.key, record.job_id, search.named
        if record.is_held:
            self._follow(sub, record)
            return
        if other is not None:
            self._merge(sub, other, record.claim if record.state is State.ACCEPTED else None)
            return
        # Nothing is awaited between the search and this: nobody else has begun to send it.
        sub.row, sub.claim, sub.marks = record.pk, record.claim, record.attempts
        self.live.add_row(sub)
        await self._resume(sub, record)

    async def _resume(self, sub: Submission, record: Record) -> None:
        if record.api != sub.api.name:
            sub.api = self.routing.named(record.api)
        if record.body and record.body != sub.body:
            sub.body = record.body
            sub.kind = sub.api.kind_of(sub.body)
        # Asked of the API that it went to, which need not be the one that this session submits to.
        may_resend = self.client.policy.resends(sub.api.has_idempotency)
        # What another session has just found out is the outcome of whoever waited for that.
        retry_failed = self._retry_failed and not sub.was_elsewhere
        decision = decide(record, may_resend=may_resend, retry_failed=retry_failed)
        if decision is Decision.SEND:
            sub.to(Phase.QUEUED)
        elif decision is Decision.RESEND:
            sub.to(Phase.UNANSWERED)
        elif decision is Decision.REQUEUE:
            await self._requeue(sub, record)
        elif decision is Decision.HOLD:
            error = in_doubt(record)
            is_known = record.state is State.IN_DOUBT
            if not is_known:
                await self._write(sub, steps.doubtful(key=sub.key, error=error.message))
            sub.is_told = is_known
            self._end(sub, sub.as_job(JobStatus.IN_DOUBT, error), is_billed=True)
        elif decision is Decision.DONE:
            sub.is_told = True
            self._end(sub, outcomes.as_stored(sub, record, None), is_billed=False)
        elif decision is Decision.LOAD:
            sub.is_told = True
            sub.to(Phase.STORED)
            self.live.remove(sub)
            listeners, sub.listeners = sub.listeners, ()
            for listener in listeners:
                self._hand(listener, None)
        else:
            self._runs_already(sub, Phase.RUNNING if decision is Decision.POLL else Phase.REFETCHING, record)

    async def _requeue(self, sub: Submission, record: Record) -> None:
        """A new submission in an old one's place, under a new key. Raises `InvalidRequest`, `JournalError`."""
        key = self.new_key()
        body = freeze_again(sub, record.body, key)
        step = steps.requeue(key=record.key, new_key=key, body=body, api=sub.api.name)
        await self._write(sub, step)
        sub.key, sub.body, sub.job_id = key, body, ""
        sub.to(Phase.QUEUED)

    # --- send: the owner of each attempt ------------------------------------------------------------------------------

    async def mark(self, sub: Submission, now: float) -> float:
        """The next attempt may leave once this returns: that is on disk. Raises `JournalError`: then it may not."""
        if not sub.listeners:
            raise outcomes.nobody_waits()  # they left while the server had asked for silence
        if not sub.deadline:
            sub.deadline = now + sub.timeout
        sub.marks += 1
        is_first = sub.phase is Phase.QUEUED
        if self._remembers:
            try:
                step = steps.sending(key=sub.key, attempt=sub.marks)
                await self._write(sub, step, least=MARKING)
                while self._shares and not self.store.may_intend():
                    if self._clock.now() >= sub.time_limit():
                        raise outcomes.unsure()
                    await self._clock.sleep(UNSURE)  # others may take the row at any moment: it is asked for anew
                    await self._write(sub, step, least=MARKING)
                self.announcer.store_works()
            except BaseException as error:
                if is_first:
                    with anyio.CancelScope(shield=True):
                        await self._unmark(sub)
                if isinstance(error, ClaimLost):
                    sub.claim = None
                elif isinstance(error, JournalError):
                    self._store_failed(error)
                raise
            now = self._clock.now()
        sub.to(Phase.SENDING if is_first else Phase.RESENDING)
        return now

    def began(self, sub: Submission) -> None:
        """An attempt leaves now."""
        sub.attempts += 1

    def unanswered(self, sub: Submission) -> None:
        """The outcome of an attempt is unknown."""
        sub.to(Phase.UNANSWERED)

    async def take_back(self, sub: Submission) -> None:
        """Nothing that was sent under this key can have made a job, and a run that ends now must not leave it so."""
        if sub.phase is Phase.SENDING:
            await self._unmark(sub)
            sub.to(Phase.QUEUED)

    async def _unmark(self, sub: Submission) -> None:
        if not self._remembers:
            return
        try:
            # Nobody depends on it: it is carried out after the mark, whoever waits.
            await self._write(sub, steps.back_to_queued(key=sub.key), until=0.0, least=TAKING_BACK)
        except JournalError as error:
            log(logging.DEBUG, "it stays marked as being sent: %s", error)

    async def move(self, sub: Submission, bounds: Bounds) -> None:
        """The same question to the successor, under the same key: where it was refused nothing was made or billed."""
        assert sub.request is not None, "the routing asked for it"  # noqa: S101 - for mypy
        api, body = self.routing.move(sub.request, sub.key)
        await self.refreeze(sub, api, body)
        sub.deadline = 0.0  # the question begins anew
        self.spending.settle(sub, None, is_billed=False)
        await self.spending.reserve(sub, bounds.until)  # another amount is reserved for a job of another kind

    async def refreeze(self, sub: Submission, api: API, body: bytes) -> None:
        """Other bytes under the same key, on disk before any attempt sends them. Raises `JournalError`."""
        await self._write(sub, steps.refreeze(key=sub.key, body=body, api=api.name))
        sub.api, sub.body, sub.kind = api, body, api.kind_of(body)

    # --- accept: it runs, and is polled -------------------------------------------------------------------------------

    async def _accept(self, sub: Submission, snapshot: Snapshot, now: float) -> None:
        """The server has it, since `now`: its id is on disk before anybody asks for it.

        An answer without an id is the outcome itself, and cannot be asked for again.
        """
        job_id, asked = snapshot.id, None
        if job_id:
            sub.job_id = job_id  # known from here on, whoever leaves while it is written
            try:
                await self._write(sub, steps.accepted(key=sub.key, job_id=job_id))
            except DuplicateJob as error:
                sub.job_id = ""
                raise outcomes.two_keys_one_id(job_id, error.idempotency_key) from None
            except JournalError as error:
                # It is paid for, and known only here: go on with it, and tell its id.
                if not isinstance(error, ImpossibleStep):  # the store works
                    self._store_failed(error)
                self.announcer.warn(sub, f"accepted, and its id could not be written to the journal: {error.message}")
            other = self.live.by_id.get(job_id)
            if other is not None:
                self._merge(sub, other, sub.claim)
                return
            sub.polls = Polls.begun(now, self._clock.wall())
            sub.call = sub.api.get(job_id)
            asked = sub.request.asked_model if sub.request is not None and sub.api.echoes_model else None
        else:
            sub.polls = Polls(now, is_fresh=True)
        sub.to(Phase.RUNNING)
        if job_id:
            self.live.add_job(sub)
        # The server has the question now; a thousand waiting jobs need not hold theirs.
        sub.body, sub.request = b"", None
        if not self._remembers:
            sub.claim = None  # there is no row to write
        if self._shares and job_id:
            self._hold(sub)
        for listener in sub.listeners:
            listener.accepted(snapshot)
        self._limit_listeners(sub)
        has_ended = not job_id or (snapshot.status.is_final and not snapshot.may_have_more)
        if sub.listeners and not has_ended:
            self.poller.watch(sub, now)
        self.announcer.was_accepted(sub, snapshot, asked, now)
        if not has_ended:
            return
        ended = Ended(snapshot.status, outcome_error(snapshot))
        if await self.finish(sub, ended, snapshot, now) or sub.phase in TERMINAL:
            return
        if job_id and is_collected(sub):
            self.poller.watch(sub, now)  # nobody here would have it
            return
        # There may be room later, but perhaps nothing to ask for it then: a server that answers at once need not keep
        # its jobs. Whoever waits has it now, and the row stays one of a job to poll.
        if self.collector is not None and sub.claim is not None:
            self.collector.let_go(sub.claim, is_given_up=True)
        sub.claim = None
        await self.finish(sub, ended, snapshot, now)

    @staticmethod
    def _limit_listeners(sub: Submission) -> None:
        """A listener whose time begins with the first attempt has its deadline now."""
        for listener in sub.listeners:
            if listener.takes_slot and listener.deadline == math.inf:
                listener.deadline = sub.deadline

    # --- the poller's sink: what polls bring --------------------------------------------------------------------------

    def may_poll(self, sub: Submission) -> bool:
        """See `Sink`. Each listener is asked, since asking sets room aside; one without room gives its slot back."""
        listeners = sub.listeners
        if len(listeners) == 1:
            if listeners[0].has_room():
                return True
            self.slots.free(listeners[0])
            return False
        rooms = [listener.has_room() for listener in listeners]
        for listener, has_room in zip(listeners, rooms, strict=True):
            if not has_room:
                self.slots.free(listener)
        return any(rooms)

    def polled(self, sub: Submission, snapshot: Snapshot | None) -> None:
        """See `Sink`."""
        for listener in sub.listeners:
            listener.polled(snapshot)

    def time_out(self, sub: Submission, now: float, why: str, snapshot: Snapshot | None) -> bool:
        """See `Sink`. The listeners' time is up, and the job's is not: it goes on at the service."""
        overdue = [listener for listener in sub.listeners if now >= listener.deadline]
        if overdue:
            self._stop_waiting(sub, overdue, why, snapshot)
        return bool(sub.listeners)

    def _stop_waiting(self, sub: Submission, overdue: list[Listener], why: str, snapshot: Snapshot | None) -> None:
        has_ended = sub.polls is not None and sub.polls.was_unkept
        snapshot = outcomes.heard(snapshot)
        error = outcomes.not_kept() if has_ended else outcomes.timed_out(why, snapshot)
        job = sub.as_job(JobStatus.TIMED_OUT, error, snapshot)
        sub.listeners = tuple(listener for listener in sub.listeners if listener not in overdue)
        for listener in overdue:
            self.slots.free(listener)
        if not sub.listeners:
            self.detach(sub)
        for listener in overdue:
            self._hand(listener, listener.named(job))
        self.announcer.timed_out(sub, overdue, why)

    async def finish(self, sub: Submission, ended: Ended, snapshot: Snapshot | None, now: float) -> bool:
        """See `Sink`: write, then everything else at once."""
        polls = sub.polls
        seconds: float | None = None
        if polls is not None and ended.status is not JobStatus.EXPIRED:  # when that one ended nobody knows
            if polls.is_fresh:
                seconds = now - polls.since
            elif polls.has_age:
                seconds = took(now - polls.since, snapshot, has_dates=sub.api.has_dates)
        job = sub.as_job(ended.status, ended.error, snapshot, seconds)
        if self._remembers and sub.claim is not None and sub.phase is Phase.RUNNING:
            try:
                step = outcomes.ending_step(sub.key, job)
                if step is not None:
                    sub.is_told = bool(await self._write_end(sub, step))
                    if sub.phase is not Phase.RUNNING:
                        return True  # another session wrote another end: that is the outcome here too
                elif self.collector is not None:
                    self.collector.let_go(sub.claim, is_given_up=True)
            except JournalError as error:
                if polls is None or not polls.was_unkept:  # it is polled, and perhaps not written, again and again
                    self.announcer.warn(sub, f"not kept: {error.message}")
                if polls is not None:
                    polls.was_unkept = True
                if outcomes.unwritten_for_now(error):
                    return False
                sub.claim = None  # what it is handed out as is all there is
        if sub.phase not in TERMINAL:
            self._end(sub, job, is_billed=True)
        if self._remembers:
            await self.learnt.job_ended()
        return True

    async def _write_end(self, sub: Submission, step: Step) -> bool | None:
        """Write how a job ended, though another session may have written another end of it.

        What the server says of a job takes the place of its not having found it. A written answer, or failure, stays:
        it is what whoever waits here gets as well.
        """
        try:
            return await self._write(sub, step, until=sub.first_deadline)
        except ImpossibleStep as error:
            if not self._shares or error.state not in _ENDED or error.state == step.rule.leads_to.name:
                raise
            if error.state == State.EXPIRED.name:
                await self._write(sub, steps.accepted(key=sub.key, job_id=sub.job_id), until=sub.first_deadline)
                return await self._write(sub, step, until=sub.first_deadline)
            claim = _claim(sub)
            record = await self.reach.answer(self.store.claim(claim.pk), sub.first_deadline)
            is_same = record is not None and (record.key, record.job_id) == (sub.key, sub.job_id)
            if not is_same or step.rule.leads_to is State.DONE:  # an answer that is paid for is handed out
                raise
            if sub.claim is claim and sub.phase is Phase.RUNNING:
                self.lost(sub, record)
            return True

    def fail(self, sub: Submission, problem: Exception) -> None:
        """See `Sink`."""
        if sub.phase not in TERMINAL:
            why = f"polling the job failed unexpectedly: {type(problem).__name__}: {problem}"
            self._end(sub, sub.as_job(JobStatus.UNREADABLE, ProtocolError(why)), is_billed=True)

    # --- the end ------------------------------------------------------------------------------------------------------

    async def _refuse(self, sub: Submission, error: AiopplxError) -> None:
        """There is no job to poll: refused, stopped, or its outcome is unknown. Raises `ClaimLost`."""
        if sub.row and sub.claim is None and sub.phase in DOUBTFUL:
            raise ClaimLost("another session has it in hand") from error  # and tells what came of it
        if sub.phase is Phase.UNANSWERED:
            error = outcomes.still_in_doubt(error)
        job = sub.as_job(outcomes.status_of_refusal(error, self.client.gate.stop), error)
        try:
            if sub.phase is not Phase.NEW and sub.claim is not None:
                step = outcomes.refusal_step(sub.key, job)
                if step is not None:
                    await self._write(sub, step)
                else:
                    await self.take_back(sub)
        except ClaimLost:
            raise
        except JournalError as problem:
            self.announcer.warn(sub, f"what became of it could not be written to the journal: {problem.message}")
        if sub.phase not in TERMINAL:
            self._end(sub, job, is_billed=job.status is JobStatus.IN_DOUBT)

    def reject(self, sub: Submission, error: AiopplxError) -> None:
        """It was never written down or sent: refused by a check here."""
        self._end(sub, sub.as_job(JobStatus.REJECTED, error), is_billed=False)

    def _end(self, sub: Submission, job: Job, *, is_billed: bool) -> None:
        """What became of it is written. Settle, free, deliver, emit: in this order, and nothing comes in between."""
        listeners, sub.listeners = sub.listeners, ()
        if not listeners:
            sub.job = job
        if sub.phase in POLLABLE:
            self.poller.ended(sub)
        else:
            self._let_go(sub)
        sub.to(Phase.FINISHED)
        self.spending.settle(sub, job, is_billed=is_billed)
        self.live.remove(sub)
        for listener in listeners:
            self.slots.free(listener)
        for listener in listeners:
            self._hand(listener, listener.named(job))
        self.announcer.has_ended(job, is_told=sub.is_told)

    def _hand(self, listener: Listener, job: Job | None) -> None:
        try:
            listener.deliver(job)
        except Exception:  # a fault of ours: the other listeners must have theirs
            log(logging.ERROR, "an outcome could not be delivered", exc_info=True)

    # --- other ways in ------------------------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> None:
        """A new listener of a submission that has not begun."""
        sub = listener.sub
        sub.listeners = (*sub.listeners, listener)

    def join(self, listener: Listener, key: str = "") -> None:
        """A late listener of a job that is alive here. It hears with the others, when the job's next poll is due.

        Args:
            listener: it.
            key: the job's, if the listener knows it. Who came before need not have known it, nor a tag.
        """
        sub = listener.sub
        sub.listeners = (*sub.listeners, listener)
        _named_too(sub, listener.tag, key)
        self.poller.joined(sub)

    def take_in(self, sub: Submission, record: Record | None) -> None:
        """A job that somebody waits for by its id: it runs, as far as is known here.

        It is polled at once, or when its next poll is due if it was polled here before.

        Args:
            sub: NEW, with its id, the facts of its row if there is one, and its listener.
            record: its row, with a claim if it may be written; None if the store does not know it.
        """
        if record is not None and record.is_held:
            self._follow(sub, record)
            return
        _named_too(sub, sub.listeners[0].tag)
        self._begin_known(sub, record)
        self.poller.watch(sub, self._clock.now())

    async def learn(self, api: API, record: Record, snapshot: Snapshot) -> None:
        """Somebody's own poll found that a job ended: its outcome is written, and its cost replaces its reservation.

        A job that is polled here is left to the poller.

        Args:
            api: the job's.
            record: its row.
            snapshot: what the poll brought.
        """
        if record.state.is_final and not outcomes.is_owed(record):
            return
        try:
            if self._remembers and not record.state.is_final:
                claimed = await self.reach.answer(self.store.claim(record.pk), self._clock.now())
                record = claimed or record
        except JournalError as error:
            log(logging.DEBUG, "what a poll brought is not kept: %s", error)
            return
        if record.is_held or snapshot.id in self.live.by_id or record.pk in self.live.by_row:
            return
        sub = submission_of(record, api, job_id=snapshot.id)
        self._begin_known(sub, record)
        ended = Ended(snapshot.status, outcome_error(snapshot))
        try:
            await self.finish(sub, ended, snapshot, self._clock.now())
        finally:
            # Not written, or whoever polled it was cancelled meanwhile. Others may have begun to wait for it.
            if sub.phase in POLLABLE and not is_collected(sub):
                self.poller.watch(sub, self._clock.now())
            else:
                self.detach(sub)

    async def resubmit(self, sub: Submission, record: Record) -> None:
        """Queue it under a new key, in place of one without a result. Raises `InvalidRequest`, `JournalError`.

        Args:
            sub: NEW, with its row and its claim.
            record: the row.
        """
        self.live.add_row(sub)
        try:
            if record.state is State.SENDING:
                await self._write(sub, steps.doubtful(key=record.key, error=record.error))
            await self._requeue(sub, record)
        except BaseException:
            self.live.remove(sub)
            self.live.sent(sub)
            raise

    def _begin_known(self, sub: Submission, record: Record | None) -> None:
        if sub.row:
            self.live.add_row(sub)
        is_final = record is not None and record.state.is_final
        self._runs_already(sub, Phase.REFETCHING if is_final else Phase.RUNNING, record)
        is_billed_later = sub.phase is Phase.REFETCHING and record is not None and outcomes.is_owed(record)
        if is_billed_later or (sub.phase is Phase.RUNNING and sub.claim is not None):
            self.spending.reserve_running(sub)

    def _runs_already(self, sub: Submission, phase: Phase, record: Record | None) -> None:
        """There is a job of an earlier time. If it was polled here before, its schedule goes on where it was."""
        other = self.live.by_id.get(sub.job_id)
        if other is not None:
            self._merge(sub, other, sub.claim if phase is Phase.RUNNING else None)
            return
        accepted_at = record.accepted_at if record is not None and record.key else None
        wall = self._clock.wall()
        age = max(0.0, wall - accepted_at) if accepted_at is not None else None
        sub.polls = self.live.polls_of(sub.job_id) or Polls.resumed(self._clock.now(), wall, age)
        sub.call = sub.api.get(sub.job_id)
        sub.is_told = phase is Phase.REFETCHING
        sub.to(phase)
        self.live.add_job(sub)
        if self._shares and phase is Phase.RUNNING:
            self._hold(sub)

    def _take_up(self, sub: Submission, bounds: Bounds) -> None:
        """A job of an earlier run: it may have ended long ago, so that it is due at once."""
        now = self._clock.now()
        sub.deadline = bounds.until if bounds.until != math.inf else now + sub.timeout
        if sub.phase is Phase.RUNNING:
            self.spending.reserve_running(sub)
        sub.body, sub.request = b"", None
        self._limit_listeners(sub)
        if sub.listeners:
            self.poller.watch(sub, now)

    def _merge(self, sub: Submission, live: Submission, claim: Claim | None) -> None:
        """Another submission of this session has the job: whoever listens to this one listens there.

        With `claim` an outcome can be written that could not be before: who waits for a job by its id alone has none.
        """
        sub.to(Phase.MERGED)
        self.live.remove(sub)
        self.spending.settle(sub, None, is_billed=False)
        if live.phase is Phase.RUNNING and not self.spending.has_reserved(live):
            self.spending.reserve_running(live)
        latest = self._clock.now() + sub.timeout
        for listener in sub.listeners:
            self.slots.free(listener)  # one job, one slot
            listener.sub = live
            listener.deadline = min(listener.deadline, latest)
        live.listeners = (*live.listeners, *sub.listeners)
        sub.listeners = ()
        _named_too(live, sub.tag, sub.key)
        if live.claim is None and live.phase is Phase.RUNNING and claim is not None:
            live.row, live.claim, live.key = claim.pk, claim, sub.key
            self.live.add_row(live)
            if self._shares:
                self._hold(live)
        self.poller.joined(live)

    # --- leaving ------------------------------------------------------------------------------------------------------

    def unlisten(self, listener: Listener) -> asyncio.Task[None] | None:
        """This listener waits no more. The last one to go detaches what runs; `leave` ends what is on the wire."""
        poll = self._stop_listening(listener)
        sub = listener.sub
        if listener.is_late and is_collected(sub):  # `leave` tells of the others
            self.announcer.left_jobs.nobody_waits(sub.job_id)
        return poll

    def _stop_listening(self, listener: Listener) -> asyncio.Task[None] | None:
        sub = listener.sub
        if listener not in sub.listeners:
            return None
        sub.listeners = tuple(other for other in sub.listeners if other is not listener)
        if sub.runner is None:
            self.slots.free(listener)
        has_begun = sub.phase is not Phase.NEW and sub.phase is not Phase.FOLLOWING
        if not (has_begun or sub.listeners) and (following := self.elsewhere.task_of(sub)) is not None:
            following.cancel()
            self.detach(sub)
            return following
        if sub.phase not in POLLABLE or sub.waits_for_a_slot:
            if self.poller.is_out(sub):  # its end is being written; its next deadline is another listener's
                self.poller.bound(sub)
            return None
        if not sub.listeners:
            return self.detach(sub)
        self.poller.bound(sub)
        return None

    def detach(self, sub: Submission) -> asyncio.Task[None] | None:
        """Nobody waits for it any more. Returns its poll if that was out, cancelled, to be waited for.

        What is known of it then is in `sub.job`: the job where the server has it, one IN_DOUBT where nobody knows, None
        where nothing was made.
        """
        if sub.phase in TERMINAL:
            return None
        is_billed = sub.phase in DOUBTFUL or sub.phase in POLLABLE
        sub.job = outcomes.as_left(sub)
        self._let_go(sub)
        listeners, sub.listeners = sub.listeners, ()
        sub.to(Phase.DETACHED)
        poll = self.poller.forget(sub)
        self.spending.settle(sub, None, is_billed=is_billed)
        self.live.remove(sub)
        for listener in listeners:
            self.slots.free(listener)
        return poll

    def is_awaited(self, job_id: str) -> bool:
        """Whether anybody here waits for a job that runs: a call, a follower or a batch, and not its holder alone."""
        sub = self.live.by_id.get(job_id)
        return sub is not None and not is_collected(sub)

    def left_of(self, sub: Submission) -> Job | None:
        """What is known of it now that nobody listens, if it may be billed. Said once only."""
        job, sub.job = sub.job, None
        return job if job is not None and outcomes.may_be_billed(job) else None

    # --- a store that is shared ---------------------------------------------------------------------------------------

    def _hold(self, sub: Submission) -> None:
        """This session is the holder of its row, so it listens itself."""
        if sub.claim is not None and not any(isinstance(listener, Holder) for listener in sub.listeners):
            sub.listeners = (*sub.listeners, Holder(sub=sub, tag=sub.tag, index=sub.index))

    def _let_go(self, sub: Submission) -> None:
        """This session does nothing more about its row, which need not be over."""
        self.hand_on(sub.claim)

    def hand_on(self, claim: Claim | None) -> None:
        """Nobody here works on the row of this claim: in a store that is shared another session may, or a collector."""
        if self.collector is not None and claim is not None:
            self.collector.let_go(claim)

    def may_be_lost(self, sub: Submission) -> bool:
        """Whether it is polled here as a job whose row this session holds, and no answer to a poll is on its way.

        One with a sender, or a poll that is out, has its row looked at by them: it is asked about again later.
        """
        is_polled = sub.phase is Phase.RUNNING and sub.runner is None and sub.claim is not None
        return is_polled and not self.poller.is_out(sub) and not (sub.polls is not None and sub.polls.was_unkept)

    async def stands(self, sub: Submission, claim: Claim) -> Record | None:
        """The row of a job that is polled here, claimed if it was free. It is told of the job if it does not know it.

        Raises `JournalError`.
        """
        record = await self.store.claim(claim.pk)
        if record is None or (record.key == sub.key and not record.job_id):
            with contextlib.suppress(ImpossibleStep):
                await self._write(sub, steps.accepted(key=sub.key, job_id=sub.job_id))
                record = await self.store.claim(sub.row)
        return record

    def lost(self, sub: Submission, record: Record | None) -> None:
        """This session does not hold the row of a job any more that it polls.

        What another session makes of it is the outcome here too, and is told by that one. Where nobody took the row
        meanwhile, it goes on as before, with its new claim.

        Args:
            sub: one that `may_be_lost`.
            record: its row, claimed if it was free; None if it is not there any more.
        """
        is_same = record is not None and (record.key, record.job_id) == (sub.key, sub.job_id)
        if record is None or not is_same:
            # It stands for another submission by now, so nobody else polls this job: those who wait hear of it here.
            self.live.remove_row(sub)
            if record is not None:
                self.hand_on(record.claim)
            sub.claim = None
        elif record.claim is not None and not record.state.is_final:
            sub.claim = record.claim
        elif is_collected(sub):
            sub.claim = None
            self.detach(sub)
        else:
            self.poller.forget(sub)
            sub.listeners = tuple(listener for listener in sub.listeners if not isinstance(listener, Holder))
            self._begin_anew(sub)
            self._follow(sub, record)

    def _follow(self, sub: Submission, record: Record) -> None:
        """Another session holds its row: that one's outcome is the outcome here. Nothing is asked of the server."""
        if not sub.listeners:
            self.detach(sub)
            return
        sub.row, sub.key, sub.job_id, sub.was_elsewhere = record.pk, record.key, record.job_id, True
        if sub.polls is None and record.accepted_at is not None:
            wall = self._clock.wall()
            sub.polls = Polls.resumed(self._clock.now(), wall, max(0.0, wall - record.accepted_at))
        latest = self._clock.now() + sub.timeout
        for listener in sub.listeners:
            listener.deadline = min(listener.deadline, latest)
        sub.to(Phase.FOLLOWING)
        self.elsewhere.follow(sub)

    def still_elsewhere(self, sub: Submission, record: Record) -> None:
        """Another session holds its row still."""
        sub.key, sub.job_id = record.key, record.job_id

    def time_is_up(self, sub: Submission) -> bool:
        """Those who waited for another session's row long enough stop waiting. Returns whether anybody goes on."""
        now = self._clock.now()
        overdue = [listener for listener in sub.listeners if now >= listener.deadline]
        if overdue:
            self._stop_waiting(sub, overdue, "another session had it in hand all the time", None)
        return bool(sub.listeners)

    def lost_sight(self, sub: Submission, error: AiopplxError) -> None:
        """What another session makes of it cannot be read any more."""
        if sub.phase not in TERMINAL:
            sub.is_told = True
            self._end(sub, sub.as_job(JobStatus.STOPPED, error), is_billed=False)

    def collect(self, record: Record, timeout: float) -> Submission | None:
        """A row that nobody held is this session's now. Returns the submission if it is still to be sent.

        Args:
            record: the row, with its claim.
            timeout: seconds within which it is sent again, if it is.
        """
        live = self.live.by_row.get(record.pk)
        if live is not None:
            live.claim = record.claim  # nobody else took it while this session had lost it
            return None
        sub = submission_of(record, self.routing.named(record.api), job_id=record.job_id, timeout=timeout)
        sub.body = record.body
        self.listen(Holder(sub=sub, tag=sub.tag, asked=question_in(record), meta=record.meta))
        if record.state is not State.ACCEPTED:
            return sub
        self.take_in(sub, record)
        return None

    # --- a store that fails, or does not answer -----------------------------------------------------------------------

    def _write(
        self, sub: Submission, step: Step, *, until: Until | None = None, least: float = LEAST
    ) -> Awaitable[bool | None]:
        """Take a step of its row. The store has until then, or until the first time limit of those who wait.

        Returns:
            True if another session had taken it, and has told it.

        Raises:
            JournalError: it is not written; `JournalAway`: nobody knows whether it is, or will be.
        """
        written = self.store.apply(_claim(sub), step)
        if not self._remembers:  # it has no disk, and answers at once
            return written
        if self._shares:
            written = self._written(sub, step, written)
        if until is None:
            until = sub.time_limit if sub.deadline else min(sub.first_deadline(), self._clock.now() + sub.timeout)
        if self._shares:
            until = max(until() if callable(until) else until, self._clock.now() + AWAY)
        return self.reach.answer(written, until, least)

    async def _written(self, sub: Submission, step: Step, written: Awaitable[bool | None]) -> bool | None:
        """A step in a store of which a row may change, or be lost, whoever holds it.

        An earlier holder, that had sent the submission and lost its lease since, may have heard of its job: that is the
        outcome here too. And a replica that takes the store's place may not have the latest rows.

        Raises:
            ClaimLost: the row is to be looked up anew, for one of these reasons.
        """
        try:
            return await written
        except ImpossibleStep as error:
            if step.rule.kind is not Kind.FACT:
                is_lost = not error.state and step.rule.kind is Kind.INTENT
                if not is_lost and error.state not in _KNOWN:
                    raise
                raise ClaimLost(error.message, path=error.path) from error
            if error.state or not await self._is_queued_again(sub):
                raise
        return await self.store.apply(_claim(sub), step)

    async def _is_queued_again(self, sub: Submission) -> bool:
        """Whether a submission, whose job is known here, has a row again in the place of a lost one."""
        if sub.named is None:
            return False
        record = await queued_again(self.store, sub, sub.named, key=sub.key, body=sub.body)
        if record is None or record.claim is None or record.key != sub.key:
            return False
        self.live.remove_row(sub)
        sub.row, sub.claim = record.pk, record.claim
        self.live.add_row(sub)
        return True

    def _store_failed(self, error: JournalError) -> None:
        if self.announcer.store_failed(error):
            self.client.on_stop()


def _named_too(sub: Submission, tag: str | int | None, key: str = "") -> None:
    """Somebody who waits for it knows it under these names: the first that are known are told of its end."""
    if sub.tag is None:
        sub.tag = tag
    sub.key = sub.key or key


def _claim(sub: Submission) -> Claim:
    assert sub.claim is not None, "what is sent has its row"  # noqa: S101 - for mypy
    return sub.claim
