"""What a session and its batches share: client, poller, slots, and the way from an item to a submission.

It owns the moving parts and their end. This module knows nothing of what users type (that is `_session`) or of how a
batch reads its source.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

import anyio

from aiopplx._apis import request_of
from aiopplx._core.keeper import Keeper, OnDoubt
from aiopplx._core.poller import Poller
from aiopplx._core.spending import Purse
from aiopplx._core.waiting import Waiter
from aiopplx._core.watch import Sink, Watch, make_job, outcome_error
from aiopplx._errors import (
    AiopplxError,
    BudgetReached,
    ConfigError,
    EndpointRetired,
    InDoubt,
    InvalidRequest,
    ProtocolError,
)
from aiopplx._events import Event, EventKind
from aiopplx._http.client import Client
from aiopplx._job import Job, JobStatus, Snapshot
from aiopplx._policy.retry import Fault
from aiopplx._submission import Submission
from aiopplx._wire.api import API, quoted_id
from aiopplx._wire.call import Lane
from aiopplx._wire.request import Request, tag_of
from aiopplx.journal._protocol import DuplicateJob, JournalError

logger = logging.getLogger("aiopplx")

# Ids remembered for a later `wait(id)`, so that its job still has its key and tag.
REMEMBERED = 10_000
# Leaving a batch that cancels what it leaves takes no longer than this.
CANCEL_SECONDS = 10.0


class Member(Protocol):
    """What lives inside a session and ends with it: a batch."""

    async def aclose(self) -> None:
        """End it."""
        ...

    def wake(self) -> None:
        """Something changed for the whole session."""
        ...


class Engine:
    """The moving parts of one session.

    Args:
        api: the API that submissions go to.
        successor: where they go once `api` is retired for this key; None if that ends them.
        client: makes the calls.
        make_poller: makes the poller, given this engine's `release`.
        keeper: keeps the journal; None without one.
        purse: keeps what may be spent; None without a bound.
        on_doubt: whether a submission whose fate is unknown is sent again; None: where the API honours keys.
        max_in_flight: jobs that may run at the service at once, as far as we know.
        open: opens the session if need be; raises if it cannot be used here and now (closed, another loop).
        others: APIs that nothing is submitted to, and that a job of an earlier session may be at.
    """

    def __init__(
        self,
        api: API,
        successor: API | None,
        client: Client,
        make_poller: Callable[[Callable[[Watch], None]], Poller],
        *,
        keeper: Keeper | None = None,
        purse: Purse | None = None,
        on_doubt: OnDoubt | None = None,
        max_in_flight: int,
        open: Callable[[], None],
        others: Sequence[API] = (),
    ) -> None:
        self.api = api
        self.successor = successor
        self._apis = [api] if successor is None else [api, successor]
        self._others = others
        self.client = client
        self.keeper = keeper
        self.purse = purse
        self._on_doubt: OnDoubt | None = on_doubt
        self.slots = anyio.Semaphore(max_in_flight)
        self.poller = make_poller(self.release)
        self.batches: set[Member] = set()
        self.waiters: set[Waiter] = set()
        self.tasks: dict[asyncio.Task[Snapshot | Job], Submission] = {}
        self.closed = False
        self._journal_told = False
        self._settling_up = asyncio.Lock()
        self.open = open
        self._known: OrderedDict[str, tuple[str, str | int | None]] = OrderedDict()

    # --- from an item to a submission --------------------------------------------------------------------------------

    def freeze(self, item: str | Mapping[str, object] | Request, *, index: int | None, timeout: float) -> Submission:
        """Key and bytes of a submission, made before anything is sent and never changed after.

        Raises:
            InvalidRequest: the item breaks a rule; it names the field, and carries the tag if there was one.
        """
        try:
            request = request_of(item)
            key = request.idempotency_key or uuid.uuid4().hex
            api, body = self._frozen(request, key)
        except InvalidRequest as error:
            raise error.about(tag=tag_of(item)) from None
        return Submission(
            api,
            body,
            key,
            tag=request.tag,
            index=index,
            timeout=request.timeout if request.timeout is not None else timeout,
            request=request,
            repeatable=self._repeatable(api),
        )

    async def found(self, job_id: str) -> Job | None:
        """A job as the journal knows it: ended, if its result is there, or running, so that its names are known."""
        if self.keeper is None or (record := await self.keeper.find(job_id)) is None:
            return None
        return await self.keeper.kept(record) or self.keeper.job_of(record, None)

    async def load(self, sub: Submission) -> Job:
        """A job that ended, read back from the journal."""
        assert self.keeper is not None, "only a journal stores jobs"  # noqa: S101 - told to the type checker
        job = await self.keeper.load(sub)
        if sub.stored:
            self._tell_finished(job)
        return job

    def unread(self, is_unread: bool) -> None:
        """A source is being read, or was read to its end."""
        if self.keeper is not None:
            self.keeper.unread(is_unread)

    def taken(self, sub: Submission) -> None:
        """The outcome was handed out."""
        if self.keeper is not None:
            self.keeper.taken(sub)

    @property
    def stores_results(self) -> bool:
        """True if results are on disk and can be read back when they are taken."""
        return self.keeper is not None and self.keeper.stores_results

    def _frozen(self, request: Request, key: str) -> tuple[API, bytes]:
        if self.successor is not None and not self._apis[0].takes(request):
            return self.successor, self.successor.freeze(request, key)
        try:
            return self.api, self.api.freeze(request, key)
        except InvalidRequest:
            if self.keeper is None or self.api is self._apis[0]:
                raise
        # The journal may have its answer from before the other API was retired. If not, it is refused at its sending.
        return self._apis[0], self._apis[0].freeze(request, key)

    def _repeatable(self, api: API) -> bool:
        return self._on_doubt == "resend" if self._on_doubt is not None else api.has_idempotency

    async def begin(self, sub: Submission) -> Job | None:
        """Write a submission down before it is promised to anybody. Returns its job if it is over already.

        If `sub.stored` is true afterwards, `load` has it; otherwise it is to be submitted. Without a journal there is
        nothing to do.
        """
        if self.keeper is None:
            return None
        try:
            if self.purse is not None:
                await self._settle_up(self.purse, self.keeper)
            job = await self.keeper.begin(sub)
        except AiopplxError as error:
            self._tell_of_journal(error)
            return await self._not_accepted(sub, error)
        except Exception as error:  # a fault of ours; nothing was sent, and whoever waits for it must hear of it
            logger.exception("submission %s could not be looked up", sub.key)
            return await self._not_accepted(sub, _unexpected(sub, error))
        self._journal_told = False
        sub.repeatable = self._repeatable(sub.api)
        if job is not None:
            self._tell_finished(job)
        return job

    async def _settle_up(self, purse: Purse, keeper: Keeper) -> None:
        """Before anything is written in this session: what still runs of earlier ones."""
        async with self._settling_up:
            if not purse.is_settled_up:
                purse.owe(await keeper.running())

    def let_go(self, sub: Submission) -> None:
        """What was begun is no longer under way, whether it was sent or not."""
        if self.keeper is not None:
            self.keeper.let_go(sub)

    def _tell_of_journal(self, error: AiopplxError) -> None:
        """A journal that fails ends what is to be sent by this session, and by no other of the account; told once."""
        if isinstance(error, JournalError) and not self._journal_told:
            self._journal_told = True
            self.client.tell(Event(kind=EventKind.STOPPED, reason=error.message, fault=Fault.STOP.value))

    async def submit(self, sub: Submission, *, patience: float, until: float | None = None) -> Snapshot | Job:
        """Send it. A running job comes back as its snapshot, anything that is over already as a `Job`; raises nothing
        but cancellation.
        """
        try:
            return await self._send_and_write(sub, patience, until)
        finally:
            sub.sending = False

    async def _send_and_write(self, sub: Submission, patience: float, until: float | None) -> Snapshot | Job:
        if sub.job_id:
            sub.deadline = until if until is not None else self.client.clock.now() + sub.timeout
            self._remember(sub.job_id, sub)
            if self.purse is not None and not sub.settled:
                self.purse.found(sub)
            sub.body, sub.request = b"", None
            return Snapshot(id=sub.job_id, status=JobStatus.IN_PROGRESS, server_status="")
        try:
            if self.purse is not None:
                await self._hold(self.purse, sub, until)
            try:
                snapshot = await self._submit(sub, patience, until)
            finally:
                # What came of it is yet to be written down: whoever leaves now waits for that as for the answer.
                sub.sending = sub.attempts > 0
            self._check_new(sub, snapshot.id)
            self._remember(snapshot.id, sub)
            if self.keeper is not None:
                await self._write_accepted(self.keeper, sub, snapshot)
        except AiopplxError as error:
            return await self._not_accepted(sub, error)
        except Exception as error:
            # A fault of ours, or of a hook in the user's own aiohttp session. Nobody may wait for it for ever.
            logger.exception("submission %s failed unexpectedly", sub.key)
            return await self._not_accepted(sub, _unexpected(sub, error))
        except asyncio.CancelledError:
            self._count(sub, make_job("", JobStatus.IN_DOUBT if sub.attempts else JobStatus.STOPPED, None, None, sub))
            raise
        finally:
            if self.keeper is not None:
                self.keeper.let_go(sub)
        if self.client.listened():
            self.client.tell(self._event(EventKind.SUBMITTED, sub, job_id=snapshot.id, status=snapshot.status))
        self._warn_of_model(sub, snapshot)
        # The server has the question now; a thousand waiting jobs need not hold theirs.
        sub.body, sub.request = b"", None
        if snapshot.status.is_final and not snapshot.is_empty:
            job = make_job(snapshot.id, snapshot.status, outcome_error(snapshot), snapshot, sub)
            await self._write(sub, job)
            self._count(sub, job)
            self._tell_finished(job)
            return job
        return snapshot

    async def _hold(self, purse: Purse, sub: Submission, until: float | None) -> None:
        left = None if until is None else max(0.0, until - self.client.clock.now()) / self.client.clock.speed
        try:
            async with asyncio.timeout(left):
                await purse.hold(sub)
        except TimeoutError:
            raise BudgetReached(
                f"not sent: within its time limit there was no room for it in max_cost ({purse.budget.facts})"
            ) from None

    def _count(self, sub: Submission, job: Job) -> None:
        if self.purse is not None:
            self.purse.ended(sub, job)

    def unwatched(self, sub: Submission) -> None:
        """Nobody here will hear what it cost: it goes on, as a bill of unknown amount."""
        self._count(sub, make_job(sub.job_id, JobStatus.IN_PROGRESS, None, None, sub))

    def _check_new(self, sub: Submission, job_id: str) -> None:
        """Raises `InDoubt` if the server gave the id of another submission."""
        known = self._known.get(job_id)
        if known is not None and known[0] != sub.key:
            raise _two_keys_one_id(job_id, known[0])

    async def _write_accepted(self, keeper: Keeper, sub: Submission, snapshot: Snapshot) -> None:
        """The server has it. Raises `InDoubt` if the journal knows the id as another submission's."""
        try:
            await keeper.accepted(sub, snapshot.id)
        except DuplicateJob as error:
            raise _two_keys_one_id(snapshot.id, error.idempotency_key) from None
        except JournalError as error:
            # It is paid for, and known only here: go on with it, and tell its id.
            self._tell_of_journal(error)
            reason = f"accepted, and its id could not be written to the journal: {error.message}"
            self.client.tell(self._event(EventKind.WARNING, sub, job_id=snapshot.id, reason=reason))

    async def _write(self, sub: Submission, job: Job) -> None:
        if self.keeper is None:
            return
        try:
            await self.keeper.not_accepted(sub, job)
        except JournalError as error:
            reason = f"what became of it could not be written to the journal: {error.message}"
            self.client.tell(self._event(EventKind.WARNING, sub, job_id=job.id, reason=reason))

    async def _submit(self, sub: Submission, patience: float, until: float | None) -> Snapshot:
        if self.successor is not None and self.api is self.successor and self._may_move(sub):
            await self._move(sub, self.successor)  # it was frozen before the other API was known to be retired
        try:
            return await self.client.submit(sub, patience=patience, until=until, log=self.keeper)
        except JournalError as error:
            self._tell_of_journal(error)
            raise
        except EndpointRetired as error:
            if self.successor is None or sub.api is self.successor:
                self.client.halt(error, Lane.SUBMIT)
                raise
            self._go_over(self.successor, error)
            if not self._may_move(sub):
                raise
        await self._move(sub, self.successor)
        return await self._submit(sub, patience, until)

    def _may_move(self, sub: Submission) -> bool:
        """True if the question can go to the successor: it is at hand, and no job of it can exist elsewhere."""
        return sub.api is not self.successor and sub.request is not None and not sub.was_in_doubt

    async def _move(self, sub: Submission, successor: API) -> None:
        """The same question to the successor, under the same key: where it was refused nothing was made or billed."""
        sub.body = successor.freeze(cast("Request", sub.request), sub.key)
        sub.api = successor
        sub.repeatable = self._repeatable(successor)
        if self.keeper is not None:
            await self.keeper.refrozen(sub)

    def _go_over(self, successor: API, error: EndpointRetired) -> None:
        if self.api is successor:
            return
        self.api = successor
        reason = f"the {self._apis[0].name} API is retired for this key ({error.type}); going on with {successor.name}"
        self.client.tell(Event(kind=EventKind.WARNING, reason=reason))

    def api_of(self, job_id: str, name: str = "") -> API:
        """The API that a job is at: by name where it is known, else by what its id looks like.

        Raises:
            InvalidRequest: that is no job id.
        """
        quoted_id(job_id)
        for api in self._apis if not name else (*self._apis, *self._others):
            if api.name == name or (not name and api.owns(job_id)):
                return api
        return self.api

    async def submit_owned(self, sub: Submission, *, patience: float, until: float | None = None) -> Snapshot | Job:
        """`submit` for a caller who may be cancelled: an id that is on its way then is still waited for, shortly."""
        self._check_open()
        task = asyncio.get_running_loop().create_task(self.submit(sub, patience=patience, until=until))
        self.tasks[task] = sub
        task.add_done_callback(self.tasks.pop)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await self._leave(sub, task)
            raise
        if self.closed:
            self._tell_left(sub, task)
            self._check_open()
        return task.result()

    def _check_open(self) -> None:
        if self.closed:
            raise closed_error()

    async def _leave(self, sub: Submission, task: asyncio.Task[Snapshot | Job]) -> None:
        try:
            await self._let_ids_come({task: sub})
        finally:
            await asyncio.gather(task, return_exceptions=True)
            self._tell_left(sub, task)

    async def _let_ids_come(self, calls: Mapping[asyncio.Task[Snapshot | Job], Submission]) -> None:
        """End these calls; one whose answer is on its way gets a moment for it."""
        for task, sub in calls.items():
            sub.leaving = True
            if not sub.sending:
                task.cancel()
        try:
            if calls:
                await asyncio.wait(calls, timeout=self.grace())
        finally:
            for task in calls:
                task.cancel()

    def _tell_left(self, sub: Submission, task: asyncio.Task[Snapshot | Job]) -> None:
        outcome = None if task.cancelled() or not task.done() else task.result()
        if isinstance(outcome, Snapshot):
            self.unwatched(sub)
            self.left(make_job(outcome.id, outcome.status, None, outcome, sub))
        elif isinstance(outcome, Job):
            if isinstance(outcome.error, InDoubt):
                self.left(outcome)
        elif sub.attempts:
            self.left(self.unanswered(sub))

    def unanswered(self, sub: Submission) -> Job:
        """What is known of a submission that was on its way when it had to be let go."""
        error = InDoubt(
            "sent, and left before an answer came. A job may exist and be billed; its id is unknown: sending it again"
            " under this same key cannot pay twice where the server honours keys"
        )
        return make_job("", JobStatus.IN_DOUBT, error, None, sub)

    async def _not_accepted(self, sub: Submission, error: AiopplxError) -> Job:
        if isinstance(error, InDoubt):
            status = JobStatus.IN_DOUBT
        elif isinstance(error, (BudgetReached, JournalError, type(self.client.gate.stop))):
            status = JobStatus.STOPPED
        else:
            status = JobStatus.REJECTED
        job = make_job("", status, error, None, sub)
        await self._write(sub, job)
        self._count(sub, job)
        self._tell_finished(job)
        return job

    def stop_of(self, job: Job) -> AiopplxError | None:
        """The session-wide error behind a STOPPED job."""
        stop = job.error if isinstance(job.error, JournalError) else self.client.gate.stop or job.error
        return stop.about() if stop is not None else None

    def _tell_finished(self, job: Job) -> None:
        if not self.client.listened():
            return
        self.client.tell(
            Event(
                kind=EventKind.FINISHED,
                job_id=job.id,
                idempotency_key=job.idempotency_key,
                tag=job.tag,
                index=job.index,
                status=job.status,
                cost=job.cost,
                reason=job.error.message if job.error else "",
            )
        )

    def _warn_of_model(self, sub: Submission, snapshot: Snapshot) -> None:
        asked = sub.request.asked_model if sub.request is not None and sub.api.echoes_model else None
        if asked and snapshot.model and asked != snapshot.model:
            reason = f"asked for model {asked[:80]!r}, the server says {snapshot.model[:80]!r}"
            self.client.tell(self._event(EventKind.WARNING, sub, job_id=snapshot.id, reason=reason))

    def _event(
        self,
        kind: EventKind,
        sub: Submission,
        *,
        job_id: str = "",
        status: JobStatus | None = None,
        reason: str = "",
    ) -> Event:
        return Event(
            kind=kind,
            job_id=job_id,
            idempotency_key=sub.key,
            tag=sub.tag,
            index=sub.index,
            status=status,
            attempt=sub.attempts,
            reason=reason,
        )

    # --- watching ----------------------------------------------------------------------------------------------------

    def watch_of(self, sub: Submission, snapshot: Snapshot, sink: Sink) -> Watch:
        """A watch on a job that was just accepted, or was found to be running from an earlier run."""
        return Watch(
            sink,
            sub.api,
            snapshot.id,
            sub.api.get(snapshot.id),
            sub,
            accepted_at=self.client.clock.now(),
            deadline=sub.deadline,
            fresh=not sub.job_id,
        )

    def watch(self, watch: Watch) -> None:
        """Look at a job until it ends. One of an earlier run may have ended long ago: it is looked at at once."""
        self.poller.watch(watch)
        if not watch.fresh:
            self.poller.look_now(watch)

    def release(self, watch: Watch) -> None:
        """A job no longer counts as in flight: it ended, was dropped, or waits for its consumer."""
        if watch.holds_slot:
            watch.holds_slot = False
            self.slots.release()

    def known(self, job_id: str) -> tuple[str, str | int | None]:
        """Key and tag under which a job was submitted in this session; `("", None)` if it was not."""
        return self._known.get(job_id, ("", None))

    def _remember(self, job_id: str, sub: Submission) -> None:
        self._known[job_id] = (sub.key, sub.tag)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    # --- leaving -----------------------------------------------------------------------------------------------------

    def grace(self) -> float:
        """Real seconds for which leaving waits for an id that is on its way."""
        return self.client.policy.leave_grace / self.client.clock.speed

    def left(self, job: Job) -> None:
        """Tell of a job that nobody here waits for any more."""
        self.client.tell(
            Event(
                kind=EventKind.LEFT,
                job_id=job.id,
                idempotency_key=job.idempotency_key,
                tag=job.tag,
                index=job.index,
                status=job.status,
                reason="goes on, and is billed, at the service"
                if job.id
                else "may exist, and be billed, at the service",
            )
        )

    async def cancel_all(self, jobs: Sequence[Job], ending: set[str]) -> None:
        """Ask the server to cancel what still runs, where its API can; within `CANCEL_SECONDS` in all.

        The ids of those of which it said that it will go into `ending`, one by one: there may be no time for the last.
        """
        running = [(job, self.api_of(job.id, job.api)) for job in jobs if job.id and not job.done]
        calls = [self._cancel(job, api, ending) for job, api in running if api.has_cancel]
        # No cancel scope of anyio's: it knows its own cancellation by a word on it, which `gather` loses where a call
        # ends at the same moment, and what is left would look like a cancellation by the user.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS / self.client.clock.speed):
                await asyncio.gather(*calls)

    async def _cancel(self, job: Job, api: API, ending: set[str]) -> None:
        try:
            await self.client.call(api.cancel(job.id), api.read_cancel)
        except AiopplxError as error:
            reason = f"not cancelled: {error.message}"
            self.client.tell(Event(kind=EventKind.WARNING, job_id=job.id, tag=job.tag, reason=reason))
        else:
            ending.add(job.id)
            self.client.tell(Event(kind=EventKind.CANCELLING, job_id=job.id, tag=job.tag, index=job.index))

    def stopped(self) -> None:
        """Nothing more is submitted: tell everybody who waits. If looks are refused too, waiting is of no use."""
        for batch in list(self.batches):
            batch.wake()
        gate = self.client.gate
        if gate.looks_refused and gate.stop is not None:
            for waiter in list(self.waiters):
                waiter.fail(gate.stop)

    async def aclose(self) -> None:
        """End everything that runs: batches, calls, looks. Whoever waits gets `closed_error`."""
        self.closed = True
        for waiter in list(self.waiters):
            waiter.fail(closed_error())
        looks = self.poller.close()
        calls = dict(self.tasks)
        await asyncio.gather(self._let_ids_come(calls), *(batch.aclose() for batch in list(self.batches)))
        await asyncio.gather(*looks, *calls, return_exceptions=True)


def closed_error() -> ConfigError:
    """What a call gets whose session is closed while it waits."""
    return ConfigError("the session was closed while this call waited; a job that it made goes on at the service")


def _unexpected(sub: Submission, error: Exception) -> AiopplxError:
    why = f"submitting failed unexpectedly: {type(error).__name__}"
    return InDoubt(f"{why}. A job may exist and be billed; its id is unknown") if sub.attempts else ProtocolError(why)


def _two_keys_one_id(job_id: str, other: str) -> InDoubt:
    return InDoubt(
        f"the server gave the id of another submission (key {other}) to this one: whether this one made a job, and"
        " which, is unknown. Nothing was overwritten",
        job_id=job_id,
    )
