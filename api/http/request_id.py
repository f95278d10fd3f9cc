"""The id of the request that is being answered, for its answer and for what is logged meanwhile."""

import re
import uuid
from contextvars import ContextVar

HEADER = "X-Request-Id"
_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,128}")

# Set for each request; None outside of any, as in jobs.
current_request_id: ContextVar[str | None] = ContextVar("current_request_id", default=None)


def request_id_of(sent: str | None) -> str:
    """The id that a client sent, or a new one where it sent none or an unfit one."""
    return sent if sent is not None and _WELL_FORMED.fullmatch(sent) else uuid.uuid4().hex
