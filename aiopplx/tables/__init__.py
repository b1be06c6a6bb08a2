"""Tables in, tables out: questions from files, frames and lists of rows, and the answers as rows again.

`questions` reads a CSV, TSV, Excel or Parquet file, JSON in any form, a text file, a DataFrame or a list of mappings,
and gives a request for each row. All other columns travel with the request as `meta` and come back on the job. The
whole table is looked at before the first request is made: a table that is not surely understood is refused in one
sentence, and nothing of it is sent.

This package knows nothing of sessions: what it returns is given to `session.batch`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, cast

from aiopplx._job import Job
from aiopplx._wire.request import Request
from aiopplx.tables._asking import Asking, AskOptions, Look, complaints, look
from aiopplx.tables._encoding import encoding_of
from aiopplx.tables._file import Format, ReadOptions, read_file
from aiopplx.tables._frames import read_memory
from aiopplx.tables._kind import text_format
from aiopplx.tables._objects import line_of_objects
from aiopplx.tables._table import QUESTION, Advice, BadRow, Note, Row, Table, TableError
from aiopplx.tables._text import Remarks, line_of_text
from aiopplx.tables._writing import LONGEST_CELL, LONGEST_SHEET, WRITTEN, csv_text, is_cut, write_excel, write_parquet

__all__ = [
    "LONGEST_CELL",
    "LONGEST_SHEET",
    "QUESTION",
    "WRITTEN",
    "Advice",
    "AskOptions",
    "Asking",
    "BadRow",
    "Format",
    "Look",
    "Note",
    "ReadOptions",
    "Remarks",
    "Request",
    "Row",
    "Table",
    "TableError",
    "complaints",
    "csv_text",
    "encoding_of",
    "is_cut",
    "line_of_objects",
    "line_of_text",
    "look",
    "questions",
    "read_file",
    "read_memory",
    "rows",
    "text_format",
    "write_excel",
    "write_parquet",
]


def questions(
    source: object,
    *,
    question: str | None = None,
    template: str | None = None,
    tag: str | None = None,
    fields: Sequence[str] | Literal["all", "none"] | None = None,
    set: Mapping[str, object] | None = None,
    keep: Sequence[str] | Literal["none"] | None = None,
    skip_bad: bool = False,
    format: Format | None = None,
    sheet: str = "",
    encoding: str = "",
    delimiter: str = "",
    header: bool = True,
    skip_lines: int = 0,
    each_line: bool = False,
) -> Iterator[Request]:
    """Requests from the rows of a table, for `session.batch`.

        async with session.batch(aiopplx.questions(frame, template="What did {company} announce?", tag="id")) as jobs:

    The whole table is looked at first, and refused if one row cannot be used.

    Args:
        source: a path (`os.PathLike`, as a text would be a question), a DataFrame of pandas, polars or pyarrow, or an
            iterable of mappings or texts.
        question: the column that is asked. By default the only one of `question`, `prompt`, `query`, or else of
            `input`, `text`, in any case of letters.
        template: the question with columns in braces, in place of a column: `{name}`, or `{name?}` if it may be empty.
        tag: the column that identifies a row, and comes back as `job.tag`; "-" for none. By default a column `tag` or
            `custom_id`, or none: an `id` is often no identity of the question, and comes back as a column anyway.
        fields: columns that are sent as request fields of their name; "all" for each that is one, "none" for none. By
            default none is sent, whatever it is called; but a mapping or a JSON object may be meant as a request, and
            one with the name of a field is refused until `fields`, or `keep`, says what it is. The bodies of the
            provider's batch lines are requests: by default all of their fields are sent.
        set: request fields for each row that does not send them itself.
        keep: the columns that travel along as `meta` and come back, sent or not; by default all; "none" for none.
        skip_bad: leave rows that cannot be used out; by default one such row refuses the table.
        format, sheet, encoding, delimiter, header, skip_lines, each_line: see `ReadOptions`; for files only.

    Raises:
        TableError: the table cannot be used as it is; nothing was sent.
    """
    asked = AskOptions(question, template, tag, fields, set or {}, keep)
    if isinstance(source, os.PathLike):
        options = ReadOptions(format, sheet, encoding, delimiter, header, skip_lines, each_line, asked.columns)
        table = read_file(cast("os.PathLike[str]", source), options)
    else:
        table = read_memory(source)
    seen = look(table, asked)
    if seen.bad and not skip_bad:
        raise TableError(
            f"{table.name}: {len(seen.bad):,} of {seen.count + len(seen.bad):,} rows cannot be used."
            f" {complaints(seen.bad)}",
            Advice("skip_bad", "True", f"asks the other {seen.count:,}"),
        )
    return seen.requests()


def rows(jobs: Iterable[Job]) -> list[dict[str, str | int | float | bool | None]]:
    """Jobs as rows with the same columns each, those that were seen first coming first.

        pandas.DataFrame(aiopplx.rows(done))
        polars.DataFrame(aiopplx.rows(done), infer_schema_length=None)

    polars would otherwise decide columns and types by the first hundred rows.

    Args:
        jobs: finished, or not.

    Returns:
        For each job what `Job.to_row` gives, with None for columns that only other jobs have. A name of ours that is
        among the columns of any job gets `research_` before it in all rows.
    """
    kept = list(jobs)
    theirs = dict.fromkeys(name for job in kept for name in job.meta)
    missing = dict.fromkeys(theirs)
    # What is ours comes last, and has the same names in each row.
    return [missing | job.to_row(beside=theirs) for job in kept]
