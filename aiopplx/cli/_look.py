"""What was found in the file of questions, as a person reads it before anything is sent.

This module knows nothing of sessions, and reads no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from aiopplx.cli._exits import UsageError, flag_of, why_not
from aiopplx.cli._text import one_line
from aiopplx.tables import QUESTION, BadRow, Look, Note

if TYPE_CHECKING:
    from aiopplx import Estimate

NAMED = 12
"""Columns that are named."""
PLACES = 3
"""Places that are named of rows with the same complaint."""
COMPLAINTS = 8
"""Different complaints that are told."""


def what_it_is(seen: Look, *, unique: bool = False) -> str:
    """One line: `companies.csv: CSV (comma, UTF-8), 300 rows; columns company, year`, and what was found out.

    Args:
        seen: what was found.
        unique: equal questions are asked once.
    """
    table = seen.table
    count = seen.count + len(seen.bad)
    parts = [f"{table.name}: {table.what}, {count:,} {'row' if count == 1 else 'rows'}"]
    if table.columns != (QUESTION,):
        parts.append(f"columns {listed(table.columns)}")
    if seen.sends:
        parts.append(f"sends {listed(seen.sends)}")
    return "; ".join([*parts, *_notes(seen, unique=unique)])


def _notes(seen: Look, *, unique: bool) -> list[str]:
    notes = [_note(note) for note in seen.notes if not (unique and _is_about_repeats(note))]
    if unique and seen.repeats:
        rows = "1 row asks" if seen.repeats == 1 else f"{seen.repeats:,} rows ask"
        notes.append(f"{rows} what an earlier row asks; each question is asked once")
    return notes


def _is_about_repeats(note: str) -> bool:
    return isinstance(note, Note) and note.advice.option == "unique"


def what_is_asked(seen: Look, *, limit: int | None = None) -> list[str]:
    """Lines with the first questions, the request fields that are sent, what is kept and what is the tag.

    Args:
        seen: what was found.
        limit: how many rows are asked at most.
    """
    asked = seen.first[:limit]
    lines = [f"  {'asks' if not at else '':5}  {one_line(first, 100)}" for at, first in enumerate(asked)]
    sends = [*seen.sends, *(f"{name}={value} if a row has none" for name, value in seen.asking.set.items())]
    lines.append(f"  sends  {listed(sends) or 'the question alone'}")
    return [*lines, f"  keeps  {listed(_kept(seen)) or 'nothing'}      tags  {seen.asking.tag or 'none'}"]


def _kept(seen: Look) -> tuple[str, ...]:
    """The columns that come back besides the question and the tag."""
    asking = seen.asking
    if asking.kept is not None:
        return tuple(name for name in asking.kept if name not in (asking.question, asking.tag))
    names: dict[str, None] = {}
    for request in seen.requests():
        names.update(dict.fromkeys(request.meta))
    return tuple(name for name in names if name not in (asking.question, asking.tag))


class Found(msgspec.Struct, kw_only=True):
    """What was found, for a program. Each name is always there; None where it was not found out.

    Attributes:
        source: the file's name.
        format: what it is: `CSV (comma, UTF-8)`.
        rows: its rows, usable or not.
        columns: their names.
        question: the column that is asked; None if that is made of several.
        tag: the column of the tags.
        sends: the columns that are sent as request fields, and the fields that are set for each row.
        keeps: the columns that come back.
        asks: the first three questions.
        unusable: rows that cannot be used, each with `place` and `reason`.
        repeats: rows that ask what an earlier row asks.
        notes: what should be told.
        journal: its path, if the run would have one.
        estimate: the fields of `aiopplx.Estimate` of what is not paid yet.
        refused: why the run would not begin; None if it would.
    """

    source: str
    format: str | None = None
    rows: int | None = None
    columns: Sequence[str] | None = None
    question: str | None = None
    tag: str | None = None
    sends: Sequence[str] | None = None
    keeps: Sequence[str] | None = None
    asks: Sequence[str] | None = None
    unusable: Sequence[dict[str, str]] | None = None
    repeats: int | None = None
    notes: Sequence[str] | None = None
    journal: str | None = None
    estimate: object = None
    refused: str | None = None


def for_a_program(
    seen: Look,
    *,
    estimate: Estimate | None,
    journal: str | None,
    refused: str | None,
    unique: bool = False,
    limit: int | None = None,
) -> Found:
    """What was found, for `--json`. Arguments as the attributes of `Found`, `unique` and `limit` as typed."""
    return Found(
        source=seen.table.name,
        format=seen.table.what,
        rows=seen.count + len(seen.bad),
        columns=seen.table.columns,
        question=seen.asking.question or None,
        tag=seen.asking.tag or None,
        sends=list(dict.fromkeys([*seen.sends, *seen.asking.set])),
        keeps=_kept(seen),
        asks=seen.first[:limit],
        unusable=[{"place": bad.place, "reason": why_not(bad)} for bad in seen.bad],
        repeats=seen.repeats,
        notes=_notes(seen, unique=unique),
        journal=journal,
        estimate=estimate,
        refused=refused,
    )


def listed(names: Sequence[str]) -> str:
    """Names with commas between them, the first dozen."""
    shown = ", ".join(one_line(name, 40) for name in names[:NAMED])
    return shown + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _note(note: str) -> str:
    said = f"{note.problem}; {flag_of(note.advice)}" if isinstance(note, Note) else note
    return one_line(said, 400)


def check_rows(seen: Look, *, skip_bad: bool) -> list[str]:
    """What is told of rows that cannot be used, alike ones together: lines, none if there are no such rows.

    Raises:
        RowsRefused: there are some, and nobody said that they may be left out.
    """
    if not seen.bad:
        return []
    said = _complaints(seen.bad)
    if not skip_bad:
        raise RowsRefused([*said, f"Nothing was sent. --skip-bad asks the other {seen.count:,}."])
    return said


class RowsRefused(UsageError):
    """Rows cannot be used, and nobody said that they may be left out.

    Attributes:
        said: what to tell, line by line.
    """

    def __init__(self, said: Sequence[str]) -> None:
        super().__init__(said[0])
        self.said = tuple(said)


def _complaints(bad: Sequence[BadRow]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for row in bad:
        by_reason.setdefault(why_not(row), []).append(row.place)
    lines = [f"{len(bad):,} row{'s' * (len(bad) != 1)} cannot be used:"]
    lines += [f"  {_places(places)}: {one_line(reason)}" for reason, places in list(by_reason.items())[:COMPLAINTS]]
    if len(by_reason) > COMPLAINTS:
        lines.append(f"  and {len(by_reason) - COMPLAINTS} other complaints")
    return lines


def _places(places: Sequence[str]) -> str:
    """`line 4`, `lines 9, 1003`, `lines 9, 11, 12 and 40 more`."""
    words = {place.rpartition(" ")[0] for place in places}
    more = f" and {len(places) - PLACES:,} more" if len(places) > PLACES else ""
    if len(places) == 1 or len(words) != 1 or "" in words:
        return ", ".join(places[:PLACES]) + more
    return f"{words.pop()}s {', '.join(place.rpartition(' ')[2] for place in places[:PLACES])}{more}"
