"""A path as a user gives it, checked before anything is opened. This module knows nothing of what the file is for."""

from __future__ import annotations

import os
from typing import cast

from aiopplx._errors import ConfigError


def check_path(name: str, given: object) -> str:
    """The path as text, if a file can have it.

    Args:
        name: of the argument, for the error.
        given: the path.

    Raises:
        ConfigError: it is no path, or has a character that no file name can have.
    """
    path: object = os.fspath(cast("os.PathLike[str]", given)) if isinstance(given, os.PathLike) else given
    if not isinstance(path, str):
        raise ConfigError(f"must be a path, not {type(path).__name__}", argument=name)
    if not path:
        raise ConfigError("must be a path, not an empty text", argument=name)
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError:
        raw = b"\0"
    if b"\0" in raw:
        raise ConfigError("has a character in it that no file name can have", argument=name)
    return path
