"""Bodies of answers for tests of the readers, whole or with one odd or missing field."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import strategies as st

from aiopplx._wire.call import Reply

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda items: st.lists(items, max_size=3) | st.dictionaries(st.text(max_size=9), items, max_size=3),
    max_leaves=5,
)


def reply(body: object) -> Reply:
    """A successful answer with this body."""
    return Reply(200, {"x-request-id": "r-1"}, body if isinstance(body, bytes) else msgspec.json.encode(body))


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value within a JSON value: names of members and indexes of items."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield (*at, name)
        yield from paths(item, (*at, name))


def with_odd(body: dict[str, Any], path: tuple[Any, ...], odd: Any) -> dict[str, Any]:
    """A copy of the body in which another value stands at the path."""
    changed = copy.deepcopy(body)
    _parent(changed, path)[path[-1]] = odd
    return changed


def without(body: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    """A copy of the body in which the member at the path is missing, or the item is null."""
    changed = with_odd(body, path, None)
    if isinstance(path[-1], str):
        del _parent(changed, path)[path[-1]]
    return changed


def _parent(body: Any, path: tuple[Any, ...]) -> Any:
    for name in path[:-1]:
        body = body[name]
    return body
