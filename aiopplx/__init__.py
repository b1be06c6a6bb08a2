"""Submit many Perplexity deep-research jobs at once, poll them together, get each as it finishes.

`Session` is where everything starts. The API's own structs are in `aiopplx.sonar`; a server that plays the service, for
tests and demos, is in `aiopplx.emulator`, and clocks that let a test wait for nothing are in `aiopplx.testing`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiopplx._batch import Batch
    from aiopplx._config import JournalOptions
    from aiopplx._errors import (
        ActionRequired,
        AiopplxError,
        APIError,
        AuthenticationError,
        BudgetReached,
        ConfigError,
        EndpointRetired,
        InDoubt,
        InvalidRequest,
        JobError,
        JobExpired,
        JobFailed,
        JobTimeout,
        NotFound,
        OutOfCredit,
        ProtocolError,
        RateLimited,
        ResponseTooLarge,
        ResultMissing,
        TransportError,
    )
    from aiopplx._events import Event, EventKind
    from aiopplx._job import Job, JobStatus, Source, Usage
    from aiopplx._policy.estimate import Estimate
    from aiopplx._policy.network import NetworkOptions
    from aiopplx._policy.polling import PollPolicy, RunningJob
    from aiopplx._policy.retry import RetryPolicy
    from aiopplx._session import Session
    from aiopplx._version import __version__
    from aiopplx._wire.fields import ResearchFields
    from aiopplx._wire.request import ResearchRequest
    from aiopplx.agent._request import AgentRequest
    from aiopplx.journal._errors import JournalError
    from aiopplx.tables import TableError, questions, rows

__all__ = [
    "APIError",
    "ActionRequired",
    "AgentRequest",
    "AiopplxError",
    "AuthenticationError",
    "Batch",
    "BudgetReached",
    "ConfigError",
    "EndpointRetired",
    "Estimate",
    "Event",
    "EventKind",
    "InDoubt",
    "InvalidRequest",
    "Job",
    "JobError",
    "JobExpired",
    "JobFailed",
    "JobStatus",
    "JobTimeout",
    "JournalError",
    "JournalOptions",
    "NetworkOptions",
    "NotFound",
    "OutOfCredit",
    "PollPolicy",
    "ProtocolError",
    "RateLimited",
    "ResearchFields",
    "ResearchRequest",
    "ResponseTooLarge",
    "ResultMissing",
    "RetryPolicy",
    "RunningJob",
    "Session",
    "Source",
    "TableError",
    "TransportError",
    "Usage",
    "__version__",
    "questions",
    "rows",
]

# Loaded at the first use (PEP 562). aiohttp takes longer than all else together; it comes with the first `Session` that
# is made, so that `aiopplx --help`, and a module that only names a class, need not pay for it.
_HOMES = {
    "aiopplx._batch": ("Batch",),
    "aiopplx._config": ("JournalOptions",),
    "aiopplx._errors": (
        "ActionRequired",
        "AiopplxError",
        "APIError",
        "AuthenticationError",
        "BudgetReached",
        "ConfigError",
        "EndpointRetired",
        "InDoubt",
        "InvalidRequest",
        "JobError",
        "JobExpired",
        "JobFailed",
        "JobTimeout",
        "NotFound",
        "OutOfCredit",
        "ProtocolError",
        "RateLimited",
        "ResponseTooLarge",
        "ResultMissing",
        "TransportError",
    ),
    "aiopplx._events": (
        "Event",
        "EventKind",
    ),
    "aiopplx._job": (
        "Job",
        "JobStatus",
        "Source",
        "Usage",
    ),
    "aiopplx._policy.estimate": ("Estimate",),
    "aiopplx._policy.network": ("NetworkOptions",),
    "aiopplx._policy.polling": (
        "PollPolicy",
        "RunningJob",
    ),
    "aiopplx._policy.retry": ("RetryPolicy",),
    "aiopplx._session": ("Session",),
    "aiopplx._version": ("__version__",),
    "aiopplx._wire.fields": ("ResearchFields",),
    "aiopplx._wire.request": ("ResearchRequest",),
    "aiopplx.agent._request": ("AgentRequest",),
    "aiopplx.journal._errors": ("JournalError",),
    "aiopplx.tables": ("TableError", "questions", "rows"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
