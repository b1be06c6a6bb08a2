"""What a failed attempt means, and whether and when to make another.

Two facts decide: did the request leave, and was a complete answer read. This module knows nothing of sockets, of the
gate all requests share (`pacing`), or of which API is spoken.
"""

from __future__ import annotations

import enum
import re
from typing import Literal, TypeAlias

import msgspec

from aiopplx._errors import (
    AiopplxError,
    AuthenticationError,
    EndpointRetired,
    OutOfCredit,
    ProtocolError,
    ResponseTooLarge,
    TransportError,
)
from aiopplx._wire.call import Broken, Lane, NoReply, Reply
from aiopplx._wire.headers import hint


class Fault(enum.StrEnum):
    """The class of a failed attempt (docs/reliability.md has a row for every cause)."""

    NOT_SENT = "N"
    """It is proved that the request never left: retrying is free of doubt."""
    REFUSED = "R"
    """A full answer that says no: retrying the same bytes cannot help."""
    THROTTLED = "T"
    """The server asks for less. It did not act."""
    DOUBT = "D"
    """A submission left and its fate is unknown."""
    POLL = "P"
    """A look failed. Looking is free and repeatable; the job is not affected."""
    STOP = "S"
    """A refusal that no submission can survive: bad key, no credit, retired endpoint."""
    ODD = "O"
    """An answer about the way to the server and not about the job (a redirect): a few more tries, then REFUSED."""


OnDoubt: TypeAlias = Literal["resend", "hold"]
"""What happens to a submission that was sent and not answered: the same bytes again, or nothing."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on trying again. All times are seconds.

    The defaults are those of docs/reliability.md: long enough for an outage of a minute to be nobody's problem, short
    enough that nothing goes on for ever in silence.

    Attributes:
        base: upper bound of the first delay; doubled at each try. The delay is drawn evenly between 0 and the bound.
        throttled_base: the same after a 429, where the server has said that it is busy.
        max_delay: no bound grows beyond this.
        doubt_tries, doubt_seconds: a submission whose fate is unknown is sent again, under the same key, at most so
            many times in all and for so long; then it is IN_DOUBT.
        call_tries, call_seconds: the same bounds for `get`, `list` and other single calls.
        first_contact_tries: a server that was never reached is given up after so many tries.
        patience: the longest silence (Retry-After) that a single call waits through; a batch waits longer.
        missing_grace: a 404 so soon after acceptance is the server's own delay, not an answer.
        missing_recheck: a 404 later than that is asked once more after this long, and believed then.
        empty_looks, empty_seconds: COMPLETED without an answer is looked at so many times more over so long.
        unreadable_looks, unreadable_seconds: so many looks in a row that cannot be read, over at least so long, are
        final.
        refused_look: pause of all looks after the server refused one (401, 403).
        leave_grace: leaving a block waits so long for the id of a submission that is on its way.
        on_doubt: what happens to a submission that was sent and not answered: `"resend"` the same bytes under the same
            key, or `"hold"` it for you to decide. None, the default: resend where the API honours keys (Sonar), hold
            where it has none (the Agent API), since there a second sending may be a second bill.
    """

    base: float = 0.5
    throttled_base: float = 1.0
    max_delay: float = 30.0
    doubt_tries: int = 8
    doubt_seconds: float = 900.0
    call_tries: int = 4
    call_seconds: float = 120.0
    first_contact_tries: int = 4
    patience: float = 120.0
    missing_grace: float = 60.0
    missing_recheck: float = 30.0
    empty_looks: int = 3
    empty_seconds: float = 30.0
    unreadable_looks: int = 8
    unreadable_seconds: float = 120.0
    refused_look: float = 30.0
    leave_grace: float = 2.0
    on_doubt: OnDoubt | None = None

    def delay(self, fault: Fault, attempt: int, random: float) -> float:
        """Seconds before the try after the `attempt`-th (from 1): full jitter, so a crowd does not come back as one."""
        base = self.throttled_base if fault is Fault.THROTTLED else self.base
        return random * min(self.max_delay, base * 2.0 ** min(attempt - 1, 16))


def classify(lane: Lane, outcome: Reply | NoReply, error: AiopplxError) -> Fault:
    """The class of an attempt that brought nothing usable; `error` is what it would be reported as."""
    safe = lane is not Lane.SUBMIT
    if isinstance(outcome, NoReply):
        if outcome.permanent and (safe or not outcome.sent):
            return Fault.STOP
        if safe:
            return Fault.POLL
        return Fault.DOUBT if outcome.sent else Fault.NOT_SENT
    return _classify_status(outcome, error, safe)


def _classify_status(reply: Reply, error: AiopplxError, safe: bool) -> Fault:
    status = reply.status
    unknown = Fault.POLL if safe else Fault.DOUBT
    if isinstance(error, (AuthenticationError, OutOfCredit, EndpointRetired)):
        return Fault.STOP
    if status in (425, 429) or (status == 503 and hint(reply.headers) is not None):
        return Fault.THROTTLED
    if status < 300:
        return unknown
    if status < 400:
        return Fault.POLL if safe else Fault.ODD
    if status == 409 and not safe:
        return Fault.REFUSED if _key_reused(error) else Fault.DOUBT
    if status == 408 or status >= 500:
        return unknown
    return Fault.REFUSED


_REUSE = re.compile(
    r"idempoten\w*.*(reus|different|mismatch|another request)|(reus|different|mismatch).*idempoten", re.I | re.S
)


def _key_reused(error: AiopplxError) -> bool:
    """Does a 409 say that the key belongs to another request? Otherwise the first one is still at work."""
    return bool(_REUSE.search(f"{error.type} {error.message}"))


def error_of_no_reply(no: NoReply, *, lane: Lane, limit: int) -> AiopplxError:
    """What an exchange without a usable answer is reported as."""
    if no.broken is Broken.TOO_LARGE:
        return ResponseTooLarge(
            f"the answer is larger than {limit:,} bytes; reading stopped there. The job stays at the server: a session"
            " with a larger max_response_bytes can read it"
        )
    if no.broken is Broken.MALFORMED:
        return ProtocolError(f"{no.broken.value}: {no.detail}")
    fate = ""
    if lane is Lane.SUBMIT:
        fate = " after the request was sent" if no.sent else "; nothing was sent, nothing was billed"
    error = TransportError(f"{no.broken.value}: {no.detail}{fate}")
    error.sent = no.sent
    return error


class Again(msgspec.Struct, frozen=True):
    """Make another attempt after `delay` seconds."""

    delay: float


class Over(msgspec.Struct, frozen=True):
    """Make no other attempt. `doubt`: an earlier or this attempt may have made a job."""

    doubt: bool = False


class SubmitTries:
    """The attempts of one submission: counts them and decides on the next. Pure: time and chance are arguments."""

    __slots__ = ("_doubt_since", "_doubts", "_odd", "_policy", "_tries", "_was_in_doubt", "deadline")

    def __init__(self, policy: RetryPolicy, deadline: float, *, was_in_doubt: bool = False) -> None:
        self._policy = policy
        self.deadline = deadline
        self._was_in_doubt = was_in_doubt
        self._tries = 0
        self._odd = 0
        self._doubts = 0
        self._doubt_since = 0.0

    @property
    def tries(self) -> int:
        """Failed attempts so far."""
        return self._tries

    @property
    def doubtful(self) -> bool:
        """True if some attempt, of this run or an earlier one, may have made a job."""
        return self._was_in_doubt or self._doubts > 0

    def failed(
        self, fault: Fault, now: float, random: float, *, repeatable: bool, status: int | None, silence: float = 0.0
    ) -> Again | Over:
        """Decide after a failed attempt.

        Args:
            fault: its class.
            now: monotonic seconds.
            random: even in [0, 1).
            repeatable: the API honours idempotency keys, so a doubtful submission may be sent again.
            status: the HTTP status, None without an answer.
            silence: seconds for which the gate lets nothing out anyway.
        """
        self._tries += 1
        if fault is Fault.DOUBT:
            if not self._doubts:
                self._doubt_since = now
            self._doubts += 1
        if not self._may_go_on(fault, now, repeatable):
            return Over(doubt=self._over_in_doubt(fault, status))
        delay = max(self._policy.delay(fault, self._tries, random), silence)
        if status == 409:
            delay = max(delay, 1.0)
        if now + delay >= self.deadline:
            return Over(doubt=self.doubtful)
        return Again(delay)

    def _may_go_on(self, fault: Fault, now: float, repeatable: bool) -> bool:
        policy = self._policy
        if fault in (Fault.REFUSED, Fault.STOP):
            return False
        if fault is Fault.ODD:
            self._odd += 1
            return self._odd < policy.call_tries
        if not self._doubts:
            return True
        return repeatable and self._doubts < policy.doubt_tries and now - self._doubt_since < policy.doubt_seconds

    def _over_in_doubt(self, fault: Fault, status: int | None) -> bool:
        # The same bytes refused as malformed were refused, unseen, the first time too; any other refusal tells nothing
        # of an earlier attempt whose answer was lost.
        return self.doubtful and not (fault is Fault.REFUSED and status in (400, 413, 422))


class CallTries:
    """The attempts of one single call that is free and repeatable (`get`, `list`)."""

    __slots__ = ("_policy", "_started", "_tries")

    def __init__(self, policy: RetryPolicy, now: float) -> None:
        self._policy = policy
        self._started = now
        self._tries = 0

    def failed(self, fault: Fault, now: float, random: float, silence: float = 0.0) -> Again | Over:
        """Decide after a failed attempt; arguments as `SubmitTries.failed`."""
        self._tries += 1
        policy = self._policy
        if fault in (Fault.REFUSED, Fault.STOP) or self._tries >= policy.call_tries:
            return Over()
        delay = max(policy.delay(fault, self._tries, random), silence)
        return Over() if now + delay - self._started > policy.call_seconds else Again(delay)
