"""The base class of all requests, and the request that every API accepts.

A request says what is asked, independently of when or how it is sent. Whatever the server would refuse is refused here,
before anything is sent or paid, by a message that names the field and the rule and never repeats the prompt. The rule
of a field is its type; see `_checks`.

The rest of the library deals in `Request`. Only the request classes and the folder of each API know which class a
request has. This module knows nothing of endpoints, of retries or of jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, NoReturn, Self, TypeAlias, cast

import msgspec
from msgspec import Meta

from aiopplx._checks import rules
from aiopplx._checks.builtin import as_builtin, as_builtins, fields_as_builtins
from aiopplx._checks.cells import as_cells
from aiopplx._checks.conversion import check_types, converted
from aiopplx._checks.rules import (
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
from aiopplx._errors import InvalidRequest
from aiopplx._job import TagT
from aiopplx._wire.messages import Message, ResponseFormat, WebSearchOptions, as_format, as_options, conversation_of

if TYPE_CHECKING:
    Messages: TypeAlias = Sequence[Message | Mapping[str, Any]]
    Day: TypeAlias = str | date
    Format: TypeAlias = ResponseFormat | type[Any] | Mapping[str, Any]
else:
    # The types that mappings are converted to. Days and formats have readers of their own: they may not be plain JSON.
    Messages = list[Message]
    Day = Format = Any

DEFAULT_MODEL = "sonar-deep-research"

_NAMED = 8
"""Fields that one complaint names; a wide table has more."""

# Used by the session and not sent, like the tag and `extra`.
_NOT_SENT = ("idempotency_key", "timeout")

Reader: TypeAlias = Callable[[str, Any], Any]
"""Gets a field's name and value; returns the value to send, or raises `InvalidRequest` if it breaks a rule."""

# Sorted keys: equal requests make equal bytes, whatever the order of a mapping.
_CANONICAL = msgspec.json.Encoder(order="deterministic")


class Request(
    msgspec.Struct,
    Generic[TagT],
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    repr_omit_defaults=True,
):
    """What a session needs of a request, whichever API it is for.

    Building a request checks nothing; `check` does, and every submission is checked before it is sent.

    Attributes:
        tag: a value of the caller's choice; it is returned on the job, and not sent. None by default.
        idempotency_key: a key of the caller's choice, 1 to 255 characters of printable ASCII; None generates one.
        timeout: seconds for this job, above 0; None is the session's.
        extra: further fields for the server, by name; sent unchanged along with the others. Empty by default.
        meta: the caller's own columns for this question, as JSON values by name. Never sent, and no part of what makes
            two questions equal. Empty by default.
    """

    tag: TagT = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType] - without one, `TagT` is None
    idempotency_key: IdempotencyKey | None = None
    timeout: Seconds | None = None
    extra: dict[str, Any] = {}
    meta: dict[str, Any] = {}

    # How a subclass describes itself to the methods below. A field with a reader is converted by that alone, as it may
    # hold more than plain JSON; a field in `_apart` is left to the class's own `_wire`; all others are checked against
    # their types, then against the rules. `_other_names` are common wrong names for a field, `_home` says which
    # API accepts the class, and how a session is opened with it.
    asks_by: ClassVar[str] = ""
    """The field that a plain question goes into."""

    _home: ClassVar[str] = "another API: open the session with that API's name as api="
    _readers: ClassVar[Mapping[str, Reader]] = {}
    _rules: ClassVar[Mapping[str, Rule]] = {}
    _apart: ClassVar[frozenset[str]] = frozenset()
    _other_names: ClassVar[Mapping[str, str]] = {}

    @property
    def asked_model(self) -> str | None:
        """The model that is asked for by name; None if the server chooses."""
        return None

    @property
    def asked(self) -> str:
        """The last words of the user in it, for a person to recognise it by; `""` if there is no text."""
        return last_words(getattr(self, self.asks_by))

    @classmethod
    def of(cls, item: str | Mapping[str, object] | Self) -> Self:
        """A request from a question, a mapping of these fields (a line of JSONL), or a request.

        In a mapping, None means not given. Types and limits are checked here; rules across fields in `check`.

        Raises:
            InvalidRequest: a field does not exist (the error suggests the nearest), or a value breaks the rule of its
                field (the error has its path). It carries the mapping's `tag`.
        """
        if isinstance(item, cls):
            return item
        if isinstance(item, str):
            return cast("Callable[[str], Self]", cls)(as_builtin(item))  # each class accepts its question by position
        if not isinstance(cast("object", item), Mapping):
            raise InvalidRequest(f"must be a question, a mapping or {cls._title()}, not {rules.kind_of(item)}")
        mapping = cast("Mapping[str, object]", item)
        try:
            return cls._read(mapping)
        except InvalidRequest as error:
            error.tag = tag_of(mapping)
            raise

    @classmethod
    def is_meant_by(cls, item: Mapping[str, object]) -> bool:
        """Whether a mapping uses the fields of this class rather than those of `ResearchRequest`."""
        return False

    def not_taken(self, own: type[Request]) -> InvalidRequest:
        """The refusal by an API that does not accept requests of this class: it names one that does, and `own`.

        Args:
            own: the class of that API's own requests.
        """
        return InvalidRequest(f"{self._title()} is for {self._home}, or give {own._title()}")

    def wire(self) -> dict[str, Any]:
        """The request in the server's form, checked. Fields that are None are left out.

        Raises:
            InvalidRequest: a rule is broken; the error names the field and the rule, and carries the request's tag.
        """
        try:
            return self._wire()
        except InvalidRequest as error:
            error.tag = tag_of(self)
            raise

    def check(self) -> None:
        """Check the request by the server's rules. Raises `InvalidRequest`, as `wire` does."""
        fields_as_builtins(self).wire()

    def canonical(self) -> bytes:
        """The question as canonical JSON: the same bytes for the same question, whichever API it will go to.

        Without tag, key and time limit. Journals store digests of these bytes: they must never change.

        Raises:
            InvalidRequest: as `wire` does.
        """
        return _CANONICAL.encode(self.wire())

    def _wire(self) -> dict[str, Any]:
        """`wire`, without the tag on its error."""
        return self._checked()

    def _checked(self) -> dict[str, Any]:
        """The given fields as they are sent, with `extra`. The fields for the session are checked too."""
        check_tag(self.tag)
        sent = {name: value for name in self._plain() if (value := getattr(self, name)) is not None}
        check_types("", sent, type(self))
        rules.writable("", sent)
        for name, rule in self._rules.items():
            if name in sent:
                rule(name, sent[name])
        for name in _NOT_SENT:
            sent.pop(name, None)
        for name, as_sent in self._readers.items():
            if (value := getattr(self, name)) is not None:
                sent[name] = as_sent(name, value)
        if not isinstance(cast("object", self.extra), dict | None) or self.extra:
            sent.update(self._further(self.extra))
        if not isinstance(cast("object", self.meta), dict) or self.meta:
            check_meta(self.meta)
        return sent

    @classmethod
    @lru_cache(maxsize=16)
    def _names(cls) -> frozenset[str]:
        return frozenset(cls.__struct_fields__)

    @classmethod
    @lru_cache(maxsize=16)
    def _plain(cls) -> tuple[str, ...]:
        """The fields that need no reader: their types are enough."""
        apart = {"tag", "extra", "meta", *cls._apart, *cls._readers}
        return tuple(name for name in cls.__struct_fields__ if name not in apart)

    @classmethod
    def _further(cls, extra: Any) -> dict[str, Any]:
        """`extra`, checked."""
        if not isinstance(extra, dict):
            refuse("extra", f"must be a mapping of further fields, not {rules.kind_of(extra)}")
        for name in cast("dict[object, Any]", extra):
            if name in cls._names():
                refuse(f"extra.{name}", f"is a regular field: give {name}=... instead")
            if not isinstance(name, str):
                refuse("extra", "has a name that is not text")
        rules.writable("extra", extra)
        return cast("dict[str, Any]", extra)

    @classmethod
    def _read(cls, item: Mapping[str, object]) -> Self:
        given = {name: as_builtins(value) for name, value in item.items() if value is not None}
        if not given.keys() <= cls._names():
            cls._refuse_fields([name for name in given if name not in cls._names()])
        read = {name: as_sent(name, given.pop(name)) for name, as_sent in cls._readers.items() if name in given}
        if "extra" in given:
            read["extra"] = cls._further(given.pop("extra"))
        request = converted("", given, cls)
        return msgspec.structs.replace(request, **read) if read else request

    @classmethod
    def _title(cls) -> str:
        return f"{'an' if cls.__name__[0] in 'AEIOU' else 'a'} {cls.__name__}"

    @classmethod
    def _refuse_fields(cls, names: Sequence[object]) -> NoReturn:
        """Refuse all fields that the class does not have, in one complaint. What is misspelt is told alone."""
        import difflib  # nothing else needs it

        for name in names:
            text = name if isinstance(name, str) else ""
            nearest = difflib.get_close_matches(text, cls.__struct_fields__, n=1)
            if meant := cls._other_names.get(text) or (nearest[0] if nearest else ""):
                cls._refuse_field(name, f"did you mean `{meant}`?")
        said = [f"`{known}`" for name in names if (known := rules.as_name(name))][:_NAMED]
        hint = (
            "a value of your own goes into `tag` or `meta`, which come back on the job and are not sent; only a field"
            " that the server knows goes into `extra`"
        )
        if len(said) < 2:
            cls._refuse_field(names[0], hint)
        more = ", ..." if len(names) > len(said) else ""
        raise InvalidRequest(f"{cls._title()} has no fields {', '.join(said)}{more}; {hint}")

    @classmethod
    def _refuse_field(cls, name: object, hint: str) -> NoReturn:
        raise InvalidRequest(f"{cls._title()} has no field {rules.shown(name)}; {hint}", field=rules.as_name(name))


def tag_of(item: object) -> str | int | None:
    """The tag of a request or a mapping that may be invalid otherwise; None if it has none."""
    tag: object = None
    if isinstance(item, Request):
        tag = cast("Request", item).tag
    elif isinstance(item, Mapping):
        tag = cast("Mapping[str, object]", item).get("tag")
    tag = as_builtin(tag)
    return tag if isinstance(tag, str | int) else None


def check_tag(tag: object) -> None:
    """Refuse a tag of an unsupported type, and text that no file or journal can keep. Raises `InvalidRequest`."""
    if isinstance(tag, str):
        rules.encodable("tag", tag)
    elif tag is not None and not isinstance(tag, int):
        refuse("tag", f"must be text, a whole number or None, not {rules.kind_of(tag)}")


def check_meta(meta: object) -> None:
    """Refuse columns that are not JSON values by name. Raises `InvalidRequest`."""
    if not isinstance(meta, dict):
        refuse("meta", f"must be a mapping of columns, not {rules.kind_of(meta)}")
    if not all(isinstance(name, str) for name in cast("dict[object, Any]", meta)):
        refuse("meta", "has a name that is not text")
    try:
        msgspec.json.encode(meta)
    except (TypeError, ValueError, RecursionError):
        refuse("meta", "has a value that JSON cannot express")


def last_words(said: object) -> str:
    """The last text of the user in a question, in a list of messages, or in a list of parts."""
    if isinstance(said, str):
        return said
    if not isinstance(said, list | tuple):
        return ""
    for item in reversed(cast("Sequence[object]", said)):
        if _part(item, "role") in (None, "user"):
            text = _part(item, "text")
            if words := text if isinstance(text, str) else last_words(_part(item, "content")):
                return words
    return ""


def asked_in(item: object) -> str:
    """The last words of the user in a question, a request or a mapping that may be invalid otherwise; "" if none."""
    if isinstance(item, str):
        return str(item)
    names = ("question", "input", "messages")
    said = (last_words(_part(item, name)) for name in names)
    return next((str(words) for words in said if words), "")


def meta_in(item: object) -> dict[str, Any]:
    """The caller's own columns in a request or a mapping that may be invalid otherwise; none if they are not right."""
    try:
        check_meta(meta := as_cells(_part(item, "meta") or {}))
    except InvalidRequest:
        return {}
    return cast("dict[str, Any]", meta)


def _part(item: object, name: str) -> object:
    """A field of a message, which may be a struct or a mapping."""
    if isinstance(item, Mapping):
        return cast("Mapping[str, object]", item).get(name)
    return getattr(item, name, None)


class _Question(Request[TagT], frozen=True):
    """The one field that may be given by position: `kw_only` applies to all fields that a class declares."""

    question: str = ""


class ResearchRequest(_Question[TagT], frozen=True, kw_only=True):
    """One question to research, with all options.

    `ResearchRequest("Why did the Vasa sink?")` is enough. A field that is None is not sent: the server's default holds.
    Building one checks nothing; `check` does, and every submission is checked before it is sent. The fields are those
    of the provider's document of the async API; each field's rule is its type.

    Attributes:
        question: the question, sent as one user message. Either this or `messages`.
        messages: the whole conversation: `Message`s, or mappings of that shape.
        model: the model that answers; any name is passed on, since the server's list grows.
        max_tokens: at most this many tokens of answer, 1 to 128000.
        temperature: 0 to 2; more is more varied.
        top_p: 0 to 1; nucleus sampling.
        stop: a string, or strings, at which the answer ends.
        response_format: the form of the answer: a msgspec Struct, a dataclass or a pydantic model (the answer is then
            JSON for `job.parse(Type)`); or a `TextFormat`, `JSONSchemaFormat` or `RegexFormat`, or a mapping of that
            shape.
        reasoning_effort: how hard the model thinks; more takes longer and costs more.
        search_mode: the index that is searched.
        web_search_options: how the web is searched.
        search_domain_filter: at most 20 domains without a scheme; all allowed, or all denied (`-example.com`).
        search_language_filter: ISO 639-1 codes of the pages' languages.
        search_recency_filter: how new a page must be; not together with any of the four dates.
        search_after_date_filter, search_before_date_filter: published after, before: a `date`, or MM/DD/YYYY.
        last_updated_after_filter, last_updated_before_filter: changed after, before: a `date`, or MM/DD/YYYY.
        language_preference: ISO 639-1 code of the answer's language.
        return_images: ask for images.
        return_related_questions: ask for follow-up questions.
        image_domain_filter: domains that images may come from.
        image_format_filter: formats that images may have, such as `png`.
        enable_search_classifier: let a classifier decide whether to search.
        disable_search: answer without the web. Deep research was seen to search all the same.
        stream, stream_mode: not applicable to a job, never sent; accepted so that a request for the streaming API can
            be used with `stream` False.
        extra: further (undocumented) fields for the server; sent unchanged along with the others.
        meta: the caller's own columns for this question, as JSON values by name; never sent.
        tag: a value of the caller's choice; it is returned on the job, and not sent.
        idempotency_key: a key of the caller's choice, 1 to 255 characters of printable ASCII; None generates one.
        timeout: seconds for this job, above 0; None is the session's.
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

    asks_by: ClassVar[str] = "question"
    _home: ClassVar[str] = 'an API that takes plain questions: open the session with api="auto"'
    _readers: ClassVar[Mapping[str, Reader]] = {
        "response_format": as_format,
        "web_search_options": as_options,
        **dict.fromkeys(DATES, rules.day),
    }
    _rules: ClassVar[Mapping[str, Rule]] = {
        "search_domain_filter": rules.allow_or_deny,
        "image_domain_filter": rules.domains,
    }
    _apart: ClassVar[frozenset[str]] = frozenset({"question", "messages"})
    _other_names: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("content", "input", "prompt", "q", "query", "text"), "question"
    )

    @property
    def asked(self) -> str:
        """The question, or the last words of the user in `messages`."""
        return self.question or last_words(self.messages)

    @property
    def asked_model(self) -> str | None:
        """`model`."""
        return self.model

    def conversation(self) -> list[Message]:
        """The messages to send, from `question` or `messages`, checked. Raises `InvalidRequest`."""
        if self.messages is None:
            rules.filled("question", self.question)
            return [Message("user", self.question)]
        if not isinstance(cast("object", self.question), str) or self.question:
            refuse("question", "give either question or messages, not both")
        if not isinstance(cast("object", self.messages), list | tuple):
            refuse("messages", f"must be a list, not {rules.kind_of(self.messages)}")
        if not self.messages:
            refuse("messages", "must not be empty")
        return conversation_of(self.messages)

    def _is_bare(self) -> bool:
        """A question, perhaps with a tag and columns of its own, and nothing else."""
        try:
            return self == ResearchRequest(self.question, tag=self.tag, meta=self.meta)
        except Exception:  # a table, for example, has no answer to whether it is equal to None
            return False

    def _wire(self) -> dict[str, Any]:
        messages = self.conversation()
        if self._is_bare():
            check_tag(self.tag)
            if not isinstance(cast("object", self.meta), dict) or self.meta:
                check_meta(self.meta)
            return {"model": self.model, "messages": messages}  # a bare question, as most are
        sent = self._checked()
        rules.recency_or_dates("search_recency_filter", sent)
        if sent.pop("stream", False):
            refuse("stream", "a job is collected when it is finished and cannot be streamed; leave stream out")
        sent.pop("stream_mode", None)
        sent["messages"] = messages
        sent.setdefault("model", self.model)  # None becomes null, as always: journals have its digest
        return sent
