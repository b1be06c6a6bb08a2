"""How evenly do several processes share the limit of one key, if none knows of the others?

Two, four and eight clients at a limit of 500 submissions a minute with a burst of 20, which answers do not tell. Each
wants more than there is, and they begin within a minute. Counted are the acceptances of the minutes four to seven:
Jain's index (1.0: all the same; 1/n: one has it all), the smallest share over the largest, the share of all requests
that was refused, and how much of the limit was used.

- `library`: sessions with default settings;
- `fixed`, `backoff`, `jitter`: clients with 32 requests at once that send again after 10 s; after 2 s, then half as
  long again up to 60 s; after nothing to 1 s, doubled up to 60 s.

    python benchmarks/one_key.py [--quick] [--rounds N] [--only library]

A round is a seed; real sockets in time that jumps, with 50 to 500 ms between clients and server.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import _harness as harness
import _played as played

from aiopplx import PollPolicy
from aiopplx.emulator import limits

RATE, BURST = 500, 20
COUNTS = (2, 4, 8)
BEGIN, FROM, UNTIL = 60.0, 240.0, 420.0
PEERS = ("library", "fixed", "backoff", "jitter")
PAUSES = {"fixed": played.fixed, "backoff": played.backoff, "jitter": played.jitter}
POLLED = PollPolicy.fixed(3_000.0)
"""Only submissions are counted."""


async def measure(spec: Mapping[str, Any]) -> dict[str, Any]:
    count, peer, seed = spec["count"], spec["peer"], spec["round"]
    keys = {f"process-{number}": "one-account" for number in range(count)}
    accepted = [0] * count
    chance = random.Random(seed)
    begins = sorted(chance.uniform(0.0, BEGIN) for _ in range(count))
    given = {"submit": limits.Bucket(RATE, burst=BURST)}
    async with played.world(given, seed=seed, lasts=36_000.0, keys=keys) as world:

        def told(number: int) -> None:
            if FROM <= world.seconds < UNTIL:
                accepted[number] += 1

        async def one(number: int) -> None:
            await world.clock.sleep(begins[number])
            key = f"process-{number}"
            questions = (f"{key}, question {n}?" for n in range(4_000))
            if peer == "library":
                async with (
                    world.session(
                        number, key=key, poll=POLLED, max_in_flight=10_000, told=lambda event: told(number)
                    ) as session,
                    session.batch(questions) as batch,
                ):
                    await anext(batch)
            else:
                await played.submits(world, questions, PAUSES[peer], lambda: told(number), number=number, key=key)

        tasks = [asyncio.create_task(one(number)) for number in range(count)]
        await world.clock.sleep(UNTIL)
        log = list(world.server.ledger.log)
        await played.stop(*tasks)
    asked = [line for line in log if line.on == "submit"]
    whole = sum(accepted)
    return {
        "jain": whole**2 / (count * sum(one**2 for one in accepted)) if whole else 0.0,
        "least_over_most": min(accepted) / max(1, *accepted),
        "refused": sum(line.status == 429 for line in asked) / len(asked),
        "used": whole / (RATE * (UNTIL - FROM) / 60.0),
    }


def main() -> None:
    given = harness.arguments(__doc__, rounds=8)
    if given.child:
        harness.answer(asyncio.run(measure(given.child)))
        return
    harness.known(given.only, PEERS)
    counts, peers = (COUNTS[:1], PEERS[:1]) if given.quick else (COUNTS, given.only or PEERS)
    groups = [[{"count": count, "peer": peer} for peer in peers] for count in counts]
    records = list(
        harness.interleaved(groups, given.rounds, lambda spec: harness.run(__file__, spec), tells_round=True)
    )
    fields = ("jain", "least_over_most", "refused", "used")
    found: dict[str, Any] = {}
    rows = []
    for count in counts:
        for peer in peers:
            ours = [one for one in records if (one["count"], one["peer"]) == (count, peer)]
            of = found[f"{count} {peer}"] = {field: harness.spread([one[field] for one in ours]) for field in fields}
            rows.append([
                f"{count} processes: {peer}",
                harness.shown(of["jain"], 2),
                harness.shown(of["least_over_most"], 2),
                f"{of['refused']['median']:.1%}",
                f"{of['used']['median']:.0%}",
            ])
    head = ["", "Jain's index", "least share over greatest", "refused", "of the limit used"]
    series = {peer: [found[f"{count} {peer}"]["least_over_most"] for count in counts] for peer in peers}
    groups_shown = [f"{count} processes" for count in counts]
    picture = harness.bars("Several processes on one key", "least share over greatest", groups_shown, series)
    harness.finish("one_key", found, [harness.table(head, rows)], [picture])


if __name__ == "__main__":
    main()
