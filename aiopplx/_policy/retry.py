"""The retry rule, whole: what a failed attempt means, whether another one is made, and when.

Doubt
-----
A submission costs money at the moment at which the server accepts it. Between that moment and the answer that says so
lies a network, so three things can be known after an attempt, and no more:

- *It was never sent* (`NOT_SENT`), or it was *refused in a complete answer* (`REFUSED`, `THROTTLED`, `STOP`, `ODD`):
  this attempt made no job. Whether another one is worth making is a question of time only.
- *It was accepted*: a complete answer with the id of a job. That is no failure and does not come here.
- *It was sent, and no such answer came* (`DOUBT`). A connection that broke before the server read anything and one that
  broke while the answer was on its way back look the same from here. Nothing that this side does can tell them apart.

Doubt does not go away by itself. A later attempt that is refused says nothing about the earlier one, whose job may run
all the same. There is one exception: bytes that are refused as malformed (400, 413, 422) could not have been accepted
before either. Otherwise only an acceptance under the same idempotency key ends doubt, at a server that honours keys:
sending the same bytes again finds the job or makes it, and never makes a second one. At a server that ignores keys,
each repetition may pay again. One rule says whether a submission in doubt may be sent again: `RetryPolicy.resends`.
Because servers forget keys, `doubt_tries` and `doubt_seconds` bound the repetitions.

A poll is free and changes nothing, so there is no doubt in it (`POLL`). When a job is polled again after a failure is
`polling`'s rule, not this one.

This module knows nothing of sockets, of the gate that all requests share (`gate`), of journals, or of which API is
spoken. It owns no clock and no randomness: `now` and `random` are arguments.
"""

from __future__ import annotations

import enum
import math
import re
from typing import Literal, TypeAlias, cast

import msgspec

from aiopplx._checks.unseen import unseen
from aiopplx._errors import (
    AiopplxError,
    APIError,
    AuthenticationError,
    ConfigError,
    EndpointRetired,
    OutOfCredit,
    ProtocolError,
    ResponseTooLarge,
    TransportError,
)
from aiopplx._wire.call import Broken, Lane, NoReply, Reply
from aiopplx._wire.headers import hint

OnDoubt: TypeAlias = Literal["resend", "hold"]
"""What happens to a submission whose outcome is unknown: it is sent again, or held for the user to decide."""


class Fault(enum.StrEnum):
    """The class of a failed attempt (docs/reliability.md has a row for every cause)."""

    NOT_SENT = "N"
    """It is proved that the request was never sent: retrying is free of doubt."""
    REFUSED = "R"
    """A full answer that says no: retrying the same bytes cannot help."""
    THROTTLED = "T"
    """The server asks for less. It did not act."""
    DOUBT = "D"
    """A submission was sent and its outcome is unknown."""
    POLL = "P"
    """A poll, or another call that is free and repeatable, failed. The job is not affected."""
    STOP = "S"
    """A refusal that no submission can survive: bad key, no credit, retired endpoint."""
    ODD = "O"
    """An answer about the way to the server and not about the job (a redirect): a few more tries, then REFUSED."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Limits on retries. All times are seconds.

    The defaults are those of docs/reliability.md: long enough to survive an outage of a minute, short enough that no
    call goes on for ever in silence.

    Attributes:
        on_doubt: what happens to a submission that was sent and whose outcome is unknown: `"resend"` sends the same
            bytes again under the same key, `"hold"` does not. None, the default: sent again where the API honours
            idempotency keys, so that it cannot be paid twice, and held elsewhere. `"resend"` at an API without keys
            may pay twice, and each time is told as a `WARNING`.
        base: upper bound of the first delay, doubled at each try. The delay is drawn evenly between 0 and the bound.
            Default 0.5.
        throttled_base: the same where the server has said that it is busy. Default 1. A submission that is refused by
            a rate limit (429) waits for its turn at the gate instead; only one that is refused more than three times
            pauses, to let others go before it.
        max_delay: no bound grows beyond this. Default 30.
        doubt_tries, doubt_seconds: how often a submission whose outcome is unknown is sent in all, and for how long
            after the first unanswered attempt; then it is `IN_DOUBT`. Defaults 8 and 900.
        call_tries, call_seconds: the same bounds for `get`, `list` and other single calls. Defaults 4 and 120.
        first_contact_tries: how often a server that was never reached is tried before it is given up. Default 4.
        patience: the longest silence (Retry-After) that a single call waits through; a batch waits longer. Default
            120.
        leave_grace: how long leaving a block waits for the id of a submission that is on its way. Default 2.

    Raises:
        ConfigError: `on_doubt` is not one of its words.
    """

    on_doubt: OnDoubt | None = None
    base: float = 0.5
    throttled_base: float = 1.0
    max_delay: float = 30.0
    doubt_tries: int = 8
    doubt_seconds: float = 900.0
    call_tries: int = 4
    call_seconds: float = 120.0
    first_contact_tries: int = 4
    patience: float = 120.0
    leave_grace: float = 2.0

    @unseen
    def __post_init__(self) -> None:
        """Refuses a word that `on_doubt` does not know: a misspelt "hold" would pay twice."""
        word = cast("object", self.on_doubt)
        if word is not None and not (isinstance(word, str) and word in ("resend", "hold")):
            is_word = isinstance(word, str) and len(word) <= 12  # a longer one may be a secret in the wrong place
            shown = repr(word) if is_word else type(word).__name__
            raise ConfigError(f"must be None, 'resend' or 'hold', not {shown}", argument="on_doubt")

    def resends(self, has_keys: bool) -> bool:
        """Whether a submission whose outcome is unknown is sent again, at an API that has idempotency keys or not."""
        return has_keys if self.on_doubt is None else self.on_doubt == "resend"

    def delay(self, fault: Fault, attempt: int, random: float) -> float:
        """Seconds before the try after the `attempt`-th (from 1): full jitter, so a crowd does not come back as one.

        Args:
            fault: the class of what went wrong with it; a refusal for a limit begins with a longer pause.
            attempt: which one failed.
            random: from 0 to 1.
        """
        base = self.throttled_base if fault is Fault.THROTTLED else self.base
        return random * min(self.max_delay, base * 2.0 ** min(attempt - 1, 16))


class Known(enum.IntEnum):
    """What is known of the way to the server from earlier requests on it.

    Some failures mean a mistake in the set-up at first contact, and a server that is away for a moment later: a name
    that was found and is not found now, a certificate that was valid a minute ago, a path that is gone.
    """

    NOTHING = 0
    REACHED = 1
    """The server has answered."""
    ACCEPTED = 2
    """It has accepted a submission."""


_ON_THE_WAY = frozenset({Broken.DNS, Broken.TLS, Broken.PROXY})
"""What is wrong with a name, a certificate or a proxy may pass, once the server has answered by that way before."""


def classify(lane: Lane, outcome: Reply | NoReply, error: AiopplxError, known: Known = Known.NOTHING) -> Fault:
    """The class of a failed attempt; `error` is what it would be reported as."""
    safe = lane is not Lane.SUBMIT
    if isinstance(outcome, NoReply):
        is_final = outcome.permanent and (not known or outcome.broken not in _ON_THE_WAY)
        if is_final and (safe or not outcome.sent):
            return Fault.STOP
        if safe:
            return Fault.POLL
        return Fault.DOUBT if outcome.sent else Fault.NOT_SENT
    if known is Known.ACCEPTED and not safe and outcome.status in (404, 405) and not error.type:
        return Fault.ODD  # the path is gone, on which submissions were accepted: a gateway that is being changed
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


_MALFORMED = frozenset({400, 413, 422})
_FINAL_REFUSALS = _MALFORMED | {404, 405, 410, 415}


def ends_doubt(status: int | None) -> bool:
    """Whether a refusal with this status also settles earlier attempts with the same bytes whose answer was lost.

    Bytes that are refused as malformed could not have been accepted before either. Any other refusal says nothing about
    an earlier attempt.
    """
    return status in _MALFORMED


def is_final_refusal(error: AiopplxError | None) -> bool:
    """Whether the request itself was refused, so that the same bytes will be refused again in any later run."""
    return isinstance(error, APIError) and error.status in _FINAL_REFUSALS


_REUSE = r"(?is)idempoten\w*.*(reus|different|mismatch|another request)|(reus|different|mismatch).*idempoten"


def _key_reused(error: AiopplxError) -> bool:
    """Does a 409 say that the key belongs to another request? Otherwise the first one is still at work."""
    return bool(re.search(_REUSE, f"{error.type} {error.message}"))


def error_of_no_reply(no: NoReply, *, lane: Lane, limit: int) -> AiopplxError:
    """The error that an exchange without a usable answer is reported as."""
    if no.broken is Broken.TOO_LARGE and lane is Lane.FILE:
        return ResponseTooLarge(
            f"the file is larger than {limit:,} bytes, so it was not kept",
            remedy="NetworkOptions(max_file_bytes=) allows more",
        )
    if no.broken is Broken.TOO_LARGE:
        return ResponseTooLarge(
            f"the answer is larger than {limit:,} bytes; reading stopped there. The job stays at the server",
            remedy="A session with a larger NetworkOptions(max_response_bytes=) can read it",
        )
    if no.broken is Broken.CLOSED:
        fate = "; nothing was sent, nothing was billed" if lane is Lane.SUBMIT else ""
        return ConfigError(f"the aiohttp.ClientSession given as http= is closed{fate}. Close it after this session")
    if no.broken is Broken.MALFORMED:
        return ProtocolError(f"{no.broken.value}: {no.detail}")
    fate = ""
    if lane is Lane.SUBMIT:
        fate = " after the request was sent" if no.sent else "; nothing was sent, nothing was billed"
    remedy = "Session(network=NetworkOptions(trust_env=True)) uses it" if no.unused_proxy else ""
    error = TransportError(f"{no.broken.value}: {no.detail}{fate}", remedy=remedy)
    error.sent = no.sent
    error.unused_proxy = no.unused_proxy
    return error


def without_bill(message: str) -> str:
    """A message without its last words on the bill, where an earlier attempt may have made a job that is billed."""
    for said in ("; nothing was billed", "; this call was not billed", "; nothing was sent, nothing was billed"):
        message = message.removesuffix(said)
    return message


class Bounds(msgspec.Struct, frozen=True):
    """How long a request may wait to leave, or to leave again.

    Attributes:
        until: the latest monotonic moment at which it may leave.
        silence: the longest silence, in seconds, that is waited through when the server asks for it (Retry-After).
        unanswered: for how many seconds submissions may go without a single one being accepted or rejected,
            whoever made them, before waiting for the first attempt is given up.
    """

    until: float = math.inf
    silence: float = math.inf
    unanswered: float = math.inf

    @classmethod
    def within(cls, timeout: float, *, until: float = math.inf, silence: float = math.inf) -> Bounds:
        """The bounds of a submission whose job may take `timeout` seconds: no reason to wait may outlast that."""
        return cls(until, min(silence, timeout), timeout)

    def for_retries(self, deadline: float) -> Bounds:
        """The same bounds once an attempt was made, after which nothing leaves later than `deadline`.

        From then on `RetryPolicy` bounds how long nothing is answered, and not the experience of other submissions.
        """
        return Bounds(min(self.until, deadline), self.silence)


class Again(msgspec.Struct, frozen=True):
    """Make another attempt after `delay` seconds."""

    delay: float


class GiveUp(msgspec.Struct, frozen=True):
    """Make no other attempt. `doubt`: an earlier or this attempt may have made a job."""

    doubt: bool = False


LIMITED = 3
"""How often a submission may be refused by a rate limit before it makes way for others."""


class SubmitTries:
    """The failed attempts of one submission: counts them, and decides whether another follows.

    Whether there is doubt is not remembered here: it is the phase of the submission. What is counted is how often, and
    since when, because that bounds the repetitions.
    """

    __slots__ = ("_doubt_since", "_doubts", "_limited", "_odd", "_policy", "_tries")

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._tries = 0
        self._odd = 0
        self._limited = 0
        self._doubts = 0
        self._doubt_since = 0.0

    def failed(
        self,
        fault: Fault,
        now: float,
        random: float,
        *,
        doubt: bool,
        repeatable: bool,
        bounds: Bounds,
        status: int | None = None,
        silence: float = 0.0,
    ) -> Again | GiveUp:
        """Decide after a failed attempt.

        Args:
            fault: its class.
            now: monotonic seconds.
            random: even in [0, 1).
            doubt: the outcome of this attempt, or of an earlier one under the same key, is unknown.
            repeatable: a submission in doubt may be sent again (`RetryPolicy.resends`).
            bounds: the latest moment of another attempt, and the longest silence to wait through for it.
            status: the HTTP status, None without an answer.
            silence: seconds for which the gate lets nothing leave anyway.
        """
        self._tries += 1
        if fault is Fault.DOUBT:
            if not self._doubts:
                self._doubt_since = now
            self._doubts += 1
        if not self._may_go_on(fault, now, repeatable):
            return GiveUp(doubt=doubt and not (fault is Fault.REFUSED and ends_doubt(status)))
        delay = max(self._delay(fault, now, random, status, bounds), silence)
        if status == 409:
            delay = max(delay, 1.0)  # the first attempt is still at work: give it a moment
        if now + delay >= bounds.until or (fault is Fault.THROTTLED and silence > bounds.silence):
            return GiveUp(doubt=doubt)
        return Again(delay)

    def _delay(self, fault: Fault, now: float, random: float, status: int | None, bounds: Bounds) -> float:
        if fault is not Fault.THROTTLED or status != 429:
            return self._policy.delay(fault, self._tries, random)
        # The gate paces all submissions, and this one goes first again. Many are refused together, so only one that is
        # refused again and again lets others go before it. It is not given up for that, as long as there is time.
        self._limited += 1
        if self._limited <= LIMITED:
            return 0.0
        delay = self._policy.delay(fault, self._limited - LIMITED, random)
        return min(delay, max(1.0, (bounds.until - now) / 4.0))

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


class CallTries:
    """The attempts of one single call that is free and repeatable (`get`, `list`)."""

    __slots__ = ("_policy", "_started", "_tries")

    def __init__(self, policy: RetryPolicy, now: float) -> None:
        self._policy = policy
        self._started = now
        self._tries = 0

    def failed(self, fault: Fault, now: float, random: float, silence: float = 0.0) -> Again | GiveUp:
        """Decide after a failed attempt; arguments as `SubmitTries.failed`."""
        self._tries += 1
        policy = self._policy
        if fault in (Fault.REFUSED, Fault.STOP) or self._tries >= policy.call_tries:
            return GiveUp()
        delay = max(policy.delay(fault, self._tries, random), silence)
        return GiveUp() if now + delay - self._started > policy.call_seconds else Again(delay)
