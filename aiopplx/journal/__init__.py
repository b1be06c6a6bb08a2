"""The journal for those who want it by itself: to read it while a run goes on, or to keep one of their own.

`Session(journal="research.db")` needs nothing of this. `open_reader` looks into a journal at any time and changes
nothing, `SqliteJournal` is what a session opens, and `Journal` is what a store of your own has to promise to be handed
in as `Session(journal=...)`: `steps` has what `Journal.apply` is given, and `may_take` says what a step means for a
row. This module knows nothing of how any of it is kept.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

from aiopplx.journal import _steps as steps
from aiopplx.journal._protocol import (
    Claim,
    ClaimLost,
    Cost,
    CostsBy,
    DuplicateJob,
    ImpossibleStep,
    ItemConflict,
    Journal,
    JournalAway,
    JournalBroken,
    JournalClosed,
    JournalError,
    JournalFull,
    JournalLocked,
    JournalReader,
    JournalRefused,
    Ledger,
    Record,
    ResultDamaged,
    Results,
    State,
    Step,
)
from aiopplx.journal._taking import may_take

if TYPE_CHECKING:
    from aiopplx.journal._jobs import job_of
    from aiopplx.journal._memory import MemoryJournal, MemoryStore
    from aiopplx.journal._sqlite.journal import SqliteJournal
    from aiopplx.journal._sqlite.reader import SqliteReader

__all__ = [
    "Claim",
    "ClaimLost",
    "Cost",
    "CostsBy",
    "DuplicateJob",
    "ImpossibleStep",
    "ItemConflict",
    "Journal",
    "JournalAway",
    "JournalBroken",
    "JournalClosed",
    "JournalError",
    "JournalFull",
    "JournalLocked",
    "JournalReader",
    "JournalRefused",
    "Ledger",
    "MemoryJournal",
    "MemoryStore",
    "Record",
    "ResultDamaged",
    "Results",
    "SqliteJournal",
    "SqliteReader",
    "State",
    "Step",
    "job_of",
    "may_take",
    "open_reader",
    "steps",
]

# Loaded at the first use, as in the package itself: sqlite3 is for those who open a file, and the APIs bring the HTTP
# library with them, which counting and listing do without.
_HOMES = {
    "MemoryJournal": "aiopplx.journal._memory",
    "MemoryStore": "aiopplx.journal._memory",
    "SqliteJournal": "aiopplx.journal._sqlite.journal",
    "SqliteReader": "aiopplx.journal._sqlite.reader",
    "job_of": "aiopplx.journal._jobs",
}


def open_reader(path: str | os.PathLike[str]) -> JournalReader:
    """A journal for reading only: beside its writer, after a crash, from many processes. It changes nothing.

    `with open_reader("research.db") as journal: journal.counts()`.

    Args:
        path: the file.

    Raises:
        JournalRefused: it is not there, is not a journal, or is of another version; the error says so.
    """
    from aiopplx.journal._sqlite.reader import SqliteReader  # sqlite3 is for those who open a file

    return SqliteReader(path)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
