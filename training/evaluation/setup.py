"""Set-up of an evaluation from the names and folders that it is given."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import pretrained
from generator.engine import DEFAULT_STRATEGY, Engine, open_engine, read_generator
from generator.models.base import Generator
from generator.request import UsageMode
from generator.strategies.auto import calibrated_first
from generator.strategies.multi_task import MultiTask
from generator.strategies.stored import StoredAdapter
from index.encoders.descriptions import DescriptionEncoder
from index.routing import load_router
from index.search.retriever import Retriever
from library.adapter import Adapter
from library.base.models import BaseReference, resolve_base
from library.checkpoint import Checkpoint
from library.errors import UsageError
from library.store.open import open_library
from library.tasks.files import Task, read_tasks
from training.evaluation.evaluate import EvaluationPlan, evaluate
from training.evaluation.library_methods import LibraryMethods
from training.evaluation.methods import Method
from training.evaluation.oracles import trained_oracles
from training.evaluation.paraphrases import over_paraphrases, paraphrased
from training.evaluation.report import build_report, predictions_lines
from training.evaluation.routing import Routing

Bar = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class Options:
    """An evaluation as it is asked for; see `lorasmith evaluate --help`.

    Attributes:
        checkpoints: of generators, in place of the shipped ones.
        bar: opens a progress bar for a label and a unit.
        paraphrases: how many of each task's stand in for its definition, one after the other.
    """

    tasks: Path
    methods: Sequence[Method]
    modes: Sequence[UsageMode]
    bar: Bar
    limit: int | None = None
    base: str | None = None
    checkpoints: Sequence[Path] = ()
    library: str | None = None
    oracles: str | None = None
    multi_task: Path | None = None
    predictor: Path | None = None
    router: Path | None = None
    device: str = "cpu"
    seed: int = 0
    batch_size: int = 32
    paraphrases: int = 0

    @property
    def heads(self) -> set[str]:
        return {method.head for method in self.methods}


def run_evaluation(o: Options, *, command: str, commit: str | None) -> tuple[dict[str, Any], bytes]:
    """The report, and the lines of all predictions."""
    # 1. Tasks, base and engine; a checkpoint also says which tasks are seen.
    tasks, reference = read_tasks(o.tasks)[: o.limit], resolve_base(o.base)
    wordings = paraphrased(tasks, o.paraphrases) if o.paraphrases else [tasks]
    engine = _engine(o)
    checkpoints = _checkpoints(o, engine, reference)
    seen = {name for checkpoint in checkpoints for name in checkpoint.info.tasks}
    splits = ["seen" if task.name in seen else "held-out" for task in tasks]
    # 2. What the methods need beside it.
    library = _library(o, engine, tasks, reference)
    single = _multi_task(o, reference)
    routing = _routing(o, engine, reference)
    # 3. The measuring itself, under one wording of the descriptions after another.
    base, reports, answers = engine.resources.model(reference), [], []
    about = {"command": command, "commit": commit, "device": _device_name(o.device), "base": base}
    for number, worded in enumerate(wordings, start=1):
        plan = EvaluationPlan(worded, splits, o.methods, o.modes, o.seed, o.batch_size)
        with o.bar(f"evaluating {number}/{len(wordings)}", "cell") as advance:
            outcome = evaluate(plan, base, engine, library, single, routing, advance)
        reports.append(build_report(plan, outcome, **about))
        answers.append(predictions_lines(outcome.cells, o.seed, number if o.paraphrases else None))
    report = over_paraphrases(reports) if o.paraphrases else reports[0]
    report["checkpoint"] = checkpoints[0].digest if checkpoints else None
    report["checkpoints"] = {checkpoint.kind: checkpoint.digest for checkpoint in checkpoints}
    return report, b"".join(answers)


def _engine(o: Options) -> Engine:
    """The engine, with the library if a method takes anything but oracles from one."""
    takes = {m.head for m in o.methods if m.takes_adapters} - {"oracle"}
    library = (o.library or str(pretrained.LIBRARY)) if takes else None
    checkpoints = [read_generator(folder) for folder in o.checkpoints]
    required = next((m.head for m in o.methods if m.is_generator), None)
    multi_task = [] if o.multi_task is None else [_for_mode(o.multi_task, MultiTask.best)]
    return open_engine(checkpoints, library, o.device, required=required, multi_task=multi_task)


def _checkpoints(o: Options, engine: Engine, base: BaseReference) -> list[Checkpoint[Generator]]:
    """Checkpoints of the generators that methods name; all that fit for `auto`, or if none does.

    In the order in which `auto` takes them. Raises LayoutMismatch, UsageError: one that is named
    does not fit.
    """
    named = [s for name, s in engine.generated.items() if name in o.heads]
    for strategy in named:
        strategy.fit.require(base)
    if named and DEFAULT_STRATEGY not in o.heads:
        used = named
    else:
        used = [s for s in engine.generated.values() if not s.unavailable(base)]
    return [strategy.checkpoint for strategy in calibrated_first(used)]


def _library(
    o: Options, engine: Engine, tasks: Sequence[Task], base: BaseReference
) -> LibraryMethods | None:
    """The methods over a library; over the oracles' own one if there is no other."""
    if not any(method.from_library for method in o.methods):
        return None
    # The library is opened before oracles are trained, which takes long.
    only_oracles = {m.head for m in o.methods if m.takes_adapters} == {"oracle"}
    retriever = None if only_oracles else engine.resources.retriever(base)
    folder = open_library(_oracles(o, tasks, base))
    if retriever is None or folder.location != retriever.folder.location:
        oracles = Retriever(folder, base, engine.resources.encoder())
    else:
        oracles = retriever
    predictor = o.predictor or pretrained.folder("lora-rar")
    return LibraryMethods(retriever or oracles, oracles, predictor, o.seed)


def _oracles(o: Options, tasks: Sequence[Task], base: BaseReference) -> str:
    """The library that `oracle` looks in; trained on the spot if need be."""
    if "oracle" not in o.heads or o.oracles is not None or o.library is not None:
        return o.oracles or o.library or str(pretrained.LIBRARY)
    with o.bar("training oracles", "step") as progress:
        return trained_oracles(tasks, base, o.device, progress)


def _multi_task(o: Options, base: BaseReference) -> dict[UsageMode, Adapter] | None:
    """The adapter of --multi-task for each mode; None for the shipped ones.

    Other methods, which start from it or choose it, have the one for prompts with the instruction.
    Raises LayoutMismatch for one of another base.
    """
    if o.multi_task is None:
        return None
    adapters: dict[UsageMode, Adapter] = {}
    for mode in o.modes:
        folder = _for_mode(o.multi_task, mode)
        adapters[mode] = StoredAdapter(folder, MultiTask.name).adapter_for(base)
    return adapters


def _for_mode(path: Path, mode: UsageMode) -> Path:
    """PATH/MODE if there is one, else PATH, which then serves all modes."""
    return path / mode if (path / mode).is_dir() else path


def _routing(o: Options, engine: Engine, base: BaseReference) -> Routing | None:
    """The router of the methods that choose for each row, over the library."""
    if not any(method.routed for method in o.methods):
        return None
    if o.router is None:
        raise UsageError("per-request and dlp need --router, a router from lorasmith train")
    router, encoder = load_router(o.router), engine.resources.encoder()
    if encoder.name != router.encoder:
        encoder = DescriptionEncoder(router.encoder, device=o.device)
    return Routing(router, engine.resources.retriever(base), encoder)


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    return f"cpu, {torch.get_num_threads()} threads"
