"""One emulated server and its clients, with a network between them, in time that jumps: what each job went through.

Real sockets, but all of it in one process on one `JumpingClock`: an hour of waiting takes as long as its requests take
to be computed, and comes out the same on a busy machine. On a clock that runs fast (`live`) the machine's own delays
are in the figures too.

Between client and server lie 50 to 500 ms of the clock, even, for each exchange. Jobs take what a lognormal law of
180 s and 0.6 says, by seed and question, so that every client meets the same jobs. This module knows nothing of limits,
or of what is asked of a run.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from statistics import fmean
from typing import Any

import aiohttp

from aiopplx import Event, EventKind, Session
from aiopplx.emulator import Emulator, faults, limits
from aiopplx.testing import Clock, JumpingClock

KEY = "benchmark"
AT_ONCE = 32
"""Requests that a simple client has out at a time."""
MEDIAN, SIGMA = 180.0, 0.6
LATENCY = (0.05, 0.5)
"""Seconds from a request's departure to its answer: at least, at most."""
ROUND_TRIP = fmean(LATENCY)
WALL = 1_800_000_000.0
"""Seconds since 1970 at which a run begins, on a full minute; each seed begins elsewhere in it."""
Time = Clock | JumpingClock
Given = limits.Limit | Mapping[str, limits.Limit] | None


def durations(seed: int) -> Callable[[str], float]:
    """How long the job of a question takes, in seconds."""

    def lasts(question: str) -> float:
        return random.Random(f"{seed}/{question}").lognormvariate(math.log(MEDIAN), SIGMA)

    return lasts


def question(number: int) -> str:
    return f"Question {number}?"


class Network:
    """Holds each request back on its way there, and its answer on its way back."""

    def __init__(self, clock: Time, seed: int, latency: tuple[float, float]) -> None:
        self._clock = clock
        self._chance = random.Random(f"network {seed}")
        self._latency = latency

    async def __call__(self, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        half = self._chance.uniform(*self._latency) / 2.0
        await self._pass(half)
        answer = await send(request)
        await self._pass(half)
        return answer

    async def _pass(self, seconds: float) -> None:
        if seconds > 0.0:
            with self._clock.idle():  # the exchange counts as busy, and this part of it waits for the clock
                await self._clock.sleep(seconds)


class World:
    """A server, a clock, and what was seen.

    Attributes:
        clock: the time of all.
        server: the emulator.
        began: the clock's moment at which the clients began.
        wall: the same in the server's seconds since 1970: windows of the clock begin there.
        accepted: seconds from then until each submission was known to be accepted, in this order.
        handed: by job id, seconds from then until its result was handed out.
    """

    def __init__(self, clock: Time, server: Emulator, seed: int, latency: tuple[float, float]) -> None:
        self.clock = clock
        self.server = server
        self.began = clock.now()
        self.wall = server.now()
        self.accepted: list[float] = []
        self.handed: dict[str, float] = {}
        self._seed = seed
        self._latency = latency

    @property
    def seconds(self) -> float:
        """Since the clients began."""
        return self.clock.now() - self.began

    def accept(self) -> None:
        self.accepted.append(self.seconds)

    def hand_out(self, job_id: str) -> None:
        self.handed.setdefault(job_id, self.seconds)

    @asynccontextmanager
    async def network(self, number: int = 0, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
        """Connections of one client, behind the network."""
        way = Network(self.clock, self._seed + 1_000 * number, self._latency)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, middlewares=(way,), **options) as http:
            yield http

    @asynccontextmanager
    async def session(
        self,
        number: int = 0,
        *,
        api: str = "agent",
        key: str = KEY,
        told: Callable[[Event], object] | None = None,
        **options: Any,
    ) -> AsyncIterator[Session]:
        """The library as it is by default. `told` hears of each acceptance."""

        def hear(event: Event) -> None:
            if event.kind is EventKind.SUBMITTED:
                self.accept()
                if told is not None:
                    told(event)

        async with self.network(number) as http:
            given = {"base_url": self.server.url, "clock": self.clock, "http": http, "on_event": hear, "api": api}
            async with Session(key, **given, **options) as session:
                yield session

    # --- what came of it ---------------------------------------------------------------------------------------------

    def ended(self, job_id: str) -> float:
        """When this job ended at the server, in seconds since the clients began."""
        return self._ends()[job_id]

    def _ends(self) -> dict[str, float]:
        return {job.id: job.finished_at - self.wall for job in self.server.ledger.jobs}

    def figures(self) -> dict[str, float]:
        """Of all jobs that were handed out."""
        ends = self._ends()
        lags = sorted(at - ends[job_id] for job_id, at in self.handed.items())
        log = list(self.server.ledger.log)
        late = log[len(log) // 5 :]
        first = log[0].at if log else 0.0
        answers = Counter((line.on, line.status == 429) for line in log)
        refused = answers["submit", True] + answers["get", True]
        return {
            "last_submission": self.accepted[-1],
            "end": max(self.handed.values()),
            "collected": fmean(self.handed.values()),
            "lag": fmean(lags),
            "lag_p95": lags[int(0.95 * (len(lags) - 1))],
            "polls_a_job": (answers["get", False] + answers["get", True]) / len(lags),
            "requests": len(log),
            "refused": refused,
            "refused_share": refused / max(1, len(log)),
            "refused_polls": answers["get", True],
            "refused_first_minute": sum(line.status == 429 and line.at - first < 60.0 for line in log),
            "refused_later": share(line.status == 429 for line in log if line.at - first >= 60.0),
            "refused_last_four_fifths": share(line.status == 429 for line in late),
        }


def share(of: Iterable[bool]) -> float:
    held = list(of)
    return sum(held) / len(held) if held else 0.0


@asynccontextmanager
async def world(
    given: Given,
    *,
    seed: int,
    speed: float = 0.0,
    latency: tuple[float, float] = LATENCY,
    lasts: Any = None,
    refused_at_random: float = 0.0,
    **options: Any,
) -> AsyncIterator[World]:
    """A server with these limits.

    Args:
        given: the limits, None for none.
        seed: of durations and latencies.
        speed: 0.0: the clock jumps; else so many of its seconds are a real one.
        latency: see `LATENCY`.
        lasts: how long jobs take; default: `durations(seed)`.
        refused_at_random: this share of all requests gets a 429, for no reason.
        options: of the emulator.
    """
    clock: Time = Clock(speed) if speed else JumpingClock(wall=WALL + 7.7 * seed)
    usual = {"duration": lasts or durations(seed), "answer_chars": 200, "log_size": 10**7}
    async with Emulator(limits=given, clock=clock, seed=seed, **{**usual, **options}) as server:
        if refused_at_random:
            server.faults.add("*", faults.RateLimited(), rate=refused_at_random)
        yield World(clock, server, seed, latency)


# --- what is possible -------------------------------------------------------------------------------------------------


def fits(given: Given, jobs: int, began_at: float = WALL) -> list[float]:
    """When each submission fits, if each leaves at the moment at which there is room; by the emulator's own limits."""
    limit = given.get("submit") or given.get("*") if isinstance(given, Mapping) else given
    if limit is None:
        return [0.0] * jobs
    take, now, times = limit.begin(began_at), began_at, list[float]()
    while len(times) < jobs:
        room = take(now)
        if room.wait:
            now += room.wait + 1e-6
        else:
            times.append(now - began_at)
    return times


def possible(
    given: Given, jobs: int, lasts: Callable[[str], float], round_trip: float, began_at: float = WALL
) -> dict[str, float]:
    """The last submission and the end of a client that sees the server's state and hears of each end at once."""
    times = fits(given, jobs, began_at)
    return {
        "last_submission": times[-1] + round_trip,
        "end": max(at + lasts(question(number)) for number, at in enumerate(times)) + round_trip,
        "collected": fmean(at + lasts(question(number)) for number, at in enumerate(times)) + round_trip,
    }


# --- clients that are not this library --------------------------------------------------------------------------------

Pause = Callable[[int, random.Random], float]


def fixed(tries: int, chance: random.Random) -> float:
    return 10.0


def backoff(tries: int, chance: random.Random) -> float:
    return min(60.0, 2.0 * 1.5 ** min(tries - 1, 20))


def jitter(tries: int, chance: random.Random) -> float:
    return chance.random() * min(60.0, 2.0 ** min(tries - 1, 20))


class Simple:
    """A client with so many requests at once, which waits as its function says before it sends a refused one again."""

    def __init__(self, of: World, http: aiohttp.ClientSession, send_again: Pause, api: str = "agent") -> None:
        self.path = "/v1/responses" if api == "agent" else "/v1/async/sonar"
        self.chance = random.Random(1)
        self._of, self._http, self._send_again, self._api = of, http, send_again, api
        self._places = asyncio.Semaphore(AT_ONCE)

    async def call(self, method: str, to: str, body: Any = None) -> tuple[int, Any]:
        async with self._places:
            with self._of.clock.busy():
                async with self._http.request(method, self._of.server.url + to, json=body) as answer:
                    return answer.status, await answer.json()

    async def submit(self, asked: str) -> Any:
        tries = 0
        while True:
            status, job = await self.call("POST", self.path, body_of(asked, self._api))
            if status == 200:
                self._of.accept()
                return job
            tries += 1
            await self._of.clock.sleep(self._send_again(tries, self.chance))


async def simple(of: World, jobs: Sequence[int], send_again: Pause, poll_again: Pause, *, api: str = "agent") -> None:
    """Submits jobs and polls each to its end."""
    async with of.network(headers={"Authorization": f"Bearer {KEY}"}) as http:
        client = Simple(of, http, send_again, api)

        async def one(number: int) -> None:
            job = await client.submit(question(number))
            tries = 0
            while True:
                tries += 1
                await of.clock.sleep(poll_again(tries, client.chance))
                status, found = await client.call("GET", f"{client.path}/{job['id']}")
                if status == 200 and found["status"].lower() not in ("queued", "in_progress", "created"):
                    break
            of.hand_out(job["id"])

        async with asyncio.TaskGroup() as group:
            for number in jobs:
                group.create_task(one(number))


async def submits(
    of: World,
    questions: Iterator[str],
    send_again: Pause,
    told: Callable[[], object],
    *,
    number: int = 0,
    key: str = KEY,
) -> None:
    """Submits all questions, and polls nothing."""
    async with of.network(number, headers={"Authorization": f"Bearer {key}"}) as http:
        client = Simple(of, http, send_again)

        async def one() -> None:
            for asked in questions:
                await client.submit(asked)
                told()

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(one())


async def stop(*tasks: asyncio.Task[None]) -> None:
    """Cancel clients that are still at work. What one of them failed with is raised."""
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended


def body_of(asked: str, api: str) -> Any:
    if api == "agent":
        return {"input": asked, "background": True, "preset": "deep-research"}
    return {"request": {"model": "sonar-deep-research", "messages": [{"role": "user", "content": asked}]}}
