"""What a text is, from the lines that it begins with: a table, JSON, a brief, or questions.

What looks like another kind of text is refused with what to type: of a table that is read as questions, the header and
the halves of its cells would be asked and paid for. This module knows nothing of files.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from typing import Literal

from aiopplx.tables._objects import value_of
from aiopplx.tables._table import Advice, TableError

TextFormat = Literal["text", "json", "csv", "tsv", "brief"]
ENOUGH = 500
"""Lines that decide."""
TABBED = 20
"""Lines that must have the same number of tabs for a text to be a table by its content alone."""

_BY_SUFFIX = {
    ".yaml": "YAML",
    ".yml": "YAML",
    ".xml": "XML",
    ".html": "HTML",
    ".htm": "HTML",
    ".toml": "TOML",
    ".py": "a Python program",
    ".ipynb": "a notebook",
    ".js": "a JavaScript program",
    ".ts": "a TypeScript program",
    ".r": "an R program",
    ".sh": "a shell script",
    ".bat": "a batch file",
    ".ps1": "a PowerShell script",
    ".sql": "SQL",
    ".ini": "a configuration file",
    ".cfg": "a configuration file",
    ".env": "a configuration file",
    ".log": "a log",
    ".rst": "reStructuredText",
    ".tex": "LaTeX",
}
_BY_FIRST_LINE = (
    ("<?xml", "XML"),
    ("<!doctype html", "HTML"),
    ("<!--", "HTML or XML"),
    ("<html", "HTML"),
    ("<table", "HTML"),
    ("<meta", "HTML"),
    ("#!", "a program"),
    ("{\\rtf", "an RTF document"),
)
_SPREADSHEETS = (".xls", ".xlsx", ".xlsm", ".csv", ".tsv")
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_QUESTIONS = frozenset({"question", "questions", "prompt", "prompts", "query", "queries", "input", "text", "q"})
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,39}")
_UNDERLINE = re.compile(r"(?:-{3,}|={3,}|\*{3,})")
_ARRAY = re.compile(r"\[\s*(?:[\"{\[]|$)")
_RARE = ("~", "^", "\x1f", "\x01")
"""Delimiters of databases' exports: they are not tried, but their lines are no questions."""
_AS_TEXT = Advice("format", '"text"', "asks each of its lines all the same")
_EACH_LINE = Advice("format", '"text"', "asks each line")


def text_format(name: str, suffix: str, lines: Sequence[str]) -> TextFormat:
    """What the text is.

    Args:
        name: what messages call it.
        suffix: of its name, in small letters; "" if it has none.
        lines: the lines that it begins with.

    Raises:
        TableError: its lines are no questions.
    """
    # Tabs at the ends of a line are empty cells of a table.
    tabbed = [line for line in (line.strip("\ufeff \r\n") for line in lines) if line.strip()]
    lines = [line.strip("\ufeff \t") for line in tabbed]
    first = lines[0] if lines else ""
    lowered = first.lower()
    what = next((what for mark, what in _BY_FIRST_LINE if lowered.startswith(mark)), None)
    if what is None and suffix != ".ipynb" and (suffix in _JSON_SUFFIXES or _is_json(first)):
        return "json"
    if what is None and suffix in (".md", ".markdown"):
        return "brief"
    what = what or _BY_SUFFIX.get(suffix)
    if what in ("HTML", "XML") and suffix in _SPREADSHEETS:  # as many web applications export a table
        raise TableError(f"{name} is {what} under another name; open it in a spreadsheet and save it as .xlsx or .csv")
    if what is not None:
        raise TableError(f"{name} is {what}", _AS_TEXT)
    if suffix in (".tsv", ".tab"):
        return "tsv"
    if suffix == ".csv" or lowered.startswith("sep="):
        return "csv"
    if any("\t" in line for line in lines):
        return _of_tabbed(name, tabbed)
    return _by_content(name, lines)


def is_object(text: str) -> bool:
    """Whether a line is a JSON object."""
    if not text.startswith("{"):
        return False
    try:
        return isinstance(value_of(text), dict)
    except ValueError:
        return False


def _is_json(first: str) -> bool:
    if first.startswith("{") or _ARRAY.match(first):
        return True
    try:
        return first.startswith("[") and isinstance(value_of(first), list)
    except ValueError:
        return False


def _of_tabbed(name: str, lines: Sequence[str]) -> TextFormat:
    """What a text with tabs is: Excel saves "Unicode Text" with line breaks in cells and with empty last cells."""
    tabs = {line.count("\t") for line in lines[:TABBED]}
    if len(tabs) == 1 and tabs != {0}:
        return "tsv"
    records = _records(lines, "\t")
    widths = [len(record) for record in records[:TABBED]]
    if widths and widths[0] > 1 and len(set(widths)) == 1:
        return "tsv"
    form = _by_content(name, [line.strip("\t ") for line in lines])
    if form == "text" and sum(width > 1 for width in widths) * 2 > len(widths):
        raise TableError(f"{name} looks like a table", Advice("format", '"tsv"', "reads it as one", _EACH_LINE))
    return form


def _by_content(name: str, lines: Sequence[str]) -> TextFormat:
    first = lines[0] if lines else ""
    if first.strip('"').lower() in _QUESTIONS:
        return "csv"
    for separator in ("\t", ",", ";", "|"):
        header = _cells(first, separator)
        if len(header) < 2 or not all(header) or first.startswith("|"):
            continue
        if any(cell.lower() in _QUESTIONS for cell in header):
            return "tsv" if separator == "\t" else "csv"
        if all(_NAME.fullmatch(cell) for cell in header) and all(
            len(record) == len(header) for record in _records(lines, separator)[:TABBED]
        ):
            raise TableError(f"{name} looks like a table", Advice("format", '"csv"', "reads it as one", _EACH_LINE))
    for separator in _RARE:
        width = first.count(separator)
        if width and all(line.count(separator) == width for line in lines[:TABBED]) and len(lines) > 1:
            by_it = Advice("delimiter", f'"{separator}"', "reads it as one", _EACH_LINE)
            raise TableError(f"{name} looks like a table with {separator} between its cells", by_it)
    if _is_markdown(lines):
        whole = Advice("format", '"brief"', "asks all of it as one question", _AS_TEXT)
        raise TableError(f"{name} is Markdown", whole)
    if any(is_object(line) for line in lines):
        raise TableError(
            f"{name} has JSON objects among its lines",
            Advice("format", '"jsonl"', "reads each line as one", _EACH_LINE),
        )
    return "text"


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip() for record in _records([line], separator) for cell in record]


def _records(lines: Sequence[str], separator: str) -> list[list[str]]:
    """The lines as rows of a table, in which a cell between quotes may have line breaks; none if they are no rows."""
    try:
        return list(csv.reader((line + "\n" for line in lines), delimiter=separator))
    except csv.Error:
        return []


def _is_markdown(lines: Sequence[str]) -> bool:
    """Marks that no question has: a fence, a row of a table, a line under a title, headings of two levels."""
    if any(line.startswith(("```", "~~~")) or _UNDERLINE.fullmatch(line) for line in lines):
        return True
    if any(len(line) > 1 and line.startswith("|") and line.endswith("|") for line in lines):
        return True
    return bool(lines) and lines[0].startswith("# ") and any(re.match(r"#{2,6} ", line) for line in lines)
