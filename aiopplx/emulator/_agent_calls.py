"""What a run of the Agent API waits for at its end: results of the caller's functions, approvals of tool calls.

Whether a model calls a function is its own decision; here it always does, unless the request rules that out or brings
results already. Pure; it knows nothing of routes, of bills or of when a run ends.
"""

from __future__ import annotations

import random
import uuid
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

import msgspec

from aiopplx.emulator._agent_request import Asking
from aiopplx.emulator._example import Example
from aiopplx.emulator._json_types import is_list, is_object

_RESULTS = ("function_call_output", "mcp_approval_response")
_APPROVED = ("mcp", "connector")


class Pending(NamedTuple):
    """One thing that a run waits for; `name` is the function's, or the label of the server that has the tool."""

    kind: Literal["function_call", "mcp_approval_request"]
    name: str
    parameters: dict[str, Any]


def pending(asking: Asking) -> tuple[Pending, ...]:
    """What a run of this request waits for at its end; nothing if it completes."""
    if asking.tool_choice == "none" or asking.max_tool_calls == 0 or brings_results(asking):
        return ()
    tools = asking.tools or []
    functions = [
        Pending("function_call", str(tool["name"]), tool.get("parameters") or {})
        for tool in tools
        if tool.get("type") == "function"
    ]
    if is_object(asking.tool_choice):
        functions = [function for function in functions if function.name == asking.tool_choice.get("name")]
    if functions:
        return tuple(functions if asking.parallel_tool_calls else functions[:1])
    approvals = [tool for tool in tools if tool.get("type") in _APPROVED and tool.get("require_approval") == "always"]
    return tuple(Pending("mcp_approval_request", str(tool.get("server_label")), {}) for tool in approvals[:1])


def brings_results(asking: Asking) -> bool:
    """Whether the request continues a run with what that run waited for."""
    return is_list(asking.input) and any(item.get("type") in _RESULTS for item in asking.input)


def items(job_id: str, waits_for: tuple[Pending, ...], rng: random.Random) -> list[bytes]:
    """The output items of what a run waits for, as JSON, members in the order of the service's types."""
    return [_item(f"{job_id}/{at}", each, rng) for at, each in enumerate(waits_for)]


def _item(seed: str, each: Pending, rng: random.Random) -> bytes:
    own = uuid.UUID(bytes=blake2b(seed.encode(), digest_size=16).digest(), version=4)
    arguments = Example(each.parameters, rng).make()
    said = msgspec.json.encode(arguments if is_object(arguments) else {}).decode()
    if each.kind == "function_call":
        return msgspec.json.encode({
            "arguments": said,
            "call_id": f"call_{own.hex}",
            "id": f"fc_{own}",
            "name": each.name,
            "status": "completed",
            "type": each.kind,
        })
    return msgspec.json.encode({
        "arguments": said,
        "id": f"mcpr_{own}",
        "name": "search",
        "server_label": each.name,
        "type": each.kind,
    })
