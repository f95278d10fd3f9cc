"""Calibration files: small JSON that ships beside the module that reads it."""

import json
from collections.abc import Callable
from importlib.resources.abc import Traversable
from typing import Any, TypeVar

from library.errors import CheckpointError

T = TypeVar("T")


def read_calibration(file: Traversable, build: Callable[[dict[str, Any]], T]) -> T:
    """The file's object as `build` makes it. Raises CheckpointError if it is missing or damaged."""
    try:
        return build(json.loads(file.read_bytes()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the calibration {file.name} cannot be read: {error}") from error
