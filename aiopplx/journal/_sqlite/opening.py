"""From a path to a trusted connection: a new journal, or one proved to be sound and of this account.

A file that is not is refused, with the reason, and left unchanged; it is never replaced by an empty one. This module
does not know what the rows mean.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from aiopplx.journal._errors import JournalBroken, JournalLocked, JournalRefused
from aiopplx.journal._records import State
from aiopplx.journal._sqlite import log
from aiopplx.journal._sqlite.errors import journal_error, read_elsewhere
from aiopplx.journal._sqlite.file import check_file, know_kinds, make, migrate, network_type, newer, refused, version_of
from aiopplx.journal._sqlite.files import Files
from aiopplx.journal._sqlite.lock import Held, Lock, holder_of
from aiopplx.journal._sqlite.schema import READ_AS, TABLES, VERSION

BUSY_MS = 5000


class Wanted(NamedTuple):
    """What the journal must match, or is created with.

    Attributes:
        base_url: the server, `""` to accept the file's.
        account: a function from the file's salt to the fingerprint of the API key; None to accept the file's.
        same_account: accept the key as a new one of the same account, and keep its fingerprint.
        without_log: go on though the log that belongs to the file is lost or damaged.
        now: wall clock, for the creation time of a new journal.
    """

    base_url: str
    account: Callable[[bytes], str] | None
    same_account: bool
    without_log: bool
    now: Callable[[], float]


class Opened(NamedTuple):
    """A journal that only this process may write.

    Attributes:
        connection: the writer's.
        lock: by which nobody else writes.
        epoch: the number of this opening.
        files: the files that were opened.
        guard: a connection that cannot write, so that the writer's need not be the last to close.
    """

    connection: sqlite3.Connection
    lock: Lock
    epoch: int
    files: Files
    guard: sqlite3.Connection

    def close(self) -> None:
        """Close the file, which is complete without its log then, and free it. In the thread that opened it."""
        try:
            try:
                self.files.check()
            except JournalBroken:
                _close_leaving_log(self.connection, self.guard)
            else:
                _close(self.connection, self.guard)
        finally:
            try:
                self.files.close()
            finally:
                self.lock.release()


def _close(connection: sqlite3.Connection, guard: sqlite3.Connection) -> None:
    """Write the log back and close. The last to close removes the log."""
    try:
        log.has_all(connection)
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    except sqlite3.Error:
        _close_leaving_log(connection, guard)  # the file needs it
    else:
        guard.close()
        connection.close()


def _close_leaving_log(connection: sqlite3.Connection, guard: sqlite3.Connection) -> None:
    """Close and leave the log as it is: another file may lie in this place by now, whose log it is."""
    try:
        connection.close()
    finally:
        guard.close()  # the last, and it may not write


def place_of(path: str | os.PathLike[str]) -> str:
    """The canonical path of a file, whatever links lead to it: two names would mean two locks."""
    return os.path.realpath(path)


# --- the writer's opening --------------------------------------------------------------------------------------------


def open_to_write(path: str, wanted: Wanted) -> Opened:
    """The writer's connection. Must be called in the thread that will use it.

    Raises:
        JournalLocked: another writer has it.
        JournalRefused: it was not opened; the error says why.
        JournalFull, JournalBroken: the disk is full or failing.
    """
    _check_place(path)
    lock = _locked(path)
    try:
        connection = _connection(path, wanted)
        guard = _reading(path)
        try:
            epoch = _begin(connection)
            if not log.checkpoint(connection, "FULL"):
                raise read_elsewhere(path)
            files = Files(path)
        except BaseException:
            _close(connection, guard)
            raise
    except sqlite3.Error as error:
        lock.release()
        said: Exception = journal_error(error, path)
        if isinstance(said, JournalBroken) and said.is_final:
            said = _damaged(path, str(error))
    except OSError as error:
        lock.release()
        said = refused(path, "unusable", f"cannot be opened: {error.strerror or error}")
    except BaseException:
        lock.release()
        raise
    else:
        return Opened(connection, lock, epoch, files, guard)
    raise said


def _check_place(path: str) -> None:
    directory = os.path.dirname(path)
    mounts = Path("/proc/self/mountinfo")
    kind = network_type(directory, mounts.read_text(encoding="utf-8", errors="replace") if mounts.exists() else "")
    if kind:
        raise refused(
            path,
            "network",
            f"would lie on a network file system ({kind}), where it is not safe: put it on a local disk",
        )
    if os.path.isdir(path):
        raise refused(path, "unusable", "is a directory; name a file in it")
    if os.path.isdir(directory):
        return
    try:
        # Only one directory is created: a mistyped path must not start an empty journal in a new place.
        os.mkdir(directory, mode=0o700)
    except OSError as error:
        said = refused(path, "unusable", f"cannot be made: {error.strerror} ({directory})")
    else:
        return
    raise said


def _locked(path: str) -> Lock:
    name = f"{path}.lock"
    try:
        return Lock.take(name)
    except Held as held:
        said: Exception = _who(path, held)
    except OSError as error:
        said = refused(path, "unusable", f"cannot be locked: {error.strerror} ({name})")
    raise said


def _who(path: str, held: Held) -> JournalLocked:
    pid, host = held.holder or (None, "")
    if pid == os.getpid():
        who = "in this process already"
    else:
        who = f"in process {pid} on {host}" if pid is not None else "in another process"
    return JournalLocked(
        f"the journal {path} is open {who}; it has one writer at a time. Wait for it to end, or use another journal",
        path=path,
        pid=pid,
        host=host,
    )


def _connection(path: str, wanted: Wanted) -> sqlite3.Connection:
    if os.path.exists(path):
        check_file(path)
        if not wanted.without_log:
            _check_log(path)
    else:
        make(path, wanted.now())
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}.new")  # left by a process that ended while creating the file
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=64)
    try:
        _set_up(connection, path)
        _check_content(connection, path)
        migrate(connection, path)
        _check_owner(connection, path, wanted)
    except BaseException:
        connection.close()
        raise
    return connection


def _set_up(connection: sqlite3.Connection, path: str) -> None:
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    connection.execute("PRAGMA foreign_keys=ON")
    enter_wal(connection, path)
    # FULL syncs the log at every commit: that is what "on disk before the first byte leaves" means.
    connection.execute("PRAGMA synchronous=FULL")
    # The writer makes the checkpoints itself, since each of them has to leave a mark in the file (`log`).
    connection.execute("PRAGMA wal_autocheckpoint=0")
    # 16 MB of page cache: the two indexes are written at random.
    connection.execute("PRAGMA cache_size=-16000")


def enter_wal(connection: sqlite3.Connection, path: str) -> None:
    """Enable the write-ahead log.

    Raises:
        JournalRefused: SQLite stays in another mode, as it does if memory cannot be shared.
    """
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise refused(
            path,
            "network",
            f"cannot have a write-ahead log in this place (SQLite stays in mode {mode!r}), as on network file systems:"
            " put it on a local disk",
        )


def _check_log(path: str) -> None:
    fault = log.fault_of(path)
    if fault:
        raise refused(
            path,
            "log",
            f"is not as its last run left it: {fault} ({path}-wal). What that run did last is in the log, and jobs that"
            " it paid for would be paid again. Put the log back next to the file. If it is lost, look for its jobs at"
            " the service",
            remedy="session.list() shows them; without_log=True goes on without the log, and may pay again",
        )


def _check_content(connection: sqlite3.Connection, path: str) -> None:
    try:
        clean = connection.execute("SELECT v FROM meta WHERE k = 'clean'").fetchone()
        said = "" if clean == (1,) else _damage(connection)
    except sqlite3.DatabaseError as error:
        said = str(error)
    if said:
        raise _damaged(path, said)


def _damaged(path: str, said: str) -> JournalRefused:
    return refused(path, "corrupt", f"is damaged ({said}). Keep it as it is, with its -wal, and recover a copy of it")


def _damage(connection: sqlite3.Connection) -> str:
    # A newer version, whose tables are not known here, is refused after this.
    for table in TABLES.get(version_of(connection), ()):
        (found,) = connection.execute(f"PRAGMA quick_check({table})").fetchone()
        if found != "ok":
            return str(found).splitlines()[0]
    return ""


def _check_owner(connection: sqlite3.Connection, path: str, wanted: Wanted) -> None:
    meta = dict(connection.execute("SELECT k, v FROM meta").fetchall())
    if _is_unused(connection):
        # Created with a mistyped key or address, and nothing was submitted: it has no owner yet.
        meta.pop("base_url", None)
        meta.pop("account", None)
    if wanted.base_url and meta.get("base_url") and meta["base_url"] != wanted.base_url:
        raise refused(
            path, "base_url", f"belongs to {meta['base_url']}, not to {wanted.base_url}: use another journal for it"
        )
    account = wanted.account(bytes(meta["salt"])) if wanted.account is not None else ""
    if account and meta.get("account") and meta["account"] != account and not wanted.same_account:
        raise refused(
            path,
            "account",
            "was created with another API key. Jobs of another account cannot be found: use another journal",
            remedy="If this is a new key of the same account, open it once with same_account=True",
        )
    for name, value in (("base_url", wanted.base_url), ("account", account)):
        if value and meta.get(name) != value:
            connection.execute("INSERT OR REPLACE INTO meta(k, v) VALUES (?, ?)", (name, value))


def _is_unused(connection: sqlite3.Connection) -> bool:
    """True if no server can know of any of its rows: all are queued or refused."""
    (used,) = connection.execute(
        "SELECT EXISTS(SELECT 1 FROM job WHERE state NOT IN (?, ?) OR job_id IS NOT NULL)"
        " OR EXISTS(SELECT 1 FROM past)",
        (int(State.QUEUED), int(State.REJECTED)),
    ).fetchone()
    return not used


def _begin(connection: sqlite3.Connection) -> int:
    """Count this opening. Its number is the fence of every later step."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE meta SET v = v + 1 WHERE k = 'epoch'")
    connection.execute("UPDATE meta SET v = 0 WHERE k = 'clean'")
    log.needs_log(connection)
    (epoch,) = connection.execute("SELECT v FROM meta WHERE k = 'epoch'").fetchone()
    connection.execute("COMMIT")
    return int(epoch)


# --- readers ---------------------------------------------------------------------------------------------------------


def open_to_read(path: str) -> sqlite3.Connection:
    """A connection that cannot change anything and does not block a writer. It takes no lock.

    Raises:
        JournalRefused: it does not exist, is not a journal, has another format, or cannot be read.
    """
    check_file(path)
    try:
        connection = _reading(path)
        found = version_of(connection)
        if found in READ_AS:
            know_kinds(connection)
            for statement in READ_AS[found]:
                connection.execute(statement)
    except sqlite3.Error as error:
        said = refused(path, "unusable", f"cannot be read: {error}")
    else:
        if found == VERSION or found in READ_AS:
            return connection
        connection.close()
        if found > VERSION:
            raise newer(path, found)
        said = refused(path, "older", f"has the older format {found}: the next run on it migrates it")
    raise said


def _reading(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    connection.execute("PRAGMA trusted_schema=OFF")
    version_of(connection)  # reads, so that it is open
    return connection


def writer_of(path: str) -> tuple[int, str] | None:
    """Process and host that have the journal open, as far as is known; None if it is not open."""
    return holder_of(f"{path}.lock")
