"""`lorasmith compose`: adapters become one, exactly in ΔW."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from api.cli.library_list import SHIPPED, CatalogueUrl, Place, catalogue_at
from library.errors import UsageError
from library.files import require_absent, require_kind, require_present, write_folder

if TYPE_CHECKING:
    from api.parents import Gate

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
    method: Annotated[str, typer.Option(help="One of those above; cat is the exact sum.")] = "cat",
    weights: Annotated[
        list[float] | None, typer.Option(help="One for each adapter; default: equal, sum 1.")
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, max=MAX_RANK, help="Of the result.")] = None,
    density: Annotated[float | None, typer.Option(help="Of ties and dare: what is kept.")] = None,
    examples: Annotated[Path | None, typer.Option(help="JSONL, for lorahub.")] = None,
    place: Place = SHIPPED,
    base: Annotated[str | None, typer.Option(help="Default: what the adapters say.")] = None,
    predictor: Annotated[Path | None, typer.Option(help="Of lora-rar; default: shipped.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**53 - 1, help="Of dare and lorahub.")] = 0,
    profile: Annotated[
        Literal["portable", "lossless"], typer.Option(help="bfloat16 or float32.")
    ] = "portable",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda, for lorahub.")] = "cpu",
    policy: Annotated[
        Path | None, typer.Option(help="What verify has to say of each adapter.")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="PEM of the key that has to have signed each.")
    ] = None,
    catalogue: CatalogueUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Merge adapters: cat, soup, ties, dare, lego, klora, orthogonal, lora-rar or lorahub.

    Example: lorasmith compose my-adapter task092_check_prime_classification --weights 0.7 0.3
    --method ties --out merged
    """
    require_absent(out, overwrite)
    require_kind(out, folder=True)
    from api.merging import MergeRequest, compose_adapters, require_examples
    from library.tasks.files import read_examples

    request = MergeRequest(adapters, method, weights, rank, density, seed, profile)
    rows = read_examples(examples) if examples is not None else None
    require_examples(method, rows)
    if predictor is not None and method != "lora-rar":
        raise UsageError(f"{method} takes no --predictor")
    from api.cli.common import check_device
    from api.cli.console import quiet_libraries
    from library.base.models import resolve_base
    from verification.run import reported

    check_device(device)
    quiet_libraries()
    made = compose_adapters(
        request,
        catalogue_at(place, catalogue),
        base=base,
        examples=rows or (),
        device=device,
        predictor=predictor,
        gate=_gate(policy, public_key),
    )
    checked = reported(made.files, None if base is None else resolve_base(base))
    write_folder(out, checked.files.files, overwrite=overwrite)
    times = {"milliseconds": checked.milliseconds}
    summary = {**made.summary(), "report": checked.report, **times, "out": str(out)}
    typer.echo(json.dumps(summary, ensure_ascii=False) if as_json else _readable(summary))


def _gate(policy: Path | None, public_key: Path | None) -> "Gate | None":
    """What the adapters have to pass, if that was asked for.

    Raises MissingPath, InputFileError, UsageError.
    """
    if policy is None and public_key is None:
        return None
    from api.parents import Gate
    from verification.checks.signing import read_public_key
    from verification.run import Policy, read_policy, require_key

    require_present(policy, public_key)
    chosen = Policy() if policy is None else read_policy(policy)
    key = None if public_key is None else read_public_key(public_key)
    require_key(chosen, key)
    return Gate(chosen, key)


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
