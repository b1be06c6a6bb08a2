"""The words of the session's constructor and of the environment, made into values or refused with the reason.

This module knows nothing of what a session does with them.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import TypeVar, cast

from aiopplx._apis import APIS
from aiopplx._errors import ConfigError
from aiopplx._http.secret import Secret, usable_base_url, usable_key
from aiopplx._policy.polling import PollPolicy, PollRule
from aiopplx._wire.api import API

T = TypeVar("T")

BASE_URL = "https://api.perplexity.ai"


def find_base_url(given: str | None, *, allow_insecure: bool) -> str:
    """The server: as given, else from `PERPLEXITY_BASE_URL`, else the service. Raises `ConfigError`."""
    return usable_base_url(given or os.environ.get("PERPLEXITY_BASE_URL") or BASE_URL, allow_insecure=allow_insecure)


def find_key(given: str | None) -> Secret:
    """The key: as given, else from `PERPLEXITY_API_KEY`, then `PPLX_API_KEY`. Raises `ConfigError`."""
    if given is not None:
        return usable_key(given)
    found = {name: os.environ[name].strip() for name in ("PERPLEXITY_API_KEY", "PPLX_API_KEY") if os.environ.get(name)}
    if len(set(found.values())) > 1:
        raise ConfigError("PERPLEXITY_API_KEY and PPLX_API_KEY are both set and differ: unset one")
    if not found:
        raise ConfigError(
            "no API key: set PERPLEXITY_API_KEY, or pass Session(api_key=...). Without a key, try the emulator:"
            " aiopplx run QUESTIONS --emulate"
        )
    return usable_key(next(iter(found.values())))


def find_apis(given: str | None) -> tuple[API, API | None]:
    """The API and its successor: as given, else from `AIOPPLX_API`, else `auto`. Raises `ConfigError`."""
    name = given or os.environ.get("AIOPPLX_API") or "auto"
    if name not in APIS:
        raise ConfigError(f"api must be one of {', '.join(APIS)}, not {name!r}")
    return APIS[name]


def find_rule(given: PollPolicy | PollRule | None) -> PollRule:
    """The poll rule, by default `PollPolicy()`. Raises `ConfigError` for what cannot be called."""
    if given is None:
        return PollPolicy()
    if not callable(cast("object", given)):
        raise ConfigError(
            f"poll must be a PollPolicy or a function, not {given!r}: PollPolicy.fixed(10) polls every 10 s"
        )
    return given


def one_of(name: str, value: T, choices: Collection[T]) -> T:
    """One of a few words. Raises `ConfigError` that names the argument and the words."""
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
    return value


def usable(name: str, value: T, needs: str, said: str) -> T:
    """A thing that can do what it is for (has the method `needs`). Raises `ConfigError` that names the argument."""
    if value is not None and not callable(getattr(value, needs, None)):
        raise ConfigError(f"{name} must be {said}, not {type(value).__name__}")
    return value


def positive(name: str, value: float) -> float:
    """A number above 0. Raises `ConfigError` that names the argument."""
    if isinstance(cast("object", value), bool) or not isinstance(cast("object", value), (int, float)) or not value > 0:
        raise ConfigError(f"{name} must be a number above 0, not {value!r}")
    return float(value)


def whole(name: str, value: int) -> int:
    """A whole number from 1. Raises `ConfigError` that names the argument."""
    if isinstance(cast("object", value), bool) or not isinstance(cast("object", value), int) or value < 1:
        raise ConfigError(f"{name} must be a whole number from 1, not {value!r}")
    return value
