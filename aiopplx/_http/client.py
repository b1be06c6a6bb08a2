"""The only retry loop: wait at the gate, make an attempt, read it, ask the policy, sleep, again.

Between the transport, which makes attempts, and the session, which wants results. This module knows nothing of aiohttp,
of batches, or of when a running job should be looked at.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import anyio
import msgspec

from aiopplx._errors import (
    AiopplxError,
    APIError,
    EndpointRetired,
    InDoubt,
    ProtocolError,
    RateLimited,
    TransportError,
)
from aiopplx._events import Event, EventKind
from aiopplx._http.clock import Clock
from aiopplx._http.transport import Transport
from aiopplx._job import Snapshot
from aiopplx._policy.gate import Gate
from aiopplx._policy.retry import Again, CallTries, Fault, Over, RetryPolicy, SubmitTries, classify, error_of_no_reply
from aiopplx._submission import Submission
from aiopplx._wire.call import Call, Lane, NoReply, Reply, error_of
from aiopplx._wire.headers import counts, exhausted_until, hint

T = TypeVar("T")
logger = logging.getLogger("aiopplx")

SUBMITS_AT_ONCE = 32


class Failed(msgspec.Struct, frozen=True):
    """An attempt that brought nothing usable: its class, what it is reported as, what the server asked for."""

    fault: Fault
    error: AiopplxError
    status: int | None = None
    pause: float = 0.0


class Log(Protocol):
    """Where attempts of a submission are written down."""

    async def sending(self, sub: Submission) -> None:
        """The next attempt may leave once this returns. Raises `AiopplxError`: then it does not."""
        ...

    async def not_sent(self, sub: Submission) -> None:
        """What was said to be sent was not, or was refused: no job can exist of it. Raises nothing."""
        ...


class Client:
    """Makes calls for a session. All of them pass the one gate."""

    def __init__(
        self,
        transport: Transport,
        gate: Gate,
        policy: RetryPolicy,
        *,
        clock: Clock,
        random: Callable[[], float],
        tell: Callable[[Event], None],
        listened: Callable[[], bool],
        sole_path: str = "",
    ) -> None:
        self.transport = transport
        self.gate = gate
        self.policy = policy
        self.clock = clock
        self.random = random
        self.tell = tell
        self.listened = listened
        self._sole_path = sole_path
        self.changed = asyncio.Event()
        self.limits: Mapping[str, int] = {}
        self._first_in_line = {lane: asyncio.Lock() for lane in Lane}
        self._submits = anyio.Semaphore(SUBMITS_AT_ONCE)

    # --- one attempt -------------------------------------------------------------------------------------------------

    async def attempt(self, call: Call, read: Callable[[Reply], T]) -> T | Failed:
        """One exchange, through the gate that the caller has just passed, and what it means for everybody."""
        left_at = self.clock.now()
        try:
            outcome = await self.transport.exchange(call)
        finally:
            self.gate.back(left_at)
        error: AiopplxError
        if not isinstance(outcome, Reply):
            error = error_of_no_reply(outcome, lane=call.lane, limit=self.transport.limit)
            return self._failed(call, outcome, error, left_at)
        if "x-ratelimit-limit" in outcome.headers:
            self.limits = counts(outcome.headers)
        if 200 <= outcome.status < 300:
            try:
                value = read(outcome)
            except ProtocolError as problem:
                error = problem
            else:
                gate = self.gate
                gate.answered(call.lane, accepted=True)
                if gate.stop is not None and gate.accepted(call.lane):
                    self.tell(Event(kind=EventKind.RESUMED))
                if "x-ratelimit-remaining" in outcome.headers and (seconds := exhausted_until(outcome.headers)):
                    gate.used_up(self.clock.now(), seconds)
                return value
        else:
            error = error_of(outcome)
        return self._failed(call, outcome, error, left_at)

    def _failed(self, call: Call, outcome: Reply | NoReply, error: AiopplxError, left_at: float) -> Failed:
        lane = call.lane
        error.message = self.transport.scrub(error.message)
        error.args = (error.message,)
        error.body, error.type = self.transport.scrub(error.body), self.transport.scrub(error.type)
        error.request_id = self.transport.scrub(error.request_id)
        fault = classify(lane, outcome, error)
        now = self.clock.now()
        status = outcome.status if isinstance(outcome, Reply) else None
        pause = 0.0
        if fault is Fault.THROTTLED and isinstance(outcome, Reply):
            asked = hint(outcome.headers)
            if asked is None:
                asked = exhausted_until(outcome.headers)
            error.retry_after = asked
            pause = self.gate.throttled(lane, now, left_at, asked, self.random())
        elif fault in (Fault.NOT_SENT, Fault.DOUBT, Fault.POLL):
            connected = isinstance(outcome, Reply) or outcome.sent
            if isinstance(outcome, Reply) and status is not None and status < 500:
                self.gate.answered(lane, accepted=False)  # a wrong answer, but of a server that works
            else:
                pause = self.gate.failed(now, connected=connected, left_at=left_at)
            if lane is Lane.SUBMIT:
                self.gate.submit_failed(now)
        elif fault is Fault.STOP and isinstance(error, APIError):
            self.gate.answered(lane, accepted=False)
            if lane in (Lane.SUBMIT, Lane.POLL) and not self.is_survived(error, call):
                self.halt(error, lane)
        elif isinstance(outcome, Reply):
            self.gate.answered(lane, accepted=False)
        if pause >= 1.0:
            self.tell(Event(kind=EventKind.PAUSED, delay=pause, reason=error.message, fault=fault.value))
        self._wake()
        return Failed(fault, error, status, pause)

    # --- the gate ----------------------------------------------------------------------------------------------------

    def is_survived(self, error: AiopplxError, call: Call) -> bool:
        """A retired API stops nothing where submissions can go to another: only `sole_path` has no successor."""
        return isinstance(error, EndpointRetired) and not (self._sole_path and call.path.startswith(self._sole_path))

    def halt(self, error: AiopplxError, lane: Lane) -> None:
        """Stop all submissions; told once. What stops all of them is about none: the names of the first go."""
        error = error.about()
        error.job_id = error.idempotency_key = ""
        error.tag, error.attempts = None, 0
        if self.gate.halt(error, lane, self.clock.now()):
            self.tell(Event(kind=EventKind.STOPPED, reason=str(error), fault=Fault.STOP.value))
        self._wake()

    def resume(self) -> None:
        """Let submissions go on after a stop."""
        if self.gate.resume():
            self.tell(Event(kind=EventKind.RESUMED))
        self._wake()

    def _wake(self) -> None:
        """Everybody who waits at the gate looks again."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def _place(self, places: asyncio.Lock | anyio.Semaphore, until: float) -> None:
        """Wait for a place; raises `TimeoutError` at `until`, whoever waits in front and for how long."""
        if until == math.inf:
            await places.acquire()
            return
        async with self.clock.timeout(max(0.0, until - self.clock.now())):
            await places.acquire()

    def _passes(self, lane: Lane) -> bool:
        """Let a request of this lane leave if nobody and nothing is in its way."""
        gate = self.gate
        now = self.clock.now()
        if gate.stop is not None or self._first_in_line[lane].locked() or gate.delay(lane, now) > 0.0:
            return False
        gate.leave(lane, now)
        return True

    async def _pass(self, lane: Lane, *, until: float, patience: float = math.inf, stamina: float = math.inf) -> None:
        """Wait in line until a request of this lane may leave.

        Raises:
            AiopplxError: the session's stop, if nothing may be submitted any more.
            TimeoutError: that would be later than `until`, or after a silence of more than `patience` seconds, or
                submissions have been failing for `stamina` seconds, whoever's they are.
        """
        if self._passes(lane):
            return
        if self.gate.silence(self.clock.now()) > patience:
            raise TimeoutError
        line = self._first_in_line[lane]
        await self._place(line, until)
        try:
            while True:
                now = self.clock.now()
                if lane is Lane.SUBMIT and (stop := self.gate.halted(now)) is not None:
                    raise stop.about()
                delay = self.gate.delay(lane, now)
                if delay <= 0.0:
                    self.gate.leave(lane, now)
                    return
                left = stamina - self.gate.barren(now)
                if now + delay > until or self.gate.silence(now) > patience or left <= 0.0:
                    raise TimeoutError
                await self.clock.wait(self.changed, min(delay, left))
        finally:
            line.release()

    # --- submissions -------------------------------------------------------------------------------------------------

    async def submit(
        self,
        sub: Submission,
        *,
        patience: float,
        until: float | None = None,
        log: Log | None = None,
    ) -> Snapshot:
        """Send a submission until the server has it, refuses it, or its fate stays unknown.

        Args:
            sub: what to send; the same bytes at every attempt.
            patience: seconds of silence (Retry-After) that may be waited through.
            until: the moment (monotonic) after which no attempt is made; None: `sub.timeout` after the first one. No
                silence longer than `sub.timeout` is waited through either way.
            log: told of each attempt, once it may leave: what it writes is on disk before the first byte.

        Raises:
            InDoubt: a job may exist whose id is unknown.
            AiopplxError: the server refused, or nothing could be sent; nothing was billed.
        """
        patience = min(patience, sub.timeout)
        latest = math.inf if until is None else until
        if self._submits.value:
            self._submits.acquire_nowait()
        else:
            try:
                await self._place(self._submits, latest)
            except TimeoutError:
                raise self._too_late() from None
        try:
            if not self._passes(Lane.SUBMIT):
                await self._pass(Lane.SUBMIT, until=latest, patience=patience, stamina=sub.timeout)
            sub.deadline = self.clock.now() + sub.timeout if until is None else until
            return await self._send(sub, patience, log)
        except TimeoutError:
            raise self._too_late() from None
        finally:
            self._submits.release()

    async def _send(self, sub: Submission, patience: float, log: Log | None) -> Snapshot:
        """The attempts of one submission, the first of which may leave now."""
        api = sub.api
        call = api.submit(sub.body)
        tries = SubmitTries(self.policy, sub.deadline, was_in_doubt=sub.was_in_doubt)
        last: Failed | None = None
        while True:
            try:
                if last is not None:
                    await self._pass(Lane.SUBMIT, until=tries.deadline, patience=patience)
                if log is not None:
                    await self._write_ahead(sub, patience, log, doubt=tries.doubtful)
            except (TimeoutError, AiopplxError) as error:
                if last is None:
                    raise
                if isinstance(error, AiopplxError):
                    last = Failed(Fault.STOP, error)
                raise self._final(sub, last, doubt=tries.doubtful) from None
            sub.attempts += 1
            sub.sending = True
            try:
                result = await self.attempt(call, api.read_job)
            finally:
                sub.sending = False
            if not isinstance(result, Failed):
                return result
            last = result
            verdict = self._after(sub, tries, last, patience)
            if isinstance(verdict, Again) and sub.leaving:
                verdict = Over(doubt=tries.doubtful)
            if isinstance(verdict, Over):
                raise self._final(sub, last, doubt=verdict.doubt)
            self._retrying(sub, last, verdict.delay)
            if log is not None and not tries.doubtful:
                await log.not_sent(sub)  # the pause may be long, and a run that is killed in it is not in doubt
            await self.clock.sleep(verdict.delay)

    async def _write_ahead(self, sub: Submission, patience: float, log: Log, *, doubt: bool) -> None:
        try:
            await log.sending(sub)
            # Writing took a moment, in which the server may have asked for silence. That may be long, and a run that
            # is killed in it is not in doubt: the mark is taken back meanwhile.
            while self.gate.silence(self.clock.now()) > 0.0:
                if not doubt:
                    await log.not_sent(sub)
                await self._pass(Lane.SUBMIT, until=sub.deadline, patience=patience)
                await log.sending(sub)
        except BaseException:
            if not doubt:
                with anyio.CancelScope(shield=True):
                    await log.not_sent(sub)
            raise

    def _after(self, sub: Submission, tries: SubmitTries, failed: Failed, patience: float) -> Again | Over:
        now = self.clock.now()
        verdict = tries.failed(
            failed.fault,
            now,
            self.random(),
            repeatable=sub.repeatable,
            status=failed.status,
            silence=self.gate.silence(now),
        )
        if self._unreachable(failed):
            verdict = Over(doubt=tries.doubtful)
            self.halt(failed.error, Lane.SUBMIT)
        if isinstance(verdict, Again) and failed.fault is Fault.THROTTLED and self.gate.silence(now) > patience:
            return Over(doubt=tries.doubtful)
        return verdict

    def _unreachable(self, failed: Failed) -> bool:
        """A server that was never reached is a mistake in the set-up, or no network: told at once, not in an hour."""
        if isinstance(failed.error, TransportError) and failed.fault is Fault.STOP:
            return True
        return (
            failed.fault is Fault.NOT_SENT
            and not self.gate.reached
            and self.gate.unreached_tries >= self.policy.first_contact_tries
        )

    def _retrying(self, sub: Submission, failed: Failed, delay: float) -> None:
        if failed.fault is Fault.DOUBT and not sub.api.has_idempotency:
            self._tell_of_resend(sub)
        self.tell(
            Event(
                kind=EventKind.RETRYING,
                idempotency_key=sub.key,
                tag=sub.tag,
                index=sub.index,
                attempt=sub.attempts,
                delay=delay,
                reason=failed.error.message,
                fault=failed.fault.value,
            )
        )

    def _tell_of_resend(self, sub: Submission) -> None:
        """It is the user's choice (`on_doubt="resend"`), and may cost a second job: said each time."""
        reason = (
            'no usable answer came, and it is sent again (on_doubt="resend"): this API knows no keys, so there may be'
            " two jobs, and two bills"
        )
        self.tell(
            Event(
                kind=EventKind.WARNING,
                idempotency_key=sub.key,
                tag=sub.tag,
                index=sub.index,
                attempt=sub.attempts,
                reason=reason,
            )
        )

    def _too_late(self) -> AiopplxError:
        now = self.clock.now()
        halted = self.gate.halted(now)
        if halted is not None:
            return halted.about()
        barren = self.gate.barren(now)
        if barren >= 1.0 and not self.gate.silence(now):
            return TransportError(
                f"not sent: the server has answered no submission with yes or no for {barren:.0f} seconds; nothing was"
                " billed"
            )
        return RateLimited(
            "not sent: the pace, or a pause the server asked for, outlasts the time limit; nothing was billed",
            retry_after=self.gate.silence(now) or None,
        )

    def _final(self, sub: Submission, last: Failed, *, doubt: bool) -> AiopplxError:
        error = last.error.about(idempotency_key=sub.key, tag=sub.tag, attempts=sub.attempts)
        if not doubt:
            return error
        times = "once" if sub.attempts == 1 else f"{sub.attempts} times"
        advice = (
            "Look for it with session.list(); sending it again under this same key cannot pay twice where the server"
            " honours keys"
            if sub.api.has_idempotency
            else "This API knows no keys and has no list: whoever sends it again may pay twice"
        )
        return InDoubt(
            f"sent {times} and no usable answer came ({error.message}). A job may exist and be billed; its id is"
            f" unknown. {advice}",
            idempotency_key=sub.key,
            tag=sub.tag,
            status=error.status,
            type=error.type,
            request_id=error.request_id,
            attempts=sub.attempts,
            body=error.body,
        )

    # --- single calls ------------------------------------------------------------------------------------------------

    async def call(self, call: Call, read: Callable[[Reply], T]) -> T:
        """A free, repeatable call (`get`, a page of `list`), tried again within the bounds of the policy.

        Raises:
            AiopplxError: what the last attempt brought.
        """
        tries = CallTries(self.policy, self.clock.now())
        attempts = 0
        while True:
            try:
                await self._pass(call.lane, until=self.clock.now() + self.policy.call_seconds)
            except TimeoutError:
                raise self._too_late() from None
            attempts += 1
            result = await self.attempt(call, read)
            if not isinstance(result, Failed):
                return result
            now = self.clock.now()
            verdict = tries.failed(result.fault, now, self.random(), self.gate.silence(now))
            if isinstance(verdict, Over):
                raise result.error.about(attempts=attempts)
            await self.clock.sleep(verdict.delay)
