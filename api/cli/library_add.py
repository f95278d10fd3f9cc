"""`lorasmith library add`: adapters for further tasks, trained as the library's others were."""

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
from api.cli.index import follow_own_indexes
from api.cli.library_list import CatalogueUrl, Location, catalogue_of_build


def add_command(
    tasks: TaskFolders,
    location: Location,
    base: Annotated[
        str | None,
        typer.Option(help="The library's base model, where that is not where it was."),
    ] = None,
    shard_size: ShardSize = 64,
    exclude_license: ExcludedLicenses = "",
    workers: WorkerCount = 1,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    device: Device = "cpu",
    compile_layers: CompileLayers = False,
    skip_broken: SkipBroken = False,
    catalogue: CatalogueUrl = None,
    as_json: Json = False,
) -> None:
    """Train adapters for the tasks that a library does not have, as it was built: its base, recipe,
    steps and seed. After a stop the same command goes on. For adapters that are trained already
    there is `library import`.

    Example: lorasmith library add --tasks more-tasks --library my-library
    """
    by_name, broken = read_task_folders(tasks, skip_broken, exclude_license)
    place = TrainingPlace(device, compile_layers, workers, executor, ray_address)
    from library.base.models import described, load_tokenizer, resolve_base
    from library.build.add import begin_addition
    from library.build.build import BuildReport, require_base_of_plan
    from library.store.open import open_library

    folder = open_library(location, write=True)
    plan = folder.plan()
    reference = resolve_base(base or plan.base["id"])
    require_base_of_plan(plan, described(reference))
    addition = begin_addition(folder, by_name, load_tokenizer(reference), shard_size=shard_size)
    report = BuildReport(existing=addition.existing)
    if not addition.is_done:
        trained = place.train(location, reference, addition.plan, by_name)
        report.add(trained)
        report.seconds = trained.seconds
    say_built(report, location, {**broken, **addition.skipped}, as_json)
    catalogue_of_build(folder, catalogue)
    follow_own_indexes(location)
