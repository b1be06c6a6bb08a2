"""A value that fits a JSON schema: the emulator's answer to a request for structured output.

It covers the parts that such schemas use (types, enum, const, properties, items, local references, combinations,
bounds), not all of JSON Schema. Pure.
"""

from __future__ import annotations

import math
import random
from typing import Any, TypeGuard

from aiopplx.emulator._json_types import is_list, is_object

_DEEPEST = 24
_MOST_VALUES = 5_000
_LONGEST = 10_000
_FORMATS = {
    "date": "2026-03-14",
    "date-time": "2026-03-14T09:26:53Z",
    "time": "09:26:53Z",
    "email": "someone@example.org",
    "uri": "https://www.example.com/page",
    "uuid": "2f1c9d0e-5a34-4c5e-9d3b-0c7a1e6b8f42",
}
_WORDS = ("steady", "northern", "careful", "early", "public", "seventh", "coastal", "plain")


class Example:
    """Makes values for one schema; references are looked up in its root.

    Any JSON is taken for a schema: what has no meaning there is passed over. Values are bounded in depth, number and
    length, since a few lines of schema can ask for more than fits into memory.
    """

    def __init__(self, root: dict[str, Any], rng: random.Random) -> None:
        self._root = root
        self._rng = rng
        self._remaining = _MOST_VALUES

    def make(self) -> Any:
        return self._of(self._root, 0)

    def _of(self, schema: Any, depth: int) -> Any:
        self._remaining -= 1
        if not is_object(schema) or depth > _DEEPEST or self._remaining < 0:
            return None
        if "const" in schema:
            return schema["const"]
        if choices := _listed(schema, "enum"):
            return self._rng.choice(choices)
        if "$ref" in schema:
            return self._of(self._lookup(str(schema["$ref"])), depth + 1)
        for combination in ("anyOf", "oneOf"):
            if choices := _listed(schema, combination):
                return self._of(self._simplest(choices, depth), depth + 1)
        if parts := _listed(schema, "allOf"):
            return self._of(_merged(parts), depth + 1)
        return self._typed(schema, depth)

    def _simplest(self, choices: list[Any], depth: int) -> Any:
        # At depth, the choice without references ends a recursive schema.
        flat: list[Any] = [choice for choice in choices if is_object(choice) and "$ref" not in choice]
        return flat[-1] if flat and depth > _DEEPEST // 3 else choices[0]

    def _lookup(self, reference: str) -> Any:
        found: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if not is_object(found):
                return None
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if step else found
        return found

    def _typed(self, schema: dict[str, Any], depth: int) -> Any:
        kind: Any = schema.get("type")
        if is_list(kind):
            kind = kind[0] if kind else None
        members: Any = schema.get("properties")
        if kind == "object" or is_object(members):
            return {name: self._of(member, depth + 1) for name, member in members.items()} if is_object(members) else {}
        if kind == "array":
            # At depth, an empty list ends a recursive schema.
            usual = 2 if depth < _DEEPEST // 3 else 0
            count = max(_length(schema, "minItems", 0), min(_length(schema, "maxItems", usual), usual))
            return [self._of(schema.get("items", {}), depth + 1) for _ in range(count) if self._remaining > 0]
        if kind in ("integer", "number"):
            return self._number(schema, whole=kind == "integer")
        if kind == "boolean":
            return self._rng.random() < 0.5
        return None if kind == "null" else self._string(schema)

    def _number(self, schema: dict[str, Any], *, whole: bool) -> int | float:
        low, is_above = _bound(schema, "minimum", "exclusiveMinimum")
        high, is_below = _bound(schema, "maximum", "exclusiveMaximum")
        if low is None:
            low = 1 if high is None else high - 10
        if high is None:
            high = low + 99
        if whole:
            first, last = math.ceil(low), math.floor(high)
            first += is_above and first == low
            last -= is_below and last == high
            return self._rng.randint(first, max(first, last))
        return round(low + (high - low) * self._rng.uniform(0.25, 0.75), 3)

    def _string(self, schema: dict[str, Any]) -> str:
        text = _FORMATS.get(str(schema.get("format"))) or " ".join(self._rng.choices(_WORDS, k=3))
        least = _length(schema, "minLength", 0)
        return (text + " " + "x" * least if len(text) < least else text)[: _length(schema, "maxLength", _LONGEST * 2)]


def _listed(schema: dict[str, Any], word: str) -> list[Any]:
    value: Any = schema.get(word)
    return value if is_list(value) else []


def _length(schema: dict[str, Any], word: str, default: int) -> int:
    value: Any = schema.get(word)
    return int(max(0, min(value, _LONGEST))) if _is_number(value) else default


def _bound(schema: dict[str, Any], word: str, exclusive: str) -> tuple[float | None, bool]:
    """(the bound, whether the bound itself is left out); None without one."""
    for name in (word, exclusive):
        value: Any = schema.get(name)
        if _is_number(value):
            return value, name == exclusive
    return None, False


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _merged(schemas: list[Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    for schema in schemas:
        if is_object(schema):
            merged.update(schema)
            members: Any = schema.get("properties")
            properties.update(members if is_object(members) else {})
    if properties:
        merged["properties"] = properties
    return merged
