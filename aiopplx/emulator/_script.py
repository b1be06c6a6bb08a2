"""When a fault is applied: rules over kinds of request, by count and at random.

Each rule has its own seed, so that a run can be repeated. This module knows nothing of what a fault does.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias, get_args

from aiopplx.emulator._exchange import Asked
from aiopplx.emulator.faults import NAMED, Fault

On: TypeAlias = Literal["submit", "get", "list", "cancel", "files", "content", "*"]
Match: TypeAlias = str | Callable[[Asked], bool]


class Rule:
    """One rule of the script. `seen` counts the requests that match it, `hits` how often its fault was applied."""

    def __init__(
        self,
        on: On,
        fault: Fault,
        times: int | None,
        rate: float | None,
        after: int,
        match: Match | None,
        rng: random.Random,
    ) -> None:
        self.on = on
        self.fault = fault
        self.times = times
        self.rate = rate
        self.after = after
        self.match = match
        self.seen: int = 0
        self.hits = 0
        self._rng = rng

    @property
    def spent(self) -> bool:
        """True if the fault was applied as often as it may be."""
        return self.times is not None and self.hits >= self.times

    def _fits(self, asked: Asked) -> bool:
        if self.on not in ("*", asked.on):
            return False
        if self.match is None:
            return True
        if callable(self.match):
            return self.match(asked)
        return self.match in asked.path or self.match.encode() in asked.body

    def selects(self, asked: Asked) -> bool:
        """Counts the request; True if the fault is to be applied to it."""
        if self.spent or not self._fits(asked):
            return False
        self.seen += 1
        if self.seen <= self.after:
            return False
        return self.rate is None or self._rng.random() < self.rate


class Script:
    """The active rules. Only the first rule that selects a request, and whose fault applies to its answer, has an
    effect.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made = 0
        self.rules: list[Rule] = []

    def add(
        self,
        on: On,
        fault: Fault | str,
        *,
        times: int | None = None,
        rate: float | None = None,
        after: int = 0,
        match: Match | None = None,
    ) -> Rule:
        """Adds a rule after the existing ones.

        Args:
            on: the kind of request; `"*"` is every kind, except control paths.
            fault: one of `aiopplx.emulator.faults`, or the name of one in `faults.NAMED`.
            times: how often it is applied; None, the default, is always.
            rate: the share of requests that get it, from 0 to 1, drawn from the emulator's seed; None is all.
            after: this many matching requests are let through first.
            match: only requests whose path or body contains this text, or for which this function returns True.

        Returns:
            The rule, whose `hits` can be read.
        """
        if on not in get_args(On):
            raise ValueError(f"on must be one of {', '.join(get_args(On))}, not {on!r}")
        if isinstance(fault, str):
            if fault not in NAMED:
                nearest = difflib.get_close_matches(fault, NAMED, n=1)
                guess = f": is it {nearest[0]!r}?" if nearest else ""
                raise ValueError(f"there is no fault {fault!r}{guess}; aiopplx.emulator.faults.NAMED has their names")
            fault = NAMED[fault]
        if rate is not None and not 0 <= rate <= 1:
            raise ValueError("rate is a share, from 0 to 1")
        self._made += 1
        # Not security-relevant: the draws must be repeatable.
        rng = random.Random(f"{self._seed}/{self._made}")  # noqa: S311
        rule = Rule(on, fault, times, rate, after, match, rng)
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """Removes all rules and restarts the random draws."""
        self.rules.clear()
        self._made = 0

    def selecting(self, asked: Asked) -> Iterator[Rule]:
        """The rules that select this request, in order; a rule draws only if those before it had no effect."""
        return (rule for rule in list(self.rules) if rule.selects(asked))
