"""The journal in a file: what it refuses, who may write it, and what survives crashes, full disks and forks."""

from __future__ import annotations

import gc
import os
import platform
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from _journal_child import PROGRAM
from _rows import claim_of, opened, queued, sent, take

from aiopplx.journal import open_reader
from aiopplx.journal._errors import ClaimLost, ItemConflict, JournalBroken, JournalLocked, JournalRefused, ResultDamaged
from aiopplx.journal._names import fingerprint, item_name, sha_of
from aiopplx.journal._records import Cost, Origin, Record, State
from aiopplx.journal._sqlite.file import migrate, network_type, version_of
from aiopplx.journal._sqlite.lock import Held, Lock, holder_of
from aiopplx.journal._sqlite.opening import Wanted, enter_wal, open_to_write
from aiopplx.journal._sqlite.reader import SqliteReader
from aiopplx.journal._sqlite.schema import APPLICATION_ID, MIGRATIONS, VERSION
from aiopplx.journal._sqlite.writing import WritingStatements

KEY = "pplx-not-a-real-key"
GOLDEN = Path(__file__).parent.parent / "journals"
posix = pytest.mark.skipif(sys.platform == "win32", reason="asks POSIX for it")


async def made(path: Path, *tags: str) -> None:
    """A journal with a finished submission for each tag, closed in order."""
    journal = await opened(path, base_url="https://api.example", account=lambda salt: fingerprint(KEY, salt))
    for tag in tags:
        record = await sent(journal, tag)
        await take(journal, record, "ended", State.DONE, job_id=f"id-{tag}", raw=b"result of " + tag.encode(), cost=0.5)
    await journal.close()


def golden(name: str, to: Path) -> None:
    """A copy of a golden journal, with its log if it was killed."""
    for end in ("", "-wal"):
        if (GOLDEN / f"{name}.db{end}").exists():
            shutil.copy(GOLDEN / f"{name}.db{end}", f"{to}{end}")


def ageless(path: Path) -> list[Record]:
    """The rows of a file as a reader sees them, without what changes as time passes."""
    with open_reader(path) as reader:
        return [msgspec.structs.replace(row, age=None) for row in reader.rows()]


def files_in(directory: Path) -> list[Path]:
    return [*directory.iterdir()]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def child(what: str, *arguments: object, **more: object) -> subprocess.Popen[str]:
    command = [sys.executable, PROGRAM, what, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more)  # type: ignore[call-overload, no-any-return]  # Popen's keywords


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def killed(process: subprocess.Popen[str]) -> list[str]:
    """End it as a crash does; the lines it still had to say."""
    process.kill()
    rest, _ = process.communicate()
    return rest.splitlines()


# --- the file ---------------------------------------------------------------------------------------------------------


@posix
async def test_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        journal = await opened(tmp_path / "new" / "run.db")
        await queued(journal)
        modes = {path.name: mode_of(path) for path in files_in(tmp_path / "new")}
        await journal.close()
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("run.db", "run.db-wal", "run.db-shm", "run.db.lock"), 0o600)
    assert mode_of(tmp_path / "new") == 0o700


async def test_file_holds_no_key(tmp_path: Path) -> None:
    await made(tmp_path / "run.db", "a")
    held = b"".join(path.read_bytes() for path in files_in(tmp_path))
    assert b"body of why?" in held
    assert KEY.encode() not in held
    assert KEY.encode().hex().encode() not in held


async def test_file_names_its_format(tmp_path: Path) -> None:
    await made(tmp_path / "run.db")
    connection = sqlite3.connect(tmp_path / "run.db")
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


async def test_closed_journal_is_whole_in_one_file(tmp_path: Path) -> None:
    await made(tmp_path / "run.db", "a", "b")
    assert {path.name for path in files_in(tmp_path)} == {"run.db", "run.db.lock"}
    moved = tmp_path / "elsewhere" / "copy.db"
    moved.parent.mkdir()
    (tmp_path / "run.db").rename(moved)
    journal = await opened(moved)
    assert (await journal.counts())[State.DONE] == 2
    await journal.close()


async def test_unclosed_journal_warns(tmp_path: Path) -> None:
    journal = await opened(tmp_path / "run.db")
    with pytest.warns(ResourceWarning, match="was not closed"):
        del journal


# --- refusals ---------------------------------------------------------------------------------------------------------


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def overwritten(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4096])


def cut_in_the_head(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def another_program(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE bookmarks(url)")
    connection.close()


def stamped_newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={VERSION + 1}")
    connection.close()


def damaged_after_a_crash(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE meta SET v = 0 WHERE k = 'clean'")
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'job'").fetchone()
    connection.close()
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = os.urandom(4096)
    path.write_bytes(data)


def without_tables(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DROP TABLE meta")
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (emptied, "empty"),
        (overwritten, "foreign"),
        (cut, "corrupt"),
        (cut_in_the_head, "foreign"),
        (another_program, "foreign"),
        (stamped_newer, "newer"),
        (damaged_after_a_crash, "corrupt"),
        (without_tables, "corrupt"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
async def test_untrustworthy_file_is_refused_and_left_untouched(
    tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "run.db"
    await made(path, "a")
    spoil(path)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(JournalRefused) as caught:
            await opened(path)
        assert caught.value.reason == reason
        assert caught.value.path == str(path)
        assert str(path) in str(caught.value)
    assert path.read_bytes() == before


async def test_log_without_its_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.db-wal").write_bytes(b"paid results")
    with pytest.raises(JournalRefused, match="write-ahead log") as caught:
        await opened(tmp_path / "run.db")
    assert caught.value.reason == "orphan"
    assert not (tmp_path / "run.db").exists()


async def test_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalRefused, match="is a directory"):
        await opened(tmp_path)


async def test_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalRefused, match="cannot be made") as caught:
        await opened(tmp_path / "file" / "run.db")
    assert caught.value.reason == "unusable"


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
async def test_read_only_file_is_refused(tmp_path: Path) -> None:
    await made(tmp_path / "run.db")
    (tmp_path / "run.db").chmod(0o400)
    with pytest.raises(JournalRefused):
        await opened(tmp_path / "run.db")


async def test_unused_journal_accepts_another_key_and_server(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    journal = await opened(path, base_url="https://mistyped", account=lambda salt: fingerprint("mistyped", salt))
    record = await queued(journal, "a")
    await take(journal, record, "sending")
    await take(journal, record, "back_to_queued")
    await journal.close()
    journal = await opened(path, base_url="https://api.example", account=lambda salt: fingerprint("right", salt))
    await take(journal, await queued(journal, "a"), "sending")
    await journal.close()
    with pytest.raises(JournalRefused, match="belongs to"):
        await opened(path, base_url="https://mistyped", account=lambda salt: fingerprint("right", salt))
    with pytest.raises(JournalRefused, match="another API key"):
        await opened(path, account=lambda salt: fingerprint("mistyped", salt))


async def test_path_of_missing_directories_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalRefused, match="cannot be made"):
        await opened(tmp_path / "mistyped" / "path" / "run.db")
    assert not (tmp_path / "mistyped").exists()


async def test_another_server_is_refused(tmp_path: Path) -> None:
    await made(tmp_path / "run.db", "a")
    with pytest.raises(JournalRefused, match=r"belongs to https://api\.example, not to https://other") as caught:
        await opened(tmp_path / "run.db", base_url="https://other")
    assert caught.value.reason == "base_url"
    await (await opened(tmp_path / "run.db", base_url="https://api.example/")).close()


async def test_another_account_is_refused_unless_declared_the_same(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    await made(path, "a")
    with pytest.raises(JournalRefused, match="another API key") as caught:
        await opened(path, account=lambda salt: fingerprint("new", salt))
    assert caught.value.reason == "account"
    assert "new" not in caught.value.message.replace("a new key", "")
    await (await opened(path, account=lambda salt: fingerprint("new", salt), same_account=True)).close()
    await (await opened(path, account=lambda salt: fingerprint("new", salt))).close()
    with pytest.raises(JournalRefused):
        await opened(path, account=lambda salt: fingerprint(KEY, salt))


async def test_refused_journal_is_not_locked(tmp_path: Path) -> None:
    await made(tmp_path / "run.db", "a")
    with pytest.raises(JournalRefused):
        await opened(tmp_path / "run.db", base_url="https://other")
    await (await opened(tmp_path / "run.db")).close()


def test_file_system_without_a_shared_log_is_refused() -> None:
    connection = sqlite3.connect(":memory:")
    with pytest.raises(JournalRefused, match="stays in mode 'memory'") as caught:
        enter_wal(connection, "run.db")
    connection.close()
    assert caught.value.reason == "network"


MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /data rw - nfs4 server:/export rw,vers=4.2
31 30 0:31 / /data/local rw shared:5 master:2 - xfs /dev/sdb1 rw
32 22 0:32 / /mnt/two\040words rw - cifs //host/share rw
33 22 0:33 / /over rw - nfs server:/a rw
34 22 0:34 / /over rw - tmpfs tmpfs rw
a line that is cut
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/run.db", ""),
        ("/data", "nfs4"),
        ("/data/deep/run.db", "nfs4"),
        ("/database/run.db", ""),
        ("/data/local/run.db", ""),
        ("/mnt/two words/run.db", "cifs"),
        ("/over/run.db", ""),
    ],
)
def test_network_file_system_is_known_by_its_mount(path: str, kind: str) -> None:
    assert network_type(path, MOUNTS) == kind
    assert network_type(path, "") == ""


# --- one writer -------------------------------------------------------------------------------------------------------


async def test_second_opening_in_one_process_is_locked_out(tmp_path: Path) -> None:
    first = await opened(tmp_path / "run.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "run.db")
    for name in ("run.db", "link.db"):
        with pytest.raises(JournalLocked, match="in this process already") as caught:
            await opened(tmp_path / name)
        assert caught.value.pid == os.getpid()
    await queued(first)
    await first.close()
    await (await opened(tmp_path / "run.db")).close()


def test_lock_collected_late_leaves_the_next_one(tmp_path: Path) -> None:
    """A file that is closed gives its number to the next that is opened, which may be another lock."""
    released = [Lock.take(str(tmp_path / f"{number}")) for number in range(3)]
    for lock in released:
        lock.release()
    path = str(tmp_path / "next")
    held = Lock.take(path)
    del lock
    released.clear()
    gc.collect()
    assert holder_of(path) == (os.getpid(), platform.node())
    with pytest.raises(Held):
        Lock.take(path)
    held.release()
    assert holder_of(path) is None


async def test_second_process_is_locked_out_naming_the_first(tmp_path: Path) -> None:
    first = child("hold", tmp_path / "run.db")
    assert said(first) == "open"
    with pytest.raises(JournalLocked, match=f"in process {first.pid} on ") as caught:
        await opened(tmp_path / "run.db")
    assert caught.value.pid == first.pid
    assert caught.value.host
    killed(first)
    journal = await opened(tmp_path / "run.db")
    assert (await journal.counts())[State.QUEUED] == 1
    await journal.close()


async def test_writer_whose_lock_was_removed_is_fenced_off(tmp_path: Path) -> None:
    first = await opened(tmp_path / "run.db")
    record = await queued(first)
    (tmp_path / "run.db.lock").unlink()
    second = await opened(tmp_path / "run.db")
    for _ in range(2):
        with pytest.raises(JournalBroken, match=r"taken .* over") as caught:
            await take(first, record, "sending")
        assert caught.value.is_final
    with pytest.raises(ClaimLost):  # a claim of the first opening is none of the second
        await take(second, record, "sending")
    assert (await second.counts())[State.QUEUED] == 1
    await first.close()
    await second.close()


@posix
async def test_fork_cannot_write_and_does_not_keep_the_lock(tmp_path: Path) -> None:
    parent = child("fork", tmp_path / "run.db")
    assert said(parent) == "refused in the child: JournalClosed"
    assert said(parent) == "parent goes on with its log: 2"
    assert said(parent) == "the child lives on"
    parent.kill()
    parent.wait()
    journal = await opened(tmp_path / "run.db")
    assert (await journal.counts())[State.QUEUED] == 2
    await journal.close()
    parent.communicate()


# --- from one opening to the next -------------------------------------------------------------------------------------


async def test_rows_survive_closing_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    journal = await opened(path)
    record = await sent(journal)
    await take(journal, record, "accepted", job_id="id-a")
    before = await journal.get(pk=record.pk)
    await journal.close()
    journal = await opened(path)
    after = await queued(journal)
    assert before is not None
    assert claim_of(after).fence == claim_of(record).fence + 1
    assert (after.state, after.key, after.body, after.job_id) == (State.ACCEPTED, before.key, before.body, "id-a")
    assert (after.first_sent, after.accepted_at, after.updated) == (
        before.first_sent,
        before.accepted_at,
        before.updated,
    )
    await journal.close()


async def test_delivered_is_written_though_no_step_follows(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    await made(path, "a", "b")
    journal = await opened(path, results="until_delivered")
    record = await queued(journal, "a")
    journal.delivered(claim_of(record), record.key, record.state)
    await journal.close()
    with open_reader(path) as reader:
        rows = {row.tag: (row.delivered, row.has_result) for row in reader.rows()}
    assert rows == {"a": (True, False), "b": (False, True)}


@pytest.mark.parametrize("left", ["queued", "rejected"])
async def test_unbilled_question_may_be_corrected_under_its_tag(tmp_path: Path, left: str) -> None:
    path = tmp_path / "run.db"
    journal = await opened(path)
    record = await queued(journal, "a", ask=b"whi?", key="first")
    if left == "rejected":
        await take(journal, record, "sending")
        await take(journal, record, "ended", State.REJECTED, error="spelling", raw=b"422")
    await journal.close()
    journal = await opened(path)
    corrected = await queued(journal, "a", ask=b"why?", key="second")
    assert (corrected.state, corrected.key, corrected.body) == (State.QUEUED, "second", b"body of why?")
    assert (corrected.sha, corrected.error, corrected.has_result) == (sha_of(b"why?"), "", False)
    assert await queued(journal, "a", ask=b"why?", key="third") == corrected
    with pytest.raises(ItemConflict):  # another of this run has the tag now
        await queued(journal, "a", ask=b"whi?", key="fourth")
    assert (await journal.ledger()).unknown == 0
    await journal.close()


@pytest.mark.parametrize("state", [state for state in State if state not in (State.QUEUED, State.REJECTED)])
async def test_question_that_may_be_billed_is_not_replaced(tmp_path: Path, state: State) -> None:
    path = tmp_path / "run.db"
    journal = await opened(path)
    record = await sent(journal)
    if state in (State.ACCEPTED, State.EXPIRED):
        await take(journal, record, "accepted", job_id="id")
    if state is State.IN_DOUBT:
        await take(journal, record, "doubtful", error="?")
    elif state.is_final:
        await take(journal, record, "ended", state)
    await journal.close()
    journal = await opened(path)
    with pytest.raises(ItemConflict, match=state.name):
        await queued(journal, "a", ask=b"another")
    assert (await queued(journal)).key == "key-a"
    await journal.close()


@pytest.mark.parametrize("state", [state for state in State if state not in (State.QUEUED, State.REJECTED)])
async def test_ended_question_is_replaced_if_the_user_says_so(tmp_path: Path, state: State) -> None:
    path = tmp_path / "run.db"
    journal = await opened(path)
    record = await sent(journal)
    if state in (State.ACCEPTED, State.EXPIRED):
        await take(journal, record, "accepted", job_id="id")
    if state is State.IN_DOUBT:
        await take(journal, record, "doubtful", error="?")
    elif state.is_final:
        await take(journal, record, "ended", state, job_id="id", raw=b"old", cost=0.25)
    await journal.close()
    journal = await opened(path, replace=True)
    if state not in (State.DONE, State.FAILED, State.EXPIRED):
        with pytest.raises(ItemConflict, match=state.name):
            await queued(journal, "a", ask=b"another", key="second")
    else:
        replaced = await queued(journal, "a", ask=b"another", key="second")
        assert (replaced.state, replaced.key, replaced.job_id) == (State.QUEUED, "second", "")
        assert await journal.result(replaced.pk) is None
        assert (await journal.ledger()).spent == 0.25
        with pytest.raises(ItemConflict):  # another of this run has the tag now
            await queued(journal, "a", ask=b"a third", key="third")
        with SqliteReader(path) as reader:
            for found in (reader.replacement(job_id="id"), reader.replacement(key="key-a")):
                assert found is not None
                assert found.key == "second"
            assert reader.replacement(key="second") is None
    await journal.close()


async def test_answer_handed_out_in_this_opening_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    journal = await opened(path)
    record = await sent(journal)
    await take(journal, record, "ended", State.DONE, job_id="id", raw=b"old")
    await journal.close()
    journal = await opened(path, replace=True)
    await queued(journal)
    with pytest.raises(ItemConflict):
        await queued(journal, "a", ask=b"another", key="second")
    await journal.close()


async def test_tag_used_in_this_opening_admits_no_other_question(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    journal = await opened(path)
    await queued(journal)
    await journal.close()
    journal = await opened(path)
    await queued(journal)
    with pytest.raises(ItemConflict):
        await queued(journal, "a", ask=b"another", key="k")
    await journal.close()


async def test_damaged_result_differs_from_none(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    await made(path, "a", "b")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE result SET body = x'00112233' WHERE pk = 1")
    connection.execute("UPDATE result SET enc = 9 WHERE pk = 2")
    connection.close()
    journal = await opened(path)
    for pk, job_id in ((1, "id-a"), (2, "id-b")):
        with pytest.raises(ResultDamaged) as caught:
            await journal.result(pk)
        assert caught.value.job_id == job_id
    assert await journal.result(3) is None
    await queued(journal, "goes on")
    await journal.close()


# --- readers ----------------------------------------------------------------------------------------------------------


async def test_reader_sees_what_the_writer_has_committed(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    journal = await opened(path, base_url="https://api.example")
    with open_reader(path) as reader:
        record = await sent(journal)
        assert reader.counts()[State.SENDING] == 1
        await take(journal, record, "ended", State.DONE, job_id="id", raw=b"answer", cost=0.25)
        assert reader.result(record.pk) == b"answer"
        assert reader.costs() == [Cost("a", 1, 0.25, 0)]
        assert reader.ledger().spent == 0.25
        found = reader.get(job_id="id")
        assert found is not None
        assert [row.job_id for row in reader.rows({State.DONE})] == ["id"]
        assert reader.facts()["base_url"] == "https://api.example"
        writer = reader.writer()
        assert writer is not None
        assert writer[0] == os.getpid()
    await journal.close()
    with open_reader(path) as reader:
        assert reader.writer() is None
        assert reader.facts()["clean"] is True


async def test_reader_does_not_keep_the_writer_out(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    await made(path, "a")
    with open_reader(path) as reader:
        journal = await opened(path)
        await queued(journal, "b")
        await journal.close()
        assert reader.counts()[State.QUEUED] == 1


async def test_reader_reads_what_a_crash_left_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    writer = child("hold", path)
    assert said(writer) == "open"
    killed(writer)
    files = [path, Path(f"{path}-wal")]
    before = [file.read_bytes() for file in files]
    with open_reader(path) as reader:
        assert reader.counts()[State.QUEUED] == 1
        assert reader.writer() is None
        assert reader.facts()["clean"] is False
    assert [file.read_bytes() for file in files] == before


async def test_reader_can_write_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    await made(path, "a")
    with SqliteReader(path) as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._statements.connection.execute("DELETE FROM job")


def test_reader_of_nothing_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(JournalRefused, match="does not exist") as caught:
        open_reader(tmp_path / "run.db")
    assert caught.value.reason == "missing"
    assert list(tmp_path.iterdir()) == []


# --- versions ---------------------------------------------------------------------------------------------------------


async def test_older_journal_is_migrated_and_a_copy_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    await made(path, "a")
    connection = sqlite3.connect(path, isolation_level=None)
    steps = {VERSION: ("ALTER TABLE job ADD COLUMN note TEXT",), VERSION + 1: ("UPDATE job SET note = 'two steps'",)}
    migrate(connection, str(path), steps=steps, target=VERSION + 2)
    assert version_of(connection) == VERSION + 2
    assert connection.execute("SELECT note FROM job").fetchall() == [("two steps",)]
    connection.close()
    kept = Path(f"{path}.v{VERSION}.bak")
    if sys.platform != "win32":
        assert mode_of(kept) == 0o600
    journal = await opened(kept)
    assert (await journal.counts())[State.DONE] == 1
    await journal.close()


async def test_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    await made(path, "a")
    connection = sqlite3.connect(path, isolation_level=None)
    steps = {VERSION: ("DROP TABLE past", "no such statement")}
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, str(path), steps=steps, target=VERSION + 1)
    assert version_of(connection) == VERSION
    assert connection.execute("SELECT count(*) FROM past").fetchone() == (0,)
    connection.close()


async def test_version_without_a_migration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    await made(path)
    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(JournalRefused) as caught:
        migrate(connection, str(path), steps={}, target=VERSION + 1)
    assert caught.value.reason == "older"
    connection.execute(f"PRAGMA user_version={VERSION + 1}")
    with pytest.raises(JournalRefused) as caught:
        migrate(connection, str(path))
    assert caught.value.reason == "newer"
    connection.close()


@pytest.mark.parametrize("version", range(1, VERSION + 1))
async def test_golden_journal_of_each_version_opens_whole(tmp_path: Path, version: int) -> None:
    path = tmp_path / "run.db"
    golden(f"v{version}", path)
    journal = await opened(path, base_url="https://golden.example", account=lambda salt: fingerprint("golden", salt))
    rows = {row.state: row for row in await journal.rows(set(State))}
    assert set(rows) == set(State)
    assert {row.tag for row in rows.values()} == {state.name.lower() for state in State}
    done = rows[State.DONE]
    assert {row.kind for row in rows.values()} == {"sonar - -", "agent - -"}
    assert done.meta == ({} if version < 3 else {"column": "done"})
    assert done.ended_at == (None if version == 1 else 1_790_000_000.0)
    assert rows[State.FAILED].ended_at == 1_790_000_000.0
    assert await journal.recall("golden") == (None if version == 1 else b"learnt")
    assert (done.key, done.job_id, done.word, done.cost, done.delivered) == ("key-3", "id-3", "COMPLETED", 0.25, True)
    assert (done.first_sent, done.accepted_at, done.api) == (1_790_000_000.0, 1_790_000_000.0, "sonar")
    assert done.body == b'{"q":"done"}'
    assert await journal.result(done.pk) == b'{"answer":"done"}' * 20
    assert rows[State.IN_DOUBT].error == "no answer"
    assert await journal.costs("api") == [Cost("sonar", 8, 0.25, 4), Cost("agent", 1, 0.0, 0)]
    again = await journal.find_or_queue(
        item_name("done", sha_of(b"done")), tag="done", key="new", body=b"", sha=sha_of(b"done"), api="sonar"
    )
    assert again.pk == done.pk
    await journal.close()


@pytest.mark.parametrize("name", ["v1", "v1-killed"])
def test_reader_reads_an_older_journal_unchanged(tmp_path: Path, name: str) -> None:
    golden(name, tmp_path / "run.db")
    before = {path.name: path.read_bytes() for path in files_in(tmp_path)}
    with open_reader(tmp_path / "run.db") as journal:
        rows = {row.state: row for row in journal.rows()}
        assert sum(journal.counts().values()) == len(rows)
        assert rows[State.DONE].kind == ("sonar - -" if name == "v1" else "sonar sonar-deep-research medium")
        assert journal.result(rows[State.DONE].pk) == b'{"answer":"done"}' * 20
        assert journal.ledger().spent == 0.25
        assert [cost.name for cost in journal.costs("api")] == (["sonar", "agent"] if name == "v1" else ["sonar"])
        assert journal.facts()["base_url"] == "https://golden.example"
    after = {path.name: path.read_bytes() for path in files_in(tmp_path)}
    assert {name: after[name] for name in before} == before


async def test_killed_run_of_version_one_goes_on(tmp_path: Path) -> None:
    golden("v1-killed", tmp_path / "run.db")
    journal = await opened(tmp_path / "run.db")
    rows = {row.state: row for row in await journal.rows(set(State))}
    assert set(rows) == {State.QUEUED, State.SENDING, State.ACCEPTED, State.DONE}
    assert {row.kind for row in rows.values()} == {"sonar sonar-deep-research medium"}
    assert rows[State.DONE].ended_at == 1_790_000_000.0
    for name, state in (("accepted", State.SENDING), ("ended", State.ACCEPTED)):
        record = await journal.claim(rows[state].pk)
        assert record is not None
        await take(journal, record, name, *([State.DONE] if name == "ended" else []), job_id=f"id-{int(state)}")
    await journal.close()


@posix
@pytest.mark.parametrize("name", ["v1", "v1-killed"])
@pytest.mark.parametrize("statements", range(sum(map(len, MIGRATIONS.values())) + 1))
async def test_migration_survives_a_kill_at_any_statement(tmp_path: Path, name: str, statements: int) -> None:
    path = tmp_path / "run.db"
    golden(name, path)
    before = ageless(path)
    migrating = child("die", path, statements)
    assert migrating.wait() == -signal.SIGKILL
    killed(migrating)
    assert ageless(path) == before
    journal = await opened(path)
    after = await journal.rows(set(State))
    assert [(row.pk, row.state, row.key, row.body) for row in after] == [
        (row.pk, row.state, row.key, row.body) for row in before
    ]
    await journal.close()


# --- where rows come from ---------------------------------------------------------------------------------------------


def asked(path: Path, *, every_run: bool = False) -> list[tuple[object, object]]:
    """Tag and column of each row that a reader gives, in its order."""
    with open_reader(path) as reader:
        return [(row.tag, row.meta.get("n")) for row in reader.asked(every_run=every_run)]


async def ran(path: Path, run: str, *items: tuple[str, int | None], to_the_end: bool = True, ask: bytes = b"?") -> None:
    """A run that asks these tags, each with a column or with none, and rows of the same tag share a job."""
    journal = await opened(path)
    journal.exhausted(False)
    for place, (tag, n) in enumerate(items):
        meta = {} if n is None else {"n": n}
        await queued(journal, tag, f"{run}-{place}", ask=ask, origin=Origin(run, place, "?", meta))
    journal.exhausted(to_the_end)
    await journal.close()


async def test_last_run_is_read_in_its_sources_order(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    await ran(path, "7", ("a", 1), ("b", None), ("pilot", 2), ("c", 3))
    await ran(path, "1", ("c", None), ("new", 9), ("b", 5), ("a", None))  # the later opening is the later run
    assert asked(path) == [("c", None), ("new", 9), ("b", 5), ("a", None)]
    assert asked(path, every_run=True) == [("c", None), ("new", 9), ("b", 5), ("a", None), ("pilot", 2)]


async def test_run_that_stopped_early_hides_no_earlier_row(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    await ran(path, "r", ("a", 1), ("b", 2), ("c", None), ("d", None))
    await ran(path, "r", ("d", 4), ("c", 3), to_the_end=False)
    assert asked(path) == [("d", 4), ("c", 3), ("a", 1), ("b", 2)]


@pytest.mark.parametrize("columns", [(1, 2, 3), (None, None, None), (None, 1, None)], ids=["all", "none", "some"])
async def test_rows_that_share_a_job_come_back_each(tmp_path: Path, columns: tuple[int | None, ...]) -> None:
    path = tmp_path / "run.db"
    rows = [("a", columns[0]), ("x", None), ("a", columns[1]), ("a", columns[2])]
    await ran(path, "r", *rows)
    assert asked(path) == rows
    await ran(path, "r", *rows[:2], to_the_end=False)
    assert sorted(asked(path), key=str) == sorted(rows, key=str)
    await ran(path, "r", *rows)
    assert asked(path, every_run=True) == rows


async def test_calls_of_their_own_come_after_the_run(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    await ran(path, "r", ("b", 1), ("a", None))
    journal = await opened(path)
    await queued(journal, "call")
    await queued(journal, "with columns", origin=Origin("", 0, "?", {"n": 7}))
    await journal.adopt("id", api="sonar")
    await queued(journal, "a", ask=b"?", origin=Origin("", 0, "?", {"n": 8}))  # it keeps its place in the run
    await journal.close()
    assert asked(path) == [("b", 1), ("a", 8), ("call", None), ("with columns", 7), (None, None)]


async def test_corrected_question_has_the_columns_of_its_row(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    await ran(path, "one", ("a", 1), ask=b"wyh?")
    await ran(path, "two", ("a", 2), ask=b"why?")
    assert asked(path, every_run=True) == [("a", 2)]
    with open_reader(path) as reader:
        assert [row.body for row in reader.asked()] == [b"body of why?"]


def test_older_journal_gives_all_its_rows_without_columns(tmp_path: Path) -> None:
    golden("v1", tmp_path / "run.db")
    with open_reader(tmp_path / "run.db") as reader:
        assert [row.pk for row in reader.asked()] == [row.pk for row in reader.rows()]
        assert {str(row.meta) for row in reader.asked()} == {"{}"}


async def test_unreadable_columns_withhold_no_record(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    await ran(path, "r", ("a", 1), ("b", 2))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE origin SET meta = x'00ff' WHERE place = 0")
    connection.commit()
    connection.close()
    assert asked(path) == [("a", None), ("b", 2)]


async def test_long_columns_are_stored_packed(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    journal = await opened(path)
    long, short = {"cell": "words " * 2_000}, {"cell": "words"}
    await queued(journal, "long", origin=Origin("r", 0, "?", long))
    await queued(journal, "short", origin=Origin("r", 1, "?", short))
    await journal.close()
    connection = sqlite3.connect(path)
    stored = connection.execute("SELECT meta FROM origin ORDER BY place").fetchall()
    connection.close()
    assert len(stored[0][0]) < 500
    assert stored[1] == (msgspec.json.encode(short),)
    with open_reader(path) as reader:
        assert [row.meta for row in reader.asked()] == [long, short]


def test_place_of_a_row_costs_no_statement(tmp_path: Path) -> None:
    """A row without columns takes its place with the statements that it needs anyway; one with columns takes one."""
    path = str(tmp_path / "run.db")
    told: list[str] = []
    found = open_to_write(path, Wanted("", None, same_account=False, without_log=False, now=lambda: 1.0))
    statements = WritingStatements(found.connection, path, found.epoch, results="keep", replace=False, now=lambda: 1.0)
    counts: list[int] = []
    for number, origin in enumerate([None, Origin("r", 1, "?", {}), Origin("r", 2, "?", {"n": 1})]):
        found.connection.set_trace_callback(told.append)
        statements.find_or_queue(
            f"tag:{number}", tag=number, key=f"k{number}", body=b"{}", sha=b"s", api="sonar", origin=origin
        )
        found.connection.set_trace_callback(None)
        counts.append(len(told))
        told.clear()
    found.connection.close()
    found.guard.close()
    found.lock.release()
    assert counts == [2, 2, 3]


@pytest.mark.parametrize("origin", [Origin("r", 1 << 70), Origin("r", 0, "?", {"n": object()})], ids=["place", "meta"])
async def test_origin_that_cannot_be_written_leaves_no_row(tmp_path: Path, origin: Origin) -> None:
    journal = await opened(tmp_path / "run.db")
    with pytest.raises(JournalBroken):
        await queued(journal, "a", origin=origin)
    assert await journal.rows(set(State)) == []
    await queued(journal, "a", origin=Origin("r", 0, "?", {"n": 1}))
    with pytest.raises(JournalBroken):
        await queued(journal, "a", origin=origin)
    assert [row.meta for row in await journal.rows(set(State))] == [{"n": 1}]
    await journal.close()


# --- crashes ----------------------------------------------------------------------------------------------------------

RANK = {name: rank for rank, name in enumerate(("queued", "sending", "accepted", "ended"))}


@pytest.mark.parametrize("seed", range(4))
async def test_answered_step_survives_a_kill(tmp_path: Path, seed: int) -> None:
    path, chance = tmp_path / "run.db", random.Random(seed)
    keys: dict[str, str] = {}
    for _ in range(3):
        process = child("steps", path)
        lines = [said(process) for _ in range(chance.randrange(1, 250))]
        lines += killed(process)
        heard: dict[str, str] = {}
        for line in lines:
            match line.split():
                case [tag, name, key, "."]:  # the dot: this line was not cut
                    assert keys.setdefault(tag, key) == key
                    heard[tag] = max(heard.get(tag, "queued"), name, key=RANK.__getitem__)
        with open_reader(path) as reader:
            for tag, name in heard.items():
                row = reader.get(item=item_name(tag, b""))
                assert row is not None
                assert row.key == keys[tag]
                assert row.state >= RANK[name]
                if row.state is State.DONE:
                    assert reader.result(row.pk) == f"result of {tag}".encode() * 100
        check = sqlite3.connect(path)
        assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert check.execute(
            "SELECT count(*) FROM job WHERE state = 3 AND pk NOT IN (SELECT pk FROM result)"
        ).fetchone() == (0,)
        check.close()


@posix
def test_log_is_synced_before_a_step_is_answered(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    trace = tmp_path / "trace"
    probe = subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("strace may not trace here")
    traced = [strace, "-f", "-y", "-e", "trace=fsync,fdatasync,pwrite64,write", "-o", str(trace)]
    subprocess.run([*traced, sys.executable, PROGRAM, "mark", str(tmp_path / "run.db")], check=True)
    unsynced = marks = 0
    for line in trace.read_text(errors="replace").splitlines():
        if "run.db-wal>" in line and "pwrite64(" in line:
            unsynced += 1
        elif "run.db-wal>" in line and ("fsync(" in line or "fdatasync(" in line):
            unsynced = 0
        elif '"MARK' in line:
            marks += 1
            assert unsynced == 0, "a step was answered while its log was not on the disk"
    assert marks == 12


# --- a full disk ------------------------------------------------------------------------------------------------------


def test_full_disk_fails_the_step_and_not_the_journal(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    place = tmp_path / "small"
    place.mkdir()
    inside = f'mount -t tmpfs -o size=2m small "{place}" && exec "{sys.executable}" "{PROGRAM}" full "{place}/run.db"'
    command = [unshare or "", "--user", "--map-root-user", "--mount", "sh", "-c", inside]
    if unshare is None or subprocess.run([*command[:-1], "true"], capture_output=True, check=False).returncode:
        pytest.skip("no small disk can be made here")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["JournalFull", "readable", "unchanged", "goes-on"], done.stderr


@posix
def test_file_size_limit_fails_only_the_step(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, PROGRAM, "limit", str(tmp_path / "run.db")], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["JournalFull", "readable", "unchanged", "goes-on"], done.stderr


LIMITED = """
import asyncio, resource, sys, time
from aiopplx.journal import JournalFull, SqliteJournal

async def main():
    journal = await SqliteJournal.open(sys.argv[1], now=time.time)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    written = 0
    try:
        for n in range(100):
            body = bytes(range(256)) * 40
            item = b"%032d" % n
            await journal.find_or_queue(str(n), tag=None, key=str(n), body=body, sha=item, api="sonar")
            written += 1
    except JournalFull as error:
        print(error.message)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await journal.find_or_queue("x", tag=None, key="x", body=b"x", sha=b"x" * 32, api="sonar")
    print(sum((await journal.counts()).values()) - written)
    await journal.close()

asyncio.run(main())
"""


def test_file_that_may_not_grow_is_only_full(tmp_path: Path) -> None:
    run = [sys.executable, "-W", "error", "-c", LIMITED, str(tmp_path / "run.db")]
    said = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True).stdout
    message, more = said.splitlines()
    assert "no file larger than 300,000 bytes" in message
    assert "make room, or raise the limit" in message
    assert more == "1"
    assert not [path.name for path in tmp_path.iterdir() if path.suffix == ".room"]
