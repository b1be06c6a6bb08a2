"""Which of an account's limits a 429 is about, by its name, its words or its headers."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._errors import RateLimited
from aiopplx._wire.call import Reply, error_of
from aiopplx._wire.limited import limited_by

SAID = [
    # The service's own, for requests; the rest as other services with two limits word them.
    ("request_rate_limit_exceeded", "Request rate limit exceeded, please try again later.", "requests"),
    ("request_rate_limit_exceeded", "Slow down: tokens per minute are something else.", "requests"),
    ("token_rate_limit_exceeded", "Rate limit exceeded, please try again later.", "tokens"),
    ("tokens", "Rate limit reached for gpt-6 on tokens per min (TPM): Limit 30000, Used 29000.", "tokens"),
    ("requests", "Rate limit reached for gpt-6 on requests per min (RPM): Limit 3, Used 3.", "requests"),
    ("rate_limit_error", "This request would exceed the rate limit of 20,000 input tokens per minute.", "tokens"),
    ("rate_limit_error", "Number of request tokens has exceeded your per-minute rate limit", "tokens"),
    ("rate_limit_exceeded", "The model's token budget is used up.", "tokens"),
    ("", "Too many tokens, please wait before trying again.", "tokens"),
    ("", "ITPM exceeded", "tokens"),
    ("", "TPH limit reached", "tokens"),
    ("", "Too Many Requests", "requests"),
    ("", "QPS exceeded", "requests"),
    ("", "2 queries per second are allowed", "requests"),
    ("", "slow down", ""),
    ("rate_limit_exceeded", "", ""),
    ("", "", ""),
]


@pytest.mark.parametrize(("name", "message", "limit"), SAID)
def test_words_of_a_429_name_its_limit(name: str, message: str, limit: str):
    assert limited_by(name, message, {}) == limit


@pytest.mark.parametrize(
    ("requests", "tokens", "limit"),
    [("5", "0", "tokens"), ("0", "5", "requests"), ("0", "0", ""), ("5", "5", ""), ("", "0", "tokens"), ("", "", "")],
)
def test_counts_of_both_limits_name_the_one_used_up(requests: str, tokens: str, limit: str):
    headers = {"x-ratelimit-remaining-requests": requests, "x-ratelimit-remaining-tokens": tokens}
    assert limited_by("", "slow down", headers) == limit
    assert limited_by("request_rate_limit_exceeded", "", headers) == "requests"


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text()))
def test_any_429_has_one_of_the_three_answers(name: str, message: str, headers: dict[str, str]):
    assert limited_by(name, message, headers) in ("requests", "tokens", "")


def test_error_says_that_tokens_are_limited_and_what_helps():
    body = {"error": {"message": "Rate limit of tokens per hour.", "type": "rate_limit_exceeded", "code": 429}}
    error = error_of(Reply(429, {}, json.dumps(body).encode()))
    assert isinstance(error, RateLimited)
    assert error.limit == "tokens"
    assert "not on requests" in error.message
    assert "usage tier" in error.message
    assert pickle.loads(pickle.dumps(error)).limit == error.about(job_id="j").limit == "tokens"


def test_refusal_for_another_reason_names_no_limit():
    body = {"error": {"message": "Rate limit of tokens per hour.", "type": "forbidden", "code": 403}}
    assert not hasattr(error_of(Reply(403, {}, json.dumps(body).encode())), "limit")
