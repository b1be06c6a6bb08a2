"""The fields of a `ResearchRequest` as keywords, so that editors and type checkers know them.

Written out, since no type checker derives it from the class; a test holds both equal. This module knows no rules:
at run time `ResearchRequest` reads the keywords, and refuses what breaks a rule.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta

from aiopplx._checks.rules import Filled, Fraction, Language, Recency, Temperature
from aiopplx._wire.messages import WebSearchOptions
from aiopplx._wire.request import Day, Format


class ResearchFields(TypedDict, total=False):
    """What `Session.ask` and `Session.submit` take beside a question: the further fields of `ResearchRequest`.

    For functions that pass such keywords on: `async def mine(question: str, **fields: Unpack[ResearchFields])`. A field
    that is None, or is not given, is not sent: the server's default holds.
    """

    model: Filled
    """The model that answers; any name is passed on. Default `sonar-deep-research`."""
    max_tokens: Annotated[int, Meta(ge=1, le=128_000)] | None
    """At most this many tokens of answer, 1 to 128000."""
    temperature: Temperature | None
    """0 to 2; more is more varied."""
    top_p: Fraction | None
    """0 to 1; nucleus sampling."""
    stop: str | list[str] | None
    """A string, or strings, at which the answer ends."""
    response_format: Format | None
    """The form of the answer: a msgspec Struct, a dataclass or a pydantic model (the answer is then JSON for
    `job.parse(Type)`); or a `TextFormat`, `JSONSchemaFormat` or `RegexFormat`, or a mapping of that shape."""
    reasoning_effort: Literal["minimal", "low", "medium", "high"] | None
    """How hard the model thinks; more takes longer and costs more."""
    search_mode: Literal["web", "academic", "sec"] | None
    """The index that is searched."""
    web_search_options: WebSearchOptions | None
    """How the web is searched."""
    search_domain_filter: Annotated[list[str], Meta(max_length=20)] | None
    """At most 20 domains without a scheme; all allowed, or all denied (`-example.com`)."""
    search_language_filter: list[Language] | None
    """ISO 639-1 codes of the pages' languages."""
    search_recency_filter: Recency | None
    """How new a page must be; not together with any of the four dates."""
    search_after_date_filter: Day | None
    """Published after: a `date`, or MM/DD/YYYY."""
    search_before_date_filter: Day | None
    """Published before: a `date`, or MM/DD/YYYY."""
    last_updated_after_filter: Day | None
    """Changed after: a `date`, or MM/DD/YYYY."""
    last_updated_before_filter: Day | None
    """Changed before: a `date`, or MM/DD/YYYY."""
    language_preference: Language | None
    """ISO 639-1 code of the answer's language."""
    return_images: bool | None
    """Ask for images."""
    return_related_questions: bool | None
    """Ask for follow-up questions."""
    image_domain_filter: list[str] | None
    """Domains that images may come from."""
    image_format_filter: list[Filled] | None
    """Formats that images may have, such as `png`."""
    enable_search_classifier: bool | None
    """Let a classifier decide whether to search."""
    disable_search: bool | None
    """Answer without the web. Deep research was seen to search all the same."""
    stream: bool | None
    """Not applicable to a job, never sent; only `False` is accepted."""
    stream_mode: Literal["full", "concise"] | None
    """Not applicable to a job, never sent."""
    extra: dict[str, Any]
    """Further (undocumented) fields for the server, by name; sent unchanged along with the others."""
    meta: dict[str, Any]
    """The caller's own columns for this question, as JSON values by name; never sent."""
