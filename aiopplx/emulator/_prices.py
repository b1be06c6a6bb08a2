"""What a job consumes and costs, drawn at random with the published prices of deep research.

Pure. This module knows nothing of texts or of HTTP.
"""

from __future__ import annotations

import random

import msgspec

# US dollars per token and per search: the prices of sonar-deep-research, used here for the other models too.
INPUT = 2e-6
OUTPUT = 8e-6
CITATION = 2e-6
REASONING = 3e-6
SEARCH = 5e-3

# From a captured answer: 67,780 characters were 12,817 tokens.
CHARS_PER_TOKEN = 5.29
EFFORT = {"minimal": 0.1, "low": 0.35, "medium": 1.0, "high": 1.35}


class Plan(msgspec.Struct, frozen=True):
    """The size of an answer, drawn before it is written, since the price is needed when the job is made."""

    chars: int
    sources: int
    searches: int
    prompt_tokens: int
    completion_tokens: int
    citation_tokens: int
    reasoning_tokens: int
    cut: bool

    @property
    def cost(self) -> float:
        """US dollars. Like the service it rounds to five places, the sum from unrounded parts."""
        return round(
            self.prompt_tokens * INPUT
            + self.completion_tokens * OUTPUT
            + self.citation_tokens * CITATION
            + self.reasoning_tokens * REASONING
            + self.searches * SEARCH,
            5,
        )


def plan(
    rng: random.Random, *, prompt_chars: int, chars: int | None, max_tokens: int | None, effort: str | None
) -> Plan:
    """Draws a plan. With `chars` None the length is realistic, 63,000 to 90,000 characters; `max_tokens` cuts the
    answer.
    """
    length = int(min(90_000, max(63_000, rng.gauss(68_500, 5_500))))
    spread = rng.uniform(0.9, 1.1)
    if chars is not None:
        length = max(1, int(chars * spread))
    # A short answer cites few pages, so that a small `chars` makes a small body.
    sources = min(rng.randint(15, 50), max(2, length // 400))
    searches = rng.randint(25, 60)
    per_source = rng.randint(120, 180)
    reasoning = int(rng.randint(25_000, 250_000) * EFFORT.get(effort or "medium", 1.0))
    cut = max_tokens is not None and length / CHARS_PER_TOKEN > max_tokens
    if cut and max_tokens is not None:
        length = max(1, int(max_tokens * CHARS_PER_TOKEN))
    return Plan(
        chars=length,
        sources=sources,
        searches=searches,
        prompt_tokens=max(1, round(prompt_chars / 4.3)),
        completion_tokens=max(1, round(length / CHARS_PER_TOKEN)),
        citation_tokens=sources * per_source,
        reasoning_tokens=reasoning,
        cut=cut,
    )


def usage(plan: Plan, context_size: str | None) -> dict[str, object]:
    """The `usage` member, with the keys and nulls of a captured job."""
    return {
        "prompt_tokens": plan.prompt_tokens,
        "completion_tokens": plan.completion_tokens,
        "total_tokens": plan.prompt_tokens + plan.completion_tokens,
        "search_context_size": context_size,
        "citation_tokens": plan.citation_tokens,
        "num_search_queries": plan.searches,
        "reasoning_tokens": plan.reasoning_tokens,
        "cost": {
            "input_tokens_cost": round(plan.prompt_tokens * INPUT, 5),
            "output_tokens_cost": round(plan.completion_tokens * OUTPUT, 5),
            "reasoning_tokens_cost": round(plan.reasoning_tokens * REASONING, 5),
            "request_cost": None,
            "citation_tokens_cost": round(plan.citation_tokens * CITATION, 5),
            "search_queries_cost": round(plan.searches * SEARCH, 5),
            "total_cost": plan.cost,
        },
    }
