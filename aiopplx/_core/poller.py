"""The session's one poller: sends a poll when a job is due, and reports what it brought.

It is a timer, not a task: a synchronous step decides which polls leave now, and each of these is a short task. There is
nothing to supervise, cancel or restart. It never raises and never waits for a consumer: a submission none of whose
listeners has room is not polled, and its result waits at the server.

A poll is a GET of one job. Where an API has a list, pages of it tell of many jobs at once (`pages`): a job of which a
page has told is not polled by itself for a while, and one that has ended by its word is due at once.

Durations are learned here, because every poll passes through here: a law for each kind of job (`_policy.laws`).

This module knows nothing of batches, stores, budgets, or what a poll means (`_policy.polling`).
"""

from __future__ import annotations

import asyncio
import logging
import math
from functools import partial
from typing import Protocol

from aiopplx._core.pages import Pages
from aiopplx._events import EventKind, log
from aiopplx._http.apart import has_not_begun
from aiopplx._http.client import Client, Failed
from aiopplx._http.clock import Timer
from aiopplx._job import JobStatus, Snapshot
from aiopplx._policy.durations import PRICE, longest_gap
from aiopplx._policy.laws import Laws
from aiopplx._policy.pace import Bucket
from aiopplx._policy.paging import BEYOND
from aiopplx._policy.polling import (
    GRACE,
    Ended,
    PollPolicy,
    Polls,
    Schedule,
    is_decisive,
    is_hopeless,
)
from aiopplx._policy.turns import OVERDUE
from aiopplx._submission import Submission
from aiopplx._wire.call import Call, Lane
from aiopplx.apis._registry import read_job

_POLL = Lane.POLL

POLLS_AT_ONCE = 32
"""Polls of one session that are out at the same time."""
HELD_UP = 5.0
"""Seconds without a written outcome, while all places are held by outcomes that wait for the journal, after which a job
at its time limit does not wait for one more poll."""
HELD = 1.0
"""Seconds until the gate is asked again, where polls may not leave."""


class Sink(Protocol):
    """Who is told what polls bring: the lifecycle."""

    def may_poll(self, sub: Submission) -> bool:
        """Whether any listener has room for the outcome. If none has, the poller forgets it until `unpark`."""
        ...

    def polled(self, sub: Submission, snapshot: Snapshot | None) -> None:
        """A poll ended and the job runs on. `snapshot` is what it brought; None if it brought nothing usable."""
        ...

    def time_out(self, sub: Submission, now: float, why: str, snapshot: Snapshot | None) -> bool:
        """Those listeners whose time is up stop waiting. Returns whether anybody still waits."""
        ...

    async def finish(self, sub: Submission, ended: Ended, snapshot: Snapshot | None, now: float) -> bool:
        """It ended. Returns False if that could not be written yet: the outcome stays at the server."""
        ...

    def fail(self, sub: Submission, problem: Exception) -> None:
        """A fault of this library's own: the listeners must hear of it."""
        ...


class _Poll:
    """A GET of one job that is out."""

    __slots__ = ("call", "sub")

    def __init__(self, sub: Submission) -> None:
        assert sub.call is not None, "a submission that is polled has its call"  # noqa: S101 - for mypy
        self.sub = sub
        self.call: Call = sub.call


class Poller:
    """Polls submissions from `watch` until `forget`; what polls bring goes to the sink.

    Args:
        client: sends the polls.
        policy: when to poll, and what a poll means.
        sink: is told.
        laws: what was learned of durations before. Default: nothing.

    Attributes:
        laws: what was learned by now.
    """

    def __init__(self, client: Client, policy: PollPolicy, sink: Sink, laws: Laws | None = None) -> None:
        self.laws: Laws = laws or Laws()
        self._client = client
        self._clock = client.clock
        self._policy = policy
        self._is_adaptive = policy.is_adaptive
        self._sink = sink
        self._pages = Pages(client, policy.price or PRICE, self._call, self._go_alone, self._arm)
        self._budget = Bucket(policy.budget) if policy.budget is not None else None
        self._schedule: Schedule[Submission] = Schedule()
        self._deadlines: Schedule[Submission] = Schedule()
        # A job's poll, from its departure until it is known what becomes of the job; and the task of each poll.
        self._out: dict[Submission, _Poll] = {}
        self._running: dict[_Poll, asyncio.Task[None]] = {}
        self._timer: Timer | None = None
        self._armed_for = 0.0
        self._is_held_back = False
        self._gives_way = False  # polls of batches wait for submissions, those that become due as well
        self._unwritten = 0  # outcomes that are being written, each in the place of its poll; and when one was last
        self._wrote_at = 0.0
        self._grace_until = 0.0
        self._closed = False
        client.line.due = self

    # --- what is polled ----------------------------------------------------------------------------------------------

    def watch(self, sub: Submission, now: float) -> None:
        """Poll this job until it ends or is forgotten: when its next poll is due, and at once if that was meanwhile.

        Args:
            sub: RUNNING or REFETCHING, with `polls`.
        """
        self.bound(sub)
        polls = _polls(sub)
        polls.grace_until = 0.0  # that was for those who listened before
        if polls.law is None:
            polls.law = self.laws.of(sub.kind)
        if self._is_adaptive and sub.api.has_list:
            self._pages.watch(sub, polls, now)
        self._put(sub, self._due_by_rule(sub, polls, now) if polls.due is None else max(polls.due, now))

    def bound(self, sub: Submission) -> None:
        """Its listeners changed: the first of their deadlines is when the next one stops waiting."""
        deadline = sub.first_deadline()
        if deadline == math.inf:
            self._deadlines.remove(sub)
            return
        self._deadlines.put(sub, deadline)
        if deadline < self._armed_for:
            self._arm()

    def poll_now(self, sub: Submission) -> None:
        """It is due at once, unless its poll is out: that will tell as much."""
        if sub not in self._out:
            self._put(sub, self._clock.now())

    def is_out(self, sub: Submission) -> bool:
        """Whether its poll is out, or what that brought is being written."""
        return sub in self._out

    def joined(self, sub: Submission) -> None:
        """A listener was added. It has room, so a job that was parked is due at once; any other, when it was due."""
        self.bound(sub)
        if sub not in self._schedule:
            self.poll_now(sub)
        elif not sub.is_bulk:
            due = _polls(sub).due  # as it was, but among the polls of calls, which do not give way
            self._put(sub, self._clock.now() if due is None else due)

    def unpark(self, sub: Submission) -> None:
        """A listener has room again: the job is due as it was, or at once, so that those due later do not go before it.
        A failed poll is not its last for a moment.
        """
        if sub in self._out:
            return
        now, polls = self._clock.now(), _polls(sub)
        polls.grace_until = now + GRACE
        self._put(sub, now if polls.due is None else min(polls.due, now))

    # --- what is polled no more --------------------------------------------------------------------------------------

    def ended(self, sub: Submission) -> None:
        """Its end is known. The poll that found it, if any, goes on: it has its own last steps."""
        self._schedule.remove(sub)
        self._deadlines.remove(sub)
        if sub.polls is not None and sub.polls.is_listed and not self._closed:
            self._pages.forget(sub, self._clock.now())
        self._out.pop(sub, None)

    def forget(self, sub: Submission) -> asyncio.Task[None] | None:
        """Nobody waits for it. Returns its poll if that was out, cancelled, to be waited for."""
        poll = self._drop(sub)
        task = self._cancel(poll) if poll is not None else None
        self._rest()
        return task

    def close(self) -> list[asyncio.Task[None]]:
        """Poll nothing any more. Returns the polls that were out, cancelled, to be waited for."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for sub in list(self._out):
            self._drop(sub)
        cancelled = [self._cancel(poll) for poll in list(self._running)]
        return [*(task for task in cancelled if task is not None), *self._pages.close()]

    def _drop(self, sub: Submission) -> _Poll | None:
        """Nothing here names the job any more. Returns its poll if that was out."""
        self._schedule.remove(sub)
        self._deadlines.remove(sub)
        polls = sub.polls
        if polls is not None and polls.is_listed and not self._closed:
            due = self._keep_what_pages_told(sub, polls)  # whoever comes back for it goes on from there
            if due is not None and polls.due is not None:
                polls.due = max(polls.due, due)
            self._pages.forget(sub, self._clock.now())
        return self._out.pop(sub, None)

    def _cancel(self, poll: _Poll) -> asyncio.Task[None] | None:
        task = self._running.get(poll)
        if task is None or task is asyncio.current_task():
            return None
        task.cancel()
        if has_not_begun(task):  # nobody else says that nothing left
            self._client.line.back(poll.call.lane, self._clock.now())
        self._free_place(poll)
        return task

    # --- the step ----------------------------------------------------------------------------------------------------

    def _put(self, sub: Submission, due: float) -> None:
        if self._closed:
            return
        if sub.polls is not None:
            sub.polls.due = due
        is_bulk = sub.is_bulk
        self._schedule.put(sub, due, is_bulk=is_bulk)
        is_first = due < self._armed_for and not (is_bulk and self._gives_way)
        if is_first or self._timer is None:
            self._arm()

    def _due_by_rule(self, sub: Submission, polls: Polls, now: float) -> float:
        if self._is_adaptive and polls.law is not None:
            age = now - polls.since
            gap = self._policy.law_gap(polls.law, age, self._client.random())
            if polls.is_listed:
                gap = min(gap * self._pages.spacing(sub), max(gap, longest_gap(age)))
            return now + gap
        try:
            return now + self._policy.next_gap(polls.running(now), self._client.random())
        except BaseException as error:  # a caller's own rule: its mistake must not cost a job that is paid for
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                self._put(sub, now + self._policy.gap)
                raise
            self._policy = self._policy.without_rule()
            self._is_adaptive = True
            log(logging.ERROR, "the poll rule failed; the default one goes on in its place", exc_info=True)
            reason = f"the poll rule failed ({type(error).__name__}); the default one goes on in its place"
            self._client.emit(sub.event(EventKind.WARNING, now, reason=reason))
        return self._due_by_rule(sub, polls, now)

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
        if self._pages.lists:
            page = self._pages.next_due(now)
            if page is not None and (moment is None or page < moment):
                moment = page
        if len(self._running) < POLLS_AT_ONCE:
            due = self._next_due(now)
            self._is_held_back = False
            if due is not None and due <= now:  # what is due later asks the gate at that moment
                # No longer than this: a submission whose probe succeeds opens the gate without a word to anybody here.
                held_back = min(self._held_back(now), HELD)
                if held_back > 0.0:
                    self._is_held_back = True
                    self._client.gate.want(_POLL, now)
                due = now + held_back
            if due is not None and (moment is None or due < moment):
                moment = due
        return moment

    def _next_due(self, now: float) -> float | None:
        due = self._schedule.next_due()
        self._gives_way = due is not None and due <= now and self._client.line.holds_polls(now)
        if not self._gives_way:
            return due
        urgent = self._schedule.next_of(is_bulk=False)
        return now + HELD if urgent is None else min(urgent[0], now + HELD)

    def _held_back(self, now: float) -> float:
        wait = self._client.gate.delay(_POLL, now)
        return wait if self._budget is None else max(wait, self._budget.delay(now))

    def _step(self) -> None:
        self._timer = None
        now = self._clock.now()
        if now - self._armed_for > self._clock.suspension:
            self._grace_until = now + GRACE
        try:
            while (sub := self._deadlines.pop(now)) is not None:
                self._overdue(sub, now)
            if self._pages.lists:
                self._start_pages(now)
            self._start_due(now)
        finally:
            self._arm()  # whatever becomes of this step, there is a next one

    def _start_due(self, now: float) -> None:
        if self._client.gate.limits.is_shared:
            self._client.line.settle(now)  # submissions want the same departures
            return
        gives_way = self._client.line.holds_polls(now)
        while len(self._running) < POLLS_AT_ONCE and self._held_back(now) <= 0.0:
            sub = self._pop(now, gives_way=gives_way)
            if sub is None:
                break
            self._send(sub, now)

    def _pop(self, now: float, *, gives_way: bool) -> Submission | None:
        if not gives_way:
            return self._schedule.pop(now)
        urgent = self._schedule.pop_of(now, is_bulk=False)
        return self._schedule.pop_of(now - OVERDUE, is_bulk=True) if urgent is None else urgent

    def _start_pages(self, now: float) -> None:
        while self._budget is None or self._budget.delay(now) <= 0.0:
            send = self._pages.take(now)
            if send is None:
                break
            if self._budget is not None:
                self._budget.leave(now)
            send()

    def _send(self, sub: Submission, now: float) -> bool:
        """Poll it now, unless a page of the list has told of it, or nobody has room for the outcome."""
        if self._pages.lists and _polls(sub).is_listed and (due := self._told_by_pages(sub, now)) > now:
            self._put(sub, due)
            return False
        if not self._sink.may_poll(sub):
            return False
        poll = _Poll(sub)
        self._client.gate.leave(_POLL, now)
        if self._budget is not None:
            self._budget.leave(now)
        self._out[sub] = poll
        # What the poll brings is told where the job is waited for, and not where the timer was set, which may have been
        # a request for another job. A copy, since a context is entered once at a time, and a task may begin at once.
        create_task = asyncio.get_running_loop().create_task
        self._running[poll] = sub.listeners[0].context.copy().run(create_task, self._run(poll))
        return True

    def due(self, now: float) -> tuple[bool, float | None, bool]:
        """See `Due` in `_http.line`."""
        if len(self._running) >= POLLS_AT_ONCE or (self._budget is not None and self._budget.delay(now) > 0.0):
            return False, None, False
        urgent = self._schedule.next_of(is_bulk=False)
        bulk = self._schedule.next_of(is_bulk=True)
        is_due = urgent is not None and urgent[0] <= now
        if bulk is None or bulk[0] > now:
            return is_due, None, False
        return is_due, bulk[0], _polls(bulk[1]).probably_ended(now)

    def send_next(self, now: float, *, is_bulk: bool) -> None:
        """See `Due` in `_http.line`."""
        while (sub := self._schedule.pop_of(now, is_bulk=is_bulk)) is not None:
            if self._send(sub, now):
                return

    def opened(self) -> None:
        """See `Due` in `_http.line`."""
        if self._timer is not None and not self._closed:
            self._timer.cancel()
            self._armed_for = self._clock.now()
            self._step()

    # --- what pages of a list bring ----------------------------------------------------------------------------------

    def _told_by_pages(self, sub: Submission, now: float) -> float:
        """When it is polled by itself if no further page tells of it."""
        polls = _polls(sub)
        due = self._keep_what_pages_told(sub, polls)
        if due is None or now >= sub.first_deadline():
            return now
        self._warn_if_stalled(sub, polls, now)
        return due

    def _keep_what_pages_told(self, sub: Submission, polls: Polls) -> float | None:
        """When it last ran by the word of a page, and so when it is polled by itself; None if no page tells of it."""
        seen = self._pages.seen_at(sub)
        if seen is None or polls.law is None:
            return None
        age = seen - polls.since
        if age > polls.seen:
            polls.saw_running(seen)
        return seen + min(longest_gap(age), BEYOND * polls.law.next_gap(age))

    def _call(self, sub: Submission, now: float) -> None:
        """A page says that it has ended: a GET decides, unless one is out, or nobody has room for the outcome."""
        if sub in self._schedule:
            self._put(sub, now)

    def _go_alone(self, sub: Submission, now: float) -> None:
        """No page tells of it any more."""
        if sub in self._schedule:
            self._put(sub, self._due_by_rule(sub, _polls(sub), now))

    def _warn_if_stalled(self, sub: Submission, polls: Polls, now: float) -> None:
        if polls.stalls(now):
            reason = f"runs for {now - polls.since:,.0f} s, longer than 999 of 1,000 such jobs that end"
            self._client.emit(sub.event(EventKind.STALLED, now, status=JobStatus.IN_PROGRESS, reason=reason))

    # --- at a time limit ---------------------------------------------------------------------------------------------

    def _overdue(self, sub: Submission, now: float) -> None:
        """A listener's time is up: one last poll decides, unless none may leave."""
        if sub not in self._schedule:
            return  # a poll is out, or there is no room for the outcome: either ends in a poll that sees the deadline
        polls = _polls(sub)
        if polls.is_listed:
            self._keep_what_pages_told(sub, polls)
        if self._is_adaptive and not polls.is_worth_a_poll(now) and _may_all_come_back(sub, now):
            self._time_out(sub, now, "its next poll is not due yet", _as_last_seen(sub, polls))
            return
        if is_hopeless(self._client.gate.delay(_POLL, now), now, grace_until=self._grace_until):
            self._time_out(sub, now, "no request may leave at the moment", None)
        elif self._unwritten >= POLLS_AT_ONCE and now - self._wrote_at >= HELD_UP:
            self._time_out(sub, now, "the journal does not answer, so that nothing more is asked for", None)
        elif self._unwritten >= POLLS_AT_ONCE:
            self._deadlines.put(sub, now + HELD)  # its turn may come, or not
        else:
            self._schedule.put(sub, now - OVERDUE, is_bulk=sub.is_bulk)  # it gives way no more

    # --- one poll ----------------------------------------------------------------------------------------------------

    async def _run(self, poll: _Poll) -> None:
        sub = poll.sub
        try:
            # Its own moment: by when they were sent it is known which of two answers is the newer one.
            read = partial(read_job, sub.api, expected_id=sub.job_id)
            result, now = await self._client.attempt(poll.call, read, self._clock.now())
            if self._out.get(sub) is poll:  # otherwise it was forgotten while its poll was out
                end = self._failed(sub, result, now) if isinstance(result, Failed) else self._answered(sub, result, now)
                if end is None:
                    self._out.pop(sub, None)
                else:  # it is out until that is written
                    await self._finish(sub, *end, now)
        except Exception as problem:
            if self._out.get(sub) is poll:
                self._broke(sub, problem)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            self._cut_short(poll)
            raise
        finally:
            self._free_place(poll)

    def _cut_short(self, poll: _Poll) -> None:
        """The program ends in the middle of a poll. If it goes on all the same, as a notebook does, so does its job."""
        if (task := self._running.get(poll)) is not None:
            task.add_done_callback(_was_told)
        if self._out.get(poll.sub) is poll:
            del self._out[poll.sub]
            self._put(poll.sub, self._clock.now() + self._policy.gap)

    def _broke(self, sub: Submission, problem: Exception) -> None:
        """A fault of ours: nobody may wait for ever."""
        log(logging.ERROR, "a poll of job %s failed unexpectedly", sub.job_id, exc_info=True)
        if self._drop(sub) is not None:
            self._sink.fail(sub, problem)

    def _free_place(self, poll: _Poll) -> None:
        """A poll ended, or was cancelled, perhaps before it began: another may leave."""
        was_full = len(self._running) >= POLLS_AT_ONCE
        if self._running.pop(poll, None) is None or self._closed:
            return
        if was_full:
            self._start_due(self._clock.now())  # one that was due and had to wait for this one's place
        # Otherwise the timer is set for whatever is due next: putting it on the schedule did that.
        if was_full or self._is_held_back or self._timer is None:
            self._arm()
        self._rest()

    def _rest(self) -> None:
        """With nothing to do, let go of the timer: it would hold a session that was dropped without being closed.

        Pages of a list are read for jobs that are polled, and for nobody else.
        """
        if self._timer is not None and not (self._running or self._schedule or self._deadlines):
            self._timer.cancel()
            self._timer = None

    # --- what a poll brought -----------------------------------------------------------------------------------------

    def _answered(self, sub: Submission, snapshot: Snapshot, now: float) -> _End | None:
        polls = _polls(sub)
        is_overdue = now >= sub.first_deadline()
        is_last = is_overdue and now >= sub.last_deadline
        verdict = polls.answered(self._policy, snapshot, is_last=is_last)
        if isinstance(verdict, Ended):
            self._learn(sub, polls, snapshot, now)
            return verdict, snapshot
        if verdict is None:
            self._learn(sub, polls, snapshot, now)
            self._warn_if_stalled(sub, polls, now)
            if self._client.has_handlers():
                self._client.emit(sub.event(EventKind.POLLED, now, status=snapshot.status))
            if snapshot.is_unknown:
                self._warn_of_unknown(sub, polls, snapshot, now)
        self._sink.polled(sub, snapshot)
        due = self._due_by_rule(sub, polls, now) if verdict is None else now + verdict.delay
        word = snapshot.server_status or "no status"
        if is_overdue and not self._time_out(sub, now, f"the server says {word}", snapshot):
            polls.due = due  # for whoever comes back
            return None
        self._put(sub, due)
        return None

    def _learn(self, sub: Submission, polls: Polls, snapshot: Snapshot, now: float) -> None:
        """What a poll tells of durations, and of the age of a job that somebody else submitted."""
        try:
            if not polls.has_age and sub.api.has_dates and (created_at := snapshot.created_at) is not None:
                age = self._clock.wall() - created_at
                if 0.0 <= age < sub.api.results_live:  # otherwise this machine's date is far off
                    polls.told_age(now, age)
            if not snapshot.status.is_final:
                polls.saw_running(now)
                if polls.is_listed:
                    self._pages.runs(sub, now)
            elif snapshot.status is not JobStatus.CANCELLED:
                lasted = snapshot.lasted if sub.api.has_dates else None
                polls.saw_end(now, lasted)
                if polls.is_listed:
                    self._pages.ended(sub, now, polls.since + lasted if lasted is not None and polls.has_age else None)
        except Exception:  # a fault of ours: it must not cost a result that is paid for
            log(logging.ERROR, "nothing was learnt from a poll of job %s", sub.job_id, exc_info=True)
            polls.law = None

    def _failed(self, sub: Submission, failed: Failed, now: float) -> _End | None:
        error = failed.error
        client = self._client
        polls = _polls(sub)
        grace_until = max(self._grace_until, polls.grace_until)
        is_overdue = is_decisive(sub.first_deadline(), now, grace_until=grace_until)
        verdict = polls.failed(
            self._policy,
            client.policy,
            failed.fault,
            error,
            now,
            client.random(),
            is_last=is_overdue and is_decisive(sub.last_deadline, now, grace_until=grace_until),
            is_survived=sub.call is not None and client.is_survived(error, sub.call),
        )
        if isinstance(verdict, Ended):
            return verdict, None
        if is_overdue and not self._time_out(sub, now, f"the last poll failed: {error.message}", None):
            return None
        delay = max(verdict.delay, client.gate.silence(now))
        fault = failed.fault.value
        client.emit(sub.event(EventKind.POLL_FAILED, now, delay=delay, reason=error.message, fault=fault))
        self._sink.polled(sub, None)
        self._put(sub, now + delay)
        return None

    def _time_out(self, sub: Submission, now: float, why: str, snapshot: Snapshot | None) -> bool:
        """Those listeners whose time is up stop waiting. Returns whether anybody goes on."""
        if not self._sink.time_out(sub, now, why, snapshot):
            return False
        self.bound(sub)
        return True

    async def _finish(self, sub: Submission, ended: Ended, snapshot: Snapshot | None, now: float) -> None:
        self._unwritten += 1
        if self._unwritten == POLLS_AT_ONCE:
            self._wrote_at = now
        try:
            is_written = await self._sink.finish(sub, ended, snapshot, now)
            if not is_written and sub in self._out:
                now = self._clock.now()
                self._sink.polled(sub, None)
                why = "it has ended, and its outcome could not be written to the journal"
                if not is_decisive(sub.first_deadline(), now) or self._time_out(sub, now, why, None):
                    self._put(sub, now + self._policy.refused_pause)
        except Exception as problem:
            self._broke(sub, problem)
        finally:
            self._unwritten -= 1
            self._wrote_at = self._clock.now()
        self._out.pop(sub, None)

    def _warn_of_unknown(self, sub: Submission, polls: Polls, snapshot: Snapshot, now: float) -> None:
        if not polls.warned:
            polls.warned = True
            reason = f"unknown status {snapshot.server_status[:40]!r}: taken as still running"
            self._client.emit(sub.event(EventKind.WARNING, now, reason=reason))


_End = tuple[Ended, Snapshot | None]
"""What `Sink.finish` is told of a job."""


def _may_all_come_back(sub: Submission, now: float) -> bool:
    """Whether everybody whose time is up waits for a job that they know, and so can wait again."""
    return all(listener.is_late for listener in sub.listeners if now >= listener.deadline)


def _as_last_seen(sub: Submission, polls: Polls) -> Snapshot:
    return Snapshot(id=sub.job_id, status=JobStatus.IN_PROGRESS, server_status=polls.status, model=polls.model)


def _polls(sub: Submission) -> Polls:
    assert sub.polls is not None, "a submission that is polled has its counters"  # noqa: S101 - for mypy
    return sub.polls


def _was_told(task: asyncio.Task[None]) -> None:
    """The loop has raised the end of the program itself, and would tell of the same again when it drops the task."""
    if not task.cancelled():
        task.exception()
