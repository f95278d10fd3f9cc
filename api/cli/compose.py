"""`lorasmith compose`: merge adapters into one, exactly in ΔW."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

import lorasmith
from api.cli.library_list import SHIPPED_LIBRARY, CatalogueUrl, Location, note
from library.files import require_absent, require_kind
from library.quiet import quiet_libraries

MAX_RANK = 256


class ComposeCommand(TyperCommand):
    """Takes `--weights 0.7 0.3`: each number that follows belongs to the option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread_weights(args))


def spread_weights(arguments: list[str]) -> list[str]:
    """`--weights 1 2` as `--weights 1 --weights 2`."""
    out: list[str] = []
    taking = False
    for argument in arguments:
        number = _is_number(argument)
        if taking and number and out[-1] != "--weights":
            out.append("--weights")
        taking = argument == "--weights" or (taking and number)
        out.append(argument)
    return out


def compose_command(
    adapters: Annotated[list[str], typer.Argument(help="Folders, or ids or tasks of a library.")],
    out: Annotated[Path, typer.Option(help="Folder for the adapter.")],
    method: Annotated[
        str, typer.Option(help="Merge method (default: cat, the exact sum).")
    ] = "cat",
    weights: Annotated[
        list[float] | None, typer.Option(help="One weight per adapter (default: equal, sum 1).")
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, max=MAX_RANK, help="Rank of the result.")
    ] = None,
    density: Annotated[
        float | None, typer.Option(help="Share of entries that ties and dare keep.")
    ] = None,
    examples: Annotated[Path | None, typer.Option(help="Examples for lorahub, JSONL.")] = None,
    location: Location = SHIPPED_LIBRARY,
    base: Annotated[
        str | None, typer.Option(help="Base model (default: the one that the adapters name).")
    ] = None,
    predictor: Annotated[
        Path | None, typer.Option(help="Checkpoint for lora-rar (default: the shipped one).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**53 - 1, help="Seed of dare and lorahub.")] = 0,
    profile: Annotated[
        Literal["portable", "lossless"], typer.Option(help="bfloat16 or float32.")
    ] = "portable",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
    device: Annotated[str, typer.Option(help="Device of the base model: cpu or cuda.")] = "cpu",
    policy: Annotated[
        Path | None, typer.Option(help="Verification policy that every adapter must pass.")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="PEM of the key that must have signed every adapter.")
    ] = None,
    catalogue: CatalogueUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Merge adapters into one: cat, soup, ties, dare, lego, klora, orthogonal, lora-rar or lorahub.

    Example: lorasmith compose my-adapter task092_check_prime_classification --weights 0.7 0.3
    --method ties --out merged
    """
    require_absent(out, overwrite)
    require_kind(out, folder=True)
    quiet_libraries()
    adapter = lorasmith.compose(
        adapters,
        method,
        weights=weights,
        rank=rank,
        density=density,
        seed=seed,
        examples=examples,
        predictor=predictor,
        library=location,
        catalogue=catalogue,
        base=base,
        profile=profile,
        device=device,
        policy=policy,
        public_key=public_key,
        note=note,
    )
    adapter.save(out, overwrite=overwrite)
    summary = {**adapter.summary, "milliseconds": adapter.milliseconds, "out": str(out)}
    typer.echo(json.dumps(summary, ensure_ascii=False) if as_json else _readable(summary))


def _readable(summary: dict[str, Any]) -> str:
    lines = [
        f"{summary['id']}  {summary['out']}",
        f"  {summary['method']} for {summary['base_model']}, rank {summary['rank']}, "
        f"sha256 {summary['sha256'][:16]}…",
        f"  verified: {summary['report']['verdict']}",
    ]
    weights = summary["weights"] or [None] * len(summary["parents"])
    for weight, parent in zip(weights, summary["parents"], strict=True):
        lines.append(f"  {'by module' if weight is None else f'{weight:9.4f}'}  {parent}")
    return "\n".join(lines)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
