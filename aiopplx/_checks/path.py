"""A path as a user gives it, checked before anything is opened. This module knows nothing of what the file is for."""

from __future__ import annotations

import os
import re
from typing import cast

from aiopplx._errors import ConfigError

_NO_FILE = r"(?i)\s*:memory:|file:|sqlite\d*(\+\w+)?:"
"""Taken for a file, they would be one of that name, and not what is meant."""
_ADDRESS = r"(?i)\s*[a-z][a-z0-9+.-]+:/"
"""Also with one slash: a `Path` that is made of an address leaves the other out."""


def check_path(name: str, given: object) -> str:
    """The path as text, if a file can have it.

    Args:
        name: of the argument, for the error.
        given: the path.

    Raises:
        ConfigError: it is not a path or names a directory, has a character that no file name can have, or is one of the
            names that other programs take for something else than a file.
    """
    path: object = given
    if isinstance(given, os.PathLike):
        try:
            path = os.fspath(cast("os.PathLike[str]", given))
        except Exception as error:  # the caller's code, and what it returns is checked by Python
            raise ConfigError(f"must be a path; its __fspath__ raised {type(error).__name__}", argument=name) from None
    if not isinstance(path, str):
        raise ConfigError(f"must be a path, not {type(path).__name__}", argument=name)
    if not path:
        raise ConfigError("must be a path, not an empty text", argument=name)
    if re.match(_NO_FILE, path):
        raise ConfigError(
            "is the path of a file, and no address of SQLite's: give the path alone. A journal in memory is"
            " journal=aiopplx.journal.MemoryJournal(now=time.time), and without any journal= nothing is kept",
            argument=name,
        )
    if re.match(_ADDRESS, path):
        raise ConfigError(
            "is an address, and no path of a file: a database is given as text, postgresql://user@host/database",
            argument=name,
        )
    if os.path.basename(path) in ("", os.curdir, os.pardir):
        # Any other directory is found when the file is opened: a disk that stalls must not hang whoever only asks.
        raise ConfigError("is a directory: name a file in it", argument=name)
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError:
        raw = b"\0"
    if b"\0" in raw:
        raise ConfigError("has a character in it that no file name can have", argument=name)
    return path
