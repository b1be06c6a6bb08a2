"""How soon are many jobs submitted and collected under a limit that nobody told, against other clients and the ideal?

Live: real sockets, the emulator and each client in one process on one clock that runs fast. Each peer makes the same
jobs at the same server with the same seed; a round is all peers at one server, and figures are medians over seeds.

- `library`: a session with default settings;
- `fixed`: sends again and polls every 10 seconds;
- `backoff`: 2 s, then half as long again each time, up to 60 s, for both, as most clients do;
- `jitter`: evenly at random between nothing and 1 s, doubled each time up to 60 s, to send again; polls every 10 s.

The ideal is a client that sees the server's state: when the last job could have been submitted if each request left at
the moment at which it fits. It polls nothing, so where polls share the limit it is out of reach.

    python benchmarks/limits.py [--quick] [--seeds N] [--speed N] [--only gateway,shared-50] [--out FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from aiopplx import EventKind, Session
from aiopplx.emulator import Emulator, limits
from aiopplx.testing import Clock

KEY = "benchmark"
PATH = "/v1/responses"
AT_ONCE = 32


class Case(NamedTuple):
    """One server: its limits, whether it tells them in headers, and how many jobs."""

    limits: limits.Limit | Mapping[str, limits.Limit]
    jobs: int
    hints: Any = "never"


CASES: dict[str, Case] = {
    "gateway-15": Case(limits.Leaky(5, burst=2), 15),
    "gateway-60": Case(limits.Leaky(5, burst=2), 60),
    "shared-50": Case(limits.Bucket(50), 100),
    "shared-50-headers": Case(limits.Bucket(50), 100, "x-ratelimit"),
    "shared-500": Case(limits.Bucket(500), 1_000),
    "shared-500-headers": Case(limits.Bucket(500), 1_000, "x-ratelimit"),
    "submissions-50": Case({"submit": limits.Bucket(50)}, 100),
    "fixed-window": Case(limits.FixedWindow(60), 150),
    "counter": Case({"submit": limits.SlidingWindow(20, 10, counts_refusals=True)}, 100),
    "in-flight": Case({"submit": limits.InFlight(4, 1.0)}, 60),
}
QUICK = ("gateway-15", "submissions-50")


class Watch:
    """What the server saw, by the clock that all share."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.began = clock.now()
        self.accepted: list[float] = []

    def accept(self) -> None:
        self.accepted.append(self.clock.now() - self.began)


# --- peers: each submits and collects so many jobs --------------------------------------------------------------------


async def library(url: str, jobs: int, watch: Watch, chance: random.Random) -> None:
    def told(event: Any) -> None:
        if event.kind is EventKind.SUBMITTED:
            watch.accept()

    async with (
        Session(KEY, base_url=url, api="agent", clock=watch.clock, on_event=told) as session,
        session.batch(f"Question {number}?" for number in range(jobs)) as batch,
    ):
        ended = [job.ok async for job in batch]
    assert len(ended) == jobs
    assert all(ended)


Pause = Callable[[int, random.Random], float]


def fixed(tries: int, chance: random.Random) -> float:
    return 10.0


def backoff(tries: int, chance: random.Random) -> float:
    return min(60.0, 2.0 * 1.5 ** min(tries - 1, 20))


def jitter(tries: int, chance: random.Random) -> float:
    return chance.random() * min(60.0, 2.0 ** min(tries - 1, 20))


def simple(send_again: Pause, poll_again: Pause) -> Callable[[str, int, Watch, random.Random], Awaitable[None]]:
    """A client with so many requests at once, which waits as the functions say."""

    async def run(url: str, jobs: int, watch: Watch, chance: random.Random) -> None:
        clock = watch.clock
        places = asyncio.Semaphore(AT_ONCE)
        async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {KEY}"}) as http:

            async def call(method: str, path: str, body: Any = None) -> tuple[int, Any]:
                async with places, http.request(method, path, json=body) as answer:
                    return answer.status, await answer.json()

            async def one(number: int) -> None:
                body = {"input": f"Question {number}?", "background": True, "preset": "deep-research"}
                tries = 0
                while True:
                    status, job = await call("POST", PATH, body)
                    if status == 200:
                        break
                    tries += 1
                    await clock.sleep(send_again(tries, chance))
                watch.accept()
                tries = 0
                while True:
                    tries += 1
                    await clock.sleep(poll_again(tries, chance))
                    status, found = await call("GET", f"{PATH}/{job['id']}")
                    if status == 200 and found["status"] not in ("queued", "in_progress"):
                        break

            async with asyncio.TaskGroup() as group:
                for number in range(jobs):
                    group.create_task(one(number))

    return run


PEERS: dict[str, Callable[[str, int, Watch, random.Random], Awaitable[None]]] = {
    "library": library,
    "fixed": simple(fixed, fixed),
    "backoff": simple(backoff, backoff),
    "jitter": simple(jitter, fixed),
}


# --- measuring --------------------------------------------------------------------------------------------------------


def ideal(case: Case) -> float:
    """When the last submission fits, in seconds; asked every 10 ms of the emulator's own limits."""
    given = case.limits
    limit = given["submit"] if isinstance(given, Mapping) else given
    take, now, accepted = limit.begin(0.0), 0.0, 0
    while accepted < case.jobs:
        room = take(now)
        if not room.wait:
            accepted += 1
        else:
            now += room.wait + 1e-6
    return now


async def measure(case: Case, peer: str, seed: int, speed: float, duration: float | None) -> dict[str, Any]:
    clock = Clock(speed)
    began = time.perf_counter()
    async with Emulator(
        limits=case.limits,
        limit_hints=case.hints,
        clock=clock,
        duration=duration,
        seed=seed,
        answer_chars=500,
        log_size=10**6,
    ) as server:
        watch = Watch(clock)
        await PEERS[peer](server.url, case.jobs, watch, random.Random(seed))
        end = clock.now() - watch.began
        answers = Counter((line.on, line.status == 429) for line in server.ledger.log)
        longest = max(job.finished_at - job.created_at for job in server.ledger.jobs)
    requests = answers.total()
    return {
        "last_submission": round(watch.accepted[-1], 1),
        "end": round(end, 1),
        "refused": sum(count for (_, refused), count in answers.items() if refused),
        "refused_share": round(sum(count for (_, refused), count in answers.items() if refused) / requests, 4),
        "polls_a_job": round((answers["get", False] + answers["get", True]) / case.jobs, 1),
        "longest_job": round(longest, 1),
        "real_seconds": round(time.perf_counter() - began, 1),
    }


def medians(records: list[dict[str, Any]], least: float) -> dict[str, Any]:
    found = {name: statistics.median(record[name] for record in records) for name in records[0]}
    found["of_ideal"] = round(found["last_submission"] / max(least, 0.1), 2)
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="two servers, short jobs and one seed: shows that it works"
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--speed", type=float, default=20.0, help="seconds of the clock in a real second")
    parser.add_argument("--only", default="", help="servers or peers, with commas between them")
    parser.add_argument("--out", type=Path, help="where the JSON goes; default: what is printed")
    return parser.parse_args()


async def main() -> None:
    asked = arguments()
    only = [name for name in asked.only.split(",") if name]
    cases = [name for name in (QUICK if asked.quick else CASES) if not set(only) & set(CASES) or name in only]
    peers = [name for name in PEERS if not set(only) & set(PEERS) or name in only]
    unknown = set(only) - set(CASES) - set(PEERS)
    if unknown:
        sys.exit(f"no server or peer is called {', '.join(sorted(unknown))}")
    found: dict[str, Any] = {"speed": asked.speed, "cases": {}}
    for name in cases:
        case = CASES[name]
        least = ideal(case)
        rows: dict[str, list[dict[str, Any]]] = {peer: [] for peer in peers}
        for seed in range(1 if asked.quick else asked.seeds):
            for peer in peers:
                rows[peer].append(await measure(case, peer, seed, asked.speed, 30.0 if asked.quick else None))
        result = {peer: {**medians(records, least), "runs": records} for peer, records in rows.items()}
        found["cases"][name] = {"jobs": case.jobs, "ideal": round(least, 1), "peers": result}
        for peer, row in result.items():
            print(
                f"{name:20} {peer:8} last submission {row['last_submission']:8.1f} s ({row['of_ideal']:6.2f} of ideal),"
                f" end {row['end']:8.1f} s, refused {row['refused_share']:6.1%}, {row['polls_a_job']:5.1f} polls a job",
                file=sys.stderr,
                flush=True,
            )
    text = json.dumps(found, indent=1)
    if asked.out is None:
        print(text)
    else:
        asked.out.write_text(text + "\n")


if __name__ == "__main__":
    asyncio.run(main())
