"""Whether a journal's write-ahead log is the one that its file was left with: no paid job may be forgotten with a log.

The mark
--------
What a run has written last is in the log, and a file without its log looks like a sound journal of an earlier moment:
a run that went on with it would pay again. So the file itself says whether it needs its log. The row `log` of the table
`meta` is a number that only grows. Odd: this is not all, the rest is in the log. Even: this is all there is. Each
checkpoint brings an odd number into the file; the next commit, the first of the new log, makes it even again. As long
as there is a log, SQLite reads the even number there; without the log it reads the odd one in the file. Whoever
checkpoints the whole log, any program that uses SQLite, brings the even number into the file with the rest, and then
the log is not missed.

The two numbers also tell whether file and log belong together: they are at most two apart, and a new journal begins
with a random number.

A damaged log
-------------
SQLite ends a log at the first frame whose checksum is wrong. For the last transaction that is right: it was torn by a
power cut, and nobody was told that it is written. But a transaction begins only after the one before it was synced. So
a sound frame that follows a commit behind that point shows that the log was damaged in the middle. A log that was cut
short is noticed if SQLite's index of it (`-shm`) was left by the same run: a commit is in the index only once it is
synced.

This module knows nothing of what the rows mean, nor of when a checkpoint is due.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from typing import NamedTuple
from urllib.parse import quote

HEADER = 32
FRAME = 24
_MAGIC = 0x377F0682  # its lowest bit: checksums are big-endian
_INDEX = 48
_APART = (1, 2)
"""How far the log may be ahead of an even mark in the file, and of an odd one."""


# --- the mark --------------------------------------------------------------------------------------------------------


def needs_log(connection: sqlite3.Connection) -> None:
    """Within a transaction: once this is checkpointed, the file says that it needs its log."""
    connection.execute("UPDATE meta SET v = v + 1 WHERE k = 'log' AND v & 1 = 0")


def has_all(connection: sqlite3.Connection) -> None:
    """Say of this moment that nothing is missing: within the log, or, once it is checkpointed, without it."""
    connection.execute("UPDATE meta SET v = v + 1 WHERE k = 'log' AND v & 1")


def checkpoint(connection: sqlite3.Connection, mode: str) -> bool:
    """Write the log back into the file, which then says that it needs the log. Outside a transaction.

    Args:
        connection: the writer's.
        mode: SQLite's: `PASSIVE` does not wait for readers, `FULL` does, for the connection's `busy_timeout`.

    Returns:
        False if a reader kept a part from being written back. To be tried again soon: until then the file may lack its
        mark.
    """
    needs_log(connection)
    busy, in_log, written = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    if busy or written < in_log:
        return False
    has_all(connection)
    return True


# --- before opening --------------------------------------------------------------------------------------------------


def fault_of(path: str) -> str:
    """What is wrong with the log of the journal at `path`, which nobody has open: `""` if nothing is missing.

    Nothing is changed, but for the index of the log (`-shm`), which every reader of SQLite makes.
    """
    in_file = _mark(path, "immutable=1")
    if in_file is None:
        return ""  # of a format without a mark, or so damaged that the other checks refuse it
    log = f"{path}-wal"
    size = os.path.getsize(log) if os.path.exists(log) else 0
    if not size:
        return "its log is gone" if in_file & 1 else ""
    before = _index(path)
    connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)
    try:
        found = connection.execute("SELECT v FROM meta WHERE k = 'log'").fetchone()
        after = _index(path)
    finally:
        connection.close()
    frames = after.frames if after is not None else 0
    if before is not None and before.frames > max(frames, before.in_file) and _salt(log) == before.salt:
        return "its log was cut short or damaged"
    if _goes_on(log, frames):
        return "its log is damaged in the middle"
    if not frames:
        return "its log is empty or damaged" if in_file & 1 and not _was_just_begun(log, size) else ""
    in_log = found[0] if found is not None else 0
    return "" if 0 <= in_log - in_file <= _APART[in_file & 1] else "the log beside it belongs to another file or moment"


def _mark(path: str, how: str) -> int | None:
    with contextlib.suppress(sqlite3.Error):
        connection = sqlite3.connect(f"file:{quote(path)}?{how}", uri=True, isolation_level=None)
        try:
            found = connection.execute("SELECT v FROM meta WHERE k = 'log'").fetchone()
        finally:
            connection.close()
        return found[0] if found is not None and isinstance(found[0], int) else None
    return None


class _Index(NamedTuple):
    """What SQLite's index says of the log: the salt of its frames, how many are committed, how many are in the file."""

    salt: bytes
    frames: int
    in_file: int


def _index(path: str) -> _Index | None:
    """The index beside the journal; None if there is none, or not a whole one."""
    try:
        with open(f"{path}-shm", "rb") as file:
            head = file.read(2 * _INDEX + 4)
    except OSError:
        return None
    if len(head) < 2 * _INDEX + 4 or head[:_INDEX] != head[_INDEX : 2 * _INDEX] or not head[12]:
        return None
    frames, in_file = struct.unpack_from("=I", head, 16)[0], struct.unpack_from("=I", head, 2 * _INDEX)[0]
    return _Index(head[32:40], frames, in_file)


# --- frames ----------------------------------------------------------------------------------------------------------


def _salt(log: str) -> bytes:
    with open(log, "rb") as file:
        return file.read(HEADER)[16:24]


def _goes_on(log: str, frames: int) -> bool:
    """True if the log goes on after the end that SQLite sees: a sound frame follows a commit."""
    with open(log, "rb") as file:
        head = file.read(HEADER)
        if not _is_header(head):
            return False
        order = ">" if head[3] & 1 else "<"
        page = struct.unpack_from(">I", head, 8)[0]
        file.seek(HEADER + frames * (FRAME + page))
        commit = b""
        while len(frame := file.read(FRAME + page)) == FRAME + page:
            if frame[8:16] != head[16:24]:
                commit = b""  # of the log before, or the damaged one itself
                continue
            if commit and _follows(frame, commit, order):
                return True
            commit = frame[:FRAME] if frame[4:8] != b"\0\0\0\0" else b""
    return False


def _was_just_begun(log: str, size: int) -> bool:
    """True if the log has a sound header, and behind it at most one transaction, which is torn.

    SQLite begins a log anew only after all of it is in the file. In a crash right then the header is written, and no
    transaction behind it: the frames are still those of the log before.
    """
    with open(log, "rb") as file:
        head = file.read(HEADER)
        return _is_header(head) and size >= HEADER + FRAME + struct.unpack_from(">I", head, 8)[0]


def _is_header(head: bytes) -> bool:
    if len(head) < HEADER or struct.unpack_from(">I", head)[0] & ~1 != _MAGIC:
        return False
    order = ">" if head[3] & 1 else "<"
    return _sum(head[:24], (0, 0), order) == struct.unpack_from(">2I", head, 24)


def _follows(frame: bytes, before: bytes, order: str) -> bool:
    """True if the checksum of this frame is right, counted on from that of the frame before."""
    seed = struct.unpack_from(">2I", before, 16)
    return _sum(frame[:8] + frame[FRAME:], seed, order) == struct.unpack_from(">2I", frame, 16)


def _sum(data: bytes, seed: tuple[int, ...], order: str) -> tuple[int, int]:
    """SQLite's checksum of a log: its file format, section 4.2."""
    one, two = seed
    for left, right in struct.iter_unpack(f"{order}2I", data):
        one = (one + left + two) & 0xFFFFFFFF
        two = (two + right + one) & 0xFFFFFFFF
    return one, two
