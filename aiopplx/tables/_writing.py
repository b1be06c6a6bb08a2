"""Rows as files: CSV and TSV, Excel, Parquet.

What a model or a web page wrote may begin like a formula (`=HYPERLINK(...)`), and a spreadsheet would run it: in CSV
such a cell gets an apostrophe before it. A spreadsheet may also split a file at another character than the one that it
was written with (that of Excel depends on the country), and then the middle of an answer begins a cell: so what looks
like a formula gets an apostrophe there too, after a separator or at the beginning of a line. A bullet (`- item`) does
not, nor a number, unless a function is called behind it: nearly all answers have some. That is a second line of
defence and no proof, as an .xlsx file is: its cells are written as text, so that nothing in them is run. The user's own
columns go back as they came, numbers and `+46` too, and are not guarded. Parquet is exact.

An answer is longer than an Excel cell holds (32,767 characters). It is cut at a paragraph, says so at its end, and is
counted, so that the person can be told where the whole of it is. This module knows nothing of jobs.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, cast

from aiopplx.tables._table import TableError

if TYPE_CHECKING:
    from typing_extensions import Buffer

Value: TypeAlias = str | int | float | bool | None
WRITTEN = frozenset({"answer", "reasoning", "error", "sources", "model", "finish_reason", "job_id"})
"""The columns of a row that a model, a server or a web page wrote."""
LONGEST_CELL = 32_767
"""Characters of an Excel cell."""
LONGEST_SHEET = 1_048_576
"""Rows of an Excel sheet, its header included."""
_CUT_AT = 32_600
# What a spreadsheet may take for a formula: a sign, also a wide one, and also after blanks or characters that it drops.
_DROPPED = r"\s\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
_FORMULA = re.compile(rf"[{_DROPPED}]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
# The same where a cell would begin if the file were split at another character, perhaps in quotes. In the middle of a
# text a plus or minus is a bullet, a ruler or a number, unless a function is called behind it, or a program.
_IN_FRONT = r"(?:[^\S\t\r\n\u2028\u2029]|[\"\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff])*"
_INSIDE = re.compile(
    rf"([,;\t\r\n\u2028\u2029]{_IN_FRONT})(?=[=@\uff1d\uff20]|[+\-\uff0b\uff0d].{{0,40}}?[^\W\d_][(|])"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_WIDTHS = {"question": 60, "answer": 60, "sources": 40, "error": 40, "reasoning": 40}
_ROW_POINTS = 120


def disarmed(value: Value) -> Value:
    """Text that no spreadsheet takes for a formula, and without characters that control a terminal."""
    if not isinstance(value, str):
        return value
    text = _CONTROL.sub("", value)  # first: they may stand before the sign
    begins = "'" if _FORMULA.match(text) else ""
    return begins + _INSIDE.sub(r"\1'", text)


def csv_text(
    rows: Iterable[Mapping[str, Value]],
    columns: Sequence[str],
    *,
    delimiter: str = ",",
    header: bool = True,
    written: frozenset[str] = WRITTEN,
) -> str:
    """Rows as text of a delimited file, with `\\r\\n` at the end of each.

    Args:
        rows: the rows.
        columns: the names, in order.
        delimiter: between the cells.
        header: begin with the names.
        written: the columns in which formulas are disarmed.
    """
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\r\n")
    if header:
        writer.writerow(columns)
    for row in rows:
        writer.writerow([
            _as_cell(disarmed(row.get(column)) if column in written else row.get(column)) for column in columns
        ])
    return out.getvalue()


def _as_cell(value: Value) -> Value:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.replace("\0", "") if isinstance(value, str) else value


# --- Excel -----------------------------------------------------------------------------------------------------------


class _Sheet(Protocol):
    """What is used of a worksheet of xlsxwriter, which has no types."""

    def write_string(self, row: int, column: int, text: str, style: object = None) -> int: ...
    def write_number(self, row: int, column: int, number: float, style: object = None) -> int: ...
    def write_boolean(self, row: int, column: int, value: bool, style: object = None) -> int: ...
    def set_column(self, first: int, last: int, width: float) -> object: ...
    def set_row(self, row: int, height: float) -> object: ...
    def freeze_panes(self, row: int, column: int) -> object: ...
    def autofilter(self, row: int, column: int, last_row: int, last_column: int) -> object: ...


class _Book(Protocol):
    def add_worksheet(self, name: str) -> _Sheet: ...
    def add_format(self, properties: Mapping[str, object]) -> object: ...
    def close(self) -> object: ...


class Cut(NamedTuple):
    """What was left out because Excel holds no more.

    Attributes:
        cells: those whose text was cut.
        rows: those that are not in the file, of both sheets together.
    """

    cells: int
    rows: int


def write_excel(
    path: str,
    rows: Iterable[Mapping[str, Value]],
    columns: Sequence[str],
    sources: Iterable[Mapping[str, Value]] = (),
    source_columns: Sequence[str] = (),
    *,
    longest: int = LONGEST_SHEET,
) -> Cut:
    """Write an Excel file with a sheet `Answers`, and a sheet `Sources` if there are any.

    Args:
        path: the file; one that exists is written over.
        rows, columns: the rows, and the names in order.
        sources, source_columns: the same of the second sheet.
        longest: rows of a sheet, its header included; what comes after them is left out, and counted.

    Returns:
        What Excel does not hold.

    Raises:
        TableError: xlsxwriter is missing.
        OSError: the file cannot be written.
    """
    try:
        xlsxwriter = import_module("xlsxwriter")
    except ImportError:
        raise TableError(f"{path} is to be an Excel file: pip install 'aiopplx[excel]' writes it") from None
    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with _File(path, "w") as file:
        book = cast("_Book", xlsxwriter.Workbook(file, options))
        try:
            cut = _sheet(book, "Answers", rows, columns, longest)
            if source_columns:
                cut = Cut(cut.cells, cut.rows + _sheet(book, "Sources", sources, source_columns, longest).rows)
        except BaseException:
            with contextlib.suppress(Exception):  # only for its temporary files: the file is not wanted any more
                book.close()
            raise
        try:
            book.close()
        except xlsxwriter.exceptions.FileCreateError as error:  # what it says of any OSError
            raise OSError(*error.args[0].args) from None
        if file.failure is not None:
            raise file.failure
    return cut


class _File(io.FileIO):
    """A file whose first failure is kept, for the end: zipfile would fail once more when it is collected, on stderr."""

    failure: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        view = memoryview(data)
        size = remaining = view.nbytes
        while remaining and self.failure is None:
            try:
                remaining -= super().write(view[size - remaining :])
            except OSError as error:
                self.failure = error
        return size


def _sheet(book: _Book, name: str, rows: Iterable[Mapping[str, Value]], columns: Sequence[str], longest: int) -> Cut:
    sheet = book.add_worksheet(name)
    bold = book.add_format({"bold": True})
    top = book.add_format({"valign": "top", "text_wrap": True})
    for at, column in enumerate(columns):
        sheet.set_column(at, at, _WIDTHS.get(column, 16))
        sheet.write_string(0, at, column, bold)
    cut = number = left_out = 0
    for row in rows:
        if number + 1 >= longest:
            left_out += 1
            continue
        number += 1
        if any(isinstance(row.get(column), str) and len(str(row[column])) > 400 for column in columns):
            sheet.set_row(number, _ROW_POINTS)
        for at, column in enumerate(columns):
            cut += _write(sheet, number, at, row.get(column), top)
    sheet.freeze_panes(1, 0)
    sheet.autofilter(0, 0, number, max(0, len(columns) - 1))
    return Cut(cut, left_out)


def _write(sheet: _Sheet, row: int, column: int, value: Value, style: object) -> int:
    """Returns 1 if the text was cut."""
    if value is None or value == "":
        return 0
    if isinstance(value, bool):
        sheet.write_boolean(row, column, value, style)
    elif isinstance(value, int | float) and abs(value) < 1e15:
        sheet.write_number(row, column, value, style)
    else:
        text = str(value)
        sheet.write_string(row, column, _fitting(text), style)
        return int(is_cut(text))
    return 0


def is_cut(text: str) -> bool:
    """Whether Excel shows less of a cell than all of this."""
    return _units(text) > LONGEST_CELL


def _units(text: str) -> int:
    """The length as Excel counts it: in units of UTF-16."""
    return len(text) + sum(character > "\uffff" for character in text)


def _fitting(text: str) -> str:
    """Text that fits into a cell: cut after the last paragraph that does."""
    if not is_cut(text):
        return text
    end = _CUT_AT - sum(character > "\uffff" for character in text[:_CUT_AT])
    kept = text[:end]
    at = kept.rfind("\n\n")
    kept = kept[:at] if at > end // 2 else kept
    return f"{kept}\n\n[cut here: {len(text):,} characters; the HTML or Markdown report has all of it]"


# --- Parquet ---------------------------------------------------------------------------------------------------------

GROUP = 200
"""Rows that are written together."""
_EXACT = 1 << 53
"""An integer up to this is a float as well."""


def write_parquet(path: str, rows: Iterable[Mapping[str, Value]], columns: Sequence[str]) -> None:
    """Write a Parquet file. A column whose values are not of one kind is text.

    Args:
        path: the file; one that exists is written over.
        rows: read twice if they are a sequence, else held: a column's type needs all of them.
        columns: the names, in order.

    Raises:
        TableError: pyarrow is missing.
        OSError: the file cannot be written.
    """
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise TableError(f"{path} is to be a Parquet file: pip install 'aiopplx[parquet]' writes it") from None
    held = rows if isinstance(rows, Sequence) else list(rows)
    kinds = _kinds(held, columns)
    types = {"text": arrow.string(), "number": arrow.float64(), "integer": arrow.int64(), "boolean": arrow.bool_()}
    schema = arrow.schema([(column, types[kinds[column]]) for column in columns])
    with parquet.ParquetWriter(path, schema) as writer:
        for at in range(0, len(held), GROUP):
            group = [
                {column: _typed(row.get(column), kinds[column]) for column in columns} for row in held[at : at + GROUP]
            ]
            writer.write_table(arrow.Table.from_pylist(group, schema=schema))


def _kinds(rows: Iterable[Mapping[str, Value]], columns: Sequence[str]) -> dict[str, str]:
    """The kind of each column, from one reading of the rows: each may have to be read from a disk."""
    found: dict[str, set[str]] = {column: set() for column in columns}
    for row in rows:
        for column, kinds in found.items():
            if (value := row.get(column)) is not None:
                kinds.add(_kind(value))
    return {column: _kind_of_all(kinds) for column, kinds in found.items()}


def _kind(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if abs(value) <= _EXACT else "long" if abs(value) < 1 << 63 else "text"
    return "number" if isinstance(value, float) else "text"


def _kind_of_all(kinds: set[str]) -> str:
    """No value of a column may become another: a float has 53 bits of an integer."""
    if kinds <= {"integer", "long"} and kinds:
        return "integer"
    if kinds == {"integer", "number"}:
        return "number"
    return kinds.pop() if len(kinds) == 1 else "text"


def _typed(value: Value, kind: str) -> Any:  # Any: what pyarrow takes
    if value is None or kind != "text":
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)
