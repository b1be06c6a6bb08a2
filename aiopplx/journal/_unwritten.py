"""Steps that a store was given and has not answered: what is not known to be written when it is left.

This module knows nothing of how a store writes, or of when it is left.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Unwritten(NamedTuple):
    """A step of which nobody knows whether it is written.

    Attributes:
        step: its name: `queued`, `adopted`, or that of a rule (`sending`, `accepted`, ...).
        key: the idempotency key of its submission, `""` if it has none.
        job_id: the id that it would have written, `""` if none.
    """

    step: str
    key: str = ""
    job_id: str = ""


WITHOUT_ID = frozenset({"accepted", "adopted"})
"""Steps that write an id. Without one of them the next run knows no job, and the submission may be paid for."""


def latest(unwritten: Iterable[Unwritten]) -> list[Unwritten]:
    """For each submission one: the step that writes its id if that is missing, or else the last one."""
    found: dict[str, Unwritten] = {}
    for each in unwritten:
        name = each.key or each.job_id
        before = found.get(name)
        if before is None or before.step not in WITHOUT_ID:
            found[name] = each
    return list(found.values())


def meaning(unwritten: Unwritten) -> str:
    """What it means for its submission that this may not be written."""
    step = unwritten.step
    if step in WITHOUT_ID:
        return "its job runs and is paid for, and its id may not be in the journal: keep it, for session.adopt"
    if step == "ended":
        return "its end may not be in the journal: the next run polls the job again"
    if step in ("queued", "requeue", "refreeze"):
        return "it may not be in the journal, and was not sent"
    if step == "sending":
        return "the attempt that was to be written down was not sent"
    return "the journal may say less of it than is known: the next run finds out"
