"""Pages of a list in place of polls: what they gain, and that no list costs much or does harm, whatever it says."""

from __future__ import annotations

import functools
from statistics import median

import pytest
from _lists import ListServer, Outcome, run
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopplx._policy.durations import PRICE, Law, guess
from aiopplx._policy.paging import FIRST_PAUSE, FRESH, Paging
from aiopplx._policy.polling import Polls

NOW = 1_000.0


@functools.cache
def polled_only(jobs: int, per_minute: float = 0.0) -> Outcome:
    """The same without a list."""
    return runs(jobs, per_minute, has_list=False)


def runs(jobs: int, per_minute: float = 0.0, *, seeds: int = 3, has_list: bool = True, **how: object) -> Outcome:
    """Medians over seeds."""
    found = [run(ListServer(**how), jobs, per_minute, seed=n, has_list=has_list) for n in range(seeds)]  # type: ignore[arg-type]  # a table of keywords
    middle = [median(getattr(one, name) for one in found) for name in ("gets", "reads", "lag")]
    return Outcome(*middle, all(one.is_proven for one in found))


# --- what pages gain -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("jobs", "per_minute", "seeds"), [(100, 0.0, 8), (300, 100.0, 3), (1_000, 100.0, 1)])
def test_hundred_jobs_and_more_cost_few_requests_each(jobs: int, per_minute: float, seeds: int):
    found = runs(jobs, per_minute, seeds=seeds)
    assert found.requests <= 2.5
    assert found.lag <= 3.15


def test_list_that_proved_itself_stays_so():
    assert runs(100).is_proven


@pytest.mark.parametrize(("jobs", "per_minute"), [(20, 0.0), (60, 2.0)])
def test_few_jobs_cost_less_and_are_seen_no_later(jobs: int, per_minute: float):
    found, polled = runs(jobs, per_minute, seeds=5), polled_only(jobs, per_minute)
    assert found.requests < 0.75 * polled.requests
    assert found.lag < polled.lag + 0.5


@pytest.mark.parametrize(
    "how",
    [
        {"kind": "tokens are numbers"},
        {"kind": "tokens repeat"},
        {"kind": "tokens expire"},
        {"kind": "oldest first"},
        {"size": 50},
    ],
    ids=str,
)
def test_any_list_that_shows_most_jobs_saves_requests(how: dict[str, object]):
    found, polled = runs(300, 100.0, seeds=1, **how), polled_only(300, 100.0)
    assert found.requests < 0.6 * polled.requests
    assert found.lag < polled.lag


def test_strangers_jobs_between_ours_leave_a_gain():
    found = run(ListServer(), 100, strangers=300)
    assert found.requests < 8.0
    assert found.lag < 5.5


# --- what no list may cost -------------------------------------------------------------------------------------------

USELESS = {
    "empty": {"kind": "empty"},
    "endless": {"kind": "endless"},
    "fails": {"kind": "fails"},
    "only its first page can be read": {"kind": "tokens are ignored", "size": 20},
    "never says that a job ended": {"kind": "all run"},
    "says that all have ended": {"kind": "all have ended"},
    "statuses a minute late": {"stale": 60.0},
    "statuses 20 s late": {"stale": 20.0},
}


@pytest.mark.parametrize("name", USELESS)
@pytest.mark.parametrize("jobs", [20, 100])
def test_useless_list_costs_hardly_anything(name: str, jobs: int):
    if jobs == 20 and name.startswith("only"):
        return  # that page has all of them
    found, polled = runs(jobs, **USELESS[name]), polled_only(jobs)
    assert found.reads <= 0.35
    assert found.requests <= polled.requests + 1.5, "GETs that follow what it says are few"
    assert found.lag <= polled.lag + 2.0


def test_list_whose_first_pages_are_strangers_is_left_alone():
    found = run(ListServer("oldest first"), 100, older=1_000)
    assert found.reads <= 0.35
    assert not found.is_proven


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["read", "fail", "runs", "ended", "forget", "watch", "pass"]),
            st.integers(0, 40),
            st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=12),
            st.sampled_from(["", "a", "b", "c"]),
            st.floats(0.0, 100.0),
        ),
        max_size=60,
    )
)
@settings(max_examples=60, deadline=None)
def test_nothing_that_a_list_says_loses_a_job(steps: list[tuple[str, int, list[tuple[int, bool]], str, float]]):
    """A job is covered only while a page has told of it, and whoever is no longer covered is named."""
    paging, now, law = Paging[str](PRICE), NOW, Law(guess(180.0, 0.9))
    covered: set[str] = set()
    running: set[str] = set()

    def check(alone: list[str]) -> None:
        assert set(alone) <= running
        still = {job_id for job_id in running if paging.seen_at(job_id) is not None}
        assert (covered & running) - still <= set(alone) | called
        covered.clear()
        covered.update(still)

    for n in range(35):
        add(paging, running, law, f"{n}", now)
    for what, which, rows, token, seconds in steps:
        now += seconds
        job_id = f"{which}"
        called: set[str] = set()
        reading = paging.take(now)
        if reading is not None:
            listed = [(f"{n}", is_final) for n, is_final in rows]
            found = (
                paging.failed(reading, now, is_for_good=which % 2 == 0)
                if what == "fail"
                else paging.read(reading, listed, token, now)
            )
            called = set(found.ended)
            assert called <= running
            check(found.alone)
        called = set()
        if what == "watch":
            add(paging, running, law, job_id, now)
        elif job_id in running and what == "runs":
            check(paging.runs(job_id, now))
        elif job_id in running and what == "ended":
            check(paging.ended(job_id, now, now - seconds))
        if job_id in running and what in ("ended", "forget"):
            running.discard(job_id)
            check(paging.forget(job_id, now))


# --- one page at a time ----------------------------------------------------------------------------------------------


def add(paging: Paging[str], running: set[str], law: Law, job_id: str, now: float) -> None:
    polls = Polls.begun(now, now)
    polls.law = law
    running.add(job_id)
    paging.watch(job_id, job_id, polls, now)


def watched(jobs: int, *, is_proven: bool = True) -> Paging[str]:
    """A list for jobs that began at `NOW`."""
    paging, law = Paging[str](PRICE), Law(guess(180.0, 0.9))
    for n in range(jobs):
        add(paging, set(), law, f"{n}", NOW)
    if is_proven:
        paging._told_in_time(NOW)
    return paging


def rows(*numbers: int, ended: int = -1) -> list[tuple[str, bool]]:
    return [(f"{n}", n == ended) for n in numbers]


def read(paging: Paging[str], now: float, listed: list[tuple[str, bool]], following: str = "") -> tuple[str, list[str]]:
    """Reads the page that is due first. Returns its token, and which jobs it says have ended."""
    reading = paging.take(now)
    assert reading is not None
    return reading.token, paging.read(reading, listed, following, now).ended


def test_nothing_is_read_for_three_jobs():
    paging = watched(3, is_proven=False)
    paging.ended("0", NOW + 100.0, NOW + 99.0)
    assert paging.take(NOW + 100.0) is None
    assert paging.next_due() is None


def test_list_on_trial_is_read_after_an_end():
    paging = watched(10, is_proven=False)
    assert paging.take(NOW + 100.0) is None
    paging.ended("0", NOW + 100.0, NOW + 97.0)
    paging.forget("0", NOW + 100.0)
    assert read(paging, NOW + 100.5, rows(*range(10), ended=0))[0] == ""
    assert paging.is_proven


@pytest.mark.parametrize(("late", "is_proven"), [(FRESH - 1.0, True), (FRESH + 1.0, False)])
def test_end_in_time_proves_a_list(late: float, is_proven: bool):
    paging = watched(40, is_proven=False)
    now = NOW + 100.0
    assert read(paging, now, rows(*range(40), ended=7)) == ("", ["7"])
    paging.ended("7", now + 0.1, now - late)
    assert paging.is_proven is is_proven


def test_list_on_trial_sets_off_two_gets():
    paging = watched(40, is_proven=False)
    _, ended = read(paging, NOW + 100.0, [(f"{n}", True) for n in range(40)])
    assert len(ended) == 2


def test_two_false_statements_end_the_belief():
    paging = watched(10)
    now = NOW + 100.0
    read(paging, now, rows(*range(10)))
    assert paging.seen_at("3") == now
    assert paging.ended("0", now + 1.0, now - 20.0) == [], "the page said that it ran"
    alone = paging.ended("1", now + 1.0, now - 20.0)
    assert sorted(alone) == [f"{n}" for n in range(10)]
    assert paging.seen_at("3") is None
    assert paging.take(now + FIRST_PAUSE - 1.0) is None


def test_lost_belief_comes_back_later_each_time():
    paging = watched(10)
    pauses: list[float] = []
    now = NOW + 100.0
    for _ in range(4):
        reading = paging.take(now)
        assert reading is not None
        paging.failed(reading, now, is_for_good=True)
        paging._credit = 10.0
        closed_until = paging.next_due()
        assert closed_until is not None
        pauses.append(closed_until - now)
        now = closed_until + 1.0
        paging.ended("0", now, now - 1.0)
    assert pauses == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]


def test_jobs_pushed_off_the_front_are_on_page_two():
    paging = watched(150)
    assert read(paging, NOW + 50.0, rows(*range(149, 49, -1)), "next")[0] == ""
    token, _ = read(paging, NOW + 50.1, rows(*range(49, -1, -1)))
    assert token == "next"
    assert all(paging.seen_at(f"{n}") is not None for n in range(150))


def test_tokens_that_lead_back_leave_the_list_alone():
    paging = watched(250)
    front = rows(*range(249, 149, -1))
    read(paging, NOW + 100.0, front, "next")
    read(paging, NOW + 100.1, front, "next")
    assert paging.take(NOW + 130.0) is None
    assert paging.seen_at("249") is None


def test_last_job_of_a_page_is_polled_by_itself():
    paging = watched(3)
    read(paging, NOW + 120.0, rows(0, 1, 2))
    assert paging.seen_at("2") is not None
    assert paging.forget("0", NOW + 121.0) == []
    assert paging.forget("1", NOW + 122.0) == ["2"]
    assert paging.seen_at("2") is None


def test_price_grows_with_the_jobs_up_to_a_bound():
    prices = {n: watched(n)._price_of(watched(n)._front) for n in (2, 10, 50, 100)}
    assert prices[2] < prices[10] < prices[50] == prices[100]
