"""One call of each kind with its answer, as people read them in the OpenAPI document."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from api.http.example_bodies import (
    ADAPTER,
    BASE_MODELS,
    CHAT,
    CHAT_STREAM,
    CHATTED,
    COMPLETED,
    DESCRIBED,
    GENERATORS,
    IMPORTED,
    JOB,
    LIBRARY_MAP,
    LIBRARY_PAGE,
    MERGED,
    METRICS,
    MODELS,
    NAME,
    NAMED,
    NAMES,
    NEAREST,
    PAIRS,
    README,
    RECORD,
    RESULTS,
    ROLLED_BACK,
    STREAM,
    SUITE_ROWS,
    TASK,
    TEXT,
    TEXT_STREAM,
    UNDESCRIBED,
    VERIFIED,
    VERSION,
    job_example,
)

_JSON = "application/json"
_EVENTS = "text/event-stream"


@dataclass(frozen=True)
class Call:
    """A kind of call.

    Attributes:
        summary: what it is for, in a few words.
        parameters: a value of each that has one, by name.
        requests: bodies, by what they show.
        answers: of success, by status, then by media type.
    """

    summary: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    requests: Mapping[str, Any] = field(default_factory=dict)
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_OF_ADAPTER = {"id": ADAPTER}
_OF_JOB = {"id": JOB}
_OF_NAME = {"name": NAME}
CALLS: dict[str, Call] = {
    "POST /v1/adapters": Call(
        "Create an adapter",
        requests={
            "From a description": {"description": TASK},
            "Trained on examples": {"description": TASK, "examples": PAIRS},
            "Trained on a teacher's answers": {"description": TASK, "inputs": ["It was long."]},
            "For bare prompts": {"description": TASK, "write_inputs": 64},
            "By one generator": {"description": TASK, "generator": "text-to-lora", "seed": 7},
        },
        answers={
            "200": {_JSON: RECORD},
            "201": {_JSON: RECORD},
            "202": {_JSON: job_example()},
        },
    ),
    "POST /v1/adapters/batch": Call(
        "Create many adapters",
        requests={"Two tasks": {"requests": [{"description": TASK}, {"description": ""}]}},
        answers={"200": {_JSON: {"results": [RECORD, UNDESCRIBED]}}},
    ),
    "POST /v1/adapters/compose": Call(
        "Merge adapters",
        requests={
            "By their weighted sum": {"adapters": [ADAPTER, NEAREST], "weights": [0.7, 0.3]},
            "In the background": {"adapters": [ADAPTER, NEAREST], "method": "ties", "rank": 8},
        },
        answers={
            "200": {_JSON: MERGED},
            "201": {_JSON: MERGED},
            "202": {_JSON: job_example(kind="compose")},
        },
    ),
    "POST /v1/adapters/import": Call(
        "Import an adapter", answers={"200": {_JSON: IMPORTED}, "201": {_JSON: IMPORTED}}
    ),
    "GET /v1/adapters": Call(
        "List your adapters",
        parameters={"limit": 1},
        answers={"200": {_JSON: {"adapters": [RECORD], "next": ADAPTER}}},
    ),
    "GET /v1/adapters/{id}": Call(
        "Show an adapter", parameters=_OF_ADAPTER, answers={"200": {_JSON: RECORD}}
    ),
    "DELETE /v1/adapters/{id}": Call("Delete an adapter", parameters=_OF_ADAPTER),
    "POST /v1/adapters/{id}/refine": Call(
        "Train an adapter further",
        parameters=_OF_ADAPTER,
        requests={"On examples": {"examples": PAIRS, "steps": 40}},
        answers={"202": {_JSON: job_example(kind="refine")}},
    ),
    "POST /v1/adapters/{id}/verify": Call(
        "Verify an adapter",
        parameters=_OF_ADAPTER,
        requests={
            "By some hooks": {"hooks": ["screening", "neighbours", "agreement"]},
            "By its answers": {"hooks": ["behaviour"], "examples": PAIRS},
        },
        answers={"202": {_JSON: job_example(kind="verify", adapter=ADAPTER, hooks=["behaviour"])}},
    ),
    "GET /v1/adapters/{id}/files/{name}": Call(
        "Download a file",
        parameters={**_OF_ADAPTER, "name": "README.md"},
        answers={"200": {"text/markdown": README}},
    ),
    "GET /v1/adapters/{id}/archive": Call("Download all files", parameters=_OF_ADAPTER),
    "GET /v1/names": Call("List your names", answers={"200": {_JSON: NAMES}}),
    "GET /v1/names/{name}": Call(
        "Show a name", parameters=_OF_NAME, answers={"200": {_JSON: NAMED}}
    ),
    "DELETE /v1/names/{name}": Call("Delete a name", parameters=_OF_NAME),
    "POST /v1/names/{name}/versions": Call(
        "Publish a version",
        parameters=_OF_NAME,
        requests={
            "With a suite": {"adapter": ADAPTER, "suite": SUITE_ROWS},
            "By the suite that is there": {"adapter": ADAPTER},
        },
        answers={"200": {_JSON: VERSION}, "201": {_JSON: VERSION}},
    ),
    "POST /v1/names/{name}/promote": Call(
        "Promote a version",
        parameters=_OF_NAME,
        requests={"One of all": {"version": 1, "at_least": 1}},
        answers={"202": {_JSON: job_example(kind="promote", adapter=ADAPTER)}},
    ),
    "POST /v1/names/{name}/rollback": Call(
        "Go back to the version before",
        parameters=_OF_NAME,
        answers={"200": {_JSON: ROLLED_BACK}},
    ),
    "GET /v1/search": Call(
        "Search the library",
        parameters={"q": TASK, "k": 1},
        answers={"200": {_JSON: RESULTS}},
    ),
    "GET /v1/library": Call(
        "List the library",
        parameters={"limit": 1},
        answers={"200": {_JSON: LIBRARY_PAGE}},
    ),
    "GET /v1/library/map": Call(
        "Map the library",
        parameters={"q": TASK},
        answers={"200": {_JSON: LIBRARY_MAP}},
    ),
    "GET /v1/library/{id}": Call(
        "Show an adapter of the library",
        parameters={"id": NEAREST},
        answers={"200": {_JSON: DESCRIBED}},
    ),
    "GET /v1/generators": Call(
        "List the generators",
        answers={"200": {_JSON: GENERATORS}},
    ),
    "GET /v1/base-models": Call(
        "List the base models",
        answers={"200": {_JSON: BASE_MODELS}},
    ),
    "GET /v1/jobs/{id}": Call("Show a job", parameters=_OF_JOB, answers={"200": {_JSON: VERIFIED}}),
    "DELETE /v1/jobs/{id}": Call(
        "Cancel a job",
        parameters=_OF_JOB,
        answers={"200": {_JSON: job_example(state="cancelled", progress=0.5)}},
    ),
    "GET /v1/jobs/{id}/events": Call(
        "Follow a job", parameters=_OF_JOB, answers={"200": {_EVENTS: STREAM}}
    ),
    "POST /v1/chat/completions": Call(
        "Answer a chat",
        requests={
            "Under an adapter": CHAT,
            "One of some answers": {**CHAT, "guided_choice": ["positive", "negative"]},
            "Under a gate": {**CHAT, "model": "route:arrow"},
        },
        answers={"200": {_JSON: CHATTED, _EVENTS: CHAT_STREAM}},
    ),
    "POST /v1/completions": Call(
        "Go on from a text",
        requests={"By the base model": TEXT},
        answers={"200": {_JSON: COMPLETED, _EVENTS: TEXT_STREAM}},
    ),
    "GET /v1/models": Call("List what completions may name", answers={"200": {_JSON: MODELS}}),
    "GET /health/live": Call(
        "Ask whether the process answers", answers={"200": {_JSON: {"status": "live"}}}
    ),
    "GET /health/ready": Call(
        "Ask whether everything is loaded", answers={"200": {_JSON: {"status": "ready"}}}
    ),
    "GET /metrics": Call("Show the measurements", answers={"200": {"text/plain": METRICS}}),
}


def add_examples(document: dict[str, Any]) -> None:
    """Put summaries and examples into an OpenAPI document."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            call = CALLS.get(f"{method.upper()} {path}")
            if call is not None:
                _add(operation, call)


def _add(operation: dict[str, Any], call: Call) -> None:
    operation["summary"] = call.summary
    for parameter in operation.get("parameters", []):
        if parameter["name"] in call.parameters:
            parameter["example"] = call.parameters[parameter["name"]]
    if call.requests:
        shown = {title: {"value": body} for title, body in call.requests.items()}
        operation["requestBody"]["content"][_JSON]["examples"] = shown
    for status, answers in call.answers.items():
        for media_type, body in answers.items():
            operation["responses"][status]["content"][media_type]["example"] = body
