"""Whose a message is, by its role: what the caller asked, or a tool found, is no answer, though it stands among them.

Servers have many names for the model and few for everybody else, so these few are known here: a role of tomorrow must
cost nobody an answer. This module knows nothing of what a message says.
"""

from __future__ import annotations

from functools import lru_cache

from aiopplx._text.names import words_in_name

_OTHERS = frozenset({
    *("user", "human", "caller", "client", "customer", "system", "developer", "tool", "function", "environment"),
    *("observation", "ipython", "context"),
})


def is_of_another(role: str | None) -> bool:
    """Whether a message of this role is not the model's. One without a role is."""
    return role is not None and role != "assistant" and _is_of_another(role)


@lru_cache(maxsize=64)
def _is_of_another(role: str) -> bool:
    return not _OTHERS.isdisjoint(words_in_name(role))
