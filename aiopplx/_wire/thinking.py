"""The fields in which servers send a model's reasoning beside its text, for whatever may have them.

None is Perplexity's own: gateways and other servers of these APIs send them, each its own. This module knows nothing of
jobs, or of any one API.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from aiopplx._text.thought import thought_in


class Thinking(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Base of what may have reasoning in a field of its own: a text, a list of texts and parts, or an object."""

    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_text: Any = None
    reasoning_summary: Any = None
    reasoning_details: Any = None
    thinking: Any = None
    thinking_content: Any = None
    thinking_blocks: Any = None
    thought: Any = None
    thoughts: Any = None

    def has_thinking(self) -> bool:
        """Whether `thoughts_beside` may find any; nearly nothing has these fields."""
        return (
            self.reasoning_content is not None
            or self.reasoning is not None
            or self.thinking is not None
            or self.reasoning_details is not None
            or self.thought is not None
            or self.thoughts is not None
            or self.reasoning_text is not None
            or self.reasoning_summary is not None
            or self.thinking_content is not None
            or self.thinking_blocks is not None
        )

    def thoughts_beside(self) -> Iterator[str | None]:
        """The reasoning in these fields, in the order in which it is shown."""
        for name in Thinking.__struct_fields__:
            if (said := getattr(self, name)) is not None:
                yield thought_in(said)
