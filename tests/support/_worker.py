"""One of several workers over one journal on PostgreSQL, as a process of its own.

Run by the tests as `python _worker.py SPEC`. It prints a line when its session is open and when it has something to
say, each a JSON object, and does what its standard input says, a JSON list a line: `["ask", tag]`, `["submit", tag]`,
`["wait", id]`, `["batch", tags]`, `["close"]`. When the input ends it stays, until it is told to close.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from typing import Any

from aiopplx import Event, EventKind, PollPolicy, RetryPolicy, Session
from aiopplx.journal._postgres.journal import PostgresJournal
from aiopplx.journal._postgres.lease import Timing

KEY = "worker-test-key-0123456789"


def say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


def question(tag: object) -> dict[str, Any]:
    return {"question": f"What became of order {tag}?", "tag": tag}


async def do(session: Session, what: list[Any]) -> None:
    name, *given = what
    try:
        if name == "batch":
            async with session.batch([question(tag) for tag in given[0]]) as jobs:
                async for job in jobs:
                    say(tag=job.tag, id=job.id, status=job.status, at=time.time())
            say(done="batch")
            return
        if name == "ask":
            job = await session.ask(question(given[0]))
        elif name == "submit":
            job = await session.submit(question(given[0]))
        else:
            job = await session.wait(given[0])
        say(did=name, tag=job.tag, id=job.id, status=job.status, cost=job.cost, at=time.time())
    except Exception as error:
        say(did=name, failed=type(error).__name__, said=str(error))


async def main(spec: dict[str, Any]) -> None:
    lease = spec.get("lease", 30.0)
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    # What asyncio says of tasks and callbacks that failed unseen.
    loop.set_exception_handler(lambda loop, context: say(unseen=str(context.get("message")), of=repr(context)))

    def told(event: Event) -> None:
        if event.kind in (EventKind.FINISHED, EventKind.PAUSED, EventKind.RESUMED, EventKind.STOPPED):
            ended = event.status.name if event.status is not None else ""
            say(event=event.kind.name, tag=event.tag, ended=ended, cost=event.cost, reason=event.reason)

    journal = await PostgresJournal.open(
        spec["journal"], base_url=spec["server"], timing=Timing(lease=lease, beat=lease / 4)
    )
    session = Session(
        KEY,
        base_url=spec["server"],
        api=spec.get("api", "sonar"),
        journal=journal,
        poll=PollPolicy.fixed(spec.get("gap", 0.2)),
        retry=RetryPolicy(**spec.get("retry", {})),
        on_event=told,
        **spec.get("session", {}),
    )
    tasks: set[asyncio.Task[None]] = set()
    try:
        async with session:
            say(ready=True)

            async def read() -> None:
                while line := await lines.readline():
                    what = json.loads(line)
                    if what == ["close"]:
                        over.set()
                        return
                    tasks.add(asyncio.create_task(do(session, what)))

            reading = asyncio.create_task(read())
            await over.wait()
            reading.cancel()
        if tasks:
            await asyncio.wait(tasks)
    finally:
        await journal.close()
    say(closed=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
