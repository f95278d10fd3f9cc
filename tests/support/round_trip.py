"""Importing and exporting through the command line, for the tests of both."""

from pathlib import Path
from typing import Any

import peft
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from api.cli.main import main
from library.store import catalogue
from library.store.folder import LibraryFolder

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Q_AND_V = ["q_proj", "v_proj"]


def randomised(model: Any, seed: int = 0) -> Any:
    """The same model with adapters that change something."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def with_adapter(settings: Any, family: str = "llama") -> Any:
    return randomised(peft.get_peft_model(tiny.model(tiny.config(family)), settings))


def run(*arguments: str | Path) -> int:
    return main(["library", *map(str, arguments)])


def stored(library: Path) -> list[dict[str, Any]]:
    return catalogue.records(LibraryFolder(library))


def imported(source: Path, library: Path, *more: str | Path) -> Path:
    """Import and return the folder that it is stored in."""
    before = {r["id"] for r in stored(library)}
    assert run("import", source, "--library", library, *more) == 0
    (made,) = {r["id"] for r in stored(library)} - before
    assert run("check", "--library", library) == 0
    return library / "adapters" / made


def exported(folder: Path, out: Path, *more: str) -> Path:
    library = folder.parent.parent
    assert run("export", folder.name, "--library", library, "--out", out, *more) == 0
    return out


def same_file(ours: Path, theirs: Path) -> bool:
    """Every tensor's name, dtype, shape and bytes, and the header's metadata."""
    mine, yours = load_file(ours), load_file(theirs)
    with safe_open(ours, "pt") as a, safe_open(theirs, "pt") as b:
        if a.metadata() != b.metadata() or set(mine) != set(yours):
            return False
    return all(
        (mine[key].dtype, mine[key].shape) == (yours[key].dtype, yours[key].shape)
        and torch.equal(mine[key], yours[key])
        for key in mine
    )
