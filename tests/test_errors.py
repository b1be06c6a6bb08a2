"""Exceptions carry their facts through pickles and copies and into their sentence."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import aiopplx._errors as errors
from aiopplx._errors import (
    AiopplxError,
    APIError,
    ConfigError,
    InDoubt,
    InvalidRequest,
    JobError,
    JobTimeout,
    ProtocolError,
    ResponseTooLarge,
    TransportError,
)

CLASSES = sorted(
    (one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, AiopplxError)),
    key=lambda one: one.__name__,
)
FACTS: dict[str, Any] = {
    "job_id": "job-1",
    "idempotency_key": "key-1",
    "tag": 7,
    "status": 503,
    "type": "internal_error",
    "request_id": "req-1",
    "retry_after": 1.5,
    "attempts": 3,
    "body": "<html>",
    "remedy": "what to do",
}
COPIES: dict[str, Callable[[AiopplxError], AiopplxError]] = {
    "pickled": lambda error: pickle.loads(pickle.dumps(error)),
    "copied": copy.copy,
    "deep-copied": copy.deepcopy,
    "about": lambda error: error.about(),
    "about twice": lambda error: error.about().about(),
}


def full(cls: type[AiopplxError]) -> AiopplxError:
    if cls in (InvalidRequest, ConfigError):
        error: AiopplxError = (
            InvalidRequest("what happened", field="model")
            if cls is InvalidRequest
            else ConfigError("what happened", argument="api_key")
        )
        for name, value in FACTS.items():
            setattr(error, name, value)
        return error
    return cls("what happened", **FACTS)


def test_every_error_class_is_tested_here():
    assert len(CLASSES) == 20


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("cls", CLASSES)
def test_error_keeps_every_fact_when_it_is_copied(cls: type[AiopplxError], way: str):
    error = full(cls)
    other = COPIES[way](error)
    assert type(other) is cls
    assert other is not error
    assert other.args == error.args == (error.message,)
    assert vars(other) == vars(error)
    assert (str(other), repr(other)) == (str(error), repr(error))
    assert "what happened" in repr(other)


@pytest.mark.parametrize("cls", CLASSES)
def test_error_without_facts_says_only_its_sentence(cls: type[AiopplxError]):
    error = cls("what happened")
    assert str(error) == "what happened"
    assert (error.job_id, error.tag, error.status, error.retry_after, error.attempts) == ("", None, None, None, 0)


def test_error_names_the_facts_needed_to_act():
    assert str(full(APIError)) == "what happened. what to do (job job-1, key key-1, tag 7, HTTP 503, request id req-1)"


@pytest.mark.parametrize(("tag", "said"), [(0, "no (tag 0)"), ("", "no"), (None, "no"), ("a b", "no (tag a b)")])
def test_error_names_any_tag_but_an_empty_one(tag: str | int | None, said: str):
    assert str(AiopplxError("no", tag=tag)) == said


def test_error_sentence_leaves_out_the_servers_body():
    error = APIError("no", body="<html>a secret</html>")
    assert "secret" not in str(error)
    assert "secret" not in repr(error)


def test_about_names_the_job_and_keeps_known_facts():
    error = TransportError("no", status=502)
    other = error.about(job_id="j", idempotency_key="k", tag="t", attempts=2)
    assert (other.job_id, other.idempotency_key, other.tag, other.attempts, other.status) == ("j", "k", "t", 2, 502)
    again = other.about(job_id="x", idempotency_key="x", tag="x", attempts=9)
    assert (again.job_id, again.idempotency_key, again.tag, again.attempts) == ("j", "k", "t", 2)


def test_about_leaves_the_error_itself_as_it_was():
    error = APIError("no")
    error.about(job_id="j", tag=0)
    assert (error.job_id, error.tag) == ("", None)


def test_about_keeps_a_tag_of_zero():
    assert AiopplxError("no", tag=0).about(tag=5).tag == 0


def test_copies_raised_in_many_places_share_no_traceback():
    error = AiopplxError("no")
    with pytest.raises(AiopplxError) as raised:
        raise error.about()
    assert raised.value.__traceback__ is not None
    assert error.__traceback__ is None
    assert raised.value.about().__traceback__ is None


@pytest.mark.parametrize(
    ("cls", "builtin"), [(ConfigError, ValueError), (InvalidRequest, ValueError), (JobTimeout, TimeoutError)]
)
def test_error_is_the_builtin_kind_too(cls: type[AiopplxError], builtin: type[Exception]):
    with pytest.raises(builtin, match="no"):
        raise cls("no")


def test_job_timeout_is_a_job_error_with_its_args():
    error = JobTimeout("still running", job_id="j").about(tag=1)
    assert isinstance(error, JobError)
    assert error.args == ("still running",)
    assert repr(error) == "JobTimeout('still running')"


def test_answer_too_large_is_a_protocol_error():
    assert issubclass(ResponseTooLarge, ProtocolError)


def test_only_doubt_is_in_doubt():
    assert {cls for cls in CLASSES if cls("no").is_in_doubt} == {InDoubt}


@pytest.mark.parametrize(("field", "said"), [("messages[1].role", "messages[1].role: no"), ("", "no")])
def test_invalid_request_names_the_field(field: str, said: str):
    error = InvalidRequest("no", field=field, tag="t")
    assert (error.message, error.field, error.tag) == (said, field, "t")
    assert pickle.loads(pickle.dumps(error)).field == field


def test_copies_of_a_lost_exchange_say_whether_it_left():
    error = TransportError("no")
    assert not error.sent
    error.sent = True
    assert error.about().sent
    assert pickle.loads(pickle.dumps(error)).sent


@given(message=st.text(), job_id=st.text(), tag=st.none() | st.integers() | st.text(), status=st.none() | st.integers())
def test_error_of_any_words_survives_a_pickle(message: str, job_id: str, tag: str | int | None, status: int | None):
    error = APIError(message, job_id=job_id, tag=tag, status=status)
    other = pickle.loads(pickle.dumps(error))
    assert (other.args, vars(other)) == (error.args, vars(error))
    assert str(other) == str(error)
