"""Which benchmarks there are, and what each asks: the first line of its file.

A file whose name begins with `_` is a part of others. This module knows nothing of how one is run or shown.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class Question(NamedTuple):
    """One benchmark.

    Attributes:
        name: its file's.
        asks: the question, in one line.
        how: how it is answered, as Markdown.
    """

    name: str
    asks: str
    how: str


def questions() -> dict[str, Question]:
    """All, by name."""
    found: dict[str, Question] = {}
    for path in sorted(HERE.glob("[a-z]*.py")):
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        asks, _, how = said.partition("\n\n")
        found[path.stem] = Question(path.stem, " ".join(asks.split()), how.strip())
    return found
