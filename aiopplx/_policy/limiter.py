"""A limit on requests, found out from what is accepted and refused: its rate, its burst, and when the next may leave.

How a limit is found out
------------------------
The service does not say what it allows, gateways in front of it have limits of their own, and a client that holds back
too much loses as much time as one that is refused too often. So a limit is measured, in this way:

- *Nothing is known.* A window of requests may be in flight: two, and one more for each eight that were accepted. The
  requests that overshoot are then at most an eighth of what the burst held, and a slow start costs a token bucket
  nothing, since what is not used is still there later.
- *A mark.* At a refusal the bucket is empty. What is accepted from this moment until it is empty again has come in at
  the rate, whatever the capacity: between two refusals the capacity cancels out. That is an *epoch*, and the rate is
  what was accepted in the last one, two or three of them, whichever gives most. A rate is never learnt from a single
  acceptance: a closed window of a minute would look like one request a minute.
- *One refusal.* Requests are on their way when the first is refused. Their refusals say the same thing again, so a
  refusal of a request that was sent before the last one was known is not counted.
- *One alone.* After a refusal one request leaves alone, after the time in which one more should fit. If that is refused
  too, the next waits half as long again, up to `LONGEST_GAP`.
- *Probing in departures.* From 0.9 of the rate after a refusal the pace comes back to it after `flat` departures and
  rises from there, as CUBIC does in seconds. In departures, because a refusal costs one request: asking whether there
  is more must cost one request in so many, whatever the rate. Only departures that had to wait are counted.
- *Burst.* What was accepted before the first refusal, without what came in at the rate meanwhile. It is saved up while
  nothing is sent.
- *Limit or noise.* Some servers refuse at random. The only test of that is to ask faster: when the rate has fallen to
  less than half, `LEAP` requests leave at the old pace. If no more of them are refused than usual, refusals do not
  depend on the rate. Then the old rate holds again, and only more refusals than usual are counted.
- *Headers.* `limit` and `remaining` give rate and burst at once. They are believed until a request is refused although
  more than a few were said to remain; three such contradictions end the belief.

A rate that the user gave holds instead of all this. A refusal is then obeyed and teaches nothing.

The rate never falls below the lowest limit that the service publishes, since a moment in which everything is refused
would look like a limit of next to nothing.

A departure is taken from a source that can be asked ahead (`Departures`): `delay` says when the next one may leave and
changes nothing, `leave` takes it. A limit that processes share takes the place of this one by offering the same.

This module knows nothing of lanes, outages or HTTP, nor of tasks and clocks: `now` is an argument, in monotonic
seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Protocol

import msgspec

SLOWEST = 5.0 / 60.0
"""Requests a second: the lowest published limit (tier 0). No rate is learnt below it."""
FIRST_WINDOW, WINDOW_SHARE, WIDEST_WINDOW = 2.0, 8.0, 24.0
"""Requests in flight while no rate is known: at first, plus one for so many accepted, up to the last."""
NOISE = 0.18
"""While a lower share of the answers than this is a refusal, and no rate is known, a refusal shows no limit."""
MEMORY = 0.9
"""What an answer's weight in the share of refusals is multiplied by at the next answer."""
SHORTEST_GAP, LONGEST_GAP = 0.1, 10.0
"""Seconds before one request leaves alone after a refusal: at least, however fast the server answers, and at most."""
GAP_GROWS, KNOWN_GAP_GROWS = 1.3, 2.0
LONG_CLOSED, LONG_GAP = 5, 2.0
"""Requests alone that were refused in a row, and seconds that the gap between them came to, after which an epoch with
few acceptances is no measure of the rate."""
BELOW, ABOVE, STEEPEST = 0.1, 0.2, 8.0
"""How much of the rate the pace gives up after a refusal, and how fast it rises once `flat` departures went well."""
LEAST_FLAT, MOST_FLAT, TOLD_FLAT = 4.0, 60.0, 600.0
"""Departures until the pace is back at the rate: as many as the epoch accepted, within the first two; the third where
headers told the rate, since nothing has to be found out then."""
FEW_ON_THE_WAY = 4.0
"""Requests on their way at the rate, above which `MOST_FLAT` grows with them."""
NOISY_FLAT = 8.0
"""As `LEAST_FLAT` where refusals come at any rate: there most of them cost no pace, and asking for more is cheap."""
LEAP = 12
"""Requests that leave at the old pace to tell a limit from noise."""
MOST_USUAL = 0.12
"""The highest share of refusals that is taken for noise: above twice as much, refusals are counted again."""
SLOW_MEMORY = 0.98
"""As `MEMORY`, for the share of refusals that is usual."""
BELOW_RATE = 0.9
"""Of what came in while one request was alone, so much is used at once."""
FEW = 2.0
"""Requests: a refusal is a contradiction if more than so many were said to remain."""
OFTEN = 0.06
"""A share of refusals that true headers do not come with."""
MOST_CONTRADICTIONS = 3
"""Contradictions after which the headers are ignored."""
LATE = 0.06
"""Seconds: timers are late by so much, and the departures that were missed are made up."""
SHORTEST = 1e-7
"""Seconds: what is due within them is due."""
STALE = 1.0
"""Seconds, and four round trips: a request that is unanswered for so long counts as in flight no more."""


class Departures(Protocol):
    """Where departures come from."""

    def delay(self, now: float) -> float:
        """Seconds until the next may leave, 0 or less if now. Asking changes nothing. An answer may shorten it."""
        ...

    def waits_for_answer(self) -> bool:
        """Whether only an answer can shorten `delay`: it is then a guess, after which it is not waited for longer."""
        ...

    def leave(self, now: float) -> None:
        """One leaves."""
        ...

    def back(self, sent_at: float) -> None:
        """One that was sent at `sent_at` is in flight no more, whatever came of it."""
        ...

    def accepted(self, now: float, sent_at: float) -> None:
        """One that was sent at `sent_at` was let in."""
        ...


class Learnt(msgspec.Struct, frozen=True):
    """What a later run may start from.

    Attributes:
        rate: requests a second, None if no limit was found.
        burst: requests at once, after a pause.
        flat: how many departures the rate was learnt from.
        usual: the share of requests that is refused at any rate, 0.0 if refusals show a limit.
    """

    rate: float | None = None
    burst: float = 0.0
    flat: float = LEAST_FLAT
    usual: float = 0.0


class Limiter:
    """One limit, found out or given.

    Args:
        per_minute: requests a minute that the user gave; None: it is found out.
        burst: requests that a given limit allows at once, after a pause. Default 1: evenly spaced.
        first_window: requests in flight while nothing is known. Default `FIRST_WINDOW`.

    Attributes:
        rate: requests a second, None while no limit is known.
        burst: requests at once, after a pause.
        in_flight: requests that were sent and are not back.
        is_given: whether the user gave the rate.
        refused_as_given: requests that were refused although the given rate was kept.
    """

    def __init__(
        self, per_minute: float | None = None, *, burst: float = 1.0, first_window: float = FIRST_WINDOW
    ) -> None:
        self.is_given = per_minute is not None
        self.rate: float | None = None if per_minute is None else per_minute / 60.0
        self.burst = burst if per_minute is not None else 0.0
        self.in_flight = 0
        self.refused_as_given = 0
        # While no limit was met, requests are counted and nothing else: `_surely` so many may be in flight at least.
        self._is_met = self.is_given
        self._surely = first_window
        self._first_window = first_window
        self._closed_until = 0.0
        self._rtt = 0.0
        # Departures: what has come in and was not used, by when; the latest departure, and how many since a refusal.
        self._tokens = max(1.0, self.burst)
        self._filled_at = -math.inf
        self._last_sent = -math.inf
        self._began: float | None = None
        self._n = 0
        self._flat = LEAST_FLAT
        # One alone: after how long, when, and when it was sent.
        self._is_alone = False
        self._gap = 0.0
        self._probe_at = 0.0
        self._probe_sent: float | None = None
        # Epochs: what was accepted since the mark, and since the burst was full.
        self._known_at = -math.inf
        self._mark: float | None = None
        self._k = 0
        self._last_refused_probe: float | None = None
        self._closed_probes = 0
        self._last_k = 0
        self._epochs: deque[tuple[int, float]] = deque(maxlen=3)
        self._accepted = 0
        self._window_from = 0
        self._full_at: float | None = None
        self._full_accepted = 0
        # Noise.
        self._share = 0.0
        self._slow_share = 0.0
        self._usual = 0.0
        self._confirmed = 0.0
        self._leap_remaining = 0
        self._leap_back = 0
        self._leap_refused = 0
        self._leap_since: float | None = None
        self._before_leap = 0.0
        self._fell_to = 0.0
        # Headers.
        self._is_told = False
        self._newest = -math.inf
        self._remaining = 0.0
        self._contradictions = 0
        self._told_refused = 0

    # --- departures --------------------------------------------------------------------------------------------------

    def delay(self, now: float) -> float:
        """See `Departures`."""
        if not self._is_met and self.in_flight < self._surely:
            return 0.0
        closed = self._closed_until - now
        if self._is_alone:
            if self.is_given:
                closed = max(closed, self._wait(now))
            alone = self._probe_at if self._probe_sent is None else self._probe_sent + self._stale()
            return max(closed, alone - now)
        if self.rate is None:
            if self.in_flight < self._window():
                return closed
            # A window that does not move lets one more through: it must not hang on answers that do not come.
            return max(closed, self._last_sent + self._stale() - now)
        if self._leap_since is not None and not self._leap_remaining:
            return max(closed, self._last_sent + self._stale() - now)
        return max(closed, self._wait(now))

    def leave(self, now: float) -> None:
        """See `Departures`."""
        self.in_flight += 1
        if self._began is None:
            self._began = now
        if self._is_met:
            self._leave_met(now)
        self._last_sent = now

    def _leave_met(self, now: float) -> None:
        self._remaining -= 1.0
        if self._is_alone:
            self._probe_sent = now
        if self.rate is not None and (self.is_given or not self._is_alone):
            tokens = self._tokens_at(now)
            pace = self._pace()
            idle = now - self._last_sent
            if tokens >= self._most(pace) and idle > 1.0 + 1.0 / pace and not self.is_given:
                self._mark = None
                self._full_at, self._full_accepted = now, self._accepted
            if tokens < 1.5 + LATE * pace:
                self._n += 1  # it had to wait: a client with nothing to send finds nothing out
            if self._leap_remaining:
                self._leap_remaining -= 1
            elif self._leap_since is not None:
                self._end_leap(now, is_noise=False)  # what leapt does not come back
            self._tokens = tokens - 1.0
            self._filled_at = now

    def waits_for_answer(self) -> bool:
        """See `Departures`."""
        if self._is_alone:
            return self._probe_sent is not None
        if self.rate is None:
            return self.in_flight >= self._window()
        return self._leap_since is not None and not self._leap_remaining

    def back(self, sent_at: float) -> None:
        """See `Departures`."""
        if self.in_flight:  # one that was sent before another limiter took this one's place was counted there
            self.in_flight -= 1
        if self._probe_sent is not None and sent_at >= self._probe_sent:
            self._probe_sent = None  # it brought no answer: another may go

    def close(self, until: float) -> None:
        """Nothing leaves before this moment."""
        self._is_met = True
        self._closed_until = max(self._closed_until, until)

    def _wait(self, now: float) -> float:
        """Seconds until one more has come in at the pace; 0 where less remains than a clock can tell."""
        wait = (1.0 - self._tokens_at(now)) / self._pace()
        return wait if wait > SHORTEST else 0.0

    def _window(self) -> float:
        accepted = self._accepted - self._window_from
        # Where an answer takes long, a window opens slowly: there it is wider.
        longer = min(2.0, max(1.0, 2.0 * self._rtt))
        widest = max(self._first_window, WIDEST_WINDOW * longer)
        return min(widest, self._first_window + accepted * longer / WINDOW_SHARE)

    def _stale(self) -> float:
        return max(STALE, 4.0 * self._rtt)

    def _pace(self) -> float:
        """Requests a second at present."""
        rate = self.rate or SLOWEST
        if self.is_given or self._leap_remaining:
            return rate
        s = min(STEEPEST, self._n / self._flat - 1.0)
        return rate * (1.0 + (BELOW if s < 0.0 else ABOVE) * s**3)

    def _most(self, pace: float) -> float:
        """What is saved up while nothing leaves."""
        if self.is_given:
            return self.burst
        late = 1.0 + LATE * pace
        return late if self._n > self._flat and not self._is_told else max(late, self.burst)

    def _tokens_at(self, now: float) -> float:
        pace = self._pace()
        tokens = self._tokens + (now - self._filled_at) * pace
        if tokens > 1.0 and pace > (rate := self.rate or SLOWEST):
            tokens = max(1.0, self._tokens) + (tokens - max(1.0, self._tokens)) * rate / pace
        return min(tokens, max(self._most(pace), 1.0))

    # --- answers -----------------------------------------------------------------------------------------------------

    def accepted(self, now: float, sent_at: float) -> None:
        """A request that was sent at `sent_at` was accepted."""
        rtt = self._rtt
        self._rtt = rtt + (now - sent_at - rtt) / 8.0 if rtt else now - sent_at
        self._accepted += 1
        if self._is_met:
            self._accepted_met(now, sent_at)
        elif self._surely < WIDEST_WINDOW:
            self._surely += 1.0 / WINDOW_SHARE

    def _accepted_met(self, now: float, sent_at: float) -> None:
        if self._slow_share:
            self._share *= MEMORY
            self._slow_share *= SLOW_MEMORY
        if self._mark is not None and sent_at > self._mark:
            self._k += 1
        if self._leap_since is not None:
            self._leapt(now, sent_at, is_refused=False)
        if self._is_alone and sent_at > self._known_at:
            self._is_alone = False
            self._window_from, self._first_window = self._accepted, FIRST_WINDOW
            if self.rate is not None and not self.is_given:
                # Where the first one alone was refused as well, what refuses is not a bucket that fills.
                is_bucket = self._last_refused_probe is None
                empty_for = now - self._known_at
                if self.rate * self._rtt < FEW_ON_THE_WAY:
                    empty_for += self._rtt / 2.0  # it was known that much later than it was so
                saved = BELOW_RATE * self.rate * empty_for - 1.0 if is_bucket else 0.0
                self._tokens = min(self.burst, max(0.0, saved))
                self._filled_at = now

    def refused(self, now: float, sent_at: float) -> None:
        """A request that was sent at `sent_at` was refused, because there were too many."""
        self._is_met = True
        rtt = self._rtt
        self._rtt = rtt + (now - sent_at - rtt) / 8.0 if rtt else now - sent_at
        self._share = self._share * MEMORY + (1.0 - MEMORY)
        self._slow_share = self._slow_share * SLOW_MEMORY + (1.0 - SLOW_MEMORY)
        if self._leap_since is not None:
            self._leapt(now, sent_at, is_refused=True)
            return
        if sent_at <= self._known_at or self._is_noise():
            return
        if self.is_given:
            self.refused_as_given += 1
            self._tokens, self._filled_at = min(0.0, self._tokens_at(now)), now
        elif self._is_told:
            self._told_refused += 1
            if self._remaining > FEW:
                self._contradicted()
            elif self._told_refused > MOST_CONTRADICTIONS and self._slow_share > OFTEN:
                # The rate that is told is too much, however true the count is: it is learnt from now on.
                self._contradictions = max(1, self._contradictions)
        was_alone, self._known_at = self._is_alone, now
        self._n = 0
        if was_alone:
            self._gap = min(LONGEST_GAP, self._gap * (GAP_GROWS if self.rate is None else KNOWN_GAP_GROWS))
            self._last_refused_probe = sent_at
            self._closed_probes += 1
        elif self._gap >= LONG_GAP and self._closed_probes >= LONG_CLOSED and self._k < self._last_k / 4.0:
            # It was closed for long, as no bucket is, and is not open again: what was refused may count as well.
            self._last_refused_probe = sent_at
        else:
            if not self.is_given:
                self._at_mark(now, sent_at)
            if self._leap_since is not None:
                return
            self._gap = self._first_gap(now)
        self._is_alone = True
        self._probe_sent = None
        self._probe_at = now + self._gap

    def _is_noise(self) -> bool:
        if self._usual:
            return self._slow_share < 2.0 * self._usual
        return self.rate is None and self._share < NOISE

    def _first_gap(self, now: float) -> float:
        if self.rate is not None:
            return max(1.0 / self.rate, self._rtt, SHORTEST_GAP)
        began = self._began if self._began is not None else now
        return min(LONGEST_GAP, max(self._rtt, (now - began) / (self._accepted + 1), SHORTEST_GAP))

    def _at_mark(self, now: float, sent_at: float) -> None:
        """The bucket is empty: an epoch ends, and another begins."""
        mark, k = self._mark, self._k
        self._mark, self._k, self._closed_probes = sent_at, 0, 0
        self._last_k = k if mark is not None else self._accepted - self._full_accepted
        if mark is None:
            self._found_burst(sent_at)
        elif k:
            self._learn(k, max(sent_at - mark, 1e-3), sent_at, now)
        self._last_refused_probe = None

    def _found_burst(self, sent_at: float) -> None:
        if self.rate is not None and self._full_at is not None:
            spent = self._accepted - self._full_accepted - self.rate * (sent_at - self._full_at)
            self.burst = max(0.0, min(self.burst, spent))

    def _learn(self, k: int, seconds: float, sent_at: float, now: float) -> None:
        before, is_first = self.rate, not self._epochs
        self._epochs.append((k, seconds))
        best, flat = 0.0, 0
        total_k, total_seconds = 0, 0.0
        for epoch_k, epoch_seconds in reversed(self._epochs):
            total_k += epoch_k
            total_seconds += epoch_seconds
            rate = (total_k + 0.5) / total_seconds
            if rate > best:
                best, flat = rate, total_k
        if is_first and self._last_refused_probe is not None:
            best = max(best, (k - 1) / max(sent_at - self._last_refused_probe, 1e-3))
        rate = max(SLOWEST, best)
        # Where many are on their way, asking for more costs more refusals at once, so it is done less often.
        most = MOST_FLAT * max(1.0, rate * self._rtt / FEW_ON_THE_WAY)
        self._flat = min(most, max(LEAST_FLAT, float(flat))) if not self._usual else NOISY_FLAT
        self.rate = rate
        if before is None:
            began = self._began if self._began is not None else sent_at
            first = self._accepted - k
            self.burst = max(0.0, first - rate * max(0.0, sent_at - seconds - began))
        if len(self._epochs) < 2:
            return
        if rate > self._confirmed:
            self._confirmed = rate
        elif rate < self._confirmed / 2.0:
            self._begin_leap(now, rate)

    # --- limit or noise ----------------------------------------------------------------------------------------------

    def _begin_leap(self, now: float, fell_to: float) -> None:
        self.rate = self._confirmed
        self._fell_to, self._leap_since = fell_to, now
        self._leap_remaining, self._leap_back, self._leap_refused = LEAP, 0, 0
        self._before_leap = self._slow_share
        self._tokens, self._filled_at = 0.0, now

    def _leapt(self, now: float, sent_at: float, *, is_refused: bool) -> None:
        """A request came back during a leap."""
        if self._leap_since is None or sent_at < self._leap_since:
            return
        self._leap_back += 1
        self._leap_refused += is_refused
        if self._leap_back < LEAP:
            return
        self._end_leap(now, is_noise=self._leap_refused <= 1.0 + 1.2 * LEAP * self._before_leap)

    def _end_leap(self, now: float, *, is_noise: bool) -> None:
        self._leap_since, self._leap_remaining = None, 0
        self._known_at = now
        self._epochs.clear()
        self._mark = None
        self._n = 0
        if is_noise:
            self._flat = NOISY_FLAT
            self._usual = min(MOST_USUAL, max(self._before_leap, self._leap_refused / LEAP))
            return
        self.rate = self._confirmed = self._fell_to
        self._mark, self._k = now, 0
        self._is_alone, self._probe_sent = True, None
        self._gap = self._first_gap(now)
        self._probe_at = now + self._gap

    # --- headers -----------------------------------------------------------------------------------------------------

    def said(
        self, now: float, sent_at: float, counts: Mapping[str, int], until_reset: float | None, *, accepted: bool
    ) -> None:
        """An answer had the server's own counts (`limit`, `remaining`).

        Args:
            now: monotonic seconds.
            sent_at: when its request was sent; an older answer than the newest that was read says nothing.
            counts: the counts.
            until_reset: seconds until the count restarts, if it says that none remain.
            accepted: whether the request was accepted.
        """
        limit, remaining = counts.get("limit"), counts.get("remaining")
        if sent_at < self._newest or self._contradictions >= MOST_CONTRADICTIONS:
            return
        if until_reset is not None:
            self.close(now + until_reset)
        if not limit or remaining is None or self.is_given:
            return
        self._is_met = True
        self._newest = sent_at
        if remaining > limit or (remaining > FEW and not accepted):
            self._contradicted()
            return
        self._remaining = known = max(0.0, remaining - self.in_flight)
        if self._contradictions:
            self._tokens = min(self._tokens_at(now), known) if self.rate is not None else self._tokens
            self._filled_at = now
            return
        self.rate = max(SLOWEST, limit / 60.0)
        self.burst = float(limit)
        self._flat = TOLD_FLAT
        if not self._is_told:
            self._is_told, self._n = True, int(TOLD_FLAT)
            self._epochs.clear()
            self._mark = None
        self._tokens, self._filled_at = known, now

    def told(self, now: float) -> tuple[float, float] | None:
        """The limit that headers told, and how many should remain of it now; None if they are not believed."""
        if not self._is_told or self._contradictions:
            return None
        return self.burst, max(0.0, min(self.burst, self._tokens_at(now)))

    def _contradicted(self) -> None:
        """Refused, although more than a few were said to remain."""
        self._contradictions += 1
        if self._contradictions == MOST_CONTRADICTIONS:
            self._is_told = False
            self.rate = None
            self.burst = 0.0
            self._flat = LEAST_FLAT
            self._epochs.clear()
            self._mark = None
            self._window_from = self._accepted

    # --- for a later run ---------------------------------------------------------------------------------------------

    @property
    def learnt(self) -> Learnt:
        """What a later run may start from."""
        if self.is_given:
            return Learnt()
        return Learnt(self.rate, self.burst, self._flat, self._usual)

    def start_from(self, now: float, learnt: Learnt, seconds_ago: float) -> None:
        """Start from what an earlier run learnt, whose last request was sent so long ago; not once one was sent."""
        if self.is_given or learnt.rate is None or self._began is not None or self.rate is not None:
            return
        self._is_met = True
        self.rate = max(SLOWEST, learnt.rate)
        self.burst = max(0.0, learnt.burst)
        self._flat = min(TOLD_FLAT, max(LEAST_FLAT, learnt.flat))
        self._usual = min(MOST_USUAL, max(0.0, learnt.usual))
        self._tokens, self._filled_at = min(max(1.0, self.burst), max(0.0, seconds_ago) * self.rate), now
