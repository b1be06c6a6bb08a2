"""A list of jobs in virtual time: servers whose lists behave in every way that was thought of, and a client that polls.

The client is the poller's rules without sockets: a law of durations, `Paging`, GETs. Nothing waits.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from aiopplx._policy.durations import PRICE, Law, guess, longest_gap
from aiopplx._policy.paging import BEYOND, Found, Paging, Reading
from aiopplx._policy.polling import PollPolicy, Polls

START = 10_000.0
LATENCY = 0.1
"""Seconds of a request; the server answers in the middle of them."""

Page = tuple[list[tuple[str, bool]], str]


@dataclass
class ListServer:
    """A service whose list is newest first, and whose tokens are positions in time, unless said.

    Attributes:
        kind: what else the list may be: see `page`.
        size: rows of a page.
        stale: seconds by which its statuses are late.
    """

    kind: str = ""
    size: int = 100
    stale: float = 0.0
    jobs: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    reads: int = 0

    def page(self, token: str, now: float) -> Page | None:
        self.reads += 1
        kind, size, known = self.kind, self.size, len(self.jobs)
        if kind == "fails":
            return None
        if kind == "empty":
            return [], ""
        if kind == "endless":
            return [(f"{self.reads}/{n}", True) for n in range(size)], str(self.reads)
        if kind == "tokens expire" and token and int(token.split("@")[1]) < now - 20.0:
            return None
        first = 0 if not token or kind == "tokens are ignored" else int(token.split("@")[0])
        if kind == "tokens are numbers":
            shown = range(known - 1 - first, max(-1, known - 1 - first - size), -1)
            following = first + size if first + size < known else 0
        elif kind == "oldest first":
            shown = range(first, min(known, first + size))
            following = first + size if first + size < known else 0
        else:
            newest = first or known
            shown = range(newest - 1, max(-1, newest - 1 - size), -1)
            following = max(0, newest - size)
        next_token = f"{following}@{int(now)}" if following else ""
        if kind == "tokens repeat":
            next_token = token or next_token
        return [(self.jobs[n][0], self._has_ended(n, now)) for n in shown], next_token

    def _has_ended(self, n: int, now: float) -> bool:
        if self.kind in ("all run", "all have ended"):
            return self.kind == "all have ended"
        return self.jobs[n][1] <= now - self.stale


@dataclass
class Outcome:
    """What a run cost, for each job."""

    gets: float
    reads: float
    lag: float
    is_proven: bool

    @property
    def requests(self) -> float:
        return self.gets + self.reads


def run(
    server: ListServer,
    jobs: int,
    per_minute: float = 0.0,
    *,
    seed: int = 0,
    has_list: bool = True,
    strangers: int = 0,
    older: int = 0,
    median: float = 180.0,
    sigma: float = 0.6,
) -> Outcome:
    """Jobs at an even rate (0: within 20 s), polled from a start that knows only "about 180 s"."""
    chance = random.Random(seed)
    client = _Client(server, chance, has_list=has_list)
    server.jobs += [(f"older {n}", START - 1e5) for n in range(older)]
    spacing = 60.0 / per_minute if per_minute else 20.0 / jobs
    for n in range(jobs):
        client.at(START + n * spacing, client.submit, f"job {n}", chance.lognormvariate(math.log(median), sigma))
    for n in range(strangers):
        ends_after = chance.lognormvariate(math.log(median), sigma)
        client.at(START + chance.random() * jobs * spacing, client.stranger, f"stranger {n}", ends_after)
    client.run()
    assert len(client.lags) == jobs
    lag = sum(client.lags) / jobs
    return Outcome(client.gets / jobs, server.reads / jobs, lag, client.paging.is_proven)


class _Client:
    def __init__(self, server: ListServer, chance: random.Random, *, has_list: bool) -> None:
        self.server = server
        self.chance = chance
        self.has_list = has_list
        self.law = Law(guess(180.0, 0.9))
        self.policy = PollPolicy.adaptive()
        self.paging: Paging[str] = Paging(PRICE)
        self.now = START
        self.gets = 0
        self.lags: list[float] = []
        self.ends: dict[str, float] = {}
        self.polls: dict[str, Polls] = {}
        self.due: dict[str, float] = {}
        self.out: set[str] = set()
        self._waiting: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._page_timer = math.inf
        self._turn = count()

    # --- time ---

    def at(self, moment: float, what: Callable[..., None], *about: object) -> None:
        heapq.heappush(self._waiting, (moment, next(self._turn), what, about))

    def run(self) -> None:
        steps = 0
        while self._waiting:
            self.now, _, what, about = heapq.heappop(self._waiting)
            what(*about)
            self._arm()
            steps += 1
            assert steps < 1_000_000, "it goes on for ever"

    def _arm(self) -> None:
        due = self.paging.next_due()
        if due is not None and due < self._page_timer - 1e-9:
            self._page_timer = max(due, self.now)
            self.at(self._page_timer, self.read_pages)

    # --- jobs ---

    def submit(self, job_id: str, duration: float) -> None:
        now = self.now
        self.ends[job_id] = now + duration
        self.server.jobs.append((job_id, now + duration))
        polls = self.polls[job_id] = Polls.begun(now, now)
        polls.law = self.law
        if self.has_list:
            self.paging.watch(job_id, job_id, polls, now)
        self.put(job_id, now + self.gap(job_id))

    def stranger(self, job_id: str, duration: float) -> None:
        self.server.jobs.append((job_id, self.now + duration))

    def gap(self, job_id: str) -> float:
        age = self.now - self.polls[job_id].since
        gap = self.policy.law_gap(self.law, age, self.chance.random())
        return min(gap * self.paging.spacing(job_id), max(gap, longest_gap(age)))

    def put(self, job_id: str, due: float) -> None:
        self.due[job_id] = due
        self.at(due, self.poll, job_id)

    def poll(self, job_id: str) -> None:
        if self.due.get(job_id) != self.now or job_id in self.out:
            return
        polls = self.polls[job_id]
        seen = self.paging.seen_at(job_id)
        if seen is not None:
            age = seen - polls.since
            due = seen + min(longest_gap(age), BEYOND * self.law.next_gap(age))
            if age > polls.seen:
                polls.saw_running(seen)
            if due > self.now:
                self.put(job_id, due)
                return
        self.gets += 1
        self.out.add(job_id)
        self.at(self.now + LATENCY, self.polled, job_id, self.ends[job_id] <= self.now + LATENCY / 2)

    def polled(self, job_id: str, has_ended: bool) -> None:
        self.out.discard(job_id)
        now, polls = self.now, self.polls[job_id]
        if not has_ended:
            polls.saw_running(now)
            self.alone(self.paging.runs(job_id, now))
            self.put(job_id, now + self.gap(job_id))
            return
        ended_at = self.ends[job_id]
        self.lags.append(now - ended_at)
        polls.saw_end(now, float(round(ended_at - polls.since)))
        self.alone(self.paging.ended(job_id, now, float(round(ended_at))))
        self.alone(self.paging.forget(job_id, now))
        del self.polls[job_id], self.due[job_id]

    def alone(self, job_ids: list[str]) -> None:
        for job_id in job_ids:
            if job_id in self.polls and job_id not in self.out:
                self.put(job_id, self.now + self.gap(job_id))

    # --- pages ---

    def read_pages(self) -> None:
        self._page_timer = math.inf
        while (reading := self.paging.take(self.now)) is not None:
            self.at(self.now + LATENCY, self.read, reading, self.server.page(reading.token, self.now + LATENCY / 2))

    def read(self, reading: Reading, page: Page | None) -> None:
        found: Found[str]
        if page is None:
            found = self.paging.failed(reading, self.now, is_for_good=bool(reading.token))
        else:
            found = self.paging.read(reading, *page, self.now)
        for job_id in found.ended:
            if job_id in self.polls and job_id not in self.out:
                self.put(job_id, self.now)
        self.alone(found.alone)
