"""A job's token finds the job from anywhere and holds no secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx import InvalidRequest, JobFailed, PollPolicy, Session
from aiopplx._job import Named, named_by, token_of
from aiopplx.emulator import Emulator

IDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
KEYS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60)


@given(job_id=IDS, api=st.sampled_from(["sonar", "agent", ""]), key=KEYS)
def test_token_holds_the_names_it_was_made_from(job_id: str, api: str, key: str):
    assert named_by(token_of(job_id, api, key)) == Named(job_id, api, key)


def test_bare_id_names_itself():
    assert named_by("resp_1") == Named("resp_1")


def test_token_of_a_plain_id_is_unchanged():
    assert token_of("resp_1-a.b:c", "agent", "k/1") == "aiopplx/1/agent/resp_1-a.b:c/k/1"
    assert token_of("a/b c", "agent", "k") == "aiopplx/1/agent/a%2Fb%20c/k"


@pytest.mark.parametrize("text", ["aiopplx/2/sonar/a/b", "aiopplx/1/sonar", "aiopplx/"])
def test_token_of_another_version_or_cut_is_refused(text: str):
    with pytest.raises(InvalidRequest, match="token"):
        named_by(text)


def test_error_has_the_token_of_its_job():
    assert named_by(JobFailed("no", job_id="j", idempotency_key="k").token) == Named("j", "", "k")


@pytest.mark.parametrize("api", ["sonar", "agent"])
async def test_token_finds_the_job_from_another_session(api: str):
    async with Emulator(duration=0.0, answer_chars=200) as server:

        def session() -> Session:
            return Session("the-key", base_url=server.url, api=api, poll=PollPolicy.fixed(0.02))

        async with session() as first:
            job = await first.submit("Why?")
        assert "the-key" not in job.token
        async with session() as second:
            found = await second.wait(job.token)
            assert (found.ok, found.id, found.idempotency_key) == (True, job.id, job.idempotency_key)
            assert (await second.get(job.token)).id == job.id
