"""The emulator answers as the asynchronous Sonar API is documented and was captured."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from _caller import NEW, OLD, Caller, asking
from _captured import Document, payload
from jsonschema import Draft202012Validator
from perplexity import AsyncPerplexity

from aiopplx.emulator import AfterPolls, Emulator

fits = Document("sonar-async").fits
JOB = "AsyncApiChatCompletionsResponse"


def shape(value: Any) -> Any:
    """Keys in order, all the way down, of a JSON value; of a list its first item's."""
    if isinstance(value, dict):
        return [(name, shape(member)) for name, member in value.items()]
    return [shape(value[0])] if isinstance(value, list) and value else None


def nullity(value: Any) -> Any:
    """Which members are null, all the way down; of a list in its first item."""
    if isinstance(value, dict):
        return {name: nullity(member) for name, member in value.items()}
    return nullity(value[0]) if isinstance(value, list) and value else value is None


# --- the official SDK as an independent judge


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_official_sdk_submits_polls_and_lists_typed_objects() -> None:
    async with (
        Emulator(duration=AfterPolls(2)) as server,
        AsyncPerplexity(api_key="any word", base_url=server.url) as client,
    ):
        jobs = client.async_.chat.completions
        submitted = await jobs.create(request=asking()["request"], idempotency_key="sdk-1")
        assert submitted.status == "CREATED"
        assert submitted.response is None
        running = await jobs.get(submitted.id)
        assert running.status == "IN_PROGRESS"
        done = await jobs.get(submitted.id)
        assert done.status == "COMPLETED"
        assert done.response is not None
        assert "# Why did the Vasa sink" in str(done.response.choices[0].message.content)
        assert done.response.usage is not None
        assert done.response.usage.cost.total_cost > 0.1
        assert done.response.search_results is not None
        assert done.response.search_results[0].url.startswith("https://")
        listed = await jobs.list()
        assert [row.id for row in listed.requests] == [submitted.id]
        assert listed.requests[0].status == "COMPLETED"
        assert server.ledger.created_by_key == {"sdk-1": 1}


# --- bodies


@pytest.mark.parametrize("base", [OLD, NEW])
async def test_every_answer_fits_the_schemas_under_both_paths(base: str) -> None:
    async with (
        Emulator(duration=AfterPolls(2), failing=lambda q: "bad" in q) as server,
        Caller(server.url, base=base) as c,
    ):
        created = await c.submit(asking(return_images=True, return_related_questions=True, key="k"))
        assert created.status == 200
        assert fits(JOB, created.json)
        id = created.json["id"]
        assert fits(JOB, (await c.get(id)).json)
        done = (await c.get(id)).json
        assert fits(JOB, done)
        assert done["status"] == "COMPLETED"
        assert done["response"]["images"]
        assert done["response"]["related_questions"]
        bad = await c.job(asking("a bad question"))
        await c.get(bad)
        failed = (await c.get(bad)).json
        assert fits(JOB, failed)
        assert failed["status"] == "FAILED"
        listed = (await c.list()).json
        assert fits("ListAsyncApiChatCompletionsResponse", listed)
        assert [row["status"] for row in listed["requests"]] == ["FAILED", "COMPLETED"]
        refused = await c.submit({"model": "sonar"})
        assert refused.status == 422
        assert fits("HTTPValidationError", refused.json)
        assert fits("ApiError", (await c.get("unknown")).json)


async def test_both_base_paths_show_the_same_jobs() -> None:
    async with Emulator(duration=0) as server, Caller(server.url) as old, Caller(server.url, base=NEW) as new:
        id = await old.job()
        assert (await old.get(id)).body == (await new.get(id)).body
        assert (await old.list()).body == (await new.list()).body


async def test_bodies_have_the_captured_keys_in_order() -> None:
    async with Emulator(duration=AfterPolls(2), failing=lambda q: q == "bad") as server, Caller(server.url) as c:
        created = (await c.submit()).json
        assert shape(created) == shape(payload("async-submit-created.real"))
        assert nullity(created) == nullity(payload("async-submit-created.real"))
        running = (await c.get(created["id"])).json
        assert nullity(running) == nullity(payload("async-get-in-progress.reconstructed"))
        done, real = (await c.get(created["id"])).json, payload("async-get-completed.real-trimmed")
        assert shape(done) == shape(real)
        done["response"]["search_results"][0].update(date=None, last_updated=None)
        assert nullity(done) == nullity(real)
        assert done["response"]["id"] == created["id"]
        bad = await c.job(asking("bad"))
        await c.get(bad)
        failed = (await c.get(bad)).json
        assert nullity(failed) == nullity(payload("async-get-failed.reconstructed"))
        assert failed["error_message"]


async def test_answer_is_long_markdown_with_marks_for_its_sources() -> None:
    async with Emulator(duration=0) as server, Caller(server.url) as c:
        for n in range(5):
            response = (await c.get(await c.job(asking(f"Question {n}")))).json["response"]
            text = response["choices"][0]["message"]["content"]
            assert 60_000 <= len(text) <= 90_000
            assert text.startswith(f"# Question {n}\n")
            assert "\n## " in text
            assert "\n### " in text
            urls = [result["url"] for result in response["search_results"]]
            assert response["citations"] == urls
            cited = {int(mark) for mark in re.findall(r"\[(\d+)\]", text)}
            assert cited == set(range(1, len(urls) + 1))
            assert len(set(urls)) == len(urls)


async def test_cost_follows_from_tokens_and_published_prices() -> None:
    async with Emulator(duration=0) as server, Caller(server.url) as c:
        for n in range(20):
            usage = (await c.get(await c.job(asking(f"Question {n}")))).json["response"]["usage"]
            cost = usage["cost"]
            assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
            parts = {
                "input_tokens_cost": usage["prompt_tokens"] * 2 / 1e6,
                "output_tokens_cost": usage["completion_tokens"] * 8 / 1e6,
                "citation_tokens_cost": usage["citation_tokens"] * 2 / 1e6,
                "reasoning_tokens_cost": usage["reasoning_tokens"] * 3 / 1e6,
                "search_queries_cost": usage["num_search_queries"] * 5 / 1e3,
            }
            for name, exact in parts.items():
                assert cost[name] == pytest.approx(exact, abs=6e-6)
            assert cost["total_cost"] == pytest.approx(sum(parts.values()), abs=6e-6)
            assert cost["request_cost"] is None


async def test_max_tokens_cut_the_answer_and_say_so() -> None:
    async with Emulator(duration=0) as server, Caller(server.url) as c:
        response = (await c.get(await c.job(asking(max_tokens=500)))).json["response"]
        assert response["choices"][0]["finish_reason"] == "length"
        assert response["usage"]["completion_tokens"] <= 500
        assert len(response["choices"][0]["message"]["content"]) < 3000


async def test_length_of_answers_can_be_chosen() -> None:
    async with Emulator(duration=0, answer_chars=2000) as server, Caller(server.url) as c:
        text = (await c.get(await c.job())).json["response"]["choices"][0]["message"]["content"]
        assert 1500 <= len(text) <= 2200


async def test_answer_can_open_with_a_think_part() -> None:
    async with Emulator(duration=0, think=True, answer_chars=500) as server, Caller(server.url) as c:
        text = (await c.get(await c.job())).json["response"]["choices"][0]["message"]["content"]
        assert re.match(r"<think>\n.+\n</think>\n\n# Why", text, re.DOTALL)


async def test_structured_output_is_json_text_of_its_schema() -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 3},
            "year": {"type": "integer", "minimum": 1600, "maximum": 1700},
            "sank": {"type": "boolean"},
            "size": {"enum": ["small", "large"]},
            "depth": {"type": ["number", "null"], "exclusiveMinimum": 0},
            "crew": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Person"}},
            "master": {"anyOf": [{"$ref": "#/$defs/Person"}, {"type": "null"}]},
        },
        "required": ["name", "year", "sank", "size", "depth", "crew", "master"],
        "additionalProperties": False,
        "$defs": {
            "Person": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "friend": {"anyOf": [{"$ref": "#/$defs/Person"}, {"type": "null"}]},
                },
                "required": ["name", "friend"],
            }
        },
    }
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    async with Emulator(duration=0) as server, Caller(server.url) as c:
        for n in range(10):
            done = (await c.get(await c.job(asking(f"Ship {n}", response_format=form)))).json
            value = json.loads(done["response"]["choices"][0]["message"]["content"])
            Draft202012Validator(schema).validate(value)


# --- refusals


async def test_forgotten_wrapper_is_the_documented_422() -> None:
    async with Emulator() as server, Caller(server.url) as c:
        answer = await c.submit(asking()["request"])
        assert answer.status == 422
        assert answer.json == {"detail": [{"loc": ["body", "request"], "msg": "Field required", "type": "missing"}]}
        assert server.ledger.created == 0


@pytest.mark.parametrize(
    ("fields", "loc", "type"),
    [
        ({"max_tokens": 0}, ["max_tokens"], "greater_than"),
        ({"max_tokens": 128_001}, ["max_tokens"], "less_than_equal"),
        ({"max_tokens": 1.5}, ["max_tokens"], "int_type"),
        ({"temperature": 2.1}, ["temperature"], "less_than_equal"),
        ({"top_p": -0.1}, ["top_p"], "greater_than_equal"),
        ({"temperature": "hot"}, ["temperature"], "float_type"),
        ({"stop": 3}, ["stop"], "string_type"),
        ({"stop": ["a", 3]}, ["stop", 1], "string_type"),
        ({"search_mode": "deep"}, ["search_mode"], "enum"),
        ({"reasoning_effort": "max"}, ["reasoning_effort"], "enum"),
        ({"search_recency_filter": "decade"}, ["search_recency_filter"], "enum"),
        ({"stream_mode": None}, ["stream_mode"], "enum"),
        ({"search_domain_filter": ["a.org"] * 21}, ["search_domain_filter"], "too_long"),
        ({"search_after_date_filter": "2025-03-01"}, ["search_after_date_filter"], "string_pattern_mismatch"),
        ({"return_images": "yes"}, ["return_images"], "bool_type"),
        ({"messages": "hello"}, ["messages"], "list_type"),
        ({"messages": [{"role": "user"}]}, ["messages", 0, "content"], "missing"),
        ({"messages": [{"role": "robot", "content": ""}]}, ["messages", 0, "role"], "enum"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            ["messages", 0, "content", 0, "text"],
            "missing",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "audio"}]}]},
            ["messages", 0, "content", 0],
            "union_tag_invalid",
        ),
        ({"response_format": {"type": "regex"}}, ["response_format"], "union_tag_invalid"),
        ({"response_format": {"type": "json_schema"}}, ["response_format", "json_schema"], "missing"),
        ({"web_search_options": {"search_type": "slow"}}, ["web_search_options", "search_type"], "enum"),
        ({"model": 7}, ["model"], "string_type"),
    ],
)
async def test_body_out_of_range_gets_422_naming_the_place(fields: dict[str, Any], loc: list[Any], type: str) -> None:
    async with Emulator() as server, Caller(server.url) as c:
        answer = await c.submit(asking(**fields))
        assert answer.status == 422
        assert [(row["loc"], row["type"]) for row in answer.json["detail"]] == [(["body", "request", *loc], type)]
        assert fits("HTTPValidationError", answer.json)
        assert server.ledger.created == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"nobody_knows_this": 1, "top_k": 3},
        {"max_tokens": None, "temperature": None, "stop": None, "response_format": None},
        {"stop": ["a"], "search_after_date_filter": "3/1/2025", "search_mode": "academic"},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "https://a.example/x.png"}]}]},
        {"messages": [{"role": r, "content": "x"} for r in ("system", "system", "user", "assistant", "tool")]},
        {"web_search_options": {"search_context_size": "high", "user_location": {"country": "SE", "latitude": 59.3}}},
        {"response_format": {"type": "text"}},
    ],
)
async def test_valid_body_is_accepted_without_its_unknown_fields(fields: dict[str, Any]) -> None:
    async with Emulator(duration=0) as server, Caller(server.url) as c:
        done = await c.get(await c.job(asking(**fields)))
        assert done.json["status"] == "COMPLETED"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"request": NaN}'])
async def test_body_that_is_not_json_is_a_422(body: bytes) -> None:
    async with Emulator() as server, Caller(server.url) as c:
        answer = await c.submit(body)
        assert answer.status == 422
        assert answer.json["detail"][0]["type"] == "json_invalid"


@pytest.mark.parametrize("body", [b"[]", b"3", b"null", b'{"request": []}', b'{"request": {}, "idempotency_key": 3}'])
async def test_body_of_another_shape_is_a_422(body: bytes) -> None:
    async with Emulator() as server, Caller(server.url) as c:
        answer = await c.submit(body)
        assert answer.status == 422
        assert fits("HTTPValidationError", answer.json)


@pytest.mark.parametrize(
    "roles",
    [("assistant", "user"), ("user", "user"), ("user", "system"), ("user", "tool"), ("user", "assistant", "system")],
)
async def test_roles_that_do_not_alternate_are_the_captured_400(roles: tuple[str, ...]) -> None:
    async with Emulator() as server, Caller(server.url) as c:
        answer = await c.submit(asking(messages=[{"role": role, "content": "x"} for role in roles]))
        assert answer.status == 400
        assert answer.json["error"] == {
            "message": "After the (optional) system message(s), user or tool message(s) should alternate with assistant"
            " message(s).",
            "type": "invalid_message",
            "code": 400,
        }


@pytest.mark.parametrize(
    ("fields", "type"),
    [
        ({"model": "gpt-4"}, "invalid_model"),
        ({"messages": []}, "invalid_message"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "invalid_message"),
        ({"search_recency_filter": "week", "last_updated_after_filter": "1/1/2025"}, "invalid_request"),
    ],
)
async def test_what_only_the_service_can_refuse_is_a_400(fields: dict[str, Any], type: str) -> None:
    async with Emulator() as server, Caller(server.url) as c:
        answer = await c.submit(asking(**fields))
        assert answer.status == 400
        assert (answer.json["error"]["type"], answer.json["error"]["code"]) == (type, 400)
        assert fits("ApiError", answer.json)


async def test_odd_paths_get_a_list_a_404_or_405() -> None:
    async with Emulator() as server, Caller(server.url) as c:
        assert "requests" in (await c.get("")).json
        assert (await c.call("GET", "/v1/nothing")).status == 404
        assert (await c.call("DELETE", OLD)).status == 405
        assert (await c.call("POST", OLD + "/some-id")).status == 405
        assert (await c.call("GET", OLD + "/a/b")).status == 404
