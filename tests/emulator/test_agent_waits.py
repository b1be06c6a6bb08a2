"""A run of the emulated Agent API that calls the caller's function, or needs an approval, waits for its caller."""

from __future__ import annotations

import json
from typing import Any

import pytest
from _agent_caller import AgentCaller, fits, run
from jsonschema import Draft202012Validator
from perplexity import AsyncPerplexity

from aiopplx.emulator import AfterPolls, Emulator

WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 3}},
        "required": ["city", "days"],
    },
}
TIME = {"type": "function", "name": "time"}
BOUGHT = {"type": "mcp", "server_label": "shop", "server_url": "https://shop.example", "require_approval": "always"}


def calls(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for item in told["output"] if item["type"] in ("function_call", "mcp_approval_request")]


async def ended(c: AgentCaller, body: dict[str, Any]) -> dict[str, Any]:
    return await c.seen(await c.job(body))


async def test_run_with_a_function_calls_it_and_waits() -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        told = await ended(c, run(tools=[WEATHER]))
        assert told["status"] == "requires_action"
        assert (told["completed_at"], told["usage"]) == (None, None)
        (call,) = calls(told)
        assert list(call) == ["arguments", "call_id", "id", "name", "status", "type"]
        assert (call["name"], call["status"]) == ("weather", "completed")
        Draft202012Validator(WEATHER["parameters"]).validate(json.loads(call["arguments"]))
        assert fits("ResponsesResponse", told)
        # It waits for as long as it is asked for, and says the same each time.
        assert calls(await c.seen(told["id"])) == [call]


async def test_official_sdk_reads_the_function_call() -> None:
    async with (
        Emulator(duration=AfterPolls(1)) as server,
        AsyncPerplexity(api_key="any word", base_url=server.url) as client,
    ):
        made = await client.responses.create(background=True, effort="low", input="Weather?", tools=[WEATHER])
        told = await client.responses.retrieve(made.id)
        assert told.status == "requires_action"
        assert told.output[-1].type == "function_call"
        assert told.output[-1].name == "weather"


async def test_results_of_the_function_let_a_run_go_on() -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        waiting = await ended(c, run(tools=[WEATHER]))
        before = {"previous_response_id": waiting["id"], "tools": [WEATHER]}
        assert (await c.submit(run("And now?", **before))).status == 400
        (call,) = calls(waiting)
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
        assert (await ended(c, run([result], **before)))["status"] == "completed"


@pytest.mark.parametrize(
    "fields",
    [{"tool_choice": "none"}, {"max_tool_calls": 0}, {"tool_choice": {"type": "function", "name": "other"}}],
)
async def test_request_that_rules_calls_out_gets_none(fields: dict[str, Any]) -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        told = await ended(c, run(tools=[WEATHER], **fields))
        assert told["status"] == "completed"
        assert calls(told) == []


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, ["weather"]),
        ({"parallel_tool_calls": True}, ["weather", "time"]),
        ({"tool_choice": {"type": "function", "name": "time"}}, ["time"]),
    ],
)
async def test_request_says_which_functions_are_called(fields: dict[str, Any], names: list[str]) -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        told = await ended(c, run(tools=[WEATHER, TIME], **fields))
        assert [call["name"] for call in calls(told)] == names
        assert len({call["call_id"] for call in calls(told)}) == len(names)


async def test_tool_that_needs_approval_asks_for_it() -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        told = await ended(c, run(tools=[BOUGHT]))
        assert told["status"] == "requires_action"
        (asked,) = calls(told)
        assert (asked["type"], asked["server_label"]) == ("mcp_approval_request", "shop")
        answer = {"type": "mcp_approval_response", "approval_request_id": asked["id"], "approve": True}
        going_on = run([answer], previous_response_id=told["id"], tools=[BOUGHT])
        assert (await ended(c, going_on))["status"] == "completed"
        assert (await ended(c, run(tools=[{**BOUGHT, "require_approval": "never"}])))["status"] == "completed"


@pytest.mark.parametrize("duration", [0.0, AfterPolls(1)])
async def test_waiting_run_can_be_cancelled(duration: float | AfterPolls) -> None:
    async with Emulator(duration=duration, cancel_delay=5.0) as server, AgentCaller(server.url) as c:
        waiting = await ended(c, run(tools=[WEATHER]))
        assert waiting["status"] == "requires_action"
        assert (await c.cancel(waiting["id"])).status == 200
        assert (await c.seen(waiting["id"]))["status"] == "in_progress"
        server.advance(5.0)
        assert (await c.seen(waiting["id"]))["status"] == "cancelled"


async def test_waiting_run_without_background_is_answered_so() -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        answer = await c.submit({"preset": "low", "input": "Weather?", "tools": [WEATHER]})
        assert answer.json["status"] == "requires_action"
