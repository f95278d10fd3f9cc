"""`lorasmith evaluate`: measure methods on tasks."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.common import SHIPPED, check_device, open_strategies
from api.cli.console import progress_bar, quiet_libraries
from library.errors import UsageError
from library.files import require_absent, require_kind, write_file

if TYPE_CHECKING:
    from generator.strategies.strategies import Strategies
    from index.search.retriever import Retriever
    from library.adapter import Adapter
    from library.base.models import BaseReference
    from library.tasks.files import Task
    from training.evaluation.library_methods import LibraryMethods
    from training.evaluation.routing import Routing


def evaluate_command(
    tasks: Annotated[Path, typer.Option(help="Folder of task files.")],
    methods: Annotated[str, typer.Option(help="For example base,text-to-lora:gibberish.")],
    out: Annotated[Path, typer.Option(help="Where the JSON report goes.")],
    mode: Annotated[str, typer.Option(help="bare, prompted, or both with a comma.")] = "bare",
    base: Annotated[str | None, typer.Option(help="Hub id, hub:ID or folder.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Generator; default: shipped.")] = None,
    library: Annotated[str | None, typer.Option(help="Default: the shipped sample.")] = None,
    oracles: Annotated[str | None, typer.Option(help="For oracle; default: --library.")] = None,
    multi_task: Annotated[Path | None, typer.Option(help="Adapter, or one a mode in it.")] = None,
    predictor: Annotated[Path | None, typer.Option(help="Of lora-rar; default: shipped.")] = None,
    router: Annotated[Path | None, typer.Option(help="For per-request and dlp.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first N tasks by name.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="JSONL of every answer.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="The table, for a document.")] = None,
    html: Annotated[Path | None, typer.Option(help="One page with tables and pictures.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of derangements and paraphrases.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts decoded together.")] = 32,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing report.")] = False,
) -> None:
    """Measure methods on tasks: a JSON report, and a table on the screen.

    Example: lorasmith evaluate --tasks tasks/public_heldout --methods base,text-to-lora
    --mode bare --out report.json
    """
    from training.evaluation.methods import parse_methods

    parsed, modes = parse_methods(methods), _modes(mode)
    targets = [path for path in (out, predictions, markdown, html) if path is not None]
    for target in targets:
        require_absent(target, overwrite)
        require_kind(target, folder=False)
    if len({target.resolve() for target in targets}) < len(targets):
        raise UsageError("--out, --predictions, --markdown and --html must differ")
    check_device(device)
    quiet_libraries()
    found = Options(
        tasks,
        limit,
        base,
        checkpoint,
        library,
        oracles,
        multi_task,
        predictor,
        router,
        device,
        seed,
        batch_size,
    )
    report, answers = _measure(found, parsed, modes)
    from training.evaluation.report import table

    if predictions is not None:
        write_file(predictions, answers)
    if markdown is not None:
        write_file(markdown, (table(report) + "\n").encode())
    if html is not None:
        from training.evaluation.page import page

        write_file(html, page(report).encode())
    # Last, as it says that all is done.
    write_file(out, (json.dumps(report, indent=1) + "\n").encode())
    typer.echo(table(report))


@dataclass(frozen=True)
class Options:
    """What was typed, as far as it concerns the measuring."""

    tasks: Path
    limit: int | None
    base: str | None
    checkpoint: Path | None
    library: str | None
    oracles: str | None
    multi_task: Path | None
    predictor: Path | None
    router: Path | None
    device: str
    seed: int
    batch_size: int


def _measure(o: Options, methods: list[Any], modes: list[Any]) -> tuple[dict[str, Any], bytes]:
    """The report, and the lines of all predictions."""
    from generator.generate import TEXT_TO_LORA
    from library.base.models import resolve_base
    from library.tasks.files import read_tasks
    from training.evaluation.evaluate import EvaluationPlan, evaluate
    from training.evaluation.report import build_report, predictions_lines

    tasks, reference = read_tasks(o.tasks)[: o.limit], resolve_base(o.base)
    # The checkpoint also says which tasks are seen; without any, `base` still has its scores.
    needed = any(method.head == TEXT_TO_LORA for method in methods)
    only_oracles = {m.head for m in methods if m.takes_adapters} == {"oracle"}
    takes = any(method.takes_adapters for method in methods) and not only_oracles
    place = (o.library or SHIPPED) if takes else None
    strategies = open_strategies(o.checkpoint, place, o.device, needed=needed)
    generator = strategies.generator
    seen = set(generator.checkpoint.info.tasks) if generator else set()
    splits = ["seen" if task.name in seen else "held-out" for task in tasks]
    if generator is not None and needed:
        generator.require_fit(reference)
    library = None
    if any(method.from_library for method in methods):
        shelf = None if only_oracles else strategies.shelf(reference)  # before oracles are trained
        library = _library(o, strategies, shelf, _oracles(o, methods, tasks, reference), reference)
    single = _multi_task(o, methods, modes, reference)
    routing = _routing(o, methods, strategies, reference)
    base = strategies.base(reference)
    plan = EvaluationPlan(tasks, splits, methods, modes, o.seed, o.batch_size)
    with progress_bar("evaluating") as advance:
        outcome = evaluate(plan, base, strategies, library, single, routing, advance)
    report = build_report(
        plan, outcome, command=_command(), commit=_commit(), device=_name(o.device), base=base
    )
    report["checkpoint"] = generator.checkpoint.digest if generator else None
    return report, predictions_lines(outcome.cells, o.seed)


def _oracles(o: Options, methods: list[Any], tasks: "Sequence[Task]", base: "BaseReference") -> str:
    """Where `oracle` looks; trained on the spot if need be."""
    wanted = [method.head for method in methods]
    if "oracle" not in wanted or o.oracles is not None or o.library is not None:
        return o.oracles or o.library or SHIPPED
    from training.evaluation.oracles import trained_oracles

    with progress_bar("training oracles", unit="step") as progress:
        return trained_oracles(tasks, base, o.device, progress)


def _library(
    o: Options,
    strategies: "Strategies",
    shelf: "Retriever | None",
    oracles: str,
    base: "BaseReference",
) -> "LibraryMethods":
    """What merges and looks up; the oracles' own shelf if there is no other."""
    from api.merging import shipped_predictor
    from index.search.retriever import Retriever
    from library.store.open import open_library
    from training.evaluation.library_methods import LibraryMethods

    folder = open_library(oracles)
    same = shelf is not None and folder.place == shelf.folder.place
    own = shelf if shelf and same else Retriever(folder, base, strategies.encoder)
    return LibraryMethods(shelf or own, own, o.predictor or shipped_predictor(), o.seed)


def _multi_task(
    o: Options, methods: list[Any], modes: list[Any], base: "BaseReference"
) -> "dict[Any, Adapter] | None":
    """The multi-task adapter of each mode: PATH/MODE, or PATH for all."""
    if all(method.name != "multi-task" for method in methods):
        return None
    if o.multi_task is None:
        raise UsageError("multi-task needs --multi-task, an adapter of lorasmith train")
    from library.base.models import base_layout
    from library.peft.read import read_peft

    found: dict[Any, Adapter] = {}
    for mode in modes:
        own = o.multi_task / mode
        folder = own if own.is_dir() else o.multi_task
        found[mode] = read_peft(folder, base_layout(base, read_peft(folder).layout))
    return found


def _routing(
    o: Options, methods: list[Any], strategies: "Strategies", base: "BaseReference"
) -> "Routing | None":
    """The router of the methods that choose for each row, over the library."""
    if not any(method.routed for method in methods):
        return None
    if o.router is None:
        raise UsageError("per-request and dlp need --router, a router of lorasmith train")
    from index.encoders.descriptions import DescriptionEncoder
    from index.router import load_router
    from training.evaluation.routing import Routing

    router = load_router(o.router)
    encoder = strategies.encoder
    if encoder.name != router.encoder:
        encoder = DescriptionEncoder(router.encoder, device=o.device)
    return Routing(router, strategies.shelf(base), encoder)


def _modes(text: str) -> list[Any]:
    modes = [mode.strip() for mode in text.split(",")]
    if any(mode not in ("bare", "prompted") for mode in modes) or len(set(modes)) != len(modes):
        raise UsageError(f"mode must be bare, prompted or bare,prompted, not {text!r}")
    return modes


def _command() -> str:
    return shlex.join(["lorasmith", *sys.argv[1:]])


def _commit() -> str | None:
    """The commit of the working copy that this code runs from, if it is one."""
    folder = Path(__file__).parent.parent.parent
    given = os.environ.get("LORASMITH_COMMIT")
    if not (folder / ".git").exists():  # installed; a repository further up is somebody else's
        return given
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return given
    return done.stdout.strip()


def _name(device: str) -> str:
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    return f"cpu, {torch.get_num_threads()} threads"
