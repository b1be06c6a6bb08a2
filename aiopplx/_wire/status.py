"""What a status means that no document names, from the word itself and from what stands beside it.

A word of tomorrow must cost nobody a result. A server that says `DONE` and sends the answer has ended the job, and so
has one that says `CANCELLED` and when; a word alone says nothing, and the job is polled on. Words for work that goes on
are an exception: an answer beside them is a part of one.

This module knows nothing of jobs on the wire, or of any one API.
"""

from __future__ import annotations

import re
from datetime import datetime

from aiopplx._job import JobStatus

_RUNNING = (
    r".*ing|pending.*|queued?|created|new|open|active|accepted|submitted|scheduled|started|paused|retry|partial|in_.*"
)
_LATEST = 1e15
"""Seconds since 1970; a larger number is no moment."""
_WAITS = frozenset({
    "requires_action",
    "action_required",
    "requires_input",
    "input_required",
    "requires_approval",
    "approval_required",
    "requires_confirmation",
})


def _plain(word: str) -> str:
    return word.strip().lower().replace("-", "_").replace(" ", "_")


def says_running(word: str) -> bool:
    """Whether a status is a word for work that goes on."""
    return re.fullmatch(_RUNNING, _plain(word)) is not None


def needs_caller(word: str) -> bool:
    """Whether a job with this status waits for something that its caller has to give. For words that are not known."""
    return _plain(word) in _WAITS


def is_moment(value: object) -> bool:
    """Whether a field of the server's says when something happened. Servers send zero, or nothing, for never."""
    if isinstance(value, str):
        return bool(value.strip()) and not value.startswith("0001-01-01")  # which some write for zero
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def seconds_of(value: object) -> int | None:
    """A moment in seconds since 1970, whether it comes as a number or as a date of ISO 8601; None if it is none."""
    if not is_moment(value):
        return None
    if isinstance(value, str):
        try:
            return int(datetime.fromisoformat(value.strip()).timestamp())
        except (ValueError, OverflowError):
            return None
    return int(value) if isinstance(value, (int, float)) and value < _LATEST else None


def implied(word: str, *, failed: bool, ended: bool, answered: bool) -> JobStatus:
    """The status of a job whose own word is unknown, or not there.

    Args:
        word: the server's, `""` if there is none.
        failed: it says when, or why, the job failed.
        ended: it says when the job was completed.
        answered: an answer is there.
    """
    if failed:
        return JobStatus.FAILED
    is_running = not word.strip() or says_running(word)
    if ended and (answered or not is_running):
        return JobStatus.COMPLETED
    return JobStatus.COMPLETED if answered and not is_running else JobStatus.IN_PROGRESS
