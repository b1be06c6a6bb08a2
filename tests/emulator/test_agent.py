"""The emulator answers as the Agent API's background runs are documented and were captured."""

from __future__ import annotations

import asyncio
import json
import re
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from _agent_caller import BASES, QUESTION, AgentCaller, run
from _caller import OLD, Caller, asking
from _captured import Document, payload
from jsonschema import Draft202012Validator
from perplexity import AsyncPerplexity

from aiopplx.emulator import AfterPolls, Emulator, faults

fits = Document("agent-background").fits
NOBODY = "resp_00000000-0000-4000-8000-000000000000"


def types(told: dict[str, Any]) -> list[str]:
    return [item["type"] for item in told["output"]]


def text_of(told: dict[str, Any]) -> str:
    (message,) = [item for item in told["output"] if item["type"] == "message"]
    return str(message["content"][0]["text"])


# --- the official SDK as an independent judge


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_official_sdk_creates_and_retrieves_a_typed_run() -> None:
    async with (
        Emulator(duration=AfterPolls(2)) as server,
        AsyncPerplexity(api_key="any word", base_url=server.url) as client,
    ):
        made = await client.responses.create(background=True, effort="high", input=QUESTION)
        assert (made.status, made.output, made.usage) == ("queued", [], None)
        running = await client.responses.retrieve(made.id)
        assert (running.status, running.model) == ("in_progress", "high")
        assert {item.type for item in running.output} == {"search_results"}
        done = await client.responses.retrieve(made.id)
        assert done.status == "completed"
        assert done.output_text.startswith("# Why did the Vasa sink")
        assert done.usage is not None
        assert done.usage.cost is not None
        assert done.usage.cost.total_cost > 0.1
        first = done.output[0]
        assert first.type == "search_results"
        assert first.results[0].url.startswith("https://")
        assert server.ledger.created_by_api == {"agent": 1}


async def test_official_sdk_cancels_a_run() -> None:
    async with (
        Emulator(duration=AfterPolls(100)) as server,
        AsyncPerplexity(api_key="any word", base_url=server.url) as client,
    ):
        made = await client.responses.create(background=True, model="openai/gpt-6-luna", input=QUESTION)
        asked = await client.responses.cancel(made.id)
        assert (asked.response_id, asked.status) == (made.id, "cancelling")
        statuses = [(await client.responses.retrieve(made.id)).status for _ in range(2)]
        assert statuses == ["in_progress", "cancelled"]


# --- bodies


@pytest.mark.parametrize("base", BASES)
async def test_every_answer_fits_the_document_under_both_paths(base: str) -> None:
    async with (
        Emulator(duration=AfterPolls(3), failing=lambda question: "bad" in question) as server,
        AgentCaller(server.url, base=base) as c,
    ):
        for question, last in ((QUESTION, "completed"), ("a bad question", "failed")):
            body = run(question)
            assert fits("ResponsesRequest", body)
            made = await c.submit(body)
            assert made.status == 200
            assert fits("ResponsesResponse", made.json)
            polls = [await c.seen(made.json["id"]) for _ in range(3)]
            assert all(fits("ResponsesResponse", poll) for poll in polls)
            assert [poll["status"] for poll in polls] == ["in_progress", "in_progress", last]
        id = await c.job(run(max_output_tokens=300))
        asked = await c.cancel(id)
        assert asked.status == 200
        assert fits("CancelResponse", asked.json)
        ended = [await c.seen(id) for _ in range(2)][-1]
        assert ended["status"] == "cancelled"
        assert fits("ResponsesResponse", ended)
        cut = (await c.submit(run(background=False, max_output_tokens=300))).json
        assert cut["status"] == "incomplete"
        assert fits("ResponsesResponse", cut)
        for refused in (await c.get(NOBODY), await c.cancel(NOBODY), await c.submit({"input": ""})):
            assert fits("ApiError", refused.json)
        assert server.ledger.requests == {
            f"POST {base}": 5,
            f"GET {base}/{{id}}": 9,
            f"POST {base}/{{id}}/cancel": 2,
        }


async def test_both_base_paths_show_the_same_runs() -> None:
    async with (
        Emulator(duration=0, time_scale=0.001) as server,
        AgentCaller(server.url) as one,
        AgentCaller(server.url, base=BASES[1]) as other,
    ):
        id = await one.job()
        assert (await one.get(id)).body == (await other.get(id)).body


async def test_queued_run_is_the_captured_one() -> None:
    async with Emulator(time_scale=0.001) as server, AgentCaller(server.url) as c:
        told, real = (await c.submit()).json, payload("agent-submit-queued.real")
        # The capture is older than the two echoes.
        assert (told.pop("effort"), told.pop("preset")) == ("medium@2026-10-16.0",) * 2
        assert list(told) == list(real)
        assert re.fullmatch(r"resp_[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", told["id"])
        assert told["created_at"] == pytest.approx(server.now(), abs=2)
        assert told | {"id": "", "created_at": 0} == real | {"id": "", "created_at": 0}


async def test_running_and_completed_runs_have_the_captured_members() -> None:
    async with Emulator(duration=AfterPolls(2)) as server, AgentCaller(server.url) as c:
        id = await c.job()
        running, done = await c.seen(id), await c.seen(id)
        for told, name in ((running, "in-progress"), (done, "completed")):
            real = payload(f"agent-{name}.real-trimmed")
            assert (told.pop("effort"), told.pop("preset")) == ("medium@2026-10-16.0",) * 2
            assert list(told) == list(real)
            own = ("id", "created_at", "completed_at", "output", "usage")
            assert {key: told[key] for key in told if key not in own} == {
                key: real[key] for key in real if key not in own
            }
        assert running["completed_at"] is None
        assert running["usage"] is None
        real_items = {item["type"]: item for item in payload("agent-completed.real-trimmed")["output"]}
        for item in done["output"]:
            assert list(item) == list(real_items[item["type"]])
        message = done["output"][-1]
        assert message["id"].startswith("msg_")
        assert (message["role"], message["status"]) == ("assistant", "completed")
        assert list(message["content"][0]) == ["annotations", "text", "type"]
        assert message["content"][0]["annotations"] == []


async def test_run_shows_searches_then_pages_then_its_answer() -> None:
    async with Emulator(duration=100, time_scale=0.001) as server, AgentCaller(server.url) as c:
        id = await c.job(run(preset="high"))
        grown: list[list[str]] = []
        assert (await c.seen(id))["status"] == "queued"
        for _ in range(9):
            server.advance(11)
            told = await c.seen(id)
            grown.append(types(told))
            if told["status"] == "in_progress":
                assert "message" not in types(told)
                assert told["model"] == "high"
                assert told["tools"] == []
        server.advance(2)
        done = await c.seen(id)
        assert (done["status"], done["model"]) == ("completed", "emulated/large")
        whole = types(done)
        assert whole == sorted(whole, key=["search_results", "fetch_url_results", "message"].index)
        assert all(whole[: len(part)] == part for part in grown)
        sizes = [len(part) for part in grown]
        assert sizes == sorted(sizes)
        assert 0 < sizes[1] < sizes[-1]
        assert done["tools"] == [{"type": "web_search"}, {"type": "fetch_url"}]


@pytest.mark.parametrize("preset", ["fast", "low", "medium", "high", "xhigh"])
async def test_marks_name_result_ids_that_have_gaps(preset: str) -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        told = await c.seen(await c.job(run(preset=preset)))
        results = [result for item in told["output"] if item["type"] == "search_results" for result in item["results"]]
        ids = [result["id"] for result in results]
        marks = re.findall(r"\[[^\]]*\]", text_of(told))
        assert marks
        assert set(marks) <= {f"[web:{id}]" for id in ids}
        assert len(set(ids)) == len(ids)
        assert len({result["url"] for result in results}) == len(results)
        if preset == "high":
            assert set(marks) == {f"[web:{id}]" for id in ids}
            assert ids != sorted(ids)
            assert max(ids) > len(ids)
            assert 40_000 <= len(text_of(told)) <= 63_000
        fetched = [item["contents"][0]["url"] for item in told["output"] if item["type"] == "fetch_url_results"]
        assert set(fetched) <= {result["url"] for result in results}


async def test_unknown_date_is_absent_and_never_null() -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        told = await c.seen(await c.job(run(preset="high")))
        results = [result for item in told["output"] if item["type"] == "search_results" for result in item["results"]]
        assert {"id", "snippet", "source", "title", "url"} == set.intersection(*(set(result) for result in results))
        assert any("date" in result for result in results)
        assert any("last_updated" in result for result in results)
        assert all(value is not None for result in results for value in result.values())


async def test_both_moments_are_rewritten_at_each_poll() -> None:
    async with Emulator(duration=10, time_scale=0.001) as server, AgentCaller(server.url) as c:
        made = (await c.submit()).json
        server.advance(100)
        first = await c.seen(made["id"])
        server.advance(1000)
        second = await c.seen(made["id"])
        assert first["created_at"] == first["completed_at"]
        assert 99 <= first["created_at"] - made["created_at"] <= 101
        assert 999 <= second["created_at"] - first["created_at"] <= 1001
        assert second["completed_at"] == second["created_at"]


async def test_usage_has_the_captured_members_and_adds_up() -> None:
    real = payload("agent-completed.real-trimmed")["usage"]
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        for number in range(20):
            usage = (await c.seen(await c.job(run(f"Question {number}"))))["usage"]
            assert list(usage) == list(real)
            assert list(usage["cost"]) == list(real["cost"])
            assert list(usage["tool_calls_details"]) == list(real["tool_calls_details"])
            assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
            details = usage["input_tokens_details"]
            assert details["cached_tokens"] == details["cache_read_input_tokens"]
            assert details["cached_tokens"] + details["cache_creation_input_tokens"] <= usage["input_tokens"]
            assert usage["output_tokens_details"]["reasoning_tokens"] < usage["output_tokens"]
            cost, tools = usage["cost"], usage["tool_calls_details"]
            parts = ("cache_creation_cost", "cache_read_cost", "input_cost", "output_cost", "tool_calls_cost")
            assert cost["total_cost"] == pytest.approx(sum(cost[part] for part in parts), abs=1e-9)
            assert cost["tool_calls_cost"] == pytest.approx(sum(cost["tool_calls_cost_details"].values()), abs=1e-9)
            assert {name: tool["cost_usd"] for name, tool in tools.items()} == cost["tool_calls_cost_details"]
            assert len(tools["fetch_url"]["token_usage"]) == tools["fetch_url"]["invocation"]
            assert cost["total_cost"] == server.ledger.jobs[-1].cost


async def test_question_can_be_items_with_parts() -> None:
    items = [
        {"role": "system", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Who saw the Vasa sink?"}]},
        {"role": "assistant", "content": "Which of them?"},
        {"role": "user", "content": "The builder."},
    ]
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        assert text_of(await c.seen(await c.job(run(items)))).startswith("# The builder\n")
        assert text_of(await c.seen(await c.job(run(items[:2])))).startswith("# Who saw the Vasa sink\n")


async def test_settings_of_the_request_are_echoed() -> None:
    said = {
        "instructions": "Be brief.",
        "max_output_tokens": 90_000,
        "max_tool_calls": 30,
        "metadata": {"a": "b"},
        "prompt_cache_key": "k",
        "reasoning": {"effort": "high"},
        "service_tier": "flex",
        "temperature": 0.5,
        "top_p": 0.9,
        "tool_choice": "required",
        "truncation": "auto",
        "parallel_tool_calls": False,
    }
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        told = await c.seen(await c.job(run(**said, model="openai/gpt-6-luna", max_steps=5)))
        told["reasoning"] = {name: value for name, value in told["reasoning"].items() if value is not None}
        assert {name: told[name] for name in said} == said
        assert told["model"] == "openai/gpt-6-luna"


async def test_structured_output_is_json_text_of_its_schema() -> None:
    schema = {"type": "object", "properties": {"year": {"type": "integer", "minimum": 1600}}, "required": ["year"]}
    form = {"type": "json_schema", "json_schema": {"name": "ship", "schema": schema}}
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        told = await c.seen(await c.job(run(response_format=form)))
        Draft202012Validator(schema).validate(json.loads(text_of(told)))
        assert told["text"] == {"format": {"type": "text"}}


async def test_model_without_tools_searches_nothing_and_cites_nothing() -> None:
    body = {"model": "openai/gpt-6-luna", "input": QUESTION, "background": True}
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        told = await c.seen(await c.job(body))
        assert types(told) == ["message"]
        assert "[" not in text_of(told)
        assert list(told["usage"]["cost"]) == ["currency", "input_cost", "output_cost", "total_cost"]
        assert list(told["usage"]) == list(payload("agent-incomplete.real")["usage"])
        searching = await c.seen(await c.job({**body, "tools": [{"type": "web_search"}]}))
        assert set(types(searching)) == {"search_results", "message"}
        assert "[web:" in text_of(searching)
        assert (await c.seen(await c.job(run(max_tool_calls=0))))["output"][0]["type"] == "message"


async def test_list_of_tools_replaces_those_of_the_preset() -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        told = await c.seen(await c.job(run(tools=[{"type": "fetch_url"}])))
        pages = [item["contents"][0] for item in told["output"] if item["type"] == "fetch_url_results"]
        assert set(types(told)) == {"fetch_url_results", "message"}
        # As in the one capture of it: pages without a search have no ids and are marked from 0.
        assert set(re.findall(r"\[web:\d+\]", text_of(told))) <= {f"[web:{n}]" for n in range(len(pages))}
        assert told["tools"] == [{"type": "fetch_url"}]


async def test_length_of_answers_can_be_chosen() -> None:
    async with Emulator(duration=0, answer_chars=2000) as server, AgentCaller(server.url) as c:
        for preset in ("fast", "high"):
            assert 1500 <= len(text_of(await c.seen(await c.job(run(preset=preset))))) <= 2300


# --- ends


async def test_failed_run_is_a_200_that_costs_nothing() -> None:
    async with Emulator(duration=0, failure_rate=1.0) as server, AgentCaller(server.url) as c:
        told = await c.seen(await c.job())
        assert told["status"] == "failed"
        assert set(told["error"]) == {"code", "message", "type"}
        assert all(isinstance(value, str) for value in told["error"].values())
        assert (told["usage"], told["completed_at"], told["model"]) == (None, None, "medium")
        assert "message" not in types(told)
        assert server.ledger.billed == 0


async def test_run_that_spends_all_tokens_thinking_is_incomplete() -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        told = await c.seen(await c.job({"model": "openai/gpt-6-luna", "input": QUESTION, "max_output_tokens": 16}))
        real = payload("agent-incomplete.real")
        own = {"id": "", "created_at": 0, "usage": None}
        assert told | own == real | own
        assert told["usage"]["output_tokens"] == 16
        assert told["usage"]["output_tokens_details"] == {"reasoning_tokens": 16}
        assert list(told["usage"]) == list(real["usage"])


async def test_run_cut_in_its_answer_keeps_what_it_has() -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        told = await c.seen(await c.job(run(max_output_tokens=400)))
        assert (told["status"], told["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        assert (told["error"], told["completed_at"]) == (None, None)
        assert 500 <= len(text_of(told)) <= 1500
        assert told["usage"]["output_tokens"] == 400
        assert server.ledger.billed == pytest.approx(told["usage"]["cost"]["total_cost"])


async def test_cancel_takes_a_while_and_leaves_what_was_found() -> None:
    async with Emulator(duration=100, time_scale=0.001) as server, AgentCaller(server.url) as c:
        id = await c.job(run(preset="high"))
        before = server.ledger.billed
        server.advance(50)
        half = await c.seen(id)
        asked = await c.cancel(id)
        assert asked.status == 200
        assert asked.json == {"response_id": id, "status": "cancelling"}
        assert asked.json.keys() == payload("agent-cancel-accepted.real").keys()
        server.advance(1)
        running = await c.seen(id)
        assert (running["status"], running["error"]) == ("in_progress", None)
        assert (await c.cancel(id)).status == 200
        server.advance(2)
        told = await c.seen(id)
        assert told["status"] == "cancelled"
        assert told["error"] == {"code": "cancelled", "message": "cancelled", "type": "cancelled"}
        assert told["incomplete_details"] == {"reason": "cancelled"}
        assert (told["usage"], told["completed_at"], told["model"], told["tools"]) == (None, None, "high", [])
        assert told["output"] == running["output"] == half["output"]
        assert types(told)
        (job,) = server.ledger.jobs
        assert job.cancelled
        assert 0 < job.cost == pytest.approx(server.ledger.billed)
        assert server.ledger.billed < before


async def test_cancelled_run_is_charged_for_the_searches_shown() -> None:
    async with Emulator(duration=AfterPolls(10)) as server, AgentCaller(server.url) as c:
        id = await c.job(run(preset="high"))
        for _ in range(4):
            await c.seen(id)
        await c.cancel(id)
        await c.seen(id)
        told = await c.seen(id)
        assert (told["status"], set(types(told))) == ("cancelled", {"search_results"})
        assert server.ledger.billed == pytest.approx(0.001 * len(told["output"]))


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "incomplete", "unknown"])
async def test_cancel_of_an_ended_or_unknown_run_is_refused(end: str) -> None:
    async with (
        Emulator(duration=AfterPolls(3), failing=lambda question: question == "failed") as server,
        AgentCaller(server.url) as c,
    ):
        id = NOBODY
        if end != "unknown":
            id = await c.job(run(end, max_output_tokens=50 if end == "incomplete" else 90_000))
            if end == "cancelled":
                await c.cancel(id)
            assert [(await c.seen(id))["status"] for _ in range(3)][-1] == end
        answer = await c.cancel(id)
        assert (answer.status, answer.json) == (400, payload("agent-cancel-400.real"))


async def test_run_that_ends_first_is_not_cancelled() -> None:
    async with Emulator(duration=10, time_scale=0.001, cancel_delay=5) as server, AgentCaller(server.url) as c:
        id = await c.job()
        server.advance(8)
        assert (await c.cancel(id)).status == 200
        server.advance(6)
        done = await c.seen(id)
        assert done["status"] == "completed"
        assert server.ledger.billed == pytest.approx(done["usage"]["cost"]["total_cost"])


@pytest.mark.parametrize(("polls", "end"), [(1, "completed"), (2, "cancelled"), (3, "cancelled")])
async def test_cancel_of_a_poll_counted_run_takes_two_polls(polls: int, end: str) -> None:
    async with Emulator(duration=AfterPolls(polls)) as server, AgentCaller(server.url) as c:
        id = await c.job()
        await c.cancel(id)
        assert [(await c.seen(id))["status"] for _ in range(2)][-1] == end
        assert server.ledger.jobs[0].cancelled == (end == "cancelled")


async def test_queued_run_can_be_cancelled() -> None:
    async with Emulator(time_scale=0.001, cancel_delay=0) as server, AgentCaller(server.url) as c:
        id = await c.job()
        await c.cancel(id)
        told = await c.seen(id)
        assert (told["status"], told["output"]) == ("cancelled", [])
        assert server.ledger.billed == 0


async def test_without_background_the_connection_waits_for_the_end() -> None:
    async with Emulator(duration=600, time_scale=600) as server, AgentCaller(server.url) as c:
        began = server.now()
        told = (await c.submit({"preset": "fast", "input": QUESTION})).json
        assert server.now() - began >= 600
        assert (told["status"], told["background"]) == ("completed", False)
        assert told["created_at"] == told["completed_at"]
        assert fits("ResponsesResponse", told)
        assert (await c.seen(told["id"]))["output"] == told["output"]
        assert server.ledger.created == 1


async def test_without_background_a_poll_counted_run_answers_at_once() -> None:
    async with Emulator(duration=AfterPolls(50)) as server, AgentCaller(server.url) as c:
        assert (await c.submit({"preset": "fast", "input": QUESTION})).json["status"] == "completed"


# --- refusals


async def test_unknown_field_is_named_wherever_it_stands() -> None:
    tool = {"type": "web_search", "filters": {"search_mode": "sec"}}
    part = {"role": "user", "content": [{"type": "input_text", "text": "x", "search_mode": 1}]}
    async with Emulator() as server, AgentCaller(server.url) as c:
        for body in (
            run(search_mode="sec"),
            run(tools=[tool]),
            run(tools=[{"type": "web_search", "search_mode": 1}]),
            run([{"role": "user", "content": "x", "search_mode": 1}]),
            run([part]),
            run(reasoning={"search_mode": 1}),
            run(response_format={"type": "text", "search_mode": 1}),
        ):
            assert await c.refused(body) == {
                "message": 'invalid request body: json: unknown field "search_mode"',
                "type": "invalid_request",
                "param": "search_mode",
            }
        assert server.ledger.created == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input": ""}, "input cannot be empty"),
        ({"input": []}, "input array cannot be empty"),
        ({"input": 7}, "input array cannot be empty"),
        ({"input": None}, "input array cannot be empty"),
        ({"max_steps": 0}, "max steps must be at least 1"),
        (
            {"model": "anthropic/claude"},
            "max_output_tokens is required when using Anthropic models",
        ),
        (
            {"response_format": {"type": "json_schema"}},
            'response_format.json_schema is required when type is "json_schema"',
        ),
    ],
)
async def test_captured_refusals_keep_their_words(fields: dict[str, Any], message: str) -> None:
    async with Emulator() as server, AgentCaller(server.url) as c:
        error = await c.refused({**run(), **fields})
        assert error == {"message": f"validation failed: {message}", "type": "invalid_request"}


async def test_bad_recency_and_schema_get_the_captured_refusals() -> None:
    tool = {"type": "web_search", "filters": {"search_recency_filter": "decade"}}
    form = {"type": "json_schema", "json_schema": {"schema": {"type": "bogus"}}}
    async with Emulator() as server, AgentCaller(server.url) as c:
        assert (await c.submit(run(tools=[tool]))).json == payload("agent-bad-filter-400.real")
        error = await c.refused(run(response_format=form))
        assert error["type"] == "invalid_parameter"
        assert error["message"].startswith("json_schema.schema must have a root type of 'object' (got type=\"bogus\")")


@pytest.mark.parametrize(
    ("fields", "type"),
    [
        ({"preset": None}, "invalid_request"),
        ({"preset": "sonar-deep-research"}, "invalid_request"),
        ({"model": "sonar-deep-research"}, "invalid_model"),
        ({"models": []}, "invalid_request"),
        ({"models": ["openai/a"] * 6}, "invalid_request"),
        ({"models": ["a"]}, "invalid_model"),
        ({"max_steps": 101}, "invalid_request"),
        ({"max_output_tokens": 0}, "invalid_request"),
        ({"max_output_tokens": 1.5}, "invalid_request"),
        ({"temperature": 2.1}, "invalid_request"),
        ({"top_p": -0.1}, "invalid_request"),
        ({"background": "yes"}, "invalid_request"),
        ({"stream": True}, "invalid_request"),
        ({"service_tier": "slow"}, "invalid_request"),
        ({"reasoning": {"effort": "huge"}}, "invalid_request"),
        ({"metadata": {str(n): "" for n in range(17)}}, "invalid_request"),
        ({"metadata": {"a": 1}}, "invalid_request"),
        ({"metadata": {"a": "x" * 513}}, "invalid_request"),
        ({"response_format": {"type": "regex"}}, "invalid_request"),
        ({"tool_choice": "maybe"}, "invalid_request"),
        ({"tools": [{"type": "browse"}]}, "invalid_request"),
        ({"tools": [{"type": "function"}]}, "invalid_request"),
        ({"tools": [{"type": "web_search", "max_results": 51}]}, "invalid_request"),
        ({"tools": [{"type": "fetch_url", "max_urls": 11}]}, "invalid_request"),
        ({"input": [{"role": "robot", "content": "x"}]}, "invalid_request"),
        ({"input": [{"role": "user"}]}, "invalid_request"),
        ({"input": [{"role": "user", "content": [{"type": "pdf_url", "text": "x"}]}]}, "invalid_request"),
        ({"input": [{"type": "audio"}]}, "invalid_request"),
        ({"input": ["x"]}, "invalid_request"),
        ({"previous_response_id": NOBODY}, "invalid_request"),
    ],
)
async def test_body_against_the_rules_is_a_400_without_effect(fields: dict[str, Any], type: str) -> None:
    async with Emulator() as server, AgentCaller(server.url) as c:
        assert (await c.refused({**run(), **fields}))["type"] == type
        assert server.ledger.created == 0


@pytest.mark.parametrize(
    ("filters", "type"),
    [
        ({"search_recency_filter": "week", "search_after_date_filter": "3/1/2025"}, "invalid_request"),
        ({"search_after_date_filter": "yesterday"}, "invalid_date_format"),
        ({"search_domain_filter": ["a.org"] * 21}, "invalid_search_domain_filter"),
        ({"search_domain_filter": ["https://a.org"]}, "invalid_search_domain_filter"),
        ({"search_domain_filter": ["a" * 254]}, "invalid_search_domain_filter"),
        ({"search_domain_filter": "a.org"}, "invalid_request"),
    ],
)
async def test_filter_against_the_rules_is_a_400(filters: dict[str, Any], type: str) -> None:
    async with Emulator() as server, AgentCaller(server.url) as c:
        assert (await c.refused(run(tools=[{"type": "web_search", "filters": filters}])))["type"] == type


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"input": ' + b"[" * 100_000, b"[]", b"3", b"null"])
async def test_body_other_than_a_json_object_is_refused(body: bytes) -> None:
    async with Emulator() as server, AgentCaller(server.url) as c:
        assert (await c.refused(body))["message"].startswith("invalid request body: ")


@pytest.mark.parametrize(
    "fields",
    [
        {"preset": "deep-research"},
        {"preset": None, "effort": "xhigh"},
        {"preset": None, "models": ["openai/a", "anthropic/b"], "max_output_tokens": 4096},
        {"preset": None, "profile": {"id": "p", "type": "custom"}},
        {"max_steps": 100, "temperature": 0, "stream": False, "tool_choice": {"type": "web_search"}},
        {"tools": [{"type": "function", "name": "f", "parameters": {}}, {"type": "mcp", "server_label": "s"}]},
        {
            "tools": [
                {
                    "type": "web_search",
                    "filters": {"search_domain_filter": ["-a.org"], "search_after_date_filter": "3/1/2025"},
                    "search_context_size": "high",
                    "user_location": {"country": "SE", "latitude": 59.3},
                }
            ]
        },
        {"response_format": {"type": "text"}},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "{}"}]},
    ],
)
async def test_valid_body_is_accepted(fields: dict[str, Any]) -> None:
    body = {name: value for name, value in {**run(), **fields}.items() if value is not None}
    assert fits("ResponsesRequest", body)
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        waits = any(tool["type"] == "function" for tool in body.get("tools", ()))
        assert (await c.seen(await c.job(body)))["status"] == ("requires_action" if waits else "completed")
        # Null stands for absent.
        assert (await c.submit({**body, "stop": None})).status == 400
        assert (await c.submit({**body, "truncation": None})).status == 200


async def test_run_continues_only_a_completed_run_of_its_own() -> None:
    async with (
        Emulator(duration=100, time_scale=0.001, keys={"a", "b"}) as server,
        AgentCaller(server.url, "a") as mine,
        AgentCaller(server.url, "b") as yours,
    ):
        first = await mine.job(run(store=False))
        assert (await mine.submit(run(previous_response_id=first))).status == 400
        server.advance(200)
        told = (await mine.submit(run(previous_response_id=first))).json
        assert told["previous_response_id"] == first
        assert (await yours.submit(run(previous_response_id=first))).status == 400


# --- ids


async def test_malformed_id_gets_400_and_unknown_one_404() -> None:
    async with Emulator() as server, AgentCaller(server.url) as c:
        for answer in (await c.get("resp_1"), await c.get(NOBODY[5:]), await c.cancel("req_abc")):
            error = {"message": "invalid response id", "type": "invalid_request", "code": 400}
            assert (answer.status, answer.json) == (400, {"error": error})
        unknown = await c.get(NOBODY)
        assert (unknown.status, unknown.json) == (404, payload("agent-get-404.real"))


async def test_other_accounts_and_unstored_runs_are_not_found() -> None:
    async with (
        Emulator(duration=0, keys={"a", "b"}) as server,
        AgentCaller(server.url, "a") as mine,
        AgentCaller(server.url, "b") as yours,
    ):
        id = await mine.job()
        assert (await yours.get(id)).status == 404
        assert (await yours.cancel(id)).status == 400
        hidden = (await mine.submit(run(store=False))).json
        assert hidden["store"] is False
        assert (await mine.get(hidden["id"])).json == payload("agent-get-404.real")
        assert server.ledger.created == 2
        assert server.ledger.jobs[1].billed


async def test_two_apis_do_not_see_each_others_jobs() -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url) as agent, Caller(server.url) as sonar:
        run_id, job_id = await agent.job(), await sonar.job()
        assert [row["id"] for row in (await sonar.list()).json["requests"]] == [job_id]
        assert (await sonar.get(run_id)).status == 404
        assert (await agent.get(f"resp_{job_id}")).status == 404
        assert (await agent.get(job_id)).status == 400
        assert server.ledger.created_by_api == {"agent": 1, "sonar": 1}
        assert server.ledger.billed == pytest.approx(sum(job.cost for job in server.ledger.jobs))


@pytest.mark.parametrize("base", BASES)
async def test_there_is_no_list_and_no_delete(base: str) -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url, base=base) as c:
        id = await c.job()
        assert (await c.call("GET", base)).status == 405
        assert (await c.call("DELETE", f"{base}/{id}")).status == 405
        assert (await c.call("GET", f"{base}/{id}/cancel")).status == 405
        assert (await c.call("GET", f"{base}/")).status == 404
        assert (await c.get(f"{id}?stream=true&starting_after=0")).status == 400
        assert (await c.get(f"{id}?format=short&stream=false")).status == 200


async def test_repeated_create_is_another_run_and_another_bill() -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        headers = {"Idempotency-Key": "k"}
        one, two = [(await c.submit(headers=headers)).json["id"] for _ in range(2)]
        assert one != two
        assert server.ledger.created == 2
        assert server.ledger.billed == pytest.approx(2 * server.ledger.jobs[0].cost)
        assert server.ledger.created_by_key == {}


# --- headers, rates, money


async def test_each_answer_has_a_request_id_of_its_own() -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        made = await c.submit()
        assert "resp_" + made.headers["x-request-id"] == made.json["id"]
        polls = [(await c.get(made.json["id"])).headers["x-request-id"] for _ in range(2)]
        assert len({made.headers["x-request-id"], *polls}) == 3
        assert not [name for name in made.headers if name.lower().startswith("x-ratelimit")]
        refused = (await c.submit(b"{")).headers
        assert "x-request-id" in refused


@pytest.mark.parametrize(("tier", "burst"), [(0, 50), (1, 150), (2, 500), (3, 1000), (4, 2000), (5, 2000)])
async def test_tier_shows_its_one_rate_for_all_requests(tier: int, burst: int) -> None:
    real = payload("agent-response-headers.real", "headers")
    async with Emulator(tier=tier, time_scale=0.0001) as server, AgentCaller(server.url, keep=True) as c:
        first = await c.submit()
        names = {name.lower() for name in first.headers if name.lower().startswith("x-r")}
        assert names == {name for name in real if name.startswith("x-r")}
        told = [first.headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining", "used")]
        assert told == [str(burst), str(burst - 1), "1"]
        date = parsedate_to_datetime(first.headers["Date"]).timestamp()
        assert int(first.headers["x-ratelimit-reset"]) - date == 1
        second = await c.get(first.json["id"])
        assert second.headers["x-ratelimit-remaining"] == str(burst - 2)
        assert (await c.cancel(first.json["id"])).headers["x-ratelimit-used"] == "3"


async def test_full_rate_is_a_429_without_retry_after() -> None:
    async with Emulator(rpm=2, time_scale=0.001) as server, AgentCaller(server.url) as c:
        id = await c.job()
        await c.get(id)
        for answer in (await c.get(id), await c.submit(), await c.cancel(id)):
            assert answer.status == 429
            assert fits("ApiError", answer.json)
            assert answer.json["error"]["type"] == "request_rate_limit_exceeded"
            assert (answer.headers["x-ratelimit-remaining"], answer.headers["x-ratelimit-used"]) == ("0", "2")
            date = parsedate_to_datetime(answer.headers["Date"]).timestamp()
            assert int(answer.headers["x-ratelimit-reset"]) > date
            assert "x-request-id" in answer.headers
            assert "Retry-After" not in answer.headers
        server.advance(30)
        assert [(await c.submit()).status for _ in range(2)] == [200, 429]
        assert server.ledger.created == 2


async def test_rates_of_the_two_apis_are_apart() -> None:
    async with (
        Emulator(rpm=1, time_scale=0.001, limit_hints="retry-after") as server,
        AgentCaller(server.url) as agent,
        Caller(server.url) as sonar,
    ):
        assert [(await caller.submit()).status for caller in (agent, sonar, agent, sonar)] == [200, 200, 429, 429]
        assert "Retry-After" in (await agent.submit()).headers
        assert not [name for name in (await sonar.submit()).headers if name.lower().startswith("x-ratelimit")]


async def test_used_up_credit_is_a_401_but_polls_continue() -> None:
    async with (
        Emulator(duration=0, credits=0.001) as server,
        AgentCaller(server.url) as agent,
        Caller(server.url) as sonar,
    ):
        id = await agent.job()
        for refused in (await agent.submit(), await sonar.submit()):
            assert (refused.status, refused.json["error"]["type"]) == (401, "insufficient_quota")
        assert (await agent.get(id)).status == 200
        server.credits = None
        assert (await agent.submit()).status == 200


async def test_wrong_key_is_refused_before_anything_else() -> None:
    async with Emulator(keys={"k"}) as server, AgentCaller(server.url, "wrong") as c:
        for answer in (await c.submit(b"{"), await c.get(NOBODY), await c.cancel("x")):
            assert (answer.status, answer.json["error"]["type"]) == (401, "invalid_api_key")


# --- the end of the other family


@pytest.mark.parametrize("name", ["chat_completions_not_available", "agent_api_migration_required"])
async def test_this_api_serves_on_where_sonar_is_retired(name: str) -> None:
    async with (
        Emulator(duration=0, retired=name) as server,
        AgentCaller(server.url) as agent,
        Caller(server.url) as sonar,
    ):
        real = payload("async-403-retired.real")
        for answer in (await sonar.submit(), await sonar.list(), await sonar.get("x")):
            assert (answer.status, answer.json["error"]["type"]) == (403, name)
            assert answer.json["error"]["message"] == real["error"]["message"]
        assert (await agent.seen(await agent.job()))["status"] == "completed"
        assert server.ledger.created_by_api == {"agent": 1}


async def test_old_jobs_of_a_retired_family_can_stay_readable() -> None:
    async with Emulator(duration=0) as server, Caller(server.url) as c:
        id = await c.job()
        server.retire(readable=True)
        assert (await c.get(id)).json["status"] == "COMPLETED"
        assert [(await c.submit()).status, (await c.list()).status] == [403, 403]
        assert (await c.call("POST", "/_control/retire", {"readable": False})).status == 200
        assert (await c.get(id)).status == 403
        assert (await c.call("POST", "/_control/retire", {"readable": True})).status == 200
        assert (await c.get(id)).status == 200


# --- chance


async def test_same_seed_and_questions_make_the_same_run() -> None:
    async def played(seed: int) -> list[Any]:
        async with (
            Emulator(seed=seed, failure_rate=0.3, answer_chars=3000) as server,
            AgentCaller(server.url, keep=True) as c,
        ):
            ids = [await c.job(run(f"Question {n % 10}")) for n in range(30)]
            spans = [(round(job.finished_at - job.created_at, 3), job.fails, job.cost) for job in server.ledger.jobs]
            server.advance(3600)
            told = [await c.seen(id) for id in ids]
        return [ids, spans, [{**one, "created_at": 0, "completed_at": 0} for one in told]]

    first, second, other = await played(1), await played(1), await played(2)
    assert first == second
    assert first[0] != other[0]
    assert first[1] != other[1]
    assert first[2] != other[2]
    assert 2 <= sum(fails for _, fails, _ in first[1]) <= 20


# --- faults


@pytest.mark.parametrize("base", BASES)
async def test_lost_answer_leaves_a_run_unknown_to_the_client(base: str) -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url, base=base) as c:
        server.faults.add("submit", faults.Status(502, html=True, after_accept=True), times=1)
        assert (await c.submit()).status == 502
        assert (server.ledger.created, server.ledger.log[-1].job_id) == (1, server.ledger.jobs[0].id)


async def test_fault_can_be_for_cancels_alone() -> None:
    async with Emulator(duration=AfterPolls(9)) as server, AgentCaller(server.url) as c:
        rule = server.faults.add("cancel", faults.Status(503), times=1)
        id = await c.job()
        assert (await c.seen(id))["status"] == "in_progress"
        assert [(await c.cancel(id)).status for _ in range(2)] == [503, 200]
        assert rule.hits == 1
        assert server.ledger.log[-1].on == "cancel"


@pytest.mark.parametrize("word", ["requires_action", "cancelling", "unheard_of"])
async def test_run_can_have_any_status_until_it_ends(word: str) -> None:
    async with Emulator(duration=AfterPolls(2)) as server, AgentCaller(server.url) as c:
        server.faults.add("*", faults.SayStatus(word))
        made = (await c.submit()).json
        assert made["status"] == word
        assert [(await c.seen(made["id"]))["status"] for _ in range(2)] == [word, "completed"]
        asked = await c.cancel(await c.job())
        assert asked.json["status"] == "cancelling"


async def test_corrupted_answers_have_the_shapes_of_this_api() -> None:
    async with Emulator(duration=0, answer_chars=500) as server, AgentCaller(server.url) as c:
        first, id = await c.job(run("first")), await c.job()
        await c.get(id)
        told: dict[str, Any] = {}
        for how in ("null_response", "no_response", "empty_choices", "null_content", "flip", "list", "other_job"):
            server.faults.clear()
            rule = server.faults.add("get", faults.NAMED[how])
            told[how] = (await c.get(id)).json
            assert rule.hits == 1, how
        assert told["null_response"]["output"] is None
        assert "output" not in told["no_response"]
        assert told["empty_choices"]["output"] == []
        assert told["null_content"]["output"][-1]["content"] is None
        assert (told["flip"]["id"], told["flip"]["status"]) == (id, "in_progress")
        assert [one["id"] for one in told["list"]["data"]] == [id, first]
        assert told["other_job"]["id"] == first
        server.faults.clear()
        server.faults.add("submit", faults.NAMED["duplicate_id"])
        assert (await c.submit(run("third"))).json["id"] == first
        server.faults.clear()
        server.faults.add("get", faults.NAMED["bad_row"])
        assert (await c.seen(id))["status"] == "completed"


async def test_every_general_corruption_works_on_agent_answers() -> None:
    async with Emulator(duration=0, answer_chars=500) as server, AgentCaller(server.url) as c:
        id = await c.job()
        plain = (await c.get(id)).body
        for how in ("html", "empty", "truncated", "unknown_fields", "id_null", "id_missing", "invalid_utf8"):
            server.faults.clear()
            server.faults.add("get", faults.NAMED[how])
            assert (await c.get(id)).body != plain, how


# --- the whole of it


async def test_many_runs_at_once_are_all_billed_once() -> None:
    async with Emulator(duration=30, time_scale=0.001, answer_chars=300) as server:
        async with AgentCaller(server.url, keep=True) as c:
            ids = await asyncio.gather(*(c.job(run(f"Question {n}")) for n in range(200)))
            server.advance(60)
            told = await asyncio.gather(*(c.seen(id) for id in ids))
        assert {one["status"] for one in told} == {"completed"}
        assert [one["id"] for one in told] == ids
        assert server.ledger.billed == pytest.approx(sum(one["usage"]["cost"]["total_cost"] for one in told))


async def test_sonar_works_unchanged_beside_it() -> None:
    async with Emulator(duration=0) as server, Caller(server.url) as c:
        headers = (await c.submit(asking())).headers
        assert "x-request-id" not in headers
        assert server.ledger.requests == {f"POST {OLD}": 1}
