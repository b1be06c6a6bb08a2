"""Tables as text: comma, semicolon, tab or bar between the cells.

Which of these it is follows from the header. Each candidate reads the beginning of the file strictly; the one that
reads without an error, has a header of two names or more, and gives the most records as wide as the header is taken. A
sniffer always answers, and was wrong on 9 of 31 files that people have; this rule reads or refuses all of them. If the
header is one name under every candidate, the file has one column, and commas in its lines mean nothing.

Cells are text and never become numbers: `007` stays `007`. This module knows nothing of files or of questions.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from aiopplx.tables._table import IT_IS_ONE, Advice, BadRow, Row, Rows, Table, TableError, is_column

SAMPLE = 1 << 20
"""Characters from which the delimiter is decided."""
NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", "\x1f": "one column"}
_LONGEST_NAME = 64
_NEVER = "\x1f"
"""The delimiter of a file of one column: a character that text does not have. Quotes and line breaks still work."""
_KEPT = "\0"
"""Stands for the first blank of a cell that is not in quotes while it is read: a character that no text file has."""
_TITLE_NEEDS = 2
"""Rows of one width below a line of one cell, from which on that line is a title and not a header."""


class Record(NamedTuple):
    """A record and the number of the line where it begins."""

    line: int
    cells: list[str]


class Layout(NamedTuple):
    """How to read the file.

    Attributes:
        delimiter: between the cells.
        escape: a backslash escapes a quote.
        header: the names of the columns; a column without a name has the name "".
        skip: lines before the header.
        has_header: the names stand in the file.
    """

    delimiter: str
    escape: bool
    header: list[str]
    skip: int
    has_header: bool


def records(lines: Iterable[str], delimiter: str, *, escape: bool, name: str = "", before: int = 0) -> Iterator[Record]:
    """The records of a file that are not blank.

    Args:
        lines: from the header on, each with its end.
        delimiter: between the cells.
        escape: a backslash escapes a quote.
        name: what messages call the file.
        before: lines of the file before these.

    Raises:
        TableError: a quote is not closed, or text follows a closing one: nothing after it can be trusted.
    """
    reader = csv.reader(
        _with_blanks(lines, delimiter),
        delimiter=delimiter,
        escapechar="\\" if escape else None,
        strict=True,
        skipinitialspace=True,
    )
    line = before + 1
    try:
        for read in reader:
            cells = [cell.replace(_KEPT, " ") for cell in read]
            if any(map(str.strip, cells)):
                yield Record(line, cells)
            line = before + reader.line_num + 1
    except csv.Error as error:
        said = str(error)
    else:
        return
    # Outside the handler: csv's error names neither the file nor the line.
    if "field larger" in said:
        limit = csv.field_size_limit()
        why = (
            f"a cell is longer than {limit:,} characters; is a quote missing? In Python csv.field_size_limit raises it"
        )
    elif "unexpected end" in said:
        why = "the quote that opens here is never closed"
    elif "expected after" in said:
        why = "text follows a closing quote; a quote inside a quoted cell is written twice"
    else:
        why = said
    raise TableError(f"{name}, line {line}: {why}")


def _with_blanks(lines: Iterable[str], delimiter: str) -> Iterator[str]:
    """The lines, with blanks at the beginning of cells that `csv` keeps unless a quote follows.

    It can only leave out all of them or none, and `"a", "b, c"` needs the former.
    """
    kept = re.compile(rf"(?:^|(?<={re.escape(delimiter)})) (?! *\")")
    for line in lines:
        yield kept.sub(_KEPT, line) if line.startswith(" ") or delimiter + " " in line else line


def layout_of(
    sample: str, name: str, *, is_whole: bool, delimiter: str, header: bool, skip: int, said: Collection[str] = ()
) -> Layout:
    """How to read a file, from its beginning.

    Args:
        sample: the beginning; whole lines.
        name: what messages call the file.
        is_whole: the sample is all of it.
        delimiter: between the cells; "" to find out. A first line `sep=X` decides it too.
        header: the first record has the names of the columns.
        skip: lines before the header.
        said: columns that the user names: a first record that has one of them is the header.

    Raises:
        TableError: it cannot be read so that every row is sure.
    """
    lines = list(io.StringIO(sample, newline=""))  # as the file is read: U+2028 and the like end no line
    if (
        not delimiter
        and len(lines) > skip
        and lines[skip].lower().startswith("sep=")
        and lines[skip][4:5].strip('\r\n "\\')  # what cannot stand between cells is no delimiter
    ):
        delimiter, skip = lines[skip][4], skip + 1
    lines = lines[skip:]
    escape = '\\"' in sample
    candidates = (delimiter,) if delimiter else (",", ";", "\t", "|")
    trials = [
        trial
        for candidate in candidates
        for with_escape in ((False, True) if escape else (False,))
        if (trial := _trial(lines, candidate, escape=with_escape, is_whole=is_whole)) is not None
    ]
    best = max(trials, key=lambda trial: trial.score, default=None)
    if best is None or (not delimiter and best.score[1] <= 1):
        _refuse_broken(lines, name, candidates, skip=skip)
        _refuse_title(name, trials, skip=skip)
        best = _of_one_column(lines, name, is_whole=is_whole, delimiter=delimiter, skip=skip)
    if not header:
        width = max([len(best.first.cells), *best.widths])
        return Layout(best.delimiter, best.escape, [str(n + 1) for n in range(width)], skip, False)
    names = [cell.strip() for cell in best.first.cells]
    _refuse_filled_title(name, best, skip=skip)
    _check_header(names, name, said)
    return Layout(best.delimiter, best.escape, names, skip, True)


class _Trial(NamedTuple):
    """What a candidate makes of the beginning: its first record, the next one, and how many have which width."""

    delimiter: str
    escape: bool
    first: Record
    second: Record | None
    widths: Counter[int]

    @property
    def score(self) -> tuple[int, int]:
        """(records as wide as a header of two names or more, its width)."""
        width = len(self.first.cells)
        return (self.widths[width] + 1 if width > 1 else 0), width


def _trial(lines: Sequence[str], delimiter: str, *, escape: bool, is_whole: bool) -> _Trial | None:
    found = records(lines, delimiter, escape=escape)
    widths: Counter[int] = Counter()
    first = second = None
    try:
        first = next(found, None)
        for record in found:
            second = second or record
            widths[len(record.cells)] += 1
    except TableError:
        # A sample may end inside a quoted cell; then it is that last record only which does not read.
        if is_whole:
            return None
    return _Trial(delimiter, escape, first, second, widths) if first is not None else None


def _refuse_broken(lines: Sequence[str], name: str, candidates: Sequence[str], *, skip: int) -> None:
    """A file whose header has several names and that does not read is broken; it is no file of one column."""
    for candidate in candidates:
        found = records(lines, candidate, escape=False, name=name, before=skip)
        first = next(found, None)
        if first is not None and len(first.cells) > 1:
            for _ in found:
                pass


def _refuse_title(name: str, trials: Sequence[_Trial], *, skip: int) -> None:
    """One cell above rows of one greater width: a title stands above the header."""
    for trial in trials:
        below = trial.second
        if below is None or len(trial.first.cells) > 1 or _is_column(trial.first) or not _are_names(below.cells):
            continue
        if list(trial.widths) == [len(below.cells)] and len(below.cells) > 1 and trial.widths.total() >= _TITLE_NEEDS:
            _refuse_above(name, below, trial.delimiter, skip=skip)


def _refuse_filled_title(name: str, trial: _Trial, *, skip: int) -> None:
    """A title that a spreadsheet has filled up to the width of its table: `Leads of May,,`."""
    above, below = trial.first, trial.second
    if below is None or _is_column(above):
        return
    filled = [cell for cell in map(str.strip, above.cells) if cell]
    if len(filled) < len(above.cells) and any(map(is_column, below.cells)) and not any(map(is_column, filled)):
        _refuse_above(name, below, trial.delimiter, skip=skip)  # names of groups, above those of the columns
    if len(filled) != 1:
        return
    if sum(map(bool, map(str.strip, below.cells))) > 1 and _are_names(below.cells):
        _refuse_above(name, below, trial.delimiter, skip=skip)


def _refuse_above(name: str, below: Record, delimiter: str, *, skip: int) -> None:
    before = below.line + skip - 1
    raise TableError(
        f"{name}: the header seems to be line {before + 1} ({_shown(below.cells)}; {NAMES.get(delimiter, delimiter)})",
        Advice("skip_lines", str(before), "begins there"),
    )


def _of_one_column(lines: Sequence[str], name: str, *, is_whole: bool, delimiter: str, skip: int) -> _Trial:
    one = _trial(lines, delimiter or _NEVER, escape=False, is_whole=is_whole)
    if one is None:
        for _ in records(lines, delimiter or _NEVER, escape=False, name=name, before=skip):
            pass  # it says why, and where
        raise TableError(f"{name} has no rows")
    return one


def _is_column(record: Record) -> bool:
    return is_column(record.cells[0])


def _check_header(names: Sequence[str], name: str, said: Collection[str]) -> None:
    if not (_are_names(names) or any(is_column(cell, said) for cell in names)):
        asks = any(cell.strip().endswith("?") for cell in names)
        other = Advice("format", '"text"', "asks each line") if asks else IT_IS_ONE
        raise TableError(
            f"{name} has no header: its first row is {_shown(names)}",
            Advice("header", "False", "calls the columns 1, 2, 3", other),
        )
    for cell in names:
        if cell and names.count(cell) > 1:
            raise TableError(f'{name} has two columns of the name "{cell}": rename one')


def _are_names(cells: Sequence[str]) -> bool:
    """Whether these may be the names of columns."""
    stripped = [cell.strip() for cell in cells]
    return not any(cell.endswith("?") or len(cell) > _LONGEST_NAME or _is_number(cell) for cell in stripped)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _shown(cells: Sequence[str]) -> str:
    short = " | ".join(" ".join(cell.split())[:40] for cell in cells[:6])
    return f'"{short[:120]}"'


def read_delimited(
    name: str,
    open_lines: Callable[[], Iterable[str]],
    *,
    label: str,
    delimiter: str = "",
    header: bool = True,
    skip: int = 0,
    said: Collection[str] = (),
) -> Table:
    """A table from lines of text.

    Args:
        name: what messages call it.
        open_lines: begins to read its lines, each with its end.
        label: the name of the encoding, for `Table.what`.
        delimiter, header, skip, said: see `layout_of`.

    Raises:
        TableError: see `layout_of`.
    """
    sample, is_whole = _sample(open_lines())
    if not sample.strip('\ufeff,;|" \t\r\n'):
        raise TableError(f"{name} has no rows")
    layout = layout_of(sample, name, is_whole=is_whole, delimiter=delimiter, header=header, skip=skip, said=said)
    index = _index_column(name, open_lines, layout)
    columns = [cell or f"column {at + 1}" for at, cell in enumerate(layout.header)]
    notes: list[str] = []
    if index is not None:
        notes.append(f"column {index + 1} has no name and only counts; it is left out")
    return Table(
        name,
        f"{'TSV' if layout.delimiter == chr(9) else 'CSV'} ({NAMES.get(layout.delimiter, layout.delimiter)}, {label})",
        tuple(column for at, column in enumerate(columns) if at != index),
        lambda: _rows(name, open_lines, layout, columns, index),
        notes,
        delimiter="," if layout.delimiter == _NEVER else layout.delimiter,
    )


def _sample(lines: Iterable[str]) -> tuple[str, bool]:
    """Whole lines, up to about a mebibyte; and whether that is all."""
    text = io.StringIO()
    for line in lines:
        text.write(line)
        if text.tell() >= SAMPLE:
            return text.getvalue(), False
    return text.getvalue(), True


def _body(name: str, open_lines: Callable[[], Iterable[str]], layout: Layout) -> Iterator[Record]:
    """The records below the header, with the numbers of the file's lines."""
    lines = iter(open_lines())
    for _ in range(layout.skip):
        next(lines, None)
    found = records(lines, layout.delimiter, escape=layout.escape, name=name, before=layout.skip)
    if layout.has_header:
        next(found, None)
    yield from found


def _index_column(name: str, open_lines: Callable[[], Iterable[str]], layout: Layout) -> int | None:
    """The column without a name that only counts: pandas writes its index so, from 0, and R its rows, from 1."""
    if layout.header.count("") != 1:
        return None
    at = layout.header.index("")
    start = None
    for number, record in enumerate(_body(name, open_lines, layout)):
        cell = record.cells[at] if at < len(record.cells) else ""
        start = cell if start is None else start
        start, cell = start.strip(), cell.strip()
        if start not in ("0", "1") or cell != str(number + int(start)):
            return None
    return None if start is None else at


def _rows(
    name: str, open_lines: Callable[[], Iterable[str]], layout: Layout, columns: Sequence[str], index: int | None
) -> Rows:
    width = len(columns)
    for line, cells in _body(name, open_lines, layout):
        if len(cells) > width and any(cell.strip() for cell in cells[width:]):
            hint = f"; a cell with a {NAMES.get(layout.delimiter, 'delimiter')} needs quotes"
            why = f"{len(cells)} cells, the header has {width}{hint}"
            # The last column has all that is left, so that it comes back.
            held = [*cells[: width - 1], layout.delimiter.join(cells[width - 1 :])]
            yield BadRow(f"line {line}", why, {column: held[at] for at, column in enumerate(columns) if at != index})
            continue
        # Excel leaves empty cells at the end of a row out.
        filled = [*cells[:width], *[""] * (width - len(cells))]
        yield Row(f"line {line}", {column: filled[at] for at, column in enumerate(columns) if at != index})
