"""What several functions load: examples, inputs, the engine and the base model of the last call."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from generator.engine import Engine
    from library.base.models import BaseModel, BaseReference
    from library.tasks.files import Example

Profile = Literal["portable", "lossless"]
Mode = Literal["best", "bare", "prompted"]
Examples = Sequence[tuple[str, str]] | Path | str
Inputs = Sequence[str] | Path | str


def example_pairs(examples: Examples) -> "tuple[Example, ...]":
    """Pairs, or the rows of a JSONL file. Raises MissingPath, TaskFileError."""
    from library.tasks.files import Example, read_examples

    if isinstance(examples, str | Path):
        return tuple(read_examples(Path(examples)))
    return tuple(Example.pair(text, output) for text, output in examples)


def input_texts(inputs: Inputs) -> tuple[str, ...]:
    """Texts, or the inputs in a file. Raises MissingPath, TaskFileError."""
    from library.tasks.inputs import read_inputs

    if isinstance(inputs, str | Path):
        return read_inputs(Path(inputs))
    return tuple(inputs)


def rows_and_inputs(
    examples: Examples, inputs: Inputs
) -> "tuple[tuple[Example, ...], tuple[str, ...]]":
    """Both as they are given or lie in files. Raises as they do; UsageError for one pipe."""
    from library.errors import UsageError

    if str(examples) == str(inputs) == "-":
        raise UsageError("standard input holds either the examples or the inputs, not both")
    return example_pairs(examples), input_texts(inputs)


@lru_cache(maxsize=1)
def loaded_engine(
    checkpoints: tuple[Path, ...],
    library: str | None,
    device: str,
    required: str,
    multi_task: Path | None,
) -> "Engine":
    """The engine of the last call, kept because loading takes longer than generating.

    Raises MissingPath where nothing is at `multi_task`; CheckpointError also where checkpoints are
    named, and none of them is of the generator that is required.
    """
    from functools import partial

    from generator.engine import open_engine, read_generator, shipped_library
    from generator.models.base import registered
    from library.errors import CheckpointError
    from library.files import require_present

    require_present(multi_task)
    loaded = [read_generator(folder) for folder in checkpoints]
    kinds = [checkpoint.kind for checkpoint in loaded]
    if kinds and required in registered() and required not in kinds:
        raise CheckpointError(f"{checkpoints[0]} is a checkpoint of {kinds[0]}, not {required}")
    location = library or shipped_library()
    load = partial(loaded_model, device=device)
    folders = () if multi_task is None else (multi_task,)
    return open_engine(loaded, location, device, required=required, load=load, multi_task=folders)


@lru_cache(maxsize=1)
def loaded_model(base: "BaseReference", device: str) -> "BaseModel":
    """The base model of the last call."""
    from library.base.models import load_base

    return load_base(base, device=device)
