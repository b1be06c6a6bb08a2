"""The files under an open journal: whether they are still those that were opened, and how long the log is.

A system lets anybody remove, replace or truncate a file that is open. What is written then is lost with the end of the
process, and a later run would pay again; so it is asked before each transaction. This module knows nothing of SQL, nor
of what is done about it.
"""

from __future__ import annotations

import os
import struct

from aiopplx.journal._sqlite.errors import replaced

_FRAMES = 16
"""Where SQLite's index of the log (`-shm`) says how many frames are committed."""


class Files:
    """The journal's file, its log and the index of the log, just opened.

    Args:
        path: the journal's.

    Raises:
        OSError: one of them is not there.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._main, self._log = os.stat(path), os.stat(f"{path}-wal")
        # Closed only after SQLite's own: on POSIX, closing a file drops all locks that the process has on it.
        self._index = os.open(f"{path}-shm", os.O_RDONLY)

    def check(self) -> None:
        """Raises `JournalBroken` if one was removed, replaced or truncated: while it is open, each only grows."""
        try:
            main, log = os.stat(self.path), os.stat(f"{self.path}-wal")
        except OSError as error:
            raise replaced(self.path, f"cannot be found any more ({error.strerror}: {error.filename})") from None
        for before, now in ((self._main, main), (self._log, log)):
            if (before.st_ino, before.st_dev) != (now.st_ino, now.st_dev):
                raise replaced(self.path, "was replaced by another file, or its log was,")
            if now.st_size < before.st_size:
                raise replaced(self.path, "was truncated, or its log was,")
        self._main, self._log = main, log

    def frames(self) -> int:
        """How many pages are in the log."""
        head = os.pread(self._index, 4, _FRAMES)
        return int(struct.unpack("=I", head)[0]) if len(head) == 4 else 0

    def close(self) -> None:
        """Close what is open of them. SQLite must have closed its own before."""
        os.close(self._index)
