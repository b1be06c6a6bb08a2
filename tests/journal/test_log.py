"""What lies under a journal is what it was when it was last open, or the journal is refused: nothing is paid again."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from _rows import opened, queued, sent, take

from aiopplx.journal import open_reader
from aiopplx.journal._errors import JournalBroken, JournalRefused
from aiopplx.journal._records import State
from aiopplx.journal._sqlite import log
from aiopplx.journal._sqlite.journal import SqliteJournal

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not let go of open files")


def ends(path: Path) -> dict[str, Path]:
    return {end: Path(f"{path}{end}") for end in ("", "-wal", "-shm")}


def copied(path: Path, to: Path, *but: str) -> Path:
    """A copy of the journal's files, as a crash at this moment leaves them."""
    to.parent.mkdir(exist_ok=True)
    for end, file in ends(path).items():
        if end not in but and file.exists():
            shutil.copy(file, f"{to}{end}")
    return to


async def ran(path: Path, rows: int = 6) -> SqliteJournal:
    """A journal with this many jobs that run, still open."""
    journal = await opened(path)
    for n in range(rows):
        record = await sent(journal, f"t{n}")
        await take(journal, record, "accepted", job_id=f"id-{n}")
    return journal


@pytest.fixture
async def left(tmp_path: Path) -> Path:
    """The files of a run with six jobs that was killed."""
    journal = await ran(tmp_path / "run" / "run.db")
    path = copied(tmp_path / "run" / "run.db", tmp_path / "left" / "left.db")
    await journal.close()
    return path


async def goes_on(path: Path, rows: int = 6) -> None:
    journal = await opened(path)
    assert (await journal.counts())[State.ACCEPTED] == rows
    await journal.close()


# --- between two runs -------------------------------------------------------------------------------------------------


def wal(path: Path) -> Path:
    return Path(f"{path}-wal")


def shm(path: Path) -> Path:
    return Path(f"{path}-shm")


def without_index(damage: Callable[[Path], object]) -> Callable[[Path], object]:
    """The same damage, without the index of the log, as after a restart of the machine."""

    def both(path: Path) -> None:
        damage(path)
        shm(path).unlink()

    return both


def at(place: float, new: Callable[[bytes], bytes], size: int = 64) -> Callable[[Path], object]:
    """Other bytes at this share of the log."""

    def damage(path: Path) -> None:
        held = bytearray(wal(path).read_bytes())
        start = int(len(held) * place)
        held[start : start + size] = new(bytes(held[start : start + size]))
        wal(path).write_bytes(held)

    return damage


def flipped(held: bytes) -> bytes:
    return bytes(byte ^ 1 for byte in held)


def zeroes(held: bytes) -> bytes:
    return bytes(len(held))


def cut(share: float) -> Callable[[Path], object]:
    return lambda path: os.truncate(wal(path), int(wal(path).stat().st_size * share))


def header_only(path: Path) -> None:
    os.truncate(wal(path), 32)


LOST: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: wal(path).unlink(),
    "file moved alone": lambda path: (wal(path).unlink(), shm(path).unlink()),
    "emptied": lambda path: os.truncate(wal(path), 0),
    "emptied, no index": without_index(lambda path: os.truncate(wal(path), 0)),
    "zeroed": lambda path: wal(path).write_bytes(bytes(wal(path).stat().st_size)),
    "zeroed, no index": without_index(lambda path: wal(path).write_bytes(bytes(wal(path).stat().st_size))),
    "text": without_index(lambda path: wal(path).write_text("not a log" * 1000)),
    "header only": header_only,
    "header only, no index": without_index(header_only),
    "header zeroed": at(0.0, zeroes),
    "header zeroed, no index": without_index(at(0.0, zeroes)),
    "cut": cut(0.5),
    "cut by a byte": lambda path: os.truncate(wal(path), wal(path).stat().st_size - 1),
    **{f"flipped at {place}": at(place, flipped) for place in (0.1, 0.3, 0.5, 0.7, 0.9, 0.98)},
    **{f"flipped at {place}, no index": without_index(at(place, flipped)) for place in (0.1, 0.3, 0.5, 0.7, 0.8)},
    **{f"zeroed at {place}, no index": without_index(at(place, zeroes, 5000)) for place in (0.1, 0.3, 0.5, 0.7, 0.8)},
}


@pytest.mark.parametrize("name", LOST)
async def test_journal_without_its_whole_log_is_refused_unchanged(left: Path, name: str) -> None:
    LOST[name](left)
    before = {end: file.read_bytes() for end, file in ends(left).items() if file.exists() and end != "-shm"}
    with pytest.raises(JournalRefused, match=r"as its last run left it.*without_log=True") as caught:
        await opened(left)
    assert caught.value.reason == "log"
    assert {end: file.read_bytes() for end, file in ends(left).items() if file.exists() and end != "-shm"} == before


@pytest.mark.parametrize("name", LOST)
async def test_user_may_go_on_without_the_log(left: Path, name: str) -> None:
    LOST[name](left)
    journal = await opened(left, without_log=True)
    await queued(journal, "new")
    await journal.close()
    await (await opened(left)).close()


async def test_log_of_another_moment_or_journal_is_refused(tmp_path: Path, left: Path) -> None:
    earlier, later = tmp_path / "early" / "run.db", tmp_path / "late" / "run.db"
    journal = await opened(left)  # its jobs are in the file now, and its log begins anew
    await sent(journal, "new")
    copied(left, earlier)
    await journal.close()
    journal = await opened(left)
    await sent(journal, "newer")
    copied(left, later)
    await journal.close()
    other = await ran(tmp_path / "other" / "run.db")
    for file, mixed in ((earlier, later), (later, earlier), (later, tmp_path / "other" / "run.db")):
        place = copied(file, tmp_path / f"mixed{file.parent.name}{mixed.parent.name}" / "run.db", "-wal", "-shm")
        shutil.copy(wal(mixed), wal(place))
        with pytest.raises(JournalRefused) as caught:
            await opened(place)
        assert caught.value.reason in ("log", "corrupt")
    await other.close()


async def test_killed_journal_goes_on_wherever_it_is_moved_whole(tmp_path: Path, left: Path) -> None:
    await goes_on(copied(left, tmp_path / "moved" / "other.db"))
    await goes_on(copied(left, tmp_path / "again" / "other.db", "-shm"))  # SQLite makes the index anew
    await goes_on(left)
    await goes_on(left)


async def test_log_that_another_program_wrote_back_is_not_missed(left: Path) -> None:
    connection = sqlite3.connect(left)
    assert connection.execute("SELECT count(*) FROM job").fetchone() == (6,)
    connection.close()  # the last to close writes the log back and removes it
    assert not wal(left).exists()
    await goes_on(left)


async def test_copy_made_by_sqlite_while_open_goes_on(tmp_path: Path) -> None:
    journal = await ran(tmp_path / "run.db")
    source, copy = sqlite3.connect(tmp_path / "run.db"), sqlite3.connect(tmp_path / "copy.db")
    source.backup(copy)
    source.close()
    copy.close()
    await journal.close()
    await goes_on(tmp_path / "copy.db")


async def test_copy_of_the_file_alone_while_open_is_refused(tmp_path: Path) -> None:
    journal = await ran(tmp_path / "run.db")
    shutil.copy(tmp_path / "run.db", tmp_path / "copy.db")
    await journal.close()
    with pytest.raises(JournalRefused, match="its log is gone") as caught:
        await opened(tmp_path / "copy.db")
    assert caught.value.reason == "log"


async def test_torn_last_transaction_is_no_loss(tmp_path: Path) -> None:
    """A power cut while the log is written: nobody was told that the transaction is on disk."""
    journal = await ran(tmp_path / "run.db")
    before = copied(tmp_path / "run.db", tmp_path / "before" / "run.db")
    await sent(journal, "torn")
    for cut_off in range(1, wal(tmp_path / "run.db").stat().st_size - wal(before).stat().st_size, 1000):
        path = copied(tmp_path / "run.db", tmp_path / f"torn{cut_off}" / "run.db", "-shm")
        os.truncate(wal(path), wal(path).stat().st_size - cut_off)
        again = await opened(path)
        assert (await again.counts())[State.ACCEPTED] == 6
        await again.close()
    await journal.close()


async def test_crash_at_any_write_of_a_checkpoint_loses_nothing(tmp_path: Path) -> None:
    """The log begins anew: its header is written, then its first frames, over those of the log before."""
    journal = await ran(tmp_path / "run.db")
    old = wal(tmp_path / "run.db").read_bytes()
    place = copied(tmp_path / "run.db", tmp_path / "at" / "run.db")
    await journal.close()
    connection = sqlite3.connect(place, isolation_level=None)
    connection.execute("PRAGMA wal_autocheckpoint=0")
    log.needs_log(connection)
    marked = copied(place, tmp_path / "marked" / "run.db", "-shm")
    await goes_on(marked)
    assert log.checkpoint(connection, "PASSIVE")
    new = wal(place).read_bytes()
    for written in (32, 56, 100, 32 + 24 + 4096):
        path = copied(place, tmp_path / f"new{written}" / "run.db", "-shm")
        wal(path).write_bytes(new[:written] + old[written:])
        await goes_on(path)
    connection.close()


async def test_journal_of_many_checkpoints_goes_on_after_any(tmp_path: Path) -> None:
    journal = await opened(tmp_path / "run.db")
    copies = []
    for n in range(12):
        record = await sent(journal, f"t{n}")
        await take(journal, record, "accepted", job_id=f"id-{n}")
        await take(journal, record, "ended", State.DONE, raw=os.urandom(3_000_000))
        await journal.counts()  # answered after the checkpoint, if the step made one due
        copies.append(copied(tmp_path / "run.db", tmp_path / f"copy{n}" / "run.db"))
    assert wal(tmp_path / "run.db").stat().st_size < 24_000_000
    await journal.close()
    for n, copy in enumerate(copies):
        again = await opened(copy)
        assert (await again.counts())[State.DONE] == n + 1
        await again.close()
        alone = copied(tmp_path / f"copy{n}" / "run.db", tmp_path / f"closed{n}" / "run.db", "-wal", "-shm")
        await (await opened(alone)).close()


# --- while it is open -------------------------------------------------------------------------------------------------


def swapped(path: Path) -> None:
    """Another journal, with a log of its own, is put in this place."""
    for end in ("", "-wal"):
        os.replace(path.parent / f"other.db{end}", f"{path}{end}")


TAKEN_AWAY: dict[str, Callable[[Path], object]] = {
    "file removed": lambda path: path.unlink(),
    "log removed": lambda path: wal(path).unlink(),
    "both removed": lambda path: (path.unlink(), wal(path).unlink()),
    "file moved": lambda path: path.rename(path.parent / "elsewhere.db"),
    "file replaced by a copy": lambda path: (shutil.copy(path, f"{path}2"), os.replace(f"{path}2", path)),
    "log replaced by a copy": lambda path: (shutil.copy(wal(path), f"{path}2"), os.replace(f"{path}2", wal(path))),
    "another journal": swapped,
    "directory removed": lambda path: shutil.rmtree(path.parent),
    "directory moved": lambda path: path.parent.rename(path.parent.parent / "moved"),
    "file truncated": lambda path: os.truncate(path, 4096),
    "file emptied": lambda path: os.truncate(path, 0),
    "log truncated": lambda path: os.truncate(wal(path), 1000),
    "log emptied": lambda path: os.truncate(wal(path), 0),
}


@posix
@pytest.mark.parametrize("name", TAKEN_AWAY)
async def test_journal_whose_files_are_taken_away_sends_nothing_more(tmp_path: Path, name: str) -> None:
    path = tmp_path / "run" / "run.db"
    other = await ran(tmp_path / "other" / "run.db")
    journal = await ran(path)
    copied(tmp_path / "other" / "run.db", path.parent / "other.db", "-shm")
    await other.close()
    theirs = wal(path.parent / "other.db").read_bytes()
    unsent = await queued(journal, "unsent")
    TAKEN_AWAY[name](path)
    for _ in range(2):
        with pytest.raises(JournalBroken, match="while it was open") as caught:
            await take(journal, unsent, "sending")
        assert caught.value.is_final
    await journal.close()
    if name == "another journal":  # it is whole, and the closing left it alone
        assert wal(path).read_bytes() == theirs
        await goes_on(path)
    elif "by a copy" in name:  # of the same bytes: nothing was written since
        await goes_on(path)
    elif path.exists() or wal(path).exists():  # what was written last is lost, or lies elsewhere: no run goes on
        with pytest.raises(JournalRefused):
            await opened(path)


@posix
async def test_index_taken_away_is_harmless(tmp_path: Path) -> None:
    journal = await ran(tmp_path / "run.db")
    shm(tmp_path / "run.db").unlink()
    await sent(journal, "more")
    path = copied(tmp_path / "run.db", tmp_path / "copy" / "run.db")
    await journal.close()
    await goes_on(path)


async def test_reader_reads_what_is_left_without_the_log(left: Path) -> None:
    wal(left).unlink()
    with open_reader(left) as reader:
        assert sum(reader.counts().values()) == 0
    with pytest.raises(JournalRefused):
        await opened(left)
