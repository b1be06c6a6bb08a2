"""Submit many Perplexity deep-research jobs at once, poll them together, get each as it finishes.

`Session` is where everything starts. The API's own structs are in `aiopplx.sonar`; a server that plays the service, for
tests and demos, is in `aiopplx.emulator`.
"""

from aiopplx._batch import Batch
from aiopplx._errors import (
    AiopplxError,
    APIError,
    AuthenticationError,
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
from aiopplx._policy.polling import Look, PollPolicy
from aiopplx._policy.retry import RetryPolicy
from aiopplx._request import ResearchRequest
from aiopplx._session import Session
from aiopplx._version import __version__

__all__ = [
    "APIError",
    "AiopplxError",
    "AuthenticationError",
    "Batch",
    "ConfigError",
    "EndpointRetired",
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
    "Look",
    "NotFound",
    "OutOfCredit",
    "PollPolicy",
    "ProtocolError",
    "RateLimited",
    "ResearchRequest",
    "ResponseTooLarge",
    "ResultMissing",
    "RetryPolicy",
    "Session",
    "Source",
    "TransportError",
    "Usage",
    "__version__",
]
