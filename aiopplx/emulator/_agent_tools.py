"""Validation of an Agent API run's tools: which ones the service accepts, and how it words its refusals. Pure."""

from __future__ import annotations

import re
from typing import Any, Literal

from aiopplx.emulator._strict import Refused, Strict, converted, within

RECENCY = ("hour", "day", "week", "month", "year")
_DATE = re.compile(r"(0?[1-9]|1[0-2])/(0?[1-9]|[12]\d|3[01])/\d{4}|\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")
# Accepted unchecked: their members are documented only in part.
_OTHER_TOOLS = ("people_search", "finance_search", "image_search", "sandbox", "mcp", "connector")


class _Filters(Strict):
    search_domain_filter: list[str] | None = None
    search_recency_filter: str | None = None
    search_after_date_filter: str | None = None
    search_before_date_filter: str | None = None
    last_updated_after_filter: str | None = None
    last_updated_before_filter: str | None = None

    @property
    def dates(self) -> tuple[str, ...]:
        found = (
            self.search_after_date_filter,
            self.search_before_date_filter,
            self.last_updated_after_filter,
            self.last_updated_before_filter,
        )
        return tuple(date for date in found if date is not None)


class _Location(Strict):
    latitude: float | None = None
    longitude: float | None = None
    country: str | None = None
    region: str | None = None
    city: str | None = None


class _WebSearch(Strict):
    type: str
    filters: _Filters | None = None
    max_tokens: int | None = None
    max_tokens_per_page: int | None = None
    max_results: int | None = None
    search_context_size: Literal["low", "medium", "high"] | None = None
    search_type: Literal["web", "fast"] | None = None
    user_location: _Location | None = None


class _FetchURL(Strict):
    type: str
    max_urls: int | None = None
    total_budget_tokens: int | None = None


class _Function(Strict):
    type: str
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


def check_tool(tool: dict[str, Any], where: str) -> None:
    """Raises `Refused` for a tool that the service would refuse; `where` is its place in the list."""
    match tool.get("type"):
        case "web_search":
            search = converted(_WebSearch, tool)
            within(search.max_results, 1, 50, f"{where}: max results")
            _check_filters(search.filters or _Filters(), where)
        case "fetch_url":
            fetch = converted(_FetchURL, tool)
            within(fetch.max_urls, 1, 10, f"{where}: max urls")
            within(fetch.total_budget_tokens, 1, 120_000, f"{where}: total budget tokens")
        case "function":
            converted(_Function, tool)
        case kind if kind not in _OTHER_TOOLS:
            raise Refused(f"validation failed: {where}: unknown tool type")
        case _:
            pass


def _check_filters(filters: _Filters, where: str) -> None:
    domains = filters.search_domain_filter or []
    if len(domains) > 20 or any(len(domain) > 253 or "://" in domain for domain in domains):
        message = f"validation failed: {where}: search domain filter takes at most 20 domains without a scheme"
        raise Refused(message, "invalid_search_domain_filter")
    recency = filters.search_recency_filter
    if recency is not None and recency not in RECENCY:
        raise Refused(f"validation failed: {where}: search recency filter must be one of: {' '.join(RECENCY)}")
    if recency is not None and filters.dates:
        raise Refused(f"validation failed: {where}: search recency filter cannot be used with date filters")
    for date in filters.dates:
        if not _DATE.fullmatch(date):
            raise Refused(f"validation failed: {where}: dates have the form MM/DD/YYYY", "invalid_date_format")
