"""`lorasmith library build`: adapters trained for tasks, many at once."""

from typing import Annotated

import typer

from api.cli.build_options import (
    CompileLayers,
    Device,
    ExcludedLicenses,
    Executor,
    Json,
    RayAddress,
    ShardSize,
    SkipBroken,
    TaskFolders,
    TrainingPlace,
    WorkerCount,
    read_task_folders,
    say_built,
)
from api.cli.console import progress_bar
from api.cli.library_list import CatalogueUrl, catalogue_of_build


def build_command(
    tasks: TaskFolders,
    out: Annotated[str, typer.Option(help="Folder or URL of the library.")],
    base: Annotated[
        str | None,
        typer.Option(help="Base model: Hub id, hub:ID or folder. Default: the packaged one."),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="Training recipe, such as lora, rslora, moslora, dora or, of a type of PEFT, "
            "peft:vblora; docs/library.md lists all, and so does the answer to a name that is none."
        ),
    ] = "lora",
    update: Annotated[
        str,
        typer.Option(
            help="What becomes of the gradients of A and B first: adamw (nothing), riemannian, "
            "lora-pro or allora; with lora, rslora and lora-plus."
        ),
    ] = "adamw",
    rank: Annotated[int, typer.Option(min=1, max=256, help="Rank of every adapter.")] = 8,
    placement: Annotated[
        str,
        typer.Option(
            help="Which modules get how much rank, for the numbers of --rank: uniform, increasing, "
            "ends, strata, plop, inflection, contribution, focal, autolora, flexora, ard, dora or "
            "dylora."
        ),
    ] = "uniform",
    targets: Annotated[
        str | None,
        typer.Option(
            help="Types of modules to adapt, separated by commas. "
            "Default: the model family's, such as q_proj,v_proj."
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Maximum number of training steps of an adapter.")
    ] = 300,
    rows: Annotated[
        int, typer.Option(min=1, help="Training rows of one step, for each adapter.")
    ] = 8,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate. Default: the recipe's (lora: 0.002).")
    ] = None,
    check_every: Annotated[
        int, typer.Option(min=1, help="Training steps between evaluations on the tune rows.")
    ] = 25,
    patience: Annotated[
        int,
        typer.Option(
            min=0,
            help="Stop an adapter after this many evaluations without a better one; 0: never.",
        ),
    ] = 4,
    snapshots: Annotated[
        int,
        typer.Option(min=0, help="Number of last training states to store with each adapter."),
    ] = 0,
    variants: Annotated[
        int,
        typer.Option(
            min=1,
            help="Adapters for each task; the first learns from all train rows, each other from "
            "a random half.",
        ),
    ] = 1,
    slots: Annotated[
        int, typer.Option(min=1, help="Adapters trained at once in one process.")
    ] = 32,
    shard_size: ShardSize = 64,
    max_length: Annotated[
        int,
        typer.Option(min=8, help="Leave out rows of more tokens than this, answer included."),
    ] = 320,
    exclude_license: ExcludedLicenses = "",
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the initial A and of the order of rows.")
    ] = 0,
    micro_batches: Annotated[
        int,
        typer.Option(min=1, help="Forward passes that a step is split into, by row length."),
    ] = 3,
    workers: WorkerCount = 1,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    device: Device = "cpu",
    compile_layers: CompileLayers = False,
    skip_broken: SkipBroken = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the build of an existing library.")
    ] = False,
    catalogue: CatalogueUrl = None,
    as_json: Json = False,
) -> None:
    """Train an adapter for every task, many at once.

    Example: lorasmith library build --tasks tasks/train --out my-library --steps 300
    """
    from library.placement.registry import placement_named
    from library.trainer.recipes.registry import recipe_named

    settings = recipe_named(recipe, lr=lr, update=update)
    placement_named(placement)
    by_name, broken = read_task_folders(tasks, skip_broken, exclude_license)
    place = TrainingPlace(device, compile_layers, workers, executor, ray_address)
    from library.base.models import described, load_config, load_tokenizer, resolve_base
    from library.build.build import begin, require_place
    from library.build.placing import with_placement
    from library.build.plan import make_plan
    from library.layout import layout_of
    from library.placement.probe import Probe
    from library.store.folder import LibraryFolder
    from library.trainer.run_state import TrainConfig

    reference, folder = resolve_base(base), LibraryFolder(out)
    names = targets.split(",") if targets else None
    layout = layout_of(load_config(reference), names, rank=rank)
    plan = make_plan(
        list(by_name.values()),
        load_tokenizer(reference),
        base=described(reference),
        layout=layout,
        recipe=settings,
        config=TrainConfig(
            steps=steps,
            rows=rows,
            slots=slots,
            micro_batches=micro_batches,
            check_every=check_every,
            patience=patience,
            snapshots=snapshots,
        ),
        seed=seed,
        max_length=max_length,
        variants=variants,
        shard_size=shard_size,
    )
    require_place(folder, resume=resume)  # a placement may take minutes
    with progress_bar("placement", unit="step") as bar:
        probe = Probe(reference, [*by_name.values()], seed, device, bar)
        plan = with_placement(plan, placement, folder, probe)
    begin(folder, plan, resume=resume)
    report = place.train(out, reference, plan, by_name)
    say_built(report, out, {**broken, **plan.skipped}, as_json)
    catalogue_of_build(folder, catalogue)
