"""What a run would cost, for a person who has not paid yet, and whether that person has to be asked.

The figures come from the file that was looked at and from the journal that an earlier run has left. This module knows
nothing of sessions, and asks nobody.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from aiopplx._text.amounts import dollars, many
from aiopplx.cli._journals import reader_at
from aiopplx.cli._options import Connection, RunOptions
from aiopplx.tables import Request

if TYPE_CHECKING:
    from aiopplx import Estimate


PILOT = 5
"""Rows of the pilot that is advised: so many costs of a kind are enough to estimate from."""


class Price(msgspec.Struct, frozen=True):
    """What a run would cost.

    Attributes:
        rest: the estimate of all that is not paid yet.
        pilot: the estimate of a pilot; None without one, or if it would be all.
        ends: questions up to the last of the pilot, those of earlier runs included.
    """

    rest: Estimate
    pilot: Estimate | None = None
    ends: int = 0

    @property
    def next(self) -> Estimate:
        """What would be paid before anybody is asked again."""
        return self.pilot or self.rest


class Asked:
    """Requests, counted as they are read."""

    def __init__(self, requests: Iterator[Request]) -> None:
        self.count = 0
        self._requests = requests

    def __iter__(self) -> Iterator[Request]:
        for request in self._requests:
            self.count += 1
            yield request


def price_of(
    requests: Callable[[], Iterator[Request]],
    place: str | None,
    options: RunOptions,
    connection: Connection,
    *,
    run: str | None,
    retry_failed: bool,
    replace: bool,
    after: int = 0,
    paid: Sequence[tuple[Request, float]] = (),
) -> Price:
    """What a run would cost. Reads the file and the journal.

    Args:
        requests: begins to read what would be asked.
        place: the journal; None without one.
        options: of the run.
        connection: which API would be used.
        run: the name of the run, by which a journal that several share finds its questions; None if it has none.
        retry_failed: failed submissions are paid for again.
        replace: questions under the tag of another that has ended are paid for.
        after: questions of a pilot that has ended, which are not counted.
        paid: what the pilot has paid, if no journal knows it.

    Raises:
        ConfigError: there is no such API.
        JournalError: the journal cannot be read.
    """
    from aiopplx import Estimate

    with reader_at(place) as journal:

        def estimate(asked: Iterator[Request] | Asked, at_most: int | None) -> Estimate:
            return Estimate.of(
                asked,
                api=connection.api or os.environ.get("AIOPPLX_API") or "auto",
                journal=journal,
                run=run,
                retry_failed=retry_failed,
                replace=replace,
                max_in_flight=options.max_in_flight,
                rpm=options.rpm,
                after=after,
                at_most=at_most,
                paid=paid,
            )

        rest = estimate(requests(), None)
        if options.pilot is None or after or rest.count + rest.running <= options.pilot:
            return Price(rest)
        first = Asked(requests())
        return Price(rest, estimate(first, options.pilot), first.count)


def told_of(estimate: Estimate, place: str | None) -> str:
    """The estimate in a sentence, after what the journal has already."""
    counts = ((estimate.finished, "finished"), (estimate.running, "running"), (estimate.in_doubt, "in doubt"))
    stored = ", ".join(f"{count:,} {word}" for count, word in counts if count)
    said = str(estimate)
    if estimate.low is None and estimate.count > PILOT:
        said = f"{said}; --pilot {PILOT} finds out"
    if not stored:
        return said
    return f"{stored} in {place}; {f'the other {estimate.count:,}: ' if estimate.count else ''}{said}"


def conflict(estimate: Estimate, place: str | None, *, replace: bool) -> str:
    """What is wrong with tags under which the journal has another question; "" if nothing is.

    Args:
        estimate: with the number of such tags.
        place: the journal.
        replace: those that have ended are asked anew, so that only others are left.
    """
    count = estimate.conflicts
    if not count:
        return ""
    asks = "1 tag asks" if count == 1 else f"{count:,} tags ask"
    others = "--journal NEW.db begins afresh, --skip-bad goes on without them"
    if replace:
        return f"{asks} something else in {place}, which is still running or in doubt; {others}"
    paid = dollars(estimate.conflicts_paid)
    anew = f"--replace asks {'it' if count == 1 else 'them'} anew and pays again ({count:,} cost {paid})"
    return f"{asks} something else in {place}; {anew}, {others}"


def consent(
    estimate: Estimate, limit: float, *, yes: bool, can_ask: bool, is_watched: bool
) -> Literal["given", "needed", "missing"]:
    """Whether an amount may be paid.

    Args:
        estimate: the amount. One that is not known is above every limit.
        limit: US dollars up to which nobody is asked.
        yes: the user has agreed to any price.
        can_ask: a person is at the terminal and can answer.
        is_watched: a person is at the terminal.

    Returns:
        "given": pay. "needed": ask first. "missing": it is needed, and there is no way to ask.
    """
    if yes or not estimate.count or not is_watched:
        return "given"
    if estimate.high is not None and estimate.high <= limit and limit > 0:
        return "given"
    return "needed" if can_ask else "missing"


class Expectation:
    """The range that a run was expected to cost: to be told, once, when it costs more."""

    def __init__(self) -> None:
        self._low, self._high = 0.0, math.inf

    def set(self, estimate: Estimate, spent: float) -> None:
        """Expect what was spent, and an estimate on top of it. One that is not known is never passed."""
        if estimate.high is not None and estimate.low is not None and estimate.count:
            self._low, self._high = spent + estimate.low, spent + estimate.high

    def passed(self, spent: float) -> str:
        """What to tell when so many dollars are spent; "" for nothing."""
        if spent <= self._high:
            return ""
        low, high, self._high = self._low, self._high, math.inf
        return f"{dollars(spent)} has passed the estimate of {dollars(low)} to {dollars(high)}; --max-cost stops a run"


def rest_told(done: int, total: int, spent: str, where: str, rest: Estimate) -> str:
    """What a pilot has cost, and what the others would cost.

    Args:
        done: its answers.
        total: questions of the run.
        spent: what was paid for it.
        where: the file with its answers; "" for none.
        rest: the estimate of the others.
    """
    place = f", in {where}" if where else ""
    return f"{done:,} of {many(total, 'question')} done, {spent}{place}. The other {rest.count:,}: {rest}."
