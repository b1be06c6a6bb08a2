"""Text from elsewhere, made safe for a terminal.

Answers, titles and error messages are written by a model, by web pages and by a server: none of them may move the
cursor, set a title, reverse the direction of a line or hide a link. This module does not know where a text comes from.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

import msgspec

# A complete terminal sequence, so that no `[31m` is left of it.
_SEQUENCE = re.compile("(?:\x1b\\[|\x9b)[0-?]{0,100}[ -/]{0,100}[@-~]")
# Control characters (C0 but tab and newline, DEL, C1) and the characters that set the direction of writing.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# Those of them that a JSON encoder does not escape, and characters that some readers, but not JSON, treat as line ends.
_UNESCAPED = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

_NARROWEST = 20
"""Columns below which a line is not folded."""
_COMMAND = re.compile(r"\baiopplx [a-z]+ ")
_BEGINS = re.compile(r".{0,12} {2,}(?=\S)")
"""What a line begins with before its text: blanks, or a word and a gap."""


def safe(text: str) -> str:
    """`text` without terminal sequences, control and direction characters; tabs and newlines stay."""
    return _UNSAFE.sub("", _SEQUENCE.sub("", text))


def one_line(text: str, limit: int = 300) -> str:
    """`text` made safe, on one line, of at most `limit` characters."""
    line = " ".join(safe(text[: limit * 8]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def json_line(value: object) -> bytes:
    """`value` as one line of JSON in UTF-8, with its newline. Characters that a terminal would act on are escaped, none
    is lost.
    """
    text = msgspec.json.encode(value).decode()
    return _UNESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode() + b"\n"


def clock(seconds: float) -> str:
    """A duration as `0:07` or `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def columns() -> int:
    """The width of the terminal to which stderr goes; 0 if it goes elsewhere."""
    if not sys.stderr.isatty():
        return 0
    try:
        return int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size(sys.stderr.fileno()).columns
    except (ValueError, OSError):
        return 0


def folded(text: str, width: int) -> str:
    """`text` in lines that end between words; what follows the first is set in, below what it continues.

    A word that is longer, such as a path or an id, stays whole, and so does a line with a command to copy.

    Args:
        text: a line, or several.
        width: of the terminal; below 20 nothing is done.
    """
    return text if width < _NARROWEST else "\n".join(_folded(line, width) for line in text.split("\n"))


def _folded(line: str, width: int) -> str:
    from rich.cells import cell_len  # by cells, as a letter of Chinese or Japanese takes two

    if cell_len(line) <= width or _COMMAND.search(line):
        return line
    begins = _BEGINS.match(line)
    inset = " " * (len(begins[0]) if begins else 2)
    lines = [""]
    for word in re.findall(r" *[^ ]+", line):
        if lines[-1].strip() and cell_len(lines[-1] + word) > width:
            lines.append(inset + word.lstrip(" "))
        else:
            lines[-1] += word
    return "\n".join(lines)


def tell(text: str, *, as_json: bool = False) -> None:
    """Write a line to stderr, folded to the terminal's width; as JSON, an object with the name `message`."""
    line = json_line({"message": safe(text)}).decode().rstrip("\n") if as_json else folded(safe(text), columns())
    print(line, file=sys.stderr, flush=True)


def print_out(text: str) -> None:
    """Write to stdout in UTF-8, whatever the locale: a paid answer must not lose characters."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode(errors="replace"))
    sys.stdout.buffer.flush()


def print_json(value: object) -> None:
    """Print one line of JSON on stdout."""
    print_out(json_line(value).decode())


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print a header and rows in columns; nothing without rows.

    Rows are never cut to the width of the terminal: that would lose the ids for which a list is read.
    """
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells if len(cells) > 1 else ():
        print_out("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
