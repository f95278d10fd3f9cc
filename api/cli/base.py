"""`lorasmith base`: base models of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from library.files import require_absent, require_present, whole_folder
from library.quiet import quiet_libraries

base = typer.Typer(help="Prepare a base model of your own.", rich_markup_mode=None)


@base.callback()
def group() -> None:
    """Prepare a base model of your own."""


@base.command("convert")
def convert_command(
    file: Annotated[Path, typer.Argument(help="GGUF file of a causal LM.")],
    out: Annotated[Path, typer.Option(help="Folder to create.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
) -> None:
    """Dequantise a GGUF to a Hugging Face folder in bfloat16, for --base.

    Example: lorasmith base convert model-q4_k_m.gguf --out my-base
    """
    require_present(file)
    require_absent(out, overwrite)
    quiet_libraries()
    import torch

    from library.base.gguf_file import convert_gguf

    with whole_folder(out, overwrite=overwrite) as folder:
        convert_gguf(file, folder, torch.bfloat16)
    size = sum(path.stat().st_size for path in out.iterdir())
    typer.echo(f"{size / 1e6:,.0f} MB  {out}")
