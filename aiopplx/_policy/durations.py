"""How long jobs of one kind take, learned from those that ran, and when a running one is best polled.

What is learned
---------------
The law is a hazard by age: of the jobs that are alive at an age, the share that ends in the next second. Ages are in 97
bins, the first second and 96 bins of equal logarithm up to two hours. Each bin has *events* (jobs that ended in it) and
*exposure* (seconds that jobs lived in it); the hazard is one over the other. A job that was seen running adds exposure
and no event, so that jobs that run, were left, or got stuck are counted rightly. Where the server does not say when a
job ended, its event is spread over the time between its last two polls. Each job that ends makes the older counts 0.3 %
lighter, so that the law follows a service that changes.

Few jobs need a shape to lean on. Three are at hand: what was published (or what other kinds of the same API have
shown), a lognormal law that is fitted to what was seen, and the same with jobs that fail early. Each is refined by the
counts, and each is believed by how well it had foretold the jobs that ended since. All of them take one job in
a hundred for stuck; without that, the polls of a stuck job cost more than those of all others.

When to poll
------------
A job that was last seen running at age `s` may have ended by age `a`, and then has lain unseen for some time. The
expected seconds of that, `unseen(s, a)`, grow from 0; the next poll is where they reach a price. The price is what a
poll is worth in seconds of a result's delay. That is close to the best that any schedule of polls can do
(docs/polling.md), and it needs no tuning: it is early for quick kinds, and patient with stuck jobs.

When jobs will be done
----------------------
A poll that comes too early costs little, so that polls give up what was published slowly. A forecast that did so would
speak of minutes where jobs of two seconds come in, for a hundred of them. It leans on the lognormal law that is
likeliest by all that was seen: every age at which a job ended, and every age at which one did not. What was published
says only where that law probably lies, and is soon outvoted.

This module knows nothing of requests, tasks, clocks or kinds. Ages are seconds since the server accepted a job.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise, product
from math import exp, expm1, log
from typing import NamedTuple

import msgspec

BINS = 97
LAST = 7200.0
"""Seconds: no ages beyond are told apart."""
_STEP = log(LAST) / (BINS - 1)
_EDGES = (0.0, *(exp(n * _STEP) for n in range(BINS)))
_WIDTHS = tuple(_EDGES[n + 1] - _EDGES[n] for n in range(BINS))

SHORTEST_GAP = 1.0
LONGEST_GAPS = (60.0, 120.0)
LONGEST_SHARE = 0.05
"""Seconds: no gap is longer than the first up to an age of twenty minutes, and than this share of the age from then on,
up to the second; save before the age at which the first in fifty have ended. A law that is wrong costs no more than
this, and the last job of a thousand, which is hard to tell from a stuck one, is handed out a few per cent late."""
PRICE = 0.25
"""Seconds of a result's delay that one poll is worth."""

STUCK = 0.01
"""The share of jobs that never end, in every shape to lean on."""
_EARLY = 0.05
"""The share of jobs that fail early in the first shape: more than most kinds have, since a poll that comes too early
costs less than a failure that nobody sees for a minute."""
_FITTED_EARLY = (0.01, 0.15)
"""The same in the two fitted ones: hardly any, and more than a kind has that would be of any use."""
_WEIGHT = 3.0
"""Jobs that the published shape counts for, beside those that were seen."""
_FITTED_WEIGHT = 50.0
"""Jobs that a fitted one counts for, if it is believed."""
_DOUBTS = (1.0, 0.0)
"""The fitted shapes must have foretold the jobs better by this (a logarithm) to be believed as much as the first. Of
five or ten jobs none may have failed early though one in ten does, so that the shape in which many do needs no proof,
and fifty without such a failure end the belief in it."""
_MOST_SAID = 5.0
"""No job says more for or against a shape than this, or one odd job could decide."""
_DECAY = 0.997
"""What an ended job leaves of the weight of the older ones. Their half-life is 230 jobs."""
_UNIFORM = 0.3
"""The share of an event that is spread evenly where the first poll, before the median, found the job ended: the law
cannot know of ages at which nobody ever looked."""
_UNCOUNTED = 2400
"""Ends that wait to be counted. Beyond that the oldest are forgotten, which weigh less than a thousandth by then."""
_HEAVY = 1e9
"""Weights grow instead of all counts becoming lighter; beyond this they are made small again."""

_LIKELY_WEIGHT = 10.0
"""Jobs that the likeliest lognormal law counts for in a forecast, beside those that were seen."""
_LIKELY_EARLY = 0.02
"""The share of jobs that fail early in it."""
_WIDTHS_TRIED = (0.1, 0.12, 0.15, 0.18, 0.22, 0.27, 0.33, 0.4, 0.5, 0.6, 0.75, 1.0)
"""Of lognormal laws: the standard deviations of the logarithm among which the likeliest is looked for."""
_USUAL_WIDTH, _WIDTH_VARIES = 0.5, 0.5
"""What is expected of that width before anything was seen: so much, and the standard deviation of its logarithm."""
_MEDIAN_VARIES = 1.2
"""The standard deviation of the logarithm of a median round the published one: one in twenty is ten times another."""
_SEEN_ANEW = 1.05
"""A forecast is made anew once all jobs together have been seen for so much longer, or one in twenty more has ended."""


class Shape(NamedTuple):
    """How jobs end that were not seen: by bin, the share of all jobs that end in it, and their mean seconds in it."""

    ends: Sequence[float]
    seconds: Sequence[float]


def guess(median: float, sigma: float) -> Shape:
    """A lognormal law of durations, in which one job in a hundred never ends, and one in twenty fails early.

    Args:
        median: seconds.
        sigma: the standard deviation of the logarithm.
    """
    return _with_early(_lognormal(median, sigma), median, _EARLY)


def _lognormal(median: float, sigma: float) -> Shape:
    middle, scale = log(median), sigma * math.sqrt(2.0)
    alive = [1.0]
    alive += [STUCK + (1.0 - STUCK) * 0.5 * math.erfc((log(edge) - middle) / scale) for edge in _EDGES[1:]]
    return _shape(alive)


def _shape(alive: Sequence[float]) -> Shape:
    ends = [alive[n] - alive[n + 1] for n in range(BINS)]
    seconds = [0.5 * (alive[n] + alive[n + 1]) * _WIDTHS[n] for n in range(BINS)]
    return Shape(ends, seconds)


def _with_early(shape: Shape, median: float, share: float) -> Shape:
    """The same, but so many of the jobs fail before the median, evenly over the logarithm of the age."""
    last = max(_bin(median), 1)
    most = 1.0 - share
    ends = [most * x for x in shape.ends]
    seconds = [most * x for x in shape.seconds]
    for n in range(last):
        ends[n] += share / last
        seconds[n] += share * (1.0 - (n + 0.5) / last) * _WIDTHS[n]
    return Shape(ends, seconds)


class Curve:
    """How jobs of one kind end: the share that runs at each age.

    Args:
        alive: that share at the edges of the bins.

    Attributes:
        stalled_after: the age in seconds that one in a thousand of the jobs that end exceeds. Beyond it a job is hardly
            ever anything but stuck.
    """

    __slots__ = ("_alive", "_hazard", "stalled_after")

    def __init__(self, alive: list[float]) -> None:
        self._follow(alive)

    def _follow(self, alive: list[float]) -> None:
        self._alive = alive
        self._hazard = [max(log(alive[n] / alive[n + 1]) / _WIDTHS[n], 1e-9) for n in range(BINS)]
        self.stalled_after: float = self.age_of_end(0.999)

    def unfinished(self, age: float) -> float:
        """The share of jobs that are running at this age."""
        n = _bin(age)
        return self._alive[n] * exp(-self._hazard[n] * (age - _EDGES[n]))

    def has_ended(self, since: float, age: float) -> float:
        """The probability that a job last seen running at `since` has ended by `age`."""
        if age <= since:
            return 0.0
        since, age = _within(since, age)
        return 1.0 - self.unfinished(age) / self.unfinished(since)

    def will_have_ended(self, since: float, age: float) -> float:
        """The same, of a job that does end at some time."""
        ever = self.has_ended(since, max(age, LAST)) if since < LAST else 0.0
        return min(1.0, self.has_ended(since, age) / ever) if ever > 1e-9 else 1.0 if age > since + LAST else 0.0

    def age_of_end(self, share: float, age: float = 0.0) -> float:
        """The age by which this share of the jobs have ended that run at `age` and do end at some time."""
        now, never = self.unfinished(age), self._alive[BINS]
        wanted = now - share * (now - never)
        if now <= never * (1.0 + 1e-9):
            return max(age, LAST)
        alive = self._alive
        low, high = _bin(age), BINS
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if alive[middle + 1] > wanted else (low, middle)
        if low >= BINS:
            return max(age, LAST)
        return max(age, _EDGES[low] + log(max(alive[low] / wanted, 1.0)) / self._hazard[low])


class Law(Curve):
    """The learned law of one kind.

    Args:
        start: how such jobs end, as far as anybody knows.
        price: seconds of a result's delay that one poll is worth.

    Attributes:
        finished: jobs whose end was seen.
        stalled_after: as for `Curve`; beyond it a job is polled at the longest gap.
    """

    __slots__ = (
        "_crossing",
        "_ends",
        "_events",
        "_expected",
        "_expected_at",
        "_exposure",
        "_gaps",
        "_lived",
        "_next_build",
        "_scores",
        "_shapes",
        "_start",
        "_weight",
        "finished",
        "price",
    )

    def __init__(self, start: Shape, price: float = PRICE) -> None:
        self.price: float = price
        self.finished: int = 0
        self._start = start
        self._events = [0.0] * BINS
        self._exposure = [0.0] * BINS
        # The weight with which whole bins are crossed, where it changes.
        self._crossing = [0.0] * BINS
        self._weight = 1.0
        self._scores = [0.0] * len(_FITTED_EARLY)
        self._ends: deque[tuple[float, float, float | None, float]] = deque(maxlen=_UNCOUNTED)
        self._expected: Curve = self
        self._expected_at = (0.0, 0.0)
        self._build()

    # --- what was seen -----------------------------------------------------------------------------------------------

    def ran(self, since: float, age: float) -> None:
        """A job was running at `age`; before, it was seen running at `since` (0.0: it had just been accepted)."""
        if age <= since:
            return
        # Only where it begins and ends, since this is done at each poll: `_sum_up` adds what lies between.
        exposure, weight = self._exposure, self._weight
        first, last = _bin(since), _bin(age)
        exposure[first] -= (since - _EDGES[first]) * weight
        exposure[last] += (age - _EDGES[last]) * weight
        if first != last:
            crossing = self._crossing
            crossing[first] += weight
            crossing[last] -= weight

    def _sum_up(self) -> None:
        """Add the whole bins that were crossed to the exposure."""
        exposure, crossing = self._exposure, 0.0
        for n, change in enumerate(self._crossing):
            crossing += change
            exposure[n] += _WIDTHS[n] * crossing
        self._crossing = [0.0] * BINS

    def ended(self, since: float, age: float, at: float | None = None) -> None:
        """A job had ended at this age; before, it was seen running at `since`.

        Args:
            since: 0.0 if it was never seen running.
            age: when that was seen.
            at: when it ended, if the server says so and it can be believed; None: some time in between.
        """
        # Taken in when somebody asks: whoever polls by a rule of their own, and asks for no forecast, pays for nothing.
        self._ends.append((since, age, at, self._weight))
        self.finished += 1
        self._weight /= _DECAY
        if self._weight > _HEAVY:
            self._lighten()

    def _take_in(self) -> None:
        """Count the ends that were seen since the last time, each with the weight that it had then."""
        if not self._ends:
            return
        now = self._weight
        while self._ends:
            since, age, at, self._weight = self._ends.popleft()
            self._count(max(0.0, since), max(age, since, 0.0), None if at is None else max(0.0, at))
        self._weight = now

    def _count(self, since: float, age: float, at: float | None) -> None:
        if at is not None:
            self._judge([_density(shape, at) for shape in self._shapes])
            # What was counted up to the last poll is right only if the job was alive then.
            self.ran(since, at) if at >= since else self._unran(at, since)
            self._events[_bin(at)] += self._weight
        else:
            self._judge(_shares_ended(self._shapes, since, age))
            self._spread(since, age)

    def _unran(self, since: float, age: float) -> None:
        """Take back what was counted; nothing was if the job was found when it had long been running."""
        self._weight = -self._weight
        self.ran(since, age)
        self._weight = -self._weight
        self._sum_up()
        exposure = self._exposure
        for n in range(_bin(since), _bin(age) + 1):
            exposure[n] = max(0.0, exposure[n])

    def _judge(self, said: list[float]) -> None:
        """How probable each shape had thought this end."""
        if len(said) > 1:
            first = log(max(said[0], 1e-9))
            scores = self._scores
            for n in range(1, len(said)):
                better = log(max(said[n], 1e-9)) - first
                scores[n - 1] = scores[n - 1] * _DECAY + max(-_MOST_SAID, min(better, _MOST_SAID))

    def _spread(self, since: float, age: float) -> None:
        events, exposure, weight = self._events, self._exposure, self._weight
        length = age - since
        first, last = _bin(since), _bin(age)
        if first == last:  # the law is a plain exponential within a bin
            events[last] += weight
            exposure[last] += weight * _mean_lived(length, self._hazard[last])
            return
        unfinished = self.unfinished(age)
        mass = self.unfinished(since) - unfinished
        evenly = 1.0 if mass < 1e-9 else _UNIFORM if since == 0.0 and unfinished > 0.5 else 0.0
        start, alive, lived = since, unfinished + mass, self._lived_until(since)
        for n in range(first, last + 1):
            end = age if n == BINS - 1 else min(_EDGES[n + 1], age)
            step = end - start
            if step <= 0.0:
                continue
            share = step / length
            seconds = step * (age - 0.5 * (start + end)) / length
            if evenly < 1.0:
                after, lived_after = self.unfinished(end), self._lived_until(end)
                by_law = (alive - after) / mass
                seconds_by_law = (lived_after - lived - unfinished * step) / mass
                alive, lived = after, lived_after
                share = evenly * share + (1.0 - evenly) * by_law
                seconds = evenly * seconds + (1.0 - evenly) * max(0.0, seconds_by_law)
            events[n] += weight * share
            exposure[n] += weight * seconds
            start = end

    def _lighten(self) -> None:
        self._take_in()
        self._sum_up()
        weight, self._weight = self._weight, 1.0
        self._events = [x / weight for x in self._events]
        self._exposure = [x / weight for x in self._exposure]

    # --- what follows from it ----------------------------------------------------------------------------------------

    def next_gap(self, age: float) -> float:
        """Seconds until the next poll of a job that is running at this age."""
        if self.finished >= self._next_build:
            self._build()
        if age < 1.0:
            at = age if age > 0.0 else 0.0
            n = 0
        elif age < LAST:
            at = log(age) / _STEP + 1.0
            n = int(at)
            at -= n
        else:
            return self._gaps[BINS]
        gaps = self._gaps
        gap = gaps[n]
        return gap + at * (gaps[n + 1] - gap)

    def refresh(self) -> None:
        """Take in what was seen since the tables were made, if that is much. `next_gap` does so itself.

        Tables take half a millisecond; whoever polls by a rule of their own has no need of them.
        """
        if self.finished >= self._next_build:
            self._build()

    def expected(self) -> Curve:
        """How jobs are expected to end by all that was seen, for a forecast; it is not taken anew for each job more."""
        counts = self.counts()
        seen = (float(self.finished), sum(counts[1]))
        if any(now > before * _SEEN_ANEW for now, before in zip(seen, self._expected_at, strict=True)):
            self._expected_at = seen
            self._expected = Curve(_likeliest(*counts, self._start))
        return self._expected

    def unseen(self, since: float, age: float) -> float:
        """Seconds for which a job last seen running at `since` is expected to have been finished unseen at `age`."""
        if age <= since:
            return 0.0
        since, age = _within(since, age)
        return max(0.0, age - since - (self._lived_until(age) - self._lived_until(since)) / self.unfinished(since))

    def _lived_until(self, age: float) -> float:
        """Mean seconds that a job lives up to this age."""
        n = _bin(age)
        hazard = self._hazard[n]
        return self._lived[n] - self._alive[n] * expm1(-hazard * (age - _EDGES[n])) / hazard

    # --- tables ------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        """From counts to tables: for each of the first jobs, then after each few per cent more."""
        count = self.finished
        self._next_build = count + max(1, min(count, 1000) // 8)
        events, exposure = map(_smooth, self.counts())
        first = _alive(events, exposure, self._start, _WEIGHT)
        self._shapes = [first]
        alive = first
        if count:
            fitted, median = _fit(first, min(float(count), sum(events)))
            for early in _FITTED_EARLY:
                shape = _with_early(fitted, median, early)
                self._shapes.append(_alive(events, exposure, shape, _FITTED_WEIGHT))
            doubted = zip(self._scores, _DOUBTS, strict=True)
            beliefs = [1.0, *(exp(min(score - doubt, 300.0)) for score, doubt in doubted)]
            total = sum(beliefs)
            a, b, c = (belief / total for belief in beliefs)
            alive = [a * x + b * y + c * z for x, y, z in zip(*self._shapes, strict=True)]
        self._tabulate(alive)

    def _tabulate(self, alive: list[float]) -> None:
        self._follow(alive)
        lived = [0.0] * (BINS + 1)
        for n, rate in enumerate(self._hazard):
            before, ended = alive[n], alive[n] - alive[n + 1]
            lived[n + 1] = lived[n] + (ended / rate if ended > 1e-12 else before * _WIDTHS[n])
        self._lived = lived
        self._gaps = self._find_gaps()

    def _find_gaps(self) -> list[float]:
        """At each edge, the seconds until the next poll."""
        alive, hazard, lived, price = self._alive, self._hazard, self._lived, self.price
        quiet = 0.0
        for n in range(BINS):
            if alive[n + 1] < 0.98:
                quiet = _EDGES[n]
                break
        gaps: list[float] = []
        last = BINS - 1
        reached = 0
        for n in range(BINS + 1):
            since, now, before = _EDGES[n], alive[n], lived[n]
            k = max(reached, min(n, last))
            while k < last and _EDGES[k + 1] - since - (lived[k + 1] - before) / now < price:
                k += 1
            reached = k
            unseen = max(0.0, _EDGES[k] - since - (lived[k] - before) / now)
            gap = _EDGES[k] - since + _until(price - unseen, alive[k] / now, hazard[k])
            longest = longest_gap(since)
            if since >= self.stalled_after:
                gap = longest
            gaps.append(max(SHORTEST_GAP, min(gap, max(longest, quiet - since))))
        return gaps

    def counts(self) -> tuple[list[float], list[float]]:
        """Events and seconds of exposure by bin; an event of the job that ended last counts 1."""
        self._take_in()
        self._sum_up()
        weight = self._weight
        # Sums of differences may fall short of nothing by a rounding error.
        return [x / weight for x in self._events], [max(0.0, x / weight) for x in self._exposure]

    # --- kept --------------------------------------------------------------------------------------------------------

    def export(self) -> bytes:
        """What was learned, in two kilobytes. The shape that it started from and the price are not in it."""
        return _ENCODER.encode(_Kept(_VERSION, self.finished, *self.counts(), self._scores))

    @classmethod
    def restored(cls, kept: bytes, start: Shape, price: float = PRICE) -> Law:
        """A law as it was at its `export`; what cannot be read or makes no sense is as if nothing had been learned."""
        law = cls(start, price)
        try:
            known = _DECODER.decode(kept)
        except (msgspec.DecodeError, ValueError):
            return law
        if known.is_sane():
            law.finished = known.finished
            law._events, law._exposure = known.events, known.exposure
            law._scores = known.scores
            law._build()
        return law


def pooled(laws: Iterable[Law], start: Shape) -> Shape:
    """How the jobs of several kinds end together: what a kind starts from of which nothing is published.

    Args:
        laws: those kinds.
        start: what they are added to, as three jobs.
    """
    events, exposure = [0.0] * BINS, [0.0] * BINS
    for law in laws:
        more_events, more_exposure = law.counts()
        events = [a + b for a, b in zip(events, more_events, strict=True)]
        exposure = [a + b for a, b in zip(exposure, more_exposure, strict=True)]
    return _shape(_alive(_smooth(events), _smooth(exposure), start, _WEIGHT))


# --- arithmetic ------------------------------------------------------------------------------------------------------


def longest_gap(age: float) -> float:
    """Seconds: the longest gap between polls of a job of this age."""
    shortest, longest = LONGEST_GAPS
    return min(longest, max(shortest, LONGEST_SHARE * age))


def _bin(age: float) -> int:
    if age < 1.0:
        return 0
    n = int(log(age) / _STEP) + 1
    return n if n < BINS else BINS - 1


def _within(since: float, age: float) -> tuple[float, float]:
    """The same span among the ages that are told apart: beyond them a job's age says nothing more."""
    return (since, age) if since <= LAST else (LAST, LAST + age - since)


def _smooth(counts: list[float]) -> list[float]:
    """Over five bins, so that few jobs make no comb of peaks."""
    first, last = counts[0], counts[-1]
    c = [first, first, *counts, last, last]
    return [(c[n] + 3.0 * (c[n + 1] + c[n + 3]) + 4.0 * c[n + 2] + c[n + 4]) / 12.0 for n in range(BINS)]


def _alive(events: Sequence[float], exposure: Sequence[float], shape: Shape, weight: float) -> list[float]:
    """The share alive at each edge: the counts, and the shape as so many jobs."""
    running = 1.0
    alive = [running]
    for n, (ends, seconds) in enumerate(zip(shape.ends, shape.seconds, strict=True)):
        hazard = (events[n] + weight * ends) / (exposure[n] + weight * seconds + 1e-9)
        running = max(running * exp(-hazard * _WIDTHS[n]), 1e-12)
        alive.append(running)
    return alive


def _fit(alive: Sequence[float], count: float) -> tuple[Shape, float]:
    """The lognormal law with the same quartiles, which a few odd jobs do not move, and its median."""
    low, middle, high = (_log_age(alive, share) for share in (0.75, 0.5, 0.25))
    width = (high - low) / 1.349  # between the quartiles of a normal law of width 1
    # Smoothing has widened it, and from few jobs it is not well known.
    variance = max(width * width - 7.0 / 6.0 * _STEP * _STEP, 0.01) * (1.0 + 2.0 / max(count, 1.0))
    median = exp(middle)
    return _lognormal(median, math.sqrt(variance)), median


def _likeliest(events: Sequence[float], exposure: Sequence[float], start: Shape) -> list[float]:
    """The share alive at each edge by the counts, which lean on the lognormal law that is likeliest by them."""
    nothing = [0.0] * BINS
    published = _log_age(_alive(nothing, nothing, start, 1.0), 0.5) / _STEP
    # A hazard times the width of its bin depends only on how many bins lie between it and the median.
    seen = [(n, events[n], exposure[n] / _WIDTHS[n]) for n in range(BINS) if events[n] > 0.0 or exposure[n] > 0.0]

    def likelihood(median: int, width: float) -> float:
        hazards, logs = _lognormal_hazards(width)
        shift = BINS - median
        said = sum(ended * logs[n + shift] - lived * hazards[n + shift] for n, ended, lived in seen)
        far = (median - published) * _STEP / _MEDIAN_VARIES
        odd = log(width / _USUAL_WIDTH) / _WIDTH_VARIES
        return said - 0.5 * (far * far + odd * odd)

    def best(medians: Iterable[int]) -> tuple[int, float]:
        return max(product(medians, _WIDTHS_TRIED), key=lambda law: likelihood(*law))

    near = best(range(1, BINS, 3))[0]
    at, width = best(range(max(1, near - 2), min(BINS, near + 3)))
    median = exp(at * _STEP)
    shape = _with_early(_lognormal(median, width), median, _LIKELY_EARLY)
    return _alive(_smooth([*events]), _smooth([*exposure]), shape, _LIKELY_WEIGHT)


@cache
def _lognormal_hazards(width: float) -> tuple[list[float], list[float]]:
    """Of a lognormal law: the hazard of each bin times its width, and its logarithm, by the bins from `BINS` before the
    median to as many after it. Before it some jobs fail early.
    """
    scale = width * math.sqrt(2.0) / _STEP
    alive = [STUCK + (1.0 - STUCK) * 0.5 * math.erfc((n - BINS) / scale) for n in range(-1, 2 * BINS)]
    early = _LIKELY_EARLY / BINS
    hazards = [2.0 * (x - y) / (x + y) + early for x, y in pairwise(alive)]
    return hazards, [log(hazard) for hazard in hazards]


def _log_age(alive: Sequence[float], share: float) -> float:
    """The logarithm of the age at which this share is alive."""
    for n in range(BINS):
        if alive[n + 1] < share:
            part = (alive[n] - share) / (alive[n] - alive[n + 1])
            return log(max(_EDGES[n] + part * _WIDTHS[n], 0.1))
    return log(LAST)


def _shares_ended(shapes: Iterable[Sequence[float]], since: float, age: float) -> list[float]:
    """The share of all jobs that end between two ages, by each shape."""
    n, m = _bin(since), _bin(age)
    before, after = min((since - _EDGES[n]) / _WIDTHS[n], 1.0), min((age - _EDGES[m]) / _WIDTHS[m], 1.0)
    return [
        alive[n] * (alive[n + 1] / alive[n]) ** before - alive[m] * (alive[m + 1] / alive[m]) ** after
        for alive in shapes
    ]


def _mean_lived(length: float, hazard: float) -> float:
    """Mean seconds that jobs live which end within so many seconds, at a constant hazard."""
    x = hazard * length
    return length * (0.5 - x / 12.0) if x < 1e-3 else 1.0 / hazard - length / expm1(min(x, 700.0))


def _density(alive: Sequence[float], age: float) -> float:
    n = _bin(age)
    return (alive[n] - alive[n + 1]) / _WIDTHS[n]


def _until(wanted: float, running: float, hazard: float) -> float:
    """Seconds until the expected unseen waiting has grown by `wanted`, at a constant hazard, where this share runs."""
    # wanted = t - running * (1 - exp(-hazard * t)) / hazard: convex in t, so that Newton comes down to it from above.
    t = wanted + running / hazard
    for _ in range(8):
        gone = -expm1(-hazard * t)
        slope = 1.0 - running + running * gone
        better = t - (t - running * gone / hazard - wanted) / slope if slope > 0.0 else t
        if t - better < 1e-3:
            return better
        t = better
    return t


# --- the form in which it is kept ------------------------------------------------------------------------------------

_VERSION = 1
_ENCODER = msgspec.msgpack.Encoder()


class _Kept(msgspec.Struct, array_like=True):
    version: int
    finished: int
    events: list[float]
    exposure: list[float]
    scores: list[float]

    def is_sane(self) -> bool:
        counts = [*self.events, *self.exposure]
        return (
            self.version == _VERSION
            and self.finished >= 0
            and len(self.events) == len(self.exposure) == BINS
            and len(self.scores) == len(_FITTED_EARLY)
            and all(0.0 <= count < 1e12 for count in counts)
            and all(abs(score) < 1e6 for score in self.scores)
        )


_DECODER = msgspec.msgpack.Decoder(_Kept)
