"""The Sonar job API (async chat completions): its requests, its answers, and the API itself as a value."""

from aiopplx._wire.request import ResearchRequest
from aiopplx.sonar._api import (
    RESULTS_LIVE,
    SONAR,
    SONAR_V1,
    Sonar,
)
from aiopplx.sonar._responses import (
    AsyncJob,
    Choice,
    CompletionResponse,
    Cost,
    FetchDetails,
    ImageResult,
    PythonDetails,
    ReasoningStep,
    ResponseMessage,
    SearchDetails,
    ToolCall,
    ToolCallFunction,
    UsageInfo,
    Video,
)

__all__ = [
    "RESULTS_LIVE",
    "SONAR",
    "SONAR_V1",
    "AsyncJob",
    "Choice",
    "CompletionResponse",
    "Cost",
    "FetchDetails",
    "ImageResult",
    "PythonDetails",
    "ReasoningStep",
    "ResearchRequest",
    "ResponseMessage",
    "SearchDetails",
    "Sonar",
    "ToolCall",
    "ToolCallFunction",
    "UsageInfo",
    "Video",
]
