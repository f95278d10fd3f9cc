"""The `lorasmith` command: dispatch, exit codes, and errors of one sentence.

Exit 0: done. 2: the command line alone is wrong. 1: found out later. No traceback without --debug.
"""

import sys
from collections.abc import Sequence

import typer

from api.commands.evaluate import evaluate
from api.commands.generate import generate
from api.commands.serve import serve
from api.commands.tasks import tasks
from library.errors import LorasmithError, OutputError

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
app.command()(serve)
app.add_typer(tasks, name="tasks")


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
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        return _run(given)
    except LorasmithError as error:
        if debug:
            raise
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        return 1
    except OSError as error:
        if debug:
            raise
        return _fail(f"{error.filename or 'a file'}: {error.strerror or error}", OutputError.exit_code)
    except Exception as error:
        if debug:
            raise
        text = str(error).strip().splitlines() or [""]
        return _fail(f"unexpected {type(error).__name__}: {text[0]} (--debug shows where)", 1)


def _run(arguments: list[str]) -> int:
    """Typer's own messages are several lines long; here they are one."""
    command = typer.main.get_command(app)
    try:
        result = command.main(args=arguments, prog_name="lorasmith", standalone_mode=False)
    except Exception as error:  # typer carries its own copy of click's exceptions
        if type(error).__name__ == "Abort":
            return _fail("interrupted", 130)
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        return _fail(message().rstrip(".").replace("\n", " "), 2)
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    print(f"lorasmith: {message}", file=sys.stderr)
    return code


def entry() -> None:
    """The console script."""
    sys.exit(main())
