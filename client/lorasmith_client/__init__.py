"""lorasmith_client: ask a lorasmith service from Python, without torch.

    from lorasmith_client import Client

    with Client() as client:
        adapter = client.create("Say whether the review is positive or negative.")
        client.download(adapter.id, "my-adapter")

`AsyncClient` has the same methods for asyncio. All errors are kinds of `ClientError`; what the
service answers stands in `lorasmith_client.answers`.
"""

from lorasmith_client.answers import Adapter, Job
from lorasmith_client.client import AsyncClient, Client
from lorasmith_client.errors import (
    Busy,
    ClientError,
    Conflict,
    Denied,
    DigestMismatch,
    JobFailed,
    JobTimeout,
    NotFound,
    Problem,
    UnexpectedAnswer,
    Unreachable,
)

__all__ = [
    "Adapter",
    "AsyncClient",
    "Busy",
    "Client",
    "ClientError",
    "Conflict",
    "Denied",
    "DigestMismatch",
    "Job",
    "JobFailed",
    "JobTimeout",
    "NotFound",
    "Problem",
    "UnexpectedAnswer",
    "Unreachable",
]
