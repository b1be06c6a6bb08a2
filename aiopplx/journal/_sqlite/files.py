"""The files under an open journal: whether they are still those that were opened, and how long the log is.

A system lets anybody remove, replace or truncate a file that is open. What is written then is lost with the end of the
process, and a later run would pay again; so it is asked before each transaction. This module knows nothing of SQL, nor
of what is done about it.
"""

from __future__ import annotations

import os
import sys

from aiopplx.journal._sqlite.errors import replaced

FEW = 200
"""Pages of log that are nothing to do something about."""
_PAGE = 4096
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
        self._path_of_log = f"{path}-wal"
        main, log = os.stat(path), os.stat(self._path_of_log)
        self._main, self._main_device, self._main_size = main.st_ino, main.st_dev, main.st_size
        self._log, self._log_device, self._log_size = log.st_ino, log.st_dev, log.st_size
        # Closed only after SQLite's own: on POSIX, closing a file drops all locks that the process has on it.
        self._index = os.open(f"{path}-shm", os.O_RDONLY)

    def check(self) -> None:
        """Raises `JournalBroken` if one was removed, replaced or truncated: while it is open, each only grows."""
        # Before each transaction: two calls of the system, and little else.
        try:
            main, log = os.stat(self.path), os.stat(self._path_of_log)
        except OSError as error:
            raise replaced(self.path, f"cannot be found any more ({error.strerror}: {error.filename})") from None
        if (
            main.st_ino != self._main
            or log.st_ino != self._log
            or main.st_dev != self._main_device
            or log.st_dev != self._log_device
        ):
            raise replaced(self.path, "was replaced by another file, or its log was,")
        if main.st_size < self._main_size or log.st_size < self._log_size:
            raise replaced(self.path, "was truncated, or its log was,")
        self._main_size, self._log_size = main.st_size, log.st_size

    def frames(self) -> int:
        """How many pages are in the log, or may be: its file never shrinks, and a small one is not looked into."""
        pages = self._log_size // _PAGE
        return pages if pages < FEW else int.from_bytes(os.pread(self._index, 4, _FRAMES), sys.byteorder)

    def close(self) -> None:
        """Close what is open of them. SQLite must have closed its own before."""
        os.close(self._index)
