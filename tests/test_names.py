"""One name for one thing: public names stand in one module, and no import needs another name."""

import ast
from collections import defaultdict
from collections.abc import Iterator

import pytest
import tiny

PACKAGES = ("library", "index", "generator", "verification", "training", "api", "lorasmith")
# A distribution of its own has its own answers to what a name means.
DISTRIBUTIONS = {
    "lorasmith": PACKAGES,
    "client": ("client/lorasmith_client",),
    "vllm": ("plugins/vllm/lorasmith_vllm",),
}


def modules(packages: tuple[str, ...]) -> Iterator[tuple[str, ast.Module]]:
    for package in packages:
        for file in sorted((tiny.ROOT / package).rglob("*.py")):
            name = str(file.relative_to(tiny.ROOT))
            yield name, ast.parse(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("packages", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_no_public_class_or_function_stands_in_two_modules(packages: tuple[str, ...]) -> None:
    defined = defaultdict(list)
    for file, tree in modules(packages):
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                defined[node.name].append(file)
    twice = {n: f for n, f in defined.items() if len(f) > 1 and not n.startswith("_")}
    assert defined and not twice


def test_no_import_of_ours_is_renamed() -> None:
    ours = {*PACKAGES, "lorasmith_client", "lorasmith_vllm"}
    renamed = [
        f"{file}: {node.module}.{alias.name} as {alias.asname}"
        for file, tree in modules(sum(DISTRIBUTIONS.values(), ()))
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ours
        for alias in node.names
        if alias.asname
    ]
    assert not renamed
