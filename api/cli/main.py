"""The `lorasmith` command and its subcommands."""

import sys
from collections.abc import Sequence

import typer

from api.cli.backup import backup_command, restore_command
from api.cli.base import base
from api.cli.compose import ComposeCommand, compose_command
from api.cli.console import guarded
from api.cli.evaluate import evaluate_command
from api.cli.export import export_adapter
from api.cli.generate import generate_command
from api.cli.generators import generators_command
from api.cli.index import index
from api.cli.keys import keys
from api.cli.library import library
from api.cli.library_import import export_command, import_command
from api.cli.names import names
from api.cli.prove import commit_command, prove_command, verify_proof
from api.cli.publish import promote_command, publish_command, rollback_command
from api.cli.refine import refine_command
from api.cli.route import route
from api.cli.search import search_command
from api.cli.serve import serve_command
from api.cli.sign import sign_command
from api.cli.tasks import tasks
from api.cli.verify import verify_command
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
app.command("generate")(generate_command)
app.command("generators")(generators_command)
app.command("evaluate")(evaluate_command)
app.command("compose", cls=ComposeCommand)(compose_command)
app.command("refine")(refine_command)
app.command("search")(search_command)
app.command("verify")(verify_command)
app.command("sign")(sign_command)
app.command("export")(export_adapter)
app.command("publish")(publish_command)
app.command("promote")(promote_command)
app.command("rollback")(rollback_command)
app.command("serve")(serve_command)
app.command("backup")(backup_command)
app.command("restore")(restore_command)
app.command("commit")(commit_command)
app.command("prove")(prove_command)
app.command("verify-proof")(verify_proof)
app.add_typer(zk, name="zk")
app.add_typer(tasks, name="tasks")
library.command("import")(import_command)
library.command("export")(export_command)
app.add_typer(library, name="library")
app.add_typer(route, name="route")
app.add_typer(index, name="index")
app.add_typer(base, name="base")
app.add_typer(keys, name="keys")
app.add_typer(names, name="names")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def train(context: typer.Context) -> None:
    """Train a generator with LightningCLI: fit, validate or test.

    Example: lorasmith train fit --config configs/text_to_lora.yaml
    """
    from training.cli import run_lightning

    run_lightning(context.args)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = typer.main.get_command(app)

    def run_command() -> int | None:
        options = [word for word in words if word != "--debug"]
        return command.main(args=options, prog_name="lorasmith", standalone_mode=False)

    return guarded(run_command, debug="--debug" in words)
