"""A table goes in and comes back with its answers: in every form, after every stop, and each row once."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import anyio.to_thread
import openpyxl
import pytest
from _killed_cli import PROGRAM
from _shell import FAST, KEY, ending, rows, run, run_at, started, until

from aiopplx import InvalidRequest, Job, JobStatus
from aiopplx.cli import run as main
from aiopplx.cli._answers import Answers, Encoder, RowOutput, StreamOutput
from aiopplx.cli._columns import Columns, Value
from aiopplx.cli._exits import OutputLost, UsageError
from aiopplx.cli._files import Delimited, Ending, JsonLines, Old, RowFile
from aiopplx.cli._options import OutputFormat
from aiopplx.cli._reports import Report, ReportFolder
from aiopplx.emulator import Emulator, faults
from aiopplx.tables import ReadOptions, csv_text, read_file

OURS = [
    *("answer", "status", "cost", "seconds", "sources", "n_sources"),
    *("model", "finish_reason", "reasoning", "error", "job_id"),
]


def table(folder: Path, count: int, name: str = "companies.csv") -> Path:
    """Rows with an id that begins with zeros, a formula, and a cell of two lines."""
    file = folder / name
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "company", "note"])
        writer.writerows([f"{number:04}", f"Company {number}, Inc.", "=1+1\nand"] for number in range(count))
    return file


def csv_rows(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    return csv_rows_of(path.read_bytes(), delimiter)


def csv_rows_of(content: bytes, delimiter: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=delimiter))


def plan(file: Path, *outputs: Path) -> tuple[str, ...]:
    words = ("run", str(file), "--template", "What did {company} announce?", *FAST)
    return (*words, *(word for output in outputs for word in ("-o", str(output))))


def assert_whole(found: list[dict[str, Any]], count: int) -> None:
    """Each row once, in the order of the input, with its columns as they were."""
    assert [row["id"] for row in found] == [f"{number:04}" for number in range(count)]
    assert [row["company"] for row in found] == [f"Company {number}, Inc." for number in range(count)]
    assert all(row["note"] == "=1+1\nand" for row in found)
    assert all(row["status"] == "COMPLETED" and row["answer"] for row in found)


# --- forms -----------------------------------------------------------------------------------------------------------


async def test_every_form_has_the_users_columns_first(tmp_path: Path) -> None:
    file = table(tmp_path, 5)
    outputs = [tmp_path / f"a.{suffix}" for suffix in ("csv", "tsv", "xlsx", "parquet", "jsonl", "html", "md")]
    async with Emulator(duration=0.0, answer_chars=300) as server:
        done = await run_at(server, *plan(file, *outputs))
        assert server.ledger.created == 5
    assert done.returncode == 0, done.stderr
    for delimiter, output in zip(",\t", outputs[:2], strict=True):
        found = csv_rows(output, delimiter)
        assert list(found[0]) == ["id", "company", "note", "tag", "question", *OURS]
        assert_whole(found, 5)
    for output in outputs[2:4]:
        cells = [row.cells for row in read_file(output).read() if hasattr(row, "cells")]
        assert list(cells[0]) == ["id", "company", "note", "tag", "question", *OURS]
        assert_whole(cells, 5)
    assert [row["meta"]["id"] for row in rows(outputs[4].read_text())] == [f"{number:04}" for number in range(5)]
    for output in outputs[5:]:
        text = output.read_text()
        places = [text.index(f"What did Company {number}, Inc. announce?") for number in range(5)]
        assert places == sorted(places)


@pytest.mark.parametrize(
    ("name", "content", "delimiter", "has_mark"),
    [
        ("q.csv", "id,question\n007,Why?\n", ",", False),
        ("q.csv", "\ufeffid,question\n007,Why?\n", ",", True),
        ("q.csv", "id;question\r\n007;Wäre es möglich?\r\n".encode("cp1252"), ";", True),
        ("q.csv", "id|question\n007|Why?\n", "|", False),
        ("q.tsv", "id\tquestion\n007\tWhy?\n", ",", False),
        ("q.txt", "id\tquestion\n007\tWhy?\n".encode("utf-16"), ",", True),
        ("q.jsonl", '{"id": "007", "question": "Warum?"}\n', ",", True),
    ],
)
async def test_csv_goes_back_as_it_came(
    tmp_path: Path, name: str, content: str | bytes, delimiter: str, has_mark: bool
) -> None:
    file, answers = tmp_path / name, tmp_path / "a.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    async with Emulator(duration=0.0, answer_chars=300) as server:
        done = await run_at(server, "run", str(file), "-o", str(answers), *FAST)
    assert done.returncode == 0, done.stderr
    assert answers.read_bytes().startswith(b"\xef\xbb\xbf") is has_mark
    (row,) = csv_rows(answers, delimiter)
    assert list(row) == ["id", "question", "tag", *OURS]
    assert row["id"] == "007"


async def test_columns_of_our_names_are_kept_beside_ours(tmp_path: Path) -> None:
    file, answers = tmp_path / "q.csv", tmp_path / "a.csv"
    file.write_text("answer,Question,status\nmine,Why?,-1\n")
    async with Emulator(duration=0.0, answer_chars=300) as server:
        done = await run_at(server, "run", str(file), "-o", str(answers), *FAST)
        again = await run_at(server, "run", str(file), "-o", str(answers), *FAST)
        assert server.ledger.created == 1
    assert (done.returncode, again.returncode) == (0, 0)
    (row,) = csv_rows(answers)
    assert list(row)[:6] == ["answer", "Question", "status", "tag", "research_answer", "research_status"]
    assert (row["answer"], row["status"], row["research_status"]) == ("mine", "-1", "COMPLETED")


async def test_bad_rows_are_written_in_place_with_their_columns(tmp_path: Path) -> None:
    file, answers = tmp_path / "q.csv", tmp_path / "a.csv"
    file.write_text("id,question\n1,Why?\n2,\n3,How, when?\n4,Who?\n5,Where?\n")
    async with Emulator(duration=0.0, answer_chars=300) as server:
        done = await run_at(server, "run", str(file), "--skip-bad", "-o", str(answers), *FAST)
        assert server.ledger.created == 3
    assert done.returncode == 1
    found = csv_rows(answers)
    assert [row["id"] for row in found] == ["1", "2", "3", "4", "5"]
    assert [row["question"] for row in found] == ["Why?", "", "How, when?", "Who?", "Where?"]
    assert (found[1]["status"], found[1]["error"]) == ("REJECTED", '"question" is empty')


async def test_question_and_tag_come_back_as_they_came(tmp_path: Path) -> None:
    """What is asked has no blanks around it, and is text; a row that is not asked has its cells too."""
    file = tmp_path / "q.xlsx"
    given = [["a", 7.5, " Why?\n", "high"], ["b", 8, 2024, ""], ["c", 9, " How? ", "enormous"], ["d", "", "Who?", ""]]
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in [["id", "tag", "question", "reasoning_effort"], *given]:
        book.active.append(row)
    book.save(file)
    outputs = [tmp_path / "a.xlsx", tmp_path / "a.csv"]
    words = ("run", str(file), "--fields", "reasoning_effort", "--skip-bad", *FAST, "--yes")
    async with Emulator(duration=0.0, answer_chars=100) as server:
        for _ in range(2):
            done = await run_at(server, *words, *(word for output in outputs for word in ("-o", str(output))))
            assert (done.returncode, server.ledger.created) == (1, 3), done.stderr
            cells = [list(row.cells.values())[:4] for row in read_file(outputs[0]).read() if hasattr(row, "cells")]
            assert cells == given
            assert [list(row.values())[:4] for row in csv_rows(outputs[1])] == [[*map(str, row)] for row in given]


async def test_equal_questions_are_asked_once_if_that_is_said(tmp_path: Path) -> None:
    file, answers = tmp_path / "q.csv", tmp_path / "a.csv"
    file.write_text("id,question\n1,Why?\n2,How?\n3,Why?\n4,Why?\n")
    async with Emulator(duration=0.0, answer_chars=300) as server:
        done = await run_at(server, "run", str(file), "--unique", "-o", str(answers), *FAST)
        assert server.ledger.created == 2
        each = await run_at(server, "run", str(file), "--no-journal", "-q", *FAST)
        assert server.ledger.created == 6
    assert (done.returncode, each.returncode) == (0, 0)
    found = csv_rows(answers)
    assert [row["id"] for row in found] == ["1", "2", "3", "4"]
    assert found[0]["job_id"] == found[2]["job_id"] == found[3]["job_id"] != found[1]["job_id"]


def test_cells_that_excel_cuts_are_counted_once(tmp_path: Path) -> None:
    file = tmp_path / "q.csv"
    file.write_text(f"question,note\nWhy?,{'x' * 40_000}\n")
    outputs = [word for name in ("a.csv", "a.xlsx", "a.html") for word in ("-o", str(tmp_path / name))]
    done = run("run", str(file), "--emulate", *outputs)
    assert done.returncode == 0
    assert done.stderr.count("longer than the 32,767 characters that Excel shows of a cell") == 1
    assert "\n2 texts are longer than" in done.stderr
    assert f"{tmp_path / 'a.html'} has them whole" in done.stderr


# --- before it is paid -----------------------------------------------------------------------------------------------


async def test_dry_run_sends_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    file = table(tmp_path, 4)
    async with Emulator() as server:
        done = await run_at(server, *plan(file, tmp_path / "a.csv", tmp_path / "a.xlsx"), "--dry-run", key="")
        bad = await run_at(server, "run", str(file), "--dry-run", key="")
        assert not server.ledger.requests
    assert (done.returncode, bad.returncode) == (0, 2)
    assert done.stderr == (
        "companies.csv: CSV (comma, UTF-8), 4 rows; columns id, company, note\n"
        "  asks   What did Company 0, Inc. announce?\n"
        "         What did Company 1, Inc. announce?\n"
        "         What did Company 2, Inc. announce?\n"
        "  sends  the question alone\n"
        "  keeps  id, company, note      tags  none\n"
        "  about $1.50 to $4.80, 3 min to 9 min (published figures; nothing of yours is known yet)\n"
        "Nothing was sent. Leave out --dry-run to run it.\n"
    )
    assert os.listdir(tmp_path) == ["companies.csv"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.xlsx", "a.parquet", "a.html", "a.md"])
async def test_file_of_something_else_is_not_overwritten(tmp_path: Path, name: str) -> None:
    file, answers = table(tmp_path, 1), tmp_path / name
    answers.write_text("id,company\nmine\n")
    async with Emulator(duration=0.0, answer_chars=300) as server:
        refused = await run_at(server, *plan(file, answers))
        assert (refused.returncode, server.ledger.created) == (2, 0)
        assert answers.read_text() == "id,company\nmine\n"
        forced = await run_at(server, *plan(file, answers), "--force")
        again = await run_at(server, *plan(file, answers))
        assert server.ledger.created == 1
    assert f"{answers} is not empty; give --force to overwrite it" in refused.stderr
    assert (forced.returncode, again.returncode) == (0, 0)
    assert b"mine" not in answers.read_bytes()


async def test_file_with_other_columns_says_what_force_does(tmp_path: Path) -> None:
    file, answers = tmp_path / "q.csv", tmp_path / "a.csv"
    async with Emulator(duration=0.0, answer_chars=300) as server:
        file.write_text("Frage,region,status\nWhy?,EU,old\nHow?,US,\n")
        words = ("run", str(file), "--question", "Frage", "-o", str(answers), *FAST)
        assert (await run_at(server, *words)).returncode == 0
        before = answers.read_bytes()
        file.write_text("Frage,note,status\nWhy?,x,old\nHow?,y,\n")
        refused = await run_at(server, *words)
        assert (refused.returncode, answers.read_bytes()) == (2, before)
        assert (await run_at(server, *words, "--force")).returncode == 0
        assert server.ledger.created == 2
    assert (
        f'{answers} is of an earlier run with other columns (it has "region" and it does not have "note"); --force'
        " writes it anew with the columns of this run, and what is answered already is not paid again; another name"
        " leaves it as it is\n"
    ) in refused.stderr
    found = csv_rows(answers)
    assert [(row["Frage"], row["note"], bool(row["answer"])) for row in found] == [
        ("Why?", "x", True),
        ("How?", "y", True),
    ]


# --- stopped, and gone on with ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
async def test_300_rows_stopped_three_times_come_back_once(tmp_path: Path, suffix: str) -> None:
    file, answers, sheet = table(tmp_path, 300), tmp_path / f"a.{suffix}", tmp_path / "a.xlsx"
    words = plan(file, answers, sheet)
    counts: list[int] = []

    def count() -> int:
        if not answers.exists():
            return 0
        return len(csv_rows(answers)) if suffix == "csv" else answers.read_bytes().count(b"\n")

    async with Emulator(duration=0.0, answer_chars=300) as server:
        for signum, enough in ((signal.SIGINT, 40), (signal.SIGKILL, 110), (signal.SIGKILL, 170)):
            async with started(server, *words, "--rpm", "1500") as process:
                await until(lambda least=enough: server.ledger.created >= least)
                process.send_signal(signum)
                await ending(process)
            counts.append(count())
        done = await run_at(server, *words)
        assert server.ledger.created == 300
        before = answers.read_bytes()
        again = await run_at(server, *words)
        assert server.ledger.created == 300
    assert (done.returncode, again.returncode) == (0, 0), done.stderr
    assert counts == sorted(counts)
    assert counts[0] > 0
    assert answers.read_bytes() == before
    if suffix == "csv":
        assert_whole(csv_rows(answers), 300)
    else:
        assert [row["meta"]["id"] for row in rows(answers.read_text())] == [f"{number:04}" for number in range(300)]
    assert_whole([row.cells for row in read_file(sheet).read() if hasattr(row, "cells")], 300)
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".new")]


@pytest.mark.slow
async def test_killed_at_each_rename_300_rows_come_back_once(tmp_path: Path) -> None:
    file = table(tmp_path, 300)
    outputs = {suffix: tmp_path / f"a.{suffix}" for suffix in ("csv", "jsonl", "xlsx", "html")}
    words = plan(file, *outputs.values())
    points = [
        *(("csv", "open"), ("csv", "os.chmod"), ("csv", "after")),
        ("jsonl", "os.rename"),
        *(("xlsx", "open"), ("xlsx", "os.rename")),
        *(("html", "os.rename"), ("html", "after")),
    ]
    async with Emulator(duration=0.0, answer_chars=300) as server:
        for suffix, point in points:
            new = tmp_path / f"a.{suffix}.new"
            async with started(server, *words, program=(PROGRAM, point, str(new))) as process:
                code, said = await ending(process)
            assert code == -signal.SIGKILL, (suffix, point, said)
            if point == "os.rename":
                os.truncate(new, new.stat().st_size // 2)  # as if it had been killed while it wrote
            ids = [row["id"] for row in csv_rows(outputs["csv"])]
            assert len(set(ids)) == len(ids) == 300
            assert outputs["jsonl"].read_bytes().count(b"\n") == 300
        done = await run_at(server, *words)
        assert server.ledger.created == 300
    assert done.returncode == 0, done.stderr
    assert_whole(csv_rows(outputs["csv"]), 300)
    assert_whole([row.cells for row in read_file(outputs["xlsx"]).read() if hasattr(row, "cells")], 300)
    assert [row["meta"]["id"] for row in rows(outputs["jsonl"].read_text())] == [f"{n:04}" for n in range(300)]
    assert outputs["html"].read_text().count("<article ") == 300
    assert not [name for name in os.listdir(tmp_path) if ".new" in name]


@pytest.mark.parametrize("suffix", ["csv", "xlsx"])
async def test_answers_whose_file_cannot_be_replaced_are_kept_apart(tmp_path: Path, suffix: str) -> None:
    """On Windows a file that is open in Excel cannot be replaced; here a folder takes its name meanwhile."""
    file, answers = table(tmp_path, 6), tmp_path / f"a.{suffix}"
    apart = tmp_path / f"a.new.{suffix}"
    async with Emulator(duration=lambda question: 3600.0 if " 0," in question else 0.0, answer_chars=300) as server:
        async with started(server, *plan(file, answers)) as process:
            await until(lambda: server.ledger.created == 6)
            if suffix == "csv":
                await until(lambda: answers.exists() and len(csv_rows(answers)) == 5)
                answers.unlink()
            answers.mkdir()
            server.advance(3600.0)
            code, said = await ending(process)
        assert code == 75, said
        assert f"aiopplx: cannot write {answers}: Is a directory; what should be in it is in {apart}\n" in said
        assert f"No answer is lost: {file}.journal.db has them all, and gives them to the same command." in said
        answers.rmdir()
        done = await run_at(server, *plan(file, answers))
        assert server.ledger.created == 6
    assert done.returncode == 0, done.stderr
    for path in (apart, answers):
        assert_whole([row.cells for row in read_file(path).read() if hasattr(row, "cells")], 6)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
async def test_file_of_a_stopped_run_never_shrinks(tmp_path: Path, suffix: str) -> None:
    """Killed at its first row, the second run had left a file without the rows of the first."""
    file, answers = table(tmp_path, 40), tmp_path / f"a.{suffix}"
    async with Emulator(duration=0.0, answer_chars=300) as server:
        assert (await run_at(server, *plan(file, answers), "--limit", "30")).returncode == 0
        before = answers.read_bytes()
        async with started(server, *plan(file, answers), "--rpm", "600") as process:
            await until(lambda: server.ledger.created >= 32)
            process.kill()
            await ending(process)
        assert answers.read_bytes()[: len(before)] == before
        async with started(server, *plan(file, answers), "--rpm", "60") as process:
            await until(lambda: server.ledger.created >= 34)
            process.send_signal(signal.SIGINT)
            await ending(process)
    found = csv_rows(answers) if suffix == "csv" else [row["meta"] for row in rows(answers.read_text())]
    assert [row["id"] for row in found][:30] == [f"{number:04}" for number in range(30)]


async def test_sheet_after_ctrl_c_has_what_earlier_runs_finished(tmp_path: Path) -> None:
    file, sheet = table(tmp_path, 12), tmp_path / "a.xlsx"
    slow = {"on": False}
    async with Emulator(duration=lambda question: 3600.0 if slow["on"] else 0.0, answer_chars=300) as server:
        assert (await run_at(server, *plan(file, sheet), "--limit", "8")).returncode == 0
        slow["on"] = True
        async with started(server, *plan(file, sheet)) as process:
            await until(lambda: server.ledger.created == 12)
            process.send_signal(signal.SIGINT)
            code, _ = await ending(process)
    assert code == 130
    found = [row.cells for row in read_file(sheet).read() if hasattr(row, "cells")]
    assert_whole(found, 8)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_row_timed_by_another_clock_is_not_written_twice(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(form_of(kind).head + b"".join(row_of(kind, number) for number in range(2)))
    before = path.read_bytes()
    file = opened(path, kind)
    for number in range(2):
        row = row_of(kind, number, seconds=1.25)
        file.write(number, row, key=f"k{number}" if kind == "jsonl" else "", job_id=f"j{number}")
        assert path.read_bytes() == before
    file.close("whole")
    assert path.read_bytes() == before
    assert not form_of(kind).says_the_same(row_of(kind, 0, seconds=None), row_of(kind, 0))
    assert not form_of(kind).says_the_same(row_of(kind, 0, "a"), row_of(kind, 0, "b"))


async def test_changed_question_under_a_tag_is_anew_if_wished(tmp_path: Path) -> None:
    file, answers = tmp_path / "q.csv", tmp_path / "a.csv"
    file.write_text("id,question\n1,Why?\n2,How?\n3,Who?\n")
    words = ("run", str(file), "--tag", "id", "-o", str(answers), *FAST)
    async with Emulator(duration=0.0, answer_chars=300) as server:
        assert (await run_at(server, *words)).returncode == 0
        before = answers.read_bytes()
        file.write_text("id,question\n1,Why?\n2,How else?\n3,Who?\n")
        refused = await run_at(server, *words)
        assert (refused.returncode, server.ledger.created) == (2, 3)
        assert answers.read_bytes() == before
        anew = await run_at(server, *words, "--replace", "--limit", "2")
        assert (anew.returncode, server.ledger.created) == (0, 4), anew.stderr
        after = answers.read_bytes()
        answers.write_bytes(before)  # as if that run had been killed
        again = await run_at(server, *words)
        assert (again.returncode, server.ledger.created) == (0, 4), again.stderr
    assert f"1 tag asks something else in {file}.journal.db; --replace asks it anew and pays again (1 cost $" in (
        refused.stderr
    )
    found = csv_rows(answers)
    assert [row["question"] for row in found] == ["Why?", "How else?", "Who?"]
    assert [row["job_id"] for row in found] == [row["job_id"] for row in csv_rows_of(after)]
    assert before.split(b"\n")[1] == answers.read_bytes().split(b"\n")[1]


async def test_rows_that_a_limited_run_does_not_ask_stay(tmp_path: Path) -> None:
    file = table(tmp_path, 6)
    outputs = [tmp_path / f"a.{suffix}" for suffix in ("csv", "jsonl", "xlsx", "md")]
    async with Emulator(duration=0.0, answer_chars=300) as server:
        assert (await run_at(server, *plan(file, *outputs))).returncode == 0
        limited = await run_at(server, *plan(file, *outputs), "--limit", "2")
        assert server.ledger.created == 6
    assert limited.returncode == 0, limited.stderr
    for output in (outputs[0], outputs[2]):
        assert_whole([row.cells for row in read_file(output).read() if hasattr(row, "cells")], 6)
    assert [row["meta"]["id"] for row in rows(outputs[1].read_text())] == [f"{number:04}" for number in range(6)]
    assert outputs[3].read_text().count("\n## What did Company") == 6
    looked = await anyio.to_thread.run_sync(lambda: run(*plan(file, tmp_path / "b.xlsx"), "--dry-run"))
    assert (looked.returncode, (tmp_path / "b.xlsx").exists()) == (0, False), (
        "a look writes no report of an earlier run"
    )


@pytest.mark.parametrize("ending", ["whole", "part"])
@pytest.mark.parametrize("status", ["STOPPED", "REJECTED", "IN_DOUBT"])
@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
async def test_row_of_what_was_not_accepted_stands_once(
    tmp_path: Path, form: OutputFormat, status: str, ending: Ending
) -> None:
    """It has a key and no id. `--limit`, a pilot, an outage and Ctrl-C all end in `part`."""
    path = tmp_path / f"a.{form}"
    columns = Columns(["question", "n"], question="question")

    async def one_run(*jobs: Job) -> list[tuple[str, str]]:
        encoder = Encoder(form, columns)
        file = RowFile(str(path), encoder.form(), force=False, is_ours=lambda old: True)
        output = RowOutput(file, encoder)
        for at, job in enumerate(jobs):
            await output.write(at, at + 2, job)
        await output.close(ending)
        found = rows(path.read_text()) if form == "jsonl" else csv_rows(path, "\t" if form == "tsv" else ",")
        return [(str(row["meta"]["n"] if form == "jsonl" else row["n"]), str(row["status"])) for row in found]

    def asked(n: int, status: str, error: str = "x") -> Job:
        is_done = status == "COMPLETED"
        return Job(
            id=f"j{n}" if is_done else "",
            status=JobStatus(status),
            idempotency_key=f"k{n}",
            question="who?\r\n" if n < 2 else "what?",
            meta={"n": n, "question": "who?\r\n" if n < 2 else "what?"},
            error=None if is_done else InvalidRequest(error),
        )

    three = [asked(n, status) for n in range(3)]
    for error in ("no route", "no route", "a wrong key"):
        assert await one_run(*(asked(n, status, error) for n in range(3))) == [(str(n), status) for n in range(3)]
    if ending == "part":
        assert await one_run(asked(0, status)) == [(str(n), status) for n in range(3)]
        assert await one_run(asked(0, "COMPLETED")) == [("0", "COMPLETED"), ("1", status), ("2", status)]
    assert await one_run(asked(0, "COMPLETED"), *three[1:]) == [("0", "COMPLETED"), ("1", status), ("2", status)]
    assert await one_run(*(asked(n, "COMPLETED") for n in range(3))) == [(str(n), "COMPLETED") for n in range(3)]


async def test_table_has_a_row_a_question_after_any_end(tmp_path: Path) -> None:
    """A wrong key, then a question that the server refuses, and then all is well."""
    file = tmp_path / "q.csv"
    file.write_text("question,n\nwho?,1\nwhat?,2\nhow?,3\n")
    names = [tmp_path / f"a.{suffix}" for suffix in ("csv", "tsv", "jsonl")]
    words = ("run", str(file), "--on-doubt", "hold", *FAST, *(word for name in names for word in ("-o", str(name))))

    def found(name: Path) -> list[tuple[str, str]]:
        if name.suffix == ".jsonl":
            return [(row["meta"]["n"], row["status"]) for row in rows(name.read_text())]
        return [(row["n"], row["status"]) for row in csv_rows(name, "\t" if name.suffix == ".tsv" else ",")]

    async with Emulator(duration=0.0, answer_chars=100, keys=[KEY]) as server:
        for code, more, want, key in (
            (3, (), "STOPPED STOPPED STOPPED", "wrong"),
            (3, (), "STOPPED STOPPED STOPPED", "wrong"),
            (1, ("--limit", "1"), "REJECTED STOPPED STOPPED", KEY),
            (1, ("--limit", "1"), "REJECTED STOPPED STOPPED", KEY),
            (1, (), "REJECTED COMPLETED COMPLETED", KEY),  # a refusal is not asked again
        ):
            server.faults.clear()
            if "REJECTED" in want:
                server.faults.add("submit", faults.Status(400), match="who")
            done = await run_at(server, *words, *more, key=key)
            assert done.returncode == code, done.stderr
            assert ("The questions, without answers, are in " in done.stderr) is (key == "wrong")
            for name in names:
                assert found(name) == list(zip("123", want.split(), strict=True)), (name, done.stderr)


@pytest.mark.parametrize("suffix", ["csv", "xlsx"])
async def test_table_of_a_pilot_in_doubt_goes_on(tmp_path: Path, suffix: str) -> None:
    file, answers = tmp_path / "q.csv", tmp_path / f"a.{suffix}"
    file.write_text("question,n\nwho?,1\nwhat?,2\n")
    words = ("run", str(file), "--on-doubt", "hold", *FAST, "-o", str(answers))
    async with Emulator(duration=0.0, answer_chars=100) as server:
        server.faults.add("submit", faults.Drop(after_accept=True), match="who")
        for more, count in ((("--pilot", "1"), 1), ((), 2)):
            done = await run_at(server, *words, *more)
            assert done.returncode == 4, done.stderr
            cells = [row.cells for row in read_file(answers).read() if hasattr(row, "cells")]
            assert [row["status"] for row in cells] == ["IN_DOUBT", "COMPLETED"][:count]
    other = tmp_path / "other.csv"
    other.write_text("question,n\nwhy?,1\n")
    looked = await anyio.to_thread.run_sync(lambda: run("run", str(other), "--dry-run", "-o", str(answers)))
    assert (looked.returncode, "is not empty" in looked.stderr) == (2, True), "of another run"


async def test_rows_stay_as_they_finished_if_so_asked(tmp_path: Path) -> None:
    file, answers, sheet = table(tmp_path, 4), tmp_path / "a.csv", tmp_path / "a.xlsx"
    async with (
        Emulator(duration=lambda question: 3600.0 if " 0," in question else 0.0, answer_chars=300) as server,
        started(server, *plan(file, answers, sheet), "--as-finished") as process,
    ):
        await until(lambda: answers.exists() and len(csv_rows(answers)) == 3)
        server.advance(3600.0)
        code, said = await ending(process)
    assert code == 0, said
    found = [row["id"] for row in csv_rows(answers)]
    assert (sorted(found), found[-1]) == (["0000", "0001", "0002", "0003"], "0000")
    assert [row.cells["id"] for row in read_file(sheet).read() if hasattr(row, "cells")] == found


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--no-journal", "needs the journal"),
        ("--results=until-delivered", "needs --results keep"),
        ("--results=refetch", "needs --results keep"),
    ],
)
def test_file_written_at_the_end_needs_what_keeps_answers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], option: str, said: str
) -> None:
    file = table(tmp_path, 1)
    words = ["run", str(file), "--template", "About {company}", "-o", str(tmp_path / "a.csv")]
    assert main([*words, "-o", str(tmp_path / "a.xlsx"), option]) == 2
    assert f"a.xlsx: an Excel file is written at the end of a run, so it {said}" in capfd.readouterr().err
    assert os.listdir(tmp_path) == ["companies.csv"]


NAMES = ["id", "job_id", "status", "answer", "seconds"]


def form_of(kind: str) -> JsonLines | Delimited:
    if kind == "jsonl":
        return JsonLines()
    header = csv_text([], NAMES)
    places = {name: name for name in NAMES[1:]}
    return Delimited(NAMES, ",", has_mark=True, header=header, question="id", origin=["id"], **places)


def row_of(kind: str, number: int, answer: str = 'an, answer\r\n"of" lines', seconds: float | None = 1.5) -> bytes:
    if kind == "jsonl":
        facts = {"id": f"j{number}", "ok": True, "status": "COMPLETED", "idempotency_key": f"k{number}", "text": answer}
        facts["seconds"] = seconds
        return json.dumps(facts).replace(", ", ",").replace(": ", ":").encode() + b"\n"
    row = {"id": str(number), "job_id": f"j{number}", "status": "COMPLETED", "answer": answer, "seconds": seconds}
    return csv_text([row], NAMES, header=False).encode()


def opened(path: Path, kind: str) -> RowFile:
    return RowFile(str(path), form_of(kind), force=False, is_ours=lambda old: True)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_row_that_was_cut_off_anywhere_is_mended(tmp_path: Path, kind: str) -> None:
    whole = form_of(kind).head + b"".join(row_of(kind, number) for number in range(3))
    first = len(form_of(kind).head)
    for cut in range(1, len(whole) + 1):
        path = tmp_path / f"{cut}"
        path.write_bytes(whole[:cut])
        file = opened(path, kind)
        for number in (2, 0, 1):
            file.write(number, row_of(kind, number), key=f"k{number}" if kind == "jsonl" else "", job_id=f"j{number}")
            assert path.stat().st_size >= first + max(0, cut - first) // len(row_of(kind, 0)) * len(row_of(kind, 0))
        file.close("whole")
        assert path.read_bytes() == whole


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("ending", ["whole", "part"])
def test_rows_of_an_earlier_run_stay_until_all_come(tmp_path: Path, kind: str, ending: Ending) -> None:
    path = tmp_path / "a"
    path.write_bytes(form_of(kind).head + row_of(kind, 7) + row_of(kind, 1) + row_of(kind, 8))
    file = opened(path, kind)
    for number, answer in ((1, "changed"), (0, "new")):
        key = f"k{number}" if kind == "jsonl" else ""
        file.write(number, row_of(kind, number, answer), key=key, job_id=f"j{number}")
    file.close(ending)
    left = b"" if ending == "whole" else row_of(kind, 7) + row_of(kind, 8)
    assert path.read_bytes() == form_of(kind).head + row_of(kind, 0, "new") + row_of(kind, 1, "changed") + left


def test_whole_json_without_a_line_end_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for content in (
        '{"id": 1, "mine": "precious"}',
        '{"id":1,"mine":"precious"} ',
        row_of("jsonl", 1).decode() + '{"id":1}',
    ):
        path.write_text(content)
        with pytest.raises(Exception, match="is not empty"):
            opened(path, "jsonl")
        assert path.read_text() == content


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_link_to_a_file_of_answers_stays_a_link(tmp_path: Path, kind: str) -> None:
    (tmp_path / "shared").mkdir()
    path, link = tmp_path / "shared" / "a", tmp_path / "link"
    path.write_bytes(form_of(kind).head + row_of(kind, 1))
    link.symlink_to(path)
    file = opened(link, kind)
    for number in (1, 0):
        file.write(number, row_of(kind, number), key=f"k{number}" if kind == "jsonl" else "", job_id=f"j{number}")
    file.close("whole")
    assert link.is_symlink()
    assert path.read_bytes() == form_of(kind).head + row_of(kind, 0) + row_of(kind, 1)
    assert sorted(os.listdir(tmp_path)) == ["link", "shared"]
    assert os.listdir(tmp_path / "shared") == ["a"]


# --- reports ---------------------------------------------------------------------------------------------------------


REFUSED = Job(status=JobStatus.REJECTED, error=InvalidRequest("is empty"), meta={"2024": "x"})


def report(path: Path, form: OutputFormat, *, force: bool = False) -> Report:
    kind = ReportFolder if path.suffix == "" else Report
    return kind(str(path), form, Columns(["2024"]), "q.csv", None, force=force, as_finished=False)


@pytest.mark.parametrize("name", ["a.html", "a.md", "html/", "markdown/"])
async def test_report_in_which_nothing_was_accepted_is_replaced(tmp_path: Path, name: str) -> None:
    form: OutputFormat = "html" if "html" in name else "markdown"
    path = tmp_path / name
    for _ in range(2):
        again = report(path, form)
        await again.write(0, None, REFUSED)
        await again.close("whole")
    page = next(path.iterdir()) if path.is_dir() else path
    page.write_text(page.read_text() + "and a line of mine")
    if not path.is_dir():
        with pytest.raises(UsageError, match="is not empty"):
            report(path, form)


async def test_page_of_the_users_own_stays_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    first = report(folder, "html")
    for at in range(3):
        await first.write(at, None, REFUSED)
    await first.close("whole")
    mine = folder / "20261127.html"
    mine.write_text("<p>mine")
    again = report(folder, "html")
    await again.write(0, None, REFUSED)
    await again.close("whole")
    assert sorted(os.listdir(folder)) == ["00001.html", "20261127.html", "index.html"]
    assert mine.read_text() == "<p>mine"


async def test_sheet_whose_names_are_numbers_is_ours(tmp_path: Path) -> None:
    file, sheet = tmp_path / "q.csv", tmp_path / "a.xlsx"
    file.write_text("7,Why?\n8,How?\n9,Who?\n")
    words = ("run", str(file), "--no-header", "--question", "2", "-o", str(sheet), *FAST, "--yes")
    async with Emulator(duration=0.0, answer_chars=100) as server:
        for more in ((), (), ("--limit", "1")):
            done = await run_at(server, *words, *more)
            assert (done.returncode, server.ledger.created) == (0, 3), done.stderr
            rows = [
                [*row.cells.values()]
                for row in read_file(sheet, ReadOptions(header=False)).read()
                if hasattr(row, "cells")
            ]
            assert [row[:2] for row in rows] == [["1", "2"], ["7", "Why?"], ["8", "How?"], ["9", "Who?"]]


@pytest.mark.parametrize("name", ["a.xlsx", "a.parquet"])
async def test_table_with_a_column_answer_is_ours(tmp_path: Path, name: str) -> None:
    """The user's own answers are none of the run's, though a row has no other."""
    file, table = tmp_path / "q.csv", tmp_path / name
    file.write_text("q,answer\nWhy?,old\nHow?,old\n")
    words = ("run", str(file), "--question", "q", "-o", str(table), *FAST, "--yes")
    async with Emulator(duration=0.0, answer_chars=100) as server:
        server.faults.add("submit", "bad_request", times=1)
        first = await run_at(server, *words)
        done = await run_at(server, *words)
    assert "--force" not in done.stderr
    assert (first.returncode, done.returncode, server.ledger.created) == (1, 1, 1), first.stderr + done.stderr


async def test_other_files_are_finished_whatever_one_does(tmp_path: Path) -> None:
    class Broken(StreamOutput):
        def __init__(self) -> None:
            self.name = "broken"
            self.is_long = False

        async def write(self, at: int, line: int | None, job: Job) -> None: ...

        async def close(self, ending: Ending) -> int:
            raise ZeroDivisionError

    path = tmp_path / "a.csv"
    answers = Answers([str(path)], None, Columns(["id"]), source="q.csv", journal=None)
    answers._outputs.insert(0, Broken())
    for at in (1, 0):
        await answers.write(at, None, Job(id=f"j{at}", status=JobStatus.FAILED, meta={"id": str(at)}))
    with pytest.raises(ZeroDivisionError):
        await answers.close("whole")
    assert [row["id"] for row in csv_rows(path)] == ["0", "1"]


@pytest.mark.parametrize("form", ["html", "md", "xlsx", "parquet"])
async def test_ctrl_c_is_heard_while_a_report_is_written(tmp_path: Path, form: str) -> None:
    """It takes minutes with thousands of answers, and nothing else runs meanwhile."""
    file, answers, report, next_one = (table(tmp_path, 2), *(tmp_path / f"a.{each}" for each in ("csv", form, "htm")))
    words = plan(file, answers, report, next_one)
    async with Emulator(duration=0.0, answer_chars=300) as server:
        async with started(server, *words, program=(PROGRAM, "ctrl-c", f"{report}.new")) as process:
            code, said = await ending(process)
        assert (code, "Stopped by Ctrl-C.\n" in said) == (130, True), said
        assert f" Answers in {answers}.\n" in said
        assert "Run the same command again to resume" in said
        assert [path.exists() for path in (report, next_one, Path(f"{report}.new"))] == [False] * 3
        assert_whole(csv_rows(answers), 2)
        done = await run_at(server, *words)
        assert (done.returncode, server.ledger.created) == (0, 2), done.stderr
        assert report.exists()
        assert next_one.exists()
        report.unlink()
        exported = ("export", f"{file}.journal.db", "-o", str(report))
        async with started(server, *exported, program=(PROGRAM, "ctrl-c", f"{report}.new")) as process:
            code, said = await ending(process)
        assert (code, report.exists()) == (130, False), said


async def test_each_file_that_is_lost_is_told(tmp_path: Path) -> None:
    """And none of them is named as the place of the answers. Here folders take their names meanwhile."""
    file, answers, lost = table(tmp_path, 1), tmp_path / "a.csv", [tmp_path / "a.html", tmp_path / "a.xlsx"]
    async with Emulator(duration=3600.0, answer_chars=40_000) as server:
        async with started(server, *plan(file, answers, *lost)) as process:
            await until(lambda: server.ledger.created == 1)
            for path in lost:
                path.mkdir()
            server.advance(3600.0)
            code, said = await ending(process)
        for path in lost:
            path.rmdir()
        exported = ("export", f"{file}.journal.db", *(word for path in lost for word in ("-o", str(path))))
        done = await run_at(server, *exported)
    assert code == 75, said
    for path in lost:
        assert f"aiopplx: cannot write {path}: Is a directory" in said
    assert f" Answers in {answers}.\n" in said
    assert "-o report.html shows them whole" in said
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["a.xlsx", "a.parquet"])
async def test_report_that_fails_in_any_way_is_told(tmp_path: Path, name: str) -> None:
    """By the kind of the error: what a library says of it may have an answer in it."""

    class Failing(Columns):
        def row(self, job: Job) -> dict[str, Value]:
            raise ZeroDivisionError("an answer")

    path = tmp_path / name
    form: OutputFormat = "excel" if path.suffix == ".xlsx" else "parquet"
    report = Report(str(path), form, Failing(["id"]), "q.csv", None, force=False, as_finished=False)
    await report.write(0, None, REFUSED)
    with pytest.raises(OutputLost, match=rf"{name}: ZeroDivisionError$"):
        await report.close("whole")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", ["id,company\r\n1,b\r\n", "\ufeffid,job_id,status,answer\n1,j1,COMPLETED,b\n"])
def test_file_that_another_program_saved_is_not_ours(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode())
    seen: list[Old] = []
    with pytest.raises(Exception, match="is not empty"):
        RowFile(str(path), form_of("csv"), force=False, is_ours=lambda old: bool(seen.extend(old)) or True)
    assert path.read_bytes() == content.encode()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("a.xls", "a.xlsx"),
        ("a.PDF", "a.html"),
        ("my.a.docx", "my.a.html"),
        ("a.ods", "a.xlsx"),
        ("a.jsonl.gz", "a.jsonl"),
    ],
)
def test_output_of_an_unknown_form_is_refused_before_sending(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, nearest: str
) -> None:
    words = ["run", str(table(tmp_path, 1)), "--template", "About {company}", "--emulate"]
    assert main([*words, "-o", str(tmp_path / name)]) == 2
    assert f"-o {tmp_path / nearest} is the nearest" in capfd.readouterr().err
    assert os.listdir(tmp_path) == ["companies.csv"]


LONG = "a" * 247


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("companies.csv/", "names a folder, and"),
        (f"{LONG}.xlsx", "File name too long"),
        (f"{LONG}aa.csv", "File name too long"),
        ("folder.csv", "is a folder, which holds a report: --output-format html or markdown"),
    ],
)
def test_output_that_cannot_be_finished_is_refused_before_sending(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, why: str
) -> None:
    """A file is written under a longer name first; what is a file is no folder, and what is a folder no table."""
    (tmp_path / "folder.csv").mkdir()
    words = ["run", str(table(tmp_path, 1)), "--template", "About {company}", "--emulate"]
    assert main([*words, "-o", f"{tmp_path}/{name}"]) == 2
    said = capfd.readouterr().err
    assert why in said
    assert "1 done" not in said
    assert sorted(os.listdir(tmp_path)) == ["companies.csv", "folder.csv"]


def test_refused_tag_names_an_option_that_works(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "q.csv"
    file.write_text("question,tag\na?,news\nb?,news\n")
    assert main(["run", str(file), "--dry-run"]) == 2
    assert "; --tag COLUMN names another column, --tag - uses none" in capfd.readouterr().err
    assert main(["run", str(file), "--dry-run", "--tag", "-"]) == 0
    assert "keeps  tag      tags  none" in capfd.readouterr().err


@pytest.mark.parametrize("has_mark", [False, True])
def test_file_that_has_a_mark_keeps_it(tmp_path: Path, has_mark: bool) -> None:
    """Or has none: an earlier run may have begun it otherwise."""
    path = tmp_path / "a"
    mark = b"\xef\xbb\xbf"
    head = form_of("csv").head.removeprefix(mark)
    path.write_bytes(mark * has_mark + head + row_of("csv", 1))
    file = opened(path, "csv")
    for number in (0, 1):
        file.write(number, row_of("csv", number), key="", job_id=f"j{number}")
    file.close("whole")
    assert path.read_bytes() == mark * has_mark + head + row_of("csv", 0) + row_of("csv", 1)
