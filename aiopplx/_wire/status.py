"""What a status means that no document names, from the word itself and from what stands beside it.

A word of tomorrow must cost nobody a result. A server that says `DONE` and sends the answer has ended the job, and so
has one that says `CANCELLED` and when; a word alone says nothing, and the job is polled on. Words for work that goes on
are an exception: an answer beside them is a part of one.

This module knows nothing of jobs on the wire, or of any one API.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache, lru_cache
from typing import TypeGuard

from aiopplx._job import JobStatus
from aiopplx._text.names import words_in_name
from aiopplx._text.values import is_array, is_object
from aiopplx._wire.decoding import loosely, loosely_within

_RUNNING = (
    r".*ing|pending.*|queued?|created|new|open|active|accepted|submitted|scheduled|started|paused|retry|partial|in_.*"
)
_LATEST = 1e15
"""Seconds since 1970; a larger number is no moment."""
_COUNTING = frozenset("123456789")
_ZERO = ("0001-01-01", "1970-01-01T00:00:00", "1970-01-01 00:00:00", "0000", "-")
_ENDS = {
    **dict.fromkeys(("failed", "errored", "expired", "crashed", "rejected"), JobStatus.FAILED),
    **dict.fromkeys(("cancelled", "canceled", "aborted", "stopped", "terminated", "killed"), JobStatus.CANCELLED),
    **dict.fromkeys(("completed", "finished", "ended", "succeeded", "done"), JobStatus.COMPLETED),
    **dict.fromkeys(("completion", "finish", "end"), JobStatus.COMPLETED),
}
_COMPLETED = frozenset({"complete", *(word for word, end in _ENDS.items() if end is JobStatus.COMPLETED)})
_GOOD = frozenset({"ok", "success", "successful", "true"})
_OF_THE_JOB = frozenset({"job", "task", "run", "response", "current", "server", "processing", "status", "state"})
_MOMENTS = frozenset({"at", "time", "on", "date", "timestamp"})
_NAME = 100
"""Characters of a name that are kept. One of more than 80 is none."""
_EDGE = 2048
"""Bytes at either end of a body in which the fields of a job stand that has a long output between them."""
_WAITING = frozenset({"requires", "required", "require", "needs", "need", "needed", "awaiting", "awaits"})
_FOR_ITS_CALLER = frozenset({
    *(
        "action",
        "input",
        "approval",
        "confirmation",
        "permission",
        "authorization",
        "user",
        "client",
        "caller",
        "human",
    ),
})


def plainly(word: str) -> str:
    """A status in lower case, with `_` between its words and without what it is the status of: `JOB_STATE_FAILED`."""
    words = words_in_name(word.strip())
    while words[1:] and words[0] in _OF_THE_JOB:
        words = words[1:]
    return "_".join(words)


def says_running(word: str) -> bool:
    """Whether a status is a word for work that goes on."""
    return re.fullmatch(_RUNNING, plainly(word)) is not None


def says_completed(word: str) -> bool:
    """Whether a status is a word for work that has ended well."""
    return plainly(word) in _COMPLETED


def is_answer(text: object) -> TypeGuard[str]:
    """Whether a value, where the answer of a job should stand, is a text and no mere word for how the job ended."""
    return isinstance(text, str) and bool(text.strip()) and plainly(text) not in _COMPLETED | _GOOD


def needs_caller(word: str) -> bool:
    """Whether a job with this status waits for something that its caller has to give. For words that are not known.

    In doubt it does not: a job that is wrongly called failed may be paid again, one that is polled on costs a wait. So
    `pending` and `waiting` do not say it, nor a word in the middle (`awaiting_input_moderation`).
    """
    words = words_in_name(word)
    return not _WAITING.isdisjoint(words) and not _FOR_ITS_CALLER.isdisjoint((*words[:1], *words[-1:]))


def status_in(raw: bytes, told: str | None = None) -> str:
    """The status of a job that has it under another name (`state`, `jobStatus`), in an object, or as JSON in a text.

    Args:
        raw: the body of the job.
        told: what stands where the status belongs, if that is a text.

    Returns:
        The server's word, `""` if there is none.
    """
    if told and told[0] not in _JSON:
        return told
    try:
        return status_of(loosely(raw))
    except (ValueError, RecursionError):
        return ""


def status_of(job: object) -> str:
    """The same in the plain values of a job."""
    found = [_word(said) for name, said in (job.items() if is_object(job) else ()) if _is_status(words_in_name(name))]
    return next(filter(None, found), "")


def _word(said: object, deepest: int = 3) -> str:
    said = loosely_within(said)
    if isinstance(said, str):
        return said.strip('"')
    if not deepest:
        return ""
    if is_array(said) and len(said) == 1:
        return _word(said[0], deepest - 1)
    if not is_object(said):
        return ""
    named = (said[name] for name in said if _is_status(words_in_name(name)) or name.lower() in _NAMES)
    return next(filter(None, (_word(value, deepest - 1) for value in named)), "")


_JSON = '{["'
_NAMES = frozenset({"code", "value", "name", "type", "current", "label"})


def _is_status(words: tuple[str, ...]) -> bool:
    """Whether a field of these words has the status of the job, and not of its bill or its moderation."""
    return words[-1:] in (("status",), ("state",), ("phase",)) and _OF_THE_JOB.issuperset(words[:-1])


def is_moment(value: object, deepest: int = 2) -> bool:
    """Whether a field of the server's says when something happened. Servers send zero, or nothing, for never."""
    if value is None or isinstance(value, bool):
        return False
    if isinstance(value, (int, float)):
        return value > 0
    if isinstance(value, str):
        # A text without a digit that counts is a word for nothing, and some write the first of all days for zero.
        return not _COUNTING.isdisjoint(value) and not value.strip().startswith(_ZERO)
    # {"seconds": 5}, {"$date": {"$numberLong": ..}}
    return is_object(value) and deepest > 0 and any(is_moment(inner, deepest - 1) for inner in value.values())


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


@cache
def _end() -> re.Pattern[bytes]:
    """A field for the moment of an end, if it is set."""
    names = rf'"(?:{"|".join(_ENDS)})[_-]?(?:{"|".join(sorted(_MOMENTS))})"'
    return re.compile(rf'{names}\s*:\s*(?!null|false|0[,}}.\s]|"")'.encode(), re.IGNORECASE)


def ends_told(raw: bytes) -> frozenset[JobStatus]:
    """How a job has ended, by the moments that its body names: `failed_at`, `cancelledAt`, `finished_time`, ...

    Mostly none, and one if the body is consistent.
    """
    if len(raw) > 2 * _EDGE:  # to parse every long body for it would cost each poll as much again
        search = _end().search
        if not search(raw, 0, _EDGE) and not search(raw, len(raw) - _EDGE):
            return _NONE
    try:
        value = loosely(raw)
    except (ValueError, RecursionError):
        return _NONE
    return ends_of(value)


def ends_of(job: object) -> frozenset[JobStatus]:
    """The same in the plain values of a job."""
    if not is_object(job):
        return _NONE
    # Nearly all fields of a job that runs are empty.
    ends = [end for name, said in job.items() if said and (end := _end_named(name[:_NAME])) and is_moment(said)]
    return frozenset(ends) if ends else _NONE


@lru_cache(maxsize=1024)
def _end_named(name: str) -> JobStatus | None:
    """Of which end a field has the moment, by its name; None if of none."""
    words = words_in_name(name)
    return _ENDS.get(words[0]) if len(words) == 2 and words[1] in _MOMENTS else None


_NONE: frozenset[JobStatus] = frozenset()


def implied(word: str, ends: frozenset[JobStatus], *, failed: bool, answered: bool) -> JobStatus:
    """The status of a job whose own word is unknown, or not there.

    Where moments contradict each other a failure says the most, then an answer that is there.

    Args:
        word: the server's, `""` if there is none.
        ends: how it has ended by the moments that it names (`ends_told`).
        failed: it says why the job failed.
        answered: an answer is there.
    """
    if failed or JobStatus.FAILED in ends:
        return JobStatus.FAILED
    is_running = not word.strip() or says_running(word)
    has_ended = JobStatus.COMPLETED in ends
    if answered and (has_ended or not is_running):
        return JobStatus.COMPLETED
    if JobStatus.CANCELLED in ends:
        return JobStatus.CANCELLED
    return JobStatus.COMPLETED if has_ended and not is_running else JobStatus.IN_PROGRESS


def overruled(ends: frozenset[JobStatus], *, is_whole: bool) -> JobStatus | None:
    """What the moments of a job say whose status is a known word for one that goes on; None if that holds.

    Args:
        ends: how it has ended by the moments that it names.
        is_whole: an answer is there, and says why it ends.
    """
    if JobStatus.FAILED in ends:
        return JobStatus.FAILED
    if JobStatus.COMPLETED in ends and is_whole:
        return JobStatus.COMPLETED
    return JobStatus.CANCELLED if JobStatus.CANCELLED in ends else None
