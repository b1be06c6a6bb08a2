"""Rows of a journal, as the tests of the stores make them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from aiopplx.journal import _steps as steps
from aiopplx.journal._names import item_name, sha_of
from aiopplx.journal._protocol import Journal
from aiopplx.journal._records import Claim, Origin, Record, State
from aiopplx.journal._sqlite.journal import SqliteJournal
from aiopplx.journal._steps import Step


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
    make = getattr(steps, name)
    await journal.apply(claim_of(record), make(*arguments, key=record.key, **more))


async def sent(journal: Journal, tag: str = "a") -> Record:
    """A row whose submission is marked as sent, as it was before that step."""
    record = await queued(journal, tag)
    await take(journal, record, "sending")
    return record


# Written out, and not read from the package: where each step leads from where, and from where it leads nowhere.
Q, S, A, D, F, I, E, R = State  # noqa: E741 - one letter each: the table is to be read
ALLOWED: dict[str, tuple[set[State], State]] = {
    "sending": ({Q, S, I}, S),
    "accepted": ({Q, S, A, I, E}, A),
    "doubtful": ({S, I}, I),
    "back_to_queued": ({Q, S}, Q),
    "refreeze": ({Q}, Q),
    "requeue": ({I, F, E, R}, Q),
    "dropped": ({I}, F),
    "DONE": ({Q, S, A, I, D}, D),
    "FAILED": ({Q, S, A, I, F}, F),
    "EXPIRED": ({A, E}, E),
    "REJECTED": ({Q, S, R}, R),
}

PATHS: dict[State, tuple[str, ...]] = {
    State.QUEUED: (),
    State.SENDING: ("sending",),
    State.ACCEPTED: ("sending", "accepted"),
    State.DONE: ("sending", "accepted", "DONE"),
    State.FAILED: ("sending", "accepted", "FAILED"),
    State.IN_DOUBT: ("sending", "doubtful"),
    State.EXPIRED: ("sending", "accepted", "EXPIRED"),
    State.REJECTED: ("sending", "REJECTED"),
}


def named(name: str, record: Record, *, job_id: str = "") -> Step:
    """A step of this row by its name; a state's name stands for `ended` with it."""
    key = record.key
    made: dict[str, Callable[[], Step]] = {
        "sending": lambda: steps.sending(key=key, attempt=record.attempts + 1),
        "accepted": lambda: steps.accepted(key=key, job_id=job_id or f"job-{record.pk}"),
        "doubtful": lambda: steps.doubtful(key=key, error="no answer"),
        "back_to_queued": lambda: steps.back_to_queued(key=key),
        "refreeze": lambda: steps.refreeze(key=key, body=b"{}", api="agent"),
        "requeue": lambda: steps.requeue(key=key, new_key=f"again-{key}", body=b"{2}", api="sonar"),
        "dropped": lambda: steps.dropped(key=key),
    }
    if name in made:
        return made[name]()
    return steps.ended(State[name], key=key, word=name, raw=b"body", error="why")


async def brought_to(journal: Journal, state: State, tag: str = "a", body: bytes = b"") -> Record:
    """A row in this state; its record has a claim."""
    record = await queued(journal, tag, body=body)
    for name in PATHS[state]:
        await journal.apply(claim_of(record), named(name, record))
    found = await journal.claim(record.pk)
    assert found is not None
    assert found.state is state
    return found
