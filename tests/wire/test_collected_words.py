"""No word of a server about a failure is dropped, in whatever form, place and encoding it comes."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx import JobFailed, JobStatus, ProtocolError
from aiopplx._job import Job, make_job, outcome_error
from aiopplx._text.words import words_of
from aiopplx._wire.api import API
from aiopplx._wire.call import Reply, error_of
from aiopplx.agent import AGENT
from aiopplx.apis._registry import read_job
from aiopplx.sonar import SONAR

APIS = [pytest.param(SONAR, id="sonar"), pytest.param(AGENT, id="agent")]
ECHO = "THE QUESTION"

# As services, gateways and frameworks say it; with the words that must come out.
ERRORS: dict[str, tuple[Any, list[str]]] = {
    "google": (
        {
            "code": 400,
            "message": "not valid",
            "status": "INVALID_ARGUMENT",
            "details": [{"@type": "t/ErrorInfo", "reason": "KEY_INVALID", "metadata": {"service": "x"}}],
        },
        ["not valid", "KEY_INVALID"],
    ),
    "google fields": (
        {"message": "bad", "details": [{"fieldViolations": [{"field": "model", "description": "is unknown"}]}]},
        ["bad", "is unknown (model)"],
    ),
    "openrouter": (
        {
            "message": "Provider returned error",
            "code": 502,
            "metadata": {"raw": '{"error":{"message":"no GPU","type":"capacity"}}', "provider_name": "x"},
        },
        ["Provider returned error", "no GPU (capacity)"],
    ),
    "moderation": (
        {"message": "flagged", "metadata": {"reasons": ["violence"], "flagged_input": ECHO}},
        ["flagged", "violence"],
    ),
    "azure": (
        {
            "code": "content_filter",
            "message": "filtered",
            "innererror": {"code": "ResponsibleAI", "message": "by a policy", "content_filter_result": {"hate": {}}},
        },
        ["filtered", "content_filter", "by a policy (ResponsibleAI)"],
    ),
    "aws": ({"Code": "Throttling", "Message": "slow down", "RequestId": "r"}, ["slow down (Throttling)"]),
    "asp.net": (
        {"Message": "failed", "ExceptionMessage": "no route", "ExceptionType": "E", "StackTrace": f"at {ECHO}"},
        ["failed", "no route"],
    ),
    "apigee": (
        {"fault": {"faultstring": "no quota", "detail": {"errorcode": "policies.Quota"}}},
        ["no quota", "policies.Quota"],
    ),
    "oauth": ({"error": "invalid_token", "error_description": "it has expired"}, ["it has expired (invalid_token)"]),
    "problem": (
        {"type": "https://x.example/p", "title": "No pages", "detail": "3 of 5", "errors": [{"detail": "page 4"}]},
        ["No pages: 3 of 5", "page 4"],
    ),
    "json:api": (
        {"errors": [{"title": "Bad", "detail": "first"}, {"title": "second", "code": "c2"}]},
        ["Bad: first", "second (c2)"],
    ),
    "graphql": (
        {"errors": [{"message": "denied", "extensions": {"code": "E1", "reason": "no plan"}}]},
        ["denied", "no plan"],
    ),
    "rails": ({"errors": {"model": ["is unknown", "is old"], "input": [ECHO]}}, ["model: is unknown", "model: is old"]),
    "anthropic": ({"type": "error", "error": {"type": "overloaded", "message": "too busy"}}, ["too busy (overloaded)"]),
    "aws lambda": ({"errorMessage": "timed out", "errorType": "Sandbox.Timedout"}, ["timed out", "Sandbox.Timedout"]),
    "spring": ({"status": 500, "error": "Server Error", "message": "broke", "path": "/x"}, ["broke", "Server Error"]),
    "pydantic": (
        {"detail": [{"type": "missing", "loc": ["body", "model"], "msg": "Field required", "input": ECHO, "url": "u"}]},
        ["body.model: Field required"],
    ),
    "json in a text": (
        {"message": '{"error": {"message": "inner words", "hint": "try later"}}'},
        ["inner words", "later"],
    ),
    "twice": ({"error": '{"error": "{\\"message\\": \\"deepest\\"}"}'}, ["deepest"]),
    "xml in a text": (
        {"message": "upstream", "raw": "<Error><Code>Denied</Code><Message>by policy</Message></Error>"},
        ["upstream", "by policy (Denied)"],
    ),
    "page in a text": ({"message": "<html><title>502 Bad Gateway</title><p>x</p></html>"}, ["502 Bad Gateway"]),
    "both names": ({"message": "m", "code": "c", "type": "t"}, ["m (c, t)"]),
    "short names": ({"message": "overloaded", "code": "e", "reason": "no"}, ["overloaded (e)", "; no"]),
    "a word for nothing": ({"message": "none", "error": "null", "errors": ["x"]}, ["none; x"]),
    "parts of words": ({"message": "not known", "hint": "no", "warning": "know"}, ["not known; no; know"]),
    "causes": ({"message": "a", "cause": {"message": "b", "cause": {"message": "c"}}}, ["a", "b", "c"]),
    "many": ({"message": "a", "reason": "b", "hint": "d", "warnings": ["e", {"text": "f"}]}, ["a", "b", "d", "e", "f"]),
    "a list": (["first", {"msg": "second"}, ["third"]], ["first", "second", "third"]),
    "secrets": (
        {"message": "refused", "headers": {"message": ECHO}, "authorization": ECHO, "api_key": {"reason": ECHO}},
        ["refused"],
    ),
    "conversation": ({"message": "too long", "messages": [{"role": "user", "text": ECHO}]}, ["too long"]),
}


def reply(body: Any, status: int = 200, **headers: str) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def job_of(api: API, **fields: Any) -> Job:
    snapshot = read_job(api, reply({"id": "a-1", **fields}), "a-1")
    return make_job(snapshot.id, snapshot.status, outcome_error(snapshot), snapshot)


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("place", ["error", "error_message", "last_error", "failure", "errorDetails", "exception"])
@pytest.mark.parametrize("api", APIS)
def test_failed_job_says_all_of_its_error(api: API, place: str, name: str) -> None:
    error, words = ERRORS[name]
    for status in ("failed", "EVICTED"):
        job = job_of(api, status=status, **{place: error})
        assert job.status is JobStatus.FAILED
        assert isinstance(job.error, JobFailed)
        for said in (job.server_message, job.error.message):
            assert [word for word in words if word not in said] == []
            assert ECHO not in said


@pytest.mark.parametrize("name", ERRORS)
def test_refusal_says_all_of_its_error(name: str) -> None:
    error, words = ERRORS[name]
    for body in (error, {"error": error}, {"error": error, "request_id": "r"}, {"success": False, "errors": error}):
        told = error_of(reply(body, 400))
        # The name of an error is told apart from its words.
        said = f"{told.message} {told.type}"
        assert [word for word in words if word.split(" (")[0] not in said] == []
        assert ECHO not in said


def test_refusal_repeats_no_text_that_is_no_error() -> None:
    for body in ({"asked": ECHO}, {"asked": ECHO, "status": 400}, {"data": {"asked": ECHO}}):
        assert error_of(reply(body, 400)).message == "no reason given (HTTP 400)"
    assert error_of(reply({"model": ["is unknown"]}, 400)).message == "model: is unknown"


def test_everything_a_job_says_is_told_once() -> None:
    said = {
        "error_message": "out of pages",
        "error": {"message": "Out of pages", "details": [{"reason": "page 4"}]},
        "failureReason": "quota",
        "status_message": "stopped",
        "incomplete_details": {"reason": "cancelled"},
        "warnings": ["one search failed"],
        "response": {"error": {"message": "inner"}},
    }
    for api in (SONAR, AGENT):
        assert job_of(api, status="FAILED", **said).server_message == (
            "out of pages; page 4; quota; stopped; cancelled; one search failed; inner"
        )


@pytest.mark.parametrize("api", APIS)
def test_words_beside_the_documented_ones_are_kept(api: API) -> None:
    declined: dict[str, Any] = {
        "response": {"choices": [{"message": {"refusal": "I cannot."}}]},
        "output": [{"type": "message", "content": [{"type": "refusal", "refusal": "I cannot."}]}],
    }
    job = job_of(api, status="completed", status_message="by policy 7", **declined)
    assert "the model declined: I cannot.; by policy 7" in str(job.error)
    cut = {"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}
    assert "finish_reason length; by 5" in str(job_of(SONAR, status="COMPLETED", detail="by 5", response=cut).error)


@pytest.mark.parametrize("field", ["metadata", "instructions", "output", "title", "finish_reason", "user", "messages"])
@pytest.mark.parametrize("api", APIS)
def test_fields_of_the_job_say_nothing_of_its_end(api: API, field: str) -> None:
    for value in (ECHO, {"message": ECHO}, [{"reason": ECHO}]):
        job = job_of(api, status="FAILED", error_message="words", **{field: value})
        assert job.server_message == "words"


@pytest.mark.parametrize("nothing", [None, "", "None", " null ", {}, [], False, 0, [{}], {"message": ""}, "no error"])
@pytest.mark.parametrize("name", ["error", "errors", "last_error", "error_code", "failure_reason"])
@pytest.mark.parametrize("api", APIS)
def test_empty_error_is_no_failure(api: API, name: str, nothing: Any) -> None:
    assert job_of(api, status="reticulating", **{name: nothing}).status is JobStatus.IN_PROGRESS


# --- other forms of a body --------------------------------------------------------------------------------------------

SOAP = (
    '<?xml version="1.0" encoding="{0}"?><soap:Envelope xmlns:soap="s"><soap:Body><soap:Fault>'
    "<faultcode>soap:Server</faultcode><faultstring>{1}</faultstring></soap:Fault></soap:Body></soap:Envelope>"
)
SENTENCES = {
    "iso-8859-1": "Zugriff verweigert für Schlüssel",
    "windows-1251": "Недостаточно средств",
    "shift_jis": "残高が不足しています",
    "gb18030": "余额不足",
    "euc-kr": "잔액이 부족합니다",
    "utf-16": "Crédit épuisé",
    "utf-8-sig": "Crédit épuisé",
}


@pytest.mark.parametrize("form", ["json", "text", "xml", "declared", "form"])
@pytest.mark.parametrize("encoding", SENTENCES)
def test_words_in_any_encoding_are_read(encoding: str, form: str) -> None:
    words = SENTENCES[encoding]
    texts = {
        "json": json.dumps({"error": {"message": words}}, ensure_ascii=False),
        "text": words,
        "xml": f"<error><message>{words}</message></error>",
        "declared": SOAP.format(encoding.replace("-sig", ""), words),
        "form": f"error=no&error_description={words.replace(' ', '+')}",
    }
    content = "" if form == "declared" else f"text/plain; charset={encoding.replace('-sig', '')}"
    assert words in error_of(reply(texts[form].encode(encoding), 400, content_type=content)).message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>", "Reduce your rate"),
        (b"<error>plain words</error>", "plain words"),
        (b"<h1>Service Unavailable</h1>", "Service Unavailable"),
        (b'event: error\ndata: {"error": {"message": "streamed words"}}\n\n', "streamed words"),
        (b'{"error": {"message": "out of cred', "out of cred"),
        (b'{"error": {"message": "out of credit", "code": "x"', "out of credit"),
        (b'{"error": "quoted \\"words\\"", "x": [1,', 'quoted "words"'),
        (b'{"error":{"message":"bad"},"messages":[{"role":"user","content":"my sec', "bad"),
        (b'{"request_id":"r","error":{"message":"bad"},"input":"my sec', "bad"),
        (b"error=access_denied&error_description=no+such+plan", "no such plan"),
        ("Zugriff für alle verweigert".encode("latin-1"), "Zugriff für alle verweigert"),
        ("cut in a character: \u00e9".encode()[:-1], "cut in a character:"),
    ],
)
def test_body_that_is_not_json_has_its_words_read(body: bytes, words: str) -> None:
    assert words in error_of(reply(body, 503)).message
    if not body.startswith(b"event"):
        with pytest.raises(ProtocolError) as caught:
            read_job(SONAR, reply(body, 200))
        assert words in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": "a-1", "model": "sonar", "status": "CREA',
        b'{"id": "a-1", "output": [{"type": "message", "content": [{"type": "output_text", "text": "The ans',
        b'{"id": "a-1", "response": {"choices": [{"message": {"content": "The ans',
        b"The answer is a long text. " * 20,
        b"<html><body><p>" + b"The answer is a long text. " * 20,
    ],
)
def test_success_that_is_no_error_has_no_words(body: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"^the server answered with [^:]*$") as caught:
        read_job(SONAR, reply(body), "a-1")
    assert "ans" not in caught.value.message.replace("answered", "")


REPEATED = [
    '{"detail":[{"type":"missing","loc":["body","x"],"msg":"no good","input":[{"type":"input_text","text":"my secret',
    '{"error":{"message":"no good"},"messages":[{"role":"user","text":"my secret',
    '{"error":{"message":"no good"},"prompt_parts":[{"message":"my secret',
    '{"detail":"no good","request":{"description":"my secret',
    '{"detail":"no good","history":[{"role":"user","text":"my secret',
]


@pytest.mark.parametrize("body", REPEATED)
def test_cut_refusal_repeats_no_question(body: str) -> None:
    for raw in (body.encode(), json.dumps({"error": {"message": body}}).encode()):
        said = error_of(reply(raw, 422)).message
        assert "no good" in said
        assert "secret" not in said
    inner = body[body.index("no good") + 8 :].lstrip("},")
    assert "secret" not in error_of(reply({"error": {"message": "{" + inner}}, 422)).message


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"www_authenticate": 'Bearer error="invalid_token", error_description="it has expired"'}, "it has expired"),
        ({"x_error_message": "no plan"}, "no plan"),
        ({"grpc_message": "no%20plan"}, "no plan"),
        ({"x_amzn_errortype": "Throttling"}, "Throttling"),
    ],
)
def test_words_of_headers_stand_in_for_an_empty_body(headers: dict[str, str], words: str) -> None:
    assert words in error_of(reply(b"", 400, **headers)).message
    assert words not in error_of(reply({"message": "a body"}, 400, **headers)).message


# --- any value --------------------------------------------------------------------------------------------------------

WORDY = ["message", "msg", "detail", "reason", "errorMessage", "description", "hint", "explanation", "faultstring"]
INNER = ["error", "errors", "innererror", "cause", "details", "metadata", "fault", "last_error", "extensions"]
ECHOES = ["input", "prompt", "user_query", "request", "headers", "content", "api_key", "original_body", "promptText"]


def test_words_at_random_places_are_all_found() -> None:
    random = Random(7)
    for _ in range(500):
        count = 0

        def grown(depth: int) -> dict[str, Any]:
            nonlocal count
            made: dict[str, Any] = {}
            for name in random.sample(WORDY, random.randint(1, 2)):
                made[name] = f"said {count:03}"
                count += 1
            for name in random.sample(ECHOES, random.randint(0, 2)):
                made[name] = random.choice([ECHO, {"message": ECHO}, [{"reason": ECHO}]])
            for name in random.sample(INNER, random.randint(0, 2)) if depth < 3 else ():
                inner: Any = grown(depth + 1)
                made[name] = random.choice([inner, [inner], json.dumps(inner)])
            return dict(random.sample(list(made.items()), len(made)))

        said = words_of(grown(0))
        assert [n for n in range(count) if f"said {n:03}" not in said] == []
        assert ECHO not in said


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*WORDY, *INNER, "code", "loc"]), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(value=JSON)
def test_any_value_has_words_or_none(value: Any) -> None:
    said = words_of(value)
    assert said == said.strip() or not said.isspace()
    assert words_of({"error": value}) == words_of({"error": json.loads(json.dumps(value))})


@pytest.mark.parametrize(
    "value",
    [
        [{"message": f"{n} " + "x" * 50} for n in range(100_000)],
        {"details": [[[["x" * 1_000_000]]]] * 50},
        {"message": "[" * 50_000},
        {"message": '{"message":' * 5_000},
        {"message": "<a>" * 100_000},
        {"message": "a" * 1_000_000, "code": "a" * 1_000_000},
        {"message": "a " * 1_000_000, "detail": "a " * 500_000 + "b"},
        {f"a{n}_msg": " " for n in range(200_000)},
        {f"a{n}_error": " " for n in range(200_000)},
        {"message": "x", **{f"a{n}_error": f"label {n}" for n in range(200_000)}},
    ],
    ids=["long", "big", "brackets", "braces", "tags", "name", "same", "messages", "errors", "labels"],
)
def test_huge_error_is_read_within_bounds(value: Any) -> None:
    assert len(words_of(value)) < 25_000
