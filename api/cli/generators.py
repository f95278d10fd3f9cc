"""`lorasmith generators`: the names that `generate --generator` takes."""

import json
from typing import Annotated

import typer


def generators_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the generators: what they read, and whether a checkpoint is shipped.

    Example: lorasmith generators
    """
    import pretrained
    from generator.engine import DEFAULT_STRATEGY, strategy_names, uses_examples
    from generator.models.base import registered

    rows = [
        {
            "name": name,
            "default": name == DEFAULT_STRATEGY,
            "needs": sorted(registered()[name].needs) if name in registered() else [],
            "uses_examples": uses_examples(name),
            "shipped": name not in registered() or pretrained.folder(name).is_dir(),
        }
        for name in strategy_names()
    ]
    if as_json:
        typer.echo(json.dumps({"generators": rows}))
        return
    for row in rows:
        notes = ["default"] * row["default"] + ["takes examples"] * row["uses_examples"]
        notes += ["needs --checkpoint"] * (not row["shipped"])
        typer.echo(f"{row['name']:<16}{', '.join(notes)}")
