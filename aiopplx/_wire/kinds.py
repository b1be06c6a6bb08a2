"""What kind of job a submission is, and what is published about jobs of a kind: their cost and how long they take.

A kind is what costs and durations are learned by: the API, the model or preset that answers, and the effort, each
without its pinned version (`high@2026-10-16.0` is `high`), so that what was learned lasts when a new release is pinned.
This module knows nothing of any one API, of journals, or of what is learned.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Self
from urllib.parse import quote, unquote

import msgspec

_PLAIN = "/:.,+@~!*()[]=&;$'"
_NONE = "-"


class Kind(msgspec.Struct, frozen=True):
    """One kind of job.

    Its `str` is a label without line ends, such as `sonar sonar-deep-research medium` or `agent high -`, that a journal
    stores in a column; `of` reads it back.

    Attributes:
        api: the API's name.
        model: the model, or the preset that stands for one; `""` if that is not known.
        effort: how hard the model thinks; `""` if it was not said, or is part of the preset.
    """

    api: str = ""
    model: str = ""
    effort: str = ""

    @classmethod
    def of(cls, label: str) -> Self:
        """The kind of a label. A text that no kind has made is a kind of which nothing is known."""
        parts = ["" if part == _NONE else unquote(part) for part in label.split(" ")]
        return cls(*parts) if len(parts) == len(cls.__struct_fields__) else cls()

    def __str__(self) -> str:
        return " ".join(map(_quoted, (self.api, self.model, self.effort)))


def _quoted(part: str) -> str:
    if part == _NONE:
        return "%2D"
    # What half a surrogate pair was meant to be is nobody's to know; it must not make a label that cannot be stored.
    return quote(part, safe=_PLAIN, errors="replace") or _NONE


@lru_cache(maxsize=256)
def kind_named(api: str, model: str, effort: str = "") -> Kind:
    """A kind, from the names in a request. Equal kinds are one object, since a session may hold thousands."""
    return Kind(api, unversioned(model), unversioned(effort))


def unversioned(name: str) -> str:
    """A model, preset or effort without the version that is pinned after an `@`."""
    return name.partition("@")[0].strip() or name


class Published(msgspec.Struct, frozen=True):
    """What is published about jobs of one kind.

    Attributes:
        low, high: US dollars, between which the mean cost of one job is expected; None if nothing is known. Single jobs
            scatter further.
        seconds: the median of how long a job takes.
        sigma: the standard deviation of the logarithm of that time, which is taken to be lognormal.
    """

    low: float | None = None
    high: float | None = None
    seconds: float = 180.0
    sigma: float = 0.9


NOTHING = Published()
"""For a kind of which nothing is published: no cost, and a wide guess at the time."""
