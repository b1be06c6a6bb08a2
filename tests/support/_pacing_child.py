"""One of several processes that work for one account at the same time: `python _pacing_child.py SPEC`.

It opens its session, says so, asks its questions at a word from its standard input, and tells what it saw as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import Any

from aiopplx import Event, PollPolicy, Session


async def main(spec: dict[str, Any]) -> None:
    events: Counter[str] = Counter()

    def told(event: Event) -> None:
        events[event.kind] += 1

    words = spec.get("session", {})
    async with Session(
        "k", base_url=spec["url"], on_event=told, poll=PollPolicy.fixed(spec["gap"]), **words
    ) as session:
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        clock = asyncio.get_running_loop().time
        began = clock()
        status: Counter[str] = Counter()
        async with session.batch(f"{spec['name']}: {n}?" for n in range(spec["questions"])) as batch:
            async for job in batch:
                status[job.status] += 1
        print(json.dumps({"status": status, "seconds": clock() - began, "events": events}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)  # stays open beside the others


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
