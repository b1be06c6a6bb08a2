"""Why a file may not grow, where SQLite says no more than that it could not be written.

SQLite has a word for a full disk, and none for a quota that is used up, or for a file that is as large as a process may
make it. All three end when somebody makes room, so they are told as one. This module knows nothing of SQLite.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys

_NO_ROOM = frozenset({errno.ENOSPC, errno.EFBIG, *([errno.EDQUOT] if hasattr(errno, "EDQUOT") else [])})
_PIECE = 64 * 1024
"""Bytes that should fit beside the file, and be added to it: the smallest step is not larger."""


def no_room(path: str) -> str:
    """Why nothing can be added to this file, or beside it; `""` if something can, or nobody knows why not.

    Args:
        path: of a file, whose log is beside it.
    """
    return _limit_of_process(path) or _limit_of_disk(path)


def _limit_of_process(path: str) -> str:
    if sys.platform == "win32":
        return ""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY:
        return ""
    largest = 0
    for each in (path, f"{path}-wal"):
        with contextlib.suppress(OSError):
            largest = max(largest, os.stat(each).st_size)
    return f"this process may make no file larger than {limit:,} bytes" if largest + _PIECE > limit else ""


def _limit_of_disk(path: str) -> str:
    probe = f"{path}.{os.getpid()}.room"
    try:
        number = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(number, os.urandom(_PIECE))
            os.fsync(number)
        finally:
            os.close(number)
            os.unlink(probe)
    except OSError as error:
        return error.strerror or "" if error.errno in _NO_ROOM else ""
    return ""
