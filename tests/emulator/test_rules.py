"""The emulator's rules: keys, idempotency, rates, pages, time, money, and a ledger that adds up."""

from __future__ import annotations

import asyncio
import gc
import math
import socket
import statistics
import time
import warnings
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest
from _caller import NEW, OLD, Caller, asking
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopplx.emulator import AfterPolls, Emulator
from aiopplx.emulator.limits import Bucket, FixedWindow, InFlight, Leaky, Limit, SlidingWindow

RETIRED_KINDS = ["chat_completions_not_available", "agent_api_migration_required"]


def kind(answer: Any) -> str:
    return str(answer.json["error"]["type"])


# --- idempotency


async def test_repeated_key_gets_the_first_answer_and_no_job() -> None:
    async with Emulator(duration=0) as server, Caller(server.url) as c:
        first = await c.submit(asking(key="k"))
        await c.get(first.json["id"])
        again = await c.call("POST", NEW, asking(key="k"))
        assert again.body == first.body
        assert server.ledger.created_by_key == {"k": 1}
        assert server.ledger.billed == pytest.approx(server.ledger.jobs[0].cost)


async def test_repeated_key_with_another_request_is_a_409() -> None:
    async with Emulator() as server, Caller(server.url) as c:
        await c.submit(asking("one", key="k"))
        assert (await c.submit(asking("two", key="k"))).status == 409
        assert server.ledger.created == 1


async def test_server_that_ignores_keys_makes_a_job_each_time() -> None:
    async with Emulator(idempotency="ignore") as server, Caller(server.url) as c:
        ids = {await c.job(asking(key="k")) for _ in range(3)}
        assert len(ids) == 3
        assert server.ledger.created_by_key == {"k": 3}


async def test_server_that_rejects_repeated_keys_says_409() -> None:
    async with Emulator(idempotency="reject") as server, Caller(server.url) as c:
        await c.job(asking(key="k"))
        again = await c.submit(asking(key="k"))
        assert (again.status, kind(again)) == (409, "conflict")
        assert server.ledger.created == 1


async def test_key_is_forgotten_after_its_time() -> None:
    async with Emulator(key_ttl=3600) as server, Caller(server.url) as c:
        first = await c.job(asking(key="k"))
        server.advance(3599)
        assert await c.job(asking(key="k")) == first
        server.advance(2)
        assert await c.job(asking(key="k")) != first


@pytest.mark.parametrize("key", [None, ""])
async def test_submissions_without_a_key_are_each_a_job(key: str | None) -> None:
    async with Emulator() as server, Caller(server.url) as c:
        body = {**asking(), "idempotency_key": key}
        assert await c.job(body) != await c.job(body)
        assert server.ledger.created_by_key == {}


async def test_new_emulator_gives_new_ids_to_new_keys() -> None:
    ids: list[str] = []
    for key in ("a", "b"):
        async with Emulator() as server, Caller(server.url) as c:
            ids.append(await c.job(asking(key=key)))
    assert ids[0] != ids[1]


# --- keys


async def test_any_word_is_a_key_unless_it_seems_real() -> None:
    async with Emulator() as server:
        async with Caller(server.url, "some-word") as c:
            assert (await c.list()).status == 200
            assert (await c.list(headers={"Authorization": ""})).status == 401
            assert (await c.list(headers={"Authorization": "Basic abc"})).status == 401
        async with Caller(server.url, "pplx-abcdef") as c:
            refused = await c.submit()
            assert (refused.status, kind(refused)) == (401, "invalid_api_key")
            assert "emulator" in refused.json["error"]["message"]
            assert "pplx-abcdef" not in refused.body.decode()
        assert server.ledger.created == 0


async def test_named_keys_are_accounts_hidden_from_each_other() -> None:
    async with (
        Emulator(keys={"pplx-mine", "yours"}, duration=0) as server,
        Caller(server.url, "pplx-mine") as mine,
        Caller(server.url, "yours") as yours,
        Caller(server.url, "else") as neither,
    ):
        id = await mine.job(asking(key="k"))
        assert (await yours.get(id)).status == 404
        assert (await yours.list()).json["requests"] == []
        assert await yours.job(asking(key="k")) != id
        assert (await neither.list()).status == 401


async def test_two_keys_of_one_account_are_revoked_separately() -> None:
    async with (
        Emulator(keys={"old": "team", "new": "team"}, duration=0) as server,
        Caller(server.url, "old") as old,
        Caller(server.url, "new") as new,
    ):
        id = await old.job()
        server.revoke("old")
        assert (await old.get(id)).status == 401
        assert (await new.get(id)).json["status"] == "COMPLETED"


async def test_refused_key_can_get_the_older_html_page() -> None:
    async with Emulator(keys={"k"}, auth_errors="html") as server, Caller(server.url, "wrong") as c:
        answer = await c.list()
        assert answer.status == 401
        assert answer.headers["Content-Type"].startswith("text/html")
        assert b"<title>401 Unauthorized</title>" in answer.body


def test_single_word_is_not_a_collection_of_keys() -> None:
    with pytest.raises(TypeError, match="keys="):
        Emulator(keys="secret")


# --- rates


@pytest.mark.parametrize(("tier", "burst"), [(0, 5), (1, 10), (2, 20), (3, 40), (4, 60), (5, 100)])
async def test_tier_allows_its_burst_and_refills_continuously(tier: int, burst: int) -> None:
    async with Emulator(tier=tier, time_scale=0.001, answer_chars=100) as server, Caller(server.url, keep=True) as c:
        statuses = [(await c.submit()).status for _ in range(burst + 2)]
        assert statuses == [200] * burst + [429] * 2
        server.advance(60 / burst)
        assert [(await c.submit()).status for _ in range(2)] == [200, 429]
        assert (await c.list()).status == 200
        assert server.ledger.created == burst + 1


async def test_429_has_no_hint_by_default() -> None:
    async with Emulator(rpm=1, time_scale=0.001) as server, Caller(server.url) as c:
        await c.submit()
        answer = await c.submit()
        assert answer.status == 429
        assert answer.json["error"]["type"] == "request_rate_limit_exceeded"
        assert not [name for name in answer.headers if name.lower().startswith(("retry", "x-ratelimit"))]


async def test_hints_of_a_limit_are_in_real_seconds() -> None:
    async with Emulator(rpm=6, time_scale=0.1, limit_hints="retry-after") as server, Caller(server.url) as c:
        for _ in range(6):
            assert "Retry-After" not in (await c.submit()).headers
        # 10 emulated seconds a submission, which are a hundred real ones here; some of them have passed.
        hint = (await c.submit()).headers["Retry-After"]
        assert 80 <= int(hint) <= 100
        assert server.ledger.log[-1].retry_after == hint
    async with Emulator(rpm=2, time_scale=0.001, limit_hints="x-ratelimit") as server, Caller(server.url) as c:
        headers = (await c.submit()).headers
        assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("2", "1")
        assert int(headers["x-ratelimit-reset"]) >= int(server.now())


async def test_each_account_has_rates_of_its_own() -> None:
    async with (
        Emulator(rpm=1, keys={"a", "b"}, time_scale=0.001) as server,
        Caller(server.url, "a") as a,
        Caller(server.url, "b") as b,
    ):
        assert [(await caller.submit()).status for caller in (a, a, b, b)] == [200, 429, 200, 429]


@settings(max_examples=200)
@given(rpm=st.floats(0.5, 6000), gaps=st.lists(st.floats(0, 120), min_size=1, max_size=60))
def test_bucket_never_passes_more_than_burst_and_rate(rpm: float, gaps: list[float]) -> None:
    take, now, passed = Bucket(rpm).begin(0.0), 0.0, 0
    for gap in gaps:
        now += gap
        passed += take(now).wait == 0
        assert passed <= max(rpm, 1) + now * rpm / 60 + 1e-3


EVERY_LIMIT: list[Limit] = [
    Bucket(50),
    Bucket(50, burst=5, full=0.0),
    Bucket(6000),
    Leaky(5, 2),
    Leaky(1),
    FixedWindow(3, 10),
    SlidingWindow(3, 10),
    SlidingWindow(3, 10, counts_refusals=True),
    InFlight(2),
]


@pytest.mark.parametrize("limit", EVERY_LIMIT, ids=str)
@given(gaps=st.lists(st.floats(0, 3), min_size=20, max_size=60))
def test_limit_passes_after_the_wait_it_named(limit: Limit, gaps: list[float]) -> None:
    take, now = limit.begin(0.0), 0.0
    for gap in gaps:
        now += gap
        room = take(now)
        assert 0 <= room.remaining <= room.limit
        if room.wait:
            assert room.remaining == 0
            now += room.wait + 1e-6
            assert take(now).wait == 0


def passed(limit: Limit, *moments: float) -> list[int]:
    """Of requests at these moments (seconds), which are let in."""
    take = limit.begin(0.0)
    return [number for number, at in enumerate(moments) if not take(at).wait]


def test_leaky_limit_has_a_small_burst_that_drains() -> None:
    assert passed(Leaky(5, 2), 0, 0, 0, 0, 0.2, 0.2, 0.6, 0.6) == [0, 1, 2, 4, 6, 7]
    assert passed(Leaky(1), 0, 0.5, 0.9, 1.0, 2.1) == [0, 3, 4]


def test_fixed_window_opens_with_the_clock() -> None:
    assert passed(FixedWindow(2, 10), 8, 9, 9.5, 10, 11, 12) == [0, 1, 3, 4]


def test_sliding_window_opens_one_by_one() -> None:
    assert passed(SlidingWindow(2, 10), 8, 9, 9.5, 10, 18, 18.5, 19) == [0, 1, 4, 6]


def test_counter_of_refusals_stays_shut_while_it_is_asked() -> None:
    asked = [0.0, 1.0, *(2.0 + 4 * turn for turn in range(8))]
    assert passed(SlidingWindow(2, 10, counts_refusals=True), *asked) == [0, 1]
    assert len(passed(SlidingWindow(2, 10), *asked)) > 4


async def test_limit_in_flight_holds_answers_back() -> None:
    limits = {"submit": InFlight(1, 3600)}
    async with Emulator(limits=limits) as server, Caller(server.url) as c, Caller(server.url) as d:
        both = [asyncio.create_task(caller.submit()) for caller in (c, d)]
        (first,), (second,) = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        assert first.result().status == 429
        assert not second.done()
        assert server.ledger.created == 1
        server.advance(3600)
        assert (await c.get(server.ledger.jobs[0].id)).status == 200
        second.cancel()


@pytest.mark.parametrize(
    ("limits", "submit", "get"),
    [
        (Bucket(60, burst=3), 3, 0),
        ({"*": Bucket(60, burst=3)}, 3, 0),
        ({"submit,get": Bucket(60, burst=3)}, 3, 0),
        ({"submit": Bucket(60, burst=3)}, 3, 4),
        ({"submit": Bucket(60, burst=3), "get": Bucket(60, burst=2)}, 3, 2),
        ({"get": Bucket(60, burst=2)}, 4, 2),
        ({"get": Bucket(60, burst=2), "*": Bucket(60, burst=3)}, 3, 2),
    ],
)
async def test_kinds_share_a_limit_or_have_their_own(limits: Limit | dict[str, Limit], submit: int, get: int) -> None:
    async with Emulator(limits=limits, time_scale=0.001) as server, Caller(server.url) as c:
        answers = [await c.submit() for _ in range(4)]
        assert sum(answer.status == 200 for answer in answers) == submit
        polls = [await c.get(answers[0].json["id"]) for _ in range(4)]
        assert sum(answer.status == 200 for answer in polls) == get


@pytest.mark.parametrize("hints", ["none", "never"])
async def test_agent_api_can_keep_its_limit_to_itself(hints: Any) -> None:
    async with Emulator(limits=Bucket(60), limit_hints=hints) as server, Caller(server.url) as c:
        answer = await c.call("GET", "/v1/responses/unknown")
        assert ("x-ratelimit-limit" in answer.headers) is (hints == "none")


# --- pages


async def test_pages_follow_their_tokens_without_gap_or_repeat() -> None:
    async with Emulator(page_size=3, answer_chars=100) as server, Caller(server.url, keep=True) as c:
        ids = [await c.job(asking(str(n))) for n in range(8)]
        seen: list[str] = []
        page = (await c.list()).json
        await c.job(asking("a job made while the pages are read"))
        while True:
            assert len(page["requests"]) <= 3
            seen += [row["id"] for row in page["requests"]]
            if page["next_token"] is None:
                break
            page = (await c.call("GET", OLD, params={"next_token": page["next_token"]})).json
        assert seen == ids[::-1]
        assert set(page["requests"][0]) == {
            "id", "created_at", "started_at", "completed_at", "failed_at", "model", "status",
        }  # fmt: skip


async def test_page_limit_sets_its_size_and_must_be_numeric() -> None:
    async with Emulator(answer_chars=100) as server, Caller(server.url) as c:
        for n in range(5):
            await c.job(asking(str(n)))
        assert len((await c.list("?limit=2")).json["requests"]) == 2
        assert len((await c.list("?limit=500")).json["requests"]) == 5
        for wrong in ("0", "-1", "many"):
            assert (await c.list(f"?limit={wrong}")).status == 422
        assert (await c.list("?next_token=nonsense")).status == 400


async def test_server_can_ignore_the_query_or_repeat_a_token() -> None:
    async with Emulator(page_size=2, paging="ignore") as server, Caller(server.url) as c:
        for n in range(5):
            await c.job(asking(str(n)))
        first = (await c.list()).json
        again = (await c.list(f"?limit=5&next_token={first['next_token']}")).json
        assert first == again
        assert first["next_token"]
    async with Emulator(page_size=2, paging="repeat") as server, Caller(server.url) as c:
        for n in range(5):
            await c.job(asking(str(n)))
        first = (await c.list()).json
        again = (await c.list(f"?next_token={first['next_token']}")).json
        assert again["next_token"] == first["next_token"]


# --- time


async def test_job_changes_state_by_the_emulated_clock() -> None:
    async with Emulator(duration=100, time_scale=0.001, seed=3) as server, Caller(server.url) as c:
        created = (await c.submit()).json
        id = created["id"]
        assert (await c.get(id)).json["status"] == "CREATED"
        server.advance(50)
        running = (await c.get(id)).json
        assert running["status"] == "IN_PROGRESS"
        assert running["started_at"] - created["created_at"] in range(5)
        server.advance(51)
        done = (await c.get(id)).json
        assert done["status"] == "COMPLETED"
        assert done["completed_at"] - created["created_at"] in (99, 100, 101)
        assert done["response"]["created"] == done["completed_at"]


async def test_emulated_time_runs_by_its_scale() -> None:
    server = Emulator(time_scale=10_000)
    start = server.now()
    began = time.monotonic()
    await asyncio.sleep(0.001)
    real = time.monotonic() - began
    assert server.now() - start >= 10_000 * real - 0.001


async def test_durations_are_log_normal_round_four_minutes() -> None:
    async with Emulator(answer_chars=100) as server, Caller(server.url, keep=True) as c:
        for n in range(300):
            await c.job(asking(str(n)))
        spans = [job.finished_at - job.created_at for job in server.ledger.jobs]
        assert 220 <= statistics.median(spans) <= 265
        assert 40 < min(spans) < 150
        assert 400 < max(spans) < 1200


async def test_function_can_say_how_long_each_question_takes() -> None:
    async with Emulator(duration=lambda question: 10.0 * len(question)) as server, Caller(server.url) as c:
        await c.job(asking("four"))
        job = server.ledger.jobs[0]
        assert job.finished_at - job.created_at == pytest.approx(40)


async def test_job_is_done_at_its_nth_poll() -> None:
    async with Emulator(duration=AfterPolls(3)) as server, Caller(server.url) as c:
        id = await c.job()
        await c.list()
        assert [(await c.get(id)).json["status"] for _ in range(3)] == ["IN_PROGRESS", "IN_PROGRESS", "COMPLETED"]
        assert server.ledger.jobs[0].polls == 3


async def test_job_is_forgotten_after_seven_days() -> None:
    async with Emulator() as server, Caller(server.url) as c:
        id = await c.job()
        server.advance(7 * 86400 - 60)
        assert (await c.get(id)).json["status"] == "COMPLETED"
        server.advance(120)
        gone = await c.get(id)
        assert (gone.status, kind(gone)) == (404, "not_found")
        assert (await c.list()).json == {"next_token": None, "requests": []}


async def test_answers_are_dated_by_the_emulated_clock() -> None:
    async with Emulator(time_scale=0.001) as server, Caller(server.url) as c:
        server.advance(86400 * 400)
        answer = await c.submit()
        told = parsedate_to_datetime(answer.headers["Date"]).timestamp()
        assert told == pytest.approx(server.now(), abs=2)
        assert answer.json["created_at"] == pytest.approx(told, abs=2)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"time_scale": scale} for scale in (0, -1, math.nan, math.inf, 1e300)),
        *({"failure_rate": share} for share in (1.5, -0.1, math.nan)),
        *({"tier": tier} for tier in (6, -1)),
        *({"rpm": rate} for rate in (0, -1, math.nan)),
        *(
            {"limits": bad}
            for bad in (5, {"submit": 5}, {"poll": Bucket(5)}, Bucket(0), Leaky(1, -1), {"*": InFlight(0)})
        ),
        {"limits": Bucket(5), "tier": 1},
        *({"page_size": rows} for rows in (0, -1)),
        *({name: bad} for name in ("duration", "ttl", "key_ttl", "cancel_delay", "credits") for bad in (-1, math.nan)),
        {"answer_chars": -1},
        {"log_size": -1},
        *({name: "bogus"} for name in ("idempotency", "paging", "limit_hints", "auth_errors")),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Emulator(**wrong)


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, 1e12])
async def test_time_moves_only_where_dates_can_follow(seconds: float) -> None:
    async with Emulator() as server, Caller(server.url) as c:
        with pytest.raises(ValueError, match="seconds"):
            server.advance(seconds)
        assert (await c.submit()).status == 200


def test_job_cannot_end_before_its_first_poll() -> None:
    with pytest.raises(ValueError, match="1 poll"):
        AfterPolls(0)


# --- chance


async def test_same_seed_and_questions_make_the_same_run() -> None:
    async def run(seed: int) -> list[Any]:
        async with (
            Emulator(seed=seed, failure_rate=0.3, answer_chars=3000) as server,
            Caller(server.url, keep=True) as c,
        ):
            ids = [await c.job(asking(f"Question {n % 10}", key=f"{seed}-{n}")) for n in range(30)]
            spans = [(round(job.finished_at - job.created_at, 3), job.fails, job.cost) for job in server.ledger.jobs]
            server.advance(3600)
            responses = [(await c.get(id)).json["response"] for id in ids]
        for response in filter(None, responses):
            del response["created"]
        return [ids, spans, responses]

    first, second, other = await run(1), await run(1), await run(2)
    assert first == second
    assert first[1] != other[1]
    assert first[2] != other[2]
    assert 2 <= sum(fails for _, fails, _ in first[1]) <= 20


async def test_repeated_question_takes_another_time_for_the_same_answer() -> None:
    async with Emulator(answer_chars=2000) as server, Caller(server.url) as c:
        ids = [await c.job(), await c.job()]
        one, two = server.ledger.jobs
        assert one.finished_at - one.created_at != two.finished_at - two.created_at
        server.advance(3600)
        answers = [(await c.get(id)).json["response"] for id in ids]
        assert answers[0]["choices"] == answers[1]["choices"]
        assert answers[0]["id"] != answers[1]["id"]


# --- money


async def test_ledger_adds_up_to_what_the_answers_say() -> None:
    async with (
        Emulator(duration=0, failure_rate=0.3, answer_chars=500, seed=5) as server,
        Caller(server.url, keep=True) as c,
    ):
        ids = [await c.job(asking(str(n), key=f"k{n}")) for n in range(40)]
        jobs = [(await c.get(id)).json for id in ids]
        told = sum(job["response"]["usage"]["cost"]["total_cost"] for job in jobs if job["status"] == "COMPLETED")
        ledger = server.ledger
        assert ledger.billed == pytest.approx(told)
        assert ledger.created == 40
        assert [job.id for job in ledger.jobs] == ids
        assert {job.billed for job, told in zip(ledger.jobs, jobs, strict=True) if told["status"] == "FAILED"} == {
            False
        }
        assert set(ledger.created_by_key.values()) == {1}
        assert ledger.requests == {f"POST {OLD}": 40, f"GET {OLD}/{{id}}": 40}
        assert b'"idempotency_key": "k7"' in ledger.jobs[7].body
        last = ledger.log[-1]
        assert (last.on, last.status, last.job_id, last.key, last.fault) == ("get", 200, ids[-1], "k39", "")


async def test_used_up_credit_is_a_401_until_topped_up() -> None:
    async with Emulator(duration=0, credits=0.01) as server, Caller(server.url) as c:
        id = await c.job(asking(key="a"))
        refused = await c.submit(asking(key="b"))
        assert (refused.status, kind(refused)) == (401, "insufficient_quota")
        assert (await c.submit(asking(key="a"))).json["id"] == id
        assert (await c.get(id)).status == 200
        assert server.ledger.created == 1
        server.credits = 100.0
        assert (await c.submit(asking(key="b"))).status == 200


# --- the end of the family


@pytest.mark.parametrize("name", RETIRED_KINDS)
async def test_retired_family_answers_403_to_everything(name: str) -> None:
    async with Emulator(duration=0) as server, Caller(server.url) as old, Caller(server.url, base=NEW) as new:
        id = await old.job()
        server.retire(name)
        for answer in (await old.submit(), await new.submit(), await old.get(id), await new.get(id), await new.list()):
            assert (answer.status, kind(answer), answer.json["error"]["code"]) == (403, name, 403)
        assert server.ledger.created == 1
        server.retire("")
        assert (await old.get(id)).status == 200


async def test_family_can_be_retired_from_the_start() -> None:
    async with Emulator(retired="chat_completions_not_available") as server, Caller(server.url) as c:
        assert (await c.submit()).status == 403
        server.reset()
        assert (await c.submit()).status == 403


# --- the server itself


async def test_server_listens_on_the_loopback_interface_only() -> None:
    async with Emulator() as server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        found = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
        for address in found - {"127.0.0.1"}:
            with (
                pytest.raises(OSError, match=r"refused|unreachable"),
                socket.create_connection((address, server.port), 1),
            ):
                pass


async def test_reentered_server_keeps_its_port_and_jobs() -> None:
    server = Emulator(duration=0)
    async with server, Caller(server.url) as c:
        id, port = await c.job(), server.port
        with pytest.raises(RuntimeError):
            await server.start()
    async with Caller(server.url) as c:
        with pytest.raises(aiohttp.ClientConnectorError):
            await c.get(id)
    async with server, Caller(server.url) as c:
        assert server.port == port
        assert (await c.get(id)).json["status"] == "COMPLETED"


async def test_reset_forgets_everything() -> None:
    async with Emulator(rpm=1, keys={"k"}, time_scale=0.001) as server, Caller(server.url, "k") as c:
        await c.job()
        server.revoke("k")
        server.reset()
        assert server.ledger.created == 0
        assert (await c.list()).json["requests"] == []
        assert (await c.submit()).status == 200


async def test_answers_are_compressed_only_when_asked_to() -> None:
    async with Emulator(duration=0, compress=True) as server, Caller(server.url) as c:
        id = await c.job()
        assert (await c.get(id)).headers["Content-Encoding"] == "gzip"
        assert "Content-Encoding" not in (await c.get(id, headers={"Accept-Encoding": "identity"})).headers


async def test_broken_off_request_is_not_seen_or_reported(caplog: pytest.LogCaptureFixture) -> None:
    async with Emulator() as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /async/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\nhalf")
        await server.until(lambda ledger: ledger.in_flight == 1)
        writer.close()
        await server.until(lambda ledger: ledger.in_flight == 0)
        assert not server.ledger.requests
    assert caplog.records == []


async def test_test_can_wait_for_what_the_ledger_shows() -> None:
    async with Emulator() as server, Caller(server.url) as c:
        await server.until(lambda ledger: ledger.created == 0)
        waiting = asyncio.create_task(server.until(lambda ledger: ledger.created == 2))
        await c.job()
        assert not waiting.done()
        await c.job()
        await asyncio.wait_for(waiting, 5)


async def test_leaving_the_block_ends_everything_without_a_warning() -> None:
    before = asyncio.all_tasks()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with Emulator() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /v1/async/sonar HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 401")
        await reader.read()
        writer.close()
        await writer.wait_closed()
        assert asyncio.all_tasks() == before
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
