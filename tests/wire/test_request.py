"""A research request: what it may hold, what it is refused with, and the body that it becomes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._errors import InvalidRequest
from aiopplx._wire.fields import ResearchFields
from aiopplx._wire.messages import (
    URL,
    FilePart,
    ImagePart,
    JSONSchema,
    JSONSchemaFormat,
    Message,
    PDFPart,
    Regex,
    RegexFormat,
    TextFormat,
    TextPart,
    UserLocation,
    VideoPart,
    VideoURL,
    WebSearchOptions,
)
from aiopplx._wire.request import ResearchRequest

FIELDS = ResearchRequest.__struct_fields__


def sent(request: ResearchRequest) -> Any:
    return msgspec.json.decode(msgspec.json.encode(request.wire()))


def of(**fields: Any) -> ResearchRequest:
    return ResearchRequest(**{"question": "q?", **fields})


def said(*roles: str) -> list[Message]:
    return [Message(role, "words") for role in roles]  # type: ignore[arg-type]  # wrong roles are a case


class Finding(msgspec.Struct):
    name: str
    year: int | None = None


class Tree(msgspec.Struct):
    children: list[Tree]


@dataclass
class Plain:
    finding: Finding


class Opaque:
    pass


def test_question_is_sent_as_one_user_message_alone():
    assert sent(ResearchRequest("Why?")) == {
        "model": "sonar-deep-research",
        "messages": [{"role": "user", "content": "Why?"}],
    }


def test_text_mapping_and_request_freeze_to_the_same_body():
    request = ResearchRequest("Why?")
    assert ResearchRequest.of("Why?") == request
    assert ResearchRequest.of({"question": "Why?"}) == request
    assert ResearchRequest.of(MappingProxyType({"question": "Why?", "max_tokens": None})) == request
    assert ResearchRequest.of(request) is request


def test_every_field_is_sent_under_its_own_name():
    fields: dict[str, Any] = {
        "model": "sonar-pro",
        "max_tokens": 128_000,
        "temperature": 0,
        "top_p": 1,
        "stop": ["a", "b"],
        "reasoning_effort": "minimal",
        "search_mode": "sec",
        "search_domain_filter": ["-a.org", "-b.org"],
        "search_language_filter": ["en", "de"],
        "search_after_date_filter": "3/1/2025",
        "search_before_date_filter": "03/01/2026",
        "last_updated_after_filter": "02/29/2024",
        "last_updated_before_filter": "12/31/2026",
        "language_preference": "fr",
        "return_images": True,
        "return_related_questions": False,
        "image_domain_filter": ["a.org"],
        "image_format_filter": ["png"],
        "enable_search_classifier": True,
        "disable_search": False,
        "response_format": {"type": "text"},
        "web_search_options": {
            "search_context_size": "high",
            "search_type": "auto",
            "user_location": {"latitude": -90, "longitude": 180, "country": "SG", "region": "Central", "city": "S"},
            "image_results_enhanced_relevance": True,
        },
    }
    messages = [{"role": "user", "content": "Why?"}]
    everything = {
        **fields,
        "messages": messages,
        "extra": {"top_k": 5},
        "meta": {"row": 9},
        "tag": 7,
        "timeout": 60,
        "idempotency_key": "k",
    }
    unsent = {
        "question",
        "extra",
        "meta",
        "tag",
        "timeout",
        "idempotency_key",
        "stream",
        "stream_mode",
        "search_recency_filter",
    }
    assert set(FIELDS) - unsent == set(fields) | {"messages"}
    assert sent(ResearchRequest.of(everything)) == {**fields, "messages": messages, "top_k": 5}


def test_recency_reaches_the_wire():
    assert sent(of(search_recency_filter="week"))["search_recency_filter"] == "week"


@pytest.mark.parametrize("day", [date(2026, 3, 1), datetime(2026, 3, 1, 12)])
def test_date_is_sent_in_the_servers_format(day: date):
    assert sent(of(search_after_date_filter=day))["search_after_date_filter"] == "03/01/2026"
    assert sent(ResearchRequest.of({"question": "q", "search_after_date_filter": day})) == sent(
        of(question="q", search_after_date_filter="03/01/2026")
    )


def test_content_parts_have_the_names_of_the_wire():
    parts = [
        TextPart("look"),
        ImagePart("https://a.org/a.png"),
        ImagePart(URL("data:image/png;base64,AA")),
        FilePart("https://a.org/a.txt", "a.txt"),
        PDFPart(URL("https://a.org/a.pdf")),
        VideoPart("https://a.org/a.mp4"),
        VideoPart(VideoURL("https://a.org/b.mp4", 10)),
    ]
    wire_parts = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": "https://a.org/a.png"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
        {"type": "file_url", "file_url": "https://a.org/a.txt", "file_name": "a.txt"},
        {"type": "pdf_url", "pdf_url": {"url": "https://a.org/a.pdf"}},
        {"type": "video_url", "video_url": "https://a.org/a.mp4"},
        {"type": "video_url", "video_url": {"url": "https://a.org/b.mp4", "frame_interval": 10}},
    ]
    built = ResearchRequest(messages=[Message("user", parts)])
    assert sent(built)["messages"] == [{"role": "user", "content": wire_parts}]
    assert sent(ResearchRequest.of({"messages": [{"role": "user", "content": wire_parts}]})) == sent(built)
    assert sent(ResearchRequest(messages=[{"role": "user", "content": wire_parts}])) == sent(built)


def test_structs_within_a_mapping_are_accepted():
    options = WebSearchOptions(user_location=UserLocation(country="SG"))
    request = ResearchRequest.of({"messages": said("user"), "web_search_options": options})
    assert sent(request)["web_search_options"] == {"user_location": {"country": "SG"}}


@pytest.mark.parametrize(
    "roles",
    [
        ["user"],
        ["system", "user"],
        ["system", "system", "user"],
        ["user", "assistant", "user"],
        ["system", "user", "assistant", "tool", "assistant", "user"],
    ],
)
def test_conversation_in_turns_is_accepted(roles: list[str]):
    ResearchRequest(messages=said(*roles)).check()


def test_assistant_message_without_content_is_accepted():
    ResearchRequest(messages=[Message("user", "a"), Message("assistant", None), Message("user", "b")]).check()


@pytest.mark.parametrize(
    ("given_format", "on_the_wire"),
    [
        (TextFormat(), {"type": "text"}),
        (RegexFormat(Regex("a+")), {"type": "regex", "regex": {"regex": "a+"}}),
        (
            JSONSchemaFormat(JSONSchema({"type": "object"}, strict=True)),
            {"type": "json_schema", "json_schema": {"schema": {"type": "object"}, "strict": True}},
        ),
        (
            {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
            {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
        ),
    ],
)
def test_response_format_is_sent_as_given(given_format: Any, on_the_wire: Any):
    assert sent(of(response_format=given_format))["response_format"] == on_the_wire
    mapped = ResearchRequest.of({"question": "q?", "response_format": given_format})
    assert sent(mapped)["response_format"] == on_the_wire


def test_struct_as_response_format_becomes_an_object_schema():
    json_schema = sent(of(response_format=Finding))["response_format"]["json_schema"]
    assert json_schema["name"] == "Finding"
    assert json_schema["schema"]["type"] == "object"
    assert set(json_schema["schema"]["properties"]) == {"name", "year"}
    assert "$defs" not in json_schema["schema"]


def test_dataclass_as_response_format_keeps_its_referenced_types():
    schema = sent(of(response_format=Plain))["response_format"]["json_schema"]["schema"]
    assert schema["properties"] == {"finding": {"$ref": "#/$defs/Finding"}}
    assert set(schema["$defs"]) == {"Finding"}


def test_recursive_type_keeps_its_references():
    schema = sent(of(response_format=Tree))["response_format"]["json_schema"]["schema"]
    assert schema["type"] == "object"
    assert set(schema["$defs"]) == {"Tree"}


def test_pydantic_model_as_response_format_makes_its_own_schema():
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Report-1 ", title=(str, ...))
    json_schema = sent(of(response_format=model))["response_format"]["json_schema"]
    assert json_schema["schema"] == model.model_json_schema()
    assert json_schema["name"] == "Report-1_"


LONG = "a" * 250 + ".org"
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"question": ""}, "question", "must not be empty"),
    ({"question": " \n\t"}, "question", "must not be empty"),
    ({"question": 5}, "question", "must be text, not int"),
    ({"question": "a\0b"}, "question", "NUL"),
    ({"question": "a\ud83d"}, "question", "surrogate"),
    ({"messages": said("user")}, "question", "either question or messages"),
    ({"question": "", "messages": []}, "messages", "must not be empty"),
    ({"question": "", "messages": "hello"}, "messages", "must be a list, not str"),
    ({"question": "", "messages": ["hello"]}, "messages[0]", "must be a mapping, not str"),
    ({"question": "", "messages": said("assistant", "user")}, "messages[0].role", "cannot open a conversation"),
    ({"question": "", "messages": said("user", "user")}, "messages[1].role", "follows another user message"),
    (
        {"question": "", "messages": said("user", "assistant", "assistant", "user")},
        "messages[2].role",
        "follows another",
    ),
    ({"question": "", "messages": said("user", "tool", "user")}, "messages[1].role", "must alternate"),
    ({"question": "", "messages": said("user", "system", "user")}, "messages[1].role", "before all others"),
    ({"question": "", "messages": said("user", "assistant")}, "messages[1].role", "must be the user's"),
    ({"question": "", "messages": said("user", "assistant", "tool")}, "messages[2].role", "must be the user's"),
    ({"question": "", "messages": said("system")}, "messages[0].role", "must be the user's"),
    ({"question": "", "messages": said("human")}, "messages[0].role", "one of system, user, assistant, tool"),
    ({"question": "", "messages": [{"role": "human", "content": []}]}, "messages[0].role", "one of system, user"),
    ({"question": "", "messages": [{"role": "user"}]}, "messages[0]", "lacks the required field `content`"),
    ({"question": "", "messages": [{"role": "user", "content": "a", "name": "b"}]}, "messages[0]", "no field `name`"),
    ({"question": "", "messages": [Message("user", " ")]}, "messages[0].content", "must not be empty"),
    ({"question": "", "messages": [Message("user", None)]}, "messages[0].content", "must not be empty"),
    ({"question": "", "messages": [Message("user", [])]}, "messages[0].content", "must not be empty"),
    ({"question": "", "messages": [Message("user", [TextPart(" ")])]}, "messages[0].content", "must not be empty"),
    ({"question": "", "messages": [Message("user", "a\0")]}, "messages[0].content", "NUL"),
    ({"question": "", "messages": [Message("user", [TextPart("a\0")])]}, "messages[0].content[0].text", "NUL"),
    ({"question": "", "messages": [Message("user", [TextPart("\ud83d")])]}, "messages[0].content[0].text", "surrogate"),
    ({"question": "", "messages": [Message("user", 5)]}, "messages[0].content", "must be text or a list, not int"),  # type: ignore[arg-type]  # the case
    (
        {"question": "", "messages": [{"role": "user", "content": [{"type": "audio"}]}]},
        "messages[0].content[0].type",
        "must be one of text, image_url",
    ),
    (
        {"question": "", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": 5}]}]},
        "messages[0].content[0].image_url",
        "must be text or a mapping, not int",
    ),
    ({"model": ""}, "model", "must not be empty"),
    ({"model": 5}, "model", "must be text"),
    ({"max_tokens": 0}, "max_tokens", "from 1 to 128000"),
    ({"max_tokens": 128_001}, "max_tokens", "from 1 to 128000"),
    ({"max_tokens": True}, "max_tokens", "a whole number"),
    ({"max_tokens": 5.0}, "max_tokens", "a whole number"),
    ({"temperature": -0.1}, "temperature", "from 0 to 2"),
    ({"temperature": 2.1}, "temperature", "from 0 to 2"),
    ({"temperature": float("nan")}, "temperature", "from 0 to 2"),
    ({"top_p": 1.1}, "top_p", "from 0 to 1"),
    ({"top_p": "1"}, "top_p", "from 0 to 1"),
    ({"stop": 5}, "stop", "must be text or a list of texts, not int"),
    ({"stop": ["a", 5]}, "stop[1]", "must be text"),
    ({"stop": {5}}, "stop[0]", "must be text, not int"),
    ({"stop": ["a", "b\0"]}, "stop[1]", "NUL"),
    ({"model": b"sonar"}, "model", "must be text, not bytes"),
    ({"reasoning_effort": "maximal"}, "reasoning_effort", "one of minimal, low, medium, high"),
    ({"search_mode": "news"}, "search_mode", "one of web, academic, sec"),
    ({"search_recency_filter": "decade"}, "search_recency_filter", "one of hour, day, week, month, year"),
    ({"search_domain_filter": "a.org"}, "search_domain_filter", "must be a list"),
    ({"search_domain_filter": ["a.org"] * 21}, "search_domain_filter", "must have at most 20 entries"),
    ({"search_domain_filter": ["a.org", "-b.org"]}, "search_domain_filter", "mixes allowed and denied"),
    ({"search_domain_filter": ["a.org", "https://b.org"]}, "search_domain_filter[1]", "without a scheme"),
    ({"search_domain_filter": ["-https://b.org"]}, "search_domain_filter[0]", "without a scheme"),
    ({"search_domain_filter": [LONG]}, "search_domain_filter[0]", "at most 253"),
    ({"search_domain_filter": [""]}, "search_domain_filter[0]", "must not be empty"),
    ({"search_domain_filter": ["-"]}, "search_domain_filter[0]", "must be a domain"),
    ({"search_domain_filter": ["a b"]}, "search_domain_filter[0]", "without blanks"),
    ({"image_domain_filter": ["http://a.org"]}, "image_domain_filter[0]", "without a scheme"),
    ({"image_format_filter": [""]}, "image_format_filter[0]", "must not be empty"),
    ({"search_language_filter": ["en", "eng"]}, "search_language_filter[1]", "two-letter ISO 639-1"),
    ({"search_language_filter": ["éè"]}, "search_language_filter[0]", "two-letter ISO 639-1"),
    ({"language_preference": "English"}, "language_preference", "two-letter ISO 639-1"),
    ({"search_after_date_filter": "2026-03-01"}, "search_after_date_filter", "MM/DD/YYYY"),
    ({"search_after_date_filter": "03/01/26"}, "search_after_date_filter", "MM/DD/YYYY"),
    ({"search_before_date_filter": "13/01/2026"}, "search_before_date_filter", "does not exist in the calendar"),
    ({"last_updated_after_filter": "02/29/2026"}, "last_updated_after_filter", "does not exist in the calendar"),
    ({"last_updated_before_filter": "00/01/0000"}, "last_updated_before_filter", "does not exist in the calendar"),
    ({"last_updated_before_filter": 5}, "last_updated_before_filter", "MM/DD/YYYY"),
    *[
        ({"search_recency_filter": "day", name: "1/1/2026"}, "search_recency_filter", f"cannot be combined with {name}")
        for name in FIELDS
        if name.endswith(("date_filter", "after_filter", "before_filter"))
    ],
    ({"return_images": 1}, "return_images", "True or False"),
    ({"return_related_questions": "yes"}, "return_related_questions", "True or False"),
    ({"enable_search_classifier": "no"}, "enable_search_classifier", "True or False"),
    ({"disable_search": 0}, "disable_search", "True or False"),
    ({"web_search_options": {"search_context_size": "huge"}}, "web_search_options.search_context_size", "low, medium"),
    (
        {"web_search_options": WebSearchOptions(search_type="slow")},  # type: ignore[arg-type]  # the case
        "web_search_options.search_type",
        "one of fast, pro, auto",
    ),
    ({"web_search_options": {"context": "low"}}, "web_search_options", "has no field `context`"),
    ({"web_search_options": 5}, "web_search_options", "must be a mapping, not int"),
    (
        {"web_search_options": {"user_location": {"latitude": 91}}},
        "web_search_options.user_location.latitude",
        "from -90 to 90",
    ),
    (
        {"web_search_options": WebSearchOptions(user_location=UserLocation(longitude=-180.5))},
        "web_search_options.user_location.longitude",
        "from -180 to 180",
    ),
    (
        {"web_search_options": {"user_location": {"country": "SGP"}}},
        "web_search_options.user_location.country",
        "two-letter ISO 3166-1",
    ),
    ({"web_search_options": {"user_location": {"city": "\0"}}}, "web_search_options.user_location.city", "NUL"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "one of text, json_schema, regex"),
    ({"response_format": {"type": "json_schema"}}, "response_format", "lacks the required field `json_schema`"),
    ({"response_format": "json"}, "response_format", "must be a Python type"),
    ({"response_format": Opaque}, "response_format", "cannot be converted to a JSON Schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"title": "\0"}}}},
        "response_format.json_schema.schema.title",
        "NUL",
    ),
    ({"stream": True}, "stream", "cannot be streamed"),
    ({"stream_mode": "some"}, "stream_mode", "one of full, concise"),
    ({"extra": {"model": "sonar"}}, "extra.model", "a regular field"),
    ({"extra": {"idempotency_key": "k"}}, "extra.idempotency_key", "a regular field"),
    ({"extra": {"a": object()}}, "extra.a", "JSON cannot express"),
    ({"extra": {"a": ["\0"]}}, "extra.a[0]", "NUL"),
    ({"extra": {"a": [None, float("nan")]}}, "extra.a[1]", "not finite"),
    ({"extra": {"a": {"b": float("inf")}}}, "extra.a.b", "not finite"),
    ({"extra": {"a": ["\ud83d"]}}, "extra.a[0]", "surrogate"),
    ({"extra": {5: "a"}}, "extra", "a name that is not text"),
    ({"extra": [5]}, "extra", "must be a mapping"),
    ({"tag": 1.5}, "tag", "must be text, a whole number"),
    ({"idempotency_key": ""}, "idempotency_key", "1 to 255 characters"),
    ({"idempotency_key": "k" * 256}, "idempotency_key", "1 to 255 characters"),
    ({"idempotency_key": "schlüssel"}, "idempotency_key", "printable ASCII"),
    ({"idempotency_key": "a\nb"}, "idempotency_key", "printable ASCII"),
    ({"timeout": 0}, "timeout", "above 0"),
    ({"timeout": float("inf")}, "timeout", "above 0"),
    ({"timeout": float("nan")}, "timeout", "above 0"),
]


@pytest.mark.parametrize(("fields", "field", "rule"), REFUSED)
def test_request_that_breaks_a_rule_is_refused_by_field(fields: dict[str, Any], field: str, rule: str):
    with pytest.raises(InvalidRequest) as refused:
        of(**fields).check()
    assert refused.value.field == field
    assert str(refused.value).startswith(f"{field}: ")
    assert rule in str(refused.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": False, "stream_mode": "full"},
        {"stop": "END"},
        {"search_domain_filter": ["a.org"] * 20},
        {"search_domain_filter": ["a" * 253, "b.org/path"]},
        {"search_domain_filter": ("a.org",)},
        {"idempotency_key": "k" * 255},
        {"extra": {"a": "the text \\u0000 is no NUL"}},
        {"extra": {"a": [None, 0.5, "null"]}},
        {"question": "naïve 😀"},
        {"model": "a-model-of-next-year"},
    ],
)
def test_request_at_the_edge_of_a_rule_is_accepted(fields: dict[str, Any]):
    of(**fields).check()


def test_stream_is_never_sent():
    assert {"stream", "stream_mode"}.isdisjoint(sent(of(stream=False, stream_mode="full")))


def test_tag_and_key_are_never_sent():
    assert sent(of(tag="t", idempotency_key="k", timeout=5)) == sent(of())


@pytest.mark.parametrize(
    ("item", "field", "said_so"),
    [
        ({"question": "q", "reasoning_efort": "low"}, "reasoning_efort", "did you mean `reasoning_effort`?"),
        ({"prompt": "q"}, "prompt", "did you mean `question`?"),
        ({"question": "q", "zzz": 1}, "zzz", "goes into `extra`"),
        ({"question": "q", "what is this?": 1}, "", "no field of that name"),
        ({"question": 5}, "question", "must be text, not int"),
        ({"question": b"q"}, "question", "must be text, not bytes"),
        ({"question": "q", "max_tokens": 0}, "max_tokens", "must be a whole number from 1 to 128000"),
        ({"question": "q", "stop": [object()]}, "stop[0]", "must be text"),
        ({"question": "q", "max_tokens": "many"}, "max_tokens", "must be a whole number from 1 to 128000, not str"),
        ({"question": "q", "search_mode": "news"}, "search_mode", "must be one of web, academic, sec"),
        ({"question": "q", "search_domain_filter": ["a", 5]}, "search_domain_filter[1]", "must be text, not int"),
        ({"question": "q", "search_after_date_filter": 5}, "search_after_date_filter", "must be a date as MM/DD/YYYY"),
        ({"messages": [{"role": "usr", "content": "q"}]}, "messages[0].role", "must be one of system, user"),
        ({"messages": [{"role": "user", "text": "q"}]}, "messages[0]", "has no field `text`"),
        ({"question": "q", "extra": 5}, "extra", "must be a mapping"),
        ({"question": "q", "response_format": 5}, "response_format", "must be a Python type"),
        (
            {"question": "q", "web_search_options": {"user_location": 5}},
            "web_search_options.user_location",
            "must be a mapping, not int",
        ),
        (5, "", "must be a question, a mapping or a ResearchRequest, not int"),
        (None, "", "not NoneType"),
        (b"q", "", "not bytes"),
    ],
)
def test_item_other_than_a_request_is_refused_by_path(item: Any, field: str, said_so: str):
    with pytest.raises(InvalidRequest) as refused:
        ResearchRequest.of(item)
    assert refused.value.field == field
    assert said_so in str(refused.value)


@pytest.mark.parametrize(("tag", "name"), [(1.5, "float"), (True, "bool"), (["a"], "list"), (b"a", "bytes")])
def test_tag_of_another_type_is_refused_with_its_rule(tag: Any, name: str):
    for fields in ({"question": "Why?", "tag": tag}, {"question": "Why?", "tag": tag, "model": "sonar"}):
        with pytest.raises(InvalidRequest, match=f"^tag: must be text or a whole number, not {name}"):
            ResearchRequest.of(fields)


def test_refusal_bears_the_tag():
    with pytest.raises(InvalidRequest) as refused:
        ResearchRequest.of({"question": 5, "tag": "row 7"})
    assert refused.value.tag == "row 7"
    with pytest.raises(InvalidRequest) as refused:
        ResearchRequest("", tag=7).check()
    assert refused.value.tag == 7


SECRET = "when will my patent be filed"
SECRETS = st.sampled_from([SECRET, SECRET + "\0", SECRET + "\ud83d", f"{SECRET}?" * 3])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | SECRETS,
    lambda items: (
        st.lists(items, max_size=3)
        | st.dictionaries(
            SECRETS | st.sampled_from(["role", "content", "type", "text", "user_location"]), items, max_size=3
        )
    ),
    max_leaves=6,
)
KNOWN = st.sampled_from([name for name in FIELDS if name != "tag"])  # a tag is there to be shown
NAMES = KNOWN | SECRETS


@given(st.dictionaries(NAMES, JSON, max_size=5) | JSON)
def test_error_never_repeats_what_was_written(item: Any):
    try:
        ResearchRequest.of(item).check()
    except InvalidRequest as error:
        told = f"{error!r} {error} {error.field} {error.__context__} {error.__cause__}"
        assert SECRET not in told  # that nothing is raised is as good


HIDDEN: list[Any] = [
    SECRET,
    [SECRET],
    {SECRET: SECRET},
    {"type": SECRET},
    {"search_type": SECRET, "user_location": {"country": SECRET}},
    {"user_location": {"country": SECRET}},
    {"user_location": {SECRET: SECRET}},
    [{"role": SECRET, "content": SECRET}],
    [{"role": "user", "content": [{"type": SECRET}]}],
    [{"role": "user", "content": SECRET, SECRET: SECRET}],
    [{"role": "assistant", "content": SECRET}],
    f"{SECRET}\0",
    f"{SECRET}\ud83d",
    [f"{SECRET}\ud83d"],
]


@pytest.mark.parametrize("value", HIDDEN, ids=range(len(HIDDEN)))
@pytest.mark.parametrize("name", [name for name in FIELDS if name != "tag"])
def test_refusal_of_a_field_never_repeats_its_value(name: str, value: Any):
    fields = {"question": "" if name == "messages" else "q?", name: value}
    for build in (lambda: ResearchRequest(**fields), lambda: ResearchRequest.of(fields)):
        try:
            build().check()
        except InvalidRequest as error:
            assert SECRET not in f"{error!r} {error} {error.field} {error.__context__}"  # noqa: PT017  # or none is raised


@given(st.dictionaries(KNOWN, JSON, max_size=5))
def test_handmade_request_is_refused_with_no_other_error(fields: Mapping[str, Any]):
    try:
        body = msgspec.json.encode(ResearchRequest(**fields).wire())
    except InvalidRequest as error:
        assert SECRET not in str(error)  # noqa: PT017  # that nothing is raised is as good
    else:
        assert b"messages" in body


@given(st.text(min_size=1))
def test_accepted_question_round_trips(question: str):
    try:
        request = sent(ResearchRequest(question))
    except InvalidRequest:
        assert question.isspace() or "\0" in question  # that nothing is raised is as good
    else:
        assert request["messages"][0]["content"] == question


# Made at version 0.1, before a request had a method for it. A journal finds a question again by these digests.
DIGESTS: list[tuple[ResearchRequest, str]] = [
    (of(question="Why did the Vasa sink?"), "24c24c763b2d66e1ceea89a2e2309321788d894155c05ddf5fa766651909d8fd"),
    (
        of(question="Why did the Vasa sink?", tag="a", timeout=5, idempotency_key="k"),
        "24c24c763b2d66e1ceea89a2e2309321788d894155c05ddf5fa766651909d8fd",
    ),
    (
        ResearchRequest.of({"question": "naïve 😀", "temperature": 0}),
        "d4662740cbd8adee5c5cf9610c9942b8fc64951ffe0247d7934c87eebe7232e0",
    ),
    (of(question="q", temperature=0, top_p=1), "a7b746171e470efc78b2f43f149e7d9bbad262bd124b3c9254a4f238493cd396"),
    (
        of(
            question="q",
            search_domain_filter=("a.org", "b.org"),
            search_after_date_filter=date(2026, 3, 1),
            stop="x",
        ),
        "3b12aa32d26fbfb4b38c2292474488d81a539e93947e69afdd565b371cd65451",
    ),
    (
        ResearchRequest.of({
            "messages": [
                {"role": "system", "content": "s"},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "t"},
                        {"type": "image_url", "image_url": {"url": "https://a.org"}},
                    ],
                },
            ],
            "web_search_options": {
                "search_type": "auto",
                "user_location": {"latitude": -90, "country": "SG"},
            },
        }),
        "2fe27f138501ffd0880898d1cfb4912fea0f61674cbd24c62f760a1f08aefa9b",
    ),
    (
        ResearchRequest(messages=[Message("user", "q")], response_format=Finding, extra={"z": 1, "a": [None]}),
        "269263f592a3ce0af9660d87f8b70134071cbfd3f5236defc9d78c1c4112c018",
    ),
    (
        ResearchRequest.of({
            "question": "q",
            "response_format": {"type": "text"},
            "stream": False,
            "return_images": False,
        }),
        "6d38ce531b7f21d61032db08d137cae6ddd834ac004cfe81ac1db8512d69284b",
    ),
]


@pytest.mark.parametrize(("request_", "digest"), DIGESTS, ids=range(len(DIGESTS)))
def test_canonical_bytes_are_those_in_old_journals(request_: ResearchRequest, digest: str):
    assert hashlib.sha256(request_.canonical()).hexdigest() == digest


def test_set_of_texts_is_canonical_in_any_order():
    names = {f"{n}.org" for n in range(9)}
    ordered = of(search_domain_filter=sorted(names))
    assert of(search_domain_filter=names).canonical() == ordered.canonical()


def test_positional_argument_is_the_question():
    assert ResearchRequest("q") == of(question="q")
    with pytest.raises(TypeError):
        ResearchRequest("q", "model")  # type: ignore[misc]  # the case
    assert repr(of(max_tokens=5)) == "ResearchRequest(question='q?', max_tokens=5)"


def test_error_chain_holds_only_library_exceptions():
    with pytest.raises(InvalidRequest) as refused:
        of(question=f"{SECRET}\ud83d").check()
    assert refused.value.__context__ is None


def test_request_survives_a_round_trip_through_json():
    request = ResearchRequest.of({"messages": [{"role": "user", "content": "q"}], "max_tokens": 5, "tag": "t"})
    assert ResearchRequest.of(json.loads(msgspec.json.encode(request))) == request


# --- as keywords


def test_keywords_of_a_call_are_a_requests_fields():
    beside = {
        "question",
        "messages",
        "tag",
        "idempotency_key",
        "timeout",
    }  # parameters of their own, or of no use there
    names = [name for name in FIELDS if name not in beside]
    assert ResearchFields.__optional_keys__ == set(names)
    assert ResearchFields.__required_keys__ == set()
    # As checked at run time, and as written: some aliases stand for a narrower type while types are checked.
    fields, request = (get_type_hints(each, include_extras=True) for each in (ResearchFields, ResearchRequest))
    assert fields == {name: request[name] for name in names}
    written = {name: text for cls in reversed(ResearchRequest.__mro__) for name, text in _annotations(cls).items()}
    assert {name: note.__forward_arg__ for name, note in _annotations(ResearchFields).items()} == {
        name: written[name] for name in names
    }


def _annotations(cls: type) -> dict[str, Any]:
    return getattr(cls, "__annotations__", {}) if "__annotations__" in vars(cls) else {}
