"""What a file is, by its content and then by its name, and the table in it.

Nothing is ever half taken. A file that is not surely one of these is refused with what to do, because a header, half a
cell or the lines of an indented object would be asked and paid for as questions.

The only module here that opens files of text. This module knows nothing of what is asked.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import msgspec

from aiopplx.tables._delimited import read_delimited
from aiopplx.tables._encoding import Encoding, encoding_of, given_encoding
from aiopplx.tables._kind import ENOUGH, text_format
from aiopplx.tables._objects import read_objects
from aiopplx.tables._parquet import read_parquet
from aiopplx.tables._sheets import read_excel
from aiopplx.tables._table import Advice, Note, Rows, Table, TableError
from aiopplx.tables._text import read_brief, read_text

Format = Literal["text", "jsonl", "json", "csv", "tsv", "excel", "parquet", "brief"]
"""How a file is read; `brief` is one question, the whole file."""
FORMATS: tuple[str, ...] = get_args(Format)
CHUNK = 1 << 16
HEAD = 4096
LARGEST = 1 << 28
"""Bytes that an Excel file may have once it is unpacked: openpyxl holds some of it in memory as a whole."""

_JOURNAL = ".journal.db"
_AN_IMAGE = "an image; write its questions into a text file, one a line"
_A_PICKLE = "a Python pickle; give what it holds, or save that as .csv or .parquet"
_A_RECORDING = "an image or a recording; write its questions into a text file, one a line"
_A_PROGRAM = "a program; write the questions into a text file, one a line"
# By the first bytes: what was saved under the wrong name, or is not converted yet.
_REFUSED = (
    (b"%PDF", "a PDF; copy the questions out of it"),
    (b"\x1f\x8b", "compressed (gzip); unpack it first"),
    (b"BZh", "compressed (bzip2); unpack it first"),
    (b"\xfd7zXZ", "compressed (xz); unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd); unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file; save it as .xlsx or .csv"),
    *((mark, _AN_IMAGE) for mark in (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"BM")),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"ARROW1", "an Arrow file; save it as .parquet or .csv, or give the table that pyarrow.feather.read_table reads"),
    (b"\x93NUMPY", "a NumPy array; give the array, or save it as .csv"),
    (b"\x80\2", _A_PICKLE),
    (b"\x80\3", _A_PICKLE),
    (b"\x80\4", _A_PICKLE),
    (b"\x80\5", _A_PICKLE),
    (b"\x7fELF", _A_PROGRAM),
    (b"MZ", _A_PROGRAM),
    (b"ID3", _A_RECORDING),
    (b"RIFF", _A_RECORDING),
    (
        b"SQLite format 3\0",
        "a database; save its table of questions as .csv. Those of a journal are in the file that it was made from",
    ),
)
_MAY_BE_A_WORD = (b"BM", b"MZ", b"ID3", b"RIFF")
"""A text may begin so as well: `BMW, ...`. It has no NUL bytes."""


class ReadOptions(msgspec.Struct, frozen=True):
    """What a user says about a file; what is not said is found out.

    Attributes:
        format: what the file is.
        sheet: of an Excel file.
        encoding: of a file of text.
        delimiter: between the cells of a line.
        header: the first row has the names of the columns.
        skip_lines: lines before the header.
        each_line: each line of a Markdown file is a question; otherwise the whole file is one.
        columns: names that stand in the header, where that is known: a first row with one of them is the header,
            though another name is a number (`2024`).
    """

    format: Format | None = None
    sheet: str = ""
    encoding: str = ""
    delimiter: str = ""
    header: bool = True
    skip_lines: int = 0
    each_line: bool = False
    columns: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises `TableError`: a value is not possible."""
        if self.format is not None and self.format not in FORMATS:
            raise TableError(f"there is no format {self.format!r}; there are {', '.join(FORMATS)}")
        if self.delimiter and (len(self.delimiter) != 1 or self.delimiter in '"\\\r\n'):
            raise TableError("a delimiter is one character, and neither a quote nor a line end")
        if self.skip_lines < 0:
            raise TableError("skip_lines is a number of lines, 0 or more")


def read_file(path: str | os.PathLike[str], options: ReadOptions | None = None, *, name: str = "") -> Table:
    """The table in a file.

    The file must stay as it is until its rows were read for the last time: one that changed is refused then.

    Args:
        path: a regular file.
        options: what the user says about it.
        name: what messages call it, whose suffix counts; by default the file's own name.

    Raises:
        TableError: it cannot be read, or is not surely a table or questions.
    """
    options = options or ReadOptions()
    options.check()
    file = _File(os.fspath(path), name)
    table = _table(file, options)
    read = table.read

    def unchanged() -> Rows:
        file.check()
        return read()

    table.read = unchanged
    return table


class _File:
    """A file that must not change between two readings."""

    def __init__(self, path: str, name: str = "") -> None:
        self.path = path
        self.name = name or os.path.basename(path) or path
        self.suffix = Path(self.name).suffix.lower()
        self._was = self._state()
        self.head = next(self.chunks(), b"")[:HEAD]

    def _state(self) -> tuple[int, int]:
        try:
            status = os.stat(self.path)
        except (OSError, ValueError) as error:
            raise TableError(f"cannot read {self.name}: {_why(error)}") from None
        return status.st_size, status.st_mtime_ns

    def check(self) -> None:
        """Raises `TableError`: the file is another than before."""
        if self._state() != self._was:
            raise TableError(f"{self.name} has changed since it was looked at: begin again")

    def chunks(self) -> Iterator[bytes]:
        """Its bytes. Raises `TableError`."""
        try:
            with open(self.path, "rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        except OSError as error:
            raise TableError(f"cannot read {self.name}: {_why(error)}") from None

    def lines(self, encoding: Encoding) -> Iterator[str]:
        """Its lines with their ends: `\\n`, `\\r\\n` or `\\r`. Raises `TableError`."""
        try:
            with open(self.path, encoding=encoding.codec, newline="") as file:
                yield from file
        except UnicodeError:
            label = encoding.label
            raise TableError(f"{self.name} is not {label}", Advice("encoding", '"..."', "names another")) from None
        except OSError as error:
            raise TableError(f"cannot read {self.name}: {_why(error)}") from None


def _why(error: Exception) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "its name has a NUL character"


def _table(file: _File, options: ReadOptions) -> Table:
    if not file.head:
        raise TableError(f"{file.name} is empty")
    form = options.format or _binary_format(file) or ("csv" if options.delimiter else None)
    if form == "excel":
        return read_excel(
            file.name,
            file.path,
            sheet=options.sheet,
            header=options.header,
            skip=options.skip_lines,
            said=options.columns,
        )
    if form == "parquet":
        return read_parquet(file.name, file.path)
    encoding = (
        given_encoding(file.name, options.encoding) if options.encoding else encoding_of(file.name, file.chunks())
    )
    table = _of_text(file, form or _text_format(file, encoding), encoding, options)
    if encoding.note:
        table.notes.insert(0, Note(encoding.note, Advice("encoding", '"..."', "names another")))
    table.has_mark = encoding.has_mark or encoding.codec not in ("utf-8", "utf-8-sig")
    return table


def _of_text(file: _File, form: str, encoding: Encoding, options: ReadOptions) -> Table:
    lines = partial(file.lines, encoding)
    if form in ("json", "jsonl"):
        return read_objects(file.name, lines)
    if form == "brief" and not options.each_line:
        return read_brief(file.name, "".join(lines()), label=encoding.label)
    if form in ("csv", "tsv"):
        return read_delimited(
            file.name,
            lines,
            label=encoding.label,
            delimiter=options.delimiter or ("\t" if form == "tsv" else ""),
            header=options.header,
            skip=options.skip_lines,
            said=options.columns,
        )
    return read_text(file.name, lines, label=encoding.label, is_guess=options.format is None and not options.each_line)


def _binary_format(file: _File) -> Format | None:
    """What the first bytes say. Raises `TableError` for what cannot be read."""
    head = file.head
    if head.startswith(b"PK\x03\x04"):
        return _in_archive(file)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head[4:8] == b"ftyp":
        raise TableError(f"{file.name} is {_A_RECORDING}")
    if head[257:262] == b"ustar":
        raise TableError(f"{file.name} is a tar archive; unpack it first")
    for mark, what in _REFUSED:
        if head.startswith(mark) and (mark not in _MAY_BE_A_WORD or b"\0" in head):
            questions = file.name.removesuffix(_JOURNAL)
            if questions != file.name and mark.startswith(b"SQLite"):
                raise TableError(f"{file.name} is a journal; the questions are in {questions}")
            raise TableError(f"{file.name} is {what}")
    return None


def _in_archive(file: _File) -> Format:
    try:
        with zipfile.ZipFile(file.path) as archive:
            names = set(archive.namelist())
            size = sum(part.file_size for part in archive.infolist())
    except (OSError, zipfile.BadZipFile, ValueError):
        raise TableError(f"{file.name} is a damaged archive, or was cut off; save it or fetch it anew") from None
    if "xl/workbook.xml" in names:
        if size > LARGEST:
            raise TableError(
                f"{file.name} has {size >> 20:,} MiB once it is unpacked, and at most {LARGEST >> 20} are read;"
                " save the sheet of the questions as .csv"
            )
        return "excel"
    if "word/document.xml" in names:
        raise TableError(f"{file.name} is a Word document; save it as plain text")
    if "content.xml" in names:
        raise TableError(f"{file.name} is an OpenDocument file; save it as .xlsx or .csv")
    if any(name.startswith("Index/") for name in names):
        raise TableError(f"{file.name} is a Numbers document; export it as .xlsx or .csv")
    raise TableError(f"{file.name} is a ZIP archive; unpack it first")


def _text_format(file: _File, encoding: Encoding) -> Format:
    return text_format(file.name, file.suffix, list(islice(file.lines(encoding), ENOUGH)))
