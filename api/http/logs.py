"""What the service logs, on stderr: lines for a person, or JSON objects for a machine."""

import datetime
import json
import logging
from typing import Any

from opentelemetry.trace import format_trace_id, get_current_span

from api.http.request_id import current_request_id
from api.service.settings import LogFormat

ACCESS = "lorasmith.access"  # the logger of answers


def configure_logging(log_format: LogFormat) -> None:
    """Log to stderr from now on: our own and uvicorn's messages, warnings of all others."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if log_format == "json" else Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("lorasmith", "uvicorn"):
        logging.getLogger(name).setLevel(logging.INFO)


class Lines(logging.Formatter):
    """Time, level, request and message; of answers their duration too."""

    def format(self, record: logging.LogRecord) -> str:
        words = [_time(record), record.levelname, current_request_id.get() or "-"]
        fields = _fields(record)
        message = super().format(record)  # with the traceback, if there is one
        if "seconds" in fields:
            message = f"{message} {fields['seconds'] * 1000:.0f} ms"
        return " ".join([*words, message])


class JsonLines(logging.Formatter):
    """One JSON object a line; what a record is about stands in members of its own."""

    def format(self, record: logging.LogRecord) -> str:
        content = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": current_request_id.get(),
            **_fields(record),
        }
        span = get_current_span().get_span_context()
        if span.is_valid:
            content["trace_id"] = format_trace_id(span.trace_id)
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps(content)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, "fields", {})


def _time(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
