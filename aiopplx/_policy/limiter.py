"""A limit on requests, found out from what is accepted and refused: its rate, its burst, and when the next may leave.

How a limit is found out
------------------------
The service does not say what it allows, gateways in front of it have limits of their own, and a client that holds back
too much loses as much time as one that is refused too often. So a limit is measured. Each question of it has a value of
its own, with the theory at the head of its file:

- *How much comes in?* What was accepted between two refusals (`epochs`).
- *Is there more?* The pace falls after a refusal and rises until the next (`pace`).
- *Does a refusal mean a limit at all?* A leap to the old pace tells (`noise`).
- *Do the server's own counts hold?* Until they were contradicted three times (`told`).
- *Is it a window?* Then one more fits when a request that was accepted has left it (`spans`).

Two more are answered here, by what is in flight:

- *Nothing is known.* A window of requests may be in flight: two, and one more for each eight that were accepted; above
  fourteen, one more for each two hundred. Those that are on their way when the burst is used up are refused, so they
  must be few, and a slow start costs a token bucket nothing, since what is not used is still there later. They are
  fewest where a burst probably ends (`bursts`).
- *One was refused.* One request leaves alone (`Alone`), after the time in which one more should fit. If that is refused
  too, the next waits longer, up to `LONGEST_GAP`. Where a rate is known at which hardly more than one is on its way,
  others follow the one alone at that rate: waiting for its answer would cost as much as one more refusal.

As long as no limit was met, requests are counted and nothing else is done: most sessions never meet one.

A rate that the user gave holds instead of all this. A refusal is then obeyed and teaches nothing. The rate never falls
below the lowest limit that the service publishes, since a moment in which everything is refused would look like a limit
of next to nothing.

Departures
----------
Whoever sends takes departures from a source (`Departures`), and knows nothing of how it comes by them. A limit that
processes share (`_policy.departures`) stands beside this one in `Limits.lanes`. It has to ask elsewhere, so it asks one
or two departures ahead of those that leave.

This module knows nothing of lanes, outages or HTTP, nor of tasks and clocks: `now` is an argument, in monotonic
seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from aiopplx._policy.bursts import PUBLISHED, Bursts
from aiopplx._policy.epochs import Epochs
from aiopplx._policy.noise import Noise
from aiopplx._policy.pace import LEAST_FLAT, SLOWEST, Pace
from aiopplx._policy.spans import MOST, Span
from aiopplx._policy.told import Told

FIRST_WINDOW, WINDOW_SHARE = 2.0, 8.0
"""Requests in flight while no rate is known: at first, and one more for so many accepted."""
WIDE_WINDOW, WIDE_SHARE, WIDEST_WINDOW = 14.0, 200.0, 28.0
"""From the first on, one more for so many accepted, and no more than the last."""
CAREFUL_SHARE = 4.0
"""So many accepted polls let one more be in flight, where they may count towards a limit that submissions have met."""
SHORTEST_GAP, LONGEST_GAP = 0.1, 10.0
"""Seconds before one request leaves alone after a refusal: at least, however fast the server answers, and at most."""
GAP_GROWS, KNOWN_GAP_GROWS = 1.3, 2.0
"""How much longer the next gap is after a refusal of the one alone: while no rate is known, and once one is."""
MOST_FLAT, TOLD_FLAT = 60.0, 600.0
"""Departures until the pace is back at the rate: as many as the epoch accepted, up to the first; the second where
headers told the rate, since nothing has to be found out then."""
HARDLY_ANY = 1.6
"""Requests on their way at the rate, below which others follow the one alone at once: waiting for its answer would cost
as many as a refusal."""
FEW_ON_THE_WAY = 4.0
"""Requests on their way at the rate, above which `MOST_FLAT` grows with them."""
BELOW_RATE = 0.9
"""Of what came in while one request was alone, so much is used at once."""
HARDLY_LATE = 1.5
"""Mean gaps of a window: what leaves so soon after there was room has waited for it."""
TRIED_WINDOW, TRIED_SHARE = 2.0, 16.0
"""Requests in flight above twice as many as are on their way at the rate, where more than the rate is tried: so many,
and one more for so many departures that waited. The pace may rise fast, and all that are on their way are refused."""
STALE, STALEST = 1.0, 120.0
"""Seconds, and four round trips: a request that is unanswered for so long counts as in flight no more; the second at
most, since no exchange may take longer."""


class Departures(Protocol):
    """Where departures come from.

    Each method returns at once. A source that fetches departures from elsewhere holds one or two of them: `delay` is
    about the next one that it holds, and `leave` takes that one and makes room for another. While it holds none,
    `waits_for_answer` is true, and `delay` is the time after which it is asked again.
    """

    def delay(self, now: float) -> float:
        """Seconds until the next may leave, 0 or less if now. Asking changes nothing. An answer may shorten it."""
        ...

    def waits_for_answer(self) -> bool:
        """Whether only an answer can shorten `delay`: it is then a guess, after which it is not waited for longer."""
        ...

    def want(self, now: float) -> None:
        """Somebody waits for one, and nothing but this source holds it back."""
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


class Alone:
    """After a refusal one request leaves alone, and what becomes of it decides how it goes on.

    Attributes:
        is_on: whether requests leave alone at present.
        gap: seconds from the refusal to the next one.
    """

    __slots__ = ("_due", "_followed", "_sent_at", "gap", "is_on")

    def __init__(self) -> None:
        self.is_on = False
        self._followed = math.inf
        self.gap = 0.0
        self._due = 0.0
        self._sent_at: float | None = None

    @property
    def is_out(self) -> bool:
        """Whether the one has left and is not back."""
        return self._sent_at is not None

    def begin(self, now: float, gap: float) -> None:
        """A request was refused: the next leaves alone, after `gap` seconds."""
        self.is_on = True
        self.gap = gap
        self._due = now + gap
        self._followed = math.inf
        self._sent_at = None

    def delay(self, now: float, stale: float) -> float:
        """Seconds until it may leave; if it is out, until it is given up."""
        return (self._due if self._sent_at is None else self._sent_at + stale) - now

    def leave(self, now: float) -> None:
        """It leaves."""
        self._sent_at = now

    def is_followed(self, now: float) -> None:
        """The one has left, and others may follow before its answer is there."""
        self.is_on = False
        self._followed = now

    def was_followed(self, sent_at: float) -> bool:
        """Whether this is the one that others followed, or one of them."""
        return sent_at >= self._followed

    def back(self, sent_at: float) -> None:
        """A request came back. If it was the one, another may go, unless an answer says otherwise."""
        if self._sent_at is not None and sent_at >= self._sent_at:
            self._sent_at = None


class Limiter:
    """One limit, found out or given.

    Args:
        per_minute: requests a minute that the user gave; None: it is found out.
        burst: requests that a given limit allows at once, after a pause. Default 1: evenly spaced.
        first_window: requests in flight while nothing is known. Default `FIRST_WINDOW`.
        published: limits that the server probably has, in requests a minute, lowest first. Default `PUBLISHED`.
        finds_window: whether a window of so many in any span is looked for. Default True.

    Attributes:
        in_flight: requests that were sent and are not back.
        is_given: whether the user gave the rate.
        refused_as_given: requests that were refused although the given rate was kept.
    """

    __slots__ = (
        "_alone",
        "_began",
        "_bursts",
        "_closed_until",
        "_epochs",
        "_first_window",
        "_is_met",
        "_last_sent",
        "_least_rtt",
        "_noise",
        "_pace",
        "_rate_before",
        "_rtt",
        "_span",
        "_surely",
        "_surely_more",
        "_surely_most",
        "_told",
        "_window_from",
        "in_flight",
        "is_given",
        "refused_as_given",
    )

    def __init__(
        self,
        per_minute: float | None = None,
        *,
        burst: float = 1.0,
        first_window: float = FIRST_WINDOW,
        published: Sequence[float] = PUBLISHED,
        finds_window: bool = True,
    ) -> None:
        self.is_given: bool = per_minute is not None
        self.in_flight: int = 0
        self.refused_as_given: int = 0
        self._pace = Pace(None, 0.0) if per_minute is None else Pace(per_minute / 60.0, burst)
        self._epochs = Epochs()
        self._noise = Noise()
        self._told = Told()
        self._alone = Alone()
        self._span = Span()
        self._rate_before: float | None = None
        self._bursts = Bursts(published)
        # While no limit was met, requests are counted and nothing else: `_surely` so many may be in flight at least.
        # Each that is accepted adds `_surely_more`, up to `_surely_most`.
        self._is_met = self.is_given
        if self.is_given or not finds_window:
            self._span.end()
        self._surely = first_window
        self._surely_more = 1.0 / WINDOW_SHARE
        self._surely_most = WIDE_WINDOW
        self._first_window = first_window
        self._window_from = 0
        self._closed_until = 0.0
        self._rtt = 0.0
        self._least_rtt = math.inf
        self._began: float | None = None
        self._last_sent = -math.inf

    @property
    def rate(self) -> float | None:
        """Requests a second, None while no limit is known."""
        return self._pace.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._pace.rate = rate

    @property
    def burst(self) -> float:
        """Requests at once, after a pause."""
        return self._pace.burst

    @property
    def places(self) -> int:
        """Requests at once in a window; 0 if the limit is none."""
        return self._span.most

    @property
    def count(self) -> int:
        """Requests that were accepted, ever."""
        return self._epochs.accepted

    @property
    def usual(self) -> float:
        """The share of requests that is refused at any rate, 0.0 if refusals show a limit."""
        return self._noise.usual

    def begin_carefully(self) -> None:
        """Requests may count towards a limit that was met meanwhile: as few as at first are in flight, and one more for
        each `CAREFUL_SHARE` that are accepted, up to as many as before."""
        if self._is_met or self._surely_more >= 1.0 / CAREFUL_SHARE:
            return
        self._surely_most = max(self._surely, self._surely_most)
        self._surely, self._surely_more = FIRST_WINDOW, 1.0 / CAREFUL_SHARE
        self._first_window, self._window_from = FIRST_WINDOW, self._epochs.accepted

    def join(self, other: Limiter) -> None:
        """The other's requests count towards this limit, and always did: they took places that were not seen."""
        self.in_flight += other.in_flight
        self._span.end()

    def expect(self, usual: float) -> None:
        """Another limit of the account has shown that this share of all requests is refused at any rate."""
        self._noise.start_from(usual)

    # --- departures --------------------------------------------------------------------------------------------------

    def delay(self, now: float) -> float:
        """See `Departures`."""
        in_flight = self.in_flight
        # Nearly every request of most sessions leaves here, so that nothing more is called than has to be.
        if (
            not self._is_met
            and in_flight < self._surely
            and (self._epochs.accepted + in_flight < self._bursts.after or in_flight < self._narrow())
        ):
            return 0.0
        closed, pace = self._closed_until - now, self._pace
        if self._alone.is_on:
            if self.is_given:
                closed = max(closed, pace.delay(now))
            return max(closed, self._alone.delay(now, self._stale()))
        if self._awaits():
            # One more goes all the same after a while: it must not hang on answers that do not come.
            return max(closed, self._last_sent + self._stale() - now)
        if self._span.most:
            return max(closed, self._span_opens() - now)
        return closed if pace.rate is None else max(closed, pace.delay(now))

    def waits_for_answer(self) -> bool:
        """See `Departures`."""
        return self._alone.is_out if self._alone.is_on else self._awaits()

    def want(self, now: float) -> None:
        """See `Departures`: nothing has to be fetched."""

    def leave(self, now: float) -> None:
        """See `Departures`."""
        self.in_flight += 1
        if self._began is None:
            self._began = now
        if self._is_met:
            self._leave_met(now)
        self._last_sent = now

    def _leave_met(self, now: float) -> None:
        self._told.remaining -= 1.0
        alone, pace = self._alone, self._pace
        if alone.is_on:
            alone.leave(now)
            if self._may_follow():
                alone.is_followed(now)
                pace.save(now, self._saved_alone(now, pace.rate or SLOWEST))
                return
        if self._span.most:
            pace.waited += now - self._span_opens(-1) < HARDLY_LATE * self._span.seconds / self._span.most
        elif pace.rate is not None and (self.is_given or not alone.is_on):
            if pace.leave(now, now - self._last_sent):
                self._epochs.is_full(now)
            if self._noise.leapt_at is not None:
                self._noise.leave()

    def _may_follow(self) -> bool:
        """Whether others may follow the one alone at the rate, before its answer is there."""
        rate, is_given = self._pace.rate, self.is_given or self._pace.is_told
        return rate is not None and not is_given and not self._epochs.is_closed and rate * self._rtt < HARDLY_ANY

    def back(self, sent_at: float) -> None:
        """See `Departures`."""
        if self.in_flight:  # one that was sent before another limiter took this one's place was counted there
            self.in_flight -= 1
        if self._is_met:
            self._alone.back(sent_at)
            self._noise.back(sent_at)

    def close(self, until: float) -> None:
        """Nothing leaves before this moment."""
        self._is_met = True
        self._closed_until = max(self._closed_until, until)

    def _awaits(self) -> bool:
        """Whether what is in flight tells if another may follow: the window is full, or the leap has been made."""
        if self._pace.rate is None:
            return self.in_flight >= self._window()
        if self._span.most:
            most = TRIED_WINDOW + 2.0 * self._pace.rate * self._rtt if self._pace.is_tried else math.inf
            return self.in_flight >= min(self._span.most, most)
        return self._noise.awaits or self._tries_enough(self._pace.rate)

    def _span_opens(self, more: int = 0) -> float:
        """When one may leave to find a place in the window; `more` are on their way beside those that are."""
        return self._span.opens(self.in_flight + more, self._pace.faster) - self._least_rtt / 2.0

    def _tries_enough(self, rate: float) -> bool:
        """Whether as many are on their way as should be refused at once, where more than the rate is tried."""
        pace = self._pace
        return pace.is_tried and self.in_flight >= TRIED_WINDOW + 2.0 * rate * self._rtt + pace.waited / TRIED_SHARE

    def _window(self) -> float:
        accepted = self._epochs.accepted - self._window_from
        # Where an answer takes long, a window opens slowly: there it is wider.
        longer = min(2.0, max(1.0, 2.0 * self._rtt))
        wide = longer * min(WIDEST_WINDOW, WIDE_WINDOW + accepted / WIDE_SHARE)
        window = max(self._first_window, min(wide, self._first_window + accepted * longer / WINDOW_SHARE))
        return min(window, self._narrow())

    def _narrow(self) -> float:
        """The window where a burst probably ends; without end everywhere else, and once one has ended."""
        epochs, bursts = self._epochs, self._bursts
        if epochs.accepted + self.in_flight < bursts.after:
            return math.inf
        if epochs.known_at > -math.inf:
            bursts.after = math.inf
            return math.inf
        seconds = self._last_sent - (self._last_sent if self._began is None else self._began)
        return bursts.window(epochs.accepted, self.in_flight, seconds, self._rtt)

    def _stale(self) -> float:
        return min(STALEST, max(STALE, 4.0 * self._rtt))

    # --- answers -----------------------------------------------------------------------------------------------------

    def accepted(self, now: float, sent_at: float) -> None:
        """See `Departures`."""
        rtt, took = self._rtt, now - sent_at
        self._rtt = rtt + (took - rtt) / 8.0 if rtt else took
        if took < self._least_rtt:
            self._least_rtt = took
        self._epochs.accepted += 1
        if self._is_met:
            self._accepted_met(now, sent_at)
            return
        if self._surely < self._surely_most:
            self._surely += self._surely_more
        if self._epochs.accepted <= MOST + 1:
            self._span.taken.append(sent_at + took / 2.0)

    def _accepted_met(self, now: float, sent_at: float) -> None:
        self._noise.accept(is_new=sent_at > self._epochs.known_at)
        self._epochs.accept(sent_at)
        if self._noise.leapt_at is not None:
            self._landed(now, sent_at, is_refused=False)
        if self._alone.is_on and sent_at > self._epochs.known_at:
            self._alone.is_on = False
            self._window_from, self._first_window = self._epochs.accepted, FIRST_WINDOW
            if self._pace.rate is not None and not self.is_given:
                self._pace.save(now, self._saved_alone(now, self._pace.rate))
        span, pace = self._span, self._pace
        if not span.is_over and span.accept((now + sent_at) / 2.0, now - 2.0 * self._rtt):
            self._rate_before, pace.flat, pace.waited = pace.rate, min(MOST_FLAT, float(span.most)), 0
            self._alone.is_on = False
        if span.most:
            pace.rate = max(SLOWEST, span.most / span.seconds)

    def _saved_alone(self, now: float, rate: float) -> float:
        """What came in since the refusal was known, while one request was alone."""
        if self._epochs.is_closed:
            return 0.0  # where the first one alone was refused as well, what refuses is not a bucket that fills
        empty_for = now - self._epochs.known_at
        if rate * self._rtt < FEW_ON_THE_WAY:
            empty_for += self._rtt / 2.0  # it was known that much later than it was so
        return min(self._pace.burst, max(0.0, BELOW_RATE * rate * empty_for - 1.0))

    def refused(self, now: float, sent_at: float) -> bool:
        """A request that was sent at `sent_at` was refused, because there were too many. True if that is no noise."""
        self._is_met = True
        rtt = self._rtt
        self._rtt = rtt + (now - sent_at - rtt) / 8.0 if rtt else now - sent_at
        noise, epochs, pace, alone = self._noise, self._epochs, self._pace, self._alone
        noise.refuse(epochs.accepted, is_new=sent_at > epochs.known_at)
        if noise.leapt_at is not None:
            self._landed(now, sent_at, is_refused=True)
            return False
        if noise.explains(is_rate_known=pace.rate is not None):
            return False
        if sent_at <= epochs.known_at:
            return True
        if self.is_given:
            self.refused_as_given += 1
            pace.save(now, min(0.0, pace.saved(now)))
        elif pace.is_told and self._told.refuse(noise.share):
            self._contradicted()
        epochs.known_at = now
        pace.waited, pace.doubles = 0, False
        if not self._span.is_over and self._refused_in_span(now, sent_at):
            return True
        if alone.is_on or (alone.was_followed(sent_at) and epochs.is_empty):
            epochs.refuse_alone(sent_at)
            grows = GAP_GROWS if pace.rate is None else KNOWN_GAP_GROWS
            alone.begin(now, min(LONGEST_GAP, alone.gap * grows))
        elif epochs.measures_nothing(sent_at, alone.gap):
            alone.begin(now, alone.gap)
        else:
            if not self.is_given:
                self._learn(now, sent_at)
            if noise.leapt_at is None:
                alone.begin(now, self._first_gap(now))
        return True

    def _refused_in_span(self, now: float, sent_at: float) -> bool:
        """Whether a window was found, which says all that is to be said of a refusal."""
        span, pace = self._span, self._pace
        if not span.most and self._noise.usual:
            span.end()
            return False
        was_found = span.most > 0
        if span.refuse((now + sent_at) / 2.0):
            pace.flat = min(MOST_FLAT, 2.0 * pace.flat)
        elif was_found:  # it is none after all
            pace.rate = self._rate_before or pace.rate
            self._epochs.forget(mark=sent_at)
            pace.save(now, 0.0)
            self._alone.begin(now, self._first_gap(now))
        return was_found

    def _first_gap(self, now: float) -> float:
        if self._pace.rate is not None:
            return max(1.0 / self._pace.rate, self._rtt, SHORTEST_GAP)
        began = self._began if self._began is not None else now
        return min(LONGEST_GAP, max(self._rtt, (now - began) / (self._epochs.accepted + 1), SHORTEST_GAP))

    def _learn(self, now: float, sent_at: float) -> None:
        """The bucket is empty: an epoch ends, and shows burst or rate."""
        pace, before = self._pace, self._pace.rate
        if before is not None and (spent := self._epochs.spent(sent_at, before)) is not None:
            pace.burst = max(0.0, min(pace.burst, spent))
        found = self._epochs.mark(sent_at)
        if found is None:
            return
        rate = found.rate
        pace.rate = max(SLOWEST, rate)
        # Where many are on their way, asking for more costs more refusals at once, so it is done less often.
        most = MOST_FLAT * max(1.0, rate * self._rtt / FEW_ON_THE_WAY)
        pace.flat = min(most, max(LEAST_FLAT, float(found.accepted)))
        if before is None:
            began = self._began if self._began is not None else sent_at
            pace.burst = max(0.0, found.first - rate * max(0.0, found.began - began))
        if found.is_repeated and self._noise.may_have_lowered(rate, found.accepted):
            pace.rate, pace.is_even = max(SLOWEST, self._noise.leap(now, rate)), True
            pace.save(now, 0.0)

    # --- limit or noise ----------------------------------------------------------------------------------------------

    def _landed(self, now: float, sent_at: float, *, is_refused: bool) -> None:
        """A request came back during a leap."""
        is_noise = self._noise.landed(sent_at, is_refused=is_refused)
        if is_noise is not None:
            self._end_leap(now, is_noise=is_noise)

    def _end_leap(self, now: float, *, is_noise: bool) -> None:
        pace = self._pace
        self._noise.end_leap(is_noise=is_noise)
        self._epochs.known_at = now
        pace.waited, pace.is_even = 0, False
        if is_noise:
            self._epochs.forget()
            pace.rate, pace.doubles = max(SLOWEST, self._noise.held), True
        else:
            self._epochs.forget(mark=now)
            pace.rate = max(SLOWEST, self._noise.fell_to)
            self._alone.begin(now, self._first_gap(now))

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
        told, pace = self._told, self._pace
        if told.is_ignored or told.is_old(sent_at):
            return
        if until_reset is not None:
            self.close(now + until_reset)
        if not limit or remaining is None or self.is_given:
            return
        self._is_met = True
        free = told.count(sent_at, limit, remaining, self.in_flight, accepted=accepted)
        if free is None:
            self._contradicted()
        elif told.contradictions:
            pace.hold(now, free)
        else:
            pace.rate = max(SLOWEST, limit / 60.0)
            pace.burst = float(limit)
            pace.flat = TOLD_FLAT
            if not pace.is_told:
                pace.is_told, pace.waited = True, int(TOLD_FLAT)
                self._epochs.forget()
                self._span.end()
            pace.save(now, free)

    def told(self, now: float) -> tuple[float, float] | None:
        """The limit that headers told, and how many should remain of it now; None if they are not believed."""
        if not self._pace.is_told or self._told.contradictions:
            return None
        return self.burst, max(0.0, min(self.burst, self._pace.saved(now)))

    def _contradicted(self) -> None:
        """The counts were wrong once more. If that was once too often, everything is to be found out anew."""
        if self._told.is_ignored:
            pace = self._pace
            pace.is_told = False
            pace.rate = None
            pace.burst = 0.0
            pace.flat = LEAST_FLAT
            self._epochs.forget()
            self._span.end()
            self._window_from = self._epochs.accepted

    # --- for a later run ---------------------------------------------------------------------------------------------

    @property
    def learnt(self) -> Learnt:
        """What a later run may start from."""
        if self.is_given:
            return Learnt()
        return Learnt(self._pace.rate, self._pace.burst, self._pace.flat, self._noise.usual)

    def start_from(self, now: float, learnt: Learnt, seconds_ago: float) -> None:
        """Start from what an earlier run learnt, whose last request was sent so long ago; not once one was sent."""
        pace = self._pace
        if self.is_given or learnt.rate is None or self._began is not None or pace.rate is not None:
            return
        self._is_met = True
        self._span.end()
        pace.rate = max(SLOWEST, learnt.rate)
        pace.burst = max(0.0, learnt.burst)
        pace.flat = min(TOLD_FLAT, max(LEAST_FLAT, learnt.flat))
        self._noise.start_from(learnt.usual)
        pace.save(now, min(max(1.0, pace.burst), max(0.0, seconds_ago) * pace.rate))
