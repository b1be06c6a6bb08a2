"""The session's one poller: sends a poll when a job is due, and reports what it brought.

It is no task but a timer: a synchronous step decides which polls leave now, and each of these is a short task. There is
nothing to supervise, cancel or restart. Its unit is a poll, which may answer for many jobs; a GET of one job is the
case of one. It never raises and never waits for a consumer: a submission none of whose listeners has room is not
polled, and its result waits at the server.

This module knows nothing of batches, stores, budgets, or what a poll means (`_policy.polling`).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from aiopplx._events import EventKind
from aiopplx._http.client import Client, Failed
from aiopplx._http.clock import Timer
from aiopplx._job import JobStatus, Snapshot
from aiopplx._policy.pace import Bucket
from aiopplx._policy.polling import Ended, PollPolicy, Polls, Schedule
from aiopplx._submission import Submission
from aiopplx._wire.call import Call, Lane, Reply

logger = logging.getLogger("aiopplx")

POLLS_AT_ONCE = 32
GRACE = 60.0
"""Seconds in which a failed poll is nobody's last: after the machine slept, or after a job waited for its consumer. The
network may need a moment, and the job did not stand still."""
HELD = 1.0
"""Seconds after which it is asked again whether polls may leave, where they may not."""


class Sink(Protocol):
    """Who is told what polls bring: the lifecycle."""

    def may_poll(self, sub: Submission) -> bool:
        """Has any listener room for the outcome? If not, the poller forgets it until `unpark`."""
        ...

    def polled(self, sub: Submission) -> None:
        """A poll ended and the job runs on."""
        ...

    def time_out(self, sub: Submission, now: float, why: str, snapshot: Snapshot | None) -> bool:
        """Those listeners whose time is up stop waiting. Returns whether anybody still waits."""
        ...

    async def finish(self, sub: Submission, ended: Ended, snapshot: Snapshot | None) -> bool:
        """It ended. Returns False if that could not be written yet: the outcome stays at the server."""
        ...

    def fail(self, sub: Submission, problem: Exception) -> None:
        """A fault of this library's own: the listeners must hear of it."""
        ...


class Poll(Protocol):
    """One request, and the jobs that it may answer for."""

    @property
    def call(self) -> Call:
        """The request."""
        ...

    @property
    def subs(self) -> Sequence[Submission]:
        """The jobs that are due and that it may answer for."""
        ...

    def read(self, reply: Reply) -> Mapping[str, Snapshot]:
        """A 200 as snapshots by job id. A job that is missing was not spoken of. Raises `ProtocolError`."""
        ...


class JobPoll:
    """A GET of one job."""

    __slots__ = ("call", "subs")

    def __init__(self, sub: Submission) -> None:
        assert sub.call is not None, "a submission that is polled has its call"  # noqa: S101 - for mypy
        self.call: Call = sub.call
        self.subs: Sequence[Submission] = (sub,)

    def read(self, reply: Reply) -> Mapping[str, Snapshot]:
        """See `Poll`."""
        sub = self.subs[0]
        return {sub.job_id: sub.api.read_job(reply, sub.job_id)}


class Poller:
    """Polls submissions from `watch` until `forget`; what polls bring goes to the sink.

    Args:
        client: sends the polls.
        policy: when to poll, and what a poll means.
        sink: is told.
    """

    def __init__(self, client: Client, policy: PollPolicy, sink: Sink) -> None:
        self._client = client
        self._clock = client.clock
        self._policy = policy
        self._sink = sink
        self._budget = Bucket(policy.budget) if policy.budget is not None else None
        self._schedule: Schedule[Submission] = Schedule()
        self._deadlines: Schedule[Submission] = Schedule()
        self._out: dict[Submission, Poll] = {}
        self._running: dict[Poll, asyncio.Task[None]] = {}
        self._unparked: dict[Submission, float] = {}
        self._timer: Timer | None = None
        self._armed_for = 0.0
        self._is_held_back = False
        self._grace_until = 0.0
        self._closed = False

    # --- what is polled ----------------------------------------------------------------------------------------------

    def watch(self, sub: Submission, *, after: float | None = None) -> None:
        """Poll this job until it ends or is forgotten.

        Args:
            sub: RUNNING or REFETCHING, with `polls`.
            after: seconds until the first poll; None leaves that to the policy.
        """
        self.bound(sub)
        now = self._clock.now()
        if after is None:
            self._put_by_rule(sub, now)
        else:
            self._put(sub, now + after)

    def bound(self, sub: Submission) -> None:
        """Its listeners changed: the first of their deadlines is when the next one stops waiting."""
        deadline = sub.first_deadline
        if deadline == math.inf:
            self._deadlines.remove(sub)
            return
        self._deadlines.put(sub, deadline)
        if deadline < self._armed_for:
            self._arm()

    def joined(self, sub: Submission) -> None:
        """A listener was added. It has room, so a job that was parked is due at once."""
        self.bound(sub)
        if sub not in self._out and sub not in self._schedule:
            self._put(sub, self._clock.now())

    def poll_now(self, sub: Submission) -> None:
        """Poll out of turn, unless a poll is out: it will tell as much."""
        if sub not in self._out:
            self._put(sub, self._clock.now())

    def unpark(self, sub: Submission) -> None:
        """A listener has room again: the job is due at once, and a failed poll is not its last for a moment."""
        if sub in self._out:
            return
        now = self._clock.now()
        self._unparked[sub] = now + GRACE
        self._put(sub, now)

    def forget(self, sub: Submission) -> asyncio.Task[None] | None:
        """Poll it no more. Returns its poll if that was out for it alone, cancelled, to be waited for."""
        self._schedule.remove(sub)
        self._deadlines.remove(sub)
        if self._unparked:
            self._unparked.pop(sub, None)
        poll = self._out.pop(sub, None)
        if poll is None or (len(poll.subs) > 1 and any(other in self._out for other in poll.subs)):
            return None
        task = self._running.get(poll)
        if task is None or task is asyncio.current_task():
            return None
        task.cancel()
        # Nobody else says so if the task never began.
        self._client.gate.back(self._clock.now())
        self._ended(poll)
        return task

    def ended(self, sub: Submission) -> None:
        """Its own poll found its end: nothing of it is waited for any more, and its poll goes on to the next job."""
        self._deadlines.remove(sub)
        self._out.pop(sub, None)
        if self._unparked:
            self._unparked.pop(sub, None)

    def close(self) -> list[asyncio.Task[None]]:
        """Poll nothing any more. Returns the polls that were out, cancelled, to be waited for."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        forgotten = [self.forget(sub) for sub in list(self._out)]
        return [task for task in forgotten if task is not None]

    # --- the step ----------------------------------------------------------------------------------------------------

    def _put(self, sub: Submission, due: float) -> None:
        if self._closed:
            return
        self._schedule.put(sub, due)
        if self._timer is None or due < self._armed_for:
            self._arm()

    def _put_by_rule(self, sub: Submission, now: float) -> None:
        polls = sub.polls
        assert polls is not None, "a submission that is polled has its counters"  # noqa: S101 - for mypy
        try:
            gap = self._policy.next_gap(polls.running(now), self._client.random())
        except Exception as error:  # a caller's own rule: its mistake must not cost a job that is paid for
            self._policy = self._policy.without_rule()
            logger.exception("the poll rule failed; the default one goes on in its place")
            reason = f"the poll rule failed ({type(error).__name__}); the default one goes on in its place"
            self._client.emit(sub.event(EventKind.WARNING, reason=reason))
            gap = self._policy.gap
        self._put(sub, now + gap)

    def _arm(self) -> None:
        """Set the timer for whatever comes first; leave it if it is set for that already."""
        if self._closed:
            return
        now, tick = self._clock.now(), self._clock.tick
        if self._timer is not None and self._armed_for <= now + tick:
            return
        due = self._next_moment(now)
        if due is None:
            return
        due = max(due, now + tick)
        if self._timer is not None:
            if self._armed_for <= due + tick:
                return
            self._timer.cancel()
        self._armed_for = due
        self._timer = self._clock.call_at(due, self._step)

    def _next_moment(self, now: float) -> float | None:
        moment = self._deadlines.next_due()
        if len(self._running) < POLLS_AT_ONCE:
            due = self._schedule.next_due()
            if due is not None:
                # No longer than this: a submission whose probe succeeds opens the gate without a word to anybody here.
                held_back = min(self._held_back(now), HELD)
                self._is_held_back = held_back > 0.0
                due = max(due, now + held_back)
                if moment is None or due < moment:
                    moment = due
        return moment

    def _held_back(self, now: float) -> float:
        budget = self._budget.delay(now) if self._budget is not None else 0.0
        return max(self._client.gate.delay(Lane.POLL, now), budget)

    def _step(self) -> None:
        self._timer = None
        now = self._clock.now()
        if now - self._armed_for > self._clock.suspension:
            self._grace_until = now + GRACE
        while (sub := self._deadlines.pop(now)) is not None:
            self._overdue(sub, now)
        self._start_due(now)
        self._arm()

    def _start_due(self, now: float) -> None:
        while len(self._running) < POLLS_AT_ONCE and self._held_back(now) <= 0.0:
            sub = self._schedule.pop(now)
            if sub is None:
                break
            if self._sink.may_poll(sub):
                self._start(JobPoll(sub), now)

    def _overdue(self, sub: Submission, now: float) -> None:
        """A listener's time is up: one last poll decides, unless none may leave."""
        if sub not in self._schedule:
            return  # a poll is out, or there is no room for the outcome: either ends in a poll that sees the deadline
        if self._client.gate.delay(Lane.POLL, now) > 0.0 and now >= self._grace_until:
            self._time_out(sub, now, "no request may leave at the moment", None)
        else:
            self._schedule.put(sub, now)

    # --- one poll ----------------------------------------------------------------------------------------------------

    def _start(self, poll: Poll, now: float) -> None:
        self._client.gate.leave(Lane.POLL, now)
        if self._budget is not None:
            self._budget.leave(now)
        for sub in poll.subs:
            self._out[sub] = poll
        self._running[poll] = asyncio.get_running_loop().create_task(self._run(poll))

    async def _run(self, poll: Poll) -> None:
        try:
            result = await self._client.attempt(poll.call, poll.read)
            now = self._clock.now()
            for sub in poll.subs:
                if sub not in self._out:
                    continue  # forgotten while its poll was out
                if isinstance(result, Failed):
                    await self._failed(sub, result, now)
                else:
                    await self._answered(sub, result.get(sub.job_id), now)
                self._out.pop(sub, None)
        except Exception as problem:
            self._broke(poll, problem)
        finally:
            self._ended(poll)

    def _broke(self, poll: Poll, problem: Exception) -> None:
        """A fault of ours. One bad poll must not end those of other jobs, and nobody may wait for ever."""
        logger.exception("a poll of job %s failed unexpectedly", ", ".join(sub.job_id for sub in poll.subs))
        for sub in poll.subs:
            if self._out.pop(sub, None) is not None:
                self._sink.fail(sub, problem)

    def _ended(self, poll: Poll) -> None:
        """A poll is over, or was cancelled, perhaps before it began."""
        was_full = len(self._running) >= POLLS_AT_ONCE
        if self._running.pop(poll, None) is None or self._closed:
            return
        if was_full:
            self._start_due(self._clock.now())  # one that was due and had to wait for this one's place
        # Otherwise the timer is set for whatever is due next: putting it on the schedule did that.
        if was_full or self._is_held_back or self._timer is None:
            self._arm()

    # --- what a poll brought -----------------------------------------------------------------------------------------

    async def _answered(self, sub: Submission, snapshot: Snapshot | None, now: float) -> None:
        if snapshot is None:
            self._sink.polled(sub)
            self._put_by_rule(sub, now)
            return
        polls = sub.polls
        assert polls is not None, "a submission that is polled has its counters"  # noqa: S101 - for mypy
        is_overdue = now >= sub.first_deadline
        verdict = polls.answered(self._policy, snapshot, is_last=is_overdue and now >= sub.last_deadline)
        if isinstance(verdict, Ended):
            await self._finish(sub, verdict, snapshot)
            return
        if verdict is not None:
            self._sink.polled(sub)
            if not is_overdue or self._time_out(sub, now, f"the server says {snapshot.server_status}", snapshot):
                self._put(sub, now + verdict.delay)
            return
        self._unparked.pop(sub, None)
        if self._client.has_handlers():
            self._client.emit(sub.event(EventKind.POLLED, status=snapshot.status))
        if snapshot.status is JobStatus.IN_PROGRESS and snapshot.server_status != "IN_PROGRESS" and not polls.warned:
            self._warn_of_unknown(sub, polls, snapshot)
        self._sink.polled(sub)
        if not is_overdue or self._time_out(sub, now, f"the server says {snapshot.server_status}", snapshot):
            self._put_by_rule(sub, now)

    async def _failed(self, sub: Submission, failed: Failed, now: float) -> None:
        error = failed.error
        client = self._client
        is_overdue = now >= sub.first_deadline and now >= max(self._grace_until, self._unparked.get(sub, 0.0))
        verdict = _polls(sub).failed(
            self._policy,
            client.policy,
            failed.fault,
            error,
            now,
            client.random(),
            is_last=is_overdue and now >= sub.last_deadline,
            is_survived=sub.call is not None and client.is_survived(error, sub.call),
        )
        if isinstance(verdict, Ended):
            await self._finish(sub, verdict, None)
            return
        if is_overdue and not self._time_out(sub, now, f"the last poll failed: {error.message}", None):
            return
        delay = max(verdict.delay, client.gate.silence(now))
        client.emit(sub.event(EventKind.POLL_FAILED, delay=delay, reason=error.message, fault=failed.fault.value))
        self._sink.polled(sub)
        self._put(sub, now + delay)

    def _time_out(self, sub: Submission, now: float, why: str, snapshot: Snapshot | None) -> bool:
        """Those listeners whose time is up stop waiting. Returns whether anybody goes on."""
        if not self._sink.time_out(sub, now, why, snapshot):
            return False
        self.bound(sub)
        return True

    async def _finish(self, sub: Submission, ended: Ended, snapshot: Snapshot | None) -> None:
        if not await self._sink.finish(sub, ended, snapshot):
            self._sink.polled(sub)
            self._put(sub, self._clock.now() + self._policy.refused_pause)

    def _warn_of_unknown(self, sub: Submission, polls: Polls, snapshot: Snapshot) -> None:
        if snapshot.server_status.upper() not in ("IN_PROGRESS", "REQUIRES_ACTION"):
            polls.warned = True
            reason = f"unknown status {snapshot.server_status[:40]!r}: taken as still running"
            self._client.emit(sub.event(EventKind.WARNING, reason=reason))


def _polls(sub: Submission) -> Polls:
    assert sub.polls is not None, "a submission that is polled has its counters"  # noqa: S101 - for mypy
    return sub.polls
