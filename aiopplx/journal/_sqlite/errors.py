"""SQLite's errors converted to the journal's; SQLite's exceptions stop here.

This module knows nothing of what was being written.
"""

from __future__ import annotations

import sqlite3

from aiopplx.journal._errors import JournalBroken, JournalFull
from aiopplx.journal._sqlite.space import no_room

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_OF_ONE_STEP = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError)


def is_of_one_step(error: sqlite3.Error) -> bool:
    """True if the values of one step are the cause, not the file: the rest of its transaction is unaffected."""
    return isinstance(error, _OF_ONE_STEP) and code_of(error) not in _DAMAGED


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code, 0 if the error is Python's own."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def unexpected(path: str, error: BaseException, *, is_final: bool = True) -> JournalBroken:
    """The error for something that no journal should meet. A final one has ended the journal's thread."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    so = (
        "it can write nothing more. Steps in hand may be written or not; begin again with the same journal"
        if is_final
        else "nothing was written of this step"
    )
    return JournalBroken(f"the journal {path} met an unexpected error ({what}): {so}", path=path, is_final=is_final)


def no_thread(path: str, error: BaseException) -> JournalBroken:
    """The error for a journal that cannot have its thread."""
    return JournalBroken(
        f"the journal {path} was not opened: it writes in a thread of its own, and none can be started ({error})."
        " Nothing was sent. The process has as many threads as it may, or too little memory: end some, or raise the"
        " limit (ulimit -u, or pids and memory of the container)",
        path=path,
    )


def replaced(path: str, how: str) -> JournalBroken:
    """The error for files that are not those that were opened: what is written now would be lost with them."""
    return JournalBroken(
        f"the journal {path} {how} while it was open. Nothing was written, and nothing more may be sent: put the file"
        " and its -wal back as they were and begin again, or look at the service for what runs",
        path=path,
        remedy="session.list() shows it",
        is_final=True,
    )


def read_elsewhere(path: str) -> JournalBroken:
    """The error for a log that cannot be written back, because another program reads an old state of the journal."""
    return JournalBroken(
        f"another program reads the journal {path} in one long transaction: end that. Nothing was written", path=path
    )


def journal_error(error: sqlite3.Error, path: str) -> JournalFull | JournalBroken:
    """The error for the caller whose step failed."""
    code = code_of(error)
    said = f"{error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
    if code == sqlite3.SQLITE_FULL:
        return JournalFull(
            f"the disk of the journal {path} is full: {said}. Nothing was written; make space, then continue", path=path
        )
    if code == sqlite3.SQLITE_IOERR and (why := no_room(path)):
        return JournalFull(
            f"the journal {path} may not grow: {why} ({said}). Nothing was written; make room, or raise the limit, then"
            " continue",
            path=path,
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
