"""The journal as a file: checking one, making a new one, migrating an old one.

A file that is not a sound journal is refused, with the reason, and left unchanged. So is a place where SQLite's
write-ahead log is not safe: it needs memory that all users of the file share, which network file systems do not
provide. This module does not know what the rows mean, nor who may write them.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Mapping

from aiopplx._version import __version__
from aiopplx.journal._errors import JournalRefused, Reason
from aiopplx.journal._kinds import kind_label
from aiopplx.journal._sqlite.schema import APPLICATION_ID, MIGRATIONS, SCHEMA, VERSION

HEADER = 100


def refused(path: str, reason: Reason, why: str, *, remedy: str = "") -> JournalRefused:
    """The error for a file that is not opened."""
    return JournalRefused(f"the journal {path} {why}", path=path, reason=reason, remedy=remedy)


# --- an old file -----------------------------------------------------------------------------------------------------


def check_file(path: str) -> None:
    """Check that it is a journal of a known version. Read without SQLite, which would change a foreign file on opening.

    Raises:
        JournalRefused: it is not.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(HEADER)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise refused(path, "missing", "does not exist") from None
    except OSError as error:
        raise refused(path, "unusable", f"cannot be read: {error.strerror}") from None
    if not size:
        raise refused(
            path, "empty", "is an empty file: it was truncated, or never was a journal. Remove it if nothing was paid"
        )
    if len(head) < HEADER or not head.startswith(b"SQLite format 3\0"):
        raise refused(path, "foreign", "is not a journal, or its beginning was overwritten")
    if _number(head, 68) != APPLICATION_ID:
        raise refused(path, "foreign", "is a SQLite database of another program")
    if _number(head, 60) > VERSION:
        raise newer(path, _number(head, 60))
    page = int.from_bytes(head[16:18], "big")
    pages = _number(head, 28) if head[24:28] == head[92:96] else 0
    in_log = os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal")
    if size < pages * (page if page > 1 else 65536) and not in_log:
        raise refused(path, "corrupt", f"was truncated to {size} bytes. Keep it and recover a copy of it")


def _number(head: bytes, offset: int) -> int:
    return int.from_bytes(head[offset : offset + 4], "big")


def newer(path: str, version: int) -> JournalRefused:
    """The error for a journal that a later version of the library wrote."""
    return refused(
        path, "newer", f"was written by a newer aiopplx (format {version}, this is {VERSION}): upgrade aiopplx"
    )


# --- a new file ------------------------------------------------------------------------------------------------------


def make(path: str, created: float) -> None:
    """Make the file under another name and move it into place: a crash never leaves half a journal behind.

    Raises:
        JournalRefused: a write-ahead log exists without its file.
    """
    if os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal"):
        raise refused(
            path,
            "orphan",
            f"is missing, but its write-ahead log exists ({path}-wal) and may hold paid results. Put the file back"
            " next to it, or move the log away",
        )
    new = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    try:
        touch(new)
        _fill(new, created)
        _put_in_place(new, path)
    finally:
        for leftover in (new, f"{new}-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(leftover)


def touch(path: str) -> None:
    """Make an empty file that only its owner can read. SQLite's own would be readable by all, and so would its log."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _fill(path: str, created: float) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION}")
        for statement in SCHEMA:
            connection.execute(statement)
        first = {"salt": os.urandom(16), "created": created, "made_by": __version__, "epoch": 0, "clean": 1}
        first["log"] = new_mark()
        connection.executemany("INSERT INTO meta(k, v) VALUES (?, ?)", first.items())
        connection.execute("COMMIT")
    finally:
        connection.close()


def new_mark() -> int:
    """The first mark of a journal (see `log`): even, and not that of another journal."""
    return int.from_bytes(os.urandom(5), "big") * 2


def _put_in_place(new: str, path: str) -> None:
    try:
        os.link(new, path)  # fails if another file was put there meanwhile, which a rename would overwrite
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


# --- an older file ---------------------------------------------------------------------------------------------------


def version_of(connection: sqlite3.Connection) -> int:
    """The format of the file, including changes that are still in its write-ahead log."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(
    connection: sqlite3.Connection,
    path: str,
    *,
    steps: Mapping[int, tuple[str, ...]] = MIGRATIONS,
    target: int = VERSION,
) -> None:
    """Migrate an older journal to `target`, completely or not at all; a copy is kept as `<path>.v<old>.bak`.

    Raises:
        JournalRefused: it is newer, or its version cannot be migrated.
    """
    found = version_of(connection)
    if found == target:
        return
    if found > target:
        raise newer(path, found)
    if not all(version in steps for version in range(found, target)):
        raise refused(path, "older", f"has format {found}, which this version cannot migrate to {target}")
    _back_up(connection, f"{path}.v{found}.bak")
    know_kinds(connection)
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


def know_kinds(connection: sqlite3.Connection) -> None:
    """Give the connection `kind_of(api, body)`, which migrations and views of older files use: the label of a kind."""
    connection.create_function("kind_of", 2, _label_of, deterministic=True)


def _label_of(api: str, body: bytes | None) -> str:
    return kind_label(api, body or b"")


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


# --- where it lies ---------------------------------------------------------------------------------------------------

NETWORK = frozenset({
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "davfs",
    "fuse.ceph",
    "fuse.davfs",
    "fuse.gcsfuse",
    "fuse.glusterfs",
    "fuse.goofys",
    "fuse.mount-s3",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.sshfs",
    "glusterfs",
    "ncpfs",
    "nfs",
    "nfs4",
    "smb2",
    "smb3",
    "smbfs",
})
"""File system types of network file systems, as mountinfo names them."""


def network_type(path: str, mountinfo: str) -> str:
    """The file system type of `path` if it is one of `NETWORK`; `""` otherwise.

    Args:
        path: absolute, with links resolved.
        mountinfo: the text of Linux's `mountinfo`; `""` where there is none.
    """
    longest, found = -1, ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4]).rstrip("/")
        # Of two mounts at the same point the later hides the earlier.
        if f"{path}/".startswith(f"{point}/") and len(point) >= longest:
            longest, found = len(point), right.split(" ")[0]
    return found if found in NETWORK else ""
