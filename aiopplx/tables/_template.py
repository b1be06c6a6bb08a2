"""A question with holes: `What did {company} announce in {year?}?`, filled from the columns of a row.

`str.format` is not used. It reads attributes of values, builds strings of any size, cannot name a column `price:eur`,
and fails on JSON in a prompt. Here a hole is the whole name of a column, and what is put in is never read again. Braces
round anything that could not be a name are text, so JSON needs no escaping; `{{` and `}}` are always single braces.

This module knows nothing of where rows come from.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiopplx.tables._table import Advice, Broken, TableError, as_typed, named

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAME = re.compile(r"[\w][\w .:/%#&()+-]{0,63}\??")


def columns_in(question: str | None, template: str | None, tag: str | None) -> tuple[str, ...]:
    """The columns that a user names, before there is a table: not each word in braces is one."""
    holes = (match[1].removesuffix("?") for match in _PIECE.finditer(template or "") if match[1])
    return tuple(name for name in (question, tag, *holes) if isinstance(name, str) and name)


class EmptyHole(Exception):
    """The row has nothing to put in. `args` are the column's name, and what is wrong if it is not just empty."""

    @property
    def why(self) -> str:
        """What is wrong, in words."""
        return f'"{self.args[0]}" {self.args[1] if len(self.args) > 1 else "is empty"}'


class Template:
    """A template that was checked against the columns of a table.

    Args:
        text: the template.
        columns: the names that may stand in it.

    Raises:
        TableError: it names a column that does not exist, or none at all, so that every row would ask the same.
    """

    def __init__(self, text: str, columns: Sequence[str]) -> None:
        self._pieces: list[str | tuple[str, bool]] = []
        self.columns: tuple[str, ...] = ()
        known = as_typed(columns)
        at = 0
        for match in _PIECE.finditer(text):
            self._pieces.append(text[at : match.start()])
            at = match.end()
            self._pieces.append(self._piece(match, known))
        self._pieces.append(text[at:])
        self.columns = tuple(dict.fromkeys(piece[0] for piece in self._pieces if isinstance(piece, tuple)))
        if not self.columns:
            raise TableError(
                f"the template names no column, so every row would ask the same; the table has {named(columns)}"
            )

    @staticmethod
    def _piece(match: re.Match[str], known: dict[str, str]) -> str | tuple[str, bool]:
        whole, name = match[0], match[1]
        if whole in ("{{", "}}"):
            return whole[0]
        if name is None:
            return whole
        if name in known:
            return known[name], False
        if name.endswith("?") and name[:-1] in known:
            return known[name[:-1]], True
        if not _NAME.fullmatch(name):
            return whole
        guess = difflib.get_close_matches(name.rstrip("?"), known, 1)
        hint = f'; did you mean "{guess[0]}"?' if guess else f"; the table has {named(sorted(known))}"
        raise TableError(
            f'the template has {{{name}}}, and there is no column "{name}"{hint}',
            None if guess else Advice("template", '"... {{' + name + '}} ..."', "writes it as text"),
        )

    def fill(self, cells: Mapping[str, Any], shown: Callable[[Any], str]) -> str:
        """The question of one row.

        Args:
            cells: the row.
            shown: a cell as text.

        Raises:
            EmptyHole: a column that must not be empty is, or a cell has no value.
        """
        out: list[str] = []
        for piece in self._pieces:
            if isinstance(piece, str):
                out.append(piece)
                continue
            name, may_be_empty = piece
            cell = cells.get(name)
            if isinstance(cell, Broken):
                raise EmptyHole(name, cell.why)
            text = shown(cell).strip()
            if not text and not may_be_empty:
                raise EmptyHole(name)
            out.append(text)
        return "".join(out).strip()
