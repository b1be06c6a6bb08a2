"""When a fault is played: rules over kinds of request, counted and diced.

Dice are seeded per rule, so that a run can be repeated. It knows nothing of what a fault does.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias, get_args

from aiopplx.emulator._exchange import Asked
from aiopplx.emulator.faults import Fault

On: TypeAlias = Literal["submit", "get", "list", "cancel", "*"]
Match: TypeAlias = str | Callable[[Asked], bool]


class Rule:
    """One line of the script. `seen` counts the requests it fits, `hits` how often its fault was played."""

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
        self.seen = 0
        self.hits = 0
        self._rng = rng

    @property
    def spent(self) -> bool:
        """True if the fault was played as often as it may."""
        return self.times is not None and self.hits >= self.times

    def _fits(self, asked: Asked) -> bool:
        if self.on not in ("*", asked.on):
            return False
        if self.match is None:
            return True
        if callable(self.match):
            return self.match(asked)
        return self.match in asked.path or self.match.encode() in asked.body

    def calls(self, asked: Asked) -> bool:
        """Counts the request; True if the fault is to be played on it."""
        if self.spent or not self._fits(asked):
            return False
        self.seen += 1
        if self.seen <= self.after:
            return False
        return self.rate is None or self._rng.random() < self.rate


class Script:
    """The rules in force. The first rule that calls for a request, and whose fault fits its answer, is played alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made = 0
        self.rules: list[Rule] = []

    def add(
        self,
        on: On,
        fault: Fault,
        *,
        times: int | None = None,
        rate: float | None = None,
        after: int = 0,
        match: Match | None = None,
    ) -> Rule:
        """Adds a rule behind those there are.

        Args:
            on: the kind of request; `"*"` is every one, save control paths.
            fault: one of `aiopplx.emulator.faults`.
            times: how often it is played; None, the default, is always.
            rate: the share of the requests that get it, from 0 to 1, diced from the emulator's seed; None is all.
            after: so many requests that fit are let through first.
            match: only requests whose path or body has this text, or for which this function says True.

        Returns:
            The rule, whose `hits` can be read.
        """
        if on not in get_args(On):
            raise ValueError(f"on must be one of {', '.join(get_args(On))}, not {on!r}")
        if rate is not None and not 0 <= rate <= 1:
            raise ValueError("rate is a share, from 0 to 1")
        self._made += 1
        # Not a security matter: the dice must be repeatable.
        rng = random.Random(f"{self._seed}/{self._made}")  # noqa: S311
        rule = Rule(on, fault, times, rate, after, match, rng)
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """Forgets all rules; the dice begin anew."""
        self.rules.clear()
        self._made = 0

    def calling(self, asked: Asked) -> Iterator[Rule]:
        """The rules that call for this request, in order; a rule is diced only if those before it did not play."""
        return (rule for rule in list(self.rules) if rule.calls(asked))
