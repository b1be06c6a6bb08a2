"""What can go wrong with a journal, as exceptions that say what, with which file, and what to do.

They decide nothing. This module knows nothing of how a journal is kept.
"""

from __future__ import annotations

from typing import Literal

from aiopplx._errors import AiopplxError, InvalidRequest

Reason = Literal[
    "empty", "foreign", "newer", "older", "corrupt", "account", "base_url", "network", "orphan", "unusable", "missing"
]


class JournalError(AiopplxError):
    """Root of what a journal raises.

    Attributes:
        path: the journal's file, `""` for one in memory.
    """

    def __init__(
        self, message: str, *, path: str = "", job_id: str = "", idempotency_key: str = "", tag: str | int | None = None
    ) -> None:
        super().__init__(message, job_id=job_id, idempotency_key=idempotency_key, tag=tag)
        self.path = path


class ItemConflict(InvalidRequest):
    """The journal has this tag, or this idempotency key, for another request. Nothing was sent or paid.

    Attributes:
        item: the name in the journal that is taken.
    """

    def __init__(self, message: str, *, field: str = "tag", tag: str | int | None = None, item: str = "") -> None:
        super().__init__(message, field=field, tag=tag)
        self.item = item


class DuplicateJob(JournalError):
    """The server gave this submission the id of another one: whether it made a job, and which, is unknown.

    Nothing was overwritten. `job_id` is the id, `idempotency_key` the key that has it already.
    """


class ImpossibleStep(JournalError):
    """A row was asked to take a step that its state does not allow; it is unchanged.

    Attributes:
        step: what was asked (`"accepted"`).
        state: the name of the state that the row is in, `""` if there is no such row.
    """

    def __init__(self, message: str, *, step: str, state: str, path: str = "") -> None:
        super().__init__(message, path=path)
        self.step = step
        self.state = state


class JournalLocked(JournalError):
    """Another process (or another session of this one) has the journal open: it can have only one writer.

    Attributes:
        pid: that process, None if it did not say.
        host: the machine it runs on, `""` if it did not say.
    """

    def __init__(self, message: str, *, path: str, pid: int | None = None, host: str = "") -> None:
        super().__init__(message, path=path)
        self.pid = pid
        self.host = host


class JournalRefused(JournalError):
    """The file is not opened, for the reason that the message gives. It was not changed, and never is replaced.

    Attributes:
        reason: in a word: `empty` (no bytes), `foreign` (not a journal), `newer` or `older` (made by another version),
            `corrupt`, `account` (another API key), `base_url` (another server), `network` (a file system on which
            SQLite's write-ahead log is not safe), `orphan` (a write-ahead log without its file), `missing`,
            `unusable` (no right to read or write it, no such directory).
    """

    def __init__(self, message: str, *, path: str, reason: Reason) -> None:
        super().__init__(message, path=path)
        self.reason: Reason = reason


class JournalFull(JournalError):
    """There is no room on the disk: this step was not written. Later ones are, once there is room."""


class JournalBroken(JournalError):
    """The file could not be read or written: this step was not written.

    Attributes:
        is_final: True if no later step can succeed either: the file is damaged, or another process took it over.
    """

    def __init__(self, message: str, *, path: str, is_final: bool = False) -> None:
        super().__init__(message, path=path)
        self.is_final = is_final


class ClaimLost(JournalError):
    """The row is another session's by now: this step of it was not taken, and the row is unchanged.

    It says nothing of other rows. `Journal.follow` waits for what the other session makes of it.
    """


class JournalAway(JournalError):
    """The store is out of reach for now: nothing was written, as far as is known.

    Ask for the same step again later: if it was written after all, it finds itself done.
    """


class JournalClosed(JournalError):
    """The journal was closed, or this process is a fork of the one that opened it."""


class ResultDamaged(JournalError):
    """The stored result cannot be read back. The job is known to have ended; the server may still have its result."""


# --- made in more than one store ------------------------------------------------------------------------------------


def duplicate(job_id: str, other_key: str, *, path: str) -> DuplicateJob:
    """The error for an id that another row has."""
    return DuplicateJob(
        "the server gave the id of another submission to this one: whether this one made a job, and which, is unknown."
        " Nothing was overwritten",
        path=path,
        job_id=job_id,
        idempotency_key=other_key,
    )


def name_taken(item: str, tag: str | int | None, state: str) -> ItemConflict:
    """The error for a name that stands for another request."""
    return ItemConflict(
        f"{tag!r} is in the journal for another request ({state}); nothing was sent. Give the new question a tag"
        " of its own, or ask the old one unchanged",
        tag=tag,
        item=item,
    )


def key_taken(item: str, tag: str | int | None, other: str) -> ItemConflict:
    """The error for an idempotency key that was used already."""
    return ItemConflict(
        f"the journal has this key for another submission ({other}); one key stands for one submission. Nothing was"
        " sent",
        field="idempotency_key",
        tag=tag,
        item=item,
    )
