"""The words that a field's name is made of, however it is spelt: `jobId`, `job_id`, `x-job-id` and `JobID` are one.

Servers and gateways write the names of the same things in many ways. Whoever reads what no document describes asks for
the words of a name, and not for a list of spellings.

This module knows nothing of what a name stands for.
"""

from __future__ import annotations

import re
from functools import lru_cache

_WORD = r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+"
_LONGEST = 80


def words_in_name(name: str) -> tuple[str, ...]:
    """The words of a name, in lower case and in order; `()` for one that is too long to be a name."""
    return _words_in(name) if len(name) <= _LONGEST else ()  # a whole text is not kept


@lru_cache(maxsize=1024)
def _words_in(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in re.findall(_WORD, name))
