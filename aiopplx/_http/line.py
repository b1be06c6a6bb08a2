"""The line at the gate: who waits to send a request, and who goes next.

The gate says when the next request of a lane may leave. Somebody has to wait for that moment, and if all who wait did
so side by side, all would leave at it. So those of one kind (a lane, and whether it is for a batch) stand in a line,
and only the first in it waits for the gate, and asks it again when the time is up and after each answer that may have
changed the gate's state. A request that finds nobody in front of it and the gate open passes in one synchronous step,
without a task switch.

Whoever asks does so for all: `settle` lets out everything that may leave now, in the order of `_policy.turns`. Polls of
running jobs do not stand here, because a waiting job costs no task. The poller is asked whether any are due (`Due`),
and sends one when it is their turn. Where polls have a limit of their own it sends them without asking, unless that is
not known yet, and submissions of a batch wait (`holds_polls`).

A submission that is sent again keeps its place: it has waited longest.

This module knows nothing of what is sent, or of what an answer means.
"""

from __future__ import annotations

import asyncio
import math
from bisect import insort
from typing import Protocol

from aiopplx._http.clock import Clock
from aiopplx._policy.gate import Gate
from aiopplx._policy.retry import Bounds
from aiopplx._policy.turns import Turn, Turns, Waiting
from aiopplx._wire.call import Lane

SUBMITS_AT_ONCE = 64
"""Submissions of one session between the gate and their answer: with answers that take two seconds, 2,000 a minute. How
many the server lets in is for the limits to find out (`_policy.limiter`); this bounds what a silent server holds."""
STILL_WAITS = 1.0
"""For so many seconds after a submission of a batch had to wait, those that are on their way count as waiting too: the
batch has as many under way as it sends at once."""

_SUBMIT = Lane.SUBMIT


class Due(Protocol):
    """The polls that are due, and who sends them: the poller."""

    def due(self, now: float) -> tuple[bool, float | None, bool]:
        """Whether an interactive poll is due; when the first of a batch fell due, None if none is; whether that one
        probably finds a finished job.
        """
        ...

    def send_next(self, now: float, *, is_bulk: bool) -> None:
        """Send the one that has been due longest, of a batch's or of the others. There may be none after all; then
        none of these is due any more.
        """
        ...

    def opened(self) -> None:
        """Polls may leave that could not before."""
        ...


class _Waiter:
    """A request that waits."""

    __slots__ = ("bounds", "event", "is_granted", "lane", "order")

    def __init__(self, lane: Lane, bounds: Bounds, order: int) -> None:
        self.lane = lane
        self.bounds = bounds
        self.order = order
        self.event = asyncio.Event()
        self.is_granted = False

    def __lt__(self, other: _Waiter) -> bool:
        return self.order < other.order


_Queue = list[_Waiter]


class Line:
    """Those of one session who wait at the gate of its account.

    Attributes:
        gate: the account's gate.
        turns: who goes next where several want the same departure.
        due: the poller, once there is one.
        submitting: submissions between the gate and their answer.
    """

    __slots__ = (
        "_calls",
        "_clock",
        "_has_held",
        "_lists",
        "_order",
        "_queues",
        "_submits",
        "_submits_now",
        "_waited_at",
        "due",
        "gate",
        "submitting",
        "turns",
    )

    def __init__(self, gate: Gate, clock: Clock) -> None:
        self.gate: Gate = gate
        self.turns: Turns = Turns()
        self.due: Due | None = None
        self.submitting: int = 0
        self._clock = clock
        self._order = 0
        self._submits_now: _Queue = []
        self._submits: _Queue = []
        self._waited_at = -math.inf  # when a submission of a batch left that had waited
        self._has_held = False  # polls gave way, and wait to be told that they need not
        self._calls: _Queue = []  # single polls and cancellations
        self._lists: _Queue = []
        self._queues = (self._submits_now, self._submits, self._calls, self._lists)

    @property
    def submits_wait(self) -> bool:
        """Whether a submission waits here."""
        return bool(self._submits or self._submits_now)

    def holds_polls(self, now: float) -> bool:
        """Whether polls of batches give way to submissions that wait, because both may have one limit.

        Not where all of them have their answers: then all places in `max_in_flight` are taken, and polls free them.
        """
        if not self._submits and (not self.submitting or now - self._waited_at >= STILL_WAITS):
            return False
        if self.turns.prefers_results or not self.gate.limits.may_be_shared:
            return False
        self._has_held = True
        return True

    # --- passing -----------------------------------------------------------------------------------------------------

    def place(self) -> int:
        """A place in the line, behind all others."""
        self._order += 1
        return self._order

    def passes(self, lane: Lane, now: float) -> bool:
        """Let a request of this lane leave if nobody waits in front of it and the gate is open."""
        gate = self.gate
        if lane is _SUBMIT:
            if self._submits or self._submits_now or self.submitting >= SUBMITS_AT_ONCE:
                return False
        elif self._lists if lane is Lane.LIST else self._calls:
            return False
        if gate.limits.is_shared or not gate.passes(lane, now):
            return False
        if lane is _SUBMIT:
            self.submitting += 1
        return True

    def _leave(self, lane: Lane, now: float) -> None:
        if lane is _SUBMIT:
            self.submitting += 1
        self.gate.leave(lane, now)

    def back(self, lane: Lane, sent_at: float) -> None:
        """A request that had passed was not accepted, or did not leave after all: another may."""
        if lane is _SUBMIT:
            self._is_answered()
        self.gate.back(lane, sent_at)

    def accepted(self, lane: Lane, now: float, sent_at: float) -> bool:
        """A request that had passed was accepted. Returns True if submissions go on because of that."""
        if lane is _SUBMIT:
            self._is_answered()
        return self.gate.accepted(lane, now, sent_at)

    def _is_answered(self) -> None:
        self.submitting -= 1
        if self._has_held and not self.submitting and self.due is not None:
            self._has_held = False
            asyncio.get_running_loop().call_soon(self.due.opened)  # those that now go next are in line by then

    async def wait(self, lane: Lane, bounds: Bounds, now: float, *, is_bulk: bool = False, order: int = 0) -> float:
        """Wait until a request of this lane may leave; once this returns, it counts as sent. Returns that moment.

        Args:
            lane: what it is.
            bounds: for how long it may wait.
            now: monotonic seconds.
            is_bulk: it belongs to a batch, and not to a call that somebody waits for.
            order: its place, if it has one from an earlier time.

        Raises:
            AiopplxError: what stopped submissions, if this is one.
            TimeoutError: waiting within `bounds` is, or has become, pointless.
        """
        if self.gate.silence(now) > bounds.silence:
            raise TimeoutError
        queue = self._queue(lane, is_bulk=is_bulk)
        waiter = _Waiter(lane, bounds, order or self.place())
        insort(queue, waiter)
        try:
            while not waiter.is_granted:
                if queue[0] is waiter:
                    await self._wait_as_first(waiter)
                else:
                    await _set(waiter.event, self._clock, bounds.until)
                waiter.event.clear()
        except BaseException:
            if waiter.is_granted:
                self.back(lane, self._clock.now())
                self.wake()
            raise
        finally:
            if not waiter.is_granted:
                queue.remove(waiter)
            if queue:
                queue[0].event.set()
        return self._clock.now()

    def _queue(self, lane: Lane, *, is_bulk: bool) -> _Queue:
        if lane is _SUBMIT:
            return self._submits if is_bulk else self._submits_now
        return self._lists if lane is Lane.LIST else self._calls

    async def _wait_as_first(self, waiter: _Waiter) -> None:
        """Wait until the gate may have opened. Raises what ends the waiting."""
        gate, clock, bounds, lane = self.gate, self._clock, waiter.bounds, waiter.lane
        now = clock.now()
        if lane is _SUBMIT and (stop := gate.halted(now)) is not None:
            raise stop.about()
        self.settle(now)
        if waiter.is_granted:
            return
        gate.want(lane, now)
        delay = gate.delay(lane, now)
        patience = bounds.unanswered - gate.silent_server(now)
        is_late = now + delay > bounds.until and not gate.waits_for_answer(lane)
        if is_late or now >= bounds.until or gate.silence(now) > bounds.silence or patience <= 0.0:
            raise TimeoutError
        # The gate is open, and it is another's turn, or too many are on their way: whatever changes that tells.
        seconds = min(delay if delay > 0.0 else math.inf, patience, bounds.until - now)
        if seconds == math.inf:
            await waiter.event.wait()
        else:
            await clock.wait(waiter.event, seconds)

    # --- who goes next -----------------------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """Let out everything that may leave now."""
        gate = self.gate
        while self._lists and gate.delay(Lane.LIST, now) <= 0.0:
            self._grant(self._lists, now)
        if gate.limits.is_shared:
            self._settle_shared(now)
            return
        while self._calls and gate.delay(self._calls[0].lane, now) <= 0.0:
            self._grant(self._calls, now)
        while (self._submits or self._submits_now) and self._may_submit(now) and gate.delay(_SUBMIT, now) <= 0.0:
            turn = self.turns.take(Waiting(submit_now=bool(self._submits_now), submit=bool(self._submits)))
            self._grant(self._submits if turn is Turn.SUBMIT else self._submits_now, now)

    def _settle_shared(self, now: float) -> None:
        gate, due = self.gate, self.due
        while gate.delay(Lane.POLL, now) <= 0.0:
            may_submit = self._may_submit(now) and gate.delay(_SUBMIT, now) <= 0.0
            is_due, since, is_likely = due.due(now) if due is not None else (False, None, False)
            turn = self.turns.take(
                Waiting(
                    submit_now=may_submit and bool(self._submits_now),
                    poll_now=is_due or bool(self._calls),
                    submit=may_submit and bool(self._submits),
                    poll=since is not None,
                    poll_overdue=now - since if since is not None else 0.0,
                    poll_is_likely=is_likely,
                )
            )
            if turn is None:
                return
            if turn is Turn.SUBMIT or turn is Turn.SUBMIT_NOW:
                self._grant(self._submits if turn is Turn.SUBMIT else self._submits_now, now)
            elif turn is Turn.POLL_NOW and self._calls:
                self._grant(self._calls, now)
            elif due is not None:
                due.send_next(now, is_bulk=turn is Turn.POLL)

    def _may_submit(self, now: float) -> bool:
        return self.submitting < SUBMITS_AT_ONCE and self.gate.halted(now) is None

    def _grant(self, queue: _Queue, now: float) -> None:
        waiter = queue.pop(0)
        if queue is self._submits:
            self._waited_at = now
        self._leave(waiter.lane, now)
        waiter.is_granted = True
        waiter.event.set()
        if queue:
            queue[0].event.set()

    def answered(self) -> None:
        """An answer came, after which another request may fit."""
        if any(self._queues):
            self.wake()
        elif self.gate.limits.is_shared:
            self.settle(self._clock.now())  # polls that are due have nobody here who waits for them

    def opened(self) -> None:
        """Departures came for which somebody waits, here or in the poller."""
        self.wake()
        if self.due is not None:
            self.due.opened()

    def wake(self) -> None:
        """Something may have changed: everybody who is first asks the gate again."""
        for queue in self._queues:
            if queue:
                queue[0].event.set()


async def _set(event: asyncio.Event, clock: Clock, until: float) -> None:
    """Wait until it is set, or raise `TimeoutError` at the moment `until`."""
    if until == math.inf:
        await event.wait()
        return
    async with clock.timeout(max(0.0, until - clock.now())):
        await event.wait()
