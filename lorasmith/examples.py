"""Examples and inputs of a task: train an adapter on them, or ask the base for answers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from generator.refine.limits import DEFAULT_BUDGET, require_trainable
from library.errors import UsageError
from lorasmith.adapters import FinishedAdapter
from lorasmith.loading import Examples, Inputs, Profile, loaded_model, rows_and_inputs

if TYPE_CHECKING:
    from library.adapter import Adapter
    from library.base.models import BaseReference
    from library.base.usage import Usage


def refine(
    examples: Examples = (),
    adapter: str | Path | None = None,
    *,
    inputs: Inputs = (),
    multi_task: Path | str | None = None,
    steps: int | None = None,
    budget: float = DEFAULT_BUDGET,
    seed: int = 0,
    base: str | None = None,
    library: str | Path | None = None,
    profile: Profile = "portable",
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> FinishedAdapter:
    """An adapter trained on examples: an existing one further, or a fresh one.

    It is for the prompt that the existing one is for, or for the input alone. All examples are
    trained on; how new inputs will be answered is measured by adapters that train beside on a part
    of them (`summary["refined"]["held_out"]`), from four examples on.

    With inputs and no answers, a multi-task adapter that reads the existing one's description
    answers them; its answers are learned, beside the examples if there are any, for the input
    alone.

    Args:
        examples: up to 200 pairs of input and output, or a JSONL file of them.
        inputs: up to 200 texts without answers, or a file of them: JSONL, or one a line.
        multi_task: folder of the adapter that answers the inputs, in place of the shipped ones.
        adapter: folder, or id or task of the library; None starts from nothing, for any base.
        steps: steps of training; by default as many as suit the examples and fit the budget.
        budget: seconds that training may cost, by a stored table of costs.
        seed: of the order of the examples, and of a fresh start.
        base: Hub id or folder; by default the adapter's own, or the packaged base.
        library: where ids and tasks are looked up; the shipped sample by default.
        progress: called with steps done, and of how many.
    Raises:
        UsageError and its kinds, TaskFileError, AdapterFileError, LayoutMismatch, BaseModelError,
        UnsupportedModel, AdapterRefused.
    """
    from generator.refine.refine import refiner_here
    from generator.refined_adapter import refine_adapter
    from generator.request import Request
    from generator.strategies.multi_task import MultiTask, shipped_multi_tasks
    from index.merge.parents import read_parents
    from library.base.models import require_device, resolve_base
    from library.files import require_present
    from library.progress import no_progress
    from lorasmith.libraries import load_library
    from verification.run import QuickCheck

    # 1. Everything that can be wrong with the arguments alone.
    if steps == 0:
        raise UsageError("steps must be at least 1")
    own = [] if multi_task is None else [Path(multi_task)]
    require_present(*own)
    rows, texts = rows_and_inputs(examples, inputs)
    require_trainable(rows, steps, texts)
    if own and not texts:
        raise UsageError("a multi-task adapter answers inputs, and none are given")
    request = Request(
        None, seed=seed, profile=profile, examples=rows, refine=steps, budget=budget, inputs=texts
    )
    require_device(device)
    start = None
    if adapter is not None:
        start = read_parents([str(adapter)], load_library(library).catalogue, base)
    reference = resolve_base(base or (start.base["id"] if start else None))
    teacher = None
    if texts:
        description = start.descriptions[0] if start else None
        teacher = MultiTask(*(own or shipped_multi_tasks())).teacher(description, reference)
    # 2. Training.
    check = QuickCheck(reference)
    refined = refine_adapter(
        reference,
        request,
        start,
        refiner=refiner_here(lambda base: loaded_model(base, device)),
        teacher=teacher,
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
    usage: "Usage | None" = None,
) -> list[str]:
    """The base model's greedy answers to inputs, with an adapter or without.

    An adapter is asked with the prompt that its provenance names as its usage; the base alone with
    the input.

    Args:
        adapter: a new one, or the folder of one.
        base: Hub id or folder; the packaged base by default.
        usage: the prompt, in place of the adapter's own.
    Raises:
        UsageError and its kinds, BaseModelError, AdapterFileError, LayoutMismatch.
    """
    if isinstance(inputs, str) or any(not text.strip() for text in inputs):
        raise UsageError("inputs are a list of texts that are not empty")
    from library.base.decode import greedy
    from library.base.models import require_device, resolve_base
    from library.base.prompts import prompt_ids
    from library.base.usage import BARE, usage_of

    require_device(device)
    reference = resolve_base(base)
    files = None if adapter is None else _files(adapter)
    usage = usage or (BARE if files is None else usage_of(files))
    model = loaded_model(reference, device)
    prompts = [prompt_ids(model.tokenizer, usage.message(text)) for text in inputs]
    if files is None:
        return greedy(model, prompts)
    stored = _weights(files, reference).to(device=model.device)
    return greedy(model, prompts, stored, [0] * len(prompts))


def _files(adapter: FinishedAdapter | Path | str) -> Mapping[str, bytes]:
    from library.peft.folder import read_adapter_folder

    new = isinstance(adapter, FinishedAdapter)
    return adapter.files if new else read_adapter_folder(Path(adapter))


def _weights(files: Mapping[str, bytes], base: "BaseReference") -> "Adapter":
    """An adapter's weights in the order of the base's layout, n = 1."""
    from library.base.stored_adapters import adapter_for_base

    return adapter_for_base(files, base)
