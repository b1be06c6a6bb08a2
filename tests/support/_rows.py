"""Rows of a journal, as the tests of the stores make them."""

from __future__ import annotations

import time
from pathlib import Path

from aiopplx.journal import _steps as steps_of
from aiopplx.journal._names import item_name, sha_of
from aiopplx.journal._protocol import Journal
from aiopplx.journal._records import Claim, Origin, Record
from aiopplx.journal._sqlite.journal import SqliteJournal


async def queued(
    journal: Journal,
    tag: str | int | None = "a",
    key: str = "",
    ask: bytes = b"why?",
    body: bytes = b"",
    origin: Origin | None = None,
) -> Record:
    """The row of a question under a tag, queued now or found; its key follows from the tag."""
    sha = sha_of(ask)
    return await journal.find_or_queue(
        item_name(tag, sha),
        tag=tag,
        key=key or f"key-{tag}",
        body=body or b"body of " + ask,
        sha=sha,
        api="sonar",
        origin=origin,
    )


def claim_of(record: Record | None) -> Claim:
    """The right to write a row, which its holder has."""
    assert record is not None
    assert record.claim is not None
    return record.claim


async def opened(path: Path, **more: object) -> SqliteJournal:
    """The journal in this file, by the clock of the machine."""
    return await SqliteJournal.open(path, now=time.time, **more)  # type: ignore[arg-type]  # named at each call


async def take(journal: Journal, record: Record, name: str, *arguments: object, **more: object) -> None:
    """A step by its name, under the record's claim and key."""
    if name == "sending":
        more.setdefault("attempt", record.attempts + 1)
    make = getattr(steps_of, name)
    await journal.apply(claim_of(record), make(*arguments, key=record.key, **more))


async def sent(journal: Journal, tag: str = "a") -> Record:
    """A row whose submission is marked as sent, as it was before that step."""
    record = await queued(journal, tag)
    await take(journal, record, "sending")
    return record
