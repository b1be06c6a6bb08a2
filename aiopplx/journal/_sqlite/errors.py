"""SQLite's errors converted to the journal's; SQLite's exceptions stop here.

This module knows nothing of what was being written.
"""

from __future__ import annotations

import sqlite3

from aiopplx.journal._errors import JournalBroken, JournalFull

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_OF_ONE_STEP = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError)


def is_of_one_step(error: sqlite3.Error) -> bool:
    """True if the values of one step are the cause, not the file: the rest of its transaction is unaffected."""
    return isinstance(error, _OF_ONE_STEP) and code_of(error) not in _DAMAGED


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code, 0 if the error is Python's own."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def journal_error(error: sqlite3.Error, path: str) -> JournalFull | JournalBroken:
    """The error for the caller whose step failed."""
    code = code_of(error)
    said = f"{error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
    if code == sqlite3.SQLITE_FULL:
        return JournalFull(
            f"the disk of the journal {path} is full: {said}. Nothing was written; make space, then continue", path=path
        )
    if code in _DAMAGED:
        return JournalBroken(
            f"the journal {path} is damaged: {said}. Stop, keep a copy of the file and of its -wal file,"
            " and recover the readable rows with SQLite's .recover",
            path=path,
            is_final=True,
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return JournalBroken(
            f"another program is writing to the journal {path}: {said}. Close it; nothing was written", path=path
        )
    return JournalBroken(f"the journal {path} cannot be read or written: {said}. Nothing was written", path=path)
