"""How soon are many jobs submitted and collected under a limit that nobody told, against other clients and the ideal?

Each client makes the same jobs at the same server, by seed: real sockets and the emulator, in time that jumps, with 50
to 500 ms between client and server and durations of 180 s (lognormal, 0.6). Figures are medians over the seeds, with
the least and the greatest; of collected and lag they are means.

- `library`: a session with default settings;
- `fixed`: sends again and polls every 10 seconds;
- `backoff`: 2 s, then half as long again each time, up to 60 s, for both, as most clients do;
- `jitter`: evenly at random between nothing and 1 s, doubled each time up to 60 s, to send again; polls every 10 s.

The ideal is a client that sees the server's state: each submission leaves at the moment at which it fits, one round
trip later its acceptance is known, and a result is there when its job ends. It polls nothing, so where polls share the
limit its end is out of reach. *Collected* is the mean time from the start of the run until a result is handed out, and
*lag* that from the end of a job: late submissions make a short lag, so that only both together say anything.

    python benchmarks/limits.py [--quick] [--rounds N] [--only library,shared-50]

A round is a seed; the other clients have three at most. `--live SPEED` runs on a clock so many times as fast as real
time, in the place of one that jumps. `--from FILE` makes the tables of what earlier runs have printed.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import _harness as harness
import _played as played

from aiopplx.emulator import limits

Bucket, Leaky, Fixed, Sliding, InFlight = (
    limits.Bucket,
    limits.Leaky,
    limits.FixedWindow,
    limits.SlidingWindow,
    limits.InFlight,
)


class Case(NamedTuple):
    """One server and how many jobs.

    Attributes:
        title: the server, in words.
        given: its limits.
        jobs: how many.
        hints: whether answers tell the limit.
        api: of which jobs.
        at_random: the share of all requests that is refused for no reason.
        peers: whether other clients are measured too.
        seeds: at most so many, where a run is long.
    """

    title: str
    given: played.Given
    jobs: int
    hints: str = "never"
    api: str = "agent"
    at_random: float = 0.0
    peers: bool = True
    seeds: int = 100


def submissions(limit: limits.Limit) -> Mapping[str, limits.Limit]:
    return {"submit": limit}


SECTIONS: dict[str, dict[str, Case]] = {
    "Token buckets that submissions and polls share (Agent API)": {
        "shared-50": Case("50 a minute", Bucket(50), 100),
        "shared-50-headers": Case("50 a minute, told", Bucket(50), 100, "x-ratelimit"),
        "shared-50-empty": Case("50 a minute, empty", Bucket(50, full=0.0), 100, peers=False),
        "shared-50-empty-headers": Case(
            "50 a minute, empty, told", Bucket(50, full=0.0), 100, "x-ratelimit", peers=False
        ),
        "shared-150": Case("150 a minute", Bucket(150), 200, peers=False),
        "shared-500": Case("500 a minute", Bucket(500), 1_000, seeds=8),
        "shared-500-headers": Case("500 a minute, told", Bucket(500), 1_000, "x-ratelimit", seeds=8),
        "shared-500-empty": Case("500 a minute, empty", Bucket(500, full=0.0), 1_000, peers=False, seeds=8),
        "shared-2000": Case("2,000 a minute", Bucket(2_000), 1_000, peers=False, seeds=8),
        "shared-2000-headers": Case("2,000 a minute, told", Bucket(2_000), 1_000, "x-ratelimit", peers=False, seeds=8),
        "shared-2000-4000": Case("2,000 a minute", Bucket(2_000), 4_000, peers=False, seeds=3),
        "shared-2000-4000-headers": Case(
            "2,000 a minute, told", Bucket(2_000), 4_000, "x-ratelimit", peers=False, seeds=3
        ),
        "shared-2000-10000": Case("2,000 a minute, told", Bucket(2_000), 10_000, "x-ratelimit", peers=False, seeds=1),
    },
    "Limits on submissions only": {
        "sonar-5": Case("Sonar, 5 a minute", submissions(Bucket(5)), 30, api="sonar-v1"),
        "sonar-100": Case("Sonar, 100 a minute", submissions(Bucket(100)), 500, api="sonar-v1", peers=False, seeds=8),
        "submissions-50": Case("50 a minute", submissions(Bucket(50)), 100),
        "submissions-50-headers": Case("50 a minute, told", submissions(Bucket(50)), 100, "x-ratelimit", peers=False),
        "submissions-500": Case("500 a minute", submissions(Bucket(500)), 1_000, peers=False, seeds=8),
        "none-200": Case("no limit", None, 200),
    },
    "Gateways that all requests share (nginx)": {
        "gateway-15": Case("5 a second, burst 2", Leaky(5, burst=2), 15),
        "gateway-60": Case("5 a second, burst 2", Leaky(5, burst=2), 60),
        "gateway-300": Case("5 a second, burst 2", Leaky(5, burst=2), 300, seeds=8),
        "gateway-20-5": Case("20 a second, burst 5", submissions(Leaky(20, burst=5)), 400, peers=False, seeds=8),
        "gateway-1-0": Case("1 a second, burst 0", submissions(Leaky(1)), 60, peers=False),
    },
    "Windows, counters, and what is no limit on a rate (submissions)": {
        "fixed-60": Case("60 in each minute", submissions(Fixed(60)), 200),
        "fixed-60-600": Case("60 in each minute", submissions(Fixed(60)), 600, peers=False, seeds=8),
        "fixed-10-1": Case("10 in each second", submissions(Fixed(10, 1)), 300, peers=False),
        "fixed-20-10": Case("20 in each 10 s", submissions(Fixed(20, 10)), 300, peers=False),
        "sliding-60": Case("60 in any minute", submissions(Sliding(60)), 200),
        "sliding-5-1": Case("5 in any second", submissions(Sliding(5, 1)), 100, peers=False),
        "sliding-30-20": Case("30 in any 20 s", submissions(Sliding(30, 20)), 200, peers=False),
        "counter-5-1": Case("5 in a second, refusals count", submissions(Sliding(5, 1, True)), 60, peers=False),
        # A client that goes on asking is refused for ever here: the others do not come to an end.
        "counter-20-10": Case("20 in 10 s, refusals count", submissions(Sliding(20, 10, True)), 100, peers=False),
        "counter-50-10": Case("50 in 10 s, refusals count", submissions(Sliding(50, 10, True)), 200, peers=False),
        "counter-60-60": Case("60 in 60 s, refusals count", submissions(Sliding(60, 60, True)), 200, peers=False),
        "in-flight-4": Case("4 at work, 1 s each", submissions(InFlight(4, 1.0)), 60),
        "random": Case("no limit, 10 % refused", None, 300, at_random=0.1),
    },
}
CASES = {name: case for section in SECTIONS.values() for name, case in section.items()}
QUICK = ("gateway-15", "shared-50-headers")
PEERS = ("library", "fixed", "backoff", "jitter")
PEER_SEEDS = 3
"""The other clients differ from ours by far more than one seed from another; of 1,000 jobs and more they have one."""
PAUSES = {
    "fixed": (played.fixed, played.fixed),
    "backoff": (played.backoff, played.backoff),
    "jitter": (played.jitter, played.fixed),
}


async def measure(case: Case, peer: str, seed: int, speed: float) -> dict[str, float]:
    began = time.perf_counter()
    # On a clock that runs fast the machine is the network.
    latency = (0.0, 0.0) if speed else played.LATENCY
    async with played.world(
        case.given,
        seed=seed,
        speed=speed,
        latency=latency,
        limit_hints=case.hints,
        refused_at_random=case.at_random,
    ) as world:
        if peer == "library":
            async with (
                world.session(api=case.api, max_in_flight=max(1_000, case.jobs)) as session,
                session.batch(played.question(number) for number in range(case.jobs)) as batch,
            ):
                async for job in batch:
                    assert job.ok, job
                    world.hand_out(job.id)
        else:
            await played.simple(world, range(case.jobs), *PAUSES[peer], api=case.api)
        found, began_at = world.figures(), world.wall
    assert len(world.handed) == case.jobs
    least = played.possible(case.given, case.jobs, played.durations(seed), sum(latency) / 2, began_at)
    return {
        **found,
        "of_ideal": found["last_submission"] / max(least["last_submission"], 0.1),
        "end_of_ideal": found["end"] / least["end"],
        "collected_over_ideal": found["collected"] - least["collected"],
        "ideal": least["last_submission"],
        "real_seconds": time.perf_counter() - began,
    }


def row(case: Case, peer: str, found: Mapping[str, harness.Record]) -> list[str]:
    def shown(field: str, digits: int) -> str:
        one = found[field]
        return f"{one['median']:,.{digits}f} ({one['least']:,.{digits}f}-{one['greatest']:,.{digits}f})"

    return [
        f"{case.title}, {case.jobs:,} jobs: {peer}",
        f"{shown('last_submission', 1)} s",
        shown("of_ideal", 2),
        shown("end_of_ideal", 2),
        f"{found['collected']['mean']:,.0f} s",
        f"{found['lag']['mean']:,.1f} s",
        f"{found['polls_a_job']['median']:.1f}",
        f"{found['refused']['median']:,.0f}, {found['refused_share']['median']:.1%}",
        f"{found['refused_last_four_fifths']['median']:.1%}",
    ]


HEAD = (
    "server, jobs: client",
    "last submission",
    "of ideal",
    "end, of ideal",
    "collected, mean",
    "lag, mean",
    "polls a job",
    "refused",
    "of the last 80 %",
)


def summary(records: Sequence[harness.Record]) -> dict[str, dict[str, Any]]:
    """By case and peer, each figure with its median, quartiles, mean and extremes over the seeds."""
    runs: dict[tuple[str, str], list[harness.Record]] = {}
    for record in sorted(records, key=lambda one: PEERS.index(one["peer"])):
        runs.setdefault((record["case"], record["peer"]), []).append(record)
    found: dict[str, dict[str, Any]] = {}
    for (case, peer), ours in runs.items():
        of = found.setdefault(case, {})[peer] = {}
        fields = [name for name, value in ours[0].items() if name not in ("case", "peer", "round", "speed")]
        for field in fields:
            values = [one[field] for one in ours]
            wide = {"mean": statistics.fmean(values), "least": min(values), "greatest": max(values)}
            of[field] = {name: round(value, 4) for name, value in {**harness.spread(values), **wide}.items()}
    return found


def child(spec: Mapping[str, Any]) -> None:
    case = CASES[spec["case"]]
    harness.answer(asyncio.run(measure(case, spec["peer"], spec["round"], spec["speed"])))


def runs(names: Sequence[str], peers: Sequence[str], rounds: int, speed: float) -> list[harness.Record]:
    records: list[harness.Record] = []
    for name in names:
        case = CASES[name]
        for peer in peers if case.peers else [peer for peer in peers if peer == "library"]:
            most = case.seeds if peer == "library" else 1 if case.jobs >= 1_000 else PEER_SEEDS
            spec = {"case": name, "peer": peer, "speed": speed}
            records += harness.interleaved(
                [[spec]], min(rounds, most), lambda spec: harness.run(__file__, spec), tells_round=True
            )
    return records


def earlier(path: str) -> list[harness.Record]:
    lines = (json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if "case" in line]


def main() -> None:
    words: dict[str, Any] = {
        "--live": {"type": float, "default": 0.0, "metavar": "SPEED", "help": "on a clock so many times as fast"},
        "--from": {"dest": "lines", "metavar": "FILE", "help": "run nothing: the lines that earlier runs have printed"},
    }
    given = harness.arguments(__doc__, rounds=8, words=words)
    if given.child:
        child(given.child)
        return
    only = set(given.only)
    harness.known(only, [*CASES, *PEERS])
    names = [name for name in (QUICK if given.quick else CASES) if not only & set(CASES) or name in only]
    peers = [peer for peer in PEERS if not only & set(PEERS) or peer in only]
    found = summary(earlier(given.lines) if given.lines else runs(names, peers, given.rounds, given.live))
    tables, pictures = [], []
    for title, cases in SECTIONS.items():
        here = {name: case for name, case in cases.items() if name in found}
        if here:
            rows = [row(case, peer, of) for name, case in here.items() for peer, of in found[name].items()]
            tables.append(harness.table(HEAD, rows, title=title))
    compared = [name for name in CASES if len(found.get(name, ())) > 1]
    if compared:
        groups = [f"{name}, {CASES[name].jobs:,} jobs" for name in compared]
        for title, unit, field in (
            ("Last submission", "times the ideal", "of_ideal"),
            ("From a job's end to its result in the caller's hands", "seconds", "lag"),
            ("From the start of the run to a result, beyond the ideal", "seconds", "collected_over_ideal"),
        ):
            series = {peer: [found[name].get(peer, {}).get(field) for name in compared] for peer in PEERS}
            pictures.append(harness.bars(title, unit, groups, series, logarithmic=True))
    harness.finish("limits", found, tables, pictures)


if __name__ == "__main__":
    main()
