"""The emulated Agent API takes `effort` as the service's page has it since October 2026, and `preset` as its twin."""

from __future__ import annotations

from typing import Any

import pytest
from _agent_caller import QUESTION, AgentCaller, fits, run

from aiopplx.emulator import Emulator

LEVELS = ["fast", "low", "medium", "high", "xhigh"]


def asked(**fields: Any) -> dict[str, Any]:
    return {"background": True, "input": QUESTION, **fields}


@pytest.mark.parametrize("version", ["", "@2026-10-16.0", "@2027-01-02.13"])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("field", ["effort", "preset"])
async def test_level_is_taken_by_name_or_version(field: str, level: str, version: str) -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        body = asked(**{field: level + version})
        assert fits("ResponsesRequest", body)
        told = (await c.submit(body)).json
        assert told["effort"] == told["preset"] == level + (version or "@2026-10-16.0")
        assert told["model"] == level
        assert fits("ResponsesResponse", told)


async def test_pinned_level_does_as_much_as_the_level() -> None:
    async with Emulator(duration=0) as server, AgentCaller(server.url) as c:
        bills = [
            (await c.seen(await c.job(asked(effort=name))))["usage"]["cost"]["total_cost"]
            for name in ("medium@2026-10-16.0", "high", "high@2026-10-16.0")
        ]
        assert bills[0] * 5 < min(bills[1:])


async def test_effort_takes_precedence_over_preset() -> None:
    async with Emulator() as server, AgentCaller(server.url) as c:
        told = (await c.submit(asked(effort="low", preset="high"))).json
        assert told["effort"] == told["preset"] == "low@2026-10-16.0"
        assert (await c.submit(asked(effort=None, preset="high"))).json["model"] == "high"


async def test_bare_model_echoes_no_level() -> None:
    async with Emulator() as server, AgentCaller(server.url) as c:
        told = (await c.submit(asked(model="openai/gpt-6-luna"))).json
        assert not {"effort", "preset"} & told.keys()


@pytest.mark.parametrize(
    "fields",
    [
        *({"effort": name} for name in ("bogus", "pro-search", "high@", "high@latest", "@2026-10-16.0", "HIGH")),
        *({"preset": name} for name in ("bogus", "high@", "high@16.0")),
        {"effort": "high", "profile": {"type": "custom", "id": "p"}},
        {"preset": "high", "profile": {"type": "custom", "id": "p"}},
    ],
)
async def test_unknown_level_or_a_profile_beside_it_is_refused(fields: dict[str, Any]) -> None:
    async with Emulator() as server, AgentCaller(server.url) as c:
        assert (await c.refused(asked(**fields)))["message"].startswith("validation failed: ")
        assert server.ledger.created == 0


async def test_earlier_release_names_the_field_it_does_not_know() -> None:
    async with Emulator(unknown_fields={"effort"}) as server, AgentCaller(server.url) as c:
        refused = await c.refused(asked(effort="high"))
        assert refused["param"] == "effort"
        assert refused["message"] == 'invalid request body: json: unknown field "effort"'
        assert (await c.submit(asked(preset="high"))).status == 200


async def test_short_form_leaves_out_what_was_found() -> None:
    async with Emulator(duration=100, time_scale=0.001) as server, AgentCaller(server.url) as c:
        id = await c.job(run())
        server.advance(80)
        whole, short = (await c.get(id)).json, (await c.get(f"{id}?format=short")).json
        assert len(whole["output"]) > 0
        assert short["output"] == []
        assert {**short, "output": None} == {**whole, "output": None}
        server.advance(30)
        done = (await c.get(f"{id}?format=short")).json
        assert [item["type"] for item in done["output"]] == ["message"]
        assert done["usage"]["cost"]["total_cost"] > 0
        assert (await c.get(f"{id}?format=tiny")).status == 400
