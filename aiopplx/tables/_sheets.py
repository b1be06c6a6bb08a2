"""Tables in Excel files. Needs openpyxl, the `excel` extra.

Integers stay integers, a day is `2026-03-01`, and a number format of zeros only (`0000`) is applied, since ids that
begin with zero are kept in that way. Errors (`#DIV/0!`) stay text, so that a row that needs one can be refused by name.
openpyxl is imported here and nowhere else: its last release is of June 2024, and python-calamine could take its place.

This module knows nothing of questions.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date, datetime, time
from html import unescape
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from aiopplx.tables._table import IT_IS_ONE, Advice, BadRow, Broken, Row, Rows, Table, TableError, is_column

if TYPE_CHECKING:
    from openpyxl.workbook import Workbook

_ZEROS = re.compile(r"0{2,}")
_HIDDEN = re.compile(rb'<row [^>]*\bhidden="(?:1|true)"[^>]*>')
_NUMBER = re.compile(rb'\br="([0-9]+)"')
_ATTRIBUTE = re.compile(r'([\w:]+)="([^"]*)"')
_FORMULA = re.compile(rb"<f[ >/]")
_EXACT = 10**15
"""Excel keeps 15 digits. A longer number was rounded before we see it."""


def read_excel(
    name: str, path: str, *, sheet: str = "", header: bool = True, skip: int = 0, said: Collection[str] = ()
) -> Table:
    """A table from a sheet.

    Args:
        name: what messages call the file.
        path: the file.
        sheet: its name; "" takes the first visible one that has rows.
        header: the first row has the names of the columns.
        skip: rows before the header.
        said: columns that the user names: a first row that has one of them is the header.

    Raises:
        TableError: openpyxl is missing, or the file cannot be read, or it has no such sheet, or no rows.
    """
    book = _opened(name, path)
    try:
        title, others = _chosen(name, book, sheet)
        first, second = islice(chain(_below(_grid(book, title), skip), ((0, []), (0, []))), 2)
        if not first[1]:
            raise TableError(f"{name}: the sheet {title} has no rows")
        columns = _columns(name, first[1], second, header=header, said=said)
    finally:
        book.close()
    which = f"sheet {title} (of {', '.join(others)})" if len(others) > 1 else ""
    notes = [which] if which else []
    formulas, hidden = _formulas(name, path, title), _hidden_rows(path, title)

    def read() -> Rows:
        again = _opened(name, path)
        try:
            for number, cells in islice(_below(_grid(again, title, formulas), skip), int(header), None):
                yield _row(number, cells, columns, index)
        finally:
            again.close()

    index: str | None = None
    rounded = count = unseen = 0
    unnamed = (column for column in columns if column not in map(str, first[1]))
    starts: dict[str, Sequence[int]] = dict.fromkeys(unnamed, (0, 1) if header else ())
    for row in read():
        unseen += row.place in hidden
        if isinstance(row, Row):
            rounded += any(_is_rounded(cell) for cell in row.cells.values())
            # Where a column without a name would have begun, if it only counts.
            starts = {
                column: [start for start in possible if row.cells[column] == start + count]
                for column, possible in starts.items()
            }
        count += 1
    if len(starts) == 1 and count and all(starts.values()):
        index = next(iter(starts))
        notes.append(f"{index} has no name and only counts; it is left out")
    if rounded:
        rows = "1 row has a number" if rounded == 1 else f"{rounded:,} rows have numbers"
        notes.append(f"{rows} of 16 digits or more; Excel had rounded them before they were read")
    if unseen:
        rows = "1 row is" if unseen == 1 else f"{unseen:,} rows are"
        notes.append(
            f"{rows} hidden in Excel, by a filter or by hand, and asked as well; delete what is not to be asked"
        )
    kept = tuple(column for column in columns if column != index)
    return Table(name, f"Excel (sheet {title})", kept, read, notes, sheet=which)


def _below(grid: Iterable[tuple[int, list[Any]]], skip: int) -> Iterator[tuple[int, list[Any]]]:
    """The rows below the first `skip` of the sheet, which may be empty."""
    return (row for row in grid if row[0] > skip)


def _formulas(name: str, path: str, title: str) -> frozenset[tuple[int, int]]:
    """Where formulas stand, by row and column: one without a stored value looks empty otherwise."""
    with zipfile.ZipFile(path) as archive:
        sheets = (part for part in archive.namelist() if part.startswith("xl/worksheets/"))
        if not any(_has_formula(archive, part) for part in sheets):
            return frozenset()
    book = _opened(name, path, values=False)
    try:
        return frozenset(
            (number, at)
            for number, row in enumerate(book[title].iter_rows(values_only=True), 1)
            for at, value in enumerate(row, 1)
            if isinstance(value, str) and value.startswith("=")
        )
    finally:
        book.close()


def _hidden_rows(path: str, title: str) -> frozenset[str]:
    """The places of rows that a person does not see: a filter hides rows, and a file has them all the same."""
    with zipfile.ZipFile(path) as archive:
        part = _part_of(archive, title)
        if part not in archive.namelist():
            return frozenset()
        found: list[str] = []
        with archive.open(part) as file:
            before = b""
            while chunk := file.read(1 << 16):
                text = before + chunk
                found += [f"row {int(row[1])}" for row in map(_NUMBER.search, _HIDDEN.findall(text)) if row]
                before = text[text.rfind(b"<") :] if b">" not in text[text.rfind(b"<") :] else b""
        return frozenset(found)


def _part_of(archive: zipfile.ZipFile, title: str) -> str:
    """The file of a sheet within the archive; "" if that is not said."""
    try:
        book, links = (archive.read(f"xl/{part}").decode() for part in ("workbook.xml", "_rels/workbook.xml.rels"))
    except (KeyError, ValueError):
        return ""
    sheets = {unescape(said.get("name", "")): said.get("r:id", "") for said in _said(book, "sheet")}
    targets = {said.get("Id", ""): said.get("Target", "") for said in _said(links, "Relationship")}
    target = targets.get(sheets.get(title, ""), "")
    return target.removeprefix("/") if target.startswith("/") else f"xl/{target}"


def _said(xml: str, element: str) -> Iterator[dict[str, str]]:
    """The attributes of each such element."""
    for found in re.finditer(rf"<{element} ([^>]*)>", xml):
        yield dict(_ATTRIBUTE.findall(found[1]))


def _has_formula(archive: zipfile.ZipFile, part: str) -> bool:
    with archive.open(part) as file:
        before = b""
        while chunk := file.read(1 << 16):
            if _FORMULA.search(before + chunk):
                return True
            before = chunk[-2:]
    return False


def _opened(name: str, path: str, *, values: bool = True) -> Workbook:
    try:
        import openpyxl
    except ImportError:
        raise TableError(f"{name} is an Excel file: pip install 'aiopplx[excel]' reads it") from None
    try:
        # An open file, since openpyxl refuses a name that ends in .csv, whatever is in it.
        with open(path, "rb") as file:
            return openpyxl.load_workbook(io.BytesIO(file.read()), read_only=True, data_only=values)
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
    hidden = [str(one.title) for one in book.worksheets if one.sheet_state != "visible"]
    if not hidden:
        raise TableError(f"{name} has no rows")
    raise TableError(f"{name} has no visible sheet with rows", Advice("sheet", f'"{hidden[0]}"', "takes a hidden one"))


def _grid(
    book: Workbook, title: str, formulas: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[int, list[Any]]]:
    """The rows that are not empty, each with its number. Formatted empty rows at the end are thus cut."""
    sheet = book[title]
    for number, row in enumerate(sheet.iter_rows(), 1):
        cells = [_cell(cell) for cell in row]
        for at, cell in enumerate(cells, 1):
            if cell is None and (number, at) in formulas:
                cells[at - 1] = Broken("", "is a formula without a value: save the file in Excel once")
        while cells and cells[-1] in ("", None) and not isinstance(cells[-1], Broken):
            cells.pop()
        if cells:
            yield number, cells


def _cell(cell: Any) -> Any:
    value: object = cell.value
    if cell.data_type == "e":
        return Broken(str(value), f"is {value}")
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


def _columns(
    name: str, cells: Sequence[Any], below: tuple[int, Sequence[Any]], *, header: bool, said: Collection[str]
) -> list[str]:
    """The names of the columns; one without a name is `column 3`."""
    if not header:
        return [str(at + 1) for at in range(len(cells))]
    names = ["" if cell is None else str(cell).strip() for cell in cells]
    for cell in names:
        if cell and names.count(cell) > 1:
            raise TableError(f'{name} has two columns of the name "{cell}": rename one')
    for cell in () if any(is_column(cell, said) for cell in names) else names:
        if cell.endswith("?") or len(cell) > 64 or cell.replace(".", "", 1).isdigit():
            raise TableError(
                f'{name} has no header: its first row is "{" | ".join(names[:6])[:120]}"',
                Advice("header", "False", "calls the columns 1, 2, 3", None if cell.endswith("?") else IT_IS_ONE),
            )
    number, second = below
    texts = [cell for cell in second if isinstance(cell, str) and cell.strip()]
    if names[0] and sum(map(bool, names)) == 1 and len(texts) == len(second) > 1 and len(texts) > len(names) - 1:
        shown = " | ".join(texts[:6])[:120]
        raise TableError(
            f'{name}: the header seems to be row {number} ("{shown}")',
            Advice("skip_lines", str(number - 1), "begins there"),
        )
    return [cell or f"column {at + 1}" for at, cell in enumerate(names)]


def _row(number: int, cells: Sequence[Any], columns: Sequence[str], index: str | None) -> Row | BadRow:
    filled = [*cells, *[None] * (len(columns) - len(cells))]
    named = {name: "" if cell is None else cell for name, cell in zip(columns, filled, strict=False) if name != index}
    if len(cells) > len(columns):
        # The last column has all that is left, so that it comes back.
        named[columns[-1]] = ", ".join("" if cell is None else str(cell) for cell in cells[len(columns) - 1 :])
        return BadRow(f"row {number}", f"{len(cells)} cells, the header has {len(columns)}", named)
    return Row(f"row {number}", named)


def _is_rounded(cell: object) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool) and abs(cell) >= _EXACT
