"""Each fault of the emulator does what it says, when its rule says so."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import subprocess
import sys
from email.utils import parsedate_to_datetime
from typing import Any, get_args

import aiohttp
import msgspec
import pytest
from _caller import NEW, OLD, Caller, asking

from aiopplx.emulator import AfterPolls, Emulator, faults

LOST = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)


# --- faults in place of an answer


@pytest.mark.parametrize("status", [*range(400, 418), 425, 429, 500, 501, 502, 503, 504, 520, 522, 524, 599])
@pytest.mark.parametrize("html", [False, True])
async def test_any_status_can_replace_an_answer(status: int, html: bool) -> None:
    async with Emulator() as server, Caller(server.url) as c:
        server.faults.add("*", faults.Status(status, html=html))
        for answer in (await c.submit(), await c.get("x"), await c.list()):
            assert answer.status == status
            if html:
                assert f"<title>{status} ".encode() in answer.body
            else:
                assert answer.json["error"]["code"] == status
        assert server.ledger.created == 0


async def test_status_can_have_any_body_type_and_headers() -> None:
    async with Emulator() as server, Caller(server.url) as c:
        server.faults.add("list", faults.Status(500, body=""), times=1)
        server.faults.add("list", faults.Status(200, body="<b>hi</b>"), times=1)
        server.faults.add(
            "list", faults.Status(503, body="busy", content_type="text/plain", headers={"X-A": "b"}), times=1
        )
        server.faults.add("list", faults.Status(403, type="forbidden", message="No."), times=1)
        first, second, third, fourth = [await c.list() for _ in range(4)]
        assert (first.status, first.body) == (500, b"")
        assert (second.body, second.headers["Content-Type"]) == (b"<b>hi</b>", "text/html; charset=utf-8")
        assert (third.headers["Content-Type"], third.headers["X-A"]) == ("text/plain", "b")
        assert fourth.json == {"error": {"message": "No.", "type": "forbidden", "code": 403}}


@pytest.mark.parametrize(
    ("name", "status", "type"),
    [
        ("out_of_credit", 401, "insufficient_quota"),
        ("invalid_key", 401, "invalid_api_key"),
        ("payment_required", 402, "insufficient_credits"),
        ("retired", 403, "chat_completions_not_available"),
        ("migration_required", 403, "agent_api_migration_required"),
        ("not_found", 404, "not_found"),
        ("conflict", 409, "conflict"),
        ("too_early", 425, "too_early"),
        ("rate_limited", 429, "request_rate_limit_exceeded"),
    ],
)
async def test_named_refusals_have_the_captured_names(name: str, status: int, type: str) -> None:
    async with Emulator() as server, Caller(server.url) as c:
        server.faults.add("submit", faults.NAMED[name])
        answer = await c.submit()
        assert (answer.status, answer.json["error"]["type"]) == (status, type)


@pytest.mark.parametrize("form", faults.RETRY_AFTER_FORMS)
async def test_every_form_of_retry_after_is_sent_verbatim(form: str) -> None:
    async with Emulator() as server, Caller(server.url) as c:
        server.faults.add("submit", faults.RateLimited(retry_after=form))
        answer = await c.submit()
        assert answer.status == 429
        assert answer.headers["Retry-After"] == form
        assert server.ledger.log[-1].retry_after == form


async def test_hints_given_as_moments_count_from_the_answers_date() -> None:
    async with Emulator() as server, Caller(server.url) as c:
        server.faults.add("submit", faults.RateLimited(retry_at=90.0, limit=50, reset_in=30.0, status=503))
        answer = await c.submit()
        assert answer.status == 503
        date = parsedate_to_datetime(answer.headers["Date"]).timestamp()
        assert parsedate_to_datetime(answer.headers["Retry-After"]).timestamp() - date in (89, 90, 91)
        assert int(answer.headers["x-ratelimit-reset"]) - date in (29, 30, 31)
        assert answer.headers["x-ratelimit-remaining"] == "0"
        assert answer.headers["x-ratelimit-limit"] == "50"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_names_another_place(status: int) -> None:
    async with Emulator() as server, Caller(server.url) as c:
        server.faults.add("get", faults.Redirect("http://elsewhere.example/x", status))
        answer = await c.get("id")
        assert (answer.status, answer.headers["Location"]) == (status, "http://elsewhere.example/x")


@pytest.mark.parametrize("reset", [False, True])
async def test_drop_before_accepting_makes_no_job(reset: bool) -> None:
    async with Emulator() as server, Caller(server.url) as c:
        server.faults.add("submit", faults.Drop(reset=reset), times=1)
        with pytest.raises(LOST) as caught:
            await c.submit()
        assert isinstance(caught.value, aiohttp.ClientOSError) == reset
        assert server.ledger.created == 0
        assert (await c.submit()).status == 200


@pytest.mark.parametrize(
    "fault",
    [
        faults.Drop(after_accept=True),
        faults.Drop(after_accept=True, reset=True),
        faults.Hang(0.01, after_accept=True),
        faults.Status(500, after_accept=True),
        faults.Status(524, html=True, after_accept=True),
    ],
)
async def test_fault_after_accepting_bills_the_job_without_answering(fault: faults.Fault) -> None:
    async with Emulator() as server, Caller(server.url) as c:
        server.faults.add("submit", fault, times=1)
        with contextlib.suppress(*LOST):
            assert (await c.submit(asking(key="k"))).status >= 500
        assert server.ledger.created_by_key == {"k": 1}
        assert server.ledger.billed > 0
        (job,) = server.ledger.jobs
        assert server.ledger.log[-1].job_id == job.id
        assert (await c.submit(asking(key="k"))).json["id"] == job.id
        assert server.ledger.created == 1


async def test_hang_ends_when_client_or_server_ends() -> None:
    async with Emulator() as server, Caller(server.url) as c:
        server.faults.add("get", faults.Hang(3600))
        leaving = asyncio.create_task(c.get("x"))
        await server.until(lambda ledger: ledger.in_flight == 1)
        leaving.cancel()
        await server.until(lambda ledger: ledger.in_flight == 0)
        hanging = asyncio.create_task(c.get("x"))
        await server.until(lambda ledger: ledger.in_flight == 1)
        await server.close()
        with pytest.raises(LOST):
            await hanging


async def test_delay_gives_the_true_answer() -> None:
    async with Emulator(duration=0) as server, Caller(server.url) as c:
        id = await c.job()
        rule = server.faults.add("get", faults.Delay(0.01))
        assert (await c.get(id)).json["status"] == "COMPLETED"
        assert rule.hits == 1


# --- true answers, spoilt


async def spoilt(how: str, *, duration: Any = 0) -> tuple[Any, Emulator]:
    """The answer to the one request that the fault is for."""
    server = Emulator(duration=duration, answer_chars=1000)
    kinds = faults.ONLY.get(how, ("get",))
    async with server, Caller(server.url) as c:
        await c.job(asking("first", key="first"))
        if how == "duplicate_id":
            server.faults.add("submit", faults.NAMED[how])
            return await c.submit(asking(key="second")), server
        id = await c.job(asking("second"))
        rule = server.faults.add("*", faults.NAMED[how])
        answer = await (c.list() if kinds == ("list",) else c.get(id))
        if how == "flip":
            assert answer.json["status"] == "COMPLETED"
            answer = await c.get(id)
        assert rule.hits == 1
    return answer, server


async def test_every_way_to_corrupt_is_named_and_takes_effect() -> None:
    async with Emulator(duration=0, answer_chars=500) as server, Caller(server.url) as c:
        id = await c.job()
        plain = (await c.get(id)).body
        for how in get_args(faults.How):
            if how in ("duplicate_id", "bad_row", "wrong_content_type", "empty_content_type"):
                continue
            server.faults.clear()
            server.faults.add("get", faults.Corrupt(how))
            assert (await c.get(id)).body != plain, how


@pytest.mark.parametrize(
    "how", ["trailing", "bom", "invalid_utf8", "truncated", "empty", "undeclared_gzip", "deep", "html"]
)
async def test_corrupted_answer_can_be_invalid_json(how: str) -> None:
    answer, _ = await spoilt(how)
    assert answer.status == 200
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError, RecursionError)):
        msgspec.json.decode(answer.body)


async def test_answer_can_hold_an_invalid_number() -> None:
    answer, _ = await spoilt("not_a_number")
    assert str(answer.json["x"]) == "nan"
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(answer.body)


@pytest.mark.parametrize(("how", "value"), [("scalar", 42), ("null", None), ("array", [])])
async def test_answer_can_be_another_json_value(how: str, value: Any) -> None:
    answer, _ = await spoilt(how)
    assert answer.json == value


async def test_answer_can_come_compressed_without_saying_so() -> None:
    answer, _ = await spoilt("undeclared_gzip")
    assert json.loads(gzip.decompress(answer.body))["status"] == "COMPLETED"


async def test_content_type_can_be_wrong_or_missing() -> None:
    wrong, _ = await spoilt("wrong_content_type")
    assert wrong.headers["Content-Type"].startswith("text/html")
    assert wrong.json["status"] == "COMPLETED"
    none, _ = await spoilt("empty_content_type")
    assert none.headers["Content-Type"] == ""


async def test_id_can_be_null_missing_or_a_number() -> None:
    assert (await spoilt("id_null"))[0].json["id"] is None
    assert "id" not in (await spoilt("id_missing"))[0].json
    assert (await spoilt("id_number"))[0].json["id"] == 17


async def test_unknown_fields_can_be_everywhere() -> None:
    answer, _ = await spoilt("unknown_fields")
    response = answer.json["response"]
    for level in (
        answer.json,
        response,
        response["usage"],
        response["choices"][0]["message"],
        response["search_results"][0],
    ):
        assert level["x_unheard_of"]


async def test_job_can_get_the_list_or_another_job() -> None:
    answer, _ = await spoilt("list")
    assert len(answer.json["requests"]) == 2
    answer, server = await spoilt("other_job")
    assert answer.json["id"] == server.ledger.jobs[0].id
    assert answer.json["status"] == "COMPLETED"


async def test_lone_job_can_be_answered_with_a_strange_one() -> None:
    async with Emulator(duration=0, answer_chars=100) as server, Caller(server.url) as c:
        id = await c.job()
        server.faults.add("get", faults.NAMED["other_job"])
        assert (await c.get(id)).json["id"] not in (id, None)


async def test_two_keys_can_share_one_id_for_good() -> None:
    answer, server = await spoilt("duplicate_id")
    first, second = server.ledger.jobs
    assert answer.json["id"] == first.id != second.id
    assert server.ledger.created_by_key == {"first": 1, "second": 1}
    async with server, Caller(server.url) as c:
        server.faults.clear()
        assert (await c.submit(asking(key="second"))).json["id"] == first.id


async def test_completed_job_can_lack_its_answer() -> None:
    answer, _ = await spoilt("null_response")
    assert (answer.json["status"], answer.json["response"]) == ("COMPLETED", None)
    assert "response" not in (await spoilt("no_response"))[0].json
    assert (await spoilt("empty_choices"))[0].json["response"]["choices"] == []
    assert (await spoilt("null_content"))[0].json["response"]["choices"][0]["message"]["content"] is None


async def test_completed_job_can_run_again() -> None:
    answer, _ = await spoilt("flip")
    assert answer.json["status"] == "IN_PROGRESS"
    assert answer.json["completed_at"] is None
    assert answer.json["response"] is None


async def test_list_can_have_one_unreadable_row() -> None:
    answer, server = await spoilt("bad_row")
    bad, good = answer.json["requests"]
    assert bad["id"] is None
    assert good["id"] == server.ledger.jobs[0].id


async def test_job_can_have_an_unknown_status_until_it_ends() -> None:
    async with Emulator(duration=AfterPolls(2)) as server, Caller(server.url) as c:
        id = await c.job()
        server.faults.add("*", faults.SayStatus("QUEUED"))
        assert (await c.list()).json["requests"][0]["status"] == "QUEUED"
        assert (await c.get(id)).json["status"] == "QUEUED"
        assert (await c.get(id)).json["status"] == "COMPLETED"
        assert (await c.list()).json["requests"][0]["status"] == "COMPLETED"
        assert (await c.submit()).json["status"] == "QUEUED"


@pytest.mark.parametrize("how", ["plain", "gzip"])
async def test_flood_is_the_true_answer_in_a_huge_body(how: Any) -> None:
    size = 3_000_000
    async with Emulator(duration=0, answer_chars=1000) as server, Caller(server.url) as c:
        id = await c.job()
        server.faults.add("get", faults.Flood(how, size))
        answer = await c.get(id)
        assert len(answer.body) == size
        assert answer.json["id"] == id
        if how == "gzip":
            assert answer.headers["Content-Encoding"] == "gzip"
        else:
            assert answer.headers["Content-Length"] == str(size)


async def test_endless_body_ends_with_client_or_server() -> None:
    async with Emulator(duration=0, answer_chars=100) as server:
        server.faults.add("list", faults.NAMED["endless"])
        headers = {"Authorization": "Bearer x"}
        async with aiohttp.ClientSession(headers=headers) as session:
            async with session.get(server.url + OLD) as response:
                got = 0
                async for chunk in response.content.iter_any():
                    got += len(chunk)
                    if got > 5_000_000:
                        break
                response.close()
            await server.until(lambda ledger: ledger.in_flight == 0)
            async with session.get(server.url + OLD) as response:
                await server.close()
                with pytest.raises((aiohttp.ClientPayloadError, ConnectionResetError)):
                    await response.read()


async def test_submission_with_a_corrupt_answer_is_billed() -> None:
    async with Emulator() as server, Caller(server.url) as c:
        for how in ("html", "truncated", "empty", "id_null", "list", "flip", "null_response", "bad_row"):
            server.faults.clear()
            server.faults.add("submit", faults.NAMED[how])
            await c.submit(asking(key=how))
            assert server.ledger.created_by_key[how] == 1


async def test_every_named_fault_applies_to_every_kind_of_request() -> None:
    async with Emulator(duration=0, answer_chars=200) as server, Caller(server.url) as c:
        id = await c.job()
        for name, fault in faults.NAMED.items():
            if isinstance(fault, faults.Flood | faults.Hang):
                continue
            server.faults.clear()
            server.faults.add("*", fault)
            for call in (c.submit, lambda: c.get(id), c.list):
                try:
                    assert (await call()).status > 0, name
                except LOST:
                    assert isinstance(fault, faults.Drop), name
        server.faults.clear()
        assert (await c.get(id)).json["status"] == "COMPLETED"


# --- the script


async def test_rule_counts_its_times_and_lets_first_ones_through() -> None:
    async with Emulator() as server, Caller(server.url) as c:
        rule = server.faults.add("list", faults.Status(503), times=2, after=1)
        assert [(await c.list()).status for _ in range(5)] == [200, 503, 503, 200, 200]
        assert (rule.hits, rule.spent) == (2, True)
        assert [record.fault for record in server.ledger.log] == ["", "503", "503", "", ""]


async def test_rule_applies_to_its_kind_and_match_only() -> None:
    async with Emulator(duration=0) as server, Caller(server.url) as c:
        server.faults.add("submit", faults.Status(503), match="poison")
        server.faults.add("get", faults.Status(502), match=lambda asked: asked.family == NEW)
        id = await c.job()
        assert (await c.submit(asking("poison"))).status == 503
        assert (await c.get(id)).status == 200
        c.base = NEW
        assert (await c.get(id)).status == 502


async def test_rate_is_kept_and_repeats_with_the_seed() -> None:
    async def run(seed: int) -> list[int]:
        async with Emulator(seed=seed) as server, Caller(server.url, keep=True) as c:
            server.faults.add("list", faults.Status(503), rate=0.3)
            server.faults.add("list", faults.Status(502), rate=0.3)
            return [(await c.list()).status for _ in range(300)]

    one, again, other = await run(1), await run(1), await run(2)
    assert one == again != other
    assert 65 <= one.count(503) <= 120
    assert 40 <= one.count(502) <= 90


async def test_fault_that_does_not_fit_is_passed_over_uncounted() -> None:
    async with Emulator(duration=AfterPolls(2)) as server, Caller(server.url) as c:
        id = await c.job()
        first = server.faults.add("get", faults.NAMED["null_response"], times=1)
        server.faults.add("get", faults.NAMED["empty_content_type"], times=1)
        assert (await c.get(id)).headers["Content-Type"] == ""
        assert first.hits == 0
        assert (await c.get(id)).json["response"] is None
        assert first.hits == 1


async def test_fault_for_another_kind_makes_no_submission() -> None:
    async with Emulator() as server, Caller(server.url) as c:
        for how, kinds in faults.ONLY.items():
            if "submit" in kinds:
                continue
            server.faults.clear()
            rule = server.faults.add("*", faults.NAMED[how])
            server.faults.add("submit", faults.Status(503))
            assert (await c.submit()).status == 503, how
            assert rule.hits == 0
        assert server.ledger.created == 0


async def test_accepted_submission_is_never_refused_by_a_later_rule() -> None:
    async with Emulator() as server, Caller(server.url) as c:
        server.faults.add("submit", faults.SayStatus("QUEUED"))
        server.faults.add("submit", faults.NAMED["duplicate_id"])
        server.faults.add("submit", faults.Status(400))
        assert (await c.submit()).json["status"] == "QUEUED"
        server.faults.clear()
        server.reset()
        server.faults.add("submit", faults.NAMED["duplicate_id"])
        server.faults.add("submit", faults.Status(400))
        # The first job has no other to be confused with, so that fault does not fit; it exists all the same.
        assert (await c.submit()).status == 200
        assert server.ledger.created == 1


@pytest.mark.parametrize(("wrong", "names"), [({"on": "poll"}, "on must"), ({"rate": 2}, "rate")])
def test_rule_out_of_range_is_refused(wrong: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        Emulator().faults.add(**{"on": "get", "fault": faults.Drop(), **wrong})


def test_faults_travel_as_json() -> None:
    for fault in faults.NAMED.values():
        assert msgspec.json.decode(msgspec.json.encode(fault), type=faults.Fault) == fault


# --- control by HTTP


async def test_control_paths_work_without_a_key() -> None:
    async with Emulator(keys={"k"}, duration=60) as server, Caller(server.url, "k") as c:
        id = await c.job(asking(key="one"))

        async def control(method: str, path: str, body: Any = None) -> Any:
            answer = await c.call(method, f"/_control/{path}", body, headers={"Authorization": ""})
            assert answer.status == 200, answer.body
            return answer.json

        ledger = await control("GET", "ledger")
        assert (ledger["created"], ledger["created_by_key"]) == (1, {"one": 1})
        assert ledger["jobs"][0]["id"] == id
        assert ledger["billed"] == pytest.approx(server.ledger.billed)
        assert ledger["requests"] == {f"POST {OLD}": 1}
        await control("POST", "faults", {"on": "get", "fault": "bad_gateway_html", "times": 1})
        await control("POST", "faults", {"on": "get", "fault": {"fault": "status", "status": 418}, "times": 1})
        assert [(await c.get(id)).status for _ in range(3)] == [502, 418, 200]
        assert [rule["hits"] for rule in (await control("GET", "faults"))["rules"]] == [1, 1]
        await control("DELETE", "faults")
        assert server.faults.rules == []
        await control("POST", "advance", {"seconds": 61})
        assert (await c.get(id)).json["status"] == "COMPLETED"
        await control("POST", "retire")
        assert (await c.get(id)).status == 403
        await control("POST", "revoke", {"key": "k"})
        assert (await c.get(id)).status == 401
        await control("POST", "reset")
        assert (await c.list()).json["requests"] == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "faults", {"on": "get", "fault": "no_such_fault"}),
        ("POST", "faults", {"on": "poll", "fault": "drop"}),
        ("POST", "faults", {"on": "get", "fault": {"fault": "status", "status": "x"}}),
        ("POST", "faults", {"on": "get", "fault": "drop", "tiems": 1}),
        ("POST", "advance", {"seconds": -1}),
        ("POST", "advance", b"nonsense"),
    ],
)
async def test_wrong_control_request_is_a_400_that_says_why(method: str, path: str, body: Any) -> None:
    async with Emulator() as server, Caller(server.url) as c:
        answer = await c.call(method, f"/_control/{path}", body)
        assert answer.status == 400
        assert answer.json["error"]["message"]


async def test_unknown_control_path_names_those_there_are() -> None:
    async with Emulator() as server, Caller(server.url) as c:
        answer = await c.call("GET", "/_control/nothing")
        assert answer.status == 404
        assert "GET ledger" in answer.json["error"]["message"]


def test_serve_says_its_address_and_ends_on_a_signal() -> None:
    code = "from aiopplx.emulator import Emulator, serve; serve(Emulator())"
    with subprocess.Popen([sys.executable, "-W", "error", "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.terminate()
        assert process.wait(10) == 0
