"""The only retry loop: wait at the gate, make an attempt, read it, ask the policy, pause, again.

It stands between the transport, which makes one attempt, and the callers that want results. `Client.submit` is the
whole of a submission's sending, from top to bottom; `Client.call` is the same for calls that are free and can be
repeated; a poll is one `Client.attempt`, and the poller decides when the next one follows.

What an attempt does to the record of a submission is not decided here. The client says what happens through `Attempts`,
and changes neither the phase nor any other fact of a submission. So whoever keeps that record can be sure that nothing
leaves before `Attempts.mark` has returned.

This module knows nothing of aiohttp, of batches, of journals, or of when a running job should be polled.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import anyio
import msgspec

from aiopplx._errors import (
    AiopplxError,
    APIError,
    ConfigError,
    EndpointRetired,
    InDoubt,
    ProtocolError,
    RateLimited,
    TransportError,
)
from aiopplx._events import Event, EventKind
from aiopplx._http.clock import Clock
from aiopplx._http.line import Line
from aiopplx._http.transport import TOLD_AFTER, Sink, Transport, Withdrawn
from aiopplx._job import Snapshot
from aiopplx._policy.gate import Gate
from aiopplx._policy.retry import (
    Again,
    Bounds,
    CallTries,
    Fault,
    GiveUp,
    RetryPolicy,
    SubmitTries,
    classify,
    error_of_no_reply,
    without_bill,
)
from aiopplx._submission import Phase, Submission
from aiopplx._wire.call import Call, Lane, NoReply, Reply, error_of, refusal_in
from aiopplx._wire.headers import counts, exhausted_until, hint
from aiopplx.apis._registry import read_job

T = TypeVar("T")

_UNUSABLE = (Fault.NOT_SENT, Fault.DOUBT, Fault.POLL)
"""No usable answer came."""


class Failed(msgspec.Struct, frozen=True):
    """A failed attempt: its class, the error that it is reported as, and the pause that follows it, in seconds."""

    fault: Fault
    error: AiopplxError
    status: int | None = None
    pause: float = 0.0


class Attempts(Protocol):
    """Keeps the record of a submission. The client calls these methods in this order."""

    async def mark(self, sub: Submission, now: float) -> float:
        """Write down that the next attempt leaves. It may leave once this returns, and never before.

        Afterwards the submission is SENDING, or RESENDING if an earlier outcome is unknown, and it has a deadline.
        Returns the moment at which that is so (monotonic seconds, as `now`).

        Raises:
            AiopplxError: it could not be written, so nothing may leave. A mark that failed or was cancelled has been
                taken back.
        """
        ...

    async def take_back(self, sub: Submission) -> None:
        """Nothing that was sent under this key can have made a job: SENDING becomes QUEUED.

        Does nothing in any other phase. Raises nothing.
        """
        ...

    def began(self, sub: Submission) -> None:
        """An attempt leaves now."""
        ...

    def unanswered(self, sub: Submission) -> None:
        """The outcome of an attempt is unknown: SENDING or RESENDING becomes UNANSWERED."""
        ...


def _nothing(*_: object) -> None:
    """The default of what `Client` calls."""


class Client:
    """Makes the calls of a session. All of them pass the one gate.

    Args:
        transport: makes one attempt.
        gate: shared by all sessions of the account.
        policy: whether and when another attempt is made.
        clock: the time that every wait is on.
        random: even in [0, 1).
        emit: takes an event.
        has_handlers: whether anybody listens to events; asked before frequent events are made.
        is_only_api: whether submissions can go to no other API than the one of this name, so that its retirement stops
            all of them.

    Attributes:
        on_stop: called each time a refusal stops submissions, before the event.
        on_next_api: called when submissions go to the next API, whose limits are others.
        on_silence: called with the seconds of silence that the server asks for.
        limits: the latest rate limits of this key from the server.
        dated: when the request was sent that was answered last, and the `Date` of the answer. No other header: any of
            them may echo the key.
        line: who waits to send a request.
    """

    def __init__(
        self,
        transport: Transport,
        gate: Gate,
        policy: RetryPolicy,
        *,
        clock: Clock,
        random: Callable[[], float],
        emit: Callable[[Event], None],
        has_handlers: Callable[[], bool],
        is_only_api: Callable[[str], bool],
    ) -> None:
        self.transport = transport
        self.gate = gate
        self.policy = policy
        self.clock = clock
        self.random = random
        self.emit = emit
        self.has_handlers = has_handlers
        self.on_stop: Callable[[], None] = _nothing
        self.on_next_api: Callable[[], None] = _nothing
        self.on_silence: Callable[[float], None] = _nothing
        self.limits: Mapping[str, int] = {}
        self.dated: tuple[float, str] | None = None
        self._is_only_api = is_only_api
        self._is_told = False  # that the server does not answer
        self._told_at = 0.0  # when it was told
        self.line: Line = Line(gate, clock)

    # --- one attempt -------------------------------------------------------------------------------------------------

    async def attempt(
        self, call: Call, read: Callable[[Reply], T], sent_at: float, sink: Sink | None = None
    ) -> tuple[T | Failed, float]:
        """Make one exchange, which passed the gate at `sent_at`, and tell the gate what came of it.

        Returns what came of it, and the moment at which it came (monotonic seconds).
        """
        lane, line, wire_now = call.lane, self.line, self.clock.wire_now
        began = wire_now() if sink is None else math.inf  # a download takes long, and says nothing
        error: AiopplxError
        try:
            outcome = await self.transport.exchange(call, sink)
        except BaseException:
            self._did_not_end(lane, sent_at)
            raise
        now = self.clock.now()
        if not isinstance(outcome, Reply):
            limit = self.transport.limit if sink is None else self.transport.file_limit
            error = error_of_no_reply(outcome, lane=lane, limit=limit)
            return self._failed(call, outcome, error, now, sent_at, began), now
        headers = outcome.headers
        date = headers.get("date", "")
        if len(date) == 29 and date.endswith(" GMT"):  # as every date in a header; it is parsed when somebody asks
            self.dated = (sent_at, date)
        if "x-ratelimit-limit" in headers:
            self.limits = counts(headers)
        if 200 <= outcome.status < 300:
            try:
                value = read(outcome)
            except ProtocolError as problem:
                error = problem
                refusal = refusal_in(outcome)
                if refusal is not None:
                    outcome, error = refusal, error_of(refusal, lane)
            except BaseException:  # a fault of ours
                self._did_not_end(lane, sent_at)
                raise
            else:
                if line.accepted(lane, now, sent_at):
                    self.emit(Event(kind=EventKind.RESUMED))
                self._came(wire_now())
                if "x-ratelimit-remaining" in headers:
                    self._told(outcome, lane, now, sent_at, accepted=True)
                line.answered()
                return value, now
        else:
            error = error_of(outcome, lane)
        return self._failed(call, outcome, error, now, sent_at, began), now

    def _did_not_end(self, lane: Lane, sent_at: float) -> None:
        """A request that passed the gate was given up, or is held back: if it was to probe the server, another may."""
        self.line.back(lane, sent_at)
        self.line.answered()

    # --- whether the server answers ----------------------------------------------------------------------------------

    def _came(self, now: float) -> None:
        """A complete answer came, at this moment of the wire."""
        self.gate.route.last_answer.came(now)
        if self._is_told:
            self._is_told = False
            self.emit(Event(kind=EventKind.RESUMED, reason="the server answers again"))

    def _unanswered_since(self) -> float:
        last = self.gate.route.last_answer
        return min(last.recent(self.clock.wire_now()), self.transport.open_since(last.at))

    def unanswered_for(self) -> float:
        """Seconds since the first request was sent that was sent after the last answer; 0.0 if none was lately."""
        return max(0.0, self.clock.wire_now() - self._unanswered_since())

    def tell_if_away(self) -> None:
        """Tell that the server does not answer, if it is so and was not told yet: once in each outage."""
        last = self.gate.route.last_answer
        since, now = self._unanswered_since(), self.clock.wire_now()
        # One that was told is over if another session of the account has had an answer since.
        if since + TOLD_AFTER > now or (self._is_told and self._told_at >= last.at):
            return
        self._is_told, self._told_at = True, now
        if last.recent(now) < math.inf:
            reason = f"no usable answer for {now - since:.0f} s: {last.failure}"
        else:
            reason = self.transport.waits_for(since, now - since)
        self.emit(Event(kind=EventKind.WARNING, reason=reason))

    # --- an attempt that failed --------------------------------------------------------------------------------------

    def _failed(
        self, call: Call, outcome: Reply | NoReply, error: AiopplxError, now: float, sent_at: float, began: float
    ) -> Failed:
        lane = call.lane
        self.line.back(lane, sent_at)
        self._scrub(error)
        fault = classify(lane, outcome, error, self.gate.known)
        status = outcome.status if isinstance(outcome, Reply) else None
        is_away = fault in _UNUSABLE and (status is None or status >= 500)
        pause = 0.0
        if fault is Fault.THROTTLED and isinstance(outcome, Reply):
            pause = self._throttled(outcome, error, lane, now, sent_at)
        elif is_away:
            pause = self.gate.failed(now, connected=isinstance(outcome, Reply) or outcome.sent, sent_at=sent_at)
        elif isinstance(outcome, Reply):
            self.gate.answered(lane, now, sent_at)  # a wrong answer, perhaps, but the server is at work
        if lane is Lane.SUBMIT and fault in _UNUSABLE:
            self.gate.submit_failed(now)
        if fault is Fault.STOP and self._stops(error, call):
            self.halt(error, lane)
        if pause >= 1.0:
            self.emit(Event(kind=EventKind.PAUSED, delay=pause, reason=error.message, fault=fault.value))
        if is_away:
            said = without_bill(error.message)
            failure = said if status is None or str(status) in said else f"HTTP {status}: {said}"
            self.gate.route.last_answer.failed(began, failure)
            self.tell_if_away()
        elif isinstance(outcome, Reply):
            self._came(self.clock.wire_now())
        self.line.answered()
        return Failed(fault, error, status, pause)

    def _scrub(self, error: AiopplxError) -> None:
        """Take the key out of whatever the server may have echoed it in."""
        scrub = self.transport.scrub
        error.message = scrub(error.message)
        error.args = (error.message,)
        error.body, error.type = scrub(error.body), scrub(error.type)
        error.request_id, error.job_id = scrub(error.request_id), scrub(error.job_id)
        if isinstance(error, ProtocolError):
            error.named = tuple(map(scrub, error.named))

    def _throttled(self, reply: Reply, error: AiopplxError, lane: Lane, now: float, sent_at: float) -> float:
        """The server asks for less. Returns the seconds of the pause that follows."""
        gate, asked, is_limit = self.gate, hint(reply.headers), reply.status == 429
        error.retry_after = exhausted_until(reply.headers) if asked is None else asked
        is_by_tokens = isinstance(error, RateLimited) and error.limit == "tokens"
        pause = gate.throttled(lane, now, sent_at, asked, self.random(), is_limit=is_limit, is_by_tokens=is_by_tokens)
        if asked is not None:
            self.on_silence(asked)
        if "x-ratelimit-remaining" in reply.headers:
            self._told(reply, lane, now, sent_at, accepted=False)
        if asked is None and is_limit and not gate.waits_for_answer(lane):
            pause = gate.delay(lane, now)
        if gate.limits.is_refused_as_given():
            reason = (
                "the server refused a request although the rate that was given (rpm or tier) was kept: another"
                " process may be using this key, or the account's limit is lower"
            )
            self.emit(Event(kind=EventKind.WARNING, reason=reason))
        return pause

    def _told(self, reply: Reply, lane: Lane, now: float, sent_at: float, *, accepted: bool) -> None:
        """An answer says how many requests remain."""
        self.gate.limits.said(
            lane, now, sent_at, counts(reply.headers), exhausted_until(reply.headers), accepted=accepted
        )

    # --- stops -------------------------------------------------------------------------------------------------------

    def _stops(self, error: AiopplxError, call: Call) -> bool:
        """Whether what ended this call ends all submissions: a mistake in the set-up, or a refusal of each of them."""
        if isinstance(error, APIError):
            return call.lane in (Lane.SUBMIT, Lane.POLL) and not self.is_survived(error, call)
        return isinstance(error, ConfigError)

    def is_survived(self, error: AiopplxError, call: Call) -> bool:
        """Whether submissions go on after this refusal: a retired API stops nothing where it has a successor."""
        return isinstance(error, EndpointRetired) and not self._is_only_api(call.api)

    def halt(self, error: AiopplxError, lane: Lane) -> None:
        """Stop all submissions; the event is emitted once. What stops all of them does not name the first one."""
        error = error.about()
        error.job_id = error.idempotency_key = ""
        error.tag, error.attempts = None, 0
        is_news = self.gate.halt(error, lane, self.clock.now())
        # Also if it is no news to the gate: another session of the account may have been told, and this one not.
        self.on_stop()
        if is_news:
            self.emit(Event(kind=EventKind.STOPPED, reason=str(error), fault=Fault.STOP.value))
        self.line.wake()

    def resume(self) -> None:
        """Let submissions go on after a stop."""
        if self.gate.resume():
            self.emit(Event(kind=EventKind.RESUMED))
        self.line.wake()

    # --- submissions -------------------------------------------------------------------------------------------------

    async def submit(self, sub: Submission, attempts: Attempts, bounds: Bounds) -> tuple[Snapshot, float]:
        """Send a submission until the server has it, refuses it, or its outcome stays unknown.

        Returns the server's answer, and the moment at which it came (monotonic seconds).

        Args:
            sub: what to send; the same bytes at every attempt.
            attempts: called for each attempt; nothing leaves before its `mark` has returned.
            bounds: for how long it may be waited for. After the first mark `sub.deadline` holds as well.

        Raises:
            InDoubt: a job may exist whose id is unknown.
            AiopplxError: the server refused, or nothing could be sent; nothing was billed.
        """
        line, api = self.line, sub.api
        order = line.place()
        call = api.submit(sub.body)
        tries: SubmitTries | None = None
        last: Failed | None = None
        while True:
            # The mark is on disk before the first byte leaves.
            try:
                now = self.clock.now()
                if not line.passes(Lane.SUBMIT, now):
                    now = await line.wait(Lane.SUBMIT, bounds, now, is_bulk=sub.is_bulk, order=order)
                sent_at = await self._mark(sub, attempts, bounds, now, order)
            except (TimeoutError, AiopplxError) as problem:
                if last is None:
                    if isinstance(problem, TimeoutError):
                        raise self._too_late(Lane.SUBMIT) from None
                    raise
                error = problem if isinstance(problem, AiopplxError) else last.error
                raise _outcome(sub, error, doubt=sub.phase is Phase.UNANSWERED) from None

            attempts.began(sub)
            try:
                result, now = await self.attempt(call, functools.partial(read_job, api), sent_at)
            except Withdrawn as ending:
                with anyio.CancelScope(shield=True):
                    await attempts.take_back(sub)  # this attempt was not sent; an earlier one may have been
                raise asyncio.CancelledError(*ending.args) from None
            if not isinstance(result, Failed):
                return result, now

            # It failed. If a job may exist, that is on record at once, before anything can be cancelled.
            last = result
            doubt = last.fault is Fault.DOUBT or sub.phase is Phase.RESENDING
            if doubt:
                attempts.unanswered(sub)
            bounds = bounds.for_retries(sub.deadline)
            tries = tries or SubmitTries(self.policy)
            verdict = self._verdict(sub, tries, last, bounds, now, doubt=doubt)
            if isinstance(verdict, GiveUp):
                # Without doubt the phase stays SENDING: whoever owns the submission writes down what became of it.
                raise _outcome(sub, last.error, doubt=verdict.doubt)

            # Another attempt follows. The pause before it may be long: a run that is killed in it is not in doubt.
            if not doubt:
                await attempts.take_back(sub)
            # After the last await before the pause: those who wanted it may have left during any of them.
            if not sub.listeners:
                raise _outcome(sub, last.error, doubt=doubt)
            self._emit_retrying(sub, last, verdict.delay, now)
            if verdict.delay > 0.0:
                await self.clock.sleep(verdict.delay)

    async def _mark(self, sub: Submission, attempts: Attempts, bounds: Bounds, now: float, order: int) -> float:
        """Mark the next attempt, so that it may leave at this very moment, which is returned.

        Writing takes a moment, in which the server may have asked for silence. That may be long, so the mark is undone
        meanwhile: a run that is killed in the silence is not in doubt (or no more than it was).
        """
        while True:
            try:
                now = await attempts.mark(sub, now)
                if self.gate.silent_until <= now:
                    return now
                if sub.phase is Phase.SENDING:
                    await attempts.take_back(sub)
                else:
                    attempts.unanswered(sub)
            except BaseException:
                self._did_not_end(Lane.SUBMIT, now)
                with anyio.CancelScope(shield=True):
                    await attempts.take_back(sub)
                raise
            self._did_not_end(Lane.SUBMIT, now)
            bounds = bounds.for_retries(sub.deadline)
            now = await self.line.wait(Lane.SUBMIT, bounds, now, is_bulk=sub.is_bulk, order=order)

    def _verdict(
        self, sub: Submission, tries: SubmitTries, failed: Failed, bounds: Bounds, now: float, *, doubt: bool
    ) -> Again | GiveUp:
        fault = failed.fault
        if self._is_unreachable(failed):
            self.halt(failed.error, Lane.SUBMIT)
            fault = Fault.STOP
        return tries.failed(
            fault,
            now,
            self.random(),
            doubt=doubt,
            repeatable=self.policy.resends(sub.api.has_idempotency),
            bounds=bounds,
            status=failed.status,
            silence=self.gate.silence(now),
        )

    def _is_unreachable(self, failed: Failed) -> bool:
        """A server that was never reached is a mistake in the set-up, or no network: told at once, not in an hour."""
        if failed.fault is Fault.STOP:
            return isinstance(failed.error, TransportError)
        return failed.fault is Fault.NOT_SENT and self.gate.is_unreachable(self.policy.first_contact_tries)

    def _emit_retrying(self, sub: Submission, failed: Failed, delay: float, now: float) -> None:
        if failed.fault is Fault.DOUBT and not sub.api.has_idempotency:
            # The user chose this (`on_doubt="resend"`), and it may cost a second job: said each time.
            reason = (
                'no usable answer came, and it is sent again (on_doubt="resend"): this API knows no keys, so there may'
                " be two jobs, and two bills"
            )
            self.emit(sub.event(EventKind.WARNING, now, reason=reason))
        reason = failed.error.message
        self.emit(sub.event(EventKind.RETRYING, now, delay=delay, reason=reason, fault=failed.fault.value))

    def _too_late(self, lane: Lane) -> AiopplxError:
        """Why a request of this lane did not leave within its bounds."""
        now = self.clock.now()
        halted = self.gate.halted(now)
        if halted is not None:
            return halted.about()
        silent_server = self.gate.silent_server(now)
        silence = self.gate.silence(now)
        if silent_server >= 1.0 and not silence:
            return TransportError(
                f"not sent: no submission was accepted or rejected for {silent_server:.0f} s; nothing was billed"
            )
        reason = self.gate.why(lane, now)
        said = reason.value if reason is not None else "others were in front"
        return RateLimited(f"not sent within the time limit: {said}; nothing was billed", retry_after=silence or None)

    # --- single calls ------------------------------------------------------------------------------------------------

    async def call(self, call: Call, read: Callable[[Reply], T], sink: Sink | None = None) -> T:
        """A free, repeatable call (`get`, a page of `list`), tried again within the bounds of the policy.

        Args:
            call: what to ask.
            read: makes the result of a 200.
            sink: takes its content, from the beginning at each attempt; None to have it in the reply.

        Raises:
            AiopplxError: what the last attempt brought.
        """
        now = self.clock.now()
        tries = CallTries(self.policy, now)
        attempts = 0
        while True:
            try:
                now = await self.line.wait(call.lane, Bounds(now + self.policy.call_seconds), now)
            except TimeoutError:
                raise self._too_late(call.lane) from None
            attempts += 1
            result, now = await self.attempt(call, read, now, sink)
            if not isinstance(result, Failed):
                return result
            verdict = tries.failed(result.fault, now, self.random(), self.gate.silence(now))
            if isinstance(verdict, GiveUp):
                raise result.error.about(attempts=attempts)
            await self.clock.sleep(verdict.delay)
            now = self.clock.now()


def _outcome(sub: Submission, error: AiopplxError, *, doubt: bool) -> AiopplxError:
    """What a submission that is not sent any more is reported as: its last error, or that a job may exist."""
    error = error.about(idempotency_key=sub.key, tag=sub.tag, attempts=sub.attempts)
    if not doubt:
        return error
    times = "once" if sub.attempts == 1 else f"{sub.attempts} times"
    again = (
        "Sending it again under this same key cannot pay twice where the server honours keys"
        if sub.api.has_idempotency
        else "Sending it again may pay twice, since this API knows no keys"
    )
    if not sub.api.has_list:
        again += "; it has no list of jobs to look in either"
    why = without_bill(error.message)
    named = error.named if isinstance(error, ProtocolError) else ()
    names = f"the server named it {' or '.join(map(repr, named[:3]))}" if named else "its id is unknown"
    in_doubt = InDoubt(
        f"sent {times} and no usable answer came ({why}). A job may exist and be billed; {names}. {again}",
        remedy="Look for it with session.list()" if sub.api.has_list else "",
        idempotency_key=sub.key,
        tag=sub.tag,
        status=error.status,
        type=error.type,
        request_id=error.request_id,
        attempts=sub.attempts,
        body=error.body,
    )
    in_doubt.look_in = "list" if sub.api.has_list else ""
    in_doubt.named = named
    return in_doubt
