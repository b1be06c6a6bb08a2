"""Calls that wait for one job: `ask`, `submit`, `wait`, and what ends them before their job does.

A call is a listener with a future. The sending itself runs in a task of its own, because a caller who is cancelled must
not cut it short: an id that is on its way is worth a moment. This module knows nothing of batches beyond that they are
closed with the session, of HTTP, or of how a submission is sent.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

import anyio
import msgspec

from aiopplx._core.freezing import submission_of
from aiopplx._core.leaving import leave
from aiopplx._core.lifecycle import Lifecycle
from aiopplx._core.loading import load, stored_result
from aiopplx._core.outcomes import may_be_billed, state_of
from aiopplx._errors import AiopplxError, ConfigError
from aiopplx._http.apart import cancel_and_wait
from aiopplx._job import Job, JobStatus, Snapshot
from aiopplx._policy.retry import Bounds
from aiopplx._submission import POLLABLE, Listener, Submission, under
from aiopplx._wire.api import API
from aiopplx.journal._errors import JournalAway
from aiopplx.journal._jobs import job_of, question_in
from aiopplx.journal._names import Names
from aiopplx.journal._records import Record


class Member(msgspec.Struct, frozen=True, eq=False):
    """Something that lives inside a session and ends with it: a batch.

    Attributes:
        aclose: ends it.
        wake: called when something changed for the whole session.
    """

    aclose: Callable[[], Coroutine[Any, Any, None]]  # Any: what a coroutine yields and is sent
    wake: Callable[[], object]


class Wanted(NamedTuple):
    """A job that somebody asks for: its API, its id, and what is known of it besides."""

    api: API
    job_id: str
    key: str = ""
    tag: str | int | None = None


def _future() -> asyncio.Future[Job | AiopplxError | None]:
    return asyncio.get_running_loop().create_future()


class Caller(Listener, eq=False, kw_only=True):
    """A call that waits for one job. It always has room: it takes one outcome.

    Attributes:
        served: done once the outcome is there; `outcome` reads it.
        is_taken: the outcome was read, so that its caller has it.
        acceptance: what the server answered to the submission, for a call that returns with just that.
    """

    acceptance: Snapshot | None = None
    served: asyncio.Future[Job | AiopplxError | None] = msgspec.field(default_factory=_future)
    is_taken: bool = False

    def accepted(self, snapshot: Snapshot) -> None:
        """See `Listener`. Kept for a call that returns with it: a waiting job need not hold an answer."""
        if not self.takes_slot:
            self.acceptance = snapshot

    def deliver(self, job: Job | None) -> None:
        """See `Listener`."""
        if not self.served.done():
            self.served.set_result(job)

    def fail(self, error: AiopplxError) -> None:
        """This caller gets no outcome but this error, which names the job."""
        if not self.served.done():
            sub = self.sub
            # As a value: an exception in the future of a caller who is gone by then would be one never retrieved.
            self.served.set_result(error.about(job_id=sub.job_id, idempotency_key=sub.key, tag=self.tag))

    async def outcome(self) -> Job | None:
        """The job once it has ended; None if the store has it. Raises what `fail` was given."""
        await asyncio.wait([self.served])
        self.is_taken = True
        outcome = self.served.result()
        if isinstance(outcome, AiopplxError):
            raise outcome
        return outcome

    def untaken(self) -> Job | None:
        """An outcome that came in the very turn in which the call was cancelled, so that nobody has it."""
        outcome = self.served.result() if self.served.done() and not self.is_taken else None
        return outcome if isinstance(outcome, Job) else None


_C = TypeVar("_C", bound=Caller)


def _caller(sub: Submission, *, deadline: float = math.inf, takes_slot: bool = False) -> Caller:
    """A call for a new submission, under the submission's own names."""
    request = sub.request
    asked, meta = (request.asked, request.meta) if request is not None else ("", {})
    return Caller(sub=sub, tag=sub.tag, asked=asked, meta=meta, deadline=deadline, takes_slot=takes_slot)


class Calls:
    """The calls of a session that wait.

    Args:
        life: takes submissions through their phases.

    Attributes:
        members: one for each batch that is open.
        is_closed: the session is closed.
    """

    def __init__(self, life: Lifecycle) -> None:
        self.life = life
        self.members: set[Member] = set()
        self.is_closed: bool = False
        self._clock = life.client.clock
        self._callers: dict[Caller, asyncio.Task[None] | None] = {}

    # --- what users call ---------------------------------------------------------------------------------------------

    async def ask(self, sub: Submission, names: Names | None = None) -> Job:
        """Submit, wait, return the job, all of it within `sub.timeout` seconds; `names` says what may be reused."""
        until = self._clock.now() + sub.timeout
        caller = _caller(sub, deadline=until, takes_slot=True)
        try:
            await self._send(caller, until, names)
            return await self._delivered(caller)
        finally:
            await self._leave(caller)

    async def submit(self, sub: Submission, names: Names | None = None) -> Job:
        """Submit, and return the job as soon as the server has it; what became of it if that comes first."""
        caller = _caller(sub)
        try:
            await self._send(caller, self._clock.now() + sub.timeout, names)
            if caller.served.done():
                return await self._delivered(caller)
            running = caller.sub
            snapshot = caller.acceptance
            status = snapshot.status if snapshot is not None else JobStatus.IN_PROGRESS
            self.forget(caller)  # not left behind: whoever submits alone means to come back for it
            self.life.announcer.left_jobs.was_only_submitted(running.job_id)
            return caller.named(running.as_job(status, None, snapshot))
        finally:
            await self._leave(caller)

    async def wait(self, wanted: Wanted, *, seconds: float, is_due: bool = False) -> Job:
        """This job once it has ended, or `TIMED_OUT` after `seconds`.

        With `is_due` it is polled at once, whatever its schedule says: it was cancelled a moment ago, for example.
        """
        caller = await self.reach(wanted, Caller, seconds=seconds)
        if isinstance(caller, Job):
            return caller
        if is_due and caller.sub.phase in POLLABLE:
            self.life.poller.poll_now(caller.sub)
        try:
            return await self._delivered(caller)
        finally:
            await self._leave(caller)

    async def reach(self, wanted: Wanted, make: Callable[..., _C], *, seconds: float) -> _C | Job:
        """A late listener of this job, which is polled from here on; the job itself if the store has its end.

        Args:
            wanted: which job.
            make: makes the listener.
            seconds: how long it listens at most.
        """
        api, job_id, key, tag = wanted
        deadline = self._clock.now() + seconds
        record = None
        live = self.life.live.by_id.get(job_id)
        if live is None:
            try:
                record, stored = await self.life.reach.answer(self._known(job_id), deadline, least=0.0)
            except JournalAway as error:
                raise error.about(job_id=job_id, idempotency_key=key, tag=tag) from None
            if stored is not None:
                self.life.announcer.end_of(stored, is_told=True)
                return stored if tag is None else under(stored, tag)
            live = self.life.live.by_id.get(job_id)
        self._check_open()
        if live is None:
            if record is not None:
                live = submission_of(record, self.life.routing.named(record.api), job_id=job_id)
            else:
                live = Submission(api, key, tag=tag, job_id=job_id)
            caller = make(sub=live, tag=live.tag if tag is None else tag, deadline=deadline, is_late=True)
            if record is not None:
                caller.asked, caller.meta = question_in(record), record.meta
            self._callers[caller] = None
            self.life.listen(caller)
            self.life.take_in(live, record)
        else:
            caller = make(sub=live, tag=live.tag if tag is None else tag, deadline=deadline, is_late=True)
            self._callers[caller] = None
            self.life.join(caller, key)
        return caller

    def now(self) -> float:
        """Monotonic seconds by the session's clock."""
        return self._clock.now()

    async def _known(self, job_id: str) -> tuple[Record | None, Job | None]:
        """What the store knows of a job: its row, claimed if it may still be written, or its job if it has ended."""
        store = self.life.store
        record = await store.get(job_id=job_id)
        if record is None or not store.remembers:
            return record, None
        if record.has_result:
            job = job_of(record, await stored_result(store, record))
            if job.raw:
                return record, job
        elif not record.state.is_final:
            record = await store.claim(record.pk)
        return record, None

    # --- the parts of a call -----------------------------------------------------------------------------------------

    async def _send(self, caller: Caller, until: float, names: Names | None) -> None:
        """Run the sending in a task; return when there is nothing more to do for it."""
        self._check_open()
        sub = caller.sub
        self.life.listen(caller)
        bounds = Bounds.within(sub.timeout, until=until, silence=self.life.client.policy.patience)
        sending = asyncio.get_running_loop().create_task(self.life.submit(sub, names, bounds))
        self._callers[caller] = sending
        # One that was resumed, and waits for a slot, may end before it has one: somebody else had it polled.
        ends: list[asyncio.Future[Any]] = [sending, caller.served]  # Any: neither value is looked at
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            self._callers[caller] = None
            if not sending.cancelled() and (problem := sending.exception()) is not None:
                raise problem  # it died without a word to its listeners
        self._check_open()

    async def _delivered(self, caller: Caller) -> Job:
        job = await caller.outcome()
        sub = caller.sub
        if job is None:
            job = await load(self.life, caller)
        if sub.claim is not None and (state := state_of(job)) is not None:
            self.life.store.delivered(sub.claim, sub.key, state)
        return job

    def forget(self, caller: Caller) -> None:
        """This call waits no more, at once and without a word."""
        self._callers.pop(caller, None)
        self.life.unlisten(caller)

    async def _leave(self, caller: Caller) -> None:
        """The call ends. If its job does not, nobody here waits for it any more, and that is told."""
        if (job := caller.untaken()) is not None and may_be_billed(job):
            self.life.announcer.left_jobs.tell([job], are_known=caller.is_late)
        sending = self._callers.get(caller)
        if self.is_closed or (sending is None and caller not in caller.sub.listeners):
            self._callers.pop(caller, None)  # `aclose` waits for what it sends, and tells; this call must not end that
            return
        left: list[Job] = []
        with anyio.CancelScope(shield=True):
            try:
                await leave(self.life, [caller], [sending] if sending is not None else [], left)
            finally:
                self._callers.pop(caller, None)  # not before: a session that closes meanwhile waits for it too
                self.life.announcer.left_jobs.tell(left)

    def _check_open(self) -> None:
        if self.is_closed:
            raise closed_error()

    # --- what ends them all ------------------------------------------------------------------------------------------

    def stopped(self) -> None:
        """Nothing more is submitted: tell everybody who waits. If polls are refused too, waiting is of no use."""
        for member in list(self.members):
            member.wake()
        gate = self.life.client.gate
        if gate.polls_refused and gate.stop is not None:
            for caller, sending in list(self._callers.items()):
                if sending is None and caller.sub.phase in POLLABLE:
                    caller.fail(gate.stop)

    async def aclose(self) -> None:
        """End everything that runs: batches, calls, polls. Whoever waits gets `closed_error`."""
        self.is_closed = True
        self.life.announcer.left_jobs.session_ends()
        callers = dict(self._callers)
        for caller in callers:
            caller.fail(closed_error())
        polls = self.life.poller.close()
        left: list[Job] = []
        senders = [sending for sending in callers.values() if sending is not None]
        parts = (leave(self.life, callers, senders, left), *(member.aclose() for member in list(self.members)))
        closing = [asyncio.get_running_loop().create_task(part) for part in parts]
        try:
            # Not `gather`, which would cancel a part before it has begun: that part would tell nothing of its jobs.
            await asyncio.wait(closing)
        finally:
            for part in closing:
                part.cancel()
            try:
                ends = await asyncio.gather(*closing, return_exceptions=True)
            finally:
                self.life.announcer.left_jobs.tell(left)
                self.life.announcer.left_jobs.tell_submitted()
        for end in ends:
            if isinstance(end, Exception):
                raise end
        await cancel_and_wait(polls)


def closed_error() -> ConfigError:
    """What a call gets whose session is closed while it waits."""
    return ConfigError("the session was closed while this call waited; a job that it made goes on at the service")
