"""The program that gets killed: a batch with a journal, which writes down each job that it gets.

Run by the tests as `python _child.py SPEC` with a JSON object of `Spec`; it knows the server only by its address. It
prints one line when it is done. It can end itself by `os._exit` at a named point of a submission's life.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from aiopplx import Job, PollPolicy, RetryPolicy, Session
from aiopplx.journal._names import fingerprint
from aiopplx.journal._records import Claim, Record
from aiopplx.journal._sqlite.journal import SqliteJournal
from aiopplx.journal._steps import Step
from aiopplx.testing import Clock

KEY = "kill-test-key-0123456789"
POINTS = ("before T1", "T1-T2", "T2-bytes", "bytes-T3", "T3-T4", "T4-yield", "yield-ack")
ENDED_ITSELF = 17

AROUND = {"sending": ("T1-T2", "T2-bytes"), "accepted": ("bytes-T3", "T3-T4"), "ended": ("", "T4-yield")}
"""The points before and after each step of the journal."""


@dataclass
class Spec:
    """What the child is to do.

    Attributes:
        url: the server.
        journal: the file.
        deliveries: where each job that is handed out is written, a JSON object a line, synced.
        questions: strings, or mappings with a `tag`.
        on_doubt: what happens to a submission without an answer.
        exit_at: one of `POINTS`, `""` for none; the `nth` time it is reached.
        marks: a file to which the name of each point is written when it is reached, `""` for none.
        speed: of the session's clock.
        since: when that clock's date was the real one; the same in each run, as the journal has dates.
        max_in_flight: of the batch.
    """

    url: str
    journal: str
    deliveries: str
    questions: list[Any]
    on_doubt: Literal["resend", "hold"] | None = None
    exit_at: str = ""
    nth: int = 1
    marks: str = ""
    speed: float = 100.0
    since: float = field(default_factory=time.time)
    max_in_flight: int = 100


def start(spec: Spec, *prefix: str, **more: Any) -> subprocess.Popen[str]:
    """The child as a process; `prefix` goes before the command (strace)."""
    command = [*prefix, sys.executable, "-W", "error", __file__, json.dumps(asdict(spec))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def delivered(path: Path) -> list[dict[str, Any]]:
    """What children have written down; the last line of one that was killed may be cut."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]


class Exits:
    """Ends the process the `nth` time a point is reached, as a crash would: nothing is flushed, closed or told."""

    def __init__(self, point: str, nth: int, marks: str = "") -> None:
        self._point = point
        self._left = nth
        self._marks = os.open(marks, os.O_WRONLY | os.O_CREAT, 0o600) if marks else None

    def at(self, point: str) -> None:
        if not point:
            return
        if self._marks is not None:
            os.write(self._marks, f"reached {point}".encode())
        if point == self._point:
            self._left -= 1
            if not self._left:
                os._exit(ENDED_ITSELF)


class ExitingJournal:
    """A journal that hands everything on, and ends the process between two steps."""

    def __init__(self, journal: SqliteJournal, exits: Exits) -> None:
        self._journal = journal
        self._exits = exits
        self.results = journal.results
        self.remembers = journal.remembers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    async def find_or_queue(self, item: str, **more: Any) -> Record:
        self._exits.at("before T1")
        return await self._journal.find_or_queue(item, **more)

    async def apply(self, claim: Claim, step: Step) -> None:
        before, after = AROUND.get(step.rule.name, ("", ""))
        self._exits.at(before)
        await self._journal.apply(claim, step)
        self._exits.at(after)


class Deliveries:
    """An append-only file: what is in it was delivered, whatever happens next."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        # A run before this one may have been killed in the middle of a line.
        if os.fstat(self._fd).st_size and Path(path).read_bytes()[-1:] != b"\n":
            os.write(self._fd, b"\n")

    def write(self, run: int, job: Job) -> None:
        said: Mapping[str, object] = {
            "run": run,
            "tag": job.tag,
            "index": job.index,
            "key": job.idempotency_key,
            "id": job.id,
            "status": job.status.value,
            "text": job.text[:60],
            "error": job.error.message if job.error is not None else "",
        }
        os.write(self._fd, json.dumps(said).encode() + b"\n")
        os.fdatasync(self._fd)


async def main(spec: Spec) -> None:
    """One run, from wherever the last one was."""
    exits = Exits(spec.exit_at, spec.nth, spec.marks)
    if not spec.exit_at and not spec.marks:
        await run(spec, spec.journal, exits)
        return
    journal = await SqliteJournal.open(
        spec.journal, now=time.time, base_url=spec.url, account=lambda salt: fingerprint(KEY, salt)
    )
    await run(spec, ExitingJournal(journal, exits), exits)
    await journal.close()


async def run(spec: Spec, journal: Any, exits: Exits) -> None:
    out = Deliveries(spec.deliveries)
    async with (
        Session(
            KEY,
            base_url=spec.url,
            journal=journal,
            poll=PollPolicy.fixed(2, budget=1e9),
            retry=RetryPolicy(doubt_tries=40, on_doubt=spec.on_doubt),
            clock=Clock(spec.speed, since=spec.since),
            api="sonar",
        ) as session,
        session.batch(spec.questions, max_in_flight=spec.max_in_flight) as jobs,
    ):
        async for job in jobs:
            out.write(os.getpid(), job)
            exits.at("yield-ack")
        print("in doubt:", json.dumps([job.idempotency_key for job in await session.in_doubt()]))
    print("done")


if __name__ == "__main__":
    asyncio.run(main(Spec(**json.loads(sys.argv[1]))))
