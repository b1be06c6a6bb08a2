"""The exceptions of a journal: what went wrong, with which file or database, and what to do.

They decide nothing. This module does not know how a journal is stored.
"""

from __future__ import annotations

from typing import Literal

from aiopplx._errors import AiopplxError, InvalidRequest

Reason = Literal[
    "empty",
    "foreign",
    "newer",
    "older",
    "corrupt",
    "account",
    "base_url",
    "network",
    "orphan",
    "log",
    "unusable",
    "missing",
]
"""Why a journal cannot be used, for programs; the message says it for people."""


class JournalError(AiopplxError):
    """Root of every exception that a journal raises.

    Attributes:
        path: the journal's file, or the URL of its database without the password; `""` for one in memory.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str = "",
        job_id: str = "",
        idempotency_key: str = "",
        tag: str | int | None = None,
        remedy: str = "",
    ) -> None:
        super().__init__(message, job_id=job_id, idempotency_key=idempotency_key, tag=tag, remedy=remedy)
        self.path = path


class ItemConflict(InvalidRequest):
    """The journal has this tag or idempotency key for another request. Nothing was sent or paid.

    Attributes:
        item: the name in the journal that is already in use.
    """

    def __init__(self, message: str, *, field: str = "tag", tag: str | int | None = None, item: str = "") -> None:
        super().__init__(message, field=field, tag=tag)
        self.item = item


class DuplicateJob(JournalError):
    """The server gave this submission the id of another one: whether it made a job, and which, is unknown.

    Nothing was overwritten. `job_id` is the id, `idempotency_key` the key of the submission that already has it.
    """


class ImpossibleStep(JournalError):
    """The state of a row does not allow the step; the row is unchanged.

    Attributes:
        step: the name of the step (`"accepted"`).
        state: the name of the row's state, `""` if the row does not exist.
    """

    def __init__(self, message: str, *, step: str, state: str, path: str = "") -> None:
        super().__init__(message, path=path)
        self.step = step
        self.state = state


class JournalLocked(JournalError):
    """Another process (or another session of this one) has the journal open. It can have only one writer.

    Attributes:
        pid: that process, None if unknown.
        host: the machine that it runs on, `""` if unknown.
    """

    def __init__(self, message: str, *, path: str, pid: int | None = None, host: str = "") -> None:
        super().__init__(message, path=path)
        self.pid = pid
        self.host = host


class JournalRefused(JournalError):
    """The file, or the database, is not opened; the message gives the reason. It was not changed, nor ever replaced.

    Attributes:
        reason: in a word: `empty` (no bytes), `foreign` (not a journal), `newer` or `older` (made by another version),
            `corrupt`, `account` (another API key), `base_url` (another server), `network` (a file system on which
            SQLite's write-ahead log is not safe), `orphan` (a write-ahead log without its file), `log` (a file without
            the write-ahead log that it was left with), `missing`, `unusable` (no permission to read or write it, no
            such directory or database, no certificate that can be trusted).
    """

    def __init__(self, message: str, *, path: str, reason: Reason, remedy: str = "") -> None:
        super().__init__(message, path=path, remedy=remedy)
        self.reason: Reason = reason


class JournalFull(JournalError):
    """The disk is full, or a database's server has no room left: this step was not written. Later ones will be, once
    there is space.
    """


class JournalBroken(JournalError):
    """The file could not be read or written, or the database refused a statement: this step was not written.

    Attributes:
        is_final: True if no later step can succeed: the file is damaged, or another process has taken it over.
    """

    def __init__(self, message: str, *, path: str, is_final: bool = False, remedy: str = "") -> None:
        super().__init__(message, path=path, remedy=remedy)
        self.is_final = is_final


class ClaimLost(JournalError):
    """Another session now owns the row: this step was not applied, and the row is unchanged.

    Other rows are not affected. `Journal.follow` waits for what the other session writes.
    """


class JournalAway(JournalError):
    """The store cannot be reached at the moment, or lets nobody in: nothing was written, as far as is known.

    Apply the same step again later: if it was written after all, that is recognized.

    Attributes:
        is_there: True if the store can be reached, and a row in it changes faster than this call can look at it.
    """

    def __init__(self, message: str, *, path: str = "", remedy: str = "", is_there: bool = False) -> None:
        super().__init__(message, path=path, remedy=remedy)
        self.is_there = is_there


class JournalClosed(JournalError):
    """The journal was closed, or this process is a fork of the one that opened it."""


class ResultDamaged(JournalError):
    """The stored result cannot be read. The job is known to have ended; the server may still have its result."""


# --- for all stores --------------------------------------------------------------------------------------------------


def duplicate(job_id: str, other_key: str, *, path: str) -> DuplicateJob:
    """The error for an id that another row already has."""
    return DuplicateJob(
        "the server gave the id of another submission to this one: whether this one made a job, and which, is unknown."
        " Nothing was overwritten",
        path=path,
        job_id=job_id,
        idempotency_key=other_key,
    )


class RowRemoved(JournalBroken):
    """A row that a session knew is not there any more. The others are."""


def removed(path: str = "") -> RowRemoved:
    """The error for a row that a session knew, and that is not there any more."""
    return RowRemoved(
        "its row was removed from the journal meanwhile, as keep_for asks for what ended long ago. Nothing was sent;"
        " what it cost is still in the sums",
        path=path,
        remedy="session.get(id) asks the service, which keeps answers for a while; give keep_for more time than a run"
        " takes",
    )


def name_taken(item: str, tag: str | int | None, state: str) -> ItemConflict:
    """The error for a name that belongs to another request."""
    return ItemConflict(
        f"{tag!r} is in the journal for another request ({state}); nothing was sent. Give the new question a tag"
        " of its own, or leave the old one unchanged",
        tag=tag,
        item=item,
    )


def key_taken(item: str, tag: str | int | None, other: str) -> ItemConflict:
    """The error for an idempotency key that was used before."""
    return ItemConflict(
        f"the journal has this key for another submission ({other}); a key belongs to one submission. Nothing was sent",
        field="idempotency_key",
        tag=tag,
        item=item,
    )
