"""The journal for those who want it by itself: to read it while a run goes on, or to keep one of their own.

`Session(journal="research.db")` needs nothing of this. `SqliteReader` looks into a journal at any time and changes
nothing, `SqliteJournal` is what a session opens, and `Journal` is what a store of your own has to promise to be handed
in as `Session(journal=...)`. This module knows nothing of how any of it is kept.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from aiopplx.journal._protocol import (
    Claim,
    Cost,
    CostsBy,
    DuplicateJob,
    ImpossibleStep,
    ItemConflict,
    Journal,
    JournalBroken,
    JournalClosed,
    JournalError,
    JournalFull,
    JournalLocked,
    JournalRefused,
    Ledger,
    Record,
    ResultDamaged,
    Results,
    State,
)

if TYPE_CHECKING:
    from aiopplx._job import Job
    from aiopplx.journal._memory import MemoryJournal
    from aiopplx.journal._sqlite.journal import SqliteJournal, SqliteReader

__all__ = [
    "Claim",
    "Cost",
    "CostsBy",
    "DuplicateJob",
    "ImpossibleStep",
    "ItemConflict",
    "Journal",
    "JournalBroken",
    "JournalClosed",
    "JournalError",
    "JournalFull",
    "JournalLocked",
    "JournalRefused",
    "Ledger",
    "MemoryJournal",
    "Record",
    "ResultDamaged",
    "Results",
    "SqliteJournal",
    "SqliteReader",
    "State",
    "job_of",
]

# Loaded at the first use, as in the package itself: sqlite3 is for those who open a file.
_HOMES = {
    "MemoryJournal": "aiopplx.journal._memory",
    "SqliteJournal": "aiopplx.journal._sqlite.journal",
    "SqliteReader": "aiopplx.journal._sqlite.journal",
}


def job_of(record: Record, raw: bytes | None) -> Job:
    """A record as the `Job` that its session handed out: text, sources and cost read anew from the stored answer.

    Args:
        record: from `SqliteReader.rows` or `get`.
        raw: its stored answer, from `SqliteReader.result(record.pk)`; None if there is none.
    """
    # Here, not above: the APIs bring the HTTP library with them, which counting and listing do without.
    from aiopplx._apis import APIS
    from aiopplx._core.keeper import Keeper
    from aiopplx._http.clock import wall
    from aiopplx.journal._memory import MemoryJournal

    known = {api.name: api for api, _ in APIS.values()}
    default, _ = APIS["auto"]
    keeper = Keeper(
        MemoryJournal(now=wall),
        api_named=lambda name: known.get(name, default),
        on_doubt=None,
        retry_failed=False,
        wall=wall,
    )
    return keeper.job_of(record, raw)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
