"""The one gate through which every request of an account leaves: rate, silence asked for, cool-down after faults.

`Gate.delay` says how long until a request of a lane may leave; `Gate.leave` records that one does; the answers come
back through `answered`, `throttled` and `failed`. This module knows nothing of tasks or clocks: `now` is an argument.
"""

from __future__ import annotations

import math

from aiopplx._errors import AiopplxError
from aiopplx._wire.call import Lane

SILENT_AFTER = 5
"""So many attempts in a row without an answer, over all jobs, and the server counts as down."""

FIRST_PROBE, LAST_PROBE = 1.0, 60.0
LONGEST_PROBE = 120.0
STOP_PROBE = 30.0


class Pace:
    """A rate that is given, learnt, or both: evenly spaced departures.

    With `per_minute` given, no two departures are closer than 60 / per_minute seconds, so no minute sees more. Without,
    departures are free until the server throttles.

    What the server took in the last minute is then its rate: a bucket that was full and one that was used evenly both
    come to the same count, if older departures count less (the count decays by e each minute). From a fifth below it
    the rate goes back up, stays near it for a while, and then tries for more, faster and faster: the curve of CUBIC.
    That while is short after a first estimate, since a bucket that was found empty (by the same program, started again)
    looks like a slow one, and longer after each refusal that confirms it.
    """

    IN_A_ROW = 8
    """Refusals without an acceptance between them before a rate is learnt at all: a server that refuses now and then,
    at whatever rate it is asked, has none to learn."""
    CUT = 0.2
    """Share of the rate that a refusal takes away."""
    FIRST_PLATEAU, PLATEAU = 20.0, 180.0
    """Seconds after a cut at which the old rate is reached again: doubled from the one to the other."""
    MEMORY = 60.0
    """Seconds in which a departure loses all but 1/e of its weight in the count."""
    SLOWEST = 5.0 / 60.0
    """Requests a second below which nothing is learnt: the lowest limit that the service publishes (tier 0). A moment
    in which everything is refused, with a dozen on their way, would otherwise look like a limit of next to nothing."""

    __slots__ = ("_counted_at", "_cut_at", "_floor", "_peak", "_plateau", "_recent", "_row", "interval", "next_at")

    def __init__(self, per_minute: float | None = None) -> None:
        self._floor = 60.0 / per_minute if per_minute else 0.0
        self.interval = self._floor
        self.next_at = 0.0
        self._peak = math.inf
        self._plateau = self.FIRST_PLATEAU
        self._cut_at = -math.inf
        self._recent = 0.0
        self._counted_at = 0.0
        self._row = 0

    def limit(self, per_minute: float) -> None:
        """A second session on the same account asks for at most this: the slower one holds."""
        self._floor = max(self._floor, 60.0 / per_minute)
        self.interval = max(self.interval, self._floor)

    def delay(self, now: float) -> float:
        """Seconds until the next departure."""
        return max(0.0, self.next_at - now)

    def leave(self, now: float) -> None:
        """A request departs."""
        self._count(now, 1.0)
        if self._peak != math.inf:
            self.interval = self._interval_at(now)
        self.next_at = max(now, self.next_at) + self.interval

    def accepted(self) -> None:
        """The server took one."""
        self._row = 0

    def refused(self, now: float, left_at: float) -> None:
        """The server throttled one that left at `left_at`."""
        self._count(now, -1.0)
        self._row += 1
        if self._peak == math.inf and self._row < self.IN_A_ROW:
            return
        # One more than was taken: the refusal shows that less than one had room, not that none had.
        took = max(self.SLOWEST, (max(0.0, self._recent) + 1.0) / self.MEMORY)
        if left_at < self._cut_at:
            # Old news on the rate, but one fewer was taken than the cut supposed.
            self._peak = min(self._peak, took)
        else:
            known = 1.0 / self.interval if self.interval else math.inf
            self._peak = max(self.SLOWEST, min(took, known))
            # Half of what was thought is no confirmation but a new estimate.
            self._plateau = self.FIRST_PLATEAU if took < known / 2.0 else min(self.PLATEAU, self._plateau * 2.0)
            self._cut_at = now
        self.interval = self._interval_at(now)
        self.next_at = max(self.next_at, self._cut_at + self.interval)

    def _count(self, now: float, change: float) -> None:
        self._recent = self._recent * math.exp((self._counted_at - now) / self.MEMORY) + change
        self._counted_at = now

    def _interval_at(self, now: float) -> float:
        if self._peak == math.inf:
            return self._floor
        swing = (now - self._cut_at) / self._plateau - 1.0
        return max(self._floor, 1.0 / (self._peak * (1.0 + self.CUT * swing**3)))


class Bucket:
    """A budget with a burst: `per_minute` in the long run, a second's worth (at least `burst`) at once."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, per_minute: float, burst: float = 10.0) -> None:
        self._rate = per_minute / 60.0
        # Never under one, or a budget of less than one a minute would never let any out.
        self._burst = max(min(burst, per_minute), self._rate, 1.0)
        self._tokens = self._burst
        self._at: float | None = None

    def delay(self, now: float) -> float:
        """Seconds until one more fits."""
        self._fill(now)
        return 0.0 if self._tokens >= 1.0 else (1.0 - self._tokens) / self._rate

    def leave(self, now: float) -> None:
        """One departs."""
        self._fill(now)
        self._tokens -= 1.0

    def _fill(self, now: float) -> None:
        if self._at == now:
            return
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now


class Gate:
    """Everything that holds requests back, for one account.

    Three reasons to wait, each visible to every request: the server asked for silence (`Retry-After`, a count used up),
    the server does not answer at all (then one probe at a time, further and further apart), and the pace of
    submissions.
    And one
    reason not to go at all: a stop.
    """

    def __init__(self, per_minute: float | None = None) -> None:
        self.pace = Pace(per_minute)
        self.reached = False
        self.unreached_tries = 0
        self._unreached_at = 0.0
        self.stop: AiopplxError | None = None
        self.looks_refused = False
        self._stopped_by_look = False
        self._stop_until = 0.0
        self._closed_until = 0.0
        self._submits_closed_until = 0.0
        self._throttles = 0
        self._silent = 0
        self._probe_at = 0.0
        self._probe_delay = FIRST_PROBE
        self._probing_until = 0.0
        self._probe_left_at = 0.0
        self._barren_since = math.inf

    def delay(self, lane: Lane, now: float) -> float:
        """Seconds until a request of this lane may leave; 0 if now."""
        until = self._closed_until
        if lane is Lane.SUBMIT:
            until = max(until, self._submits_closed_until, self.pace.next_at)
        wait = until - now
        if self._silent >= SILENT_AFTER:
            probing = self._probing_until - now
            wait = max(wait, min(probing, self._probe_delay) if probing > 0 else self._probe_at - now)
        return wait if wait > 0.0 else 0.0

    def silence(self, now: float) -> float:
        """Seconds for which nothing may leave at all."""
        return max(0.0, self._closed_until - now)

    def leave(self, lane: Lane, now: float) -> None:
        """A request leaves now."""
        if lane is Lane.SUBMIT:
            self.pace.leave(now)
        if self._silent >= SILENT_AFTER:
            # No longer than any exchange may take: a probe whose task was cancelled never reports back.
            self._probing_until = now + LONGEST_PROBE
            self._probe_left_at = now

    def back(self, left_at: float) -> None:
        """A request that left at `left_at` ended, in whatever way: if it was the probe, another may go."""
        if left_at >= self._probe_left_at:
            self._probing_until = 0.0

    def answered(self, lane: Lane, *, accepted: bool) -> None:
        """The server gave an answer that was not a request for less."""
        self.reached = True
        self._silent = 0
        self._probe_delay = FIRST_PROBE
        if lane is Lane.SUBMIT:
            self._barren_since = math.inf
            if accepted:
                self._throttles = 0
                self.pace.accepted()

    def throttled(self, lane: Lane, now: float, left_at: float, hint: float | None, random: float) -> float:
        """The server asks for less; `hint` is its Retry-After. Returns the seconds of silence that follow.

        A hint closes the gate to everything: the server asked for silence, not for slower submissions. It is stretched
        by up to a tenth, never shortened. Without one only submissions pause.
        """
        barren_since = self._barren_since
        self.answered(lane, accepted=False)
        if lane is Lane.SUBMIT:
            self._barren_since = min(barren_since, now)
        if lane is Lane.SUBMIT:
            self.pace.refused(now, left_at)
            self._throttles += 1
        if hint is not None:
            pause = hint * (1.0 + random / 10.0)
            self._closed_until = max(self._closed_until, now + pause)
            return pause
        if lane is not Lane.SUBMIT:
            return 0.0
        # The first refusal after an acceptance holds back only the one that was refused.
        pause = random * min(30.0, 2.0 ** (self._throttles - 2)) if self._throttles > 1 else 0.0
        self._submits_closed_until = max(self._submits_closed_until, now + pause)
        return pause

    def used_up(self, now: float, seconds: float) -> None:
        """The server's own count says that nothing fits for so long."""
        self._closed_until = max(self._closed_until, now + seconds)

    def failed(self, now: float, *, connected: bool, left_at: float | None = None) -> float:
        """An attempt brought no sign of a working server. Returns the seconds until the next probe, 0 if all may go on.

        `connected` is False if there was not even a connection: that a server was never reached is worth knowing. The
        attempts of many jobs at one moment are one try at that: those that left (at `left_at`) before the last one was
        counted are not counted again.
        """
        if not self.reached and not connected and (left_at is None or left_at >= self._unreached_at):
            self.unreached_tries += 1
            self._unreached_at = now
        self._silent += 1
        if self._silent < SILENT_AFTER or now < self._probe_at:
            return 0.0
        if self._silent > SILENT_AFTER:
            self._probe_delay = min(LAST_PROBE, self._probe_delay * 2.0)
        self._probe_at = now + self._probe_delay
        return self._probe_delay

    def submit_failed(self, now: float) -> None:
        """A submission brought no answer that says yes or no."""
        self._barren_since = min(self._barren_since, now)

    def barren(self, now: float) -> float:
        """Seconds for which submissions have been made and none was answered with yes or no; 0 if all is well."""
        return max(0.0, now - self._barren_since)

    def halt(self, error: AiopplxError, lane: Lane, now: float) -> bool:
        """Nothing can be submitted any more (bad key, no credit, retired). Returns True if that is news.

        For `STOP_PROBE` seconds every submission is refused here; the next one after that goes out as a probe, so that
        a backend recovers by itself once the key or the credit is mended. A refused look says that results cannot be
        read either.
        """
        by_look = lane is not Lane.SUBMIT
        news = self.stop is None or type(self.stop) is not type(error) or (by_look and not self.looks_refused)
        if self.stop is None:
            self._stopped_by_look = by_look
        self.stop = error
        self._stop_until = now + STOP_PROBE
        self.looks_refused = self.looks_refused or by_look
        return news

    def halted(self, now: float) -> AiopplxError | None:
        """The error that every submission gets now; None if one may try."""
        return self.stop if self.stop is not None and now < self._stop_until else None

    def accepted(self, lane: Lane) -> bool:
        """The server accepts this key for this lane: what a refusal there had stopped goes on. True if that is news."""
        if lane is Lane.SUBMIT or self._stopped_by_look:
            return self.resume()
        self.looks_refused = False
        return False

    def resume(self) -> bool:
        """Submissions may go on. Returns True if they could not before."""
        was = self.stop is not None
        self.stop = None
        self.looks_refused = False
        return was
