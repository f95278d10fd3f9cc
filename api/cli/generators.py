"""`lorasmith generators`: the names that `generate --generator` takes."""

import json
from typing import Annotated, Any

import typer

NEEDED = {
    "description": "a description",
    "examples": "examples",
    "library": "a library",
    "base": "the base model",
}


def generators_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the generators: what each needs, and whether a checkpoint is shipped.

    Example: lorasmith generators
    """
    import pretrained
    from generator.engine import DEFAULT_STRATEGY, draws, open_engine, strategy_names
    from generator.models.base import registered

    engine = open_engine()
    rows = [
        {
            "name": name,
            "default": name == DEFAULT_STRATEGY,
            "needs": engine.needs(name),
            "uses_examples": engine.uses_examples(name),
            "draws": draws(name),
            "shipped": name not in registered() or pretrained.folder(name).is_dir(),
        }
        for name in strategy_names()
    ]
    if as_json:
        typer.echo(json.dumps({"generators": rows}))
        return
    for row in rows:
        typer.echo(f"{row['name']:<16}{_told(row)}")


def _told(row: dict[str, Any]) -> str:
    """A generator in a line, for a person."""
    needs = ", ".join(NEEDED[word] for word in row["needs"]) or "a description or examples"
    notes = ["default"] * row["default"] + [f"needs {needs}"]
    if row["uses_examples"]:
        notes.append("takes examples with --refine 0")
    if row["draws"]:
        notes.append("draws by --seed")
    if not row["shipped"]:
        notes.append("no checkpoint ships: needs --checkpoint")
    return "; ".join(notes)
