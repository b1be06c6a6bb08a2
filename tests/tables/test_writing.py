"""Rows as files: what goes in comes out, formulas do not run, and what does not fit is counted."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx.tables._writing import LONGEST_CELL, csv_text, disarmed, is_cut, write_excel, write_parquet

COLUMNS = ["company", "phone", "answer", "cost"]
ROWS: list[dict[str, Any]] = [
    {"company": "=ACME", "phone": "+46 8 123", "answer": "=HYPERLINK(1)", "cost": 1.5},
    {"company": "Müller, & Söhne", "phone": None, "answer": 'a "b"\n\nc', "cost": None},
    {"company": "-5", "phone": "", "answer": "@SUM(1)", "cost": 2},
]


HIDDEN = st.text(st.sampled_from("\0\x1b \t\r\n\u00a0\u200b\u202e\ufeff"), max_size=3)


@given(HIDDEN, st.sampled_from("=+-@\uff1d\uff0b\uff0d\uff20"), st.text(max_size=5))
def test_formulas_of_a_model_are_disarmed_whatever_hides_them(hidden: str, sign: str, rest: str) -> None:
    written = csv_text([{"answer": f"{hidden}{sign}{rest}"}], ["answer"], header=False)
    ((cell,),) = csv.reader(io.StringIO(written, newline=""))
    assert cell.startswith("'")
    assert disarmed(f"a{sign}1") == f"a{sign}1"
    assert "\x1b" not in cell


@pytest.mark.parametrize(
    "formula", ["=HYPERLINK(1)", "@SUM(1)", "\uff1d1+1", "+HYPERLINK(1)", "-1+cmd|'/c calc'!A0", "-(HYPERLINK(1))"]
)
@pytest.mark.parametrize("before", [";", "; ", ",", "\t", "\n", "\r\n", "\u2028", ';"', '\n "'])
def test_formulas_within_a_text_are_disarmed_too(before: str, formula: str) -> None:
    """Excel splits at the character of its country, whatever the file was written with, and its quotes then fail."""
    assert disarmed(f"a{before}{formula}") == f"a{before}'{formula}"


@pytest.mark.parametrize(
    "text",
    [
        "Two:\n- one (2023)\n- two, -5 %\n+ three; +3 | x",
        "a\n---\n| x |\n|---|\n",
        "Why, @home? a-b, c = d (e)",
        "\n".join(["x"] * 3),
    ],
)
def test_bullets_rulers_and_numbers_are_no_formulas(text: str) -> None:
    assert disarmed(text) == text.replace(", @", ", '@")


@pytest.mark.parametrize("text", ["\n", "\t", ", ", ", -", ";", "\n-", ',"', "\n+("])
def test_any_answer_is_disarmed_in_linear_time(text: str) -> None:
    """At a quadratic one these would take minutes."""
    assert len(str(disarmed(text * 200_000))) >= len(text) * 200_000


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_own_columns_go_back_as_they_came(delimiter: str) -> None:
    text = csv_text(ROWS, COLUMNS, delimiter=delimiter)
    back = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    assert [row["company"] for row in back] == ["=ACME", "Müller, & Söhne", "-5"]
    assert [row["phone"] for row in back] == ["+46 8 123", "", ""]
    assert [row["answer"] for row in back] == ["'=HYPERLINK(1)", 'a "b"\n\nc', "'@SUM(1)"]


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=30)


@given(st.lists(st.fixed_dictionaries({"a": CELL, "b": CELL}), max_size=8), st.sampled_from([",", ";", "\t", "|"]))
def test_any_cells_survive_a_delimited_file(rows: list[dict[str, str]], delimiter: str) -> None:
    text = csv_text(rows, ["a", "b"], delimiter=delimiter, written=frozenset())
    assert list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)) == rows


def test_excel_cells_are_text_and_numbers_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    assert write_excel(str(path), ROWS, COLUMNS, [{"n": 1, "title": "=x"}], ["n", "title"]) == (0, 0)
    book = openpyxl.load_workbook(path)
    assert book.sheetnames == ["Answers", "Sources"]
    cells = list(book["Answers"].iter_rows(values_only=True))
    assert cells[0] == tuple(COLUMNS)
    assert cells[1] == ("=ACME", "+46 8 123", "=HYPERLINK(1)", 1.5)
    assert {cell.data_type for cell in book["Answers"]["C"][1:]} == {"s"}
    assert book["Answers"].freeze_panes == "A2"


@pytest.mark.parametrize("letter", ["x", "\N{GRINNING FACE}"])
def test_answer_too_long_for_a_cell_is_cut(tmp_path: Path, letter: str) -> None:
    path = tmp_path / "a.xlsx"
    answer = "\n\n".join(letter * 500 for _ in range(100))
    assert write_excel(str(path), [{"answer": answer}, {"answer": "short"}], ["answer"]) == (1, 0)
    kept = openpyxl.load_workbook(path)["Answers"]["A2"].value
    assert isinstance(kept, str)
    assert len(kept.encode("utf-16-le")) // 2 <= LONGEST_CELL
    assert kept.endswith(f"[cut here: {len(answer):,} characters; the HTML or Markdown report has all of it]")


@pytest.mark.parametrize("write", [write_excel, write_parquet])
def test_full_disk_is_an_error_of_the_system(write: Callable[..., object]) -> None:
    """xlsxwriter has an error of its own for it, which the command line did not know."""
    with pytest.raises(OSError, match=r"No space|Errno 28"):
        write("/dev/full", ROWS, COLUMNS)


def test_rows_that_a_sheet_does_not_hold_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    many = [{"answer": str(number)} for number in range(12)]
    assert write_excel(str(path), many[:3], ["answer"], many, ["answer"], longest=10) == (0, 3)
    book = openpyxl.load_workbook(path)
    assert (book["Answers"].max_row, book["Sources"].max_row) == (4, 10)
    assert book["Sources"].auto_filter.ref == "A1:A10"


@pytest.mark.parametrize(("text", "cut"), [("x" * LONGEST_CELL, False), ("\N{GRINNING FACE}" * 20_000, True)])
def test_cell_is_measured_as_excel_does(text: str, cut: bool) -> None:
    assert is_cut(text) is cut


def test_excel_takes_control_characters_and_halves(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    write_excel(str(path), [{"answer": "a\x00\x01\x0b\ufffe b"}], ["answer"])
    assert str(openpyxl.load_workbook(path)["Answers"]["A2"].value).startswith("a")


def test_parquet_is_exact_and_mixed_columns_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [*ROWS, {"company": 5, "phone": True, "answer": None, "cost": 0}]
    write_parquet(str(path), rows, COLUMNS)
    back = pq.read_table(path).to_pylist()
    assert back[:3] == [{**row, "cost": row["cost"] and float(row["cost"])} for row in ROWS]
    assert back[3] == {"company": "5", "phone": "true", "answer": None, "cost": 0.0}


@pytest.mark.parametrize(
    ("values", "back"),
    [
        ([0.5, (1 << 53) + 1], ["0.5", "9007199254740993"]),
        ([0.5, 1 << 53], [0.5, 2.0**53]),
        ([1, (1 << 63) - 1], [1, (1 << 63) - 1]),
        ([1, 1 << 63], ["1", "9223372036854775808"]),
        ([None, None], [None, None]),
    ],
)
def test_parquet_makes_no_number_another_one(tmp_path: Path, values: list[Any], back: list[Any]) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(str(path), [{"n": value} for value in values], ["n"])
    assert pq.read_table(path)["n"].to_pylist() == back


def test_parquet_reads_its_rows_twice_for_any_columns(tmp_path: Path) -> None:
    """Once for the kinds of the columns, once to write: each row may have to be read from a disk."""
    read: list[int] = []

    class Rows(Sequence[dict[str, object]]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: Any) -> Any:
            if isinstance(index, slice):
                return [self[at] for at in range(*index.indices(3))]
            if index >= 3:
                raise IndexError
            read.append(index)
            return {f"c{column}": index for column in range(20)}

    write_parquet(str(tmp_path / "a.parquet"), Rows(), [f"c{column}" for column in range(20)])
    assert sorted(read) == [0, 0, 1, 1, 2, 2]
