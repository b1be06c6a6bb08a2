"""Questions as plain text: one a line, or one for a whole file.

Lines end with `\\n`, `\\r\\n` or `\\r`, and with nothing else: U+2028 stands inside questions that were copied from web
pages. Lines that begin with `#` are remarks; since a question may begin so too, they are counted aloud.

This module knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aiopplx.tables._table import QUESTION, Row, Rows, Table, TableError


def read_text(name: str, open_lines: Callable[[], Iterable[str]], *, label: str) -> Table:
    """A table with a question a line.

    Args:
        name: what messages call it.
        open_lines: begins to read its lines.
        label: the name of the encoding, for `Table.what`.

    Raises:
        TableError: there is no question in it.
    """

    def read() -> Rows:
        for number, line in enumerate(open_lines(), 1):
            question = line.strip().removeprefix("\ufeff")
            if question and not question.startswith("#"):
                yield Row(f"line {number}", {QUESTION: question})

    remarks = sum(line.lstrip("\ufeff").lstrip().startswith("#") for line in open_lines())
    if next(read(), None) is None:
        raise TableError(f"no questions in {name}")
    notes = [f"{remarks:,} line{'s' * (remarks > 1)} that begin{'s' * (remarks == 1)} with # left out"]
    return Table(name, f"text ({label})", (QUESTION,), read, notes if remarks else [])


def read_brief(name: str, text: str, *, label: str) -> Table:
    """A table of one question: the whole text. Raises `TableError` if that is empty."""
    question = text.strip()
    if not question:
        raise TableError(f"no question in {name}")
    note = f"one question of {len(question):,} characters"
    return Table(
        name, f"a brief ({label})", (QUESTION,), lambda: iter((Row("the whole file", {QUESTION: question}),)), [note]
    )
