"""What a file is: rightly read, or refused in one sentence that says what to type, with nothing sent."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from pathlib import Path

import pytest
from _shell import FAST, lines, rows, run_at
from hypothesis import given
from hypothesis import strategies as st

from aiopplx.cli._lines import Lines
from aiopplx.emulator import Emulator
from aiopplx.tables import AskOptions, ReadOptions, TableError, look, read_file, text_format

TABLE = 'id,question\n1,"Why did the Vasa sink,\nand when?"\n2,Who measured light?\n'
ASKED = ["Why did the Vasa sink,\nand when?", "Who measured light?"]

# (name, content, what the one sentence says)
OTHER_KINDS = [
    ("q.csv", "Why?\nHow, and when?\n", "has no header"),
    ("q.tsv", "a\tb\n1\t2\n", "which column"),
    ("q.txt", "company\tcountry\nAcme\tSpain\n", "which column"),
    ("q.txt", "company,country\nAcme,Spain\n", "looks like a table"),
    ("q.txt", 'company,note\nAcme,"two\nlines"\n', "looks like a table"),
    ("q.txt", 'company\tnote\nAcme\t"two\nlines"\nVasa\t\n', "which column"),
    ("q.txt", "company\tnote\nAcme\t\nVasa\ta\n", "which column"),
    ("q.txt", "company\tnote\nAcme\nVasa\ta\n", "looks like a table"),
    ("q.txt", 'Company Name\tnote\r\nAcme\t"two\nlines"\r\nVasa\ta\r\n'.encode("utf-16"), "which column"),
    ("q.txt", "Why?\x85How?\x85", "has a line end in it"),
    ("q.txt", "Why?\fHow?\n", "has a line end in it"),
    ("q.txt", "Why?\u2028How?\n", "has a line end in it"),
    ("q.txt", "Why?\u2029How?\n", "has a line end in it"),
    ("q.xlsx", b"PK\x03\x04\x14\x00\x06\x00", "a damaged archive"),
    ("q.txt", b"PK\x03\x04rest\nrest", "a damaged archive"),
    ("q.xls", b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Excel"),
    ("q.pdf", b"%PDF-1.7\nstream", "is a PDF"),
    ("q.txt", b"\x1f\x8b\x08\x00abc", "gzip"),
    ("q.db", b"SQLite format 3\x00", "is a database"),
    ("q.txt", b"Why?\x00\x01\n", "is not text"),
    ("q.txt", b"Why?\n\x01\xff\xfe\n", "is not UTF-8"),
    ("q.txt", "# Brief\n\nWhat is known\n\n## Scope\n\nThe hull.\n", "is Markdown"),
    ("q.txt", "Brief\n=====\n\nWhat is known?\n", "is Markdown"),
    ("q.txt", "What is this?\n```\ncode\n```\n", "is Markdown"),
    ("q.txt", "| a | question |\n|---|---|\n| 1 | Why? |\n", "is Markdown"),
    ("q.html", "Why?\n", "is HTML"),
    ("q.txt", "<!DOCTYPE html>\n<p>Why?\n", "is HTML"),
    ("q.yaml", "- question: Why?\n", "is YAML"),
    ("q.ipynb", "Why?\n", "a notebook"),
    ("q.tex", "Why?\n", "is LaTeX"),
    ("q.txt", "{\\rtf1\\ansi Why?\n", "an RTF document"),
    ("q.txt", 'Why?\n{"question": "How?"}\n', "has JSON objects among its lines"),
    ("q.txt", '# head\n{"question": "How?"}\n', "has JSON objects among its lines"),
]

# (name, content, what is asked): of each of these the lines, or halves of them, were asked once, or it was refused.
READ = [
    ("q.csv", TABLE, ASKED),
    ("q.txt", TABLE, ASKED),
    ("q.txt", "question\nWhy?\n", ["Why?"]),
    ("q.txt", '"Question"\n"Why,\nand how?"\n', ["Why,\nand how?"]),
    ("q.txt", "\ufeffprompt;company\nWhy?;Acme\n", ["Why?"]),
    ("q.txt", "id|query\n1|Why?\n", ["Why?"]),
    ("q.txt", "\tquestion\n0\tWhy?\n", ["Why?"]),
    ("q.txt", "\tWhy?\n\tHow?\t\n", ["Why?", "How?"]),
    ("q.txt", "Why?\nWhat is 1\t2?\nHow?\n", ["Why?", "What is 1\t2?", "How?"]),
    ("q.json", '["one", "two"]', ["one", "two"]),
    ("q.txt", '["one", "two"]\n', ["one", "two"]),
    ("q.jsonl", '[{"question": "one"}]\n', ["one"]),
    ("q.jsonl", '[\n  "one",\n  "two"\n]\n', ["one", "two"]),
    ("q.json", '{\n  "question": "one"\n}\n', ["one"]),
    ("q.txt", '{"question": "one",\n "tag": 1}\n', ["one"]),
    ("q.jsonl", '{"labels": [\n "a.org"\n], "question": "one"}\n', ["one"]),
    ("q.txt", "Why?\rHow?\rWhen?", ["Why?", "How?", "When?"]),
    ("q.jsonl", '"Why?"\r"How?"\r', ["Why?", "How?"]),
    ("q.txt", "Why?\nHow?".encode("utf-16"), ["Why?", "How?"]),
    ("q.txt", "Why?\nHow?".encode("utf-16-le"), ["Why?", "How?"]),
    ("q.txt", "Why?\nHow?".encode("utf-16-be"), ["Why?", "How?"]),
    ("q.txt", "Why?".encode("utf-32"), ["Why?"]),
    ("q.md", "# Brief\n\nWhat is known of the Vasa?\n", ["# Brief\n\nWhat is known of the Vasa?"]),
    # What looks a little like another kind, and is not.
    ("q.txt", "Compare Paris, London and Rome.\nWhy?\n", ["Compare Paris, London and Rome.", "Why?"]),
    ("q.txt", "Vasa\nMary Rose\n", ["Vasa", "Mary Rose"]),
    ("q.txt", "Why, how?\nWhen, where?\n", ["Why, how?", "When, where?"]),
    ("q.txt", "[1] Why?\n[2] How?\n", ["[1] Why?", "[2] How?"]),
    ("q.txt", '"To be or not to be?"\n"Why?"\n', ['"To be or not to be?"', '"Why?"']),
    ("q.txt", "- Why?\n- How?\n* When?\n1. Where?\n", ["- Why?", "- How?", "* When?", "1. Where?"]),
    ("q.txt", "## part\nWhy?\n## part\nHow?\n", ["Why?", "How?"]),
    ("q.txt", "Why?\r\nHow?\r\n", ["Why?", "How?"]),
    ("q.txt", "\ufeffWhy?\n", ["Why?"]),
    ("q.txt", "Question 1: why?\nQuestion 2: how?\n", ["Question 1: why?", "Question 2: how?"]),
    ("q.txt", "What does a > b | c mean?\n", ["What does a > b | c mean?"]),
    ("q.txt", "What is {x} in Python?\n{x} why?\n", ["What is {x} in Python?", "{x} why?"]),
    ("q.txt", "Ärger, Öl und Übermut?\n", ["Ärger, Öl und Übermut?"]),
    ("q.questions", "Why?\n", ["Why?"]),
    ("q.json", '"Why?"\n{"question": "How?"}\n', ["Why?", "How?"]),
    ("q.jsonl", '"a\u2028b"\n', ["a\u2028b"]),
    ("q.ndjson", '{"question": "Why,\\nhow?"}\n', ["Why,\nhow?"]),
]


def saved(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def asked(path: Path, **options: object) -> list[str]:
    seen = look(read_file(path, ReadOptions(**options)), AskOptions())  # type: ignore[arg-type] - options of many types
    assert seen.bad == []
    return [request.asked for request in seen.requests()]


@pytest.mark.parametrize(("name", "content", "said"), OTHER_KINDS)
def test_other_kind_of_file_is_refused_in_one_sentence(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    with pytest.raises(TableError) as refused:
        asked(saved(tmp_path, name, content))
    message = str(refused.value)
    assert said in message
    assert "\n" not in message
    assert name in message


@pytest.mark.parametrize(("name", "content", "expected"), READ)
def test_questions_in_any_form_are_read_whole(
    tmp_path: Path, name: str, content: str | bytes, expected: list[str]
) -> None:
    assert asked(saved(tmp_path, name, content)) == expected


@pytest.mark.parametrize("name", ["q.csv", "q.md", "q.yaml", "q.txt"])
def test_named_format_overrules_the_guess(tmp_path: Path, name: str) -> None:
    content = 'question,answer\n## Why?\n{"a": 1}\n[1]\n'
    assert asked(saved(tmp_path, name, content), format="text") == ["question,answer", '{"a": 1}', "[1]"]


@pytest.mark.parametrize("late", ["Why?\x85How?", "Why?\fHow?", "Why?\u2028How?", '{"question": "How?"}'])
def test_odd_line_far_down_is_found_in_the_look(tmp_path: Path, late: str) -> None:
    before = [f"Question {number}: {'x' * 70}?" for number in range(1_000)]
    seen = look(read_file(saved(tmp_path, "q.txt", "\n".join([*before, late, "Last?"]))), AskOptions())
    assert [row.place for row in seen.bad] == ["line 1001"]
    assert seen.count == 1_001


@given(st.lists(st.text(), max_size=20), st.sampled_from(["", ".txt", ".jsonl", ".csv", ".md"]))
def test_text_of_any_lines_is_known_or_refused(texts: list[str], suffix: str) -> None:
    try:
        assert text_format("q", suffix, texts) in ("text", "json", "csv", "tsv", "brief")
    except TableError as refused:
        assert refused.advice is not None  # noqa: PT017 - both ends are right


@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20), st.integers()),
        min_size=1,
        max_size=5,
    )
)
def test_table_with_a_question_column_is_never_text(cells: list[tuple[str, int]]) -> None:
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("question", "n"), *cells])
    found = [line for line in (line.strip() for line in table.getvalue().split("\n")) if line]
    assert text_format("q", "", found) == "csv"


async def test_remarks_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    content = "Why?\n#1 cause of bridge failures?\n\n# another\nHow?\n"
    said = "2 lines that begin with # left out, the first is line 2: #1 cause of bridge failures?"
    async with Emulator(duration=0.0, answer_chars=200) as server:
        done = await run_at(server, "run", str(saved(tmp_path, "q.txt", content)), "--no-journal", *FAST)
        piped = await run_at(server, "run", "-", "--no-journal", *FAST, stdin=content)
    for each in (done, piped):
        assert sorted(lines(rows(each.stdout))) == [1, 5]
        assert said in each.stderr


async def test_refused_file_sends_nothing_and_makes_no_journal(tmp_path: Path) -> None:
    file = saved(tmp_path, "q.csv", "company,country\nAcme,Spain\n")
    async with Emulator(duration=0.0) as server:
        done = await run_at(server, "run", str(file), "-o", str(tmp_path / "answers.jsonl"))
        piped = await run_at(server, "run", "-", "--no-journal", stdin=file.read_text())
        assert server.ledger.created == 0
    assert [done.returncode, piped.returncode] == [2, 2]
    assert done.stdout == piped.stdout == ""
    assert done.stderr.count("\n") == piped.stderr.count("\n") == 1
    assert "--question COLUMN names it" in done.stderr
    assert "--input-format csv reads it as one" in piped.stderr
    assert os.listdir(tmp_path) == ["q.csv"]


# --- the rows of a table on the command line -------------------------------------------------------------------------


async def test_columns_of_a_table_come_back_unsent(tmp_path: Path) -> None:
    file = saved(tmp_path, "q.csv", "company,model,year\nACME,Civic,2025\nB & Söhne,sonar-pro,2024\n")
    words = ("--template", "What did {company} do in {year}?", "--keep", "model,year", "--in-order")
    async with Emulator(duration=0.0, answer_chars=200) as server:
        done = await run_at(server, "run", str(file), *words, *FAST)
        sent = [json.loads(job.body)["request"]["model"] for job in server.ledger.jobs]
    found = rows(done.stdout)
    assert [row["question"] for row in found] == ["What did ACME do in 2025?", "What did B & Söhne do in 2024?"]
    assert [row["meta"] for row in found] == [
        {"model": "Civic", "year": "2025"},
        {"model": "sonar-pro", "year": "2024"},
    ]
    assert sent == ["sonar-deep-research"] * 2
    assert 'the column "model" is kept, not sent; --fields model sends it' in done.stderr


async def test_fields_that_are_named_or_set_are_sent(tmp_path: Path) -> None:
    file = saved(tmp_path, "q.csv", "Frage;model;n\nWarum?;sonar-pro;r1\nWie?;;r2\n")
    words = ("--question", "Frage", "--tag", "n", "--fields", "model", "--set", "reasoning_effort=high")
    async with Emulator(duration=0.0, answer_chars=200) as server:
        done = await run_at(server, "run", str(file), *words, "--in-order", *FAST)
        sent = [json.loads(job.body)["request"] for job in server.ledger.jobs]
    assert [row["tag"] for row in rows(done.stdout)] == ["r1", "r2"]
    assert sorted((body["model"], body["reasoning_effort"]) for body in sent) == [
        ("sonar-deep-research", "high"),
        ("sonar-pro", "high"),
    ]


async def test_objects_are_sent_as_somebody_says(tmp_path: Path) -> None:
    asked = {"question": "Where does the tram stop?", "stop": "Central", "model": "T-3"}
    file = saved(tmp_path, "q.jsonl", json.dumps(asked) + '\n{"question": "How?"}\n')
    async with Emulator(duration=0.0, answer_chars=200) as server:
        refused = await run_at(server, "run", str(file), *FAST)
        piped = await run_at(server, "run", "-", "--in-order", *FAST, stdin=file.read_text())
        looked = await run_at(server, "run", str(file), "--dry-run", "--fields", "stop", "--set", "search_mode=sec")
        read = await run_at(server, "run", str(file), "--dry-run", "--json", "--fields", "stop")
        before = [json.loads(job.body)["request"] for job in server.ledger.jobs]
        done = await run_at(server, "run", str(file), "--fields", "none", "--in-order", *FAST)
        sent = [json.loads(job.body)["request"] for job in server.ledger.jobs][1:]
    assert (refused.returncode, looked.returncode, done.returncode) == (2, 0, 0), done.stderr
    assert (
        "q.jsonl: the columns stop, model have names of request fields, and nobody has said whether to send them;"
        " --fields stop,model sends them, --fields none keeps them unsent" in refused.stderr
    )
    assert [body["messages"][-1]["content"] for body in before] == ["How?"], "of a stream, the row that is sure"
    assert 'line 1: rejected: has "stop", which is also the name of a request field; --fields all' in piped.stderr
    assert "  sends  stop, search_mode=sec if a row has none\n" in looked.stderr
    assert json.loads(read.stdout)["sends"] == ["stop"]
    assert [("stop" in body, body["model"]) for body in sent] == [(False, "sonar-deep-research")] * 2
    assert [row["meta"] for row in rows(done.stdout)] == [{"stop": "Central", "model": "T-3"}, {}]


async def test_bad_rows_stop_a_run_unless_left_out(tmp_path: Path) -> None:
    file = saved(tmp_path, "q.csv", "id,question\n1,Why?\n2,\n3,a,b\n4,How?\n5,\n6,Who?\n7,When?\n")
    async with Emulator(duration=0.0, answer_chars=200) as server:
        refused = await run_at(server, "run", str(file), *FAST)
        assert server.ledger.created == 0
        done = await run_at(server, "run", str(file), "--skip-bad", "--in-order", *FAST)
        assert server.ledger.created == 4
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "q.csv: CSV (comma, UTF-8), 7 rows; columns id, question\n"
        "3 rows cannot be used:\n"
        '  lines 3, 6: "question" is empty\n'
        "  line 4: 3 cells, the header has 2; a cell with a comma needs quotes\n"
        "Nothing was sent. --skip-bad asks the other 4.\n"
    )
    assert [(row["line"], row["status"] == "REJECTED") for row in rows(done.stdout)] == [
        (2, False),
        (3, True),
        (4, True),
        (5, False),
        (6, True),
        (7, False),
        (8, False),
    ]
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("content", "words", "expected"),
    [
        (TABLE, (), ASKED),
        ("Why?\tn\nHow?\tm\n", ("--no-header", "--question", "1"), ["Why?", "How?"]),
        ("Report\n\nid,prompt\n1,Why?\n2,How?\n", ("--input-format", "csv", "--skip-lines", "2"), ["Why?", "How?"]),
        ('[\n {"question": "Why?"}\n]\n', (), ["Why?"]),
        ("# A brief\n\nof lines\n", ("--input-format", "brief"), ["# A brief\n\nof lines"]),
        ("a~question\n1~Why?\n", ("--input-format", "csv", "--delimiter", "~"), ["Why?"]),
        ('"one"\n{"question": "two", "n": 1}\n', ("--input-format", "jsonl"), ["one", "two"]),
        ('{"prompt": "one"}\n{"prompt": "two", "reasoning_effort": "low"}\n', ("--fields", "all"), ["one", "two"]),
    ],
)
async def test_stdin_of_any_kind_is_read_like_a_file(content: str, words: tuple[str, ...], expected: list[str]) -> None:
    async with Emulator(duration=0.0, answer_chars=200) as server:
        done = await run_at(server, "run", "-", *words, "--in-order", *FAST, stdin=content)
    assert done.returncode == 0, done.stderr
    assert [row["question"] for row in rows(done.stdout)] == expected


async def test_stdin_that_is_kept_is_readable_by_nobody_else(tmp_path: Path) -> None:
    descriptor = os.open(saved(tmp_path, "in", TABLE), os.O_RDONLY)
    path = await Lines(descriptor, "stdin").save()
    os.close(descriptor)
    kept = os.open(path, os.O_RDONLY)
    os.unlink(path)
    assert stat.S_IMODE(os.fstat(kept).st_mode) == 0o600
    assert os.read(kept, 1_000) == TABLE.encode()
    os.close(kept)
