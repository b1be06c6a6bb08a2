"""The life of a submission: begin, send, accept, finish. Nothing else changes its phase or writes its facts.

There is one way for all: `ask`, `submit`, `resubmit` and each of a batch's submitters run `Lifecycle.submit`, which
takes a submission from NEW to where its sender has nothing more to do: it runs and is polled, or its phase is terminal.
It returns nothing, and raises nothing but cancellation; every other end is delivered to the listeners.

The order of promises is the same at each step: the store's step returns, then the phase changes. At the end it is
visible in one place (`_end`): what became of it is written, the phase changes, the budget is settled, places are free,
listeners have their job, and the event goes out. After the write all of this is synchronous, so that no cancellation
can come between two parts of it. Delivery comes before the event, because the event runs the caller's code.

This module knows nothing of batches, of calls that wait, of HTTP, or of when a job is polled.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
import msgspec

from aiopplx._core.live import Live
from aiopplx._core.outcomes import (
    as_left,
    busy_item,
    no_slot,
    nobody_waits,
    state_of,
    status_of_refusal,
    still_in_doubt,
    timed_out,
    two_keys_one_id,
    unexpected,
    unwritten_for_now,
)
from aiopplx._core.slots import Slots
from aiopplx._errors import AiopplxError, APIError, EndpointRetired, InDoubt, InvalidRequest, ProtocolError
from aiopplx._events import Emitter, Event, EventKind, log
from aiopplx._http.apart import is_ours
from aiopplx._job import Job, JobStatus, Snapshot, outcome_error
from aiopplx._policy.polling import Ended, Polls
from aiopplx._policy.recovery import Decision, decide
from aiopplx._policy.retry import Bounds, Fault, is_final_refusal
from aiopplx._submission import DOUBTFUL, POLLABLE, TERMINAL, Listener, Phase, Submission
from aiopplx._wire.call import Lane
from aiopplx.journal import _steps as steps
from aiopplx.journal._errors import ClaimLost, DuplicateJob, JournalError, ResultDamaged
from aiopplx.journal._jobs import in_doubt, job_of
from aiopplx.journal._names import Occurrences, item_name, key_name, sha_of
from aiopplx.journal._protocol import Journal
from aiopplx.journal._records import BILLED, Claim, Origin, Record, State

if TYPE_CHECKING:
    from aiopplx._core.learnt import Learnt
    from aiopplx._core.poller import Poller
    from aiopplx._core.spending import Spending
    from aiopplx._http.client import Client
    from aiopplx._wire.api import API
    from aiopplx.apis._registry import Routing

FOLLOW = 30.0
"""Seconds after which a row that another session holds is asked for again, whatever the store's word on it."""


class Lifecycle:
    """Takes submissions through their phases.

    Args:
        store: where they are written down.
        routing: which API they go to.
        client: sends them.
        spending: what may be spent.
        emitter: tells what happens.
        max_in_flight: jobs that may run at the service at once, as far as this session knows.
        retry_failed: rows that failed, expired or were refused are submitted again, under a new key.
        new_key: makes an idempotency key.

    Attributes:
        live: the submissions that are alive.
        slots: the places of `max_in_flight`.
        accepted, ended: how many submissions the server accepted here, and how many ended, by what they ended as.
        poller: polls what runs; it needs this object first.
        learnt: told when a job has ended.
    """

    poller: Poller
    learnt: Learnt

    def __init__(
        self,
        store: Journal,
        routing: Routing,
        client: Client,
        spending: Spending,
        emitter: Emitter,
        *,
        max_in_flight: int,
        retry_failed: bool,
        new_key: Callable[[], str],
    ) -> None:
        self.store = store
        self.routing = routing
        self.client = client
        self.spending = spending
        self.emitter = emitter
        self.live = Live()
        self.accepted = 0
        self.ended: dict[JobStatus, int] = {}
        self.slots = Slots(max_in_flight, client.clock)
        self.new_key = new_key
        self._clock = client.clock
        self._retry_failed = retry_failed
        # A store that forgets is asked for ids and nothing else: steps of rows that nobody can read are not even built.
        self._remembers = store.remembers
        self._is_store_broken = False

    # --- the one way -------------------------------------------------------------------------------------------------

    async def submit(
        self,
        sub: Submission,
        occurrences: Occurrences | None,
        bounds: Bounds,
        runner: asyncio.Task[None] | None = None,
    ) -> None:
        """Take a submission to where its sender has nothing more to do.

        Args:
            sub: NEW, or QUEUED by `requeue`, with its listener.
            occurrences: counts the equal requests without a tag of its batch; None for a call, which without a tag
                is like no other.
            bounds: on all waiting before the first attempt, and on attempts.
            runner: the task that this runs in; None to have it found.
        """
        first = sub.listeners[0]
        sub.runner = runner or asyncio.current_task()
        try:
            while not await self._try_to_submit(sub, first, occurrences, bounds):
                self._begin_anew(sub, first)
        except AiopplxError as error:
            await self._refuse(sub, error)
        except asyncio.CancelledError as problem:
            if is_ours(asyncio.current_task()):
                self._cut_short(sub)
                raise
            self._broke(sub, problem)
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
            self.is_sent_no_longer(sub)
            if first not in sub.listeners:
                self.slots.free(first)  # one who left while it was on the wire kept the place till now

    async def _try_to_submit(
        self, sub: Submission, first: Listener, occurrences: Occurrences | None, bounds: Bounds
    ) -> bool:
        """False if its row was another session's before an attempt was sent: nothing has changed here, or there."""
        try:
            if sub.phase is Phase.NEW:
                await self._begin(sub, occurrences, bounds)
            if sub.phase in TERMINAL:
                return True
            if first.takes_slot:
                if not await self.slots.take(first, bounds.until):
                    self._has_no_slot(sub, first)
                    return True
                if sub.phase in TERMINAL:
                    return True  # it ran already, and was polled for somebody else meanwhile
            if sub.phase in POLLABLE:
                self._take_up(sub, bounds)
                return True
            await self.spending.reserve(sub, bounds.until)
            await self._accept(sub, await self._send(sub, bounds))
        except ClaimLost:
            if sub.phase in DOUBTFUL and sub.attempts:
                raise  # what was sent from here is this session's to tell
            return False
        return True

    def _begin_anew(self, sub: Submission, first: Listener) -> None:
        """Its row is another session's, and what that one makes of it is the outcome here too: look it up again."""
        self.slots.free(first)
        self.spending.settle(sub, None, is_billed=False)
        self.live.remove(sub)
        self.is_sent_no_longer(sub)
        sub.unsent = sub.claim = None
        if sub.phase is not Phase.NEW:
            sub.to(Phase.NEW)

    def _broke(self, sub: Submission, problem: BaseException) -> None:
        """Its sender dies: whoever listens hears of it now, or from the poller if there is a job.

        Nothing is written: what its row says is true, and no less cautious.
        """
        log(logging.ERROR, "submission %s failed unexpectedly", sub.key, exc_info=True)
        if sub.phase in POLLABLE:
            self.poller.watch(sub)
        elif sub.phase not in TERMINAL:
            error = unexpected(problem, is_doubtful=sub.phase in DOUBTFUL)
            job = sub.as_job(status_of_refusal(error, self.client.gate.stop), error)
            self._end(sub, job, is_billed=job.status is JobStatus.IN_DOUBT)

    def _cut_short(self, sub: Submission) -> None:
        """Whoever made it has left. A job that others listen to by now goes on for them."""
        if sub.listeners and sub.phase in POLLABLE:
            self.poller.watch(sub)
        else:
            self.detach(sub)

    def _has_no_slot(self, sub: Submission, listener: Listener) -> None:
        """Its listener's time is up. A job of an earlier run goes on, for whoever else waits for it."""
        if sub.phase not in POLLABLE:
            raise no_slot()
        self._stop_waiting(sub, [listener], "max_in_flight jobs were running all the time", None)
        if sub.listeners:
            self.poller.watch(sub)

    # --- begin -------------------------------------------------------------------------------------------------------

    async def _begin(self, sub: Submission, occurrences: Occurrences | None, bounds: Bounds) -> None:
        """Write it down before it is promised to anybody, or find what became of it."""
        if not self._remembers:
            record = await self.store.find_or_queue("", tag=sub.tag, key=sub.key, body=b"", sha=b"", api=sub.api.name)
            sub.claim = record.claim
            sub.to(Phase.QUEUED)
            return
        try:
            async with self._clock.timeout_at(bounds.until):
                found = await self._find(sub, occurrences)
        except TimeoutError:
            if not sub.job_id:
                raise busy_item() from None
            why = "another call, or another session, had it in hand all the time"
            self._stop_waiting(sub, list(sub.listeners), why, None)
            return
        except JournalError as error:
            self._tell_of_store(error)
            raise
        self._is_store_broken = False
        if found is not None:
            await self._resume(sub, found)

    async def _find(self, sub: Submission, occurrences: Occurrences | None) -> Record | None:
        """Its row, once nobody else is sending the same; None if it was merged into a job that runs here."""
        if sub.row:
            record = await self.store.claim(sub.row)  # it has begun before, and its row was lost to another session
            assert record is not None, "rows are never removed"  # noqa: S101 - for mypy
        else:
            record = await self._found_or_queued(sub, occurrences)
        while True:
            sub.job_id = record.job_id  # so that whoever waits here for too long is told which job it is
            if record.is_held:
                await self.store.follow((record.pk,), timeout=FOLLOW)
            else:
                other = self.live.by_row.get(record.pk)
                if other is None:
                    sub.row, sub.claim, sub.marks = record.pk, record.claim, record.attempts
                    self.live.add_row(sub)
                    return record
                if other.phase in POLLABLE and not other.waits_for_a_place:
                    self._merge(sub, other)
                    if record.state is State.ACCEPTED:
                        self._bring_claim(other, record.claim, record.key)
                    return None
                await self._unsent(other)  # also one that waits for its place: it is not polled before
            record = await self.store.claim(record.pk) or record

    async def _found_or_queued(self, sub: Submission, occurrences: Occurrences | None) -> Record:
        assert sub.request is not None, "a submission has its request until it is accepted"  # noqa: S101 - for mypy
        sha = sha_of(sub.request.canonical())
        if occurrences is not None:
            item = occurrences.name(sub.tag, sha)
        else:
            item = item_name(sub.tag, sha) if sub.tag is not None else key_name(sub.key)
        return await self.store.find_or_queue(
            item,
            tag=sub.tag,
            key=sub.key,
            body=sub.body,
            sha=sha,
            api=sub.api.name,
            origin=_origin(sub, occurrences.run if occurrences is not None else ""),
        )

    @staticmethod
    async def _unsent(other: Submission) -> None:
        if other.unsent is None:
            other.unsent = asyncio.Event()
        await other.unsent.wait()

    @staticmethod
    def is_sent_no_longer(sub: Submission) -> None:
        """Whoever wants the same may look what became of it."""
        if sub.unsent is not None:
            sub.unsent.set()

    async def _resume(self, sub: Submission, record: Record) -> None:
        sub.key = record.key
        if record.api != sub.api.name:
            sub.api = self.routing.named(record.api)
        if record.body and record.body != sub.body:
            sub.body = record.body
            sub.kind = sub.api.kind_of(sub.body)
        # Asked of the API that it went to, which need not be the one that this session submits to.
        may_resend = self.client.policy.resends(sub.api.has_idempotency)
        decision = decide(record, may_resend=may_resend, retry_failed=self._retry_failed)
        if decision is Decision.SEND:
            sub.to(Phase.QUEUED)
        elif decision is Decision.RESEND:
            sub.to(Phase.UNANSWERED)
        elif decision is Decision.REQUEUE:
            await self.requeue(sub, record)
        elif decision is Decision.HOLD:
            error = in_doubt(record)
            await self.store.apply(_claim(sub), steps.doubtful(key=sub.key, error=error.message))
            self._end(sub, sub.as_job(JobStatus.IN_DOUBT, error), is_billed=True)
        elif decision is Decision.DONE:
            self._end(sub, _resumed(sub, record, None), is_billed=False)
        elif decision is Decision.LOAD:
            sub.to(Phase.STORED)
            self.live.remove(sub)
            listeners, sub.listeners = sub.listeners, ()
            for listener in listeners:
                self._hand(listener, None)
        else:
            sub.job_id = record.job_id
            self._runs_already(sub, Phase.RUNNING if decision is Decision.POLL else Phase.REFETCHING, record)

    async def requeue(self, sub: Submission, record: Record) -> None:
        """A new submission in an old one's place, under a new key. Raises `InvalidRequest`, `JournalError`."""
        key = self.new_key()
        # What was adopted has no body of its own; whoever asks for it by its tag says what it is.
        body = sub.api.rekeyed(record.body, key) if record.body else _frozen_again(sub, key)
        step = steps.requeue(key=record.key, new_key=key, body=body, api=sub.api.name)
        await self.store.apply(_claim(sub), step)
        sub.key, sub.body = key, body
        sub.to(Phase.QUEUED)

    async def resubmission(self, record: Record, claim: Claim, *, timeout: float) -> Submission:
        """A submission under a new key, in the place of one without a result; QUEUED. Raises `JournalError`."""
        api = self.routing.named(record.api)
        sub = Submission(api, record.key, tag=record.tag, timeout=timeout, row=record.pk, claim=claim)
        sub.marks, sub.kind = record.attempts, api.kind_of(record.body)
        self.live.add_row(sub)
        try:
            if record.state is State.SENDING:
                await self.store.apply(claim, steps.doubtful(key=record.key, error=record.error))
            await self.requeue(sub, record)
        except BaseException:
            self.live.remove(sub)
            self.is_sent_no_longer(sub)
            raise
        return sub

    def listen(self, listener: Listener) -> None:
        """A new listener of a submission that has not begun."""
        sub = listener.sub
        sub.listeners = (*sub.listeners, listener)

    def join(self, listener: Listener) -> None:
        """A late listener of a job that is alive here. It hears with the others, when the job's next poll is due."""
        sub = listener.sub
        sub.listeners = (*sub.listeners, listener)
        self.poller.joined(sub)

    def take_in(self, sub: Submission, record: Record | None) -> None:
        """A job that somebody waits for by its id: it runs, as far as is known here.

        It is polled at once, or when its next poll is due if it was polled here before.

        Args:
            sub: NEW, with `job_id` and its listener.
            record: its row, with a claim if it may be written; None if the store does not know it.
        """
        self._take_up_row(sub, record)
        self.poller.watch(sub)

    async def learn(self, api: API, record: Record, snapshot: Snapshot) -> None:
        """Somebody's own poll found that a job ended: its outcome is written, and its cost replaces its reservation.

        A job that is polled here is left to the poller.

        Args:
            api: the job's.
            record: its row.
            snapshot: what the poll brought.
        """
        if record.state.is_final and not _is_owed(record):
            return
        try:
            if self._remembers and not record.state.is_final:
                record = await self.store.claim(record.pk) or record
        except JournalError as error:
            log(logging.DEBUG, "what a poll brought is not kept: %s", error)
            return
        if record.is_held or snapshot.id in self.live.by_id or record.pk in self.live.by_row:
            return
        sub = Submission(api, record.key, job_id=snapshot.id)
        self._take_up_row(sub, record)
        if not await self.finish(sub, Ended(snapshot.status, outcome_error(snapshot)), snapshot):
            self.detach(sub)

    def _take_up_row(self, sub: Submission, record: Record | None) -> None:
        if record is not None:
            sub.row, sub.claim, sub.key = record.pk, record.claim, record.key
            sub.tag, sub.marks = record.tag, record.attempts
            sub.kind = sub.api.kind_of(record.body)
            self.live.add_row(sub)
        is_final = record is not None and record.state.is_final
        self._runs_already(sub, Phase.REFETCHING if is_final else Phase.RUNNING, record)
        is_owed = sub.phase is Phase.REFETCHING and record is not None and _is_owed(record)
        if is_owed or (sub.phase is Phase.RUNNING and sub.claim is not None):
            self.spending.reserve_running(sub)

    def _runs_already(self, sub: Submission, phase: Phase, record: Record | None) -> None:
        """There is a job of an earlier time. If it was polled here before, its schedule goes on where it was."""
        other = self.live.by_id.get(sub.job_id)
        if other is not None:
            self._merge(sub, other)
            if phase is Phase.RUNNING:
                self._bring_claim(other, sub.claim, sub.key)
            return
        accepted_at = record.accepted_at if record is not None and record.key else None
        wall = self._clock.wall()
        age = max(0.0, wall - accepted_at) if accepted_at is not None else None
        sub.polls = self.live.polls_of(sub.job_id) or Polls.resumed(self._clock.now(), wall, age)
        sub.call = sub.api.get(sub.job_id)
        sub.to(phase)
        self.live.add_job(sub)

    def _take_up(self, sub: Submission, bounds: Bounds) -> None:
        """A job of an earlier run: it may have ended long ago, so that it is due at once."""
        sub.deadline = bounds.until if bounds.until != math.inf else self._clock.now() + sub.timeout
        if sub.phase is Phase.RUNNING:
            self.spending.reserve_running(sub)
        sub.body, sub.request = b"", None
        self._limit_listeners(sub)
        if sub.listeners:
            self.poller.watch(sub)

    def _merge(self, sub: Submission, live: Submission) -> None:
        """Another submission of this session has the job: whoever listens to this one listens there."""
        sub.to(Phase.MERGED)
        self.live.remove(sub)
        self.spending.settle(sub, None, is_billed=False)
        if live.phase is Phase.RUNNING and not self.spending.has_reserved(live):
            self.spending.reserve_running(live)
        latest = self._clock.now() + sub.timeout
        for listener in sub.listeners:
            self.slots.free(listener)  # one job, one place
            listener.sub = live
            listener.deadline = min(listener.deadline, latest)
        live.listeners = (*live.listeners, *sub.listeners)
        sub.listeners = ()
        self.poller.joined(live)

    def _bring_claim(self, live: Submission, claim: Claim | None, key: str) -> None:
        """Whoever waits for a job by its id alone could not write its row. Now it can, and its outcome is kept."""
        if live.claim is None and live.phase is Phase.RUNNING and claim is not None:
            live.row, live.claim, live.key = claim.pk, claim, key
            self.live.add_row(live)

    # --- send --------------------------------------------------------------------------------------------------------

    async def _send(self, sub: Submission, bounds: Bounds) -> Snapshot:
        routing = self.routing
        was_behind = False
        while True:
            if routing.must_move(sub.api, sub.request) and sub.phase is Phase.QUEUED:
                await self._move(sub, bounds)  # it was frozen before the other API was known to be retired
            older = routing.older(sub.api, sub.body)
            if older is not None and sub.phase is Phase.QUEUED:
                await self._refreeze(sub, sub.api, older)  # it was frozen before the server was known to be behind
            try:
                snapshot = await self.client.submit(sub, self, bounds)
            except ClaimLost:
                raise  # it says nothing of other rows, nor of the store
            except JournalError as error:
                self._tell_of_store(error)
                raise
            except EndpointRetired as error:
                if routing.is_last(sub.api):
                    self.client.halt(error, Lane.SUBMIT)
                    raise
                if routing.go_over():
                    self.client.on_next_api()
                    reason = (
                        f"the {routing.first.name} API is retired for this key ({error.type}); going on with"
                        f" {routing.api.name}"
                    )
                    self.emitter.emit(Event(kind=EventKind.WARNING, reason=reason))
                await self.take_back(sub)
                if not routing.must_move(sub.api, sub.request) or sub.phase is not Phase.QUEUED:
                    raise  # the question is not at hand any more, or a job of it may exist
            except APIError as error:
                if not sub.api.is_behind(error) or (older := sub.api.older(sub.body)) is None:
                    raise
                await self.take_back(sub)
                if sub.phase is not Phase.QUEUED:
                    raise  # an earlier attempt was not answered, so a job of these bytes may exist
                await self._refreeze(sub, sub.api, older)
                was_behind = True
                self.emitter.emit(sub.event(EventKind.RETRYING, self._clock.now(), delay=0.0, reason=error.message))
            else:
                if was_behind:
                    routing.mark_behind(sub.api)  # not before: the word may be refused for what it says
                return snapshot

    async def _move(self, sub: Submission, bounds: Bounds) -> None:
        """The same question to the successor, under the same key: where it was refused nothing was made or billed."""
        assert sub.request is not None, "the routing asked for it"  # noqa: S101 - for mypy
        api, body = self.routing.move(sub.request, sub.key)
        await self._refreeze(sub, api, body)
        sub.deadline = 0.0  # the question begins anew
        self.spending.settle(sub, None, is_billed=False)
        await self.spending.reserve(sub, bounds.until)  # another amount is reserved for a job of another kind

    async def _refreeze(self, sub: Submission, api: API, body: bytes) -> None:
        """Other bytes under the same key, on disk before any attempt sends them. Raises `JournalError`."""
        await self.store.apply(_claim(sub), steps.refreeze(key=sub.key, body=body, api=api.name))
        sub.api, sub.body, sub.kind = api, body, api.kind_of(body)

    async def mark(self, sub: Submission) -> None:
        """The next attempt may leave once this returns: that is on disk. Raises `JournalError`: then it may not."""
        if not sub.listeners:
            raise nobody_waits()  # they left while the server had asked for silence
        if not sub.deadline:
            sub.deadline = self._clock.now() + sub.timeout
        sub.marks += 1
        is_first = sub.phase is Phase.QUEUED
        if self._remembers:
            try:
                await self.store.apply(_claim(sub), steps.sending(key=sub.key, attempt=sub.marks))
            except BaseException:
                if is_first:
                    with anyio.CancelScope(shield=True):
                        await self._unmark(sub)
                raise
        sub.to(Phase.SENDING if is_first else Phase.RESENDING)

    async def take_back(self, sub: Submission) -> None:
        """Nothing that was sent under this key can have made a job, and a run that ends now must not leave it so."""
        if sub.phase is Phase.SENDING:
            await self._unmark(sub)
            sub.to(Phase.QUEUED)

    async def _unmark(self, sub: Submission) -> None:
        if not self._remembers:
            return
        try:
            await self.store.apply(_claim(sub), steps.back_to_queued(key=sub.key))
        except JournalError as error:
            log(logging.DEBUG, "it stays marked as being sent: %s", error)

    def began(self, sub: Submission) -> None:
        """An attempt leaves now."""
        sub.attempts += 1

    def unanswered(self, sub: Submission) -> None:
        """The outcome of an attempt is unknown."""
        sub.to(Phase.UNANSWERED)

    # --- accept ------------------------------------------------------------------------------------------------------

    async def _accept(self, sub: Submission, snapshot: Snapshot) -> None:
        """The server has it: its id is on disk before anybody asks for it."""
        if not snapshot.id:
            await self._answered_at_once(sub, snapshot)
            return
        sub.job_id = snapshot.id  # known from here on, whoever leaves while it is written
        try:
            await self.store.apply(_claim(sub), steps.accepted(key=sub.key, job_id=snapshot.id))
        except DuplicateJob as error:
            sub.job_id = ""
            raise two_keys_one_id(snapshot.id, error.idempotency_key) from None
        except JournalError as error:
            # It is paid for, and known only here: go on with it, and tell its id.
            self._tell_of_store(error)
            reason = f"accepted, and its id could not be written to the journal: {error.message}"
            self.emitter.emit(sub.event(EventKind.WARNING, self._clock.now(), reason=reason))
        other = self.live.by_id.get(snapshot.id)
        if other is not None:
            self._merge(sub, other)
            self._bring_claim(other, sub.claim, sub.key)
            return
        sub.polls = Polls.begun(self._clock.now(), self._clock.wall())
        sub.call = sub.api.get(sub.job_id)
        sub.to(Phase.RUNNING)
        self.accepted += 1
        self.live.add_job(sub)
        asked = sub.request.asked_model if sub.request is not None and sub.api.echoes_model else None
        # The server has the question now; a thousand waiting jobs need not hold theirs.
        sub.body, sub.request = b"", None
        if not self._remembers:
            sub.claim = None  # there is no row to write
        for listener in sub.listeners:
            listener.accepted(snapshot)
        self._limit_listeners(sub)
        has_ended = snapshot.status.is_final and not snapshot.may_have_more
        if sub.listeners and not has_ended:
            self.poller.watch(sub)
        self._emit_submitted(sub, snapshot, asked)
        if has_ended and not await self.finish(sub, Ended(snapshot.status, outcome_error(snapshot)), snapshot):
            self.poller.watch(sub)

    async def _answered_at_once(self, sub: Submission, snapshot: Snapshot) -> None:
        """The answer to the submission is the outcome, and has no id under which it could be asked for again."""
        sub.polls = Polls(self._clock.now(), is_fresh=True)
        sub.to(Phase.RUNNING)
        sub.body, sub.request = b"", None
        for listener in sub.listeners:
            listener.accepted(snapshot)
        self._emit_submitted(sub, snapshot, None)
        ended = Ended(snapshot.status, outcome_error(snapshot))
        if not await self.finish(sub, ended, snapshot):
            sub.claim = None  # there may be room later, but nothing to ask for it then
            await self.finish(sub, ended, snapshot)

    @staticmethod
    def _limit_listeners(sub: Submission) -> None:
        """A listener whose time begins with the first attempt has its deadline now."""
        for listener in sub.listeners:
            if listener.takes_slot and listener.deadline == math.inf:
                listener.deadline = sub.deadline

    def _emit_submitted(self, sub: Submission, snapshot: Snapshot, asked: str | None) -> None:
        if self.emitter.has_handlers():
            self.emitter.emit(sub.event(EventKind.SUBMITTED, self._clock.now(), status=snapshot.status))
        if asked and snapshot.model and asked != snapshot.model:
            reason = f"asked for model {asked[:80]!r}, the server says {snapshot.model[:80]!r}"
            self.emitter.emit(sub.event(EventKind.WARNING, self._clock.now(), reason=reason))

    # --- what polls bring: the poller's sink --------------------------------------------------------------------------

    def may_poll(self, sub: Submission) -> bool:
        """See `Sink`. Each listener is asked, since asking sets room aside; one without room gives its place back."""
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
        job = sub.as_job(JobStatus.TIMED_OUT, timed_out(why), snapshot)
        event = sub.event(EventKind.TIMED_OUT, self._clock.now(), status=job.status, reason=why)
        sub.listeners = tuple(listener for listener in sub.listeners if listener not in overdue)
        for listener in overdue:
            self.slots.free(listener)
        if not sub.listeners:
            self.detach(sub)
        for listener in overdue:
            self._hand(listener, listener.named(job))
        for listener in overdue:
            self.emitter.emit(msgspec.structs.replace(event, tag=listener.tag, index=listener.index))

    async def finish(self, sub: Submission, ended: Ended, snapshot: Snapshot | None) -> bool:
        """See `Sink`: write, then everything else at once."""
        polls = sub.polls
        seconds = self._clock.now() - polls.since if polls is not None and polls.is_fresh else None
        job = sub.as_job(ended.status, ended.error, snapshot, seconds)
        if self._remembers and sub.claim is not None and sub.phase is Phase.RUNNING:
            try:
                await self._write(sub, job)
            except JournalError as error:
                if polls is None or not polls.was_unkept:  # it is polled, and perhaps not written, again and again
                    reason = f"not kept: {error.message}"
                    self.emitter.emit(sub.event(EventKind.WARNING, self._clock.now(), reason=reason))
                if polls is not None:
                    polls.was_unkept = True
                if unwritten_for_now(error):
                    return False
                sub.claim = None  # what it is handed out as is all there is
        if sub.phase not in TERMINAL:
            self._end(sub, job, is_billed=True)
        if self._remembers:
            await self.learnt.job_ended()
        return True

    async def _write(self, sub: Submission, job: Job) -> None:
        state = state_of(job)
        if state is None:
            return
        step = steps.ended(
            state,
            key=sub.key,
            job_id=job.id,
            word=job.server_status,
            raw=job.raw,
            error=job.error.message if job.error is not None else "",
            cost=job.cost,
        )
        await self.store.apply(_claim(sub), step)

    def fail(self, sub: Submission, problem: Exception) -> None:
        """See `Sink`."""
        if sub.phase not in TERMINAL:
            why = f"polling the job failed unexpectedly: {type(problem).__name__}: {problem}"
            self._end(sub, sub.as_job(JobStatus.UNREADABLE, ProtocolError(why)), is_billed=True)

    # --- the end -----------------------------------------------------------------------------------------------------

    def reject(self, sub: Submission, error: AiopplxError) -> None:
        """It was never written down or sent: refused by a check here."""
        self._end(sub, sub.as_job(JobStatus.REJECTED, error), is_billed=False)

    async def _refuse(self, sub: Submission, error: AiopplxError) -> None:
        """There is no job to poll: refused, stopped, or its outcome is unknown."""
        if sub.phase is Phase.UNANSWERED:
            error = still_in_doubt(error)
        job = sub.as_job(status_of_refusal(error, self.client.gate.stop), error)
        try:
            await self._write_refusal(sub, job)
        except JournalError as problem:
            reason = f"what became of it could not be written to the journal: {problem.message}"
            self.emitter.emit(sub.event(EventKind.WARNING, self._clock.now(), reason=reason))
        if sub.phase not in TERMINAL:
            self._end(sub, job, is_billed=job.status is JobStatus.IN_DOUBT)

    async def _write_refusal(self, sub: Submission, job: Job) -> None:
        if sub.phase is Phase.NEW or sub.claim is None:
            return
        error = job.error
        said = error.message if error is not None else ""
        if job.status is JobStatus.IN_DOUBT:
            await self.store.apply(sub.claim, steps.doubtful(key=sub.key, error=said))
        elif job.status is JobStatus.REJECTED and is_final_refusal(error):
            await self.store.apply(sub.claim, steps.ended(State.REJECTED, key=sub.key, error=said))
        else:
            await self.take_back(sub)

    def _end(self, sub: Submission, job: Job, *, is_billed: bool) -> None:
        """What became of it is written. Settle, free, deliver, emit: in this order, and nothing comes in between."""
        listeners, sub.listeners = sub.listeners, ()
        if not listeners:
            sub.job = job
        if sub.phase in POLLABLE:
            self.poller.ended(sub)
        sub.to(Phase.FINISHED)
        self.ended[job.status] = self.ended.get(job.status, 0) + 1
        self.spending.settle(sub, job, is_billed=is_billed)
        self.live.remove(sub)
        for listener in listeners:
            self.slots.free(listener)
        for listener in listeners:
            self._hand(listener, listener.named(job))
        if job.status is JobStatus.IN_DOUBT or self.emitter.has_handlers():
            self._emit_finished(job)

    def _hand(self, listener: Listener, job: Job | None) -> None:
        try:
            listener.deliver(job)
        except Exception:  # a fault of ours: the other listeners must have theirs
            log(logging.ERROR, "an outcome could not be delivered", exc_info=True)

    async def load(self, sub: Submission) -> Job:
        """A job that an earlier run stored, or this one to save memory, read back from the store."""
        record = await self.store.get(pk=sub.row)
        assert record is not None, "rows are not removed while a session holds them"  # noqa: S101 - for mypy
        job = _resumed(sub, record, await self.stored_result(record))
        if sub.phase is Phase.STORED:
            self._emit_finished(job)
        return job

    async def stored_result(self, record: Record) -> bytes | None:
        """The stored body of a row; None if there is none, or none that can be read back."""
        try:
            return await self.store.result(record.pk)
        except ResultDamaged as error:
            log(logging.WARNING, "%s", error)
            return None

    def detach(self, sub: Submission) -> asyncio.Task[None] | None:
        """Nobody waits for it any more. Returns its poll if that was out, cancelled, to be waited for.

        What is known of it then is in `sub.job`: the job where the server has it, one IN_DOUBT where nobody knows, None
        where nothing was made.
        """
        if sub.phase in TERMINAL:
            return None
        is_billed = sub.phase in DOUBTFUL or sub.phase in POLLABLE
        sub.job = as_left(sub)
        listeners, sub.listeners = sub.listeners, ()
        sub.to(Phase.DETACHED)
        poll = self.poller.forget(sub)
        self.spending.settle(sub, None, is_billed=is_billed)
        self.live.remove(sub)
        for listener in listeners:
            self.slots.free(listener)
        return poll

    def left_of(self, sub: Submission) -> Job | None:
        """What is known of it now that nobody listens, if that is worth telling: a job, or doubt. Said once only."""
        job, sub.job = sub.job, None
        return job if job is not None and (job.id or isinstance(job.error, InDoubt)) else None

    def unlisten(self, listener: Listener) -> asyncio.Task[None] | None:
        """This listener waits no more. The last one to go detaches what runs; `leave` ends what is on the wire."""
        sub = listener.sub
        if listener not in sub.listeners:
            return None
        sub.listeners = tuple(other for other in sub.listeners if other is not listener)
        if sub.runner is None:
            self.slots.free(listener)
        if sub.phase not in POLLABLE or sub.waits_for_a_place:
            return None
        if not sub.listeners:
            return self.detach(sub)
        self.poller.bound(sub)
        return None

    # --- telling -----------------------------------------------------------------------------------------------------

    def _emit_finished(self, job: Job) -> None:
        """The end of a submission is told once, however often it is asked for in this session."""
        if not self.live.was_told(job.id or job.idempotency_key):
            self.emitter.emit(_finished(job))

    def _tell_of_store(self, error: JournalError) -> None:
        """A store that fails ends what is to be sent by this session, and by no other of the account; told once."""
        if not self._is_store_broken:
            self._is_store_broken = True
            self.emitter.emit(Event(kind=EventKind.STOPPED, reason=error.message, fault=Fault.STOP.value))
            self.client.on_stop()

    def stop_of(self, job: Job) -> AiopplxError | None:
        """The session-wide error behind a job that is STOPPED."""
        stop = job.error if isinstance(job.error, JournalError) else self.client.gate.stop or job.error
        return stop.about() if stop is not None else None


def _is_owed(record: Record) -> bool:
    """Whether it ended, and its bill is not known: if that can still be read, it settles what is reserved for it."""
    return record.state in BILLED and record.cost is None


def _resumed(sub: Submission, record: Record, raw: bytes | None) -> Job:
    return msgspec.structs.replace(job_of(record, raw), index=sub.index, attempts=sub.attempts)


def _frozen_again(sub: Submission, key: str) -> bytes:
    if sub.request is None:
        raise InvalidRequest("the journal does not know what this job was asked: it was adopted. Submit it anew")
    return sub.api.freeze(sub.request, key)


def _origin(sub: Submission, run: str) -> Origin | None:
    """Where it comes from; None for a call without columns, of which there is nothing to say."""
    request = sub.request
    if request is None or (not run and not request.meta):
        return None
    return Origin(run, sub.index or 0, request.asked, request.meta)


def _claim(sub: Submission) -> Claim:
    assert sub.claim is not None, "what is sent has its row"  # noqa: S101 - for mypy
    return sub.claim


def _finished(job: Job) -> Event:
    return Event(
        kind=EventKind.FINISHED,
        job_id=job.id,
        idempotency_key=job.idempotency_key,
        tag=job.tag,
        index=job.index,
        status=job.status,
        polls=job.polls,
        attempt=job.attempts,
        seconds=job.seconds,
        cost=job.cost,
        reason=job.error.message if job.error is not None else "",
    )
