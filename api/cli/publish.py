"""`lorasmith publish | promote | rollback`: versions of a name, and which of them is current."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import lorasmith
from api.cli.console import progress_bar
from library.errors import UsageError
from library.files import require_present
from library.quiet import quiet_libraries

if TYPE_CHECKING:
    from api.service.name_state import Move
    from api.service.names import NameStore
    from api.service.promotion import Answerer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def publish_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as support-router.")],
    path: Annotated[Path, typer.Argument(help="An adapter's folder.")],
    suite: Annotated[
        Path | None,
        typer.Option(help="JSONL of input and output, or outputs, to promote by; - is stdin."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an adapter the newest version of a name; the current version stays.

    The adapter is verified and kept in the local store. A suite replaces the one that the name has.

    Example: lorasmith publish support-router my-adapter --suite answers.jsonl
    """
    from api.service.names import NameStore, require_name
    from api.service.store import LOCAL, local_store
    from api.service.suites import Suite
    from library.tasks.files import read_examples

    require_name(name)
    require_present(path, suite)
    rows = None if suite is None else Suite.of(read_examples(suite))
    quiet_libraries()
    store = local_store()
    identity = store.put(LOCAL, *_adopted(path))[0]["id"]
    version, new = NameStore(store).publish(LOCAL, name, identity, rows)
    told = {"name": name, **version.to_dict(), "new": new}
    told["suite"] = None if rows is None else rows.to_dict()
    state = "" if new else "  (it was published before)"
    typer.echo(json.dumps(told) if as_json else f"{name}@v{version.number}  {identity}{state}")


def promote_command(
    reference: Annotated[
        str, typer.Argument(metavar="NAME[@vN]", help="Without a version: the newest.")
    ],
    at_least: Annotated[
        int | None,
        typer.Option(min=1, help="Rows that it has to pass, whatever the current version does."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Base model (default: the one that the adapter names).")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Json = False,
) -> int:
    """Make a version the current one, if it passes as many rows of the suite as that does.

    Exit 1, and nothing moves, if it does not.

    Example: lorasmith promote support-router@v2 --at-least 30
    """
    from api.service.name_state import REFERENCE

    parts = REFERENCE.fullmatch(reference)
    if parts is None or reference.endswith("@current"):
        raise UsageError(f"a version is called NAME or NAME@v2, not {reference!r}")
    quiet_libraries()
    from api.service.promotion import contest_scores
    from api.service.store import LOCAL
    from library.base.models import require_device, resolve_base

    require_device(device)
    if base is not None:
        resolve_base(base)
    names = local_names()
    contest = names.get(LOCAL, parts[1]).contest(None if parts[2] is None else int(parts[2]))
    with progress_bar("asking", "%") as bar:
        scores = contest_scores(
            contest,
            lambda identity: _answerer(identity, base, device),
            at_least,
            lambda share: bar(int(100 * share), 100),
        )
    move = names.record(LOCAL, contest, scores)
    _tell(contest.name, move, as_json)
    return int(move.action == "refused")


def rollback_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As lorasmith names list shows it.")],
    as_json: Json = False,
) -> None:
    """Go back to the version that was current before, without a gate.

    Example: lorasmith rollback support-router
    """
    from api.service.store import LOCAL

    _tell(name, local_names().rollback(LOCAL, name), as_json)


def move_line(name: str, move: "Move") -> str:
    """An entry of a name's history in a line, for a person."""
    line = f"{name}@v{move.after}  {move.action}"
    if move.scores is not None:
        line += f"  {move.scores.after} of {move.scores.of} rows"
        if move.scores.before is not None:
            line += f", v{move.before} {move.scores.before}"
        if move.scores.at_least is not None:
            line += f", at least {move.scores.at_least} asked for"
    elif move.before is not None:
        line += f"  from v{move.before}"
    return line


def _tell(name: str, move: "Move", as_json: bool) -> None:
    typer.echo(json.dumps({"name": name, **move.to_dict()}) if as_json else move_line(name, move))


def local_names() -> "NameStore":
    """The names of this machine's user."""
    from api.service.names import NameStore
    from api.service.store import local_store

    return NameStore(local_store())


def _adopted(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """An adapter that passes verification: its summary and files for the store.

    Raises AdapterRefused, AdapterFileError.
    """
    from api.service.adopted import adopted_summary
    from library.peft.folder import read_adapter_folder
    from library.peft.provenance import PROVENANCE_FILE, README_FILE

    report = lorasmith.verify(path)
    report.require_accepted(str(path))
    files = read_adapter_folder(path, optional=(PROVENANCE_FILE, README_FILE))
    return adopted_summary(files, report, str(path)), files


def _answerer(identity: str, base: str | None, device: str) -> "Answerer":
    """A stored adapter on its base. Raises NotFound, LayoutMismatch, BaseModelError, UsageError."""
    from api.service.promotion import Answerer
    from api.service.store import LOCAL, local_store
    from index.merge.parents import parents_for
    from library.base.models import resolve_base
    from lorasmith.loading import loaded_model

    store = local_store()
    record = store.get(LOCAL, identity)
    reference = resolve_base(base or record["base_model"])
    start = parents_for([(identity, store.files(LOCAL, record))], reference)
    return Answerer(loaded_model(reference, device), start.adapters[0], start.usages[0])
