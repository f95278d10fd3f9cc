"""Examples of a task: train an adapter on them, or ask the base for answers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from library.errors import UsageError
from lorasmith.adapters import FinishedAdapter
from lorasmith.loading import Examples, Profile, example_pairs, loaded_model

if TYPE_CHECKING:
    from library.adapter import Adapter
    from library.base.models import BaseReference


def refine(
    examples: Examples,
    adapter: str | Path | None = None,
    *,
    steps: int | None = None,
    seed: int = 0,
    base: str | None = None,
    library: str | Path | None = None,
    profile: Profile = "portable",
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> FinishedAdapter:
    """An adapter trained on examples: an existing one further, or a fresh one.

    It is made for bare prompts: the input alone. No example is held back, so how good it is has to
    be measured on others.

    Args:
        examples: up to 200 pairs of input and output, or a JSONL file of them.
        adapter: folder, or id or task of the library; None starts from nothing, for any base.
        steps: steps of training; 30 by default, or as many as there are examples.
        seed: of the order of the examples, and of a fresh start.
        base: Hub id or folder; by default the adapter's own, or the packaged base.
        library: where ids and tasks are looked up; the shipped sample by default.
        progress: called with steps done, and of how many.
    Raises:
        UsageError and its kinds, TaskFileError, AdapterFileError, LayoutMismatch, BaseModelError,
        UnsupportedModel, AdapterRefused.
    """
    from generator.refine.refine import refine_adapter, require_refinable
    from index.merge.parents import read_parents
    from library.base.models import require_device, resolve_base
    from library.progress import no_progress
    from lorasmith.libraries import load_library
    from verification.run import QuickCheck

    # 1. Everything that can be wrong with the arguments alone.
    rows = example_pairs(examples)
    require_refinable(rows, steps, seed)
    require_device(device)
    start = None
    if adapter is not None:
        start = read_parents([str(adapter)], load_library(library).catalogue, base)
    reference = resolve_base(base or (start.base["id"] if start else None))
    # 2. Training.
    check = QuickCheck(reference)
    refined = refine_adapter(
        loaded_model(reference, device),
        rows,
        start,
        steps=steps,
        seed=seed,
        profile=profile,
        check=check,
        progress=progress or no_progress,
    )
    return FinishedAdapter.of(refined.files, refined.summary(), check.milliseconds)


def answer(
    inputs: Sequence[str],
    adapter: "FinishedAdapter | Path | str | None" = None,
    *,
    base: str | None = None,
    device: str = "cpu",
) -> list[str]:
    """The base model's greedy answers to inputs, with an adapter or without.

    Prompts are bare: the input is the message, and the adapter carries the task.

    Args:
        adapter: a new one, or the folder of one.
        base: Hub id or folder; the packaged base by default.
    Raises:
        UsageError and its kinds, BaseModelError, AdapterFileError, LayoutMismatch.
    """
    if isinstance(inputs, str) or any(not text.strip() for text in inputs):
        raise UsageError("inputs are a list of texts that are not empty")
    from library.base.decode import greedy
    from library.base.models import require_device, resolve_base
    from library.base.prompts import prompt_ids

    require_device(device)
    reference = resolve_base(base)
    model = loaded_model(reference, device)
    prompts = [prompt_ids(model.tokenizer, text) for text in inputs]
    if adapter is None:
        return greedy(model, prompts)
    stored = _read(adapter, reference).to(device=model.device)
    return greedy(model, prompts, stored, [0] * len(prompts))


def _read(adapter: FinishedAdapter | Path | str, base: "BaseReference") -> "Adapter":
    """An adapter's weights in the order of the base's layout, n = 1."""
    from library.base.models import base_layout
    from library.peft.folder import read_adapter_folder
    from library.peft.read import adapter_of

    new = isinstance(adapter, FinishedAdapter)
    files = adapter.files if new else read_adapter_folder(Path(adapter))
    return adapter_of(files, base_layout(base, adapter_of(files).layout))
