"""Questions as plain text: one a line, or one for a whole file.

Lines end with `\\n`, `\\r\\n` or `\\r`. What ends a line elsewhere ends none here, and is not asked either: several
questions would be one. Lines that begin with `#` are remarks, counted aloud: a question may begin so too.

This module knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aiopplx.tables._kind import is_object
from aiopplx.tables._table import QUESTION, BadRow, Row, Rows, Table, TableError

_OTHER_ENDS = frozenset("\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
"""Line ends of other systems, Unicode's among them: where `str.splitlines` splits. Whoever has them inside a line has
several questions there, or a page of text."""


def line_of_text(place: str, line: str, *, is_guess: bool) -> Row | BadRow | None:
    """What a line of text asks; None for a blank one and for a remark.

    Args:
        place: where it stands.
        line: the line.
        is_guess: nobody has said that it is text, so that an object of JSON is no question.
    """
    question = line.removeprefix("\ufeff").strip(" \t\r\n\ufeff")
    if not question or question.startswith("#"):
        return None
    if not _OTHER_ENDS.isdisjoint(question):
        return BadRow(place, "has a line end in it that is not a newline; is it more than one question?")
    if is_guess and is_object(question):
        return BadRow(place, "a JSON object in a file of text")
    return Row(place, {QUESTION: question})


def read_text(name: str, open_lines: Callable[[], Iterable[str]], *, label: str, is_guess: bool = False) -> Table:
    """A table with a question a line.

    Args:
        name: what messages call it.
        open_lines: begins to read its lines.
        label: the name of the encoding, for `Table.what`.
        is_guess: see `line_of_text`.

    Raises:
        TableError: there is no question in it.
    """

    def read() -> Rows:
        for number, line in enumerate(open_lines(), 1):
            if (row := line_of_text(f"line {number}", line, is_guess=is_guess)) is not None:
                yield row

    remarks = Remarks()
    for number, line in enumerate(open_lines(), 1):
        remarks.see(number, line)
    if next(read(), None) is None:
        raise TableError(f"no questions in {name}")
    return Table(name, f"text ({label})", (QUESTION,), read, [remarks.said] if remarks.said else [])


class Remarks:
    """Lines that begin with `#`: left out, and counted aloud, as a question may begin so too."""

    def __init__(self) -> None:
        self._count = 0
        self._first = ""

    def see(self, number: int, line: str) -> None:
        """Count `line`, which is the `number`-th (from 1), if it is a remark."""
        remark = line.lstrip("\ufeff").strip()
        if remark.startswith("#"):
            self._count += 1
            self._first = self._first or f"line {number}: {remark[:60]}"

    @property
    def said(self) -> str:
        """How many there were, and the first; "" without any."""
        if not self._count:
            return ""
        if self._count == 1:
            return f"1 line that begins with # left out: {self._first}"
        return f"{self._count:,} lines that begin with # left out, the first is {self._first}"


def read_brief(name: str, text: str, *, label: str) -> Table:
    """A table of one question: the whole text. Raises `TableError` if that is empty."""
    question = text.strip()
    if not question:
        raise TableError(f"no question in {name}")
    note = f"one question of {len(question):,} characters"
    return Table(
        name, f"a brief ({label})", (QUESTION,), lambda: iter((Row("the whole file", {QUESTION: question}),)), [note]
    )
