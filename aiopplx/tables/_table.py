"""A table, wherever it comes from: rows with a place and named cells, read as often as wanted.

A file of any kind, a frame and a list of mappings all become a `Table`. This module knows nothing of files, of which
column is the question, or of requests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeGuard

import msgspec

from aiopplx._errors import ConfigError

QUESTION = "question"
"""The name of the only column of a source that has nothing but questions: lines of text, a list of strings."""

_NAMED = 20
_LONGEST = 64
_UNSEEN = re.compile("[\u200b-\u200f\u2060\ufeff]")
_PLAIN = re.compile(r"\w[\w.-]{0,63}")


class Advice(msgspec.Struct, frozen=True):
    """What to type. Python and the command line spell it differently, so it is said in parts.

    Attributes:
        option: the keyword of `questions`.
        value: what to give, as it would be typed in Python.
        effect: what that does, in the third person.
        other: what may be typed instead.
    """

    option: str
    value: str
    effect: str
    other: Advice | None = None

    def __str__(self) -> str:
        return f"{self.option}={self.value} {self.effect}" + (f", {self.other}" if self.other is not None else "")


IT_IS_ONE = Advice("question", '"..."', "says that it is one")
"""For a first row that is no header by its looks: the name of a column that is asked shows that it is."""


class TableError(ConfigError):
    """A table cannot be used as it is. Nothing was sent and nothing was paid.

    Attributes:
        problem: what is wrong, and where.
        advice: what to type instead, if one option answers it.
    """

    def __init__(self, problem: str, advice: Advice | None = None) -> None:
        super().__init__(problem if advice is None else f"{problem}; {advice}")
        self.problem = problem
        self.advice = advice

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problem, self.advice)


class Note(str):
    """What was found out and should be told, with what to type if that is not what was meant.

    Attributes:
        problem: what was found out.
        advice: what to type.
    """

    __slots__ = ("advice", "problem")
    problem: str
    advice: Advice

    def __new__(cls, problem: str, advice: Advice) -> Note:
        note = super().__new__(cls, f"{problem}; {advice}")
        note.problem, note.advice = problem, advice
        return note


class Row(NamedTuple):
    """One row: where it stands (`line 7`), and its cells by name. A cell of a text file is text.

    `is_request`: the cells are the fields of a request that somebody else has made, and no columns of the user's.
    """

    place: str
    cells: dict[str, Any]
    is_request: bool = False


class Broken(str):
    """A cell of a spreadsheet that has no value: an error, or a formula that was never reckoned.

    As a text it is what stands in the cell. A question that needs it cannot be asked.

    Attributes:
        why: what is wrong with it: `is #N/A`.
        advice: what to type about it, if an option answers it.
    """

    __slots__ = ("advice", "why")
    why: str
    advice: Advice | None

    def __new__(cls, text: str, why: str, advice: Advice | None = None) -> Broken:
        cell = super().__new__(cls, text)
        cell.why, cell.advice = why, advice
        return cell


class BadRow(NamedTuple):
    """A row that cannot be used: where it stands, why not, its cells by name, as far as they have one, and what to type
    about it, if an option answers it."""

    place: str
    reason: str
    cells: dict[str, Any] = {}
    advice: Advice | None = None

    @property
    def said(self) -> str:
        """Why not, and what to type in Python."""
        return self.reason if self.advice is None else f"{self.reason}; {self.advice}"


Rows = Iterator[Row | BadRow]


class Table(msgspec.Struct):
    """Rows that can be read several times: once to look, once to ask.

    Attributes:
        name: what messages call it: the path of a file, "the frame".
        what: what it is, for a person: `CSV (comma, UTF-8)`.
        columns: the names of the cells, in order; those of mappings that differ are in the order of their first use.
        read: begins to read. Raises `TableError` at a place where nothing that follows could be trusted.
        notes: what was found out and should be told before anything is paid.
        has_fields: a cell whose name is a field of a request may be meant as that field: true of mappings, which may be
            requests. The columns of a table have such a name by chance (`model`, of a car).
        delimiter, has_mark: how a delimited file is written, so that its answers can be written likewise. `has_mark` is
            true of all encodings but plain UTF-8: who wrote the file reads UTF-8 only if a mark says so.
        sheet: which sheet it is, of which, if there are several to take: `sheet Info (of Info, Leads)`.
    """

    name: str
    what: str
    columns: tuple[str, ...]
    read: Callable[[], Rows]
    notes: list[str] = []
    has_fields: bool = False
    delimiter: str = ","
    has_mark: bool = False
    sheet: str = ""

    @property
    def place(self) -> str:
        """The file, and the sheet if there are several, as a sentence names them."""
        return f"{self.name}, {self.sheet}," if self.sheet else self.name


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether it is a list, of anything."""
    return isinstance(value, list)


def list_of(value: object) -> list[Any]:
    """The items of a list; none of anything else."""
    return value if is_list(value) else []


def is_column(cell: str, said: Collection[str] = ()) -> bool:
    """Whether a cell is surely the name of a column: one that questions often have, or that the user has `said`."""
    name = one_line(cell)
    return name.lower() in ("question", "prompt", "query", "input", "text") or name in map(one_line, said)


def one_line(name: str) -> str:
    """A column's name as it is shown and typed: spreadsheets have names with line breaks, and signs without a width."""
    return " ".join(_UNSEEN.sub("", name).split())


def as_typed(columns: Iterable[str]) -> dict[str, str]:
    """The columns by what may be typed for them: their names, and these as they are shown."""
    names = {name: name for name in columns}
    return {one_line(name): name for name in names if name != one_line(name)} | names


def named(columns: Sequence[str]) -> str:
    """`the columns company, "price:eur" and 3 more`: at most 20, in quotes what could be read as the sentence."""
    if not columns:
        return "no columns"
    lines = map(one_line, columns[:_NAMED])
    shown = ", ".join(name if _PLAIN.fullmatch(name) else f'"{name[:_LONGEST]}"' for name in lines)
    more = f" and {len(columns) - _NAMED:,} more" if len(columns) > _NAMED else ""
    return f"the column{'s' * (len(columns) > 1)} {shown}{more}"
