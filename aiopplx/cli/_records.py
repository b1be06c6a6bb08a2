"""A journal's record for a person: the question, and its job.

This module knows nothing of sessions, and writes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec

from aiopplx.journal import JournalReader, Record, ResultDamaged, job_of

if TYPE_CHECKING:
    from aiopplx import Job


def job_in(journal: JournalReader, record: Record) -> Job:
    """The job of a record, as far as the journal has it; if its result is damaged, all but the answer."""
    try:
        return job_of(record, journal.result(record.pk))
    except ResultDamaged:
        return job_of(record, None)


def question_of(record: Record) -> str:
    """The question: the last user message in the submitted bytes; "" if they are not known."""
    try:
        body: object = msgspec.json.decode(record.body) if record.body else None
    except msgspec.DecodeError:
        return ""
    inner = _field(body, "request") or body
    return _words(_field(inner, "input")) or _words(_field(inner, "messages"))


def _field(value: object, name: str) -> object:
    return cast("dict[str, object]", value).get(name) if isinstance(value, dict) else None


def _words(value: object) -> str:
    """The text of a message, of the last user message in a list, or of the parts of a message."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return ""
    parts = cast("list[object]", value)
    asked = [part for part in parts if _field(part, "role") == "user"]
    if asked:
        return _words(_field(asked[-1], "content"))
    texts = [_field(part, "text") for part in parts]
    return "\n".join(text for text in texts if isinstance(text, str))
