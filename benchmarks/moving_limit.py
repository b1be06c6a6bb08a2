"""How soon is a limit that changes found out?

2,400 submissions at 300 a minute with a burst of 20. *Rises*: 1,200 a minute from the second minute on. *Falls*: 75
from the second to the fifth, then 300 again. Counted are the seconds from the change until as many as nine tenths of
the new limit are accepted over 20 seconds, and what was refused in the minute after a change. Nothing is told by
headers, save where it says so.

    python benchmarks/moving_limit.py [--quick] [--rounds N] [--only library]

A round is a seed; real sockets in time that jumps, with 50 to 500 ms between client and server. The simple clients are
those of `one_key.py`.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

import _harness as harness
import _played as played

from aiopplx import PollPolicy
from aiopplx.emulator import limits

FIRST, BURST = 300.0, 20.0
CHANGE, BACK, END = 60.0, 240.0, 540.0
OVER, ENOUGH = 20.0, 0.9
PEERS = ("library", "library-told", "fixed", "backoff", "jitter")
PAUSES = {"fixed": played.fixed, "backoff": played.backoff, "jitter": played.jitter}


class Moving(limits.Bucket, frozen=True):
    """A bucket that is filled at another rate from one moment to another."""

    then: float = FIRST
    since: float = CHANGE
    until: float = BACK

    def begin(self, now: float) -> limits.AtWork:
        capacity = tokens = self.burst or 1.0
        began = at = now

        def rate(moment: float) -> float:
            return (self.then if self.since <= moment - began < self.until else self.rpm) / 60.0

        def take(now: float) -> limits.Room:
            nonlocal tokens, at
            while at < now:  # in steps that no change lies within
                step = min([now, *(edge for edge in (began + self.since, began + self.until) if edge > at)])
                tokens = min(capacity, tokens + (step - at) * rate(at))
                at = step
            limit = round(rate(now) * 60.0)
            if tokens >= 1 - 1e-6:
                tokens -= 1
                return limits.Room(0.0, limit, int(tokens))
            return limits.Room((1 - tokens) / rate(now), limit, 0)

        return take


CASES = {
    "rises from 300 to 1,200": (Moving(FIRST, BURST, then=1_200.0, until=END), CHANGE, 1_200.0),
    "falls from 300 to 75": (Moving(FIRST, BURST, then=75.0), CHANGE, 75.0),
    "rises again from 75 to 300": (Moving(FIRST, BURST, then=75.0), BACK, 300.0),
}


async def measure(spec: Mapping[str, Any]) -> dict[str, Any]:
    limit, change, rate = CASES[spec["case"]]
    seed, peer = spec["round"], spec["peer"]
    hints = "x-ratelimit" if "told" in peer else "never"
    questions = (played.question(number) for number in range(20_000))
    async with played.world({"submit": limit}, seed=seed, lasts=36_000.0, limit_hints=hints) as world:

        async def run() -> None:
            if peer in PAUSES:
                await played.submits(world, questions, PAUSES[peer], lambda: None)
                return
            async with (
                world.session(poll=PollPolicy.fixed(3_000.0), max_in_flight=20_000) as session,
                session.batch(questions) as batch,
            ):
                await anext(batch)

        task = asyncio.create_task(run())
        await world.clock.sleep(END)
        log = [line for line in world.server.ledger.log if line.on == "submit"]
        await played.stop(task)
    first = log[0].at
    accepted = [line.at - first for line in log if line.status == 200]
    minute = [line for line in log if change <= line.at - first < change + 60.0]
    return {
        "found_after": found_after(accepted, change, rate),
        "refused": sum(line.status == 429 for line in minute),
        "refused_share": sum(line.status == 429 for line in minute) / max(1, len(minute)),
    }


def found_after(accepted: list[float], change: float, rate: float) -> float:
    """Seconds until nine tenths of the limit are used, and no more than it; the end of the run if never."""
    at = change
    while at + OVER <= END:
        used = (bisect_left(accepted, at + OVER) - bisect_left(accepted, at)) / (rate / 60.0 * OVER)
        if used >= ENOUGH:
            return at - change
        at += 1.0
    return END - change


def main() -> None:
    given = harness.arguments(__doc__, rounds=8)
    if given.child:
        harness.answer(asyncio.run(measure(given.child)))
        return
    harness.known(given.only, PEERS)
    cases, peers = (list(CASES)[:1], PEERS[:1]) if given.quick else (list(CASES), given.only or PEERS)
    groups = [[{"case": case, "peer": peer} for peer in peers] for case in cases]
    records = list(
        harness.interleaved(groups, given.rounds, lambda spec: harness.run(__file__, spec), tells_round=True)
    )
    found: dict[str, Any] = {}
    rows = []
    for case in cases:
        for peer in peers:
            ours = [one for one in records if (one["case"], one["peer"]) == (case, peer)]
            of = found[f"{case}: {peer}"] = {
                field: harness.spread([one[field] for one in ours])
                for field in ("found_after", "refused", "refused_share")
            }
            rows.append([
                f"{case}: {peer}",
                f"{harness.shown(of['found_after'])} s",
                harness.shown(of["refused"]),
                f"{of['refused_share']['median']:.1%}",
            ])
    head = ["submissions a minute", "found out after", "refused in the minute after the change", "share"]
    series = {peer: [found[f"{case}: {peer}"]["found_after"] for case in cases] for peer in peers}
    picture = harness.bars("A limit that changes", "seconds until nine tenths of it are used", cases, series)
    harness.finish("moving_limit", found, [harness.table(head, rows)], [picture])


if __name__ == "__main__":
    main()
