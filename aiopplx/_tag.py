"""The type of a caller's tag, in which jobs, batches and requests are generic.

To a type checker `await session.ask(question, tag=7)` is a `Job[int]`, and a bare `Job` is a `Job[str | int | None]`.
It is covariant, so that a `Job[int]` fits where a bare `Job` is asked for; jobs and requests are frozen, so this is
safe. The default (PEP 696) is for type checkers only: `typing` has it from Python 3.13 on, and nothing needs it at run
time. This module knows nothing of jobs or of requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

Tag: TypeAlias = str | int | None
"""What a tag may be."""

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    TagT = TypeVar("TagT", bound=Tag, default=Tag, covariant=True)
else:
    from typing import TypeVar

    TagT = TypeVar("TagT", bound=Tag, covariant=True)

GivenT = TypeVar("GivenT", bound=Tag)
"""The tag of one call."""
