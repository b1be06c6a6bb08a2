"""What a run will cost and how long it takes, as ranges: before anything is paid, and honest about what is not known.

A kind of job with five known costs or more is estimated from the latest fifty of them. With `k` costs of mean `m` and
standard deviation `s`, the sum of `n` more lies within `n*m ± t*s*sqrt(n + n*n/k)`, where `t` is the 95 % point of
Student's distribution. Costs are skewed, so that a nominal 90 % held 84 to 89 % of simulated runs: it is "likely", and
no promise. A kind with fewer is estimated from what is published, widened to hold what was seen; a kind of which
nothing is published is not known, and never $0.

The time is the larger of two: the submissions at the rate, and then the longest usual duration; or all jobs through the
jobs that may run at once (`max_in_flight`).

What a journal has finished, running or in doubt is not paid for again, so it is not counted. This module knows nothing
of sessions, of sending, or of how a journal is read.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple, Self

import msgspec

from aiopplx._errors import ConfigError, InvalidRequest
from aiopplx._policy.given import Frame, iterator_of
from aiopplx._policy.recovery import Decision, decide
from aiopplx._wire.kinds import Kind
from aiopplx._wire.request import Request
from aiopplx.apis._registry import APIS, Routing, published, published_rates, request_of
from aiopplx.journal._names import Names, sha_of
from aiopplx.journal._protocol import JournalReader
from aiopplx.journal._records import REPLACEABLE, REPLACEABLE_IF_ASKED, Ledger, Record

ENOUGH = 5
"""Known costs of a kind from which they decide."""
LATEST = 50
"""Known costs that count."""
# The 95 % points of Student's distribution, by degrees of freedom.
_STUDENT = ((4, 2.13), (5, 2.02), (6, 1.94), (7, 1.89), (9, 1.83), (14, 1.76), (19, 1.73), (29, 1.70), (49, 1.68))
_USUAL = 1.645
"""Standard deviations of the logarithm within which a duration is usual: nine in ten are shorter or between."""
RATES = (5.0, 2000.0)
"""Submissions a minute where nothing is published: those of the lowest and of the highest tier of any API."""


class Range(msgspec.Struct, frozen=True):
    """From `low` to `high`."""

    low: float
    high: float


class Estimate(msgspec.Struct, frozen=True):
    """What is expected of a run.

    Attributes:
        count: submissions that it would pay for.
        low, high: US dollars in all, likely between these; None if a kind of job in it is not known.
        middle: the likeliest sum in US dollars, where own costs decide; None otherwise.
        seconds_low, seconds_high: from the first submission to the last result.
        known: known costs of own jobs behind it: 0 if published figures alone are.
        unknown: submissions of kinds of which no cost is known.
        finished, running, in_doubt: questions that the journal has: they are not paid for again.
        conflicts: questions under a tag that is another question's in the journal: they are refused, and cost nothing.
        conflicts_paid: US dollars that those other questions have cost.
    """

    count: int
    low: float | None
    high: float | None
    middle: float | None
    seconds_low: float
    seconds_high: float
    known: int = 0
    unknown: int = 0
    finished: int = 0
    running: int = 0
    in_doubt: int = 0
    conflicts: int = 0
    conflicts_paid: float = 0.0

    @classmethod
    def of(
        cls,
        requests: Iterable[str | Mapping[str, object] | Request] | Frame,
        *,
        api: str = "auto",
        journal: JournalReader | None = None,
        run: str | None = None,
        retry_failed: bool = False,
        replace: bool = False,
        max_in_flight: int = 1000,
        rpm: float | None = None,
        after: int = 0,
        at_most: int | None = None,
        paid: Iterable[tuple[Request, float]] = (),
    ) -> Self:
        """The estimate of a run that asks these requests: without a session, a key or a request.

        `Session.estimate` is the same for the session's own API, journal and limits.

        Args:
            requests: what is to be asked, as for `Session.batch`, such as `aiopplx.questions(...)`. An item that
                breaks a rule costs nothing.
            api: as for `Session`.
            journal: what earlier runs have left: their costs count, and what they have paid for is not paid again.
            run, retry_failed, replace: as for `JournalOptions`.
            max_in_flight: jobs that run at once.
            rpm: submissions a minute; None if that is not known.
            after: this many of the first requests are not counted: what comes after a pilot.
            at_most: stop reading at this many that would be paid for or run already: what the first ones cost.
            paid: requests with what each has cost in US dollars, if no journal knows it; newest first.

        Raises:
            ConfigError: there is no such API.
            InvalidRequest: the items of the source are not questions, or come asynchronously; the message has the call.
            TableError: a row of a DataFrame cannot be used.
            JournalError: the journal cannot be read.
        """
        if api not in APIS:
            raise ConfigError(f"api: must be one of {', '.join(APIS)}, not {api!r}")
        routing = Routing(*APIS[api])
        found = Found(retry_failed=retry_failed, replace=replace, run=run or "")
        costs: dict[Kind, list[float]] = {}
        for request, cost in paid:
            to, body = routing.freeze(request, "")
            costs.setdefault(to.kind_of(body), []).append(cost)
        for at, item in enumerate(_iterator_of(requests)):
            try:
                request = request_of(item)
                to, body = routing.freeze(request, "")
            except InvalidRequest:
                continue
            named = found.named(request)
            if at < after:
                continue
            found.add(to.kind_of(body), named, journal.get(item=named.item) if journal is not None else None)
            if at_most is not None and found.unfinished >= at_most:
                break
        if journal is not None:
            for kind, samples in samples_of(journal.ledger(LATEST)).items():
                costs.setdefault(kind, []).extend(samples)
        return cls(**msgspec.structs.asdict(found.estimate(costs, max_in_flight=max_in_flight, rpm=rpm)))

    def __str__(self) -> str:
        time = f"{_time(self.seconds_low)} to {_time(self.seconds_high)}"
        if _time(self.seconds_low) == _time(self.seconds_high):
            time = _time(self.seconds_high)
        if not self.count:
            return "nothing to pay for"
        if self.low is None or self.high is None:
            return f"the cost of {self.unknown:,} of {self.count:,} is not known, {time}"
        if self.middle is not None:
            return (
                f"about {_dollars(self.middle)}, likely {_dollars(self.low)} to {_dollars(self.high)}, {time}"
                f" (from {self.known} of yours)"
            )
        basis = (
            "published figures; nothing of yours is known yet"
            if not self.known
            else f"published, and {self.known} of yours"
        )
        return f"about {_dollars(self.low)} to {_dollars(self.high)}, {time} ({basis})"


def _iterator_of(
    source: Iterable[str | Mapping[str, object] | Request] | Frame,
) -> Iterator[str | Mapping[str, object] | Request]:
    items = iterator_of(source, "Estimate.of")
    if isinstance(items, AsyncIterator):
        raise InvalidRequest("Estimate.of takes an iterable of questions; session.estimate(source) reads an async one")
    return items


class Named(NamedTuple):
    """A question of a source as a journal would know it: its name, and the digest of its request."""

    item: str
    sha: bytes


class Found:
    """Counts what a run would pay for.

    Args:
        retry_failed: what failed, expired or was refused is paid for again.
        replace: a question under the tag of another that has ended is paid for.
        run: the name of the run.

    Attributes:
        counts: jobs of each kind.
    """

    def __init__(self, *, retry_failed: bool, replace: bool, run: str = "") -> None:
        self.counts: dict[Kind, int] = {}
        self._stored = [0, 0, 0]
        self._conflicts = 0
        self._conflicts_paid = 0.0
        self._replaceable = REPLACEABLE_IF_ASKED if replace else REPLACEABLE
        self._retry_failed = retry_failed
        self._naming = Names(run_name=run)
        self._names: set[str] = set()

    @property
    def unfinished(self) -> int:
        """Jobs to be paid for, and those that run already."""
        return sum(self.counts.values()) + self._stored[1]

    def named(self, request: Request) -> Named:
        """The name of the next question."""
        sha = sha_of(request.canonical())
        return Named(self._naming.name(request.tag, sha), sha)

    def add(self, kind: Kind, named: Named | None, record: Record | None) -> None:
        """Count one question.

        Args:
            kind: of its job.
            named: its name, where a journal would find it again: two questions under one tag are one job.
            record: what the journal has of it.
        """
        if named is not None:
            if named.item in self._names:
                return
            self._names.add(named.item)
        if record is None or self._is_paid(record, named):
            self.counts[kind] = self.counts.get(kind, 0) + 1

    def _is_paid(self, record: Record, named: Named | None) -> bool:
        if named is not None and record.sha not in (named.sha, b""):
            if record.state in self._replaceable:
                return True
            self._conflicts += 1  # the tag is another question's
            self._conflicts_paid += record.cost or 0.0
            return False
        decision = decide(record, may_resend=False, retry_failed=self._retry_failed)
        if decision in (Decision.SEND, Decision.REQUEUE):
            return True
        self._stored[1 if decision is Decision.POLL else 2 if decision is Decision.HOLD else 0] += 1
        return False

    def estimate(self, costs: Mapping[Kind, Sequence[float]], *, max_in_flight: int, rpm: float | None) -> Estimate:
        """The estimate of what was counted. Arguments as for the function of this name."""
        expected = estimate(self.counts, costs, max_in_flight=max_in_flight, rpm=rpm)
        finished, running, in_doubt = self._stored
        return msgspec.structs.replace(
            expected,
            finished=finished,
            running=running,
            in_doubt=in_doubt,
            conflicts=self._conflicts,
            conflicts_paid=self._conflicts_paid,
        )


def samples_of(ledger: Ledger) -> dict[Kind, Sequence[float]]:
    """The known costs of each kind, newest first."""
    return {Kind.of(label): costs.samples for label, costs in ledger.kinds.items()}


def estimate(
    counts: Mapping[Kind, int],
    costs: Mapping[Kind, Sequence[float]],
    *,
    max_in_flight: int,
    rpm: float | None = None,
) -> Estimate:
    """The estimate of a run.

    Args:
        counts: how many jobs of each kind it would pay for.
        costs: the known costs of own jobs of each kind, newest first, US dollars.
        max_in_flight: how many jobs run at once.
        rpm: submissions a minute; None if that is not known.
    """
    low = high = middle = 0.0
    known = unknown = 0
    is_own = True
    for kind, count in counts.items():
        own = [cost for cost in list(costs.get(kind, ()))[:LATEST] if math.isfinite(cost) and cost >= 0.0]
        known += len(own)
        bounds = _from_own(own, count) if len(own) >= ENOUGH else _from_published(kind, own, count)
        if bounds is None:
            unknown += count
            continue
        is_own = is_own and len(own) >= ENOUGH
        middle += count * fmean(own) if len(own) >= ENOUGH else (bounds.low + bounds.high) / 2
        low += bounds.low
        high += bounds.high
    seconds = _seconds(counts, max_in_flight, rpm)
    return Estimate(
        count=sum(counts.values()),
        low=_rounded(low, down=True) if not unknown else None,
        high=_rounded(high, down=False) if not unknown else None,
        middle=_rounded(middle) if is_own and not unknown and counts else None,
        seconds_low=seconds.low,
        seconds_high=seconds.high,
        known=known,
        unknown=unknown,
    )


def _from_own(own: Sequence[float], count: int) -> Range:
    k, mean = len(own), fmean(own)
    wide = _student(k - 1) * stdev(own) * math.sqrt(count + count * count / k)
    return Range(max(0.0, count * mean - wide), count * mean + wide)


def _from_published(kind: Kind, own: Sequence[float], count: int) -> Range | None:
    said = published(kind)
    if said.low is None or said.high is None:
        return None
    return Range(count * min([said.low, *own]), count * max([said.high, *own]))


def _student(freedom: int) -> float:
    """The 95 % point: of the nearest smaller number of degrees in the table, so never too narrow."""
    return max((at, point) for at, point in _STUDENT if at <= freedom)[1]


def _seconds(counts: Mapping[Kind, int], max_in_flight: int, rpm: float | None) -> Range:
    count = sum(counts.values())
    if not count:
        return Range(0.0, 0.0)
    laws = [(published(kind), share) for kind, share in counts.items()]
    mean = sum(law.seconds * math.exp(law.sigma**2 / 2) * share for law, share in laws) / count
    usual = max(law.seconds * math.exp(_USUAL * law.sigma) for law, _ in laws)
    quick = min(law.seconds for law, _ in laws)
    if rpm is None:
        slow_rates, fast_rates = zip(*(published_rates(kind) or RATES for kind in counts), strict=True)
        slow_rate, fast_rate = min(slow_rates), max(fast_rates)
    else:
        slow_rate = fast_rate = rpm
    last = usual if count > 1 else quick
    through = count * mean / max_in_flight
    return Range(max(60.0 * count / fast_rate + quick, through), max(60.0 * count / slow_rate + last, through))


def _rounded(amount: float, *, down: bool | None = None) -> float:
    """To two figures: a lower bound down, an upper bound up."""
    if amount <= 0.0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(amount)) - 1)
    figures = amount / unit
    whole = round(figures) if down is None else math.floor(figures + 1e-9) if down else math.ceil(figures - 1e-9)
    return round(whole * unit, 6)


def _dollars(amount: float) -> str:
    if amount >= 10 or amount == 0:
        return f"${amount:,.0f}"
    return f"${amount:.2f}" if amount >= 0.1 else f"${amount:.2g}"


def _time(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
