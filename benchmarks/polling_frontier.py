"""How near does polling come to the best schedule that there is? The delay of a result against the polls that it costs.

No server and no clock: for a known law of durations, the polls of a job and the mean seconds from its end to the poll
that sees it are an integral. One job in a hundred is stuck, and left after an hour. The optimum is found by dynamic
programming over a grid of one second; peers are a fixed gap of ten seconds and the best one that there is, backoff from
2 s by half to 60 s as in most clients, full jitter, and this library's learnt law after so many jobs.

    python benchmarks/polling_frontier.py [--quick] [--rounds N]

A round is a seed of the durations that the law learns from.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Any

import _harness as harness

LEFT_AFTER = 3600.0
STUCK = 0.01
FURTHEST = 500
"""Seconds of the longest gap that the optimum may have."""
PRICES = (0.25, 0.8)
LEARNED = (0, 5, 20, 50, 400)
LAWS = {
    "180 s, sigma 0.6": ((1.0, 180.0, 0.6),),
    "180 s, sigma 0.15": ((1.0, 180.0, 0.15),),
    "40 s or 400 s": ((0.5, 40.0, 0.3), (0.5, 400.0, 0.3)),
    "one in ten fails early": ((0.1, 5.0, 0.5), (0.9, 180.0, 0.6)),
    "20 s, sigma 0.3": ((1.0, 20.0, 0.3),),
}
Parts = tuple[tuple[float, float, float], ...]
Gap = Callable[[float], float]


# --- the worth of a schedule -----------------------------------------------------------------------------------------


def ended(parts: Parts, age: float) -> tuple[float, float]:
    """The share of jobs that have ended by this age, and their mean duration times this share."""
    share = mean = 0.0
    for weight, middle, sigma in parts:
        width = (math.log(age) - math.log(middle)) / sigma if age > 0.0 else -math.inf
        share += weight * normal(width)
        mean += weight * middle * math.exp(sigma * sigma / 2) * normal(width - sigma)
    return share, mean


def normal(width: float) -> float:
    return 0.5 * math.erfc(-width / math.sqrt(2))


def worth(parts: Parts, ages: Iterator[float]) -> tuple[float, float]:
    """Polls a job and mean lag in seconds if a job is polled at these ages."""
    age = share = mean = polls = lag = 0.0
    while age < LEFT_AFTER:
        polls += STUCK + (1 - STUCK) * (1 - share)
        age = min(next(ages), LEFT_AFTER)
        share_now, mean_now = ended(parts, age)
        lag += age * (share_now - share) - (mean_now - mean)
        share, mean = share_now, mean_now
    return polls, lag / share


def ages_of(gap: Gap) -> Iterator[float]:
    age = 0.0
    while True:
        age += gap(age)
        yield age


def optimum(parts: Parts, price: float) -> tuple[float, float]:
    """The schedule with the least lag + price * polls."""
    last = int(LEFT_AFTER)
    known = [ended(parts, float(second)) for second in range(last + 1)]
    share = [(1 - STUCK) * one[0] for one in known]
    mean = [(1 - STUCK) * one[1] for one in known]
    cost, following = [0.0] * (last + 1), [0] * (last + 1)
    for now in range(last - 1, -1, -1):
        share_now, mean_now = share[now], mean[now]
        costs = [
            (then * (share[then] - share_now) - mean[then] + mean_now + cost[then], then)
            for then in range(now + 1, min(last, now + FURTHEST) + 1)
        ]
        least, following[now] = min(costs)
        cost[now] = least + price * (1 - share_now)
    return worth(parts, ages_of(lambda age: following[min(last - 1, round(age))] - age))


# --- who polls -------------------------------------------------------------------------------------------------------


def fixed(parts: Parts, gap: float) -> tuple[float, float]:
    return worth(parts, ages_of(lambda age: gap))


def backoff() -> Iterator[float]:
    age, gap = 0.0, 2.0
    while True:
        age += gap
        gap = min(gap * 1.5, 60.0)
        yield age


def full_jitter(chance: random.Random) -> Iterator[float]:
    age, most = 0.0, 2.0
    while True:
        age += chance.uniform(0.1, most)
        most = min(2.0 * most, 60.0)
        yield age


def learned(parts: Parts, price: float, seed: int, *, is_exact: bool) -> dict[int, tuple[float, float]]:
    """What the library's law is worth after so many jobs, polled by the law as it was by then."""
    from aiopplx._policy.durations import Law, guess

    chance, law = random.Random(seed), Law(guess(180.0, 0.9), price)
    found: dict[int, tuple[float, float]] = {}
    for count in LEARNED:
        while law.finished < count:
            see(law, draw(parts, chance), is_exact=is_exact)
        found[count] = worth(parts, ages_of(law.next_gap))
    return found


def see(law: Any, duration: float, *, is_exact: bool) -> None:
    age = 0.0
    while age < LEFT_AFTER:
        found = min(age + law.next_gap(age), LEFT_AFTER)
        if duration <= found:
            law.ended(age, found, duration if is_exact else None)
            return
        law.ran(age, found)
        age = found


def draw(parts: Parts, chance: random.Random) -> float:
    if chance.random() < STUCK:
        return math.inf
    _, middle, sigma = chance.choices(parts, [part[0] for part in parts])[0]
    return chance.lognormvariate(math.log(middle), sigma)


# --- the table -------------------------------------------------------------------------------------------------------


def child(spec: Mapping[str, Any]) -> None:
    parts: Parts = tuple(tuple(part) for part in spec["parts"])  # type: ignore[misc]  # a list of lists before JSON
    price, rounds = spec["price"], spec["rounds"]
    from aiopplx import PollPolicy, RunningJob

    policy = PollPolicy()
    chance = random.Random(1)
    jittered = [worth(parts, full_jitter(chance)) for _ in range(40)]
    found = {
        "optimum": optimum(parts, price),
        "the best fixed gap": min((fixed(parts, gap) for gap in range(2, 61)), key=lambda one: one[1] + price * one[0]),
        "every 10 s": fixed(parts, 10.0),
        "30 s, then every 10 s": worth(parts, ages_of(lambda age: policy(RunningJob(age, 1)))),
        "backoff 2 s x 1.5 to 60 s": worth(parts, backoff()),
        "full jitter to 60 s": (median(one[0] for one in jittered), median(one[1] for one in jittered)),
    }
    for is_exact, how in ((True, ""), (False, ", no dates")):
        laws = [learned(parts, price, seed, is_exact=is_exact) for seed in range(rounds)]
        for count in LEARNED if is_exact else LEARNED[1:]:
            costs = sorted((law[count] for law in laws), key=lambda one: one[1] + price * one[0])
            found[f"learnt law, {count} jobs{how}"] = costs[len(costs) // 2]
    harness.answer({"found": found, "gauge": harness.gauge()})


SHOWN = (
    "learnt law, 50 jobs",
    "learnt law, 50 jobs, no dates",
    "learnt law, 5 jobs",
    "the best fixed gap",
    "every 10 s",
    "full jitter to 60 s",
    "backoff 2 s x 1.5 to 60 s",
)
"""Of all policies, those of the picture."""


def over(of: Mapping[str, tuple[float, float]], name: str, price: float) -> float:
    """How much it costs, in polls and lag, against the optimum."""
    (polls, lag), (least_polls, least_lag) = of[name], of["optimum"]
    return (lag + price * polls) / (least_lag + price * least_polls)


def cell(of: Mapping[str, tuple[float, float]], name: str, price: float) -> str:
    polls, lag = of[name]
    return f"{polls:.1f}, {lag:.1f} s, {polls * lag:.0f}, {over(of, name, price) - 1:+.0%}"


def main() -> None:
    given = harness.arguments(__doc__, rounds=11)
    if given.child:
        child(given.child)
        return
    found: dict[str, Any] = {}
    tables: list[harness.Record] = []
    pictures: list[harness.Record] = []
    for price in PRICES[1:] if given.quick else PRICES:
        by_law = {
            law: harness.run(__file__, {"parts": parts, "price": price, "rounds": given.rounds})["found"]
            for law, parts in LAWS.items()
        }
        found[f"price {price}"] = by_law
        rows = [[name, *(cell(of, name, price) for of in by_law.values())] for name in next(iter(by_law.values()))]
        title = f"Polls of a job, mean lag, polls x lag, and lag + {price} s a poll over the optimum's"
        tables.append(harness.table(["", *LAWS], rows, title=title))
        cost = {name: [over(of, name, price) for of in by_law.values()] for name in SHOWN}
        pictures.append(
            harness.bars(f"Lag + {price} s a poll", "times the optimum", list(LAWS), cost, logarithmic=True)
        )
    harness.finish("polling_frontier", found, tables, pictures)


if __name__ == "__main__":
    main()
