"""`lorasmith generators`: the names that `generate --generator` takes."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from generator.engine import Engine
    from generator.strategies.evidence import Evidence

NEEDED = {
    "description": "a description",
    "examples": "examples",
    "library": "a library",
    "base": "the base model",
}


def generators_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the generators: what each needs, was trained on and scored, and whether it ships.

    Scores are mean ROUGE-L of 100 on tasks that it was not trained on, without (bare) and with
    (prompted) the instruction in the prompt; times are of one adapter on one CPU thread.

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
            **_evidence(engine, name).to_dict(),
        }
        for name in strategy_names()
    ]
    if as_json:
        typer.echo(json.dumps({"generators": rows}))
        return
    for row in rows:
        typer.echo(f"{row['name']:<16}{_told(row)}")


def _evidence(engine: "Engine", name: str) -> "Evidence":
    """Of a generator; nothing is known of one without a checkpoint."""
    from generator.strategies.evidence import Evidence
    from library.base.models import resolve_base

    strategy = engine.strategies.get(name)
    return Evidence() if strategy is None else strategy.evidence(resolve_base())


def _told(row: dict[str, Any]) -> str:
    """A generator in a line, for a person."""
    needs = ", ".join(NEEDED[word] for word in row["needs"]) or "a description or examples"
    notes = ["default"] * row["default"] + [f"needs {needs}"]
    if row["uses_examples"]:
        notes.append("takes examples with --refine 0")
    if row["draws"]:
        notes.append("draws by --seed")
    if row["trained_on"] is not None:
        notes.append(f"trained on {row['trained_on']} tasks")
    if row["held_out"] is not None:
        modes = [mode for mode in ("bare", "prompted") if row["held_out"][mode] is not None]
        scores = ", ".join(f"{100 * row['held_out'][mode]:.1f} {mode}" for mode in modes)
        notes.append(f"ROUGE-L {scores} on {row['held_out']['tasks']} others")
    if row["seconds"] is not None:
        notes.append(f"{row['seconds']:.2f} s an adapter")
    if not row["shipped"]:
        notes.append("no checkpoint ships: needs --checkpoint")
    return "; ".join(notes)
