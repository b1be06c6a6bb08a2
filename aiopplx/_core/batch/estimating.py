"""What a batch would cost: everything that its source gives, looked at as the batch would look at it, and not sent.

This module knows nothing of what users call, nor of the arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiopplx._core.assembly import Core
from aiopplx._core.batch.source import Source, SourceEnded
from aiopplx._policy.estimate import LATEST, Estimate, Found, samples_of
from aiopplx._wire.request import Request


async def expected(
    core: Core,
    source: Source[str | Mapping[str, object] | Request],
    *,
    run: str,
    retry_failed: bool,
    replace: bool,
    max_in_flight: int,
) -> Estimate:
    """The estimate of a batch of this source, by the session's API, journal and rate. The source is read to its end.

    Raises whatever the source raises, and `JournalError` if the journal cannot be read.
    """
    store, settings = core.life.store, core.settings
    has_rows = store.remembers and any((await store.counts()).values())
    found = Found(retry_failed=retry_failed, replace=replace, run=run)
    try:
        while True:
            try:
                index, item = await source.read(lambda: True)
            except SourceEnded:
                break
            try:
                sub = core.freeze(item, index=index, timeout=settings.timeout)
            except Exception:  # noqa: S112 - the batch refuses it in the same way, and it costs nothing
                continue
            named = found.named(sub.request) if store.remembers and sub.request is not None else None
            record = await store.get(item=named.item) if has_rows and named is not None else None
            found.add(sub.kind, named, record)
    finally:
        await source.close()
    if source.error is not None:
        raise source.error
    costs = samples_of(await store.ledger(LATEST))
    return found.estimate(costs, max_in_flight=max_in_flight, rpm=settings.rpm)
