"""What a plain value of JSON is, said to type checkers: they disagree on `isinstance` of an unknown value.

This module knows nothing of what is in a value.
"""

from __future__ import annotations

from typing import Any, TypeGuard


def is_array(value: object) -> TypeGuard[list[Any]]:
    """True for a JSON array."""
    return isinstance(value, list)


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """True for a JSON object."""
    return isinstance(value, dict)
