"""Arguments and environment become checked settings: `Settings`, or a refusal that names the argument and the reason.

Nothing here needs the HTTP library, so a wrong argument is refused before that is loaded. This module knows nothing of
what a session does with its settings.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec

from aiopplx._apis import APIS
from aiopplx._errors import ConfigError
from aiopplx._http.clock import Clock
from aiopplx._http.secret import Secret, check_base_url, check_key
from aiopplx._policy.network import NetworkOptions
from aiopplx._policy.polling import PollPolicy, PollRule
from aiopplx._policy.retry import RetryPolicy
from aiopplx._wire.api import API
from aiopplx.journal._protocol import Journal
from aiopplx.journal._records import Results

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

BASE_URL = "https://api.perplexity.ai"


class _AtPath(msgspec.Struct, frozen=True):
    """The one positional field."""

    path: str | os.PathLike[str]


class JournalOptions(_AtPath, frozen=True, kw_only=True):
    """A journal in a file, and its options: `Session(journal=JournalOptions("research.db", wait=60))`.

    Attributes:
        path: the file; it is made if it does not exist.
        results: what the journal does with results: `"keep"` them (default), keep them `"until_delivered"`, or store
            none and `"refetch"` them from the server, which has them for days.
        same_account: a different API key is accepted, because it belongs to the journal's account. Default False: a
            different key is refused, since jobs of another account cannot be collected.
        retry_failed: submit again, under a new key, questions that failed, expired or were refused in an earlier run.
            Default False.
        wait: seconds to wait for another process that has the journal open, before `JournalLocked` is raised. Default
            0: it is raised at once.
    """

    results: Results = "keep"
    same_account: bool = False
    retry_failed: bool = False
    wait: float = 0.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The checked arguments of a session; `Session` documents each.

    `journal` is None, a file with its options, or an open `Journal` that the caller owns.
    """

    key: Secret
    base_url: str
    api: API
    successor: API | None
    rpm: float | None
    max_in_flight: int
    timeout: float
    max_cost: float | None
    journal: JournalOptions | Journal | None
    poll: PollPolicy
    retry: RetryPolicy
    http: aiohttp.ClientSession | None
    clock: Clock
    network: NetworkOptions

    def __repr__(self) -> str:
        return f"Settings({self.api.name} at {self.base_url})"


def make_settings(
    *,
    api_key: Secret | None,
    base_url: str | None,
    api: str | None,
    rpm: float | None,
    max_in_flight: int,
    timeout: float,
    max_cost: float | None,
    journal: str | os.PathLike[str] | JournalOptions | Journal | None,
    poll: PollPolicy | PollRule | None,
    retry: RetryPolicy | None,
    http: aiohttp.ClientSession | None,
    clock: Clock | None,
    network: NetworkOptions | None,
) -> Settings:
    """The arguments of `Session`, checked, and completed from the environment. Raises `ConfigError`.

    The key is hidden by its caller already, because the frames here may raise.
    """
    bounds = check_network(network)
    api_now, successor = find_apis(api)
    return Settings(
        key=find_key(api_key),
        base_url=find_base_url(base_url, allow_insecure=bounds.allow_insecure),
        api=api_now,
        successor=successor,
        rpm=check_positive("rpm", rpm) if rpm is not None else None,
        max_in_flight=check_whole("max_in_flight", max_in_flight),
        timeout=check_positive("timeout", timeout),
        max_cost=check_positive("max_cost", max_cost) if max_cost is not None else None,
        journal=check_journal(journal),
        poll=check_poll(poll),
        retry=check_retry(retry),
        http=check_usable("http", http, "request", "an aiohttp.ClientSession"),
        clock=check_usable("clock", clock, "call_at", "a clock of aiopplx.testing") or Clock(),
        network=bounds,
    )


# --- from the arguments, else from the environment -------------------------------------------------------------------


def find_base_url(given: str | None, *, allow_insecure: bool) -> str:
    """The server: as given, else from `PERPLEXITY_BASE_URL`, else the service. Raises `ConfigError`."""
    return check_base_url(given or os.environ.get("PERPLEXITY_BASE_URL") or BASE_URL, allow_insecure=allow_insecure)


def find_key(given: Secret | None) -> Secret:
    """The key: as given, else from `PERPLEXITY_API_KEY`, then `PPLX_API_KEY`. Raises `ConfigError`."""
    if given is not None:
        return check_key(given)
    found = [Secret(os.environ[name]) for name in ("PERPLEXITY_API_KEY", "PPLX_API_KEY") if os.environ.get(name)]
    if not found:
        raise ConfigError(
            "no API key: set PERPLEXITY_API_KEY, or pass Session(api_key=...). Without a key, try the emulator:"
            " aiopplx run QUESTIONS --emulate"
        )
    if not found[0].is_same(found[-1]):
        raise ConfigError("PERPLEXITY_API_KEY and PPLX_API_KEY are both set and differ: unset one")
    return check_key(found[0])


def find_apis(given: str | None) -> tuple[API, API | None]:
    """The API and its successor: as given, else from `AIOPPLX_API`, else `auto`. Raises `ConfigError`."""
    name = given or os.environ.get("AIOPPLX_API") or "auto"
    if name not in APIS:
        raise ConfigError(f"api must be one of {', '.join(APIS)}, not {name!r}")
    return APIS[name]


# --- checks of one argument ------------------------------------------------------------------------------------------


def check_journal(given: str | os.PathLike[str] | JournalOptions | Journal | None) -> JournalOptions | Journal | None:
    """The journal; a path alone is one with the default options. Raises `ConfigError`."""
    if isinstance(given, (str, os.PathLike)):
        return JournalOptions(given)
    if not isinstance(given, JournalOptions):
        return check_usable("journal", given, "find_or_queue", "a path, a JournalOptions or an open Journal")
    if not isinstance(cast("object", given.path), (str, os.PathLike)):
        raise ConfigError(f"journal.path must be a path, not {type(given.path).__name__}")
    check_one_of("journal.results", given.results, ("keep", "until_delivered", "refetch"))
    check_seconds("journal.wait", given.wait)
    return given


def check_poll(given: PollPolicy | PollRule | None) -> PollPolicy:
    """The poll policy, by default `PollPolicy()`; a function alone is one with its own rule. Raises `ConfigError`."""
    if given is None:
        return PollPolicy()
    if isinstance(given, PollPolicy):
        return given
    if not callable(cast("object", given)):
        raise ConfigError(
            f"poll must be a PollPolicy or a function, not {given!r}: PollPolicy.fixed(10) polls every 10 s"
        )
    return PollPolicy.by(given)


def check_retry(given: RetryPolicy | None) -> RetryPolicy:
    """The retry policy, by default `RetryPolicy()`. Raises `ConfigError`."""
    return check_usable("retry", given, "delay", "a RetryPolicy") or RetryPolicy()


def check_network(given: NetworkOptions | None) -> NetworkOptions:
    """The bounds of one exchange, by default `NetworkOptions()`. Raises `ConfigError`."""
    if given is None:
        return NetworkOptions()
    if not isinstance(cast("object", given), NetworkOptions):
        raise ConfigError(f"network must be a NetworkOptions, not {type(given).__name__}")
    check_whole("network.max_response_bytes", given.max_response_bytes)
    for name in ("connect_seconds", "submit_seconds", "poll_seconds"):
        check_positive(f"network.{name}", getattr(given, name))
    return given


def check_one_of(name: str, value: T, choices: Collection[T]) -> T:
    """One of a few words. Raises `ConfigError` that names the argument and the words."""
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
    return value


def check_usable(name: str, value: T, method: str, kind: str) -> T:
    """An object with the method that it is needed for. Raises `ConfigError` that names the argument and its `kind`."""
    if value is not None and not callable(getattr(value, method, None)):
        raise ConfigError(f"{name} must be {kind}, not {type(value).__name__}")
    return value


def check_positive(name: str, value: float) -> float:
    """A number above 0. Raises `ConfigError` that names the argument."""
    if not _is_number(value) or not value > 0:
        raise ConfigError(f"{name} must be a number above 0, not {value!r}")
    return float(value)


def check_seconds(name: str, value: float) -> float:
    """A number from 0. Raises `ConfigError` that names the argument."""
    if not _is_number(value) or not value >= 0:
        raise ConfigError(f"{name} must be a number of seconds from 0, not {value!r}")
    return float(value)


def check_whole(name: str, value: int) -> int:
    """A whole number from 1. Raises `ConfigError` that names the argument."""
    if isinstance(cast("object", value), bool) or not isinstance(cast("object", value), int) or value < 1:
        raise ConfigError(f"{name} must be a whole number from 1, not {value!r}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
