"""A file that holds no lines of questions is refused with what to type, and what holds them is read."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path

import anyio
import pytest
from _shell import FAST, lines, rows, run_at
from hypothesis import given
from hypothesis import strategies as st

from aiopplx.cli._exits import UsageError
from aiopplx.cli._kind import form_of
from aiopplx.cli._questions import BadLine, Questions
from aiopplx.emulator import Emulator

TABLE = 'id,question\n1,"Why did the Vasa sink,\nand when?"\n2,Who measured light?\n'
ASKED = ["Why did the Vasa sink,\nand when?", "Who measured light?"]

# (name, content, what the one sentence says). Each was taken for questions before.
OTHER_KINDS = [
    ("q.csv", TABLE, "is a table"),
    ("q.txt", TABLE, "is a table"),
    ("q.csv", "Why?\nHow, and when?\n", "is a table"),
    ("q.txt", "question\nWhy?\n", "is a table"),
    ("q.txt", '"Question"\n"Why,\nand how?"\n', "is a table"),
    ("q.txt", "\ufeffprompt;company\nWhy?;Acme\n", "delimiter=';'"),
    ("q.tsv", "a\tb\n1\t2\n", "is a table"),
    ("q.txt", "company\tcountry\nAcme\tSpain\n", "is a table"),
    ("q.txt", "id|query\n1|Why?\n", "delimiter='|'"),
    ("q.json", '["one", "two"]', "jq -c '.[]' "),
    ("q.txt", '["one", "two"]\n', "jq -c '.[]' "),
    ("q.jsonl", '[{"question": "one"}]\n', "jq -c '.[]' "),
    ("q.jsonl", '[\n  "one",\n  "two"\n]\n', "jq -c '.[]' "),
    ("q.txt", '[\n  "one",\n  "two"\n]\n', "jq -c '.[]' "),
    ("q.json", '{\n  "question": "one"\n}\n', "jq -c . "),
    ("q.txt", '{"question": "one",\n "tag": 1}\n', "jq -c . "),
    ("q.jsonl", '{"search_domain_filter": [\n "a.org"\n], "question": "one"}\n', "jq -c . "),
    ("q.txt", "Why?\rHow?\rWhen?", "end with CR"),
    ("q.txt", "Why?\x85How?\x85", "end with U+0085"),
    ("q.txt", "Why?\u2028How?\n", "end with U+2028"),
    ("q.txt", "Why?\fHow?\n", "end with U+000C"),
    ("q.jsonl", '"Why?"\r"How?"\r', "end with CR"),
    ("q.txt", "Why?\nHow?".encode("utf-16"), "iconv -f UTF-16 -t UTF-8"),
    ("q.txt", "Why?\nHow?".encode("utf-16-le"), "iconv -f UTF-16LE"),
    ("q.txt", "Why?\nHow?".encode("utf-16-be"), "iconv -f UTF-16BE"),
    ("q.txt", "Why?".encode("utf-32"), "iconv -f UTF-32"),
    ("q.xlsx", b"PK\x03\x04\x14\x00\x06\x00", "a spreadsheet"),
    ("q.txt", b"PK\x03\x04rest\nrest", "a zip archive"),
    ("q.xls", b"\xd0\xcf\x11\xe0\xa1\xb1", "a spreadsheet"),
    ("q.pdf", b"%PDF-1.7\nstream", "is a PDF"),
    ("q.txt", b"\x1f\x8b\x08\x00abc", "gzip"),
    ("q.db", b"SQLite format 3\x00", "SQLite"),
    ("q.txt", b"Why?\x00\x01\n", "not a text file"),
    ("q.txt", b"Why?\n\x01\xff\xfe\n", "not a text file"),
    ("q.md", "# Brief\n\nWhat is known of the Vasa?\n", "is Markdown"),
    ("q.txt", "# Brief\n\nWhat is known\n\n## Scope\n\nThe hull.\n", "is Markdown"),
    ("q.txt", "Brief\n=====\n\nWhat is known?\n", "is Markdown"),
    ("q.txt", "What is this?\n```\ncode\n```\n", "is Markdown"),
    ("q.txt", "| a | question |\n|---|---|\n| 1 | Why? |\n", "is Markdown"),
    ("q.html", "Why?\n", "is HTML"),
    ("q.txt", "<!DOCTYPE html>\n<p>Why?\n", "is HTML"),
    ("q.yaml", "- question: Why?\n", "is YAML"),
    ("q.ipynb", "Why?\n", "a notebook"),
    ("q.txt", 'Why?\n{"question": "How?"}\n', "give --format jsonl"),
    ("q.txt", '# head\n{"question": "How?"}\n', "give --format jsonl"),
]

# (name, content, what is asked): what looks a little like another kind, and is not.
QUESTIONS = [
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
    ("q.json", '"Why?"\n{"question": "How?"}\n', ["Why?", {"question": "How?"}]),
    ("q.jsonl", '"a\u2028b"\n', ["a\u2028b"]),
    ("q.ndjson", '{"question": "Why,\\nhow?"}\n', [{"question": "Why,\nhow?"}]),
]


async def read(path: Path, **options: object) -> tuple[list[object], list[BadLine], Questions]:
    bad: list[BadLine] = []

    async def on_bad(line: BadLine, before: int) -> None:
        bad.append(line)

    questions = Questions(str(path), on_bad=on_bad, **options)  # type: ignore[arg-type] - options of many types
    try:
        await questions.open()
        return [item async for item in questions], bad, questions
    finally:
        await questions.close()


def saved(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(("name", "content", "said"), OTHER_KINDS)
async def test_other_kind_of_file_is_refused_in_one_sentence(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    path = saved(tmp_path, name, content)
    with pytest.raises(UsageError) as refused:
        await read(path)
    message = str(refused.value)
    assert said in message
    assert "\n" not in message
    assert str(path) in message


@pytest.mark.parametrize(("name", "content", "asked"), QUESTIONS)
async def test_questions_that_look_odd_are_read(tmp_path: Path, name: str, content: str, asked: list[object]) -> None:
    items, bad, _ = await read(saved(tmp_path, name, content))
    assert (items, bad) == (asked, [])


@pytest.mark.parametrize("name", ["q.csv", "q.md", "q.yaml", "q.txt"])
async def test_named_format_overrules_the_guess(tmp_path: Path, name: str) -> None:
    content = 'question,answer\n## Why?\n{"a": 1}\n[1]\n'
    items, bad, _ = await read(saved(tmp_path, name, content), form="text")
    assert (items, bad) == (["question,answer", '{"a": 1}', "[1]"], [])


@pytest.mark.parametrize("content", ["Why?\x85How?", "Why?".encode("utf-16"), b"a\x00b"])
async def test_named_format_does_not_make_text_of_other_bytes(tmp_path: Path, content: str | bytes) -> None:
    with pytest.raises(UsageError):
        await read(saved(tmp_path, "q.txt", content), form="text")


@pytest.mark.parametrize("late", ["Why?\u2028How?", "Why?\rHow?", '{"question": "How?"}'])
async def test_odd_line_far_down_is_refused_alone(tmp_path: Path, late: str) -> None:
    lines_before = [f"Question {number}: {'x' * 70}?" for number in range(1_000)]
    items, bad, _ = await read(saved(tmp_path, "q.txt", "\n".join([*lines_before, late, "Last?"])))
    assert items == [*lines_before, "Last?"]
    assert [line.line for line in bad] == [1_001]


@given(st.binary(min_size=1, max_size=300), st.sampled_from(["q.txt", "q.jsonl", "q", "q.csv"]))
def test_file_of_any_bytes_is_read_or_refused(content: bytes, name: str) -> None:
    try:
        assert form_of(name, content.split(b"\n"), "auto") in ("text", "jsonl")
    except UsageError as refused:
        assert "\n" not in str(refused)  # noqa: PT017 - both ends are right


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029"))), st.data())
def test_long_json_lines_cut_anywhere_are_not_refused(texts: list[str], data: st.DataObject) -> None:
    head = b"\n".join(json.dumps({"question": text}).encode() for text in ["first", *texts])
    cut = head[: data.draw(st.integers(1, len(head)))].rpartition(b"\n")[0] or head
    assert form_of("q.jsonl", cut.split(b"\n"), "auto") == "jsonl"


@pytest.mark.parametrize(
    ("name", "content", "asked"),
    [
        ("q.csv", TABLE, ASKED),
        ("a table.csv", "\ufeff" + TABLE, ASKED),
        ("q.tsv", "n\tPrompt\n1\tWhy, how?\n", ["Why, how?"]),
        ("q.txt", "id;query\n1;Why?\n", ["Why?"]),
        ("q.csv", "Why?\n", ["Why?"]),
    ],
)
async def test_command_that_is_printed_makes_questions_of_a_table(
    tmp_path: Path, name: str, content: str, asked: list[str]
) -> None:
    await check_command(saved(tmp_path, name, content), r"columns: (python3 .*), or give", asked)


@pytest.mark.parametrize("end", ["\r", "\x85", "\u2028", "\f"])
async def test_command_that_is_printed_mends_line_ends(tmp_path: Path, end: str) -> None:
    await check_command(
        saved(tmp_path, "q.txt", end.join(["Why?", "How?"])), r"of them: (python3 .*)", ["Why?", "How?"]
    )


async def check_command(path: Path, pattern: str, asked: list[str]) -> None:
    with pytest.raises(UsageError) as refused:
        await read(path)
    found = re.search(pattern, str(refused.value))
    assert found is not None
    await anyio.run_process(found[1], cwd=path.parent, stderr=None)
    made = next(name for name in os.listdir(path.parent) if name.startswith("questions."))
    items, bad, _ = await read(path.parent / made)
    assert (items, bad) == (asked, [])


@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20), st.integers()),
        min_size=1,
        max_size=5,
    )
)
def test_table_with_a_question_column_is_never_taken_for_text(cells: list[tuple[str, int]]) -> None:
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("question", "n"), *cells])
    with pytest.raises(UsageError):
        form_of("q", table.getvalue().encode().split(b"\n"), "auto")


async def test_remarks_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    file = saved(tmp_path, "q.txt", "Why?\n#1 cause of bridge failures?\n\n# another\nHow?\n")
    async with Emulator(duration=0.0, answer_chars=200) as server:
        done = await run_at(server, "run", str(file), "--no-journal", *FAST)
    assert sorted(lines(rows(done.stdout))) == [1, 5]
    assert "2 skipped, the first is line 2: #1 cause of bridge failures?" in done.stderr


async def test_remarks_before_the_first_question_count_too(tmp_path: Path) -> None:
    _, _, questions = await read(saved(tmp_path, "q.txt", "# one\n\n# two\nWhy?\n# three"))
    assert questions.remarks == 3
    assert questions.first_remark is not None
    assert questions.first_remark.line == 1


async def test_table_sends_nothing_and_makes_no_journal(tmp_path: Path) -> None:
    file = saved(tmp_path, "q.csv", TABLE)
    async with Emulator(duration=0.0) as server:
        done = await run_at(server, "run", str(file), "-o", str(tmp_path / "answers.jsonl"))
        piped = await run_at(server, "run", "-", "--no-journal", stdin=TABLE)
        assert server.ledger.created == 0
    assert [done.returncode, piped.returncode] == [2, 2]
    assert done.stdout == piped.stdout == ""
    assert done.stderr.count("\n") == piped.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["q.csv"]
