"""Makes submissions: of whatever a user gives, or of a row. Key and exact bytes are fixed before anything is sent.

This module knows nothing of stores or of sending.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import msgspec

from aiopplx._checks.cells import as_cells
from aiopplx._errors import InvalidRequest
from aiopplx._submission import Submission
from aiopplx._wire.api import API
from aiopplx._wire.request import Request, tag_of
from aiopplx.apis._registry import Routing, request_of
from aiopplx.journal._records import Record


def freeze(
    item: str | Mapping[str, object] | Request,
    *,
    routing: Routing,
    new_key: Callable[[], str],
    timeout: float,
    index: int | None = None,
) -> Submission:
    """A new submission.

    Args:
        item: a question, a mapping of request fields, or a request.
        routing: which API it goes to.
        new_key: makes an idempotency key for an item without one.
        timeout: seconds for the job of an item that has no timeout of its own.
        index: its position in the source of its batch.

    Raises:
        InvalidRequest: the item breaks a rule; the error names the field, and has the item's tag.
    """
    try:
        request = request_of(item)
        if request.meta:
            request = msgspec.structs.replace(request, meta=as_cells(request.meta))
        key = request.idempotency_key or new_key()
        api, body = routing.freeze(request, key)
    except InvalidRequest as error:
        raise error.about(tag=tag_of(item)) from None
    return Submission(
        api,
        key,
        body,
        request,
        api.kind_of(body),
        request.timeout if request.timeout is not None else timeout,
        request.tag,
        index,
    )


def submission_of(record: Record, api: API, *, job_id: str = "", timeout: float = math.inf) -> Submission:
    """The submission of a row, NEW.

    Args:
        record: the row.
        api: the one that it went to.
        job_id: of its job, if it is known to have one.
        timeout: seconds that a job of it may take.
    """
    return Submission(
        api,
        record.key,
        kind=api.kind_of(record.body),
        timeout=timeout,
        tag=record.tag,
        row=record.pk,
        claim=record.claim,
        marks=record.attempts,
        job_id=job_id,
    )


def freeze_again(sub: Submission, body: bytes, key: str) -> bytes:
    """The bytes of the same question under another key.

    Args:
        sub: the submission.
        body: the bytes of its row. A job that was adopted has none: whoever asks for it by its tag says what it is.
        key: the new one.

    Raises:
        InvalidRequest: nobody says what it was asked.
    """
    if body:
        return sub.api.rekeyed(body, key)
    if sub.request is None:
        raise InvalidRequest(
            "the journal does not know what this job was asked, because it was adopted: submit the question anew"
        )
    return sub.api.freeze(sub.request, key)
