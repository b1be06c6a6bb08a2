"""Makes a submission of whatever a user gives: its key and its exact bytes, fixed before anything is sent.

This module knows nothing of stores or of sending.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiopplx._errors import InvalidRequest
from aiopplx._submission import Submission
from aiopplx._wire.request import Request, tag_of
from aiopplx.apis._registry import Routing, request_of


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
