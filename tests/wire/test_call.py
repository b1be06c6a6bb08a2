"""Each error answer that the services were seen to send, or might send, becomes the right exception."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._errors import (
    AiopplxError,
    APIError,
    AuthenticationError,
    EndpointRetired,
    NotFound,
    OutOfCredit,
    ProtocolError,
    RateLimited,
)
from aiopplx._text.safe import BODY_KEPT, MESSAGE_KEPT, excerpt, plain
from aiopplx._wire.call import Reply, error_of, error_said

RETIRED = (
    "Sonar is now the Agent API. Use /v1/responses instead of /v1/sonar. Migrate here:"
    " https://docs.perplexity.ai/docs/agent-api/migrate-from-sonar/overview"
)
QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information, visit"
    " https://www.perplexity.ai/settings/api."
)
TURNS = "After the (optional) system message(s), user or tool message(s) should alternate with assistant message(s)."
HTML_401 = (
    b"<html>\r\n<head><title>401 Authorization Required</title></head>\r\n<body>\r\n<center><h1>401 Authorization"
    b" Required</h1></center>\r\n<hr><center>openresty/1.25.3.1</center>\r\n</body>\r\n</html>\r\n"
)


def told(message: str, type: str, code: int | str) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "code": code}}


def reply(status: int, body: object = b"", **headers: str) -> Reply:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def read(status: int, body: object = b"", **headers: str) -> APIError | ProtocolError:
    return error_of(reply(status, body, **headers))


# status, body, class, error.type, the server's words, the advice
SEEN: list[tuple[int, object, type[AiopplxError], str, str, str]] = [
    (400, told(TURNS, "invalid_message", 400), APIError, "invalid_message", TURNS, ""),
    (400, told("Invalid model 'x'.", "invalid_model", 400), APIError, "invalid_model", "Invalid model 'x'.", ""),
    (400, told("invalid response id", "invalid_request", 400), APIError, "invalid_request", "invalid response id", ""),
    (401, HTML_401, AuthenticationError, "", "401 Authorization Required", "Check PERPLEXITY_API_KEY"),
    (
        401,
        told("Invalid API key provided. Ensure your API key is correct and active.", "invalid_api_key", 401),
        AuthenticationError,
        "invalid_api_key",
        "Invalid API key provided. Ensure your API key is correct and active",
        "Check PERPLEXITY_API_KEY",
    ),
    (
        401,
        told(QUOTA, "insufficient_quota", 401),
        OutOfCredit,
        "insufficient_quota",
        QUOTA.rstrip("."),
        "add credit at https://console.perplexity.ai",
    ),
    (402, b"", OutOfCredit, "", "no reason given (HTTP 402)", "add credit"),
    (
        403,
        told(RETIRED, "chat_completions_not_available", 403),
        EndpointRetired,
        "chat_completions_not_available",
        RETIRED,
        "its successor is the Agent API (POST /v1/responses",
    ),
    (
        403,
        told("Please migrate.", "agent_api_migration_required", 403),
        EndpointRetired,
        "agent_api_migration_required",
        "Please migrate",
        "Nothing was created or billed",
    ),
    (
        403,
        told("organization API keys are not accepted on this endpoint", "forbidden", 403),
        AuthenticationError,
        "forbidden",
        "organization API keys are not accepted on this endpoint",
        "Check PERPLEXITY_API_KEY",
    ),
    (404, told("resource not found", "not_found", 404), NotFound, "not_found", "resource not found", ""),
    (404, {"detail": "Not Found"}, NotFound, "", "Not Found", ""),
    (
        422,
        {"detail": [{"loc": ["body", "request"], "msg": "Field required", "type": "missing"}]},
        APIError,
        "",
        "body.request: Field required",
        "",
    ),
    (
        429,
        told("Request rate limit exceeded, please try again later.", "request_rate_limit_exceeded", 429),
        RateLimited,
        "request_rate_limit_exceeded",
        "Request rate limit exceeded, please try again later.",
        "",
    ),
    (500, told("oops", "internal_error", 500), APIError, "internal_error", "oops", ""),
    (502, b"<html><head><title>502 Bad Gateway</title></head></html>", APIError, "", "502 Bad Gateway", ""),
    (504, told("late", "gateway_timeout", 504), APIError, "gateway_timeout", "late", ""),
    (524, b"<!DOCTYPE html><TITLE class=x>A timeout\n occurred</TITLE>", APIError, "", "A timeout occurred", ""),
    (500, {"error": "text"}, APIError, "", "text", ""),
    (500, {"type": "server_error", "message": "bare"}, APIError, "server_error", "bare", ""),
    (500, {"error": {"code": "rate", "message": "a name as code"}}, APIError, "rate", "a name as code", ""),
    (500, {"error": None, "detail": "beside an empty error"}, APIError, "", "beside an empty error", ""),
    (503, b"", APIError, "", "no reason given (HTTP 503)", ""),
    # As gateways and frameworks of other people say it.
    (400, b"no such upstream\n", APIError, "", "no such upstream", ""),
    (400, b'"no such upstream"', APIError, "", "no such upstream", ""),
    (400, b'\xef\xbb\xbf{"error": "no such upstream"}', APIError, "", "no such upstream", ""),
    (403, b"RBAC: access denied", AuthenticationError, "", "RBAC: access denied", "Check PERPLEXITY_API_KEY"),
    (402, {"errors": ["no money left"]}, OutOfCredit, "", "no money left", "add credit"),
    (
        400,
        {"errors": [{"code": "e1", "detail": "first"}, {"title": "second"}]},
        APIError,
        "e1",
        "first (e1); second",
        "",
    ),
    (400, {"title": "Bad Request", "detail": "own words"}, APIError, "", "Bad Request: own words", ""),
    (400, {"status": 400, "error": "Bad Request", "message": "words"}, APIError, "", "words (Bad Request)", ""),
    (400, {"error": "invalid_x", "error_description": "words"}, APIError, "", "words (invalid_x)", ""),
    (400, {"error": {"code": "c", "details": [{"reason": "deep words"}]}}, APIError, "c", "deep words", ""),
    (400, {"error": {"code": 400}, "message": "words beside it"}, APIError, "", "words beside it", ""),
    (400, {"msg": "words"}, APIError, "", "words", ""),
    (500, b"{cut short", APIError, "", "no reason given (HTTP 500)", ""),
    (500, b"\x00\x01\x02", APIError, "", "no reason given (HTTP 500)", ""),
]


@pytest.mark.parametrize(("status", "body", "cls", "name", "words", "advice"), SEEN)
def test_captured_body_becomes_its_error_with_advice(
    status: int, body: object, cls: type[AiopplxError], name: str, words: str, advice: str
):
    error = read(status, body)
    assert type(error) is cls
    assert (error.status, error.type) == (status, name)
    assert error.message.startswith(words)
    if advice:
        assert advice in error.message[len(words) :]
    else:
        assert error.message == words


@pytest.mark.parametrize("name", ["chat_completions_not_available", "agent_api_migration_required"])
@pytest.mark.parametrize("body", [{"type": "forbidden", "code": ""}, {"type": None, "code": ""}, {"code": ""}])
def test_retirement_is_known_by_its_name_in_either_place(name: str, body: dict[str, Any]):
    error = read(403, {"error": {**body, "message": "m", "code": name}})
    assert type(error) is EndpointRetired
    assert error.type == name


@pytest.mark.parametrize("status", [401, 403, 429])
@pytest.mark.parametrize("message", ["Insufficient credits to run this", "insufficient balance", QUOTA])
def test_missing_credit_is_known_by_words_under_other_names(status: int, message: str):
    assert type(read(status, {"error": {"message": message, "type": "forbidden"}})) is OutOfCredit


@pytest.mark.parametrize("status", [400, 422, 500])
def test_words_about_credit_elsewhere_may_quote_a_question(status: int):
    assert type(read(status, {"error": {"message": "cannot parse 'insufficient credits'"}})) is APIError


def test_validation_names_the_fields_and_omits_the_input():
    rows = [
        {"loc": ["body", "request", "messages", 0, "role"], "msg": "Input should be 'user'", "input": "THE QUESTION"},
        {"loc": [], "msg": "whole body"},
        {"msg": "no place", "ctx": {"given": "THE QUESTION"}},
        "not a row",
    ]
    message = read(422, {"detail": rows}).message
    assert message == "body.request.messages.0.role: Input should be 'user'; whole body; no place; not a row"
    assert "THE QUESTION" not in message


FINDINGS: list[dict[str, Any]] = [
    {"problem": "high churn", "solution": "better onboarding"},
    {"cause": "a cold winter", "causes": "many"},
    {"issues": "two", "root_cause": "one"},
]


@pytest.mark.parametrize("body", FINDINGS, ids=str)
def test_finding_of_a_run_is_no_error(body: dict[str, Any]):
    assert error_said(reply(200, body)) == ""
    assert "expired" in error_said(reply(200, {**body, "error": "expired"}))


def test_long_validation_is_cut():
    rows = [{"loc": ["body", "f" * 90], "msg": "Field required"}] * 50
    assert len(read(422, {"detail": rows}).message) <= MESSAGE_KEPT


@pytest.mark.parametrize("headers", [{"x_request_id": "r-1", "cf_ray": "ray-1"}, {"x_request_id": "r-1"}])
def test_request_id_is_the_servers_own(headers: dict[str, str]):
    assert read(500, **headers).request_id == "r-1"


def test_request_id_falls_back_to_that_of_the_cdn():
    error = read(502, cf_ray="9e2-AMS")
    assert error.request_id == "9e2-AMS"
    assert "request id 9e2-AMS" in str(error)
    assert read(502).request_id == ""


def test_request_id_is_made_fit_for_a_terminal():
    assert read(500, x_request_id="a\u202eb\x1b[31m" + "c" * 1_000).request_id == "ab[31m" + "c" * 113 + "…"


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("https://evil.example/async?k=1", "evil.example"),
        ("http://127.0.0.1:8080/x", "127.0.0.1:8080"),
        ("https://user:secret@evil.example/x", "evil.example"),
        ("https://[::1]:80/", "[::1]:80"),
        ("/elsewhere", "another address"),
        ("", "another address"),
        ("javascript:alert(1)", "another address"),
        ("https://\x1b[31m/", "another address"),
    ],
)
def test_redirect_names_its_host_and_nothing_more(location: str, host: str):
    error = read(307, location=location)
    assert type(error) is ProtocolError
    assert error.message.startswith(f"the server redirects to {host};")
    assert "secret" not in error.message
    assert error.remedy == "Check base_url"


@pytest.mark.parametrize("body", [b"<html>a captive portal</html>", b"[]", b"x" * 10_000, b"\xff\xfe"])
def test_success_without_a_job_keeps_its_first_bytes(body: bytes):
    error = read(200, body)
    assert type(error) is ProtocolError
    assert error.body == excerpt(body)
    assert len(error.body) <= BODY_KEPT


@pytest.mark.parametrize("status", [100, 199, 204])
def test_answer_without_a_job_below_300_is_an_error(status: int):
    assert type(read(status)) is ProtocolError


HOSTILE = [
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"error":' * 20_000,
    b'{"error":{"message":' + b"9" * 5_000 + b"}}",
    b'{"error":{"message":"\\ud800"}}',
    b"\xef\xbb\xbf{}",
    b'{"error":[1]}',
    b'{"error":{"message":{"a":1},"type":7}}',
    b'{"detail":[[[]]]}',
    b'{"detail":[{"loc":{"a":1},"msg":null}]}',
    b"<title>" + b"x" * 100_000,
    b"null",
    b"NaN",
]


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: ascii(body[:24]))
def test_hostile_body_still_makes_a_readable_error(body: bytes):
    for status in (400, 401, 429, 500):
        error = read(status, body)
        assert error.status == status
        assert 0 < len(error.message) < 2 * MESSAGE_KEPT


def test_terminal_escapes_and_reversed_text_leave_the_message():
    error = read(500, told("\x1b[2J\x9b31mred\r\nnext\u202egnp.exe\x00\u200b\u2028end", "a\x07b", 500))
    assert error.message == "[2J31mred nextgnp.exe end"
    assert error.type == "ab"


def test_html_error_gives_its_title_and_nothing_else():
    body = b"<head><title>\x1b[31m&lt;b&gt; 5&amp;6</title></head><body>ray id and my question</body>"
    assert read(520, body).message == "[31m<b> 5&6"


@given(text=st.text(max_size=3_000), limit=st.integers(1, 600))
def test_plain_text_is_one_printable_line_within_limit(text: str, limit: int):
    line = plain(text, limit)
    assert len(line) <= limit
    assert line.isprintable()
    assert line == line.strip()


@given(text=st.text(alphabet=st.characters(categories=["L", "N", "P", "S"]), max_size=MESSAGE_KEPT))
def test_plain_text_leaves_what_can_be_read_alone(text: str):
    assert plain(text) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["error", "message", "type", "code", "detail", "loc", "msg", "x"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)


@given(
    status=st.integers(100, 599).filter(lambda status: not 200 <= status < 300),
    body=st.binary(max_size=200) | JSON.map(msgspec.json.encode),
    location=st.text(max_size=60),
    request_id=st.text(max_size=60),
)
def test_answer_of_any_shape_is_one_clean_line(status: int, body: bytes, location: str, request_id: str):
    error = read(status, body, location=location, x_request_id=request_id)
    assert isinstance(error, APIError if status >= 400 else ProtocolError)
    assert error.status == status
    assert error.message
    assert str(error).isprintable()
