"""Which package may import which, and that the core runs where optional packages do not exist."""

import ast
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import tiny

# design.md, "Layout of the repository"; pretrained is package data.
ALLOWED: dict[str, set[str]] = {
    "library": set(),
    "index": {"library", "pretrained"},
    "generator": {"library", "index", "verification", "pretrained"},
    "verification": {"library", "index", "pretrained"},
    "training": {"library", "index", "generator", "pretrained"},
    "lorasmith": {"library", "index", "generator", "verification", "training", "pretrained"},
    "api": {
        "library", "index", "generator", "verification", "training", "lorasmith", "pretrained",
    },
    "pretrained": set(),
}  # fmt: skip
# Inside a package, lowest layer first. A layer is sub-folders, and modules right under the package;
# they import lower layers only. A module right under the package that no layer names is lowest.
LAYERS: dict[str, list[str]] = {
    "library": [
        "tasks peft", "base", "trainer/recipes", "trainer", "placement store", "build exchange",
    ],
    "index": ["encoders", "segments merge gate", "search routing"],
    "verification": ["checks", "run", "scores zk"],
    "training": ["synthetic", "data", "objectives", "models", "evaluation", "cli"],
    "generator": [
        "layers", "models", "refine phases", "request", "strategies", "expected",
        "package refined_adapter", "engine", "samples",
    ],
    "lorasmith": [],
    "api": ["service page", "http", "zk", "cli", "__init__", "__main__"],
}  # fmt: skip
# Distributions of their own, and what each imports beside itself and the standard library.
APART: dict[str, set[str]] = {
    "client/lorasmith_client": {"httpx"},
    "plugins/vllm/lorasmith_vllm": {"lorasmith_client", "vllm"},
}
OURS = {
    *ALLOWED,
    "lorasmith_client",
    "lorasmith_vllm",
    "tests",
    "benchmarks",
    "conftest",
    "tiny",
    "postgres",
}
OPTIONAL = (
    "faiss", "fastapi", "sqlalchemy", "psycopg", "ray", "beartype", "typer",
    "pydantic_settings", "uvicorn", "rfc8785", "hypothesis", "jsonargparse",
)  # fmt: skip


def imported(file: Path) -> set[str]:
    """The modules and names that a file imports anywhere, in functions and for types too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are written in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def imports() -> dict[Path, set[Path]]:
    """The files of ours that each file of ours imports, relative to the root, without suffix."""
    files = [file for package in LAYERS for file in (tiny.ROOT / package).rglob("*.py")]
    modules = {file.relative_to(tiny.ROOT).with_suffix("") for file in files}
    paths = {
        module: {Path(*n.split(".")) for n in imported(tiny.ROOT / module.with_suffix(".py"))}
        for module in modules
    }
    return {
        module: {
            target
            for path in paths[module]
            for target in (path, path / "__init__", path.parent, path.parent / "__init__")
            if target in modules
        }
        for module in modules
    }


def layer_of(module: Path) -> tuple[int, str]:
    """A module's layer in its package, from 0 (the words), and its part of that layer."""
    package, *inner = module.parts
    for depth in range(len(inner), 0, -1):
        part = "/".join(inner[:depth])
        for number, layer in enumerate(LAYERS[package], start=1):
            if part in layer.split():
                return number, part
    assert len(inner) == 1, f"{module}: LAYERS does not name its folder"
    return 0, inner[0]


def test_arrows_point_one_way_only() -> None:
    seen: set[str] = set()
    for package, allowed in ALLOWED.items():
        for file in sorted((tiny.ROOT / package).rglob("*.py")):
            roots = {name.split(".")[0] for name in imported(file)}
            wrong = roots & OURS - allowed - {package}
            assert not wrong, f"{file.relative_to(tiny.ROOT)} imports {wrong}"
            seen.add(package)
    assert {"library", "index", "generator", "training", "api"} <= seen


@pytest.mark.parametrize("folder", APART)
def test_distributions_of_their_own_import_nothing_else(folder: str) -> None:
    files = sorted((tiny.ROOT / folder).rglob("*.py"))
    roots = {name.split(".")[0] for file in files for name in imported(file)}
    assert roots - sys.stdlib_module_names == APART[folder] | {Path(folder).name}


def test_arrows_between_sub_folders_point_one_way_only() -> None:
    wrong, seen = [], set()
    for importer, targets in imports().items():
        layer, part = layer_of(importer)
        for target in targets:
            if importer.parts[0] != target.parts[0]:
                continue
            seen.add(target.parts[0])
            target_layer, target_part = layer_of(target)
            if target_layer > layer or (target_layer == layer > 0 and target_part != part):
                wrong.append(f"{importer} imports {target}")
    assert not wrong
    assert {"library", "index", "verification", "training", "generator", "api"} <= seen


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter(imports()).prepare()  # raises CycleError, with the circle


def test_optional_packages_are_imported_inside_functions() -> None:
    for package in ("library", "index", "generator", "training"):
        for file in sorted((tiny.ROOT / package).rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in tree.body:
                names = {a.name for a in node.names} if isinstance(node, ast.Import) else set()
                if isinstance(node, ast.ImportFrom):
                    names.add(node.module or "")
                roots = {name.split(".")[0] for name in names}
                assert not roots & set(OPTIONAL), f"{file.relative_to(tiny.ROOT)}: {roots}"


BLOCKED = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCK:
            BLOCK_SEEN.add(name)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
BLOCK, BLOCK_SEEN = set(sys.argv[1].split(",")), set()
import importlib.util
found = importlib.util.find_spec
def find_spec(name, package=None):  # as where the package is not installed: no error, no module
    return None if name.split(".")[0] in BLOCK else found(name, package)
importlib.util.find_spec = find_spec
sys.meta_path.insert(0, Absent())
try:
    import fastapi
except ModuleNotFoundError:
    print("blocked")
import generator.engine, training.data.tasks, training.evaluation.evaluate
import training.objectives.reconstruction, training.objectives.sft
import training.evaluation.report, training.models.weight_encoder
from index.encoders.descriptions import DescriptionEncoder
DescriptionEncoder()
from library.base.models import resolve_base, load_config
from library.layout import layout_of
print(layout_of(load_config(resolve_base())).digest)
from library.tasks.metrics import rouge_l
print(rouge_l("a b", ["a b"]))
assert not {name.split(".")[0] for name in sys.modules} & BLOCK
"""


@pytest.mark.slow
def test_the_core_runs_without_optional_packages() -> None:
    process = tiny.start_python(BLOCKED, ",".join(OPTIONAL))
    lines = tiny.output_of(process).splitlines()
    assert lines[0] == "blocked"
    assert len(lines[1]) == 64
    assert lines[-1] == "1.0"


def test_help_and_wrong_flags_do_not_wait_for_torch() -> None:
    code = "import sys, api.cli.main; print('torch' in sys.modules)"
    assert tiny.output_of(tiny.start_python(code)).strip() == "False"
