"""`lorasmith route`: export adapters for routers of other programs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from api.cli.library_list import SHIPPED_LIBRARY, CatalogueUrl, Location, catalogue_at
from library.errors import UsageError
from library.files import require_absent, require_kind, write_folder

route = typer.Typer(
    no_args_is_help=False,
    rich_markup_mode=None,
    help="Export adapters for a router to choose from.",
)


@route.command("export")
def export_route(
    out: Annotated[Path, typer.Option(help="Output folder.")],
    identities: Annotated[
        list[str] | None,
        typer.Argument(help="For Arrow, adapters of the library, two or more: ids or task names."),
    ] = None,
    router: Annotated[
        Literal["arrow", "x-lora"], typer.Option("--as", help="PEFT's router that is to load it.")
    ] = "arrow",
    gate: Annotated[
        Path | None, typer.Option(help="For X-LoRA, checkpoint of a gate of the system x-lora.")
    ] = None,
    library: Location = SHIPPED_LIBRARY,
    catalogue: CatalogueUrl = None,
    top_k: Annotated[
        int | None,
        typer.Option(help="For Arrow, experts per token.", show_default="3, or 2 of two"),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="For Arrow, temperature of the softmax over experts.", show_default="1"),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="For Arrow, seed of PEFT's power iteration.", show_default="0"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
) -> None:
    """Export adapters of a library for PEFT's routers: Arrow, which needs no training, or X-LoRA
    with a trained gate, whose adapters they are.

    Example: lorasmith route export task1332_check_leap_year task092_check_prime_classification
    --top-k 2 --out my-experts
    """
    require_absent(out, overwrite)
    require_kind(out, folder=True)
    if (router == "x-lora") != (gate is not None) or (gate is not None and identities):
        raise UsageError("--as x-lora takes its adapters from --gate, and Arrow by their names")
    if gate is not None and (top_k, temperature, seed) != (None, None, None):
        raise UsageError("--top-k, --temperature and --seed are settings of Arrow, not of X-LoRA")
    from index.gate.learnt import Gate
    from index.routing import arrow_set, x_lora_set
    from library.checkpoint import load_checkpoint
    from library.store.catalogue import find

    opened = catalogue_at(library, catalogue)
    trained = None if gate is None else load_checkpoint(gate, Gate).module
    names = (identities or []) if trained is None else trained.config.adapters
    records = [find(opened, name) for name in names]
    if trained is not None:
        files = x_lora_set(opened.folder, records, trained)
    else:
        layout = opened.folder.plan().layout
        heat = 1.0 if temperature is None else temperature
        files = arrow_set(
            opened.folder, records, layout, top_k=top_k, temperature=heat, seed=seed or 0
        )
    write_folder(out, files, overwrite=overwrite)
    typer.echo(f"{len(records)} experts  {out}")
