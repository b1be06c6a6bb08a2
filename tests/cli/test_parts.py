"""The modules of the command line one by one: lines of questions, text for a terminal, rows, counts."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import anyio
import msgspec
import pytest
from _agent_caller import AgentCaller
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

import aiopplx
from aiopplx import JobStatus
from aiopplx._job import Answer
from aiopplx._text.amounts import dollars
from aiopplx.apis import ApiName, KnownApi, known_apis
from aiopplx.apis._registry import APIS
from aiopplx.cli._connect import journal_at, retry_policy
from aiopplx.cli._doctor import (
    CAS,
    CAS_BY_SWITCH,
    CAS_OF_OTHERS,
    PROXIES,
    SERVICE,
    _base_url,
    _clock,
    _end_of,
    _key,
    _network,
    _problems,
    name_to_check,
)
from aiopplx.cli._exits import USAGE, UsageError, complain, exit_code, flag_of, told
from aiopplx.cli._journals import place_of, resuming
from aiopplx.cli._lines import Lines
from aiopplx.cli._options import STANDARD, Connection, EmulatorOptions, JournalOptions, RunOptions, TableOptions
from aiopplx.cli._questions import Questions, open_questions
from aiopplx.cli._records import question_of
from aiopplx.cli._reports import _are_ours, _ids_in, _put
from aiopplx.cli._rows import PIPE_ROOM, Rows, check_place
from aiopplx.cli._run import _Run, _writable
from aiopplx.cli._serve import _made as made
from aiopplx.cli._show import _print_job
from aiopplx.cli._tally import Tally, Unfinished
from aiopplx.cli._text import clock, folded, json_line, one_line, safe
from aiopplx.journal import JournalBroken, JournalFull, JournalLocked, JournalRefused, Record, Stage, State
from aiopplx.tables import Advice, BadRow


class Told:
    """A response that says what it was told to."""

    def __init__(self, text: str, sources: list[aiopplx.Source], *, cost: float | None = None) -> None:
        self._answer = Answer(text=text, sources=sources, usage=aiopplx.Usage(cost=cost))

    def answer(self) -> Answer:
        return self._answer

    def consumed(self) -> aiopplx.Usage | None:
        return self._answer.usage

    def is_on_the_way(self) -> bool:
        return False


async def opened(path: Path, *, limit: int | None = None, **options: object) -> tuple[Questions, list[tuple[str, int]]]:
    """The questions of a file, and a list of the places of its bad rows, each with how many questions were before."""
    bad: list[tuple[str, int]] = []

    async def on_bad(row: BadRow, origin: object, before: int) -> None:
        bad.append((row.place, before))

    typed = TableOptions(**options)  # type: ignore[arg-type] - options of many types
    return await open_questions(str(path), typed, limit=limit, model=None, whole=False, on_bad=on_bad), bad


async def read_all(path: Path, **options: Any) -> tuple[list[str], list[str]]:
    questions, bad = await opened(path, **options)
    try:
        return [request.asked async for request in questions], [place for place, _ in bad]
    finally:
        await questions.close()


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("is_piped", [False, True])
async def test_questions_keep_their_order_whatever_the_line_sizes(tmp_path: Path, ending: str, is_piped: bool) -> None:
    lines = ["x" * size + "é" for size in (1, 65_535, 65_536, 200_000, 3, 131_072)]
    file = tmp_path / "q.txt"
    file.write_bytes(ending.join(lines).encode())
    if not is_piped:
        assert await read_all(file) == (lines, [])
        return
    descriptor = os.open(file, os.O_RDONLY)
    source = Lines(descriptor, "stdin")
    found = []
    while (got := await source.next()) is not None:
        found.append(got[1].strip().decode())
    os.close(descriptor)
    assert [line for line in found if line] == lines


async def test_question_is_known_by_its_place_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "q.txt"
    file.write_text("# head\n\none\n\x85a\x85b\ntwo")
    questions, bad = await opened(file)
    async for _ in questions:
        pass
    origins = {index: origin.line for index in (0, 1) if (origin := questions.take(index)) is not None}
    await questions.close()
    assert (origins, bad, questions.origins, questions.total) == ({0: 3, 1: 5}, [("line 4", 1)], {}, 3)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("q.txt", b"", "is empty"),
        ("q.txt", b"\n  \n\r\n", "no questions"),
        ("q.txt", b"# only\n\n  # remarks", "no questions"),
        ("q.json", b"[]", "has no rows"),
    ],
)
async def test_file_without_questions_is_refused_at_once(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(aiopplx.TableError, match=said):
        await read_all(tmp_path / name)


async def test_directory_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(aiopplx.TableError, match=f"cannot read {path.name}: "):
            await read_all(path)


async def test_endless_stream_is_refused_before_it_is_kept() -> None:
    with pytest.raises(UsageError, match="longer than 64 MiB"):
        await read_all(Path("/dev/zero"))


async def test_stream_is_read_only_as_far_as_asked(tmp_path: Path) -> None:
    # A named pipe shows what was read: its writer has written two lines and will not end the file.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done = threading.Event()

    def write() -> None:
        with pipe.open("w") as file:
            file.write("one\ntwo\n")
            file.flush()
            done.wait()

    writer = threading.Thread(target=write)
    writer.start()
    questions, bad = await opened(pipe)
    assert [(await anext(questions)).asked, (await anext(questions)).asked] == ["one", "two"]
    with anyio.move_on_after(0) as nothing_there:
        await anext(questions)
    assert nothing_there.cancelled_caught
    done.set()
    assert ([item async for item in questions], bad) == ([], [])
    await questions.close()
    writer.join()


async def test_limit_stops_before_the_next_row(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('"one"\n{bad\n"three"\n')
    assert await read_all(file, limit=2) == (["one"], ["line 2"])


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (Advice("header", "False", "calls the columns 1, 2, 3"), "--no-header calls the columns 1, 2, 3"),
        (Advice("skip_lines", "2", "begins there"), "--skip-lines 2 begins there"),
        (Advice("fields", "['model']", "sends it"), "--fields model sends it"),
        (Advice("encoding", '"..."', "names another"), "--encoding NAME names another"),
        (Advice("delimiter", '"~"', "reads it as one"), '--delimiter "~" reads it as one'),  # ~ alone is a folder
        (
            Advice("question", '"COLUMN"', "names it", Advice("template", '"{A} and {B}"', "makes it of several")),
            '--question COLUMN names it, --template "{A} and {B}" makes it of several',
        ),
    ],
)
def test_advice_of_the_tables_is_typed_as_an_option(typed: Advice, said: str) -> None:
    assert flag_of(typed) == said


@given(st.text())
def test_safe_text_has_nothing_that_a_terminal_acts_on(text: str) -> None:
    cleaned = safe(text)
    assert all(character in "\t\n" or character.isprintable() or ord(character) >= 0xA0 for character in cleaned)
    assert not set(cleaned) & set("\x1b\x9b\x07\x08\r\u202e\u2066\u200f")


def test_safe_text_loses_a_whole_terminal_sequence() -> None:
    assert safe("a\x1b[31mred\x1b[0m b\x1b]0;title\x07 c\u202ed") == "ared b]0;title cd"
    assert one_line("a\n b\tc", 4) == "a b…"


@given(st.recursive(st.none() | st.booleans() | st.text() | st.integers(-(2**53), 2**53), st.lists))
def test_row_is_one_line_that_decodes_to_itself(value: object) -> None:
    row = json_line(value)
    assert json.loads(row) == value
    assert row.endswith(b"\n")
    assert len(row.decode().splitlines()) == 1


def test_times_and_amounts_are_for_people() -> None:
    assert [clock(seconds) for seconds in (0.4, 61, 3723)] == ["0:00", "1:01", "1:02:03"]
    assert [dollars(amount) for amount in (0, 0.0123, 0.41, 12)] == ["$0.00", "$0.0123", "$0.41", "$12.00"]


async def test_rows_reach_a_slow_reader_whole(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    rows = Rows(str(pipe))
    row = b"x" * (PIPE_ROOM * 400) + b"\n"  # more than a pipe holds
    got = bytearray()

    async def read() -> None:
        while len(got) < 2 * len(row):
            await anyio.wait_readable(reader)
            got.extend(os.read(reader, 1 << 16))

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(rows.write, row)
        group.start_soon(rows.write, row)
    await rows.close()
    os.close(reader)
    assert bytes(got) == row * 2


async def test_cancelled_writer_still_writes_the_whole_row(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    rows = Rows(str(pipe))
    row = b"x" * (PIPE_ROOM * 400) + b"\n"
    with anyio.move_on_after(0):
        await rows.write(row)
    got = bytearray()

    async def read() -> None:
        while len(got) < len(row) + 2:
            await anyio.wait_readable(reader)
            got.extend(os.read(reader, 1 << 16))

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await rows.write(b"y\n")
    await rows.close()
    os.close(reader)
    assert bytes(got) == row + b"y\n"


def test_library_messages_are_given_in_shell_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PERPLEXITY_API_KEY", "PPLX_API_KEY", "PERPLEXITY_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for key, url in ((None, None), ("any", "http://example.com"), ("any", "x")):
        with pytest.raises(aiopplx.ConfigError) as refused:
            aiopplx.Session(key, base_url=url)
        complain(refused.value)
    said = capsys.readouterr().err
    assert said.count("aiopplx: ") == said.count("\n") == 3
    assert "--api-key-file is not given, and PERPLEXITY_API_KEY is not set. Without a key, try --emulate\n" in said
    assert all(word in said for word in ("--base-url is http", "--base-url has no scheme"))
    assert not any(word in said for word in ("api_key", "allow_insecure", "base_url"))


def with_facts(error: aiopplx.AiopplxError, **facts: object) -> aiopplx.AiopplxError:
    for name, value in facts.items():
        setattr(error, name, value)
    return error


FOR_PROGRAMS = "Do this in Python"


@pytest.mark.parametrize(
    ("error", "typed"),
    [
        (aiopplx.ConfigError("is missing", argument="api_key", remedy=FOR_PROGRAMS), "--emulate"),
        (aiopplx.ConfigError("has blanks", argument="api_key"), ""),
        (aiopplx.AuthenticationError("no", remedy=FOR_PROGRAMS), "--api-key-file"),
        (aiopplx.ProtocolError("no", status=307, remedy=FOR_PROGRAMS), "--base-url"),
        (aiopplx.ProtocolError("no", status=200, remedy=FOR_PROGRAMS), ""),
        (aiopplx.BudgetReached("no", remedy=FOR_PROGRAMS), "--max-cost"),
        (with_facts(aiopplx.InDoubt("no", remedy=FOR_PROGRAMS), look_in="list"), "aiopplx list"),
        (with_facts(aiopplx.InDoubt("no", remedy=FOR_PROGRAMS), look_in="journal"), "aiopplx review"),
        (aiopplx.InDoubt("no", remedy=FOR_PROGRAMS), ""),
        (aiopplx.JobTimeout("no", remedy=FOR_PROGRAMS), "aiopplx get ID --wait"),
        (with_facts(aiopplx.TransportError("no", remedy=FOR_PROGRAMS), unused_proxy="HTTPS_PROXY"), "--proxy env"),
        (aiopplx.TransportError("no"), ""),
        (JournalBroken("no", path="p", is_final=True, remedy=FOR_PROGRAMS), "aiopplx list"),
        (JournalRefused("no", path="p", reason="account", remedy=FOR_PROGRAMS), "--same-account"),
        (JournalRefused("no", path="p", reason="log", remedy=FOR_PROGRAMS), "--without-log"),
        (JournalRefused("no", path="p", reason="missing", remedy=FOR_PROGRAMS), ""),
        (aiopplx.NotFound("no", remedy=FOR_PROGRAMS), ""),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_error_is_told_with_what_to_type(error: aiopplx.AiopplxError, typed: str) -> None:
    said = told(error)
    assert typed in said
    assert FOR_PROGRAMS not in said
    assert bool(typed) is (len(said) > len(f"{error.message} and --api-key"))
    assert error.remedy in ("", FOR_PROGRAMS)


async def test_host_beyond_an_unused_proxy_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@127.0.0.1:1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # never listens, so a connection is refused
        url = f"https://127.0.0.1:{closed.getsockname()[1]}"
        async with aiopplx.Session("any", base_url=url, retry=aiopplx.RetryPolicy(call_tries=1)) as session:
            with pytest.raises(aiopplx.TransportError) as raised:
                await session.list()
    said = told(raised.value)
    assert "HTTPS_PROXY is set, but proxies of the environment are not used" in said
    assert "--proxy env uses it" in said
    assert "secret" not in said


def test_questions_are_not_overwritten_even_by_force(tmp_path: Path) -> None:
    file = tmp_path / "q.txt"
    file.write_text("Why?\n")
    (tmp_path / "link.txt").symlink_to(file)
    for name in ("q.txt", "link.txt"):
        with pytest.raises(UsageError, match="file of questions"):
            check_place(str(tmp_path / name), str(file), None)


@pytest.mark.parametrize("part", ["", "-wal", "-shm", ".lock"])
def test_journal_is_not_overwritten_even_by_force(part: str, tmp_path: Path) -> None:
    journal = tmp_path / "run.db"
    (tmp_path / "link.db").symlink_to(journal)
    for name in (f"{journal}{part}", *([f"{tmp_path}/link.db"] if not part else [])):
        with pytest.raises(UsageError, match="is the journal"):
            check_place(name, STANDARD, str(journal))
    assert not journal.exists()


def test_standard_is_a_name_no_file_can_have() -> None:
    with pytest.raises(ValueError, match="null"):
        os.open(STANDARD, os.O_RDONLY)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (aiopplx.InvalidRequest("x"), 2),
        (aiopplx.ConfigError("x"), 2),
        (aiopplx.AuthenticationError("x"), 3),
        (aiopplx.OutOfCredit("x"), 3),
        (aiopplx.EndpointRetired("x"), 3),
        (aiopplx.InDoubt("x"), 4),
        (aiopplx.TransportError("x"), 75),
        (aiopplx.RateLimited("x"), 75),
        (aiopplx.JobTimeout("x"), 75),
        (aiopplx.JobFailed("x"), 1),
        (aiopplx.NotFound("x"), 1),
        (aiopplx.BudgetReached("x"), 75),
        (aiopplx.JournalError("x"), 1),
        (JournalFull("x"), 75),
        (JournalLocked("x", path="a.db"), 75),
        (JournalRefused("x", path="a.db", reason="corrupt"), 2),
        (JournalRefused("x", path="a.db", reason="account"), 3),
    ],
)
def test_error_has_the_exit_code_that_help_names(error: aiopplx.AiopplxError, code: int) -> None:
    assert exit_code(error) == code


def test_printed_answer_has_nothing_that_a_terminal_acts_on(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    response = Told(
        "# Ship\x1b]0;owned\x07\n\nIt sank\u202e.[1]", [aiopplx.Source(url="https://a.b", title="a\x1b[2Jb")]
    )
    _print_job(aiopplx.Job(id="1", status=aiopplx.JobStatus.COMPLETED, response=response), as_json=False)
    out, err = capfdbinary.readouterr()
    assert out.decode() == "# Ship]0;owned\n\nIt sank.[1]\n\n## Sources\n\n1. ab · https://a.b\n"
    assert err == b"job 1\n"


def test_job_that_answers_two_questions_is_one_bill() -> None:
    tally = Tally()
    response = Told("an answer", [], cost=0.8)
    for index, job_id in enumerate(("one", "one", "other")):
        tally.count(aiopplx.Job(id=job_id, index=index, status=aiopplx.JobStatus.COMPLETED, response=response))
    assert (tally.done, tally.cost) == (3, pytest.approx(1.6))


def test_tally_counts_each_job_once() -> None:
    tally = Tally()
    status = aiopplx.JobStatus
    for number in range(4):
        tally.on_event(aiopplx.Event(kind=aiopplx.EventKind.SUBMITTED, job_id=str(number), index=number))
    tally.on_event(aiopplx.Event(kind=aiopplx.EventKind.POLLED, job_id="of an earlier run", index=4))
    tally.on_event(aiopplx.Event(kind=aiopplx.EventKind.FINISHED, job_id="0", status=status.COMPLETED))
    tally.count(aiopplx.Job(id="0", status=status.COMPLETED, response=Told("It sank.", [])))
    tally.count(aiopplx.Job(id="1", status=status.TIMED_OUT, error=aiopplx.JobTimeout("x")))
    tally.count(aiopplx.Job(status=status.IN_DOUBT, error=aiopplx.InDoubt("x")))
    tally.count(aiopplx.Job(status=status.REJECTED, error=aiopplx.InvalidRequest("x")))
    tally.count(aiopplx.Job(status=status.STOPPED, error=aiopplx.BudgetReached("x")))
    assert tally.submitted == 4
    assert sorted(tally.running) == ["2", "3", "of an earlier run"]
    failed = "2 failed (1 rejected, 1 still running at their deadline)"
    assert tally.summary() == f"5 questions: 1 done, {failed}, 1 not sent, 1 in doubt, $0.00"
    left = Unfinished(running=3, in_doubt=1)
    assert tally.summary(12, left) == (
        f"12 questions: 1 done, {failed}, 3 still running, 4 not sent, 2 in doubt, $0.00"
    )
    assert tally.summary(12, left, rest="not reached") == (
        f"12 questions: 1 done, {failed}, 3 still running, 1 not sent, 3 not reached, 2 in doubt, $0.00"
    )


@given(st.integers(0, 40), st.lists(st.integers(0, 5), min_size=4, max_size=4), st.integers(0, 9), st.integers(0, 9))
def test_numbers_of_a_summary_add_up(total: int, left: list[int], done: int, unsent: int) -> None:
    tally = Tally()
    tally.done, tally.unsent = done, unsent
    said, _, _ = tally.summary(total, Unfinished(*left)).partition(", $")
    questions, *parts = map(int, re.findall(r"\d+", said))
    assert questions == sum(parts) >= total


def test_finished_job_without_a_row_is_unwritten() -> None:
    tally = Tally()
    for number in "12":
        tally.on_event(aiopplx.Event(kind=aiopplx.EventKind.FINISHED, job_id=number))
    tally.count(aiopplx.Job(id="1", status=aiopplx.JobStatus.COMPLETED, response=Told("It sank.", [])))
    assert tally.unwritten == {"2"}


@pytest.mark.parametrize(
    ("source", "output", "options", "emulate", "expected"),
    [
        ("q.txt", None, JournalOptions(), False, "q.txt.journal.db"),
        ("q.txt", "a.jsonl", JournalOptions(), False, "q.txt.journal.db"),
        (STANDARD, "a.jsonl", JournalOptions(), False, "a.jsonl.journal.db"),
        (STANDARD, None, JournalOptions(), False, None),
        (STANDARD, STANDARD, JournalOptions(), False, None),
        ("/dev/null", "/dev/full", JournalOptions(), False, None),
        ("q.txt", None, JournalOptions(no_journal=True), False, None),
        ("q.txt", None, JournalOptions(), True, None),
        ("q.txt", None, JournalOptions(journal=Path("run.db")), True, "run.db"),
    ],
)
def test_journal_lies_beside_the_file_of_questions(
    source: str, output: str | None, options: JournalOptions, emulate: bool, expected: str | None
) -> None:
    outputs = () if output is None else (output,)
    assert place_of(options, source, outputs, Connection(emulate=emulate)) == expected


def test_job_at_its_time_limit_is_told_as_running() -> None:
    """It ended for the batch, which had not handed it out; at the service it goes on."""
    command = _Run("q.txt", RunOptions(), TableOptions(), JournalOptions(no_journal=True), Connection())
    said: list[str] = []
    pending = [aiopplx.Job(id=status.value, status=status) for status in (JobStatus.TIMED_OUT, JobStatus.COMPLETED)]
    for name, part in {
        "_view": SimpleNamespace(say=said.append, remark=said.append),
        "_questions": SimpleNamespace(take=lambda index: None),
        "_batch": SimpleNamespace(pending=pending),
    }.items():
        setattr(command, name, part)
    assert command._say_unfinished() == Unfinished(running=1, unwritten=1)
    assert said[:2] == ["1 job still running; they continue at the service and are billed:", "  TIMED_OUT"]


@pytest.mark.parametrize("cell", ["\ud800", {"a": ["\ud800"]}, {"\ud800": 1}])
def test_half_a_character_of_a_refused_row_is_replaced(cell: Any) -> None:
    assert isinstance(_writable(cell), str)
    _writable(cell).encode()
    assert (_writable("Wäre?"), _writable(7), _writable([1])) == ("Wäre?", 7, [1])


def test_journal_options_of_the_command_line_reach_the_session() -> None:
    typed = JournalOptions(results="until-delivered", retry_failed=True, same_account=True, wait=60.0)
    assert journal_at("run.db", typed, run="a.csv") == aiopplx.JournalOptions(
        "run.db", run="a.csv", results="until_delivered", retry_failed=True, same_account=True, wait=60.0
    )
    assert journal_at("run.db", JournalOptions()) == aiopplx.JournalOptions("run.db")
    assert journal_at(None, JournalOptions()) is None
    assert [retry_policy(word).on_doubt for word in ("resend", "hold", None)] == ["resend", "hold", None]


@pytest.mark.parametrize(
    "options",
    [
        JournalOptions(no_journal=True, wait=1.0),
        JournalOptions(no_journal=True, results="keep"),
        JournalOptions(no_journal=True, retry_failed=True),
    ],
)
def test_option_of_a_journal_needs_one(options: JournalOptions) -> None:
    with pytest.raises(UsageError, match="needs a journal"):
        place_of(options, "q.txt", (), Connection())


def test_resuming_reports_only_known_facts() -> None:
    counts: dict[Stage, int] = {"finished": 311, "failed": 1, "running": 40}
    assert resuming(counts) == "resuming: the journal has 312 finished, 40 running"
    assert resuming(counts | {"in doubt": 2}) == "resuming: the journal has 312 finished, 40 running, 2 in doubt"
    assert resuming({"waiting": 3}) == resuming({}) == ""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {
                "request": {
                    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
                }
            },
            "Why?",
        ),
        (
            {
                "request": {
                    "messages": [
                        {"role": "user", "content": "First?"},
                        {"role": "assistant", "content": "So."},
                        {"role": "user", "content": [{"type": "text", "text": "And"}, {"type": "image_url"}]},
                    ]
                }
            },
            "And",
        ),
        ({"input": "Why?", "preset": "high"}, "Why?"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "Why?"}]}]}, "Why?"),
        ({"request": 7}, ""),
        ([], ""),
    ],
)
def test_question_is_read_from_the_bytes_sent(body: object, expected: str) -> None:
    record = Record(
        pk=1, item="", tag=None, key="k", body=msgspec.json.encode(body), sha=b"", api="", state=State.QUEUED
    )
    assert question_of(record) == expected


def test_bytes_that_are_not_json_have_no_question() -> None:
    record = Record(pk=1, item="", tag=None, key="", body=b"{", sha=b"", api="", state=State.ACCEPTED)
    assert question_of(record) == ""


def test_doctor_shows_only_the_end_of_a_long_key() -> None:
    assert _end_of("a-key-of-the-service-wxyz") == "ends in wxyz"
    assert _end_of("short") == "of 5 characters"


KEY = "a-key-of-the-service-wxyz"


@pytest.mark.parametrize(
    ("variables", "what", "said"),
    [
        ({"PERPLEXITY_API_KEY": f'"{KEY}"'}, "key", "PERPLEXITY_API_KEY has a quotation mark in it"),
        ({"PERPLEXITY_API_KEY": f"Bearer {KEY}"}, "key", "begins with the word Bearer"),
        ({"PERPLEXITY_API_KEY": f"{KEY} {KEY}"}, "key", "has a blank"),
        ({"PPLX_API_KEY": "<your key>"}, "key", "PPLX_API_KEY is a placeholder"),
        ({"PERPLEXITY_API_KEY": KEY, "PPLX_API_KEY": "another"}, "key", "both set and differ"),
        ({"PERPLEXITY_BASE_URL": "https://gw.example/v1"}, "base url", "write https://gw.example"),
        ({"PERPLEXITY_BASE_URL": "http://gw.example"}, "base url", "in the clear"),
        ({"PERPLEXITY_BASE_URL": "gw.example"}, "base url", "has no scheme"),
    ],
)
def test_doctor_has_a_line_for_each_wrong_setting(
    variables: dict[str, str], what: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PERPLEXITY_API_KEY": KEY, "PERPLEXITY_BASE_URL": "", "PPLX_API_KEY": "", **variables}.items():
        if name == "PERPLEXITY_API_KEY" and "PPLX_API_KEY" in variables and len(variables) == 1:
            value = ""
        monkeypatch.setenv(name, value)
    ((where, problem),) = _problems(Connection())
    assert (where, said in told(problem)) == (what, True)
    assert KEY not in told(problem)


def test_doctor_tells_a_wrong_key_and_a_wrong_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERPLEXITY_API_KEY", f"'{KEY}'")
    monkeypatch.setenv("AIOPPLX_API", "nothing")
    assert [what for what, _ in _problems(Connection(base_url="https://gw.example/v1"))] == ["key", "base url"]
    assert list(_problems(Connection(emulate=True))) == []


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://user:secret@gw.example/a", "https://…@gw.example/a"),
        ("user:secret@gw.example", "…@gw.example"),
        ("https://a@secret@gw.example", "https://…@gw.example"),
        ("https://gw.example/a?key=secret", "https://gw.example/a?…"),
        ("https://gw.example/#secret", "https://gw.example/?…"),
        ("https://gw.example/a", "https://gw.example/a"),
    ],
)
def test_doctor_shows_no_secret_of_an_address(address: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _base_url(Connection(base_url=address)) == shown
    monkeypatch.setenv("PERPLEXITY_BASE_URL", address)
    assert _base_url(Connection()) == f"{shown} (PERPLEXITY_BASE_URL)"
    assert "secret" not in "".join(told(problem) for _, problem in _problems(Connection()))


def test_doctor_tells_of_blanks_that_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PPLX_API_KEY", raising=False)
    monkeypatch.setenv("PERPLEXITY_API_KEY", KEY)
    assert _key(Connection()) == "PERPLEXITY_API_KEY, ends in wxyz"
    monkeypatch.setenv("PERPLEXITY_API_KEY", f" {KEY}\n")
    assert (
        _key(Connection()) == "PERPLEXITY_API_KEY, ends in wxyz, with blanks or a line end around it that are not sent"
    )


def test_doctor_says_which_proxy_and_which_variables_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, *CAS, *CAS_BY_SWITCH, *CAS_OF_OTHERS, "PERPLEXITY_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    plain, inherits = Connection(), Connection(proxy="env")
    assert _network(plain) == _network(inherits) == "directly"
    assert _network(Connection(proxy="proxy.example:3128")) == "through http://proxy.example:3128"
    assert _network(Connection(emulate=True)) == "not needed by the emulator"
    monkeypatch.setenv("https_proxy", "http://user:secret@proxy.example:3128")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/ca.pem")
    monkeypatch.setenv("CURL_CA_BUNDLE", "/ca.pem")
    assert _network(plain) == "directly; https_proxy, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE set, and not used"
    through = "through http://proxy.example:3128"
    assert (
        _network(inherits)
        == f"{through}; https_proxy, REQUESTS_CA_BUNDLE set, and used; CURL_CA_BUNDLE set, and not used"
    )
    monkeypatch.setenv("SSL_CERT_FILE", "/ca.pem")
    assert _network(plain).endswith(
        "; SSL_CERT_FILE set, and used; https_proxy, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE set, and not used"
    )
    assert "https_proxy, SSL_CERT_FILE set, and used" in _network(inherits)
    monkeypatch.setenv("NO_PROXY", "api.perplexity.ai")
    assert _network(inherits).startswith("directly; SSL_CERT_FILE, NO_PROXY set, and used; https_proxy, ")


def test_doctor_tells_of_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "no_proxy", "NO_PROXY", "PERPLEXITY_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PERPLEXITY_API_KEY", "a-key-of-some-length")
    monkeypatch.setenv("HTTPS_PROXY", "socks5://user:secret@proxy.example:1080")
    [(what, problem)] = _problems(Connection(proxy="env"))
    assert (what, exit_code(problem)) == ("proxy", USAGE)
    assert told(problem).startswith("HTTPS_PROXY is a SOCKS proxy")
    [(what, problem)] = _problems(Connection(proxy="ftp://proxy.example"))
    assert told(problem) == "network.proxy must look like http://host:port. It was given as --proxy"
    assert _network(Connection(proxy="env")) == "not known: see below"


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        (Connection(proxy="http://user:secret@proxy.example:3128"), "every user of the machine"),
        (Connection(proxy="env", emulate=True), "--emulate needs no network"),
    ],
)
def test_proxy_unfit_for_a_command_line_is_refused(connection: Connection, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        connection.check()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("skew", "said"),
    [
        (None, "not compared"),
        (-9.0, "within 10 seconds"),
        (3723.0, "1:02:03 ahead of the server's"),
        (-60.0, "1:00 behind the server's"),
    ],
)
def test_doctor_tells_how_far_the_clock_is_off(skew: float | None, said: str) -> None:
    assert said in _clock(skew)


# --- what the command line writes out, and the library decides -------------------------------------------------------


def test_api_option_takes_every_name_of_the_library() -> None:
    assert get_args(ApiName) == tuple(APIS)


@pytest.mark.parametrize("asked_for", APIS)
def test_doctor_checks_each_api_once_by_its_name(asked_for: str) -> None:
    names = {api.name: name_to_check(api, asked_for) for api in known_apis()}
    assert {name: APIS[typed][0].name for name, typed in names.items()} == {name: name for name in names}
    assert set(names) == {api.name for api, _ in APIS.values()}
    assert asked_for in {"auto", *names.values()}


def test_apis_of_auto_are_in_their_order_of_use() -> None:
    assert [api.name for api in known_apis() if api.is_in_auto] == [api.name for api in APIS["auto"] if api is not None]


@pytest.mark.parametrize("known", known_apis(), ids=lambda known: known.name)
def test_known_api_has_a_free_and_a_cheap_request(known: KnownApi) -> None:
    api, _ = APIS[known.name]
    assert api.freeze(api.request_type.of(known.cheapest), "k")
    assert api.owns(known.unknown_id)
    assert (api.has_list, api.has_idempotency) == (known.has_list, known.has_idempotency)


async def test_doctor_names_the_server_that_a_session_asks() -> None:
    assert SERVICE in repr(aiopplx.Session("any"))


# --- lines on a narrow terminal ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [20, 40, 100])
@pytest.mark.parametrize(
    "line",
    [
        "companies.csv: CSV (comma, UTF-8), 300 rows; columns company, year, region",
        "line 14: failed: Internal error while processing the request (job bc30b09f-ceb0-4ece-9894-31552ad755fa)",
        "  asks   What did 日本ヒートポンプ and 東京 announce in 2023, and what of it was new to the market?",
    ],
)
def test_line_is_folded_between_words_and_none_is_lost(line: str, width: int) -> None:
    shown = folded(line, width).split("\n")
    assert " ".join(shown).split() == line.split()
    for part in shown:
        assert cell_len(part) <= width or len(part.split()) == 1


def test_what_follows_is_set_in_below_its_text() -> None:
    assert (
        folded("  asks   What did ACME announce in 2023?", 24)
        == "  asks   What did ACME\n         announce in\n         2023?"
    )
    assert folded("Nothing was sent. Leave it out", 24) == "Nothing was sent. Leave\n  it out"


def test_command_to_copy_stays_on_its_line() -> None:
    line = "Review the submissions in doubt with: aiopplx review companies.csv.journal.db"
    assert folded(line, 40) == line


# --- the emulator's options ------------------------------------------------------------------------------------------


async def test_emulator_plays_the_fields_and_files_that_are_typed(tmp_path: Path) -> None:
    (tmp_path / "ships.csv").write_bytes(b"Vasa\n")
    emulator = made(EmulatorOptions(unknown_field=("effort",), file=(tmp_path / "ships.csv",)))
    async with emulator, AgentCaller(emulator.url) as c:
        assert (await c.refused({"input": "Why?", "effort": "low", "background": True}))["param"] == "effort"
        id = await c.job({"input": "Why?", "preset": "low", "background": True, "tools": [{"type": "sandbox"}]})
        emulator.advance(3600.0)
        (row,) = (await c.call("GET", f"{c.base}/{id}/files")).json["data"]
        assert (row["filename"], row["bytes"]) == ("ships.csv", 5)
    with pytest.raises(OSError, match="nothing"):
        made(EmulatorOptions(file=(tmp_path / "nothing",)))


@pytest.mark.parametrize(
    ("names", "is_ours"), [(["", ""], True), (["", "?"], False), (["a--b"], False), (["x/1"], False)]
)
def test_report_is_replaced_by_its_ids_only(tmp_path: Path, names: list[str], *, is_ours: bool) -> None:
    path = tmp_path / "report.html"
    _put(str(path), ["<p>an answer</p>\n"], names)
    assert _are_ours(_ids_in(path), None) is is_ours
