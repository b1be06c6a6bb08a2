"""Sessions of one account share what the server said, as long as one of them is open; a route is not shared."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import aiohttp
import anyio
import pytest
from _scripted import Scripted, opened, turns
from _virtual import ask_for_silence

from aiopplx import JobStatus, NotFound, OutOfCredit, PollPolicy, RetryPolicy, Session
from aiopplx._errors import AuthenticationError, ConfigError, TransportError
from aiopplx._http import account
from aiopplx._http.account import Membership, join
from aiopplx._http.secret import Secret
from aiopplx._wire.api import Tier
from aiopplx._wire.call import Lane
from aiopplx.testing import Clock

URL, KEY = "https://api.example", Secret("a-key-of-some-length")
STOP = AuthenticationError("bad key", status=401)


def joined(per_minute: float | None = None, way: object = None) -> Membership:
    return join(URL, KEY, per_minute, way)


def interval(member: Membership) -> float:
    """Seconds between two submissions, as given; 0 if nothing was."""
    limit = member.gate.limits.submit
    return 1.0 / limit.rate if limit.is_given and limit.rate else 0.0


async def test_one_key_at_one_server_is_one_account():
    one, other = joined(), joined()
    assert one.gate is other.gate


async def test_other_key_or_server_is_another_account():
    members = [joined(), join(URL, Secret("another-key"), None), join(URL + ".org", KEY, None)]
    assert len({id(member.gate) for member in members}) == 3


async def test_slowest_rate_of_the_open_sessions_holds():
    members = [joined(rate) for rate in (60.0, 20.0, 100.0, None)]
    paces = []
    for member in (members[1], members[0], members[2]):
        paces.append(interval(members[3]))
        member.end()
        member.end()
    assert [*paces, interval(members[3])] == pytest.approx([3.0, 1.0, 0.6, 0.0])


async def test_lowest_tier_holds_and_a_rate_is_above_it():
    high, low = (join(URL, KEY, None, tier=Tier(rpm, None, None)) for rpm in (150.0, 50.0))
    limits = high.gate.limits
    assert (limits.submit.burst, limits.is_shared) == (50.0, True)
    given = joined(20.0)
    assert (limits.submit.burst, limits.is_shared) == (1.0, False)
    given.end()
    low.end()
    assert (limits.submit.burst, limits.is_shared) == (150.0, True)
    high.allow(None)
    assert limits.submit.rate is None


async def test_account_ends_with_its_last_open_session():
    """Also where the program still refers to the sessions that it closed."""
    closed = [joined(6.0), joined()]
    closed[0].gate.halt(STOP, Lane.SUBMIT, 0.0)
    for member in closed:
        member.end()
    later = joined()
    assert (interval(later), later.gate.stop) == (0.0, None)
    assert closed[0].gate.stop is STOP


async def test_session_that_was_dropped_unclosed_is_no_member():
    member = joined(60.0)
    del member
    gc.collect()
    assert interval(joined()) == 0.0


async def whole_batch(session: Session) -> None:
    async with session.batch(["one", "two"]) as jobs:
        assert len([job async for job in jobs]) == 2


async def left_batch(session: Session) -> None:
    async with session.batch(["one", "two"]) as jobs:
        await anext(jobs)


async def submitted_and_awaited(session: Session) -> None:
    await session.wait(await session.submit("one"))


USES: list[Callable[[Session], Coroutine[Any, Any, object]]] = [
    lambda session: session.ask("one"),
    lambda session: session.submit("one"),
    lambda session: session.get("job-0"),
    submitted_and_awaited,
    whole_batch,
    left_batch,
]


NAMED = list(zip(USES, ["ask", "submit", "get", "wait", "batch", "left batch"], strict=True))


@pytest.mark.parametrize(
    ("use", "poll"),
    [
        *(pytest.param(use, "fixed", id=name) for use, name in NAMED),
        *(pytest.param(use, "adaptive", id=f"{name} with a list") for use, name in NAMED if name in ("ask", "batch")),
    ],
)
async def test_session_dropped_after_its_use_is_no_member(
    use: Callable[[Session], Coroutine[Any, Any, object]], poll: str, server: Scripted
) -> None:
    """No timer that it has set keeps it alive, and with it what it allowed."""
    adaptive: dict[str, Any] = {"poll": PollPolicy.adaptive(), "clock": Clock(1000)} if poll == "adaptive" else {}
    session = opened(server, rpm=6, **adaptive)
    with suppress(NotFound):
        await use(session)
    assert session._core is not None
    member = weakref.ref(session._core.membership)
    del session
    await turns()
    with pytest.warns(ResourceWarning):
        gc.collect()
    assert member() is None
    await turns()


async def test_words_of_the_server_are_shared_routes_are_not():
    proxy = object()
    own, routed, same = joined(60.0), joined(way=proxy), joined(way=proxy)
    assert own.gate is not routed.gate is same.gate
    assert own.gate.limits is routed.gate.limits
    own.gate.halt(STOP, Lane.SUBMIT, 0.0)
    ask_for_silence(own.gate, 0.0, 7.0)
    assert routed.gate.stop is STOP
    assert routed.gate.silence(0.0) == 7.0
    routed.gate.accepted(Lane.SUBMIT, 0.0, 0.0)
    assert own.gate.stop is None


@pytest.mark.parametrize("error", [TransportError("no proxy"), ConfigError("closed")], ids=("unreachable", "closed"))
async def test_what_one_route_has_met_holds_back_no_other(error: Any):
    own, routed = joined(), joined(way=object())
    for n in range(20):
        routed.gate.failed(float(n), connected=False, sent_at=float(n))
        routed.gate.submit_failed(float(n))
    routed.gate.halt(error, Lane.SUBMIT, 20.0)
    assert routed.gate.delay(Lane.SUBMIT, 20.0) > 0.0
    assert routed.gate.is_unreachable(4)
    assert routed.gate.halted(20.0) is error
    assert own.gate.why(Lane.SUBMIT, 20.0) is None
    assert own.gate.silent_server(20.0) == 0.0
    assert not own.gate.is_unreachable(1)


def test_each_loop_has_its_own_gates():
    async def gate_here():
        return joined().gate

    with asyncio.Runner() as first, asyncio.Runner() as second:
        assert first.run(gate_here()) is not second.run(gate_here())


def test_sessions_may_open_and_close_in_many_threads():
    wrong: list[BaseException] = []

    async def many() -> None:
        for n in range(40):
            members = [joined(60.0 + n), joined(), joined(way=object())]
            await asyncio.sleep(0)
            assert interval(members[1]) == pytest.approx(60.0 / (60.0 + n))
            for member in members:
                member.end()

    def run() -> None:
        try:
            asyncio.run(many())
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


async def test_account_does_not_keep_the_key():
    member = joined()
    accounts = list(account._accounts[asyncio.get_running_loop()])
    assert member is not None
    assert not any(KEY.reveal() in name for name in accounts)


# --- sessions --------------------------------------------------------------------------------------------------------


async def test_closed_session_hands_on_no_rate_and_no_stop(server: Scripted):
    server.script = lambda asked: (402, {"error": {"message": "no credit", "type": "insufficient_quota"}})
    async with opened(server, rpm=6) as closed:
        with pytest.raises(OutOfCredit):
            await closed.ask("one")
    server.script = lambda asked: None
    async with opened(server) as session:
        with anyio.fail_after(5):  # six a minute would take half a minute
            async with session.batch(["one", "two", "three"]) as jobs:
                assert [job.status async for job in jobs] == [JobStatus.COMPLETED] * 3
    assert repr(closed).endswith("closed>")


async def test_proxy_that_is_down_stops_no_other_session(server: Scripted):
    retry = RetryPolicy(base=0.01, max_delay=0.02)
    async with (
        aiohttp.ClientSession(proxy="http://127.0.0.1:9") as http,
        opened(server, http=http, retry=retry) as routed,
        opened(server, retry=retry) as own,
    ):
        for _ in range(3):
            with pytest.raises(TransportError):
                await routed.ask("through the proxy")
        with anyio.fail_after(5):
            assert (await own.ask("directly")).ok
        with pytest.raises(TransportError):
            await routed.ask("through the proxy")
