"""The one gate through which every request of an account leaves, and the reasons for which it is shut.

Four reasons to hold a request back
-----------------------------------
A client that lives through a bad hour has to tell apart why the server does not do as asked, because each reason ends
in another way. `Cause` lists them in the order in which the gate asks for them:

1. A *stop*: no submission can succeed (bad key, no credit, retired API). Nothing but the user, or time, can help.
2. *Silence*: the server said how long nothing may be sent (Retry-After). It is obeyed by every request, whichever
   request was told so.
3. An *outage*: the server does not answer at all. One request at a time finds out whether it is back.
4. A *limit* of submissions, of polls, or of both, which is found out or given (`_policy.limits`).

Three more things are known here because every request of the account brings news of them, although they hold nothing
back: whether the server was ever reached (`FirstContact`), since when no submission was accepted or rejected
(`Unanswered`), and when the last answer came (`LastAnswer`). Whoever waits at the gate decides by the first two when
waiting has become pointless; people are told by the third.

Each of these is a small value that is right by itself: it has its own facts, and no other value writes them. `Gate`
passes on what happened to the values that it concerns, asks them in turn, and decides nothing else. There is one
synchronous pass for a request: `delay` says how long until it may leave and changes nothing, `leave` records that it
does.

This module knows nothing of tasks or clocks (`now` is an argument, in monotonic seconds), nor of who shares a gate.
"""

from __future__ import annotations

import enum
import math

from aiopplx._errors import AiopplxError, APIError
from aiopplx._policy.limits import Limits
from aiopplx._policy.retry import Known
from aiopplx._wire.call import Lane

SILENT_AFTER = 5
"""Attempts in a row without an answer, over all jobs, after which the server counts as down."""

FIRST_PROBE, LAST_PROBE = 1.0, 60.0
"""Seconds between two probes of a server that does not answer: doubled from the first to the last."""
FORGOTTEN = 3 * LAST_PROBE
"""Seconds without an attempt after which one that failed says nothing of now: whoever made it has given up."""
LONGEST_PROBE = 120.0
"""Seconds after which a probe that never reported back is given up. No exchange may take longer."""
STOP_PROBE = 30.0
"""Seconds after a stop at which a submission is tried again."""

# A constant of the module: on the way of every request, looking it up in the enum costs more than the comparison.
_SUBMIT = Lane.SUBMIT


class Cause(enum.Enum):
    """Why a request may not leave now."""

    STOP = "submissions are stopped"
    SILENCE = "the server asked for silence"
    OUTAGE = "the server does not answer"
    LIMIT = "the rate limit allows no more"


class Stop:
    """Whether submissions are stopped: by a refusal that no other submission would survive either.

    A bad key, no credit or a retired API are refused at once, without being billed, and the next submission would be
    refused in the same way. So for `STOP_PROBE` seconds each one fails here with the same error. After that one may
    leave and find out: a backend recovers by itself once somebody has renewed the key or added credit.

    A refused poll says more than a refused submission: results cannot be read either, so there is nothing to wait for.
    It takes an accepted poll to lift that. An accepted poll lifts the whole stop only if a poll began it: an account
    without credit is still allowed to read.

    Attributes:
        error: what the last refusal said, None if submissions are not stopped.
        polls_refused: whether polls are refused too.
    """

    __slots__ = ("_begun_by_poll", "_until", "error", "polls_refused")

    def __init__(self) -> None:
        self.error: AiopplxError | None = None
        self.polls_refused: bool = False
        self._begun_by_poll = False
        self._until = 0.0

    def refused(self, error: AiopplxError, now: float, *, by_poll: bool) -> bool:
        """The server refused everything like this. True if that is news: it was not stopped, or for another reason."""
        is_news = self.error is None or type(self.error) is not type(error) or (by_poll and not self.polls_refused)
        if self.error is None:
            self._begun_by_poll = by_poll
        self.error = error
        self._until = now + STOP_PROBE
        self.polls_refused = self.polls_refused or by_poll
        return is_news

    def accepted(self, *, is_poll: bool) -> bool:
        """The server accepts this key for this kind of request. True if submissions go on because of that."""
        if not is_poll or self._begun_by_poll:
            return self.lift()
        self.polls_refused = False
        return False

    def lift(self) -> bool:
        """Submissions may continue. True if they were stopped."""
        was_stopped = self.error is not None
        self.error = None
        self.polls_refused = False
        return was_stopped

    def error_at(self, now: float) -> AiopplxError | None:
        """The error that every submission gets now; None if one may try."""
        return self.error if self.error is not None and now < self._until else None


class Silence:
    """For how long the server wants to hear nothing.

    A Retry-After is a promise to every request of the account, polls included: the server asked for silence, not for
    slower submissions. It is stretched by up to a tenth, so that those who wait do not all come back at one moment, and
    never shortened by anything that is said later.

    Attributes:
        until: the moment up to which nothing leaves.
    """

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = 0.0

    def asked(self, now: float, seconds: float, random: float = 0.0) -> float:
        """The server asked for `seconds` of silence. Returns the seconds that follow, stretched by `random`."""
        pause = seconds * (1.0 + random / 10.0)
        self.until = max(self.until, now + pause)
        return pause

    def seconds(self, now: float) -> float:
        """Seconds for which nothing may leave at all."""
        return max(0.0, self.until - now)


class Breaker:
    """Whether the server answers at all, and when to try whether it is back: a circuit breaker.

    One lost answer happens; `SILENT_AFTER` in a row, over all jobs, are an outage. From then on (the breaker is open)
    one request at a time goes out as a probe, further and further apart. So an outage costs a handful of requests,
    however many jobs wait, and the server is not flooded at the moment at which it comes back. Any complete answer
    closes the breaker, whatever it says: a server that refuses is at work.

    Attributes:
        failures: attempts in a row that brought no answer. While there are none, nothing is held back.
        probing_until: a probe is out, until then at the latest; 0.0 if none is.
    """

    __slots__ = ("_probe_at", "_probe_delay", "_probe_sent_at", "failures", "probing_until")

    def __init__(self) -> None:
        self.failures: int = 0
        self._probe_at = 0.0
        self._probe_delay = FIRST_PROBE
        self.probing_until: float = 0.0
        self._probe_sent_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether requests are held back, all but one at a time."""
        return self.failures >= SILENT_AFTER

    def delay(self, now: float) -> float:
        """Seconds until the next probe may leave; 0 or less if now, or if the server answers."""
        if not self.is_open:
            return 0.0
        probing = self.probing_until - now
        # While a probe is out the others ask again soon: its answer opens the gate without a word to them.
        return min(probing, self._probe_delay) if probing > 0.0 else self._probe_at - now

    def leave(self, now: float) -> None:
        """A request leaves. If the breaker is open, it is the probe."""
        if self.is_open:
            self.probing_until = now + LONGEST_PROBE
            self._probe_sent_at = now

    def back(self, sent_at: float) -> None:
        """A request that was sent at `sent_at` ended, in whatever way: if it was the probe, another may go."""
        if sent_at >= self._probe_sent_at:
            self.probing_until = 0.0

    def answered(self) -> None:
        """A complete answer came."""
        self.failures = 0
        self._probe_delay = FIRST_PROBE

    def failed(self, now: float) -> float:
        """No answer came. Returns the seconds until the next probe, 0 if all may go on."""
        self.failures += 1
        if not self.is_open or now < self._probe_at:
            return 0.0
        if self.failures > SILENT_AFTER:
            self._probe_delay = min(LAST_PROBE, self._probe_delay * 2.0)
        self._probe_at = now + self._probe_delay
        return self._probe_delay


class FirstContact:
    """Whether the server was ever reached, and how often that was tried in vain.

    A server that answered before and is away now will come back. One that was never reached is more likely a mistake in
    the set-up (a wrong address, no network, a firewall), which the user wants to hear of at once and not in an hour.
    Only attempts without a connection count. Those of many jobs at one moment are one try: an attempt that was sent
    before the last one was counted is not counted again.

    Attributes:
        is_made: whether the server has answered anything, ever.
        tries: attempts at a connection before that.
    """

    __slots__ = ("_counted_at", "is_made", "tries")

    def __init__(self) -> None:
        self.is_made: bool = False
        self.tries: int = 0
        self._counted_at = 0.0

    def failed(self, now: float, sent_at: float | None) -> None:
        """There was not even a connection, for an attempt that was sent at `sent_at` (None: just now)."""
        if not self.is_made and (sent_at is None or sent_at >= self._counted_at):
            self.tries += 1
            self._counted_at = now


class Unanswered:
    """Since when submissions have been made of which the server has neither accepted nor rejected a single one.

    A server can be alive for polls and for refusals ("too many") and yet take no submission for an hour. Nothing in the
    other values notices that, since each answer taken by itself is harmless. Whoever waits to submit asks here whether
    it has lasted longer than the submission is worth waiting for.
    """

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since = math.inf

    def answered(self) -> None:
        """A submission was accepted, or rejected for what it asks."""
        self._since = math.inf

    def failed(self, now: float) -> None:
        """A submission brought neither."""
        self._since = min(self._since, now)

    def seconds(self, now: float) -> float:
        """Seconds since the first that failed; 0 if all is well."""
        return max(0.0, now - self._since)


class LastAnswer:
    """When the last complete answer came, and what failed since then. In seconds of the wire (`Clock.wire_now`).

    For telling people that the server is away. It counts from the first request that was sent after the last answer: a
    submission that takes long while polls are answered says nothing. Nothing is decided by it.

    Attributes:
        at: when it came; minus infinity if there was none.
        failed_since: when the first attempt was sent that was sent after that and failed; infinity if there is none.
            What failed before nothing was asked for `FORGOTTEN` seconds does not count.
        failed_at: when the last one of these was sent.
        failure: how the last of these failed, in a sentence.
    """

    __slots__ = ("at", "failed_at", "failed_since", "failure")

    def __init__(self) -> None:
        self.at: float = -math.inf
        self.failed_since: float = math.inf
        self.failed_at: float = -math.inf
        self.failure: str = ""

    def came(self, now: float) -> None:
        """A complete answer came."""
        self.at = now
        self.failed_since = math.inf

    def failed(self, sent_at: float, failure: str) -> None:
        """An attempt that was sent at `sent_at` brought no sign of a working server. Infinity: it does not count."""
        if self.at <= sent_at < math.inf:
            self.failed_since = min(self.recent(sent_at), sent_at)
            self.failed_at = max(self.failed_at, sent_at)
            self.failure = failure

    def recent(self, now: float) -> float:
        """`failed_since`; infinity if nothing has failed for so long that it says nothing of now."""
        return self.failed_since if now - self.failed_at <= FORGOTTEN else math.inf


class Route:
    """What requests have met on one way to the server: whether it answers there, and whether it was ever reached.

    A proxy that is down, or a client with a wrong certificate, says nothing of any other way. So whoever has a way of
    its own has a `Route` of its own, and shares with the others of the account only what the server said.
    """

    __slots__ = ("breaker", "first_contact", "has_accepted", "last_answer", "stop", "unanswered")

    def __init__(self) -> None:
        self.has_accepted: bool = False
        self.breaker: Breaker = Breaker()
        self.first_contact: FirstContact = FirstContact()
        self.unanswered: Unanswered = Unanswered()
        self.last_answer: LastAnswer = LastAnswer()
        self.stop: Stop = Stop()


class Gate:
    """Everything that holds requests of one account back, on one route.

    `delay` and `leave` are the pass. What came of a request comes back through `accepted`, or else through `back` and
    then one of `answered`, `throttled` and `failed`.

    Args:
        per_minute: the most submissions a minute that the user allows, None for as many as the server does.
        beside: another gate of the same account, whose limits, silence and stops are this one's too.
        route: shared with the other gates of this route; a new one by default.

    Attributes:
        limits: the account's limits, and what is known of them.
    """

    def __init__(
        self, per_minute: float | None = None, *, beside: Gate | None = None, route: Route | None = None
    ) -> None:
        self.limits: Limits = Limits() if beside is None else beside.limits
        if per_minute is not None:
            self.limits.allow(per_minute)
        self._stop: Stop = Stop() if beside is None else beside._stop
        self._silence: Silence = Silence() if beside is None else beside._silence
        route = route or Route()
        self.route: Route = route
        self._route_stop = route.stop
        self._breaker = route.breaker
        self._first_contact = route.first_contact
        self._unanswered = route.unanswered

    # --- the pass ----------------------------------------------------------------------------------------------------

    def delay(self, lane: Lane, now: float) -> float:
        """Seconds until a request of this lane may leave; 0 if now. A stop is not in it: ask `halted`."""
        wait = self.limits.lanes[lane].delay(now)
        if self._silence.until > now:
            wait = max(wait, self._silence.until - now)
        if self._breaker.failures:
            wait = max(wait, self._breaker.delay(now))
        return wait if wait > 0.0 else 0.0

    def waits_for_answer(self, lane: Lane) -> bool:
        """Whether `delay` is a guess, because an answer that is on its way decides."""
        return self.limits.lanes[lane].waits_for_answer()

    def passes(self, lane: Lane, now: float) -> bool:
        """Let a request of this lane leave, if nothing holds it back. While a stop holds, nothing leaves this way."""
        if self._stop.error is not None or self._route_stop.error is not None or self.delay(lane, now) > 0.0:
            return False
        self.leave(lane, now)
        return True

    def want(self, lane: Lane, now: float) -> None:
        """A request of this lane waits. If only a limit is in its way that processes share, a departure is fetched."""
        if self._silence.until <= now and self._breaker.delay(now) <= 0.0:
            self.limits.lanes[lane].want(now)

    def leave(self, lane: Lane, now: float) -> None:
        """A request leaves now."""
        self.limits.lanes[lane].leave(now)
        if self._breaker.failures:
            self._breaker.leave(now)

    def why(self, lane: Lane, now: float) -> Cause | None:
        """Why a request of this lane may not leave now; None if it may. The first reason, in the order of `Cause`."""
        if lane is _SUBMIT and self.halted(now) is not None:
            return Cause.STOP
        if self._silence.until > now:
            return Cause.SILENCE
        if self._breaker.delay(now) > 0.0:
            return Cause.OUTAGE
        if self.limits.lanes[lane].delay(now) > 0.0:
            return Cause.LIMIT
        return None

    # --- what came back ----------------------------------------------------------------------------------------------

    def back(self, lane: Lane, sent_at: float) -> None:
        """A request that was sent at `sent_at` was not accepted, or did not leave after all."""
        self.limits.lanes[lane].back(sent_at)
        if self._breaker.probing_until:
            self._breaker.back(sent_at)

    def accepted(self, lane: Lane, now: float, sent_at: float) -> bool:
        """A request that was sent at `sent_at` is back, and was accepted.

        What a refusal in this lane had stopped goes on. Returns True if submissions go on because of that.
        """
        limit = self.limits.lanes[lane]
        limit.back(sent_at)
        limit.accepted(now, sent_at)
        self._first_contact.is_made = True
        if self._breaker.probing_until:
            self._breaker.back(sent_at)
        if self._breaker.failures:
            self._breaker.answered()
        if lane is _SUBMIT:
            self._unanswered.answered()
            self.route.has_accepted = True
        if self._stop.error is None and self._route_stop.error is None:
            return False
        is_poll = lane is not _SUBMIT
        ends = [self._stop.accepted(is_poll=is_poll), self._route_stop.accepted(is_poll=is_poll)]
        return any(ends) and self.stop is None

    def answered(self, lane: Lane, now: float, sent_at: float) -> None:
        """The server gave an answer that was not a request for less, to a request that was sent at `sent_at`."""
        self._first_contact.is_made = True
        if self._breaker.failures:
            self._breaker.answered()
        if lane is _SUBMIT:
            self._unanswered.answered()
        # Also one that was refused for what it asks: the limit let it through.
        self.limits.lanes[lane].accepted(now, sent_at)

    def throttled(
        self,
        lane: Lane,
        now: float,
        sent_at: float,
        hint: float | None,
        random: float,
        *,
        is_limit: bool = True,
        is_by_tokens: bool = False,
    ) -> float:
        """The server asks for less.

        Args:
            lane: what was asked.
            now: monotonic seconds.
            sent_at: when the request was sent.
            hint: seconds of silence that the server asked for; None if it did not say.
            random: even in [0, 1).
            is_limit: whether a limit was reached (429). A server that is busy (503) says nothing of its limits.
            is_by_tokens: the limit is on tokens, which only submissions use.

        Returns:
            The seconds of silence that follow.
        """
        self._first_contact.is_made = True
        self._breaker.answered()
        if lane is _SUBMIT:
            self._unanswered.failed(now)
        if is_limit:
            self.limits.refused(lane, now, sent_at, is_by_tokens=is_by_tokens)
        return self._silence.asked(now, hint, random) if hint is not None else 0.0

    def failed(self, now: float, *, connected: bool, sent_at: float | None = None) -> float:
        """An attempt that was sent at `sent_at` brought no sign of a working server.

        `connected` is False if there was not even a connection. Returns the seconds until the next probe, 0 if all may
        go on.
        """
        if not connected:
            self._first_contact.failed(now, sent_at)
        return self._breaker.failed(now)

    def submit_failed(self, now: float) -> None:
        """A submission was neither accepted nor rejected."""
        self._unanswered.failed(now)

    # --- stops -------------------------------------------------------------------------------------------------------

    def halt(self, error: AiopplxError, lane: Lane, now: float) -> bool:
        """Nothing can be submitted any more. Returns True if that is news.

        What the server said (bad key, no credit, retired) is the account's; that it was not reached is the route's.
        """
        stop = self._stop if isinstance(error, APIError) else self._route_stop
        return stop.refused(error, now, by_poll=lane is not _SUBMIT)

    def resume(self) -> bool:
        """The user lets submissions continue. Returns True if they were stopped."""
        ends = [self._stop.lift(), self._route_stop.lift()]
        return any(ends)

    # --- questions ---------------------------------------------------------------------------------------------------

    @property
    def stop(self) -> AiopplxError | None:
        """What stopped submissions, also while one of them may try; None if they are not stopped."""
        return self._stop.error or self._route_stop.error

    @property
    def polls_refused(self) -> bool:
        """Whether the server refuses polls as well, so that waiting for results is pointless."""
        return self._stop.polls_refused or self._route_stop.polls_refused

    def halted(self, now: float) -> AiopplxError | None:
        """The error that every submission gets now; None if one may try."""
        return self._stop.error_at(now) or self._route_stop.error_at(now)

    @property
    def known(self) -> Known:
        """What is known of the route."""
        if not self._first_contact.is_made:
            return Known.NOTHING
        return Known.ACCEPTED if self.route.has_accepted else Known.REACHED

    @property
    def silent_until(self) -> float:
        """The moment up to which nothing may leave at all; 0.0 if the server has never asked for that."""
        return self._silence.until

    def silence(self, now: float) -> float:
        """Seconds for which nothing may leave at all."""
        return self._silence.seconds(now)

    def shut_for(self, now: float) -> float:
        """Seconds for which nothing may leave: the server asked for that, or does not answer."""
        return max(self._silence.seconds(now), self._breaker.delay(now), 0.0)

    def heard_of_silence(self, now: float, seconds: float, random: float = 0.0) -> None:
        """The server asked another process for `seconds` of silence: it is obeyed here too."""
        self._silence.asked(now, seconds, random)

    def silent_server(self, now: float) -> float:
        """Seconds for which submissions have been made and none was accepted or rejected; 0 if all is well."""
        return self._unanswered.seconds(now)

    def is_unreachable(self, tries: int) -> bool:
        """Whether the server was never reached in at least `tries` tries."""
        return not self._first_contact.is_made and self._first_contact.tries >= tries
