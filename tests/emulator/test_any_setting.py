"""Whatever its settings and whatever it is sent, the emulator answers: never with a 500 of its own."""

from __future__ import annotations

import json
import logging
import math
import random
from typing import Any

import pytest
from _agent_caller import BASES, AgentCaller
from _caller import NEW, OLD, Answer

from aiopplx.emulator import AfterPolls, Emulator

ROUNDS = 40
REQUESTS = 60
ODD: list[Any] = [None, 0, 1, -1, 2**40, 0.5, "", "x", "\ud800", "é" * 300, [], {}, [None], [1], [{}], {"": None}, True]
TOOLS: list[Any] = [
    {"type": "web_search"},
    {"type": "web_search", "max_results": 1, "filters": {"search_recency_filter": "day"}},
    {"type": "fetch_url"},
    {"type": "fetch_url", "max_urls": 10},
    {"type": "function", "name": "f"},
    {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}},
    *({"type": name} for name in ("people_search", "finance_search", "image_search", "sandbox", "mcp", "connector")),
]
SCHEMA_WORDS = ["type", "properties", "items", "anyOf", "allOf", "oneOf", "enum", "const", "$ref", "$defs", "minItems"]
SCHEMA_WORDS += ["maxItems", "minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "format", "required"]
TYPES = ["object", "array", "string", "integer", "number", "boolean", "null", ["string", "null"], "nothing", 7]


def schema_of(rng: random.Random, depth: int = 0) -> Any:
    """A schema as people write them, and as they should not."""
    if depth > 3 or rng.random() < 0.1:
        return rng.choice([*ODD, {"$ref": "#"}, {"$ref": "#/$defs/a"}, True])
    schema: dict[str, Any] = {"type": rng.choice(TYPES)}
    for word in rng.sample(SCHEMA_WORDS, rng.randint(0, 5)):
        below: Any = schema_of(rng, depth + 1)
        listed = [schema_of(rng, depth + 1) for _ in range(rng.randint(0, 3))]
        number = rng.choice([-3, 0, 1, 5, 2.5, 10**12, "3", None])
        schema[word] = rng.choice([below, listed, {"a": below, "b": below}, number, "#/$defs/a", rng.choice(ODD)])
    return schema


def agent_body(rng: random.Random) -> Any:
    body: dict[str, Any] = {"background": True, "input": rng.choice(["Why?", "x" * 5000, "?"])}
    body[rng.choice(["preset", "effort"])] = rng.choice(["fast", "low", "medium", "high", "xhigh"])
    likely: dict[str, Any] = {
        "tools": rng.sample(TOOLS, rng.randint(0, 5)),
        "max_output_tokens": rng.choice([1, 16, 99, 100, 101, 500, 10**6]),
        "max_tool_calls": rng.choice([0, 1, 5]),
        "model": rng.choice(["openai/gpt-6", "a/b"]),
        "profile": {"type": "custom", "id": "p"},
        "tool_choice": rng.choice(["none", "auto", "required", {"type": "function", "name": "f"}]),
        "parallel_tool_calls": rng.choice([True, False]),
        "response_format": {
            "type": "json_schema",
            "json_schema": {"schema": {**as_object(schema_of(rng)), "type": "object"}},
        },
    }
    for name in rng.sample(sorted(likely), rng.randint(0, 4)):
        body[name] = likely[name]
    if rng.random() < 0.3:
        body[rng.choice([*likely, "input", "preset", "effort", "metadata", "reasoning", "nonsense"])] = rng.choice(ODD)
    return body if rng.random() < 0.95 else rng.choice(ODD)


def as_object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def sonar_body(rng: random.Random) -> Any:
    request: dict[str, Any] = {
        "model": rng.choice(["sonar", "sonar-pro", "sonar-deep-research"]),
        "messages": [{"role": "user", "content": rng.choice(["Why?", "x" * 5000, [{"type": "text", "text": "Why?"}]])}],
    }
    likely: dict[str, Any] = {
        "max_tokens": rng.choice([1, 2, 50, 128_000]),
        "return_images": True,
        "return_related_questions": True,
        "reasoning_effort": rng.choice(["low", "high"]),
        "web_search_options": {"search_context_size": "high"},
        "disable_search": True,
        "response_format": {"type": "json_schema", "json_schema": {"schema": schema_of(rng)}},
        "stop": rng.choice(["e", ["a", "b"]]),
    }
    for name in rng.sample(sorted(likely), rng.randint(0, 4)):
        request[name] = likely[name]
    if rng.random() < 0.3:
        request[rng.choice([*likely, "messages", "model", "temperature", "nonsense"])] = rng.choice(ODD)
    body = {"request": request, "idempotency_key": rng.choice([None, "k", "k2", *ODD[-4:]])}
    return body if rng.random() < 0.95 else rng.choice(ODD)


def settings(rng: random.Random) -> dict[str, Any]:
    every: dict[str, Any] = {
        "answer_chars": rng.choice([0, 1, 2, 30, 300, 1_000, 20_000]),
        "think": True,
        "failure_rate": rng.choice([0.0, 0.5, 1.0]),
        "duration": rng.choice([0, 0.0, 1e-9, 5, 1e300, math.inf, AfterPolls(1), AfterPolls(2), len]),
        "tier": rng.choice([0, 3, 5]),
        "rpm": rng.choice([0.001, 60, 1e9]),
        "limit_hints": rng.choice(["none", "retry-after", "x-ratelimit"]),
        "idempotency": rng.choice(["replay", "ignore", "reject"]),
        "key_ttl": rng.choice([0, 1e9]),
        "ttl": rng.choice([0, 1, 1e12]),
        "cancel_delay": rng.choice([0, 1e12]),
        "page_size": rng.choice([1, 10**9]),
        "paging": rng.choice(["follow", "ignore", "repeat"]),
        "credits": rng.choice([0, 0.01, 100]),
        "compress": True,
        "auth_errors": "html",
        "log_size": rng.choice([0, 1]),
        "time_scale": rng.choice([1e-6, 1e6]),
    }
    return {name: every[name] for name in rng.sample(sorted(every), rng.randint(0, 6))}


async def one(c: AgentCaller, rng: random.Random, ids: list[str]) -> Answer:
    base = rng.choice([*BASES, OLD, NEW])
    known = rng.choice(ids) if ids and rng.random() < 0.9 else rng.choice(["x", "resp_1", "%00", "é"])
    what = rng.randint(0, 9)
    if what < 4:
        body = agent_body(rng) if base in BASES else sonar_body(rng)
        return await c.call("POST", base, json.dumps(body).encode())
    if what < 8:
        return await c.call("GET", f"{base}/{known}{rng.choice(['', '', '?format=short', '?stream=x'])}")
    if what < 9:
        return await c.call("GET", base + rng.choice(["", "?limit=1", "?limit=x", "?next_token=zz"]))
    return await c.call("POST", f"{base}/{known}/cancel")


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_no_setting_and_no_request_makes_a_500(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(seed)
    chosen = settings(rng)
    ids: list[str] = []
    async with Emulator(seed=seed, **chosen) as server, AgentCaller(server.url, keep=True) as c:
        for _ in range(REQUESTS):
            answer = await one(c, rng, ids)
            assert answer.status < 500, (chosen, answer.body)
            if answer.status == 200 and "id" in as_object(answer.json):
                ids.append(answer.json["id"])
            if rng.random() < 0.3:
                server.advance(rng.choice([1.0, 1e4, 1e7]))
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("level", ["fast", "low", "medium", "high", "xhigh"])
@pytest.mark.parametrize("chars", [1, 300, 3_000])
async def test_short_run_reads_no_more_pages_than_it_found(level: str, chars: int) -> None:
    tools = [{"type": "web_search"}, {"type": "fetch_url"}]
    async with Emulator(duration=0, answer_chars=chars) as server, AgentCaller(server.url) as c:
        told = await c.seen(await c.job({"background": True, "input": "Why?", "effort": level, "tools": tools}))
        found = {page["url"] for item in told["output"] for page in item.get("results", ())}
        read = [page["url"] for item in told["output"] for page in item.get("contents", ())]
        assert read
        assert set(read) <= found
