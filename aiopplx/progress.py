"""How jobs and a session are getting on, as the values that `Session` gives: for annotations, nothing here is called.

`Update` and `Follow` come from `Session.follow`, `BatchFollow` from `Batch.follow`, `EventStream` from
`Session.events`, `SessionStats` from `Session.stats`, `Forecast` from `Session.eta`. This module decides nothing.
"""

from aiopplx._core.batch.board import BatchFollow
from aiopplx._core.job.following import Follow, Update
from aiopplx._core.stats import SessionStats
from aiopplx._events import EventStream
from aiopplx._policy.forecast import Forecast

__all__ = ["BatchFollow", "EventStream", "Follow", "Forecast", "SessionStats", "Update"]
