"""One writer per journal, across processes: an advisory lock on a file next to it, which ends with its process.

The lock is the kernel's, not the existence of the file: after `kill -9` it is free at once. This module knows nothing
of what the lock protects.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
from typing import NamedTuple

_SAID = re.compile(r"(\d{1,10}) (\S{1,255})\s*")
# By a token of each lock and not by their numbers: the system gives the number of a closed descriptor to the next file,
# and a lock that was released long ago must not release that one. One thread releases a lock, or the collector after
# it, so that it is closed once.
_held: dict[object, int] = {}


class Holder(NamedTuple):
    """The holder of a lock, by its own account."""

    pid: int
    host: str


class Held(Exception):
    """Another process has the lock. The caller of `take` handles this error."""

    def __init__(self, holder: Holder | None) -> None:
        super().__init__(holder)
        self.holder = holder


if sys.platform == "win32":
    import msvcrt

    def _try(descriptor: int) -> None:
        # Locks are mandatory here: lock a byte far behind the text, so that others can still read who holds it.
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _try(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Lock:
    """Held from `take` to `release`, or to the end of the process, however it ends."""

    def __init__(self) -> None:
        self._token = object()

    @classmethod
    def take(cls, path: str) -> Lock:
        """Take the lock on `path`, which is created if necessary, readable by its owner only.

        Raises:
            Held: another process has it.
            OSError: the file cannot be created or locked.
        """
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
            lock = cls()
            is_ours = False
            try:
                _try(descriptor)
                if _is_at(descriptor, path):
                    _write(descriptor, f"{os.getpid()} {platform.node() or 'localhost'}\n")
                    _held[lock._token] = descriptor
                    is_ours = True
                    return lock
                # The file was removed between the two calls: this lock is on a file that no other process will find.
            except (BlockingIOError, PermissionError):
                raise Held(_read(descriptor)) from None
            finally:
                if not is_ours:
                    os.close(descriptor)

    def __del__(self) -> None:
        self.release()  # whatever went wrong: the next opening must not find it locked

    def release(self) -> None:
        """Release it. The file stays: removing it would let two processes lock two files of one name."""
        descriptor = _held.get(self._token)
        if descriptor is None:
            return
        try:
            _write(descriptor, "")
        finally:
            os.close(_held.pop(self._token))  # in one line: after an error before it `__del__` tries again


def holder_of(path: str) -> Holder | None:
    """Who claims to hold the lock, without trying to take it. A dead process of this machine does not count."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        holder = _read(descriptor)
    finally:
        os.close(descriptor)
    if holder is not None and holder.host == platform.node() and not _is_alive(holder.pid):
        return None
    return holder


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":  # os.kill would end it there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _read(descriptor: int) -> Holder | None:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        said = _SAID.fullmatch(os.read(descriptor, 300).decode("ascii", "replace"))
    except OSError:
        return None
    return Holder(int(said[1]), said[2]) if said else None


def _write(descriptor: int, text: str) -> None:
    # A full disk must not prevent locking: without this text, only the error messages say less.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, text.encode("ascii", "replace"))


def _leave_to_the_parent() -> None:
    """In a forked child: its copies of the descriptors would keep the locks after the parent has ended."""
    for descriptor in _held.values():
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)
