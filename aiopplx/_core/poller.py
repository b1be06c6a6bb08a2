"""The session's one poller: looks at every running job when it is due, and says what came of it.

It is no task but a timer: a synchronous step decides which looks leave now, and each of these is a short task. It never
raises and never waits for a consumer; a sink without room is not polled for. This module knows nothing of batches,
submissions' retries or what a session is.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

import msgspec

from aiopplx._core.watch import Watch, make_job, outcome_error
from aiopplx._errors import (
    AiopplxError,
    JobExpired,
    JobTimeout,
    NotFound,
    ProtocolError,
    ResponseTooLarge,
)
from aiopplx._events import Event, EventKind
from aiopplx._http.client import Client, Failed
from aiopplx._http.clock import Timer
from aiopplx._job import Job, JobStatus, Snapshot
from aiopplx._policy.gate import Bucket
from aiopplx._policy.polling import Look, PollPolicy, PollRule, Schedule, next_gap
from aiopplx._policy.retry import Fault
from aiopplx._submission import Submission
from aiopplx._wire.call import Lane
from aiopplx.journal._protocol import JournalBroken, JournalError, JournalFull

logger = logging.getLogger("aiopplx")

LOOKS_AT_ONCE = 32
# A timer that is late by `clock.suspension` means that the machine was suspended. The network may need a moment then,
# and the jobs did not stand still: for so many seconds a failed look is not the last one.
GRACE = 60.0
SHORT_RECHECK = 5.0
# Where nothing may leave, it is asked again after so long whether anything may.
HELD = 1.0


Write = Callable[[Submission | None, Job], Awaitable[None]]


class End(msgspec.Struct, frozen=True):
    """What came of a job in the end."""

    status: JobStatus
    error: AiopplxError | None
    snapshot: Snapshot | None = None


class Poller:
    """Watches jobs. `watch` and `drop` are all there is to it; results come out through each watch's sink.

    Args:
        client: makes the looks.
        rule: when to look at a job.
        release: gives a watch's in-flight slot back.
        write: puts an outcome on disk, before it is handed to the sink.
        ended: is told of each outcome, and of what is watched no longer, for those who count.
    """

    def __init__(
        self,
        client: Client,
        rule: PollRule,
        release: Callable[[Watch], None],
        *,
        write: Write | None = None,
        ended: Callable[[Submission | None, Job], None] | None = None,
    ) -> None:
        self._client = client
        self._rule = rule
        self._jitter = rule.jitter if isinstance(rule, PollPolicy) else 0.0
        budget = rule.budget if isinstance(rule, PollPolicy) else None
        self._budget = Bucket(budget) if budget is not None else None
        self._release = release
        self._write = write
        self._tell_ended = ended
        self._schedule: Schedule[Watch] = Schedule()
        self._deadlines: Schedule[Watch] = Schedule()
        self._looking: set[Watch] = set()
        self._timer: Timer | None = None
        self._armed_for = 0.0
        self._is_held_back = False
        self._grace_until = 0.0
        self._closed = False

    def watch(self, watch: Watch) -> None:
        """Look at this job until something comes of it."""
        if watch.deadline != math.inf:
            self._deadlines.put(watch, watch.deadline)
        self._look_later(watch, self._client.clock.now())
        if watch.deadline < self._armed_for:
            self._arm()

    def unpark(self, watch: Watch) -> None:
        """There is room again: the job is due at once. If its time ran out meanwhile, that was not its own doing."""
        now = self._client.clock.now()
        watch.grace_until = now + GRACE
        self._put(watch, now)

    def look_now(self, watch: Watch) -> None:
        """Look out of turn, if the job is waiting for its turn."""
        if watch in self._schedule:
            self._put(watch, self._client.clock.now())

    def drop(self, watches: list[Watch]) -> list[asyncio.Task[None]]:
        """Forget these jobs. Returns the looks that were out, cancelled, to be waited for."""
        tasks: list[asyncio.Task[None]] = []
        for watch in watches:
            self._schedule.remove(watch)
            self._deadlines.remove(watch)
            self._release(watch)
            if self._tell_ended is not None:
                self._tell_ended(watch.sub, self._job(watch, End(JobStatus.IN_PROGRESS, None)))
            if watch.task is not None:
                watch.task.cancel()
                tasks.append(watch.task)
                # Nobody else says so if it never began.
                self._client.gate.back(self._client.clock.now())
                self._forget_look(watch)
        self._arm()
        return tasks

    def close(self) -> list[asyncio.Task[None]]:
        """Forget everything. Returns the looks that were out, cancelled, to be waited for."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return self.drop(list(self._looking))

    # --- the step ----------------------------------------------------------------------------------------------------

    def _put(self, watch: Watch, due: float) -> None:
        if self._closed:
            return
        self._schedule.put(watch, due)
        if self._timer is None or due < self._armed_for:
            self._arm()

    def _arm(self) -> None:
        """Set the timer for whatever comes first; leave it if it is set for that already."""
        if self._closed:
            return
        clock = self._client.clock
        now = clock.now()
        if self._timer is not None and self._armed_for <= now + clock.tick:
            return
        moments = [self._deadlines.next_due()]
        if len(self._looking) < LOOKS_AT_ONCE:
            due = self._schedule.next_due()
            if due is not None:
                # No longer than this: a submission whose probe succeeds opens the gate without a word to anybody here.
                held_back = min(self._held_back(now), HELD)
                self._is_held_back = held_back > 0.0
                moments.append(max(due, now + held_back))
        due = min((moment for moment in moments if moment is not None), default=None)
        if due is None:
            return
        due = max(due, now + clock.tick)
        if self._timer is not None:
            if self._armed_for <= due + clock.tick:
                return
            self._timer.cancel()
        self._armed_for = due
        self._timer = clock.call_at(due, self._step)

    def _held_back(self, now: float) -> float:
        budget = self._budget.delay(now) if self._budget is not None else 0.0
        return max(self._client.gate.delay(Lane.POLL, now), budget)

    def _step(self) -> None:
        self._timer = None
        now = self._client.clock.now()
        if now - self._armed_for > self._client.clock.suspension:
            self._grace_until = now + GRACE
        while (watch := self._deadlines.pop(now)) is not None:
            self._overdue(watch, now)
        self._start_due(now)
        self._arm()

    def _start_due(self, now: float) -> None:
        while len(self._looking) < LOOKS_AT_ONCE and self._held_back(now) <= 0.0:
            watch = self._schedule.pop(now)
            if watch is None:
                break
            if watch.sink.may_look(watch):
                self._start(watch, now)
            else:
                self._release(watch)

    def _overdue(self, watch: Watch, now: float) -> None:
        """The deadline has come: one last look decides, unless none may leave."""
        if watch not in self._schedule:
            return  # a look is out, or there is no room for the result: either ends in a look that sees the deadline
        if self._client.gate.delay(Lane.POLL, now) > 0.0 and now >= self._grace_until:
            self._schedule.remove(watch)
            self._finish(watch, self._job(watch, _timed_out("no request may leave at the moment")))
        else:
            self._schedule.put(watch, now)

    def _is_overdue(self, watch: Watch, now: float) -> bool:
        """May a look that failed be the last one?"""
        return now >= watch.deadline and now >= self._grace_until and now >= watch.grace_until

    def _start(self, watch: Watch, now: float) -> None:
        self._looking.add(watch)
        self._client.gate.leave(Lane.POLL, now)
        if self._budget is not None:
            self._budget.leave(now)
        watch.task = asyncio.get_running_loop().create_task(self._look(watch))

    async def _look(self, watch: Watch) -> None:
        try:
            result = await self._client.attempt(watch.call, watch.read)
            watch.looks += 1
            now = self._client.clock.now()
            if isinstance(result, Failed):
                end = self._look_failed(watch, result, now)
            else:
                end = self._looked(watch, result, now)
            if end is not None:
                job = self._job(watch, end)
                if self._write is None or await self._is_written(self._write, watch, job):
                    self._finish(watch, job)
        except Exception as problem:
            # A fault of ours. One job's bad look must not end the others'.
            logger.exception("a look at job %s failed unexpectedly", watch.job_id)
            why = f"looking at the job failed unexpectedly: {type(problem).__name__}: {problem}"
            self._finish(watch, self._job(watch, End(JobStatus.UNREADABLE, ProtocolError(why))))
        finally:
            was_full = len(self._looking) >= LOOKS_AT_ONCE
            self._forget_look(watch)
            if was_full and not self._closed:
                self._start_due(self._client.clock.now())  # one that was due and had to wait for this one's place
                self._arm()

    def _forget_look(self, watch: Watch) -> None:
        """A look is over, or was cancelled, perhaps before it began."""
        watch.task = None
        self._looking.discard(watch)
        # Otherwise the timer is set for whatever is due next: putting it on the schedule did that.
        if self._is_held_back or self._timer is None:
            self._arm()

    # --- what a look brought -----------------------------------------------------------------------------------------

    def _looked(self, watch: Watch, snapshot: Snapshot, now: float) -> End | None:
        watch.errors = watch.unreadable = 0
        watch.missing = False
        watch.server_status, watch.model = snapshot.server_status, snapshot.model
        policy = self._client.policy
        status = snapshot.status
        if snapshot.is_empty and watch.empty < policy.empty_looks and now < watch.deadline:
            watch.empty += 1
            self._again(watch, now, policy.empty_seconds / policy.empty_looks)
        elif status.is_final:
            return End(status, outcome_error(snapshot), snapshot)
        elif now >= watch.deadline:
            return _timed_out(f"the server says {snapshot.server_status}", snapshot)
        else:
            if status is JobStatus.IN_PROGRESS and not watch.warned and snapshot.server_status != "IN_PROGRESS":
                self._warn_of_unknown(watch, snapshot)
            if self._client.listened():
                self._client.tell(self._event(watch, EventKind.POLLED, status=status))
            watch.sink.looked(watch)
            self._look_later(watch, now)
        return None

    def _look_failed(self, watch: Watch, failed: Failed, now: float) -> End | None:
        policy = self._client.policy
        watch.errors += 1
        delay = max(policy.delay(failed.fault, watch.errors, self._client.random()), self._client.gate.silence(now))
        error = failed.error
        if isinstance(error, NotFound):
            if watch.missing or self._is_overdue(watch, now):
                return End(JobStatus.EXPIRED, _expired(error))
            delay = self._after_missing(watch, now)
        elif failed.fault is Fault.STOP:
            delay = policy.refused_look
            if self._client.is_survived(error, watch.call) and self._is_unreadable(watch, now):
                return End(JobStatus.UNREADABLE, error)
        elif isinstance(error, ResponseTooLarge):
            return End(JobStatus.UNREADABLE, error)
        elif isinstance(error, ProtocolError) or failed.fault is Fault.REFUSED:
            if self._is_unreadable(watch, now):
                return End(JobStatus.UNREADABLE, error)
        else:
            watch.unreadable = 0
        if self._is_overdue(watch, now):
            return _timed_out(f"the last look failed: {error.message}")
        self._client.tell(
            self._event(watch, EventKind.POLL_FAILED, delay=delay, reason=error.message, fault=failed.fault.value)
        )
        self._again(watch, now, delay)
        return None

    def _after_missing(self, watch: Watch, now: float) -> float:
        """A 404: the server's own delay at first, then asked once more and believed."""
        policy = self._client.policy
        if watch.fresh and now - watch.accepted_at < policy.missing_grace:
            return policy.delay(Fault.POLL, watch.errors, self._client.random())
        watch.missing = True
        return policy.missing_recheck if watch.fresh or watch.looks > 1 else SHORT_RECHECK

    def _is_unreadable(self, watch: Watch, now: float) -> bool:
        if not watch.unreadable:
            watch.unreadable_since = now
        watch.unreadable += 1
        policy = self._client.policy
        return watch.unreadable >= policy.unreadable_looks and now - watch.unreadable_since >= policy.unreadable_seconds

    def _look_later(self, watch: Watch, now: float) -> None:
        look = Look(age=now - watch.accepted_at, looks=watch.looks, status=watch.server_status, model=watch.model)
        try:
            gap = next_gap(self._rule, look, self._jitter, self._client.random())
        except Exception as error:  # a user's own rule: its mistake must not cost a job that is paid for
            self._rule = PollPolicy()
            logger.exception("the poll rule failed; the default one goes on in its place")
            reason = f"the poll rule failed ({type(error).__name__}); the default one goes on in its place"
            self._client.tell(self._event(watch, EventKind.WARNING, reason=reason))
            gap = self._rule.gap
        self._put(watch, now + gap)

    def _again(self, watch: Watch, now: float, delay: float) -> None:
        watch.sink.looked(watch)
        self._put(watch, now + delay)

    # --- the end of a watch ------------------------------------------------------------------------------------------

    def _job(self, watch: Watch, end: End) -> Job:
        return make_job(
            watch.job_id, end.status, end.error, end.snapshot, watch.sub, looks=watch.looks, api=watch.api.name
        )

    async def _is_written(self, write: Write, watch: Watch, job: Job) -> bool:
        """The outcome goes to disk, then to the sink; where it cannot be written yet it stays at the server."""
        try:
            await write(watch.sub, job)
        except JournalError as error:
            self._client.tell(self._event(watch, EventKind.WARNING, reason=f"not kept: {error.message}"))
            if _may_be_written_later(error):
                self._again(watch, self._client.clock.now(), self._client.policy.refused_look)
                return False
            if watch.sub is not None:
                watch.sub.claim = None  # what it is handed out as is all there is
        return True

    def _finish(self, watch: Watch, job: Job) -> None:
        self._schedule.remove(watch)
        self._deadlines.remove(watch)
        self._release(watch)
        if self._tell_ended is not None:
            self._tell_ended(watch.sub, job)
        if self._client.listened():
            why = job.error.message if job.error is not None else ""
            self._client.tell(self._event(watch, EventKind.FINISHED, status=job.status, cost=job.cost, reason=why))
        watch.sink.done(watch, job)

    def _warn_of_unknown(self, watch: Watch, snapshot: Snapshot) -> None:
        if snapshot.server_status.upper() not in ("IN_PROGRESS", "REQUIRES_ACTION"):
            watch.warned = True
            reason = f"unknown status {snapshot.server_status[:40]!r}: taken as still running"
            self._client.tell(self._event(watch, EventKind.WARNING, reason=reason))

    def _event(
        self,
        watch: Watch,
        kind: EventKind,
        *,
        status: JobStatus | None = None,
        delay: float = 0.0,
        cost: float | None = None,
        reason: str = "",
        fault: str = "",
    ) -> Event:
        sub = watch.sub
        return Event(
            kind=kind,
            job_id=watch.job_id,
            idempotency_key=sub.key if sub else "",
            tag=sub.tag if sub else None,
            index=sub.index if sub else None,
            status=status,
            looks=watch.looks,
            delay=delay,
            cost=cost,
            reason=reason,
            fault=fault,
        )


def _may_be_written_later(error: JournalError) -> bool:
    """A full disk is made room on. What can never be written is handed out as it is, or it would wait for ever."""
    return isinstance(error, JournalFull) or (isinstance(error, JournalBroken) and not error.is_final)


def _timed_out(why: str, snapshot: Snapshot | None = None) -> End:
    error = JobTimeout(
        f"still not finished at its time limit ({why}). The job goes on, and is billed, at the service:"
        " session.wait(job.id) takes it up again"
    )
    return End(JobStatus.TIMED_OUT, error, snapshot)


def _expired(error: NotFound) -> JobExpired:
    return JobExpired(
        f"the server does not know this job ({error.message}): a wrong id, another account's, or older than the 7 days"
        " for which results are kept. Nothing was submitted again",
        status=error.status,
        type=error.type,
        request_id=error.request_id,
    )
