"""The columns of a table of answers that is there already, so that an export goes on with the file of a run.

A journal has the user's columns without the one that was the question and the one that was the tag, whose names it does
not know. The file has them. This module writes nothing.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Callable, Collection, Iterable
from itertools import islice, product

from aiopplx.cli._columns import OURS, Columns
from aiopplx.cli._files import take_long_cells

_ENOUGH = 1 << 20
"""Bytes in which the header and the first row end."""
_DELIMITERS = ",;\t|"
_MARK = b"\xef\xbb\xbf"


def layout_of(path: str, own: Collection[str], tag_of: Callable[[str], str | None]) -> Columns | None:
    """The columns of a CSV or TSV file of answers; None if it is none, or if it is not sure which column is which.

    Args:
        path: the file.
        own: the user's columns that the journal has.
        tag_of: the tag of the job with an id, as text; None if there is no such job or it has none.
    """
    if not os.path.isfile(path):  # a pipe is not read, and a device may never end
        return None
    try:
        with open(path, "rb") as file:
            start = file.read(_ENOUGH)
    except OSError:
        return None
    take_long_cells()
    text = start.removeprefix(_MARK).decode(errors="replace")
    for delimiter in _DELIMITERS:
        header, first = _first_two(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
        cells = dict(zip(header, first, strict=False))
        job_id = cells.get("research_job_id") or cells.get("job_id") or ""
        others = [None, *(name for name in header if name not in own)]
        for question, tag in product(others, others):
            named = {name for name in (question, tag) if name is not None}
            mine = header[: len(header) - len(OURS) + len(named)]
            if set(mine) != {*own, *named} or (tag is not None and (tag == question or cells[tag] != tag_of(job_id))):
                continue
            has_mark = start.startswith(_MARK)
            columns = Columns(mine, question=question, tag=tag, delimiter=delimiter, has_mark=has_mark)
            if columns.names == header:
                return columns
    return None


def _first_two(rows: Iterable[list[str]]) -> tuple[list[str], list[str]]:
    found: list[list[str]] = []
    with contextlib.suppress(csv.Error):  # then it is no such file
        found += islice(rows, 2)
    found += [[], []]
    return found[0], found[1]
