"""Where submissions stand, for a person: in words, by stages, and with what may be decided about each.

A program that shows a journal asks here, and needs no state by name. A new state has its line in `_MEANINGS`; what may
be decided follows from the table of steps. This module knows nothing of how rows are stored, nor of who decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

from aiopplx.journal._protocol import JournalReader
from aiopplx.journal._records import Record, State
from aiopplx.journal._steps import DOUBTFUL, REQUEUE

Stage: TypeAlias = Literal["waiting", "running", "in doubt", "finished", "failed"]
"""What matters to a person: to be sent, or being sent; at the server; sent with no answer, so that a job may exist;
ended with a result; ended without one."""

Choice: TypeAlias = Literal["resubmit", "adopt", "drop"]
"""A decision that only the user makes: the methods of `Session` with these names."""

PAGE = 100
"""Records read at a time."""


class _Meaning(NamedTuple):
    words: str
    stage: Stage


_MEANINGS: Mapping[State, _Meaning] = MappingProxyType({
    State.QUEUED: _Meaning("to send", "waiting"),
    State.SENDING: _Meaning("being sent", "waiting"),
    State.ACCEPTED: _Meaning("running", "running"),
    State.DONE: _Meaning("done", "finished"),
    State.FAILED: _Meaning("failed", "failed"),
    State.IN_DOUBT: _Meaning("in doubt", "in doubt"),
    State.EXPIRED: _Meaning("expired", "failed"),
    State.REJECTED: _Meaning("rejected", "failed"),
})

# A row that was left while it was being sent becomes IN_DOUBT first, so whatever may be decided about that may be
# decided about it.
_UNKNOWN = DOUBTFUL.origins
_CHOICES: Mapping[Choice, frozenset[State]] = MappingProxyType({
    "resubmit": REQUEUE.origins | _UNKNOWN,
    "adopt": _UNKNOWN,
    "drop": _UNKNOWN,
})


def words_of(state: State) -> str:
    """A state in words for a person: `"being sent"`."""
    return _MEANINGS[state].words


def stage_of(state: State, *, is_active: bool) -> Stage:
    """The stage of a submission in this state.

    Args:
        state: how far it is known to have come.
        is_active: a session has the journal open for writing. Without one, whatever was being sent is in doubt.
    """
    return "in doubt" if state in _UNKNOWN and not is_active else _MEANINGS[state].stage


def choices_of(record: Record) -> frozenset[Choice]:
    """What the user may decide about a submission; empty for one that has a result, or is on its way to one."""
    return frozenset(choice for choice, states in _CHOICES.items() if record.state in states)


def stages_of(journal: JournalReader) -> dict[Stage, int]:
    """How many submissions are at each stage, of those that have any. Raises `JournalError`."""
    is_active = journal.writer() is not None
    found: dict[Stage, int] = {}
    for state, count in journal.counts().items():
        if count:
            stage = stage_of(state, is_active=is_active)
            found[stage] = found.get(stage, 0) + count
    return found


def records_at(journal: JournalReader, stage: Stage | None = None) -> Iterator[Record]:
    """All records at a stage, or all there are, in the order in which they were first queued; read a page at a time.

    Raises:
        JournalError: the store cannot be read.
    """
    is_active = journal.writer() is not None
    states = [state for state in State if stage in (None, stage_of(state, is_active=is_active))]
    after = 0
    while page := journal.rows(states, after=after, limit=PAGE):
        yield from page
        after = page[-1].pk
