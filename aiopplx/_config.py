"""Arguments and environment become checked settings: `Settings`, or a refusal that names the argument and the reason.

Nothing here needs the HTTP library, so a wrong argument is refused before that is loaded. This module knows nothing of
what a session does with its settings.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal, TypeVar, cast

import msgspec

from aiopplx._checks.builtin import as_builtin, fields_as_builtins
from aiopplx._checks.path import check_path
from aiopplx._checks.span import span_of
from aiopplx._errors import ConfigError
from aiopplx._http.clock import Clock
from aiopplx._http.proxy import Proxy, check_proxy
from aiopplx._http.secret import SERVICE, Secret, check_base_url, check_key
from aiopplx._policy.network import NetworkOptions
from aiopplx._policy.polling import PollPolicy, PollRule
from aiopplx._policy.retry import RetryPolicy
from aiopplx._wire.api import API
from aiopplx.apis._registry import APIS
from aiopplx.journal._postgres.url import Address, Url, address_of, hidden, is_url
from aiopplx.journal._protocol import Journal
from aiopplx.journal._records import Results

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

TIERS = 6
"""Usage tiers of the service, from 0."""
BASE_URL = SERVICE

LARGEST = 1e15
"""The largest number of seconds, dollars or requests that is taken: with larger ones, a clock cannot count."""
_ECHO = 60
"""Characters of a wrong value that a message repeats."""
_MAY_BE_A_KEY = r"pplx-\w|[\w+/=-]{20}"
"""What a key looks like that was given for another argument by mistake, such as `api` for `api_key`."""


class _AtPath(msgspec.Struct, frozen=True):
    """The one positional field."""

    path: str | os.PathLike[str]


class JournalOptions(_AtPath, frozen=True, kw_only=True):
    """A journal and its options: `Session(journal=JournalOptions("research.db", wait=60))`.

    Attributes:
        path: the file, or the URL of a PostgreSQL database (`"postgresql://user@host/database?schema=aiopplx"`), which
            many processes and machines may have open at once. It is made if it does not exist. The password of a URL is
            hidden: it is in no `repr` and no message.
        results: what the journal does with results: `"keep"` them (default), keep them `"until_delivered"`, or store
            none and `"refetch"` them from the server, which has them for days.
        same_account: a different API key is accepted, because it belongs to the journal's account. Default False: a
            different key is refused, since jobs of another account cannot be collected.
        without_log: go on though the write-ahead log that the last run left is lost, or damaged. Default False: such a
            file is refused, since jobs that it paid for last are known only there, and would be paid for again. For a
            file.
        run: the name of the run, such as `"2026-11"`: questions of a batch without a tag are found again by it. Needed
            for these where several sessions share the journal, so that the same question in another run is another
            job; all that work at one run give the same name. `batch(run=)` names the run of that batch alone. Default
            None: the run has no name.
        retry_failed: submit again, under a new key, questions that failed, expired or were refused in an earlier run.
            Default False.
        replace: a question under a tag that stood for another question in an earlier run takes its place, and is paid
            for, once that one has ended. Default False: it is refused (`ItemConflict`).
        collect: in a journal that several sessions share, go on with jobs whose session has ended or died, although
            nobody asks for them here. Default True: each live session does, so that what is paid for is read.
        keep_for: in a journal that several sessions share, how long submissions are kept after they ended, such as
            `"30d"` or seconds; then question, columns and answer are removed, and keys and bills kept. An outcome that
            nobody was handed is kept for twice as long, what is in doubt for good. Default None: everything is kept.
        wait: seconds to wait for another process that has the file open, before `JournalLocked` is raised, or for a
            database that cannot be reached, before `JournalAway` is. Default 0: it is raised at once.
        notes: what a program keeps in the file for whoever reads it, by name, in place of what an earlier session noted
            under that name: `journal.open_reader(path).facts()["notes"]` has them. A few kilobytes at most. The command
            line notes how the table of a run is written.
    """

    results: Results = "keep"
    same_account: bool = False
    without_log: bool = False
    collect: bool = True
    keep_for: str | float | None = None
    run: str | None = None
    retry_failed: bool = False
    replace: bool = False
    wait: float = 0.0
    notes: dict[str, bytes] = {}

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "path", hidden(self.path))


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The checked arguments of a session; `Session` documents each.

    `journal` is None, a file with its options, or an open `Journal` that the caller owns.
    """

    key: Secret
    base_url: str
    api: API
    successor: API | None
    rpm: float | None
    tier: int | None
    max_in_flight: int
    timeout: float
    max_cost: float | None
    journal: JournalOptions | Journal | None
    shared: Address | None
    poll: PollPolicy
    retry: RetryPolicy
    http: aiohttp.ClientSession | None
    clock: Clock
    network: NetworkOptions

    @property
    def journal_name(self) -> str:
        """The journal as people call it: its file's name; "" if there is none."""
        if self.journal is None:
            return ""
        if not isinstance(self.journal, JournalOptions):
            return "of your own"
        path = self.journal.path
        return address_of(path, argument="journal").name if isinstance(path, Url) else os.path.basename(path)

    @property
    def run(self) -> str:
        """The name of the run; "" if it has none."""
        return (self.journal.run or "") if isinstance(self.journal, JournalOptions) else ""

    def __repr__(self) -> str:
        return f"Settings({self.api.name} at {self.base_url})"


def make_settings(
    *,
    api_key: Secret | None,
    base_url: str | None,
    api: str | None,
    rpm: float | None,
    tier: int | None,
    max_in_flight: int,
    timeout: float,
    max_cost: float | None,
    journal: str | os.PathLike[str] | JournalOptions | Journal | None,
    shared: str | None,
    poll: PollPolicy | PollRule | Literal["adaptive"] | None,
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
    if rpm is not None and tier is not None:
        raise ConfigError("give rpm or tier, not both: a tier is a number of requests a minute")
    settings = Settings(
        key=find_key(api_key),
        base_url=find_base_url(base_url, allow_insecure=bounds.allow_insecure),
        api=api_now,
        successor=successor,
        rpm=check_positive("rpm", rpm) if rpm is not None else None,
        tier=check_one_of("tier", tier, range(TIERS)) if tier is not None else None,
        max_in_flight=check_whole("max_in_flight", max_in_flight),
        timeout=check_positive("timeout", timeout),
        max_cost=check_positive("max_cost", max_cost) if max_cost is not None else None,
        journal=check_journal(journal),
        shared=check_shared(shared, has_rate=rpm is not None or tier is not None),
        poll=check_poll(poll),
        retry=check_retry(retry),
        http=check_http(http),
        clock=check_usable("clock", clock, "call_at", "a clock of aiopplx.testing") or Clock(),
        network=bounds,
    )
    return check_way(settings)


def unknown_argument(name: str) -> ConfigError:
    """The refusal of a keyword that `Session` does not have: where it belongs, or the nearest that there is."""
    import difflib  # nothing else needs it

    for argument, owner in (("network", NetworkOptions), ("journal", JournalOptions), ("retry", RetryPolicy)):
        if name in owner.__struct_fields__ and name != "path":
            path = '"research.db", ' if owner is JournalOptions else ""
            where = f"is a field of {owner.__name__}: Session({argument}={owner.__name__}({path}{name}=...))"
            return ConfigError(where, argument=name)
    known = {"api_key", "on_event", *Settings.__struct_fields__} - {"key", "successor"}
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return ConfigError("is not an argument of Session" + (f": did you mean {near[0]}?" if near else ""), argument=name)


# --- from the arguments, else from the environment -------------------------------------------------------------------


def find_base_url(given: str | None, *, allow_insecure: bool) -> str:
    """The server: as given, else from `PERPLEXITY_BASE_URL`, else the service. Raises `ConfigError`."""
    if given is not None:
        return check_base_url(given, allow_insecure=allow_insecure)
    name = "PERPLEXITY_BASE_URL"
    return check_base_url(os.environ.get(name) or BASE_URL, allow_insecure=allow_insecure, argument=name)


def find_key(given: Secret | None) -> Secret:
    """The key: as given, else from `PERPLEXITY_API_KEY`, then `PPLX_API_KEY`. Raises `ConfigError`."""
    if given is not None:
        return check_key(given)
    names = ("PERPLEXITY_API_KEY", "PPLX_API_KEY")
    found = [(name, Secret(os.environ[name])) for name in names if os.environ.get(name)]
    if not found:
        raise ConfigError(
            "is not given, and PERPLEXITY_API_KEY is not set",
            argument="api_key",
            remedy="Without a key, try the emulator: aiopplx run QUESTIONS --emulate",
        )
    if not found[0][1].is_same(found[-1][1]):
        raise ConfigError("PERPLEXITY_API_KEY and PPLX_API_KEY are both set and differ: unset one")
    name, key = found[0]
    return check_key(key, argument=name)


def find_apis(given: str | None) -> tuple[API, API | None]:
    """The API and its successor: as given, else from `AIOPPLX_API`, else `auto`. Raises `ConfigError`."""
    name, argument = (given, "api") if given is not None else (os.environ.get("AIOPPLX_API") or "auto", "AIOPPLX_API")
    name = as_builtin(name)
    if not isinstance(cast("object", name), str) or name not in APIS:
        raise ConfigError(f"must be one of {', '.join(APIS)}, not {_shown(name)}", argument=argument)
    return APIS[name]


# --- checks of one argument ------------------------------------------------------------------------------------------


def check_journal(given: str | os.PathLike[str] | JournalOptions | Journal | None) -> JournalOptions | Journal | None:
    """The journal; a path or a URL alone is one with the default options. Raises `ConfigError`."""
    given = hidden(given)
    if isinstance(given, (str, os.PathLike)):
        given = JournalOptions(given)
        return check_database(given) if isinstance(given.path, Url) else check_file(given, "journal")
    if not isinstance(given, JournalOptions):
        return check_usable("journal", given, "find_or_queue", "a path, a URL, a JournalOptions or an open Journal")
    given = check_database(given) if isinstance(given.path, Url) else check_file(given, "journal.path")
    check_one_of("journal.results", given.results, ("keep", "until_delivered", "refetch"))
    check_flag("journal.same_account", given.same_account)
    check_flag("journal.retry_failed", given.retry_failed)
    check_flag("journal.replace", given.replace)
    check_flag("journal.collect", given.collect)
    if given.keep_for is not None:
        check_span("journal.keep_for", given.keep_for)
        if not isinstance(given.path, Url):
            raise ConfigError("is for a journal on PostgreSQL: a file keeps everything", argument="journal.keep_for")
    check_seconds("journal.wait", given.wait)
    if given.run is not None:
        check_name("journal.run", given.run)
    return given


def check_shared(given: str | None, *, has_rate: bool) -> Address | None:
    """The database through which processes share the account, None if they do not. Raises `ConfigError`."""
    if given is None:
        return None
    if not is_url(given):
        raise ConfigError(
            "must be a postgresql:// URL: postgresql://user@host/database?schema=aiopplx", argument="shared"
        )
    if not has_rate:
        raise ConfigError(
            "needs the rate that the processes share: what each of them finds out about the limit is its own",
            argument="shared",
            remedy="Give rpm= or tier= of the account, the same in all of them",
        )
    return address_of(given, argument="shared")


def check_file(given: JournalOptions, argument: str) -> JournalOptions:
    """A journal in a file. Raises `ConfigError`."""
    given = fields_as_builtins(given)
    check_path(argument, given.path)
    return given


def check_database(given: JournalOptions) -> JournalOptions:
    """A journal on PostgreSQL. Raises `ConfigError`."""
    address_of(given.path if isinstance(given.path, Url) else "")
    # The password stands beside the text of the URL, which is no text for whoever wants built-in values.
    given = msgspec.structs.replace(fields_as_builtins(given), path=given.path)
    if given.without_log:
        raise ConfigError("is for a journal in a file, and not on PostgreSQL", argument="journal.without_log")
    return given


def check_poll(given: PollPolicy | PollRule | Literal["adaptive"] | None) -> PollPolicy:
    """The poll policy, by default the adaptive one; a function alone is one with its own rule. Raises `ConfigError`."""
    if isinstance(given, PollPolicy):
        return check_numbers("poll", fields_as_builtins(given))
    # Text first: another value may fail when it is compared.
    if given is None or (isinstance(given, str) and str(given) == "adaptive"):
        return PollPolicy.adaptive()
    if not callable(cast("object", given)) or isinstance(given, type | str):
        raise ConfigError(
            f'must be "adaptive", a PollPolicy or a function, not {_shown(given)}:'
            " PollPolicy.fixed(10) polls every 10 s",
            argument="poll",
        )
    return PollPolicy.by(check_hook("poll", given, "a function"))


def check_retry(given: RetryPolicy | None) -> RetryPolicy:
    """The retry policy, by default `RetryPolicy()`. Raises `ConfigError`."""
    if given is None:
        return RetryPolicy()
    if not isinstance(cast("object", given), RetryPolicy):
        raise ConfigError(f"must be a RetryPolicy, not {type(given).__name__}", argument="retry")
    return check_numbers("retry", fields_as_builtins(given))


P = TypeVar("P", PollPolicy, RetryPolicy)


def check_numbers(name: str, policy: P) -> P:
    """The numbers of a policy: seconds are from 0, counts from 1. Raises `ConfigError` that names the field."""
    for field, default in msgspec.structs.asdict(type(policy)()).items():
        value = getattr(policy, field)
        if isinstance(default, int):
            check_whole(f"{name}.{field}", value, least=0 if name == "poll" else 1)
        elif isinstance(default, float) and not (value is None and field == "budget"):
            # Endless is what some fields are meant to be: `tail_after`, `doubt_seconds`.
            check_seconds(f"{name}.{field}", cast("float", value))
    if isinstance(policy, PollPolicy) and policy.rule is not None and not callable(policy.rule):
        raise ConfigError(f"must be a function, not {type(policy.rule).__name__}", argument=f"{name}.rule")
    if isinstance(policy, PollPolicy):
        check_hook(f"{name}.rule", policy.rule, "a function")
    return policy


def check_network(given: NetworkOptions | None) -> NetworkOptions:
    """The bounds of one exchange, by default `NetworkOptions()`. Raises `ConfigError`."""
    if given is None:
        return NetworkOptions()
    if not isinstance(cast("object", given), NetworkOptions):
        raise ConfigError(f"must be a NetworkOptions, not {type(given).__name__}", argument="network")
    given = fields_as_builtins(given)
    check_whole("network.max_response_bytes", given.max_response_bytes)
    check_whole("network.max_file_bytes", given.max_file_bytes)
    check_flag("network.allow_insecure", given.allow_insecure)
    check_flag("network.trust_env", given.trust_env)
    for name in ("connect_seconds", "submit_seconds", "poll_seconds", "file_seconds"):
        check_positive(f"network.{name}", getattr(given, name))
    if given.proxy is not None:
        if not isinstance(cast("object", given.proxy), str):
            raise ConfigError(f"must be text, not {type(given.proxy).__name__}", argument="network.proxy")
        check_proxy(Proxy(given.proxy), argument="network.proxy")
    return given


def check_way(settings: Settings) -> Settings:
    """The same settings, unless they name a way to the network that cannot be taken. Raises `ConfigError`."""
    network = settings.network
    if network.proxy is None and not network.trust_env:
        return settings
    if settings.http is not None:
        raise ConfigError("has its own proxy and certificates: give them there, or leave http= out", argument="http")
    if network.proxy is not None and settings.base_url.startswith("http:") and not network.allow_insecure:
        raise ConfigError(
            "cannot be used with an http:// address: the API key would travel to the proxy in the clear",
            argument="network.proxy",
            remedy="If that network is yours, add allow_insecure=True",
        )
    return settings


def check_http(given: aiohttp.ClientSession | None) -> aiohttp.ClientSession | None:
    """The caller's own connections, unless they cannot carry the API's requests. Raises `ConfigError`."""
    found = check_usable("http", given, "request", "an aiohttp.ClientSession")
    if getattr(found, "auth", None) is not None:
        raise ConfigError(
            "has auth=..., which takes the place of the API key: make the aiohttp.ClientSession without it",
            argument="http",
        )
    if getattr(found, "auto_decompress", True) is False:
        raise ConfigError(
            "must decompress answers: make the aiohttp.ClientSession without auto_decompress=False", argument="http"
        )
    headers = cast("object", getattr(found, "headers", None))
    if isinstance(headers, Mapping):
        from aiopplx._http.default_headers import problem_of  # few sessions are given one

        if problem := problem_of(cast("Mapping[str, str]", headers)):
            raise ConfigError(problem, argument="http")
    return found


def check_one_of(name: str, value: T, choices: Collection[T]) -> T:
    """One of a few words. Raises `ConfigError` that names the argument and the words."""
    if type(value) not in {type(choice) for choice in choices} or value not in choices:
        raise ConfigError(f"must be one of {', '.join(map(repr, choices))}, not {_shown(value)}", argument=name)
    return value


def check_name(name: str, value: str) -> str:
    """A text that is not empty. Raises `ConfigError` that names the argument."""
    value = as_builtin(value)
    if not isinstance(cast("object", value), str) or not value.strip():
        raise ConfigError(f"must be a text that is not empty, not {_shown(value)}", argument=name)
    return value


TENANT = 900
"""Characters of a tenant's name at most, as JSON writes it in ASCII: a letter outside ASCII counts as six. It is part
of the name of each of its submissions, for which an index of PostgreSQL has 2,700 bytes; and a name that may be reused
has to stay below `LONGEST`, since it is found by its beginning."""


def check_tenant(value: str) -> str:
    """Whose question it is. Raises `ConfigError`."""
    value = check_name("tenant", value)
    if len(json.dumps(value)) - 2 > TENANT:
        raise ConfigError(
            f"must have {TENANT:,} characters at most, where each one outside ASCII counts as six: give an id",
            argument="tenant",
        )
    return value


def check_span(name: str, value: str | float) -> float:
    """A span of time, in seconds or as a text such as "24h". Raises `ConfigError` that names the argument."""
    seconds = span_of(as_builtin(value))
    if seconds is None:
        raise ConfigError(
            f'must be seconds above 0, or a text such as "24h" or "30d", not {_shown(value)}', argument=name
        )
    return seconds


def check_flag(name: str, value: object) -> bool:
    """True or False. Raises `ConfigError` that names the argument: a text such as "no" would count as True."""
    value = as_builtin(value)
    if not isinstance(value, bool):
        raise ConfigError(f"must be True or False, not {_shown(value)}", argument=name)
    return value


def check_usable(name: str, value: T, method: str, kind: str) -> T:
    """An object with the method that it is needed for. Raises `ConfigError` that names the argument and its `kind`."""
    if value is not None and (isinstance(value, type) or not callable(getattr(value, method, None))):
        raise ConfigError(f"must be {kind}, not {_kind(value)}", argument=name)
    return value


def check_hook(name: str, value: T, kind: str) -> T:
    """A plain function. Raises `ConfigError` that names the argument and its `kind`: nobody awaits a coroutine."""
    check_usable(name, value, "__call__", kind)
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(getattr(value, "__call__", None)):  # noqa: B004 - of an object, its method
        raise ConfigError(
            f"must be {kind}, not an async function: it is called and not awaited, so it would never run",
            argument=name,
            remedy="A plain function can start a task",
        )
    return value


def check_positive(name: str, value: float) -> float:
    """A finite number above 0. Raises `ConfigError` that names the argument."""
    value = as_builtin(value)
    if not _is_number(value) or not 0 < value <= LARGEST:
        raise ConfigError(f"must be a number above 0, not {_shown(value)}", argument=name)
    return float(value)


def check_seconds(name: str, value: float) -> float:
    """A number from 0; infinity is one. Raises `ConfigError` that names the argument."""
    value = as_builtin(value)
    if not _is_number(value) or not (0 <= value <= LARGEST or value == math.inf):
        raise ConfigError(f"must be a number of seconds from 0, not {_shown(value)}", argument=name)
    return float(value)


def check_whole(name: str, value: int, *, least: int = 1) -> int:
    """A whole number from `least`. Raises `ConfigError` that names the argument."""
    value = as_builtin(value)
    if isinstance(cast("object", value), bool) or not isinstance(cast("object", value), int) or value < least:
        raise ConfigError(f"must be a whole number from {least}, not {_shown(value)}", argument=name)
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _shown(value: object) -> str:
    """A wrong value as it may stand in a message: short, on one line, and never the cause of another error."""
    if not isinstance(value, str | int | float | bool | None):
        return _kind(value)
    if isinstance(value, int) and abs(value) > 10**20:
        return "a number of more than 20 digits"
    if isinstance(value, str) and re.search(_MAY_BE_A_KEY, value):
        return f"a text of {len(value)} characters"
    said = repr(value)
    return said if len(said) <= _ECHO else f"{said[:_ECHO]}..."
