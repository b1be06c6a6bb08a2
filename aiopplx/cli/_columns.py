"""The columns of a table of answers: the user's own first, as they came, then what the answers have.

This module knows nothing of files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from aiopplx.tables import WRITTEN, Look

if TYPE_CHECKING:
    from aiopplx import Job

Value = str | int | float | bool | None

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


class Columns:
    """The columns of a run.

    Args:
        seen: the look at its questions; None if they are a stream that has no columns.

    Attributes:
        names: of all columns, in order.
        own: of the user's.
        written: those that a model, a server or a web page wrote.
    """

    def __init__(self, seen: Look | None) -> None:
        asking = seen.asking if seen is not None else None
        self._question = asking.question if asking is not None else ""
        self._tag = asking.tag if asking is not None else ""
        self.own = _own(seen, self._question, self._tag) if seen is not None else []
        self._ours: dict[str, str] = {}
        for name in OURS:
            if (name == "question" and self._question in self.own) or (name == "tag" and self._tag in self.own):
                continue
            mapped = name
            while mapped in self.own:
                mapped = f"research_{mapped}"
            self._ours[name] = mapped
        self.names = [*self.own, *self._ours.values()]
        self.written = frozenset(mapped for name, mapped in self._ours.items() if name in WRITTEN)

    def named(self, name: str) -> str:
        """The column that has this of `OURS`."""
        return self._ours[name]

    def row(self, job: Job) -> dict[str, Value]:
        """A job as a row with all of these columns."""
        facts = msgspec.structs.replace(job, meta={}).to_row()
        kept = job.to_row() if job.meta else {}
        row: dict[str, Value] = {}
        for name in self.own:
            row[name] = job.question if name == self._question else job.tag if name == self._tag else kept.get(name)
        for name, mapped in self._ours.items():
            row[mapped] = facts[name]
        return row


def _own(seen: Look, question: str, tag: str) -> list[str]:
    """The user's columns that come back, in their order. Request fields of JSON objects do not."""
    kept: dict[str, None] = {}
    if seen.table.has_fields:
        for request in seen.requests():
            kept.update(dict.fromkeys(request.meta))
    else:
        kept = dict.fromkeys(seen.asking.kept or ())
    return [name for name in seen.table.columns if name in kept or (seen.table.has_fields and name in (question, tag))]
