"""Tables in Excel files. Needs openpyxl, the `excel` extra.

Integers stay integers, a day is `2026-03-01`, and a number format of zeros only (`0000`) is applied, since ids that
begin with zero are kept in that way. Errors (`#DIV/0!`) stay text, so that a row that needs one can be refused by name.
openpyxl is imported here and nowhere else: its last release is of June 2024, and python-calamine could take its place.

This module knows nothing of questions.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

from aiopplx.tables._table import Advice, BadRow, Row, Rows, Table, TableError

if TYPE_CHECKING:
    from openpyxl.workbook import Workbook

_ZEROS = re.compile(r"0{2,}")
_EXACT = 10**15
"""Excel keeps 15 digits. A longer number was rounded before we see it."""


def read_excel(name: str, path: str, *, sheet: str = "", header: bool = True, skip: int = 0) -> Table:
    """A table from a sheet.

    Args:
        name: what messages call the file.
        path: the file.
        sheet: its name; "" takes the first visible one that has rows.
        header: the first row has the names of the columns.
        skip: rows before the header.

    Raises:
        TableError: openpyxl is missing, or the file cannot be read, or it has no such sheet, or no rows.
    """
    book = _opened(name, path)
    try:
        title, others = _chosen(name, book, sheet)
        grid = _grid(book, title)
        for _ in range(skip):
            next(grid, None)
        first = next(grid, None)
        if first is None:
            raise TableError(f"{name}: the sheet {title} has no rows")
        columns = _columns(name, first[1], header=header)
    finally:
        book.close()
    notes = [f"sheet {title} (of {', '.join(others)})"] if len(others) > 1 else []

    def read() -> Rows:
        again = _opened(name, path)
        try:
            rows = _grid(again, title)
            for _ in range(skip + header):
                next(rows, None)
            for number, cells in rows:
                yield _row(number, cells, columns)
        finally:
            again.close()

    rounded = sum(1 for row in read() if isinstance(row, Row) and any(_is_rounded(cell) for cell in row.cells.values()))
    if rounded:
        notes.append(
            f"{rounded:,} rows have numbers of 16 digits or more; Excel had rounded them before they were read"
        )
    return Table(name, f"Excel (sheet {title})", tuple(columns), read, notes)


def _opened(name: str, path: str) -> Workbook:
    try:
        import openpyxl
    except ImportError:
        raise TableError(f"{name} is an Excel file: pip install 'aiopplx[excel]' reads it") from None
    try:
        # An open file, since openpyxl refuses a name that ends in .csv, whatever is in it.
        with open(path, "rb") as file:
            return openpyxl.load_workbook(io.BytesIO(file.read()), read_only=True, data_only=True)
    except Exception as error:  # a damaged file makes it fail in many ways
        raise TableError(f"{name} cannot be read as an Excel file: {type(error).__name__}") from None


def _chosen(name: str, book: Workbook, sheet: str) -> tuple[str, list[str]]:
    titles = [str(one.title) for one in book.worksheets]
    if sheet:
        if sheet not in titles:
            raise TableError(f"{name} has no sheet {sheet!r}; its sheets are {', '.join(titles)}")
        return sheet, titles
    for one in book.worksheets:
        if one.sheet_state == "visible" and any(cells for _, cells in _grid(book, str(one.title))):
            return str(one.title), titles
    raise TableError(f"{name} has no visible sheet with rows", Advice("sheet", '"NAME"', "takes a hidden one"))


def _grid(book: Workbook, title: str) -> Iterator[tuple[int, list[Any]]]:
    """The rows that are not empty, each with its number. Formatted empty rows at the end are thus cut."""
    sheet = book[title]
    for number, row in enumerate(sheet.iter_rows(), 1):
        cells = [_cell(cell) for cell in row]
        while cells and cells[-1] in ("", None):
            cells.pop()
        if cells:
            yield number, cells


def _cell(cell: Any) -> Any:
    value: object = cell.value
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    number_format: object = cell.number_format
    if isinstance(value, int) and isinstance(number_format, str) and _ZEROS.fullmatch(number_format):
        return str(value).zfill(len(number_format))
    return value


def _columns(name: str, cells: Sequence[Any], *, header: bool) -> list[str]:
    """The names of the columns; one without a name is `column 3`."""
    if not header:
        return [str(at + 1) for at in range(len(cells))]
    names = ["" if cell is None else str(cell).strip() for cell in cells]
    for cell in names:
        if cell and names.count(cell) > 1:
            raise TableError(f'{name} has two columns of the name "{cell}": rename one')
        if cell.endswith("?") or len(cell) > 64 or cell.replace(".", "", 1).isdigit():
            raise TableError(
                f'{name} has no header: its first row is "{" | ".join(names[:6])[:120]}"',
                Advice("header", "False", "calls the columns 1, 2, 3"),
            )
    if len(names) > 1 and sum(map(bool, names)) == 1:
        raise TableError(
            f"{name}: the first row has one cell; is it a title?", Advice("skip_lines", "1", "leaves it out")
        )
    return [cell or f"column {at + 1}" for at, cell in enumerate(names)]


def _row(number: int, cells: Sequence[Any], columns: Sequence[str]) -> Row | BadRow:
    if len(cells) > len(columns):
        return BadRow(f"row {number}", f"{len(cells)} cells, the header has {len(columns)}")
    filled = [*cells, *[None] * (len(columns) - len(cells))]
    return Row(
        f"row {number}", {name: "" if cell is None else cell for name, cell in zip(columns, filled, strict=True)}
    )


def _is_rounded(cell: object) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool) and abs(cell) >= _EXACT
