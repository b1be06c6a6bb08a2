"""Room: from a path to a connection that may be trusted: made new, or proved to be this account's sound journal.

A file that is not is refused, with the reason, and left as it is; an empty one never takes its place. This module knows
nothing of what the rows mean.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from aiopplx._journal import JournalLocked, JournalRefused, Reason
from aiopplx._journal._foreign import in_our_words
from aiopplx._journal._lock import Held, Lock, holder_of
from aiopplx._journal._mounts import network_type
from aiopplx._journal._schema import APPLICATION_ID, MIGRATIONS, SCHEMA, TABLES, VERSION
from aiopplx._version import __version__

HEADER = 100
BUSY_MS = 5000


class Wanted(NamedTuple):
    """What the opener says of itself.

    Attributes:
        base_url: the server, `""` to ask nothing of the file's.
        account: from the file's salt to the fingerprint of the API key; None to ask nothing of the file's.
        same_account: take the key as a new one of the same account, and remember it.
        now: wall clock, for the date of a new journal.
    """

    base_url: str
    account: Callable[[bytes], str] | None
    same_account: bool
    now: Callable[[], float]


class Opened(NamedTuple):
    """A journal that is this process's alone to write."""

    connection: sqlite3.Connection
    lock: Lock
    epoch: int


def refused(path: str, reason: Reason, why: str) -> JournalRefused:
    """The error for a file that is not opened."""
    return JournalRefused(f"the journal {path} {why}", path=path, reason=reason)


# --- the writer's opening --------------------------------------------------------------------------------------------


def open_to_write(path: str, wanted: Wanted) -> Opened:
    """The one writer's connection. To be called in the thread that will use it.

    Raises:
        JournalLocked: another writer has it.
        JournalRefused: it is not opened; the error says why.
        JournalFull, JournalBroken: the disk is full or fails.
    """
    _check_place(path)
    lock = _locked(path)
    try:
        connection = _connection(path, wanted)
        try:
            epoch = _begin(connection)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        lock.release()
        said = in_our_words(error, path)
    except OSError as error:
        lock.release()
        said = refused(path, "unusable", f"cannot be opened: {error.strerror or error}")
    except BaseException:
        lock.release()
        raise
    else:
        return Opened(connection, lock, epoch)
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
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
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
    else:
        _make(path, wanted)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}.new")  # left by a process that ended while it made the file
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
    connection.execute("PRAGMA wal_autocheckpoint=1000")


def enter_wal(connection: sqlite3.Connection, path: str) -> None:
    """Turn the write-ahead log on.

    Raises:
        JournalRefused: SQLite stays in another mode, as it does where memory cannot be shared.
    """
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise refused(
            path,
            "network",
            f"cannot have a write-ahead log where it lies (SQLite stays in mode {mode!r}), as on network file systems:"
            " put it on a local disk",
        )


def _check_content(connection: sqlite3.Connection, path: str) -> None:
    try:
        clean = connection.execute("SELECT v FROM meta WHERE k = 'clean'").fetchone()
        said = "" if clean == (1,) else _damage(connection)
    except sqlite3.DatabaseError as error:
        said = str(error)
    if said:
        raise refused(path, "corrupt", f"is damaged ({said}). Keep it as it is and recover a copy of it")


def _damage(connection: sqlite3.Connection) -> str:
    for table in TABLES:
        (found,) = connection.execute(f"PRAGMA quick_check({table})").fetchone()
        if found != "ok":
            return str(found).splitlines()[0]
    return ""


def _check_owner(connection: sqlite3.Connection, path: str, wanted: Wanted) -> None:
    meta = dict(connection.execute("SELECT k, v FROM meta").fetchall())
    if wanted.base_url and meta.get("base_url") and meta["base_url"] != wanted.base_url:
        raise refused(
            path, "base_url", f"belongs to {meta['base_url']}, not to {wanted.base_url}: use another journal for it"
        )
    account = wanted.account(bytes(meta["salt"])) if wanted.account is not None else ""
    if account and meta.get("account") and meta["account"] != account and not wanted.same_account:
        raise refused(
            path,
            "account",
            "was begun with another API key. Jobs of another account cannot be found again: use another journal. If"
            " this is a new key of the same account, open it once with same_account=True",
        )
    for name, value in (("base_url", wanted.base_url), ("account", account)):
        if value and meta.get(name) != value:
            connection.execute("INSERT OR REPLACE INTO meta(k, v) VALUES (?, ?)", (name, value))


def _begin(connection: sqlite3.Connection) -> int:
    """Count this opening. Its number is what every later step is fenced with."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE meta SET v = v + 1 WHERE k = 'epoch'")
    connection.execute("UPDATE meta SET v = 0 WHERE k = 'clean'")
    (epoch,) = connection.execute("SELECT v FROM meta WHERE k = 'epoch'").fetchone()
    connection.execute("COMMIT")
    return int(epoch)


# --- a new file ------------------------------------------------------------------------------------------------------


def _make(path: str, wanted: Wanted) -> None:
    """Make the file under another name and put it in place whole: no crash leaves half a journal behind."""
    if os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal"):
        raise refused(
            path,
            "orphan",
            f"is not there, but its write-ahead log is ({path}-wal), and may hold paid results. Put the file back"
            " beside it, or move the log away",
        )
    new = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    try:
        touch(new)
        _fill(new, wanted)
        _put_in_place(new, path)
    finally:
        for leftover in (new, f"{new}-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(leftover)


def touch(path: str) -> None:
    """An empty file that only its owner can read. SQLite would make it readable by all, and copies the mode it finds."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _fill(path: str, wanted: Wanted) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION}")
        for statement in SCHEMA:
            connection.execute(statement)
        first = {"salt": os.urandom(16), "created": wanted.now(), "made_by": __version__, "epoch": 0, "clean": 1}
        connection.executemany("INSERT INTO meta(k, v) VALUES (?, ?)", first.items())
        connection.execute("COMMIT")
    finally:
        connection.close()


def _put_in_place(new: str, path: str) -> None:
    try:
        os.link(new, path)  # fails if somebody put a file there meanwhile, which a rename would overwrite
    except FileExistsError:
        raise
    except OSError:
        os.rename(new, path)  # no hard links here
    with contextlib.suppress(OSError):
        descriptor = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# --- an old file -----------------------------------------------------------------------------------------------------


def check_file(path: str) -> None:
    """Is it a journal of a version known here? Read without SQLite, which would begin by changing another's file.

    Raises:
        JournalRefused: it is not.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(HEADER)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise refused(path, "missing", "is not there") from None
    except OSError as error:
        raise refused(path, "unusable", f"cannot be read: {error.strerror}") from None
    if not size:
        raise refused(
            path, "empty", "is an empty file: it was cut off, or never was a journal. Remove it if nothing was paid"
        )
    if len(head) < HEADER or not head.startswith(b"SQLite format 3\0"):
        raise refused(path, "foreign", "is no journal, or its beginning was overwritten")
    if _number(head, 68) != APPLICATION_ID:
        raise refused(path, "foreign", "is a SQLite database of another program")
    if _number(head, 60) > VERSION:
        raise newer(path, _number(head, 60))
    page = int.from_bytes(head[16:18], "big")
    pages = _number(head, 28) if head[24:28] == head[92:96] else 0
    in_log = os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal")
    if size < pages * (page if page > 1 else 65536) and not in_log:
        raise refused(path, "corrupt", f"was cut off: {size} bytes are left of it. Keep it and recover a copy of it")


def _number(head: bytes, offset: int) -> int:
    return int.from_bytes(head[offset : offset + 4], "big")


def newer(path: str, version: int) -> JournalRefused:
    """The error for a journal that a later version of the library wrote."""
    return refused(
        path, "newer", f"was written by a newer aiopplx (format {version}, this is {VERSION}): upgrade aiopplx"
    )


def version_of(connection: sqlite3.Connection) -> int:
    """The format of the file, with what is still in its write-ahead log."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(
    connection: sqlite3.Connection,
    path: str,
    *,
    steps: Mapping[int, tuple[str, ...]] = MIGRATIONS,
    target: int = VERSION,
) -> None:
    """Bring an older journal to `target`, all of it or none; a copy is kept beside it as `<path>.v<old>.bak`.

    Raises:
        JournalRefused: it is newer, or there is no way from its version.
    """
    found = version_of(connection)
    if found == target:
        return
    if found > target:
        raise newer(path, found)
    if not all(version in steps for version in range(found, target)):
        raise refused(path, "older", f"has format {found}, which this version cannot bring to {target}")
    _back_up(connection, f"{path}.v{found}.bak")
    connection.execute("BEGIN EXCLUSIVE")
    try:
        for version in range(found, target):
            for statement in steps[version]:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={int(target)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _back_up(connection: sqlite3.Connection, to: str) -> None:
    new = f"{to}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    touch(new)
    copy = sqlite3.connect(new, isolation_level=None)
    try:
        connection.backup(copy)
    finally:
        copy.close()
    os.replace(new, to)


# --- readers ---------------------------------------------------------------------------------------------------------


def open_to_read(path: str) -> sqlite3.Connection:
    """A connection that can change nothing and holds up no writer. It takes no lock.

    Raises:
        JournalRefused: it is not there, no journal, of another format, or cannot be read.
    """
    check_file(path)
    try:
        connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)
        connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        connection.execute("PRAGMA trusted_schema=OFF")
        found = version_of(connection)
    except sqlite3.Error as error:
        said = refused(path, "unusable", f"cannot be read: {error}")
    else:
        if found == VERSION:
            return connection
        connection.close()
        if found > VERSION:
            raise newer(path, found)
        said = refused(path, "older", f"has the older format {found}: the next run on it brings it up to date")
    raise said


def writer_of(path: str) -> tuple[int, str] | None:
    """Process and host that have the journal open, as far as can be told; None if nobody has."""
    return holder_of(f"{path}.lock")
