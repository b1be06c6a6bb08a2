"""The columns of a table of answers: the user's own first, as they came, then what the answers have.

This module knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from aiopplx.tables import WRITTEN, Look

if TYPE_CHECKING:
    from aiopplx import Job

Value = str | int | float | bool | None

LAYOUT = "layout"
"""The name under which a journal has the columns of its last run: see `Columns.note`."""

OURS = (
    "tag",
    "question",
    "answer",
    "status",
    "cost",
    "seconds",
    "sources",
    "n_sources",
    "model",
    "finish_reason",
    "reasoning",
    "error",
    "job_id",
)
"""What `Job.to_row` has besides the user's columns."""


class _Layout(msgspec.Struct):
    own: list[str]
    question: str | None
    tag: str | None
    delimiter: str
    has_mark: bool


class Columns:
    """The columns of a table of answers, and how such a table is written.

    Args:
        own: the user's, in their order.
        question, tag: the one of them that is the question, or the tag; None if none is.
        delimiter: between the cells of a CSV file.
        has_mark: a CSV file begins with a mark, by which a spreadsheet knows that it is UTF-8.

    Attributes:
        names: of all columns, in order.
        own: of the user's.
        question: the one that has the question.
        asked: those that are known before anything is asked: the user's own, tag and question.
        written: those that a model, a server or a web page wrote.
        delimiter, has_mark: as they were given.
    """

    def __init__(
        self,
        own: Sequence[str] = (),
        *,
        question: str | None = None,
        tag: str | None = None,
        delimiter: str = ",",
        has_mark: bool = False,
    ) -> None:
        self.own = list(own)
        self.delimiter = delimiter
        self.has_mark = has_mark
        self._question = question
        self._tag = tag
        self._ours: dict[str, str] = {}
        for name in OURS:
            if {"question": question, "tag": tag}.get(name) in self.own:
                continue
            mapped = name
            while mapped in self.own:
                mapped = f"research_{mapped}"
            self._ours[name] = mapped
        self.names = [*self.own, *self._ours.values()]
        self.question = self._ours.get("question", question or "")
        self.asked = [*self.own, *(self._ours[name] for name in ("tag", "question") if name in self._ours)]
        self.written = frozenset(mapped for name, mapped in self._ours.items() if name in WRITTEN)

    def named(self, name: str) -> str:
        """The column that has this of `OURS`."""
        return self._ours[name]

    def note(self) -> bytes:
        """All of it in a few bytes, for a journal: an export then writes such a table as the run does."""
        return msgspec.json.encode(_Layout(self.own, self._question, self._tag, self.delimiter, self.has_mark))

    def row(self, job: Job) -> dict[str, Value]:
        """A job as a row with all of these columns.

        Question and tag are the job's, unless its own columns have them as they came: see `Origin.columns`.
        """
        facts = msgspec.structs.replace(job, meta={}).to_row()
        kept = job.to_row() if job.meta else {}
        row: dict[str, Value] = {}
        for name in self.own:
            if name in job.meta or name not in (self._question, self._tag):
                row[name] = kept.get(name)
            else:
                row[name] = job.question if name == self._question else job.tag
        for name, mapped in self._ours.items():
            row[mapped] = facts[name]
        return row


def columns_of(seen: Look | None) -> Columns:
    """The columns of a run: a CSV file goes back as it came.

    Args:
        seen: the look at its questions; None if they are a stream that has no columns.
    """
    if seen is None:
        return Columns(has_mark=True)
    table, asking = seen.table, seen.asking
    delimiter = table.delimiter if table.delimiter != "\t" else ","
    return Columns(
        _own(seen, asking.question, asking.tag),
        question=asking.question or None,
        tag=asking.tag or None,
        delimiter=delimiter,
        # What was no such file has no form to go back in, and a spreadsheet needs the mark.
        has_mark=table.has_mark or not table.what.startswith(("CSV", "TSV")) or delimiter == ";",
    )


def columns_of_rows(rows: Iterable[Mapping[str, object]], note: bytes = b"") -> Columns:
    """The columns of rows that a journal has kept, as its last run has written them.

    Args:
        rows: the user's own columns of each. What the note does not have comes after it, first seen first.
        note: see `Columns.note`; without one it is a table as any.
    """
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    try:
        noted = msgspec.json.decode(note, type=_Layout)
    except msgspec.MsgspecError:
        return Columns(list(names), has_mark=True)
    return Columns(
        list(dict.fromkeys([*noted.own, *names])),
        question=noted.question,
        tag=noted.tag,
        delimiter=noted.delimiter,
        has_mark=noted.has_mark,
    )


def _own(seen: Look, question: str, tag: str) -> list[str]:
    """The user's columns that come back, in their order."""
    kept: dict[str, None] = {}
    if seen.table.has_fields:
        for request in seen.requests():
            kept.update(dict.fromkeys(request.meta))
    else:
        kept = dict.fromkeys(seen.asking.kept or ())
    return [name for name in seen.table.columns if name in kept or (seen.table.has_fields and name in (question, tag))]
