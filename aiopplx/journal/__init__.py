"""The journal on its own: for reading it during a run, or for writing another store.

`Session(journal="research.db")` needs nothing of this. `open_reader` reads a journal at any time and changes nothing,
`SqliteJournal` and `PostgresJournal` are the stores that a session opens, and `Journal` is the protocol that a store of
your own must satisfy to be used as `Session(journal=...)`: `steps` has the arguments of `Journal.apply`, and
`aiopplx.journal.store` the rules that all stores share. `stages_of`, `records_at`, `words_of` and `choices_of` say
where submissions stand, and what may be decided about them, to a program that shows a journal to a person. This module
does not know how any of it is stored.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

from aiopplx._checks.path import check_path
from aiopplx._checks.unseen import unseen
from aiopplx.journal import _steps as steps
from aiopplx.journal._errors import (
    ClaimLost,
    DuplicateJob,
    ImpossibleStep,
    ItemConflict,
    JournalAway,
    JournalBroken,
    JournalClosed,
    JournalError,
    JournalFull,
    JournalLocked,
    JournalRefused,
    Reason,
    ResultDamaged,
)
from aiopplx.journal._postgres.url import Url, hidden
from aiopplx.journal._protocol import Journal, JournalReader, Pool
from aiopplx.journal._records import Claim, Cost, CostsBy, KindCosts, Ledger, Origin, Record, Results, Room, State
from aiopplx.journal._standing import Choice, Stage, choices_of, records_at, stage_of, stages_of, words_of
from aiopplx.journal._steps import Step

if TYPE_CHECKING:
    from aiopplx.journal._jobs import job_of
    from aiopplx.journal._memory import MemoryJournal, MemoryStore
    from aiopplx.journal._postgres.journal import PostgresJournal
    from aiopplx.journal._postgres.migrate import migrate
    from aiopplx.journal._postgres.reader import PostgresReader
    from aiopplx.journal._sqlite.journal import SqliteJournal
    from aiopplx.journal._sqlite.reader import SqliteReader

__all__ = [
    "Choice",
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
    "KindCosts",
    "Ledger",
    "MemoryJournal",
    "MemoryStore",
    "Origin",
    "Pool",
    "PostgresJournal",
    "PostgresReader",
    "Reason",
    "Record",
    "ResultDamaged",
    "Results",
    "Room",
    "SqliteJournal",
    "SqliteReader",
    "Stage",
    "State",
    "Step",
    "choices_of",
    "job_of",
    "migrate",
    "open_reader",
    "records_at",
    "stage_of",
    "stages_of",
    "steps",
    "words_of",
]

# Loaded at first use, as in the package itself: only opening a file needs sqlite3, and the APIs import the HTTP
# library, which counting and listing do not need.
_HOMES = {
    "MemoryJournal": "aiopplx.journal._memory",
    "MemoryStore": "aiopplx.journal._memory",
    "PostgresJournal": "aiopplx.journal._postgres.journal",
    "PostgresReader": "aiopplx.journal._postgres.reader",
    "SqliteJournal": "aiopplx.journal._sqlite.journal",
    "SqliteReader": "aiopplx.journal._sqlite.reader",
    "job_of": "aiopplx.journal._jobs",
    "migrate": "aiopplx.journal._postgres.migrate",
}


@unseen
def open_reader(path: str | os.PathLike[str]) -> JournalReader:
    """Open a journal for reading only: during a run, after a crash, from many processes. It changes nothing.

    `with open_reader("research.db") as journal: journal.counts()`.

    Args:
        path: the file, or the `postgresql://` URL of a database.

    Raises:
        ConfigError: that is no path, and no such URL.
        JournalRefused: it does not exist, is not a journal, or has another version; the error says which.
        JournalAway: the database's server cannot be reached.
    """
    path = hidden(path)
    if isinstance(path, Url):
        from aiopplx.journal._postgres.reader import PostgresReader  # its driver is an extra

        return PostgresReader(path)
    from aiopplx.journal._sqlite.reader import SqliteReader  # only opening a file needs sqlite3

    return SqliteReader(check_path("path", path))


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
