"""What kind of file the questions are in: text or JSONL, or something else, which is refused before anything is sent.

A wrong guess is paid for: of a table that is read as text, the header and the halves of its cells are asked. So what
looks like another kind of file is refused with the command that makes lines of it, and `--format` overrules the guess.
This module reads nothing; it is given the lines that a file begins with.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Sequence
from typing import Literal, TypeAlias

from aiopplx.cli._exits import UsageError
from aiopplx.cli._options import Format

Form: TypeAlias = Literal["text", "jsonl"]

_MAGIC = (
    (b"PK\x03\x04", "a zip archive, such as a spreadsheet or a word processor's document"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet or a document of an older office program"),
    (b"%PDF-", "a PDF"),
    (b"\x1f\x8b", "compressed by gzip"),
    (b"BZh", "compressed by bzip2"),
    (b"\xfd7zXZ\x00", "compressed by xz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd"),
    (b"SQLite format 3\x00", "an SQLite database, perhaps a journal"),
    (b"PAR1", "a Parquet file"),
    (b"{\\rtf", "an RTF document"),
)
# UTF-32's mark begins with that of UTF-16.
_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a]")

_JSON_NAMES = (".jsonl", ".ndjson", ".json")
_TABLES = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_OTHERS = {
    ".md": "Markdown",
    ".markdown": "Markdown",
    ".rst": "reStructuredText",
    ".tex": "LaTeX",
    ".html": "HTML",
    ".htm": "HTML",
    ".xml": "XML",
    ".yaml": "YAML",
    ".yml": "YAML",
    ".toml": "TOML",
    ".ipynb": "a notebook",
    ".py": "a program",
}
_COLUMNS = ("question", "questions", "prompt", "prompts", "query", "queries", "input", "text", "q")
_SEPARATORS = ("\t", ",", ";", "|")
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,39}")
_UNDERLINE = re.compile(r"(?:-{3,}|={3,}|\*{3,})")
_MARKUP = re.compile(r"<(?:!doctype|html|\?xml|!--)", re.IGNORECASE)
_OPEN_ENDED = re.compile(r"[\[{,:]\s*\Z")

_AS_TEXT = "or give --format text if each line is a question"
_UNLINED = """python3 -c "import sys; print(*sys.stdin.read().splitlines(), sep='\\n')" """


def form_of(name: str, lines: Sequence[bytes], given: Format) -> Form:
    """The form of a file's lines.

    Args:
        name: the file's name, for its ending and for messages.
        lines: the lines that it begins with, without their ends; the first is not blank.
        given: the form that the user named; `"auto"` goes by the name and the lines.

    Raises:
        UsageError: it is another kind of file; the message is one sentence with what to type.
    """
    _check_is_text(name, b"\n".join(lines))
    texts = _decoded(lines)
    ending = name[name.rfind(".") :].lower() if "." in name else ""
    form: Form = given if given != "auto" else _guessed(ending, texts)
    _check_line_ends(name, texts, form)
    if form == "jsonl" or given == "auto":
        _check_is_no_document(name, texts, form)
    if given == "auto" and form == "text":
        _check_is_no_table(name, ending, texts)
        _check_is_no_markup(name, ending, texts)
    return form


def splits(text: str) -> bool:
    """Whether a line of text has a line end in it that is not a newline: a file of an old Mac, or of a mainframe."""
    return len(text.splitlines()) > 1


def is_object(text: str) -> bool:
    """Whether a line of text is a JSON object: then the file is JSONL that does not begin like it."""
    return text.startswith("{") and isinstance(_json(text), dict)


def _decoded(lines: Sequence[bytes]) -> list[str]:
    """Lines that are not blank. Those that are not UTF-8 are told one by one, when they are read."""
    found = [line.decode("utf-8-sig", "replace").strip() for line in lines]
    return [line for line in found if line]


def _guessed(ending: str, texts: Sequence[str]) -> Form:
    first = texts[0] if texts else ""
    return "jsonl" if ending in _JSON_NAMES or first.startswith("{") else "text"


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


# --- what is no text -------------------------------------------------------------------------------------------------


def _check_is_text(name: str, head: bytes) -> None:
    encoding = next((said for mark, said in _MARKS if head.startswith(mark)), "") or _wide(head)
    if encoding:
        raise UsageError(
            f"{name} is {encoding} text; save it as UTF-8: iconv -f {encoding} -t UTF-8 {_file(name)} > questions.txt"
        )
    kind = next((said for magic, said in _MAGIC if head.startswith(magic)), "")
    if not kind and (b"\0" in head or any(_is_binary(line) for line in head.split(b"\n"))):
        kind = "not a text file"
    if kind:
        raise UsageError(f"{name} is {kind}; save the questions as UTF-8 text, one a line, or as JSONL")


def _wide(head: bytes) -> str:
    """The encoding of text in two bytes a character without a mark: one byte of each pair is mostly 0."""
    pairs = len(head) // 2
    if pairs < 2:
        return ""
    first, second = head[: 2 * pairs : 2].count(0) / pairs, head[1 : 2 * pairs : 2].count(0) / pairs
    if second > 0.5 and not first:
        return "UTF-16LE"
    return "UTF-16BE" if first > 0.5 and not second else ""


def _is_binary(line: bytes) -> bool:
    if not _CONTROL.search(line):
        return False
    try:
        line.decode()
    except UnicodeDecodeError:
        return True
    return False


def _check_line_ends(name: str, texts: Sequence[str], form: Form) -> None:
    # JSON allows the others inside a text.
    ends = {end for text in texts if splits(text) for end in text if end.splitlines() == [""]}
    if (form == "text" and ends) or ends & {"\r", "\v", "\f"}:
        said = {"\r": "CR"}.get(min(ends), f"U+{ord(min(ends)):04X}")
        raise UsageError(
            f"{name} has lines that end with {said} and not with a newline; make such lines of them:"
            f" {_UNLINED}< {_file(name)} > questions.{'jsonl' if form == 'jsonl' else 'txt'}"
        )


# --- what is text, but not lines of questions ------------------------------------------------------------------------


def _check_is_no_document(name: str, texts: Sequence[str], form: Form) -> None:
    """JSON that goes over several lines, or that is an array in one."""
    first = texts[0] if texts else ""
    is_array = first == "[" or isinstance(_json(first), list) or bool(re.match(r"\[\s*[\"{\[]", first))
    is_spread = any(_OPEN_ENDED.search(text) and _json(text) is None for text in texts) if form == "jsonl" else False
    if is_array:
        raise UsageError(
            f"{name} is one JSON array; write one question per line: jq -c '.[]' {_file(name)} > questions.jsonl"
        )
    if is_spread:
        raise UsageError(
            f"{name} is JSON that goes over several lines; write one object per line:"
            f" jq -c . {_file(name)} > questions.jsonl"
        )


def _check_is_no_table(name: str, ending: str, texts: Sequence[str]) -> None:
    first = texts[0] if texts else ""
    separator = _TABLES.get(ending) or _separator(texts)
    if not separator and first.strip('"').lower() not in _COLUMNS:
        return
    column = next((cell for cell in _cells(first, separator or ",") if cell.lower() in _COLUMNS), "")
    rows, cell = ("csv.DictReader", f"row['{column}']") if column else ("csv.reader", "row[0]")
    program = (
        f"import csv, json, sys; [print(json.dumps({cell})) for row in {rows}(open(sys.argv[1],"
        f" encoding='utf-8-sig', newline=''), delimiter='{separator or ','}')]"
    )
    raise UsageError(
        f"{name} is a table, not a file with one question a line; make lines of one of its columns:"
        f' python3 -c "{program}" {_file(name)} > questions.jsonl, {_AS_TEXT}'
    )


def _separator(texts: Sequence[str]) -> str:
    """What separates the cells, if the first line is the header of a table; `""` if it is not."""
    for separator in _SEPARATORS:
        header = _cells(texts[0], separator) if texts else []
        if len(header) < 2 or not all(header):
            continue
        has_question = any(cell.lower() in _COLUMNS for cell in header)
        are_names = all(_NAME.fullmatch(cell) for cell in header)
        if has_question or (are_names and len(texts) > 1 and len(_cells(texts[1], separator)) == len(header)):
            return separator
    return ""


def _cells(line: str, separator: str) -> list[str]:
    try:
        return [cell.strip() for row in csv.reader([line], delimiter=separator) for cell in row]
    except csv.Error:
        return []


def _check_is_no_markup(name: str, ending: str, texts: Sequence[str]) -> None:
    kind = _OTHERS.get(ending, "")
    if not kind and texts and _MARKUP.match(texts[0]):
        kind = "HTML or XML"
    if not kind and _is_markdown(texts):
        kind = "Markdown"
    if not kind and any(is_object(text) for text in texts):
        raise UsageError(f"{name} has JSON objects among its lines; give --format jsonl or --format text")
    if kind:
        raise UsageError(
            f"{name} is {kind}, whose lines are not one question each; write one question per line, {_AS_TEXT}"
        )


def _is_markdown(texts: Sequence[str]) -> bool:
    """Marks that no question has: a fence, a row of a table, a line under a title, headings of two levels."""
    if any(text.startswith(("```", "~~~")) or _UNDERLINE.fullmatch(text) for text in texts):
        return True
    if any(len(text) > 1 and text.startswith("|") and text.endswith("|") for text in texts):
        return True
    return bool(texts) and texts[0].startswith("# ") and any(re.match(r"#{2,6} ", text) for text in texts)


def _file(name: str) -> str:
    """The file as a shell takes it."""
    return "FILE" if name == "stdin" else shlex.quote(name)
