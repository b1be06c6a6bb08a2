"""A worker over a journal on PostgreSQL, to be killed and paused.

`python _postgres_child.py URL LOG ROWS HONOURS FAILS LEASE SEED`. The service is a file: a line that was appended to it
is a job that was made. It either honours keys, so that a second line of one key is the same job, or it does not. Of its
requests a share fails, half of them after the job was made.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from _rows import claim_of, queued

from aiopplx.journal import ClaimLost, ImpossibleStep, JournalAway, PostgresJournal, Record, State, steps
from aiopplx.journal._postgres.lease import Timing

PROGRAM = __file__
AT_ONCE = 8


class Worker:
    def __init__(
        self, journal: PostgresJournal, log: int, *, honours: bool, fails: float, chance: random.Random
    ) -> None:
        self.journal = journal
        self.log = log
        self.honours = honours
        self.fails = fails
        self.chance = chance

    async def through(self, call: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            with contextlib.suppress(JournalAway):
                return await call()
            await asyncio.sleep(0.05)

    async def one(self, tag: int) -> bool:
        """Take a row as far as it goes. True if it has an outcome."""
        record: Record = await self.through(lambda: queued(self.journal, tag))
        with contextlib.suppress(ClaimLost):  # followed on the next round
            while not record.is_held and record.state in (State.QUEUED, State.SENDING, State.ACCEPTED):
                if record.state is State.ACCEPTED:
                    await asyncio.sleep(self.chance.random() * 0.1)
                    await self.apply(record, steps.ended(State.DONE, key=record.key, raw=b"{}", cost=0.5))
                elif record.state is State.QUEUED or self.honours:
                    await self.submit(record)
                else:  # nobody knows whether its last holder has sent it
                    await self.apply(record, steps.doubtful(key=record.key, error="its session is dead"))
                record = await self.through(lambda: queued(self.journal, tag))
        return record.state.is_final

    async def submit(self, record: Record) -> None:
        await self.apply(record, steps.sending(key=record.key, attempt=record.attempts + 1))
        if not self.journal.may_intend():
            return
        luck = self.chance.random()
        if luck < self.fails / 2:  # it never arrives
            if not self.honours or record.state is State.QUEUED:
                await self.apply(record, steps.back_to_queued(key=record.key))
            return
        job_id = f"id-{record.key}" if self.honours else f"id-{os.getpid()}-{self.chance.random()}"
        os.write(self.log, f"{record.key} {job_id}\n".encode())
        await asyncio.sleep(self.chance.random() * 0.1)
        if luck < self.fails:  # its answer does not
            if not self.honours:
                await self.apply(record, steps.doubtful(key=record.key, error="no answer"))
            return
        with contextlib.suppress(ImpossibleStep):  # another session has resent it, and has gone further
            await self.apply(record, steps.accepted(key=record.key, job_id=job_id))

    async def apply(self, record: Record, step: steps.Step) -> None:
        await self.through(lambda: self.journal.apply(claim_of(record), step))


async def main(url: str, log: str, rows: int, honours: bool, fails: float, lease: float, seed: int) -> None:
    chance = random.Random(seed)
    while True:
        with contextlib.suppress(JournalAway):
            journal = await PostgresJournal.open(url, timing=Timing(lease=lease, beat=lease / 6, look=0.2))
            break
        await asyncio.sleep(0.05)
    worker = Worker(
        journal, os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), honours=honours, fails=fails, chance=chance
    )
    left = list(range(rows))
    while left:
        chance.shuffle(left)
        places = asyncio.Semaphore(AT_ONCE)

        async def in_place(tag: int) -> bool:
            async with places:  # noqa: B023 - all of them end in this round
                return await worker.one(tag)

        over = await asyncio.gather(*(in_place(tag) for tag in left))
        left = [tag for tag, is_over in zip(left, over, strict=True) if not is_over]
        await asyncio.sleep(0.2)
    await journal.close()


if __name__ == "__main__":
    _, url, log, rows, honours, fails, lease, seed = sys.argv
    asyncio.run(main(url, log, int(rows), honours == "yes", float(fails), float(lease), int(seed)))
