"""The `lorasmith` command: which subcommands there are."""

import sys
from collections.abc import Sequence

import typer

from api.cli.compose import ComposeCommand, compose
from api.cli.console import guarded
from api.cli.evaluate import evaluate
from api.cli.generate import generate
from api.cli.index import index
from api.cli.library import library
from api.cli.library_import import export, import_adapter
from api.cli.prove import commit, prove, verify_proof
from api.cli.route import route
from api.cli.search import search
from api.cli.serve import serve
from api.cli.sign import sign
from api.cli.tasks import tasks
from api.cli.verify import verify
from api.cli.zk import zk

app = typer.Typer(
    name="lorasmith",
    help="Describe a task; get a LoRA adapter that works, with evidence that it does.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Example: lorasmith generate 'Say whether the review is positive.' --out my-adapter",
)
app.command()(generate)
app.command()(evaluate)
app.command(cls=ComposeCommand)(compose)
app.command()(search)
app.command()(verify)
app.command()(sign)
app.command()(serve)
app.command()(commit)
app.command()(prove)
app.command("verify-proof")(verify_proof)
app.add_typer(zk, name="zk")
app.add_typer(tasks, name="tasks")
library.command("import")(import_adapter)
library.command()(export)
app.add_typer(library, name="library")
app.add_typer(route, name="route")
app.add_typer(index, name="index")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def train(context: typer.Context) -> None:
    """Train a generator: fit, validate or test, with Lightning's own options.

    Example: lorasmith train fit --config configs/text_to_lora.yaml
    """
    from training.cli import main as run

    run(context.args)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = typer.main.get_command(app)

    def run() -> int | None:
        wanted = [argument for argument in given if argument != "--debug"]
        return command.main(args=wanted, prog_name="lorasmith", standalone_mode=False)

    return guarded(run, debug="--debug" in given)
