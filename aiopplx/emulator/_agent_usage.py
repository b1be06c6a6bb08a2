"""What an Agent API run does and costs: its searches, pages, tokens and dollars, drawn at random.

The small prices are those of one captured run of the preset `medium`. Pure; it knows nothing of texts or of HTTP.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import msgspec

from aiopplx.emulator._agent_calls import pending
from aiopplx.emulator._agent_request import Asking

CHARS_PER_TOKEN = 5.29
# US dollars for one search: as part of a preset, and with a model named in the request.
SEARCH, SEARCH_ALONE = 0.001, 0.0025
READER = "openai/gpt-5.6-luna"
# Fitted: the three captured pages cost 0.01052 for 6,879 tokens in and 6,083 out.
READER_INPUT, READER_OUTPUT = 2.5e-7, 1.4466e-6
TOKENS_PER_SEARCH = 4_880
# Each search reserves this many ids, however many results it finds: a run's ids have gaps.
IDS_PER_SEARCH = 10
# A smaller `max_output_tokens` is raised to this.
LEAST_OUTPUT = 16


class Tariff(NamedTuple):
    """A model, and its dollars per token."""

    model: str
    input: float
    cache_write: float
    cache_read: float
    output: float


SMALL = Tariff("openai/gpt-6-luna", 1e-7, 1.25e-7, 1e-8, 5e-7)
# Invented: no capture shows which model serves the larger presets. The bills match the known ones in size.
LARGE = Tariff("emulated/large", 1.25e-6, 1.5e-6, 1.25e-7, 1e-5)


class Size(NamedTuple):
    """Ranges of how much a preset does."""

    tariff: Tariff
    chars: tuple[int, int]
    searches: tuple[int, int]
    fetches: tuple[int, int]


SIZES = {
    "fast": Size(SMALL, (400, 1_200), (1, 1), (0, 0)),
    "low": Size(SMALL, (1_500, 3_500), (1, 3), (0, 1)),
    "medium": Size(SMALL, (3_000, 7_000), (3, 5), (2, 4)),
    "high": Size(LARGE, (45_000, 62_000), (12, 24), (6, 12)),
    "xhigh": Size(LARGE, (60_000, 85_000), (20, 36), (10, 18)),
}


class Read(NamedTuple):
    """What reading one page consumed."""

    input_tokens: int
    output_tokens: int
    reasoning_tokens: int


class Run(msgspec.Struct, frozen=True):
    """A run as it will stand at its end. `found` is the number of results of each search.

    `cut`: it ends incomplete. With `chars` 0 nothing was written: it was cut before, or it waits for its caller.
    """

    tariff: Tariff
    chars: int
    found: tuple[int, ...]
    reads: tuple[Read, ...]
    search_price: float
    input_tokens: int
    cache_write: int
    cache_read: int
    output_tokens: int
    reasoning_tokens: int
    cut: bool


def draw(rng: random.Random, asking: Asking, chars: int | None) -> Run:
    """Draws a run. With `chars` None the length suits the preset."""
    size = SIZES[asking.level or "medium"]
    length = rng.randint(*size.chars)
    if chars is not None:
        length = max(1, int(chars * rng.uniform(0.9, 1.1)))
    written = max(1, round(length / CHARS_PER_TOKEN))
    reasoning = round(written * rng.uniform(0.6, 1.0))
    most = max(LEAST_OUTPUT, asking.max_output_tokens or written + reasoning)
    if pending(asking):
        run = _run(rng, asking, size, length, 0, min(reasoning, most), cut=False)
        return msgspec.structs.replace(run, chars=0)
    if written + reasoning > most:
        return _cut(rng, asking, size, most, reasoning)
    return _run(rng, asking, size, length, written, reasoning, cut=False)


def _cut(rng: random.Random, asking: Asking, size: Size, most: int, reasoning: int) -> Run:
    """A run that `max_output_tokens` ends early; below 100 tokens it ends during reasoning, before any search."""
    if most >= 100:
        thought = min(reasoning, most // 2)
        return _run(rng, asking, size, int((most - thought) * CHARS_PER_TOKEN), most - thought, thought, cut=True)
    said = _prompt(asking)
    return Run(size.tariff, 0, (), (), 0.0, said, 0, 0, most, most, cut=True)


def _run(
    rng: random.Random, asking: Asking, size: Size, length: int, written: int, reasoning: int, *, cut: bool
) -> Run:
    found = _found(rng, length, rng.randint(*size.searches)) if _uses(asking, "web_search") else ()
    reads = _reads(rng, _fetches(rng, asking, size, found)) if _uses(asking, "fetch_url") else ()
    prompt = _prompt(asking)
    work = len(found) + len(reads)
    return Run(
        tariff=size.tariff,
        chars=length,
        found=found,
        reads=reads,
        search_price=SEARCH if asking.bundle else SEARCH_ALONE,
        input_tokens=3 * work if work else prompt,
        cache_write=prompt + len(found) * TOKENS_PER_SEARCH + sum(read.output_tokens for read in reads) if work else 0,
        cache_read=int(work * work * 270) if work > 1 else 0,
        output_tokens=written + reasoning,
        reasoning_tokens=reasoning,
        cut=cut,
    )


def _prompt(asking: Asking) -> int:
    return max(1, round(asking.chars / 4.3)) + 20


def _uses(asking: Asking, tool: str) -> bool:
    """A list of tools replaces those of the preset; a bare model has none of its own."""
    listed = asking.has_tool(tool)
    return asking.max_tool_calls != 0 and (bool(asking.bundle) if listed is None else listed)


def _found(rng: random.Random, length: int, searches: int) -> tuple[int, ...]:
    """Number of results of each search. A short answer cites few sources, so that small answers make small bodies."""
    remaining = max(2, length // 300)
    found: list[int] = []
    while remaining > 0 and len(found) < searches:
        found.append(min(remaining, rng.randint(2, IDS_PER_SEARCH)))
        remaining -= found[-1]
    return tuple(found)


def _fetches(rng: random.Random, asking: Asking, size: Size, found: tuple[int, ...]) -> int:
    """Number of pages read. They are among those found; a run that searches nothing reads what it knows."""
    drawn = rng.randint(*size.fetches)
    if asking.has_tool("fetch_url"):
        return min(max(1, drawn), sum(found)) if found else max(1, drawn)
    return min(drawn, sum(found))


def _reads(rng: random.Random, count: int) -> tuple[Read, ...]:
    return tuple(
        Read(rng.randint(1_300, 3_000), rng.randint(1_300, 2_700), rng.randint(140, 280)) for _ in range(count)
    )


def _read_cost(read: Read) -> float:
    return read.input_tokens * READER_INPUT + read.output_tokens * READER_OUTPUT


def tool_costs(run: Run, used: int | None = None) -> dict[str, float]:
    """US dollars for the tools, by billing name, after this many uses, searches first; None means all of them."""
    searches = len(run.found[:used])
    reads = run.reads if used is None else run.reads[: max(0, used - len(run.found))]
    costs = {
        "fetch_url": round(sum(map(_read_cost, reads)), 5),
        "search_web": round(searches * run.search_price, 5),
    }
    return {tool: dollars for tool, dollars in costs.items() if dollars}


def _cost(run: Run) -> dict[str, Any]:
    """The `cost` member. Its parts are rounded before they are added up, as in the captures."""
    price = run.tariff
    parts = {
        "cache_creation_cost": round(run.cache_write * price.cache_write, 5),
        "cache_read_cost": round(run.cache_read * price.cache_read, 5),
        "currency": "USD",
        "input_cost": round(run.input_tokens * price.input, 5),
        "output_cost": round(run.output_tokens * price.output, 5),
    }
    if not run.cache_write:
        del parts["cache_creation_cost"]
    if not run.cache_read:
        del parts["cache_read_cost"]
    tools = tool_costs(run)
    if tools:
        parts |= {"tool_calls_cost": round(sum(tools.values()), 5), "tool_calls_cost_details": tools}
    dollars = [part for part in parts.values() if isinstance(part, float)]
    return {**parts, "total_cost": round(sum(dollars), 5)}


def cost(run: Run) -> float:
    """US dollars of the whole run."""
    total: float = _cost(run)["total_cost"]
    return total


def usage(run: Run) -> dict[str, Any]:
    """The `usage` member, members in the captured order; members that do not apply are absent."""
    total_input = run.input_tokens + run.cache_write + run.cache_read
    details = {"cached_tokens": run.cache_read}
    if run.cache_write:
        details = {
            "cache_creation_input_tokens": run.cache_write,
            "cache_read_input_tokens": run.cache_read,
            **details,
        }
    member: dict[str, Any] = {
        "cost": _cost(run),
        "input_tokens": total_input,
        "input_tokens_details": details,
        "output_tokens": run.output_tokens,
        "output_tokens_details": {"reasoning_tokens": run.reasoning_tokens},
    }
    tools = _tools(run)
    if tools:
        member["tool_calls_details"] = tools
    return {**member, "total_tokens": total_input + run.output_tokens}


def _tools(run: Run) -> dict[str, Any]:
    costs = tool_costs(run)
    tools: dict[str, Any] = {}
    if run.reads:
        tools["fetch_url"] = {
            "cost_usd": costs["fetch_url"],
            "invocation": len(run.reads),
            "token_usage": [_reading(read) for read in run.reads],
        }
    if run.found:
        tools["search_web"] = {"cost_usd": costs["search_web"], "invocation": len(run.found)}
    return tools


def _reading(read: Read) -> dict[str, Any]:
    return {
        "input_tokens": read.input_tokens,
        "input_tokens_details": {"cache_creation_input_tokens": read.input_tokens - 3, "cached_tokens": 0},
        "model": READER,
        "output_tokens": read.output_tokens,
        "output_tokens_details": {"reasoning_tokens": read.reasoning_tokens},
    }
