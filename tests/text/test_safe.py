"""File names from a server become names that any file system takes, and that stay in their directory."""

from __future__ import annotations

import ntpath
import sys
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._text.safe import FILENAME_BYTES, safe_filename, visible

NAMES = [
    ("report.pdf", "report.pdf"),
    ("a b — ü.csv", "a b — ü.csv"),
    ("../../etc/passwd", "passwd"),
    ("..\\..\\windows\\win.ini", "win.ini"),
    ("/etc/passwd", "passwd"),
    ("C:\\x.txt", "x.txt"),
    ("C:x.txt", "C_x.txt"),
    ("x.txt:stream", "x.txt_stream"),
    ("..", "file"),
    (".", "file"),
    ("", "file"),
    ("a/", "file"),
    ("...", "file"),
    (".bashrc", "_bashrc"),
    ("CON", "_CON"),
    ("nul.txt", "_nul.txt"),
    ("com1.tar.gz", "_com1.tar.gz"),
    ("LPT²", "_LPT²"),
    ("conout$", "_conout$"),
    ("console.txt", "console.txt"),
    ("trailing. . ", "trailing"),
    ("a\x00b\r\nc\x1b[31m.txt", "abc[31m.txt"),
    ("evil\u202etxt.exe", "eviltxt.exe"),
    ('a<b>:"|?*.txt', "a_b______.txt"),
    ("\ud800x", "x"),
]


@pytest.mark.parametrize(("given_", "safe"), NAMES)
def test_name_is_made_safe(given_: str, safe: str) -> None:
    assert safe_filename(given_) == safe


@pytest.mark.parametrize("ending", [".csv", ".tar", "", "." + "x" * 500])
@pytest.mark.parametrize("letter", ["a", "ü", "😀", "e\u0301"])
def test_long_name_is_shortened_and_keeps_its_ending(letter: str, ending: str) -> None:
    safe = safe_filename(letter * 500 + ending)
    assert FILENAME_BYTES - 4 <= len(safe.encode()) <= FILENAME_BYTES
    assert len(ending) > 20 or safe.endswith(ending)


def is_reserved(name: str) -> bool:
    """Whether Windows keeps this name for a device."""
    if sys.version_info >= (3, 13):
        return ntpath.isreserved(name)
    return PureWindowsPath(name).is_reserved()


@given(st.one_of(st.text(), st.text("./\\:. con\x00\u202e", max_size=12), st.text(min_size=150)))
def test_any_name_is_one_harmless_part_of_a_path(name: str) -> None:
    safe = safe_filename(name)
    assert safe
    assert safe not in (".", "..")
    assert not safe.startswith((".", " "))
    assert not safe.endswith((".", " "))
    assert len(safe.encode()) <= FILENAME_BYTES
    assert not any(unicodedata.category(letter).startswith("C") for letter in safe)
    for kind in (PurePosixPath, PureWindowsPath):
        assert (kind("/downloads") / safe).parent == kind("/downloads")
    assert not is_reserved(safe)
    assert safe_filename(safe) == safe
    assert Path(safe).name == safe


def test_visible_text_is_whole_and_hides_nothing() -> None:
    assert visible("a\u200bb\u0000c\u202ed\ud800") == "abcd"
    assert visible("\U0001f469\u200d\U0001f680 a\nb\tc") == "\U0001f469\u200d\U0001f680 a\nb\tc"
