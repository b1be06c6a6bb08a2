"""Whose a message is, and whether it is the answer: by its role, channel, phase, recipient and status.

What the caller asked, or a tool found, is no answer, though it stands among them. Servers have many names for the model
and few for everybody else, so these few are known here: a role of tomorrow must cost nobody an answer.

A model also speaks on the way: to itself, to its tools, to whoever waits. Such a message is beside the answer, and is
the answer only where nothing else is said: it was paid for. A word that is not known here says nothing, unless another
message says that it is the final one. This module knows nothing of what a message says.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeVar

from aiopplx._text.names import words_in_name
from aiopplx._wire.thinking import Thinking

_OTHERS = frozenset({
    *("user", "human", "caller", "client", "customer", "system", "developer", "tool", "function", "environment"),
    *("observation", "ipython", "context"),
})
_FINAL = frozenset({"final", "finished", "finish"})
_THOUGHT = frozenset({"analysis", "thought", "thoughts", "think", "thinking", "reasoning", "scratchpad", "reflection"})
_ON_THE_WAY = _THOUGHT | {
    *("commentary", "preamble", "progress", "intermediate", "interim", "plan", "planning", "draft", "tool", "tools"),
    *("search", "searching", "internal", "debug", "log", "status", "comment", "note", "notes"),
}
_NOT_KEPT = frozenset({
    *("failed", "error", "errored", "cancelled", "canceled", "superseded", "discarded", "retracted", "rejected"),
    *("aborted", "deleted", "removed", "replaced", "obsolete", "draft", "hidden"),
})
_TO_PEOPLE = frozenset({"all", "everyone", "everybody", "public", "user", "human", "caller", "client", "customer"})


class Part(enum.IntEnum):
    """What a message, or a part of one, is by what it says of itself; the lowest there are make the answer."""

    FINAL = 0
    """It says that it is the answer."""
    UNSAID = 1
    """It says nothing."""
    UNKNOWN = 2
    """It says something that is not known here: no answer if another one says that it is."""
    BESIDE = 3
    """Said on the way, or to a tool, or not kept."""
    THOUGHT = 4
    """The model's reasoning."""


class Marked(Thinking, frozen=True, gc=False, kw_only=True):
    """Base of what may say whether it is the answer. None of the fields is documented for either API.

    Attributes:
        channel, phase: where in the model's work it belongs.
        recipient: to whom it is said.
    """

    channel: Any = None
    phase: Any = None
    recipient: Any = None

    def part(self, status: Any = None) -> Part:
        """What it is by what it says; `status` is its own, where it has one."""
        if self.channel is None and self.phase is None and self.recipient is None and status in _PLAIN:
            return Part.UNSAID
        return part_of(self.channel, self.phase, self.recipient, status)


_PLAIN = (None, "completed")
M = TypeVar("M")


def part_of(channel: Any, phase: Any, recipient: Any = None, status: Any = None) -> Part:
    """What a message is by what it says of itself; fields that are not text say nothing."""
    said = [_part_named(name) for name in (channel, phase) if isinstance(name, str) and name.strip()]
    if Part.THOUGHT in said:
        return Part.THOUGHT
    if isinstance(status, str) and not _NOT_KEPT.isdisjoint(words_in_name(status)):
        return Part.BESIDE
    if isinstance(recipient, str) and (to := words_in_name(recipient)) and not set(to) <= _TO_PEOPLE:
        return Part.BESIDE
    if Part.BESIDE in said:
        return Part.BESIDE
    return min(said, default=Part.UNSAID)


@lru_cache(maxsize=64)
def _part_named(name: str) -> Part:
    words = words_in_name(name)
    if not _FINAL.isdisjoint(words):
        return Part.FINAL
    if not _THOUGHT.isdisjoint(words):
        return Part.THOUGHT
    return Part.BESIDE if not _ON_THE_WAY.isdisjoint(words) else Part.UNKNOWN


def answering(said: Iterable[tuple[Part, M]]) -> list[M]:
    """Of what was said, in order, what the answer consists of: what is said on the way only where there is no more.

    Args:
        said: what each one is by `Part`, and itself. Those without a text are not among them.
    """
    rows = list(said)
    parts = {part for part, _ in rows}
    if len(parts) <= 1:
        return [each for _, each in rows]
    if Part.FINAL in parts:
        kept = frozenset({Part.FINAL, Part.UNSAID})
    elif parts & {Part.UNSAID, Part.UNKNOWN}:
        kept = frozenset({Part.UNSAID, Part.UNKNOWN})
    else:
        kept = frozenset({min(parts)})
    return [each for part, each in rows if part in kept]


def is_of_another(role: str | None) -> bool:
    """Whether a message of this role is not the model's. One without a role is."""
    return role is not None and role != "assistant" and _is_of_another(role)


@lru_cache(maxsize=64)
def _is_of_another(role: str) -> bool:
    return not _OTHERS.isdisjoint(words_in_name(role))
