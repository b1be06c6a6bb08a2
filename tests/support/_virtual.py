"""Virtual time for tests of pure policies: many processes, run in order of time without any waiting."""

from __future__ import annotations

import heapq
import random
from collections.abc import Generator, Iterable
from itertools import count
from typing import TypeAlias

from aiopplx._policy.gate import Gate
from aiopplx._wire.call import Lane

START = 10_000.0

Steps: TypeAlias = Generator[float, None, None]
"""A process: it yields the seconds it sleeps."""


class World:
    """Runs processes, the one whose sleep ends first before all others."""

    def __init__(self, seed: int = 0) -> None:
        self.now = START
        self.chance = random.Random(seed)

    def run(self, processes: Iterable[Steps]) -> None:
        turn = count()
        waiting = [(self.now, next(turn), process) for process in processes]
        heapq.heapify(waiting)
        while waiting:
            self.now, _, process = heapq.heappop(waiting)
            for seconds in process:
                heapq.heappush(waiting, (self.now + seconds, next(turn), process))
                break


def ask_for_silence(gate: Gate, now: float, seconds: float) -> None:
    """The server asks every request to wait, by a Retry-After that says nothing of limits."""
    gate.throttled(Lane.LIST, now, now, seconds, 0.0, is_limit=False)
