"""The request that every API is asked with, its rules, and its form on the wire.

Whatever the server would refuse is refused here, before anything is sent or paid, by a message that names the field and
the rule and never repeats the prompt. This module knows nothing of endpoints, of retries or of jobs.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias, cast

import msgspec

from aiopplx._errors import InvalidRequest
from aiopplx._wire import checks
from aiopplx._wire.checks import Rule, refuse
from aiopplx._wire.messages import (
    PART_TYPES,
    ROLES,
    Message,
    ResponseFormat,
    WebSearchOptions,
    as_format,
    as_options,
    conversation_of,
)

if TYPE_CHECKING:
    Messages: TypeAlias = Sequence[Message | Mapping[str, Any]]
    Day: TypeAlias = str | date
    Format: TypeAlias = ResponseFormat | type[Any] | Mapping[str, Any]
else:
    # What mappings are read into: msgspec takes one text-like type in a union, and no Python type as a value.
    Messages = list[Message]
    Day = str
    Format = Any

DEFAULT_MODEL = "sonar-deep-research"


class _Question(msgspec.Struct, frozen=True):
    """The one field that may be given by position."""

    question: str = ""


class ResearchRequest(
    _Question, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, repr_omit_defaults=True
):
    """One question to research, with everything that may be said about how.

    `ResearchRequest("Why did the Vasa sink?")` is enough. What is None is not sent: the server's own default holds.
    Building one checks nothing; `check` does, and every submission is checked before it is sent.

    Attributes:
        question: the question, sent as one user message. Either this or `messages`.
        messages: the whole conversation: `Message`s, or mappings of that shape.
        model: which model answers; any name is passed on, since the server's list grows.
        max_tokens: at most this many tokens of answer, 1 to 128000.
        temperature: 0 to 2; more is more varied.
        top_p: 0 to 1; nucleus sampling.
        stop: a text, or texts, at which the answer ends.
        response_format: the form of the answer: a msgspec Struct, a dataclass or a pydantic model (the answer is then
            JSON for `job.parse(Type)`); or a `TextFormat`, `JSONSchemaFormat` or `RegexFormat`, or a mapping of that
            shape.
        reasoning_effort: how hard the model thinks; more takes longer and costs more.
        search_mode: which index is searched.
        web_search_options: how the web is searched.
        search_domain_filter: at most 20 domains without a scheme; all allowed, or all denied (`-example.com`).
        search_language_filter: ISO 639-1 codes of the pages' languages.
        search_recency_filter: how new a page must be; not beside any of the four dates.
        search_after_date_filter, search_before_date_filter: published after, before: a `date`, or MM/DD/YYYY.
        last_updated_after_filter, last_updated_before_filter: changed after, before: a `date`, or MM/DD/YYYY.
        language_preference: ISO 639-1 code of the answer's language.
        return_images: ask for images.
        return_related_questions: ask for questions to go on with.
        image_domain_filter: domains that images may come from.
        image_format_filter: formats that images may have, such as `png`.
        enable_search_classifier: let a classifier decide whether to search.
        disable_search: answer without the web. Deep research was seen to search all the same.
        stream, stream_mode: no meaning for a job, never sent; here so that a request made for the streaming API can
            be passed in with `stream` False.
        extra: further fields for the server, undocumented ones; sent as they are, beside the others.
        tag: yours: it comes back on the job, and is not sent.
        idempotency_key: your own key, printable ASCII of at most 255 characters; None has one made.
        timeout: seconds for this job; None takes the session's.
    """

    messages: Messages | None = None
    model: str = DEFAULT_MODEL
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    response_format: Format | None = None
    reasoning_effort: Literal["minimal", "low", "medium", "high"] | None = None
    search_mode: Literal["web", "academic", "sec"] | None = None
    web_search_options: WebSearchOptions | None = None
    search_domain_filter: list[str] | None = None
    search_language_filter: list[str] | None = None
    search_recency_filter: Literal["hour", "day", "week", "month", "year"] | None = None
    search_after_date_filter: Day | None = None
    search_before_date_filter: Day | None = None
    last_updated_after_filter: Day | None = None
    last_updated_before_filter: Day | None = None
    language_preference: str | None = None
    return_images: bool | None = None
    return_related_questions: bool | None = None
    image_domain_filter: list[str] | None = None
    image_format_filter: list[str] | None = None
    enable_search_classifier: bool | None = None
    disable_search: bool | None = None
    stream: bool | None = None
    stream_mode: Literal["full", "concise"] | None = None
    extra: dict[str, Any] = {}
    tag: str | int | None = None
    idempotency_key: str | None = None
    timeout: float | None = None

    @classmethod
    def of(cls, item: str | Mapping[str, object] | ResearchRequest) -> ResearchRequest:
        """A request from what a user has: a question, a mapping of these fields (a line of JSONL), or a request.

        In a mapping, None means not given. Types are checked here; the rules of the values in `check`.

        Raises:
            InvalidRequest: no such field (the nearest is named), or a value of the wrong type (its path is named). It
                bears the mapping's `tag`.
        """
        if isinstance(item, ResearchRequest):
            return item
        if isinstance(item, str):
            return cls(item)
        if isinstance(cast("object", item), Mapping):
            return _of_mapping(item)
        raise InvalidRequest(f"must be a question, a mapping or a ResearchRequest, not {checks.kind_of(item)}")

    def conversation(self) -> list[Message]:
        """The messages that are sent, whichever way they were given, checked. Raises `InvalidRequest`."""
        if self.messages is None:
            checks.filled("question", self.question)
            return [Message("user", self.question)]
        if self.question:
            refuse("question", "give either question or messages, not both")
        if not isinstance(cast("object", self.messages), list | tuple):
            refuse("messages", f"must be a list, not {checks.kind_of(self.messages)}")
        if not self.messages:
            refuse("messages", "must not be empty")
        return conversation_of(self.messages)


FIELDS = ResearchRequest.__struct_fields__
DATES = (
    "search_after_date_filter",
    "search_before_date_filter",
    "last_updated_after_filter",
    "last_updated_before_filter",
)
_EFFORTS = ("minimal", "low", "medium", "high")
_MODES = ("web", "academic", "sec")
_RECENT = ("hour", "day", "week", "month", "year")
_STREAMS = ("full", "concise")

_SENT: dict[str, Rule] = {
    "model": checks.filled,
    "max_tokens": checks.whole(1, 128_000),
    "temperature": checks.number(0, 2),
    "top_p": checks.number(0, 1),
    "stop": checks.one_or_each(checks.text),
    "reasoning_effort": checks.one_of(*_EFFORTS),
    "search_mode": checks.one_of(*_MODES),
    "search_domain_filter": checks.allow_or_deny(most=20),
    "search_language_filter": checks.each(checks.two_letters("ISO 639-1 language", "en")),
    "search_recency_filter": checks.one_of(*_RECENT),
    **dict.fromkeys(DATES, checks.day),
    "language_preference": checks.two_letters("ISO 639-1 language", "en"),
    "return_images": checks.flag,
    "return_related_questions": checks.flag,
    "image_domain_filter": checks.each(checks.domain),
    "image_format_filter": checks.each(checks.filled),
    "enable_search_classifier": checks.flag,
    "disable_search": checks.flag,
}
"""The plain fields that are sent, in the order in which they are, each with its rule."""

_KEPT: dict[str, Rule] = {
    "idempotency_key": checks.idempotency_key,
    "timeout": checks.positive,
    "stream_mode": checks.one_of(*_STREAMS),
}


def wire(request: ResearchRequest) -> dict[str, Any]:
    """The request as the server reads it, checked: what is None left out, always in the same order.

    Raises:
        InvalidRequest: a rule is broken; names the field and the rule, bears the request's tag.
    """
    try:
        return _wire(request)
    except InvalidRequest as error:
        error.tag = request.tag if isinstance(cast("object", request.tag), str | int) else None
        raise


def check(request: ResearchRequest) -> None:
    """Refuse whatever the server would refuse. Raises `InvalidRequest`, as `wire` does."""
    wire(request)


def _wire(request: ResearchRequest) -> dict[str, Any]:
    sent: dict[str, Any] = {"model": request.model, "messages": request.conversation()}
    if request == ResearchRequest(request.question, tag=request.tag):
        _check_tag(request)
        return sent  # a bare question, as most are
    for name, rule in _SENT.items():
        value = getattr(request, name)
        if value is not None:
            rule(name, value)
            sent[name] = value
    if request.response_format is not None:
        sent["response_format"] = as_format(request.response_format)
    if request.web_search_options is not None:
        sent["web_search_options"] = as_options(request.web_search_options)
    dates = [name for name in DATES if name in sent]
    if dates and "search_recency_filter" in sent:
        refuse("search_recency_filter", f"cannot stand beside {dates[0]}: give either a recency or dates")
    for name in dates:
        sent[name] = checks.as_day(sent[name])
    _check_kept(request)
    if request.extra:
        sent.update(_extra(request.extra))
    return sent


def _check_kept(request: ResearchRequest) -> None:
    """The fields that are not sent."""
    if request.stream:
        refuse("stream", "a job is collected when it is finished and cannot be streamed; leave stream out")
    _check_tag(request)
    for name, rule in _KEPT.items():
        value = getattr(request, name)
        if value is not None:
            rule(name, value)


def _check_tag(request: ResearchRequest) -> None:
    tag = cast("object", request.tag)
    if tag is not None and not isinstance(tag, str | int):
        refuse("tag", f"must be text, a whole number or None, not {checks.kind_of(tag)}")


def _extra(extra: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(cast("object", extra), dict):
        refuse("extra", f"must be a mapping of further fields, not {checks.kind_of(extra)}")
    for name in extra:
        if name in FIELDS:
            refuse(f"extra.{name}", f"is a field of its own: give {name}=... instead")
        if not isinstance(cast("object", name), str):
            refuse("extra", "has a name that is not text")
    checks.writable("extra", extra)
    return extra


_WORDS = {
    "reasoning_effort": _EFFORTS,
    "search_mode": _MODES,
    "search_recency_filter": _RECENT,
    "stream_mode": _STREAMS,
    "role": ROLES,
    "type": PART_TYPES,
}
# Not read with the others: they may hold what is no JSON, such as a Python type, and have readers of their own.
_READ_APART: dict[str, Callable[[Any], Any]] = {
    "response_format": as_format,
    "extra": _extra,
    "web_search_options": as_options,
}
_OTHER_NAMES: dict[str, str] = dict.fromkeys(("content", "input", "prompt", "q", "query", "text"), "question")


def _of_mapping(item: Mapping[str, object]) -> ResearchRequest:
    tag = item.get("tag")
    try:
        return _read(item)
    except InvalidRequest as error:
        error.tag = tag if isinstance(tag, str | int) else None
        raise


def _read(item: Mapping[str, object]) -> ResearchRequest:
    given = {name: value for name, value in item.items() if value is not None}
    for name in given:
        if name not in FIELDS:
            _refuse_field(name)
    whole = {name: read(given.pop(name)) for name, read in _READ_APART.items() if name in given}
    for name in DATES:
        if name in given:
            given[name] = checks.as_day(given[name])
    return msgspec.structs.replace(checks.converted("", given, ResearchRequest, _WORDS), **whole)


def _refuse_field(name: object) -> NoReturn:
    text = name if isinstance(name, str) else ""
    nearest = difflib.get_close_matches(text, FIELDS, n=1)
    meant = _OTHER_NAMES.get(text) or (nearest[0] if nearest else "")
    hint = f"did you mean `{meant}`?" if meant else "a field that only the server knows goes into `extra`"
    raise InvalidRequest(f"a request has no field {checks.shown(name)}; {hint}", field=checks.as_name(name))
