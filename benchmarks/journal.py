"""What does the journal cost: to queue 50,000 submissions durably, to open them again, and to commit at a steady pace?

`queue_s` is wall time from the first to the last of them on the disk, `open_s` an opening after an orderly close,
`reopen_s` one after a crash (the file is checked), `commit_*_ms` how long a step waits for its commit at 1,000
steps a second. `sync_*_ms` is the disk's own share: a bare write of one page and its sync, in the same run.

    python benchmarks/journal.py [--quick] [--rounds N]
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _harness as harness

from aiopplx.journal import Record, SqliteJournal, State, steps
from aiopplx.journal._names import item_name, sha_of

PACE = 1_000.0
AT_ONCE = 2_000
BODY = b'{"request":{"model":"sonar-deep-research","messages":[{"role":"user","content":"' + b"why? " * 300 + b'"}]}}'


async def child(spec: Mapping[str, Any]) -> None:
    directory = Path(tempfile.mkdtemp(dir=spec["directory"] or None))
    try:
        harness.answer(await measured(directory / "run.db", spec["rows"], spec["marks"]))
    finally:
        shutil.rmtree(directory)


async def measured(path: Path, rows: int, marks: int) -> dict[str, float]:
    journal = await SqliteJournal.open(path, now=time.time)
    before, cpu = time.perf_counter(), time.process_time()
    for first in range(0, rows, AT_ONCE):
        await asyncio.gather(*(queued(journal, n) for n in range(first, min(rows, first + AT_ONCE))))
    found = {"queue_s": time.perf_counter() - before, "queue_cpu_us": (time.process_time() - cpu) / rows * 1e6}
    await journal.close()

    journal, found["open_s"] = await opened(path, rows)
    crashed = Path(f"{path}.crashed")
    await queued(journal, rows)  # there is a log to be read again
    shutil.copy(path, crashed)
    shutil.copy(f"{path}-wal", f"{crashed}-wal")
    other, found["reopen_s"] = await opened(crashed, rows + 1)
    await other.close()

    waiting = await journal.rows({State.QUEUED}, limit=marks)
    waits = await paced(journal, [row for row in [await journal.claim(row.pk) for row in waiting] if row is not None])
    assert len(waits) == marks
    await journal.close()
    syncs = [synced(path.parent / "bare") for _ in range(min(marks, 1_000))]
    gauge = harness.gauge()
    return found | tails("commit", waits) | tails("sync", syncs) | {"gauge": gauge, "rows": rows}


async def queued(journal: SqliteJournal, n: int) -> None:
    sha = sha_of(b"%d" % n)
    await journal.find_or_queue(item_name(None, sha), tag=None, key=sha.hex()[:32], body=BODY, sha=sha, api="sonar")


async def opened(path: Path, rows: int) -> tuple[SqliteJournal, float]:
    before = time.perf_counter()
    journal = await SqliteJournal.open(path, now=time.time)
    assert (await journal.counts())[State.QUEUED] == rows
    return journal, time.perf_counter() - before


async def paced(journal: SqliteJournal, records: list[Record]) -> list[float]:
    """A step at each thousandth of a second, whether or not the one before is through."""
    waits: list[float] = []

    async def step(record: Record) -> None:
        assert record.claim is not None
        mark = steps.sending(key=record.key, attempt=1)
        before = time.perf_counter()
        await journal.apply(record.claim, mark)
        waits.append(time.perf_counter() - before)

    begun, tasks = time.perf_counter(), []
    for number, record in enumerate(records):
        await asyncio.sleep(max(0.0, begun + number / PACE - time.perf_counter()))
        tasks.append(asyncio.create_task(step(record)))
    await asyncio.gather(*tasks)
    return waits


def synced(path: Path) -> float:
    with path.open("ab", buffering=0) as file:
        before = time.perf_counter()
        file.write(b"\0" * 4096)
        os.fsync(file.fileno())
        return time.perf_counter() - before


def tails(name: str, seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    at = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {f"{name}_{key}_ms": ordered[round((len(ordered) - 1) * share)] * 1e3 for key, share in at.items()}


def main() -> None:
    given = harness.arguments(__doc__, rounds=5)
    if given.child:
        asyncio.run(child(given.child))
        return
    rows, marks = (5_000, 1_000) if given.quick else (50_000, 5_000)
    case = {"peer": "journal", "rows": rows, "marks": marks, "directory": os.environ.get("JOURNAL_BENCHMARK_DIR", "")}
    records = list(harness.interleaved([[case]], given.rounds, lambda case: harness.run(__file__, case)))
    wanted = {"queue_s": 5.0, "open_s": 1.0, "reopen_s": 1.0, "commit_p50_ms": 1.0, "commit_p99_ms": 5.0}
    names = [*wanted, "commit_max_ms", "sync_p50_ms", "sync_p99_ms", "queue_cpu_us"]
    found = {name: harness.spread([record[name] for record in records]) for name in names}
    shown = [
        [f"`{name}`", harness.shown(found[name], 2), f"{wanted[name]:g}" if name in wanted else ""] for name in names
    ]
    table = harness.table(["of the journal", "median (quartiles)", "at most"], shown)
    waits = {
        "of the journal": ["commit_p50_ms", "commit_p99_ms"],
        "the disk's own": ["sync_p50_ms", "sync_p99_ms"],
    }
    series = {name: [found[field] for field in fields] for name, fields in waits.items()}
    picture = harness.bars("A commit at 1,000 steps a second", "ms", ["median", "99th percentile"], series)
    harness.finish("journal", found, [table], [picture])


if __name__ == "__main__":
    main()
