"""When to look at a running job, and which jobs are due.

`PollPolicy` is the rule for one job; `Schedule` is the order of all of them. This module knows nothing of requests,
tasks or clocks: `now` is an argument.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

K = TypeVar("K")

SHORTEST = 0.01
"""Seconds: a rule that asks for less would only spin."""

_INF = float("inf")


class Look(msgspec.Struct, frozen=True, gc=False):
    """What a poll rule is asked with.

    Attributes:
        age: seconds since the server accepted the job.
        looks: how many times it was polled so far.
        status: the server's word at the last look, `""` before the first.
        model: the model it runs on.
    """

    age: float
    looks: int
    status: str = ""
    model: str = ""


class PollPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When to poll a job: nothing at first, then an even gap, then a growing one. All times are seconds.

    Deep research takes minutes, so the first half minute is wasted on polls, an even gap follows where jobs finish, and
    what runs on far beyond the usual is looked at less and less. Exponential backoff from the start does the opposite
    on all three counts (docs/polling.md has the simulation).

    Attributes:
        quiet: no poll before this age. Default 30.
        gap: between polls after that. Default 10; the mean delay of a result is half of it.
        tail_after: from this age on gaps grow. Default 900: few jobs take a quarter of an hour.
        growth: factor from gap to gap in the tail. Default 1.25.
        max_gap: no gap grows beyond this (a `gap` that is longer already stays as it is). Default 120.
        jitter: each gap is stretched or shortened by up to this share (the first only stretched), so that jobs
            submitted together are not polled together. Default 0.1.
        budget: polls a minute over all jobs of the session, None for no bound. Default 6000: what the service allows
            one key (usage tiers, "GET async by id").
    """

    quiet: float = 30.0
    gap: float = 10.0
    tail_after: float = 900.0
    growth: float = 1.25
    max_gap: float = 120.0
    jitter: float = 0.1
    budget: float | None = 6000.0

    def __post_init__(self) -> None:
        """Refuses a policy that would never poll or always."""
        # Written so that nan, of which every comparison is false, is refused too.
        timed = SHORTEST <= self.gap < _INF and 0 <= self.quiet < _INF and self.tail_after >= 0 and self.max_gap > 0
        bounded = self.budget is None or self.budget > 0
        if not (timed and bounded and 1 <= self.growth < _INF and 0 <= self.jitter < 1):
            raise ValueError(
                f"a poll policy needs gap >= {SHORTEST} s, quiet >= 0 s, tail_after >= 0 s, growth >= 1, max_gap > 0 s,"
                " 0 <= jitter < 1 and budget > 0"
            )

    @classmethod
    def fixed(cls, seconds: float, *, budget: float | None = None) -> PollPolicy:
        """The same gap from the first poll on, a tenth of jitter; no budget unless one is given."""
        return cls(quiet=seconds, gap=seconds, tail_after=float("inf"), budget=budget)

    def __call__(self, look: Look) -> float:
        """Seconds from now until the next look at a job that stands as `look` says (before jitter)."""
        if look.age < self.quiet:
            return max(self.quiet - look.age, SHORTEST)
        if look.age <= self.tail_after:
            return self.gap
        # A gap that grows by a factor at each poll is, in closed form, one that grows evenly with age.
        return max(self.gap, min(self.max_gap, self.gap + (look.age - self.tail_after) * (self.growth - 1.0)))


PollRule = Callable[[Look], float]


def next_gap(rule: PollRule, look: Look, jitter: float, random: float) -> float:
    """Seconds until the next look: the rule's answer, jittered, and kept where waiting makes sense."""
    gap = rule(look)
    if not gap > SHORTEST:  # also catches nan from a user's own rule
        gap = SHORTEST
    # The first look is only ever put off: one before the end of the quiet would be wasted, and be followed by another.
    spread = random if not look.looks else 2.0 * random - 1.0
    return min(gap * (1.0 + jitter * spread), 86_400.0)


class Schedule(Generic[K]):
    """Keys in the order in which they are due. First due, first out, however many: that is fair."""

    __slots__ = ("_heap", "_keys", "_seq", "_seqs")

    def __init__(self) -> None:
        # Rows are not taken out of the middle of the heap, so they name no key: the forgotten do not live on.
        self._heap: list[tuple[float, int]] = []
        self._keys: dict[int, K] = {}
        self._seqs: dict[K, int] = {}
        self._seq = 0

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: K) -> bool:
        return key in self._seqs

    def put(self, key: K, due: float) -> None:
        """`key` is due at `due`; replaces an earlier word on it."""
        if key in self._seqs:
            self._forget(key)
        seq = self._seq = self._seq + 1
        self._seqs[key] = seq
        self._keys[seq] = key
        heapq.heappush(self._heap, (due, seq))

    def remove(self, key: K) -> bool:
        """Forget `key`; True if it was waiting. Its place in the heap is passed over when it comes up."""
        if key not in self._seqs:
            return False
        self._forget(key)
        return True

    def _forget(self, key: K) -> None:
        del self._keys[self._seqs.pop(key)]
        # Rows passed over are thrown out once they are the greater part, so each costs no more than its own push.
        if len(self._heap) > max(64, 2 * len(self._keys)):
            self._heap = [row for row in self._heap if row[1] in self._keys]
            heapq.heapify(self._heap)

    def next_due(self) -> float | None:
        """When the first key is due; None if there is none."""
        heap = self._heap
        while heap:
            due, seq = heap[0]
            if seq in self._keys:
                return due
            heapq.heappop(heap)
        return None

    def pop(self, now: float) -> K | None:
        """The key that has been due longest, taken out; None if none is due."""
        due = self.next_due()
        if due is None or due > now:
            return None
        key = self._keys.pop(heapq.heappop(self._heap)[1])
        del self._seqs[key]
        return key
