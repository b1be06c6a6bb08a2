"""The programs that hold, fork, fill or are killed over a journal in a file: `python _journal_child.py WHAT PATH`.

`python _journal_child.py golden PATH` makes the golden journal of this version.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import selectors
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

from _rows import claim_of, opened, queued, sent, take

from aiopplx.journal._errors import JournalBroken, JournalClosed, JournalFull
from aiopplx.journal._names import fingerprint, item_name, sha_of
from aiopplx.journal._records import Origin, Record, State
from aiopplx.journal._sqlite.file import migrate
from aiopplx.journal._sqlite.journal import SqliteJournal
from aiopplx.journal._sqlite.schema import MIGRATIONS

PROGRAM = __file__


async def hold(path: Path) -> None:
    journal = await opened(path)
    await queued(journal)
    print("open", flush=True)
    sys.stdin.read()
    await journal.close()


def fork(path: Path) -> None:
    # A selector without state in the kernel: an epoll would be shared by parent and child.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    journal = loop.run_until_complete(opened(path))
    record = loop.run_until_complete(queued(journal))
    if not (first := os.fork()):
        try:
            take(journal, record, "sending").send(None)
        except JournalClosed as error:
            print(f"refused in the child: {type(error).__name__}", flush=True)
        journal.delivered(claim_of(record), record.key, State.DONE)
        del journal
        sys.exit()  # in order, so that whatever would be closed at the end is closed
    os.waitid(os.P_PID, first, os.WEXITED)
    loop.run_until_complete(queued(journal, "b"))
    counts = loop.run_until_complete(journal.counts())
    log = "its log" if os.path.getsize(f"{path}-wal") else "no log"
    print(f"parent goes on with {log}: {counts[State.QUEUED]}", flush=True)
    if not os.fork():
        print("the child lives on", flush=True)
        sys.stdin.read()
        os._exit(0)
    sys.stdin.read(1)
    os._exit(0)


async def steps(path: Path) -> None:
    """Bring 60 submissions as far as they will go; say each step once it is answered."""
    journal = await opened(path)
    names = itertools.count()

    def heard(tag: str, name: str, record: Record) -> None:
        os.write(1, f"{tag} {name} {record.key} .\n".encode())

    async def worker() -> None:
        for n in names:
            tag = f"t{n}"
            record = await journal.find_or_queue(
                item_name(tag, b""), tag=tag, key=os.urandom(8).hex(), body=b"b" * 2000, sha=b"s", api="sonar"
            )
            heard(tag, "queued", record)
            state = record.state
            if state in (State.QUEUED, State.SENDING):
                await take(journal, record, "sending")
                heard(tag, "sending", record)
                await take(journal, record, "accepted", job_id=f"id-{tag}")
                heard(tag, "accepted", record)
                state = State.ACCEPTED
            if state is State.ACCEPTED:
                await take(journal, record, "ended", State.DONE, raw=f"result of {tag}".encode() * 100, cost=0.5)
                heard(tag, "ended", record)
            journal.delivered(claim_of(record), record.key, State.DONE)

    await asyncio.gather(*(worker() for _ in range(8)))


async def mark(path: Path) -> None:
    journal = await opened(path)
    for tag in "abc":
        record = await queued(journal, tag)
        os.write(1, b"MARK queued\n")
        await take(journal, record, "sending")
        os.write(1, b"MARK sending\n")
        await take(journal, record, "accepted", job_id=f"id-{tag}")
        os.write(1, b"MARK accepted\n")
        await take(journal, record, "ended", State.DONE, raw=b"result")
        os.write(1, b"MARK ended\n")
    await journal.close()


async def full(path: Path) -> None:
    ballast = path.parent / "ballast"
    ballast.write_bytes(b"\0" * 500_000)
    await _filled(path, ballast.unlink)


async def limit(path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def lift() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    await _filled(path, lift, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard)))


async def _filled(path: Path, make_room: Callable[[], None], begin: Callable[[], None] = lambda: None) -> None:
    journal = await opened(path)
    record = await sent(journal)
    await take(journal, record, "accepted", job_id="id")
    begin()
    result = os.urandom(1_900_000)
    # Both are asked for at once, and would be one transaction: the small one is not to fail with the large.
    large = asyncio.ensure_future(take(journal, record, "ended", State.DONE, raw=result))
    await queued(journal, "small")
    try:
        await large
    except (JournalFull, JournalBroken) as error:
        print(type(error).__name__)
    if (await journal.counts())[State.ACCEPTED] == 1:
        print("readable")
    if await journal.result(record.pk) is None and await journal.get(key="key-small"):
        print("unchanged")
    make_room()
    await take(journal, record, "ended", State.DONE, raw=result[:300_000])
    if await journal.result(record.pk) == result[:300_000]:
        print("goes-on")
    await journal.close()


async def golden(path: Path) -> None:
    """What made the golden file of this version: run it, on a path where nothing is, when the tables have changed."""
    journal = await SqliteJournal.open(
        path,
        now=lambda: 1_790_000_000.0,
        base_url="https://golden.example",
        account=lambda salt: fingerprint("golden", salt),
    )
    for state in State:
        name = state.name.lower()
        record = await journal.find_or_queue(
            item_name(name, sha_of(name.encode())),
            tag=name,
            key=f"key-{int(state)}",
            body=f'{{"q":"{name}"}}'.encode(),
            sha=sha_of(name.encode()),
            api="sonar",
            origin=Origin("run", int(state), name, {"column": name}),
        )
        if state is State.QUEUED:
            await take(journal, record, "sending")
            await take(journal, record, "doubtful", error="no answer")
            await take(journal, record, "requeue", new_key="key-again", body=record.body, api="agent")
            continue
        await take(journal, record, "sending")
        if state in (State.ACCEPTED, State.DONE, State.FAILED, State.EXPIRED):
            await take(journal, record, "accepted", job_id=f"id-{int(state)}")
        if state is State.IN_DOUBT:
            await take(journal, record, "doubtful", error="no answer")
        elif state is State.DONE:
            raw = b'{"answer":"done"}' * 20
            await take(journal, record, "ended", state, word="COMPLETED", raw=raw, cost=0.25)
            journal.delivered(claim_of(record), record.key, state)
        elif state.is_final:
            await take(journal, record, "ended", state, word=state.name, error="why")
    await journal.remember("golden", b"learnt")
    await journal.close()


def die(path: Path) -> None:
    """Migrate a journal of version 1, and be killed after this number of the migrations' statements."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
    left = int(sys.argv[3])
    steps: dict[int, tuple[str, ...]] = {}
    for version, statements in sorted(MIGRATIONS.items()):
        steps[version] = (*statements[:left], *(["SELECT die()"] if left <= len(statements) else []))
        left = max(-1, left - len(statements)) if left > len(statements) else -1
        if left < 0:
            steps |= {later: () for later in MIGRATIONS if later > version}
            break
    migrate(connection, str(path), steps=steps)


if __name__ == "__main__":
    if sys.argv[1] in ("fork", "die"):
        {"fork": fork, "die": die}[sys.argv[1]](Path(sys.argv[2]))
    else:
        programs = {program.__name__: program for program in (hold, steps, mark, full, limit, golden)}
        asyncio.run(programs[sys.argv[1]](Path(sys.argv[2])))
