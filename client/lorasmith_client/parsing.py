"""JSON as dataclasses. Fields that this client does not know are left out."""

import json
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import httpx

from lorasmith_client.answers import Adapter, Job, Promotion, Verification
from lorasmith_client.errors import UnexpectedAnswer, json_of

T = TypeVar("T")
_RESULTS: dict[str, type] = {
    "create": Adapter, "refine": Adapter, "compose": Adapter,
    "verify": Verification, "promote": Promotion,
}  # fmt: skip


def parsed(kind: type[T], response: httpx.Response) -> T:
    """The body of an answer as a dataclass. Raises UnexpectedAnswer."""
    return built(kind, json_of(response))


def listed(kind: type[T], response: httpx.Response, name: str) -> list[T]:
    """The list that stands under a name in the body of an answer. Raises UnexpectedAnswer."""
    return [built(kind, item) for item in items(response, name)]


def items(response: httpx.Response, name: str) -> list[Any]:
    """The same list, as its JSON. Raises UnexpectedAnswer."""
    body = json_of(response)
    found = body.get(name) if isinstance(body, dict) else None
    if not isinstance(found, list):
        raise UnexpectedAnswer(f"the answer has no list {name!r}")
    return found


def built(kind: type[T], value: Any) -> T:
    """A dataclass of its JSON. Raises UnexpectedAnswer."""
    try:
        return _value(kind, value)
    except (KeyError, TypeError, ValueError) as error:
        message = f"the answer is no {kind.__name__}: {type(error).__name__} {error}"
        raise UnexpectedAnswer(message) from error


def job_of(line: str) -> Job | None:
    """The job in a line of a stream of events, if there is one. Raises UnexpectedAnswer."""
    if not line.startswith("data:"):
        return None
    try:
        return built(Job, json.loads(line[5:]))
    except json.JSONDecodeError as error:
        raise UnexpectedAnswer("the event is no JSON") from error


def json_name(field: Any) -> str:
    """The name in JSON of a field of a dataclass, which may be a keyword of Python."""
    return field.metadata.get("name", field.name)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _value(kind: Any, value: Any) -> Any:
    if is_dataclass(kind):
        return _dataclass(kind, value)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):
        present = [one for one in arguments if one is not types.NoneType]
        return None if value is None else _value(present[0], value)
    if origin is list:
        return [_value(arguments[0], item) for item in _of(list, value)]
    if origin is dict:
        return {name: _value(arguments[1], item) for name, item in _of(dict, value).items()}
    return float(_of((int, float), value)) if kind is float else _of(kind, value)


def _dataclass(kind: Any, value: Mapping[str, Any]) -> Any:
    hints = _hints(kind)
    if kind is Job:  # its kind says what its result is
        hints = {**hints, "result": _RESULTS.get(value["kind"], Adapter) | None}
    present: Iterable[tuple[str, str]] = ((f.name, json_name(f)) for f in fields(kind))
    return kind(**{name: _value(hints[name], value[key]) for name, key in present})


def _of(kind: Any, value: Any) -> Any:
    if kind is not Any and not isinstance(value, kind):
        raise TypeError(f"{value!r:.40} is not {kind}")
    return value
