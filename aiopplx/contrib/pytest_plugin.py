"""A plugin for pytest, loaded by itself where both are installed: fixtures for the tests of a program that researches.

`pplx_emulator` is the service on a loopback socket, `pplx_session` a session at it, and `pplx_clock` the clock of both,
which jumps over all waiting: a job of half an hour takes milliseconds. Each test has its own three. While a test has
them the environment names the emulator, with a key that no real service accepts, so that no session of the program
under test can pay for anything.

Async tests are run by anyio's own plugin or by pytest-asyncio. Each wants async fixtures made in its own way, so a
fixture here is a plain one that asks the fixture of whichever plugin runs the test; pytest-asyncio has one for each
scope of a loop, since a test may run on a loop that outlives it. For a plain test the emulator runs on a thread of its
own, and on real time. This module knows nothing of how the emulator plays the service.
"""

from __future__ import annotations

import inspect
import types
import unittest
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import pytest

if TYPE_CHECKING:
    from aiopplx import Session
    from aiopplx.emulator import Emulator
    from aiopplx.testing import Clock

__all__ = ["KEY", "pplx_clock", "pplx_emulator", "pplx_session"]

KEY = "a-key-of-the-emulator"
"""What the environment and `pplx_session` have for a key."""

_Scope: TypeAlias = Literal["function", "class", "module", "package", "session"]
_SCOPES: tuple[_Scope, ...] = get_args(_Scope)
"""Of loops, as pytest-asyncio names them."""
_MARKERS = (
    "pplx_emulator(**settings): arguments of aiopplx.emulator.Emulator for the emulator of this test",
    "pplx_session(**settings): arguments of aiopplx.Session for the session of this test",
    "pplx_fault(on, fault, *, times=None, rate=None, after=0, match=None): a fault of the emulator of this test, by its"
    " name in aiopplx.emulator.faults.NAMED",
)


def pytest_configure(config: pytest.Config) -> None:
    """Tells pytest of the markers, and of the fixtures for pytest-asyncio where that is in use."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if config.pluginmanager.hasplugin("asyncio"):
        config.pluginmanager.register(_fixtures_by_asyncio())


@pytest.fixture
def pplx_clock(request: pytest.FixtureRequest) -> Clock:
    """The clock of this test's emulator and session: it jumps to the next due moment when nothing is on the wire.

    Give it to a session of the program under test too: `Session(clock=pplx_clock)`. A session on real time would wait
    for real minutes. With `@pytest.mark.pplx_emulator(time_scale=60.0)` it is real time, sixty times as fast.
    """
    from aiopplx.testing import Clock, JumpingClock

    settings = _settings(request, "pplx_emulator")
    if "time_scale" in settings:
        return Clock(settings["time_scale"])
    given: Clock | None = settings.get("clock")
    return given or JumpingClock()


@pytest.fixture
def pplx_emulator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """The service on a loopback socket, running; `pplx_emulator.ledger` has what was made, paid and asked.

    `@pytest.mark.pplx_emulator(duration=1800.0)` gives it arguments of `aiopplx.emulator.Emulator`, and
    `@pytest.mark.pplx_fault("submit", "accept_then_drop", times=1)` faults. The environment names it. In a test that is
    no coroutine it runs on a thread of its own and on real time, and a job takes half a second if the mark says no
    other `duration`.
    """
    server: Emulator = _of_this_runner(request, "emulator")
    monkeypatch.setenv("PERPLEXITY_BASE_URL", server.url)
    monkeypatch.setenv("PERPLEXITY_API_KEY", KEY)
    monkeypatch.delenv("PPLX_API_KEY", raising=False)
    return server


@pytest.fixture
def pplx_session(request: pytest.FixtureRequest, pplx_emulator: Emulator) -> Session:
    """A session at `pplx_emulator`, open; closed after the test.

    `@pytest.mark.pplx_session(max_cost=5.0)` gives it arguments of `aiopplx.Session`.
    """
    session: Session = _of_this_runner(request, "session")
    return session


def _of_this_runner(request: pytest.FixtureRequest, name: str) -> Any:  # Any: a fixture has no type that can be asked
    function = getattr(getattr(request.function, "hypothesis", None), "inner_test", request.function)
    is_unittest = isinstance(request.instance, unittest.TestCase)  # it has a loop of its own
    is_async = inspect.iscoroutinefunction(function) and not is_unittest
    if is_async and "anyio_backend" in request.fixturenames:
        return request.getfixturevalue(f"_pplx_{name}_by_anyio")
    if is_async and request.config.pluginmanager.hasplugin("asyncio"):
        mark = request.node.get_closest_marker("asyncio")
        scope = mark.kwargs.get("loop_scope") if mark is not None else None
        scope = scope or request.config.getini("asyncio_default_test_loop_scope")
        return request.getfixturevalue(f"_pplx_{name}_by_asyncio_{scope}")
    if not is_async and name == "emulator":
        if "pplx_clock" in request.fixturenames and "time_scale" not in _settings(request, "pplx_emulator"):
            raise pytest.UsageError(
                "a plain test has pplx_emulator only, which runs on real time there: no pplx_clock, unless the mark"
                " says how fast: pplx_emulator(time_scale=60.0)"
            )
        return request.getfixturevalue("_pplx_emulator_on_a_thread")
    raise pytest.UsageError(
        f"pplx_{name} is for async tests: mark the test with pytest.mark.anyio or pytest.mark.asyncio; a plain test can"
        " have pplx_emulator only"
    )


def _settings(request: pytest.FixtureRequest, marker: str) -> dict[str, Any]:  # Any: whatever the arguments take
    """The keywords of all markers of this name; the one nearest to the test wins."""
    found: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers(marker))):
        if mark.args:
            raise pytest.UsageError(f"{marker} takes keywords only, not {mark.args!r}")
        found.update(mark.kwargs)
    return found


def _made(request: pytest.FixtureRequest, settings: dict[str, Any]) -> Emulator:  # Any: whatever the arguments take
    """The emulator of this test with its faults, not started."""
    from aiopplx.emulator import Emulator

    settings.setdefault("answer_chars", 2_000)
    server = Emulator(**settings)
    for mark in reversed(list(request.node.iter_markers("pplx_fault"))):
        server.faults.add(*mark.args, **mark.kwargs)
    return server


@pytest.fixture
def _pplx_emulator_on_a_thread(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    from anyio.from_thread import start_blocking_portal

    settings = _settings(request, "pplx_emulator")
    settings.setdefault("duration", 0.5)
    made = _made(request, settings)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(made) as server:
        yield server


async def _emulator(request: pytest.FixtureRequest, pplx_clock: Clock) -> AsyncIterator[Emulator]:
    settings = _settings(request, "pplx_emulator")
    if "time_scale" not in settings:
        settings.setdefault("clock", pplx_clock)
    async with _made(request, settings) as server:
        yield server  # noqa: ASYNC119 - pytest's form of a fixture; its plugins begin and end it in one task


async def _session(
    request: pytest.FixtureRequest, pplx_emulator: Emulator, pplx_clock: Clock
) -> AsyncIterator[Session]:
    from aiopplx import Session

    settings = _settings(request, "pplx_session")
    settings.setdefault("clock", pplx_clock)
    settings.setdefault("api_key", KEY)
    async with Session(base_url=pplx_emulator.url, **settings) as session:
        yield session  # noqa: ASYNC119 - likewise


_pplx_emulator_by_anyio = pytest.fixture(_emulator)
_pplx_session_by_anyio = pytest.fixture(_session)


def _fixtures_by_asyncio() -> types.ModuleType:
    """The same two, made by pytest-asyncio, for each scope of a loop."""
    import pytest_asyncio

    plugin = types.ModuleType("aiopplx.contrib.pytest_plugin.by_asyncio")
    for scope in _SCOPES:
        for name, made in (("emulator", _emulator), ("session", _session)):
            one = types.FunctionType(made.__code__, made.__globals__)  # of its own: it is marked with the scope
            plugin.__dict__[f"_pplx_{name}_by_asyncio_{scope}"] = pytest_asyncio.fixture(one, loop_scope=scope)
    return plugin
