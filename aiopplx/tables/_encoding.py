"""Which encoding a file of text has, decided by rules and never by likelihood.

A mark at the beginning decides; then a NUL in every second byte (UTF-16); then whether the whole file is valid UTF-8. A
file that is none of these was saved by an old program, and its line ends say by which: `\\r\\n` Windows (cp1252), `\\r`
alone a Mac (mac_roman). With `\\n` alone, or where more than a quarter of the letters are not ASCII, any guess may be
wrong (Cyrillic, Greek, Shift-JIS), and the file is refused. So is one with `\\r\\n` whose first letters outside ASCII
are UTF-8: it was cut off, or made of two files; and one that would have signs in the midst of words as cp1252
(`sp³ka`), or letters where no language of cp1252 has them (`mùže`): it is of another Windows, or of a Mac. Of 9,300
texts in 20 languages of cp1252 four have such: the name of the language Võro. Estonian is refused by it, too. Detectors
by statistics were tried and called a German cp1252 file cp1250.

This module knows nothing of what the text means.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable

import msgspec

from aiopplx.tables._table import Advice, TableError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_LETTERS = bytes(range(65, 91)) + bytes(range(97, 123))
_HIGH = bytes(range(128, 256))
# Between two letters no language of cp1252 has one of these signs, nor a capital between small ones. In other encodings
# of Windows, and on a Mac, these bytes are letters.
# One byte, looked at from both sides: a pattern of whole words would read a long line anew from each of its letters.
_WRONG = re.compile(
    rb"(?<=[A-Za-z\xc0-\xff])[\xa1-\xa3\xa5-\xa7\xa9\xac\xaf\xb1\xb3\xb6\xb9\xbc\xbe\xbf](?=[A-Za-z\xc0-\xff])"
    rb"|(?<=[A-Za-z])[\x8a\x8c\x8e\x9f](?=[a-z])"
    # Of a Mac, and what Windows-1252 has no letter for.
    rb"|(?<=[A-Za-z])[\x83\x86-\x89\x98](?=[a-z])|[\x81\x8d\x8f\x90\x9d]"
    # Letters where no language of cp1252 has them, or hardly ever: in Hungarian, Romanian, Turkish, Slovene and Czech.
    rb"|(?<=[a-z])\xf5(?![e\x80-\xff])|\xe3(?=[b-df-hj-mp-rt-z])|(?<=[a-z])\xfe(?![aeiouyrjv\xc0-\xff])"
    rb"|\xe8(?=[aeiou])|(?<=[a-z])\xec(?=[a-z])|(?<=[b-df-hj-np-tv-z])\xf9(?=[b-df-hj-np-tv-z\x9a\x9e])"
    # Four different ones in a row: of another script.
    rb"|([\xc0-\xd6\xd8-\xf6\xf8-\xff])(?!\1\1\1)[\xc0-\xd6\xd8-\xf6\xf8-\xff]{3}"
)
_NO_LETTER = re.compile(rb"[^A-Za-z\xc0-\xff]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x19\x1b-\x1f\x7f]")
"""What no text has. \x1a was the end of a file once."""
_WORD = re.compile(r"[^\x00-\x1f,;|\t\"]*[^\x00-\x7f][^\x00-\x1f,;|\t\"]*")
_ENCODING = Advice("encoding", '"..."', "says which it is")


class Encoding(msgspec.Struct, frozen=True):
    """How to read a file of text.

    Attributes:
        codec: the name for `open(encoding=)`.
        label: the name for a person.
        has_mark: the file begins with a mark that says so.
        note: what to tell; "" if the encoding is certain.
    """

    codec: str
    label: str
    has_mark: bool = False
    note: str = ""


def encoding_of(name: str, chunks: Iterable[bytes]) -> Encoding:
    """The encoding of a file, from all of its bytes.

    Args:
        name: what messages call the file.
        chunks: its bytes.

    Raises:
        TableError: it is not text, or any guess may be wrong.
    """
    scan = _Scan()
    for chunk in chunks:
        scan.take(chunk)
    return scan.verdict(name)


def given_encoding(name: str, codec: str) -> Encoding:
    """The encoding that a user names. Raises `TableError` if there is no such encoding of text."""
    try:
        info = codecs.lookup(codec)
        "".encode(codec)  # refuses those that are no encodings of text, such as base64
    except (LookupError, ValueError):
        raise TableError(f"{name}: there is no encoding {codec[:40]!r}; UTF-8, cp1252 and mac_roman are some") from None
    # A mark that the file has all the same must not become part of the first name.
    return Encoding("utf-8-sig" if info.name == "utf-8" else info.name, info.name)


def _is_utf8_so_far(head: bytes) -> bool:
    """Whether these are the first bytes of UTF-8, which may end within a letter."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


class _Scan:
    """What has to be known of all the bytes."""

    def __init__(self) -> None:
        self._decoder: codecs.IncrementalDecoder | None = codecs.getincrementaldecoder("utf-8")()
        self._head = b""
        self._size = 0
        self._nuls = [0, 0]
        self._counts = dict.fromkeys(("\r\n", "\r", "\n"), 0)
        self._letters = 0
        self._high = 0
        self._last = 0
        self._sample = b""
        self._wrong = b""
        self._is_partly_utf8 = False

    def take(self, chunk: bytes) -> None:
        if len(self._head) < 4096:
            self._head += chunk[:4096]
        if b"\0" in chunk:
            even = self._size % 2
            self._nuls[0] += chunk[even::2].count(0)
            self._nuls[1] += chunk[1 - even :: 2].count(0)
        self._size += len(chunk)
        pairs = chunk.count(b"\r\n") + (self._last == 13 and chunk[:1] == b"\n")
        self._counts["\r\n"] += pairs
        self._counts["\r"] += chunk.count(b"\r")
        self._counts["\n"] += chunk.count(b"\n")
        self._last = chunk[-1] if chunk else self._last
        if chunk.isascii():
            self._letters += len(chunk) - len(chunk.translate(None, _LETTERS))
            if self._decoder is not None and not self._decoder.getstate()[0]:
                return  # nothing of it can be wrong
        else:
            self._letters += len(chunk) - len(chunk.translate(None, _LETTERS))
            self._high += len(chunk) - len(chunk.translate(None, _HIGH))
            if not self._wrong and (sign := _WRONG.search(chunk)) is not None:
                before = _NO_LETTER.split(chunk[max(0, sign.start() - 20) : sign.start()])[-1]
                self._wrong = before + sign[0] + _NO_LETTER.split(chunk[sign.end() : sign.end() + 19])[0]
            if not self._sample:
                at = next(place for place, byte in enumerate(chunk) if byte > 127)
                self._sample = chunk[max(0, at - 60) : at + 60]
        if self._decoder is not None:
            try:
                right = self._decoder.decode(chunk)
            except UnicodeDecodeError as error:
                self._decoder = None
                right = error.object[: error.start].decode()
            self._is_partly_utf8 = self._is_partly_utf8 or not right.isascii()

    def _is_utf8(self) -> bool:
        if self._decoder is None:
            return False
        try:
            self._decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
        return True

    def verdict(self, name: str) -> Encoding:
        for mark, codec, label in _MARKS:
            if self._head.startswith(mark):
                return Encoding(codec, label, has_mark=True)
        if any(self._nuls):
            return self._of_nuls(name)
        if self._is_utf8():
            return Encoding("utf-8", "UTF-8")
        return self._of_line_ends(name)

    def _of_nuls(self, name: str) -> Encoding:
        """UTF-16 without a mark has its NULs in the high bytes, so on one side only."""
        even, odd = self._nuls
        codec = "utf-16-le" if odd else "utf-16-be"
        is_text = _CONTROL.search(self._head.decode(codec, "ignore")) is None
        if is_text and self._size % 2 == 0 and min(even, odd) == 0 and max(even, odd) >= self._size // 8:
            return Encoding(codec, "UTF-16", note="UTF-16 without a mark")
        said = f"{name} is not text: it has NUL bytes"
        for utf16 in ("utf-16-le", "utf-16-be"):
            text = self._head.decode(utf16, "ignore")
            # Each half of a letter may be a NUL: U+4E00 is one of the commonest.
            if "\n" in text and not _CONTROL.search(text):
                raise TableError(said, Advice("encoding", f'"{utf16}"', "reads it as UTF-16 without a mark"))
        rest = self._head.replace(b"\0", b"")
        if not _is_utf8_so_far(rest) or _CONTROL.search(rest.decode("utf-8", "ignore")):
            save = "save the questions in it as .csv, .xlsx or JSON, or write them into a text file, one a line"
            raise TableError(f"{said}; {save}")
        raise TableError(f"{said}; tr -d '\\000' < {name} > clean.txt takes them out")

    def _of_line_ends(self, name: str) -> Encoding:
        pairs, returns, ends = self._counts["\r\n"], self._counts["\r"], self._counts["\n"]
        if self._is_partly_utf8:
            raise TableError(f"{name} is UTF-8 only in part: it was cut off, or made of two files", _ENCODING)
        if self._high > (self._high + self._letters) / 4:
            raise TableError(f"{name} is not UTF-8, and most of what it is written in is not ASCII", _ENCODING)
        if pairs and pairs == returns:  # a line break inside a cell of Excel is a newline alone
            codec, label = "cp1252", "Windows-1252"
            if self._wrong:
                wrong = self._wrong.decode("cp1252", "replace")
                raise TableError(f'{name} is not UTF-8, and as Windows-1252 it would have "{wrong}"', _ENCODING)
        elif returns and not ends:
            codec, label = "mac_roman", "Mac Roman"
        else:
            raise TableError(f"{name} is not UTF-8", _ENCODING)
        try:
            said = self._sample.decode(codec)
        except UnicodeDecodeError:
            raise TableError(f"{name} is neither UTF-8 nor {label}", _ENCODING) from None
        word = _WORD.search(said)
        shown = f' ("{word[0].strip()[:40]}")' if word else ""
        return Encoding(codec, label, note=f"not UTF-8; read as {label}{shown}")
