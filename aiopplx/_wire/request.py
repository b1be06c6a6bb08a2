"""The base of all requests, and the request that every API can be asked with.

A request says what is asked, in words that do not depend on when or how it is sent. Whatever the server would refuse is
refused here, before anything is sent or paid, by a message that names the field and the rule and never repeats the
prompt. What a field may hold stands on the field, as its type; see `checks`.

`Request` is what the rest of the library deals in. Only the request classes and the folder of each API know which class
a request has. This module knows nothing of endpoints, of retries or of jobs.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NoReturn, Self, TypeAlias, cast

import msgspec
from msgspec import Meta

from aiopplx._errors import InvalidRequest
from aiopplx._wire import checks
from aiopplx._wire.checks import (
    DATES,
    Filled,
    Fraction,
    IdempotencyKey,
    Language,
    Recency,
    Rule,
    Seconds,
    Temperature,
    refuse,
)
from aiopplx._wire.conversion import check_types, converted
from aiopplx._wire.messages import Message, ResponseFormat, WebSearchOptions, as_format, as_options, conversation_of

if TYPE_CHECKING:
    Messages: TypeAlias = Sequence[Message | Mapping[str, Any]]
    Day: TypeAlias = str | date
    Format: TypeAlias = ResponseFormat | type[Any] | Mapping[str, Any]
else:
    # What mappings are read into. Days and formats have readers of their own: neither is always plain JSON.
    Messages = list[Message]
    Day = Format = Any

DEFAULT_MODEL = "sonar-deep-research"

# Kept by the session, besides the tag and `extra`.
_NOT_SENT = ("idempotency_key", "timeout")

Reader: TypeAlias = Callable[[str, Any], Any]
"""Takes a field's name and its value; returns the value as it is sent, raises `InvalidRequest` if it breaks a rule."""

# Sorted keys: equal requests are equal bytes, in whatever order a mapping was written.
_CANONICAL = msgspec.json.Encoder(order="deterministic")


class Request(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, repr_omit_defaults=True
):
    """What a session needs of any request, whichever API it is for.

    Building a request checks nothing; `check` does, and every submission is checked before it is sent.

    Attributes:
        tag: the caller's own; it comes back on the job, and is not sent. None by default.
        idempotency_key: the caller's own key, 1 to 255 characters of printable ASCII; None has one made.
        timeout: seconds for this job, above 0; None takes the session's.
        extra: further fields for the server, by name; sent as they are, beside the others. Empty by default.
    """

    tag: str | int | None = None
    idempotency_key: IdempotencyKey | None = None
    timeout: Seconds | None = None
    extra: dict[str, Any] = {}

    # How a class describes itself to the methods below. A field with a reader is read by that alone, as it may hold
    # more than plain JSON; one in `_apart` is left to the class's own `_wire`; all others are checked against their
    # types, then against the rules. `_other_names` are what people write for a field, `_home` is where it can be sent.
    _home: ClassVar[str] = "another API"
    _readers: ClassVar[Mapping[str, Reader]] = {}
    _rules: ClassVar[Mapping[str, Rule]] = {}
    _apart: ClassVar[frozenset[str]] = frozenset()
    _other_names: ClassVar[Mapping[str, str]] = {}

    @property
    def asked_model(self) -> str | None:
        """The model that is asked for by name; None where the server chooses."""
        return None

    @classmethod
    def of(cls, item: str | Mapping[str, object] | Self) -> Self:
        """A request from what a caller has: a question, a mapping of these fields (a line of JSONL), or a request.

        In a mapping, None means not given. Types and limits are checked here; rules across fields in `check`.

        Raises:
            InvalidRequest: there is no such field (the nearest is named), or a value breaks the rule of its field (its
                path is named). It has the mapping's `tag`.
        """
        if isinstance(item, cls):
            return item
        if isinstance(item, str):
            return cast("Callable[[str], Self]", cls)(item)  # each class takes its question by position
        if not isinstance(cast("object", item), Mapping):
            raise InvalidRequest(f"must be a question, a mapping or {cls._title()}, not {checks.kind_of(item)}")
        mapping = cast("Mapping[str, object]", item)
        try:
            return cls._read(mapping)
        except InvalidRequest as error:
            error.tag = tag_of(mapping)
            raise

    @classmethod
    def is_meant_by(cls, item: Mapping[str, object]) -> bool:
        """Whether a mapping is in the words of this class rather than in those of `ResearchRequest`."""
        return False

    def not_taken(self) -> InvalidRequest:
        """The refusal by an API that does not take requests of this class; it says which does."""
        return InvalidRequest(f"{self._title()} is for {self._home}")

    def wire(self) -> dict[str, Any]:
        """The request as the server reads it, checked. What is None is left out.

        Raises:
            InvalidRequest: a rule is broken; names the field and the rule, and has the request's tag.
        """
        try:
            return self._wire()
        except InvalidRequest as error:
            error.tag = tag_of(self)
            raise

    def check(self) -> None:
        """Refuse whatever the server would refuse. Raises `InvalidRequest`, as `wire` does."""
        self.wire()

    def canonical(self) -> bytes:
        """What is asked, as JSON that is the same for the same question, whichever API it will go to.

        Without tag, key and time limit. Journals hold digests of these bytes: they must never change.

        Raises:
            InvalidRequest: as `wire` does.
        """
        return _CANONICAL.encode(self.wire())

    def _wire(self) -> dict[str, Any]:
        """`wire`, without the tag on its error."""
        return self._checked()

    def _checked(self) -> dict[str, Any]:
        """The fields that are given, as they are sent, with `extra`. What only the session uses is checked as well."""
        check_tag(self.tag)
        sent = {name: value for name in self._plain() if (value := getattr(self, name)) is not None}
        check_types("", sent, type(self))
        checks.writable("", sent)
        for name, rule in self._rules.items():
            if name in sent:
                rule(name, sent[name])
        for name in _NOT_SENT:
            sent.pop(name, None)
        for name, as_sent in self._readers.items():
            if (value := getattr(self, name)) is not None:
                sent[name] = as_sent(name, value)
        if self.extra or not isinstance(cast("object", self.extra), dict | None):
            sent.update(self._further(self.extra))
        return sent

    @classmethod
    @lru_cache(maxsize=16)
    def _names(cls) -> frozenset[str]:
        return frozenset(cls.__struct_fields__)

    @classmethod
    @lru_cache(maxsize=16)
    def _plain(cls) -> tuple[str, ...]:
        """The fields that their types alone say how to read."""
        apart = {"tag", "extra", *cls._apart, *cls._readers}
        return tuple(name for name in cls.__struct_fields__ if name not in apart)

    @classmethod
    def _further(cls, extra: Any) -> dict[str, Any]:
        """`extra`, checked."""
        if not isinstance(extra, dict):
            refuse("extra", f"must be a mapping of further fields, not {checks.kind_of(extra)}")
        for name in cast("dict[object, Any]", extra):
            if name in cls._names():
                refuse(f"extra.{name}", f"is a field of its own: give {name}=... instead")
            if not isinstance(name, str):
                refuse("extra", "has a name that is not text")
        checks.writable("extra", extra)
        return cast("dict[str, Any]", extra)

    @classmethod
    def _read(cls, item: Mapping[str, object]) -> Self:
        given = {name: value for name, value in item.items() if value is not None}
        if not given.keys() <= cls._names():
            cls._refuse_field(next(name for name in given if name not in cls._names()))
        read = {name: as_sent(name, given.pop(name)) for name, as_sent in cls._readers.items() if name in given}
        if "extra" in given:
            read["extra"] = cls._further(given.pop("extra"))
        request = converted("", given, cls)
        return msgspec.structs.replace(request, **read) if read else request

    @classmethod
    def _title(cls) -> str:
        return f"{'an' if cls.__name__[0] in 'AEIOU' else 'a'} {cls.__name__}"

    @classmethod
    def _refuse_field(cls, name: object) -> NoReturn:
        text = name if isinstance(name, str) else ""
        nearest = difflib.get_close_matches(text, cls.__struct_fields__, n=1)
        meant = cls._other_names.get(text) or (nearest[0] if nearest else "")
        hint = f"did you mean `{meant}`?" if meant else "a field that only the server knows goes into `extra`"
        raise InvalidRequest(f"{cls._title()} has no field {checks.shown(name)}; {hint}", field=checks.as_name(name))


def tag_of(item: object) -> str | int | None:
    """The tag of a request or a mapping that may be too broken to be read any further; None if it has none."""
    tag: object = None
    if isinstance(item, Request):
        tag = item.tag
    elif isinstance(item, Mapping):
        tag = cast("Mapping[str, object]", item).get("tag")
    return tag if isinstance(tag, str | int) else None


def check_tag(tag: object) -> None:
    """Refuse a tag that a job could not carry back. Raises `InvalidRequest`."""
    if tag is not None and not isinstance(tag, str | int):
        refuse("tag", f"must be text, a whole number or None, not {checks.kind_of(tag)}")


class _Question(Request, frozen=True):
    """The one field that may be given by position: `kw_only` holds for every field that a class declares."""

    question: str = ""


class ResearchRequest(_Question, frozen=True, kw_only=True):
    """One question to research, with everything that may be said about how.

    `ResearchRequest("Why did the Vasa sink?")` is enough. What is None is not sent: the server's own default holds.
    Building one checks nothing; `check` does, and every submission is checked before it is sent. The fields are those
    of the provider's document of the async API; each rule stands on its field.

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
        tag: the caller's own; it comes back on the job, and is not sent.
        idempotency_key: the caller's own key, 1 to 255 characters of printable ASCII; None has one made.
        timeout: seconds for this job, above 0; None takes the session's.
    """

    messages: Messages | None = None
    model: Filled = DEFAULT_MODEL
    max_tokens: Annotated[int, Meta(ge=1, le=128_000)] | None = None
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    stop: str | list[str] | None = None
    response_format: Format | None = None
    reasoning_effort: Literal["minimal", "low", "medium", "high"] | None = None
    search_mode: Literal["web", "academic", "sec"] | None = None
    web_search_options: WebSearchOptions | None = None
    search_domain_filter: Annotated[list[str], Meta(max_length=20)] | None = None
    search_language_filter: list[Language] | None = None
    search_recency_filter: Recency | None = None
    search_after_date_filter: Day | None = None
    search_before_date_filter: Day | None = None
    last_updated_after_filter: Day | None = None
    last_updated_before_filter: Day | None = None
    language_preference: Language | None = None
    return_images: bool | None = None
    return_related_questions: bool | None = None
    image_domain_filter: list[str] | None = None
    image_format_filter: list[Filled] | None = None
    enable_search_classifier: bool | None = None
    disable_search: bool | None = None
    stream: bool | None = None
    stream_mode: Literal["full", "concise"] | None = None

    _readers: ClassVar[Mapping[str, Reader]] = {
        "response_format": as_format,
        "web_search_options": as_options,
        **dict.fromkeys(DATES, checks.day),
    }
    _rules: ClassVar[Mapping[str, Rule]] = {
        "search_domain_filter": checks.allow_or_deny,
        "image_domain_filter": checks.domains,
    }
    _apart: ClassVar[frozenset[str]] = frozenset({"question", "messages"})
    _other_names: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("content", "input", "prompt", "q", "query", "text"), "question"
    )

    @property
    def asked_model(self) -> str | None:
        """The model that is asked for: `model`."""
        return self.model

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

    def _wire(self) -> dict[str, Any]:
        messages = self.conversation()
        if self == ResearchRequest(self.question, tag=self.tag):
            check_tag(self.tag)
            return {"model": self.model, "messages": messages}  # a bare question, as most are
        sent = self._checked()
        checks.recency_or_dates("search_recency_filter", sent)
        if sent.pop("stream", False):
            refuse("stream", "a job is collected when it is finished and cannot be streamed; leave stream out")
        sent.pop("stream_mode", None)
        sent["messages"] = messages
        sent.setdefault("model", self.model)  # where None was given: null, as ever, since journals have its digest
        return sent
