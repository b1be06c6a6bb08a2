"""Why a job ended, in fields that are named for an end and are no message: who did it, which rule, which detail."""

from __future__ import annotations

from typing import Any

import pytest
from _bodies import reply

from aiopplx import JobStatus
from aiopplx._core.outcomes import heard, timed_out
from aiopplx.agent import AGENT
from aiopplx.apis._registry import read_job
from aiopplx.sonar import SONAR

WHY = "the disk was full"
STEMS = ["cancellation", "termination", "expiration", "rejection", "interruption", "eviction", "suspension", "denial"]
NAMED: list[tuple[dict[str, Any], str]] = [
    *(({name: WHY}, WHY) for name in STEMS),
    *(({name: {inner: WHY}}, WHY) for name in STEMS for inner in ("reason", "message", "why", "rule", "code")),
    *(({f"{name}Details": {"reason": WHY}}, WHY) for name in STEMS),
    *(({f"{name}_by": "an admin"}, f"{name} by an admin") for name in ("cancelled", "stopped", "ended", "blocked")),
    *(({name: {"reason": WHY}}, WHY) for name in ("timeout", "limits", "quota", "billing", "stop", "exit", "policy")),
    ({"cancelledBy": {"type": "admin", "id": "u1"}}, "cancelled by admin"),
    ({"expired_reason": WHY}, WHY),
    ({"termination_reason": WHY}, WHY),
    ({"incomplete_details": {"explanation": WHY}}, WHY),
    ({"moderation": {"flagged": True, "categories": {"violence": True, "spam": False}}}, "violence"),
    ({"moderation": {"flagged": True, "categories": ["violence"]}}, "violence"),
    ({"content_filter_results": {"hate": {"filtered": True}, "spam": {"filtered": False}}}, "hate"),
    ({"policy_violation": {"rule": WHY}}, WHY),
    ({"sub_status": "OOM_KILLED"}, "OOM_KILLED"),
    ({"reason_code": "DISK_FULL"}, "DISK_FULL"),
    ({"limit_reached": "max_cost"}, "max_cost"),
    ({"exception_class": "MemoryError"}, "MemoryError"),
    ({"failed_because": WHY}, WHY),
]
SAYS_NOTHING: list[dict[str, Any]] = [
    {"cancelled_at": None, "expires_at": "2026-12-01T00:00:00Z", "failed_at": 0},
    {"expires": "2026-12-01", "expires_in": "3600", "cancelled": False, "deleted": False},
    {"stop": ["\n"], "timeout": 600, "timeout_unit": "seconds", "limits": {"rpm": 50}, "deadline": "soon"},
    {"moderation": "auto", "moderation_level": "low", "blocked_domains": ["a.org"], "safety_identifier": "u-1"},
    {"content_filter_results": {"hate": {"filtered": False}}, "moderation": {"flagged": False, "categories": {}}},
    {"cancel_url": "https://a.org/cancel", "cancelled_by": None, "outcome": "failed", "max_tokens_exceeded": False},
    {"metadata": {"cancellation": {"reason": "the caller's own"}}},
]


def job_of(api: Any, status: str, said: dict[str, Any]) -> Any:
    status = status.upper() if api is SONAR else status
    return read_job(api, reply({"id": "j", "model": "m", "created_at": 1, "output": [], "status": status, **said}), "j")


@pytest.mark.parametrize("status", ["failed", "completed", "cancelled", "incomplete"])
@pytest.mark.parametrize("api", [SONAR, AGENT])
@pytest.mark.parametrize(("said", "why"), NAMED, ids=str)
def test_every_word_about_an_end_is_kept(api: Any, status: str, said: dict[str, Any], why: str) -> None:
    for more in ({}, {"error_message": "It ended."}):
        snapshot = job_of(api, status, {**said, **more})
        if snapshot.status.is_final:
            told = snapshot.error_message or ""
        else:  # an unknown word of this API: it is polled on, and the error of the time limit has the words
            told = timed_out("it took too long", heard(snapshot)).message
        assert why in told
        assert not more or "It ended." in told


@pytest.mark.parametrize("api", [SONAR, AGENT])
@pytest.mark.parametrize("said", SAYS_NOTHING, ids=str)
def test_moments_and_settings_are_no_reason(api: Any, said: dict[str, Any]) -> None:
    snapshot = job_of(api, "failed", said)
    assert (snapshot.status, snapshot.error_message) == (JobStatus.FAILED, None)
