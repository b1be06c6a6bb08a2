"""Tools that have a struct are checked before anything is sent, as a struct or as a mapping."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aiopplx import AgentRequest, InvalidRequest
from aiopplx.agent import (
    AGENT,
    ConnectorTool,
    ImageSearchFilters,
    ImageSearchTool,
    MCPTool,
    PeopleSearchTool,
)

MCP = {"type": "mcp", "server_label": "shop", "server_url": "https://shop.example/mcp"}
CONNECTOR = {"type": "connector", "id": "c_1", "server_label": "drive"}

SAME: list[tuple[Any, dict[str, Any]]] = [
    (PeopleSearchTool(), {"type": "people_search"}),
    (ImageSearchTool(), {"type": "image_search"}),
    (
        ImageSearchTool(filters=ImageSearchFilters(format_filter=["png"], safe_search=True), max_results=3),
        {"type": "image_search", "filters": {"format_filter": ["png"], "safe_search": True}, "max_results": 3},
    ),
    (ConnectorTool(id="c_1", server_label="drive"), CONNECTOR),
    (MCPTool(server_label="shop", server_url="https://shop.example/mcp"), MCP),
    (
        MCPTool(
            server_label="shop",
            server_url="https://shop.example/mcp",
            allowed_tools=["buy"],
            authorization="secret",
            headers={"X-Team": "secret"},
            require_approval="never",
            defer_loading=True,
        ),
        {
            **MCP,
            "allowed_tools": ["buy"],
            "authorization": "secret",
            "headers": {"X-Team": "secret"},
            "require_approval": "never",
            "defer_loading": True,
        },
    ),
]


@pytest.mark.parametrize(("struct", "mapping"), SAME)
def test_struct_and_mapping_are_sent_alike(struct: Any, mapping: dict[str, Any]) -> None:
    for tool in (struct, mapping):
        assert json.loads(AGENT.freeze(AgentRequest("q", tools=[tool]), "k"))["tools"] == [mapping]


@pytest.mark.parametrize(
    ("tool", "field"),
    [
        ({"type": "people_search", "name": "x"}, "tools[0].name"),
        ({"type": "image_search", "max_results": 0}, "tools[0].max_results"),
        ({"type": "image_search", "filters": {"format_filter": ["tiff"]}}, "tools[0].filters.format_filter[0]"),
        ({"type": "connector", "id": "c_1"}, "tools[0].server_label"),
        ({**CONNECTOR, "id": ""}, "tools[0].id"),
        ({**CONNECTOR, "server_label": "my drive"}, "tools[0].server_label"),
        ({"type": "mcp", "server_label": "shop"}, "tools[0].server_url"),
        ({**MCP, "server_url": "http://shop.example"}, "tools[0].server_url"),
        ({**MCP, "require_approval": "sometimes"}, "tools[0].require_approval"),
        (MCPTool(server_label="", server_url="https://shop.example"), "tools[0].server_label"),
    ],
)
def test_tool_against_its_rules_is_refused_by_field(tool: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        AGENT.freeze(AgentRequest("q", tools=[tool]), "k")
    assert field.startswith(caught.value.field)
    assert caught.value.field.startswith("tools[0]")


def test_secrets_of_an_mcp_server_are_not_shown() -> None:
    tool = SAME[-1][0]
    assert "secret" not in repr(tool) + repr([tool])
    with pytest.raises(InvalidRequest) as caught:
        AGENT.freeze(AgentRequest("q", tools=[{**SAME[-1][1], "server_url": "secret"}]), "k")
    assert "secret" not in str(caught.value)
