"""Servers with limits in virtual time, and a client that submits through a limit.

Nothing here waits. A server says yes or no at the moment at which a request arrives; the client sends as its limit
allows, and puts what was refused at the head of its line again.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from aiopplx._policy.limiter import Limiter

BEGAN = 10_000.0


@dataclass
class Said:
    """An answer: whether it was accepted, the headers' counts, and a Retry-After; or none at all."""

    accepted: bool
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    retry_after: float | None = None
    until_reset: float | None = None
    lost_after: float | None = None


class Server(Protocol):
    """A limit at a server, asked once for each request, in the order of arrival."""

    def take(self, now: float) -> Said:
        """A request arrives."""
        ...

    def done(self, now: float) -> None:
        """Its answer leaves."""
        ...


class NoLimit:
    """Takes everything."""

    def take(self, now: float) -> Said:
        return Said(True)

    def done(self, now: float) -> None:
        pass


class Bucket(NoLimit):
    """A token bucket that refills all the time; a refusal costs none."""

    def __init__(self, rpm: float, capacity: float, *, full: float = 1.0, headers: bool = False) -> None:
        self.rate = rpm / 60.0
        self.capacity = capacity
        self.tokens = capacity * full
        self.headers = headers
        self.at = BEGAN

    def take(self, now: float) -> Said:
        self.tokens = min(self.capacity, self.tokens + (now - self.at) * self.rate)
        self.at = now
        accepted = self.tokens >= 1.0 - 1e-9
        if accepted:
            self.tokens -= 1.0
        if not self.headers:
            return Said(accepted)
        left = int(self.tokens + 1e-9)
        counts = {"limit": round(self.rate * 60), "remaining": left, "used": round(self.rate * 60) - left}
        return Said(accepted, counts, until_reset=1.0 if not left else None)


class Nginx(NoLimit):
    """`limit_req` with `nodelay`: an excess that drains at the rate, refused above `burst`."""

    def __init__(self, per_second: float, burst: int) -> None:
        self.rate, self.burst = per_second, burst
        self.excess, self.at = -1.0, BEGAN

    def take(self, now: float) -> Said:
        excess = max(0.0, self.excess - (now - self.at) * self.rate + 1.0) if self.excess >= 0.0 else 0.0
        if excess > self.burst:
            return Said(False)
        self.excess, self.at = excess, now
        return Said(True)


class Counter(NoLimit):
    """HAProxy's `http_req_rate`: the requests of the last `period` seconds, those that were refused among them."""

    def __init__(self, most: int, period: float, *, retry_after: float | None = None) -> None:
        self.most, self.period, self.retry_after = most, period, retry_after
        self.begun, self.now_count, self.before = BEGAN, 0, 0

    def take(self, now: float) -> Said:
        while now >= self.begun + self.period:
            self.before = self.now_count if now < self.begun + 2 * self.period else 0
            self.now_count = 0
            self.begun += self.period * max(1, int((now - self.begun) / self.period) if not self.before else 1)
        self.now_count += 1
        share = 1.0 - (now - self.begun) / self.period
        accepted = self.now_count + self.before * share <= self.most
        return Said(accepted, retry_after=None if accepted else self.retry_after)


class FixedWindow(NoLimit):
    """So many in each window of the clock; a refusal costs none."""

    def __init__(self, most: int, period: float, *, offset: float = 0.0) -> None:
        self.most, self.period, self.offset = most, period, offset
        self.window, self.taken = -1, 0

    def take(self, now: float) -> Said:
        window = int((now + self.offset) // self.period)
        if window != self.window:
            self.window, self.taken = window, 0
        if self.taken >= self.most:
            return Said(False)
        self.taken += 1
        return Said(True)


class SlidingWindow(NoLimit):
    """So many accepted in any `period` seconds."""

    def __init__(self, most: int, period: float) -> None:
        self.most, self.period = most, period
        self.times: deque[float] = deque()

    def take(self, now: float) -> Said:
        while self.times and self.times[0] <= now - self.period:
            self.times.popleft()
        if len(self.times) >= self.most:
            return Said(False)
        self.times.append(now)
        return Said(True)


class InFlight(NoLimit):
    """So many at work at a time; each takes `work` seconds, during which its answer is awaited."""

    def __init__(self, most: int) -> None:
        self.most, self.at_work = most, 0

    def take(self, now: float) -> Said:
        if self.at_work >= self.most:
            self.at_work += 1
            return Said(False)
        self.at_work += 1
        return Said(True)

    def done(self, now: float) -> None:
        self.at_work -= 1


class AtRandom(NoLimit):
    """Refuses a share of the requests, whatever the rate, and asks another limit of the rest."""

    def __init__(self, share: float, seed: int, then: Server | None = None) -> None:
        self.share, self.chance, self.then = share, random.Random(seed), then or NoLimit()

    def take(self, now: float) -> Said:
        return Said(False) if self.chance.random() < self.share else self.then.take(now)


class Failing(NoLimit):
    """Answers a share of the requests with one of five faults each: a 429, and four that say nothing of limits."""

    def __init__(self, share: float, seed: int, then: Server | None = None) -> None:
        self.share, self.chance, self.then = share, random.Random(seed), then or NoLimit()

    def take(self, now: float) -> Said:
        fault = int(5.0 * self.chance.random() / self.share)
        if fault >= 5:
            return self.then.take(now)
        return Said(False, lost_after=None if fault == 0 else 40.0 if fault == 1 else 0.0)


class Lying(NoLimit):
    """A bucket whose headers are changed by a function of (counts, number of the answer)."""

    def __init__(self, bucket: Bucket, lie: Callable[[dict[str, int], int], dict[str, int]]) -> None:
        self.bucket, self.lie, self.answers = bucket, lie, 0

    def take(self, now: float) -> Said:
        said = self.bucket.take(now)
        self.answers += 1
        counts = self.lie(dict(said.counts), self.answers)
        return Said(said.accepted, counts, until_reset=1.0 if counts.get("remaining") == 0 else None)


class Run:
    """Submits N requests through a limit, as fast as it allows, at most `at_once` of them in flight."""

    def __init__(
        self,
        server: Server,
        limit: Limiter,
        jobs: int,
        *,
        seed: int,
        latency: tuple[float, float] = (0.05, 0.5),
        at_once: int = 64,
        most: float = 36_000.0,
    ) -> None:
        self.server, self.limit, self.jobs, self.latency = server, limit, jobs, latency
        self.chance = random.Random(seed)
        self.now = BEGAN
        self.at_once, self.most = at_once, most
        self.todo, self.out = jobs, 0
        self.accepted: list[float] = []
        self.refused: list[float] = []
        self.left: list[float] = []
        self.inside = 0
        self.silent_until = 0.0
        self._turn = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._pump_at = 0.0

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._turn), act))

    def run(self) -> Run:
        self.pump()
        while self._events and len(self.accepted) < self.jobs:
            self.now, _, act = heapq.heappop(self._events)
            if self.now > BEGAN + self.most:
                break
            act()
        return self

    @staticmethod
    def together(runs: Sequence[Run], seconds: float) -> None:
        """Several clients of one server, for so long, each of which begins within the first minute."""
        for run in runs:
            run.at(BEGAN + run.chance.uniform(0.0, 60.0), run.pump)
        while True:
            run = min(runs, key=lambda one: one._events[0])
            run.now, _, act = heapq.heappop(run._events)
            if run.now > BEGAN + seconds:
                return
            act()

    @property
    def seconds(self) -> float:
        """Until the last was accepted, at the server; without end if not all were."""
        return self.accepted[-1] - BEGAN if len(self.accepted) >= self.jobs else float("inf")

    def refused_in(self, since: float, until: float = float("inf")) -> int:
        return sum(BEGAN + since <= at < BEGAN + until for at in self.refused)

    @property
    def refused_share(self) -> float:
        return len(self.refused) / max(1, len(self.refused) + len(self.accepted))

    def pump(self) -> None:
        while self.todo and self.out < self.at_once:
            delay = self.limit.delay(self.now)
            if delay > 0.0:
                when = self.now + delay
                if not self.now < self._pump_at <= when:
                    self._pump_at = when
                    self.at(when, self.pump)
                return
            self.todo -= 1
            self.out += 1
            self.left.append(self.now)
            if self.now < self.silent_until:
                self.inside += 1
            self.limit.leave(self.now)
            sent_at, latency = self.now, self.chance.uniform(*self.latency)
            self.at(self.now + latency / 2, lambda sent_at=sent_at, latency=latency: self.arrive(sent_at, latency))

    def arrive(self, sent_at: float, latency: float) -> None:
        said = self.server.take(self.now)
        if said.lost_after is not None:
            self.at(self.now + latency / 2 + said.lost_after, lambda: self.lost(sent_at))
            return
        (self.accepted if said.accepted else self.refused).append(self.now)
        # A refusal is answered at once; work is done for what was accepted, which a limit on what is in flight counts.
        work = latency / 2
        if isinstance(self.server, InFlight):
            self.at(self.now + (0.3 if said.accepted else 0.0), lambda: self.server.done(self.now))
            work += 0.3 if said.accepted else 0.0
        self.at(self.now + work, lambda: self.back(sent_at, said))

    def lost(self, sent_at: float) -> None:
        self.out -= 1
        self.todo += 1
        self.limit.back(sent_at)
        self.pump()

    def back(self, sent_at: float, said: Said) -> None:
        self.out -= 1
        limit, now = self.limit, self.now
        limit.back(sent_at)
        if said.retry_after is not None:
            self.silent_until = max(self.silent_until, now + said.retry_after)
            limit.close(now + said.retry_after * (1.0 + self.chance.random() / 10.0))
        if said.accepted:
            limit.accepted(now, sent_at)
        else:
            self.todo += 1
            limit.refused(now, sent_at)
        if said.counts:
            limit.said(now, sent_at, said.counts, said.until_reset, accepted=said.accepted)
        self.pump()


def ideal(server: Server, jobs: int, *, step: float = 0.002) -> float:
    """Seconds until a client that sees the server's state has had all accepted; one that asks every `step` seconds."""
    now, accepted = BEGAN, 0
    while accepted < jobs:
        while accepted < jobs and _would(server, now):
            accepted += 1
        if accepted < jobs:
            now += step
    return now - BEGAN


def _would(server: Server, now: float) -> bool:
    """Take if it would be taken: what is refused is not asked, so that a counter of refusals does not count it."""
    if isinstance(server, Counter):
        saved = server.begun, server.now_count, server.before
        if server.take(now).accepted:
            return True
        server.begun, server.now_count, server.before = saved
        return False
    return server.take(now).accepted
