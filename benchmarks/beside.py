"""How soon is a single question answered while a large batch takes all that the limit allows?

A batch of 400 jobs at a limit of 50 requests a minute, or of 3,000 at 500, which submissions and polls share; a
question by `ask` each minute from the first on, ten of them. Its *wait* is from the call to the acceptance of its
submission, its *lag* from the end of its job to the return of `ask`. `one footing` is the same with
`batch(lane="interactive")`: the batch goes first as often as the questions do. The price of the questions is what the
batch's last submission takes longer than without them.

    python benchmarks/beside.py [--quick] [--rounds N] [--only 50]

A round is a seed; real sockets in time that jumps, with 50 to 500 ms between client and server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import _harness as harness
import _played as played

from aiopplx import Event, Session
from aiopplx.emulator import limits

CASES = {"50": (50, 400, "never"), "50-told": (50, 400, "x-ratelimit"), "500-told": (500, 3_000, "x-ratelimit")}
TITLES = {"50": "50 a minute", "50-told": "50 a minute, told", "500-told": "500 a minute, told"}
LANES = {"as by default": "bulk", "one footing": "interactive"}
ASKS, EVERY = 10, 60.0


async def measure(spec: Mapping[str, Any]) -> dict[str, Any]:
    rate, jobs, hints = CASES[spec["case"]]
    waits: list[float] = []
    lags: list[float] = []
    async with played.world(limits.Bucket(rate), seed=spec["round"], limit_hints=hints) as world:
        sent: dict[object, float] = {}
        bulk: list[float] = []

        def told(event: Event) -> None:
            if str(event.tag).startswith("asked"):
                sent[event.tag] = world.seconds
            else:
                bulk.append(world.seconds)

        async def ask(session: Session, number: int) -> None:
            await world.clock.sleep(EVERY * (number + 1))
            began = world.seconds
            job = await session.ask(f"Asked {number}?", tag=f"asked {number}")
            assert job.ok, job
            waits.append(sent[job.tag] - began)
            lags.append(world.seconds - world.ended(job.id))

        questions = (played.question(number) for number in range(jobs))
        async with (
            world.session(told=told) as session,
            session.batch(questions, lane=LANES[spec["lane"]], max_in_flight=jobs) as batch,
            asyncio.TaskGroup() as group,
        ):
            for number in range(ASKS if spec["asks"] else 0):
                group.create_task(ask(session, number))
            async for job in batch:
                world.hand_out(job.id)
    return {"waits": waits, "lags": lags, "last_submission": bulk[-1], "batch_lag": world.figures()["lag"]}


def main() -> None:
    given = harness.arguments(__doc__, rounds=8)
    if given.child:
        harness.answer(asyncio.run(measure(given.child)))
        return
    harness.known(given.only, list(CASES))
    cases = list(given.only or (list(CASES)[:1] if given.quick else CASES))
    found: dict[str, Any] = {}
    rows = []
    for case in cases:
        specs = [{"case": case, "lane": lane, "asks": True} for lane in LANES]
        groups = [[*specs, {"case": case, "lane": "as by default", "asks": False}]]
        rounds = min(given.rounds, 3) if CASES[case][1] > 1_000 else given.rounds
        records = list(harness.interleaved(groups, rounds, lambda spec: harness.run(__file__, spec), tells_round=True))
        alone = harness.spread([one["last_submission"] for one in records if not one["asks"]])
        for lane in LANES:
            ours = [one for one in records if one["asks"] and one["lane"] == lane]
            waits, lags = ([value for one in ours for value in one[field]] for field in ("waits", "lags"))
            of = {
                "wait": harness.spread(waits),
                "lag": harness.spread(lags),
                "wait_max": max(waits),
                "lag_max": max(lags),
                "lag_mean": sum(lags) / len(lags),
                "last_submission": harness.spread([one["last_submission"] for one in ours]),
                "alone": alone,
            }
            found[f"{case}: {lane}"] = of
            rows.append([
                f"{TITLES[case]}, {CASES[case][1]:,} jobs: {lane}",
                f"{of['wait']['median']:.1f} s, {of['wait_max']:.1f}",
                f"{of['lag']['median']:.1f} s, {of['lag_mean']:.1f}, {of['lag_max']:.1f}",
                f"{of['last_submission']['median']:,.0f} s",
                f"{alone['median']:,.0f} s",
            ])
    head = [
        "limit, batch",
        "wait to be sent: median, longest",
        "lag: median, mean, longest",
        "the batch's last submission",
        "without questions",
    ]
    series = {"sent after": [of["wait"] for of in found.values()], "lag": [of["lag"] for of in found.values()]}
    picture = harness.bars(
        "A question beside a batch", "seconds", [f"{name}" for name in found], series, logarithmic=True
    )
    harness.finish("beside", found, [harness.table(head, rows)], [picture])


if __name__ == "__main__":
    main()
