"""One name for one thing: public names stand in one module, and no import needs another name."""

import ast
from collections import defaultdict
from collections.abc import Iterator

import tiny

PACKAGES = ("library", "index", "generator", "verification", "training", "api", "lorasmith")


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for file in sorted((tiny.ROOT / package).rglob("*.py")):
            name = str(file.relative_to(tiny.ROOT))
            yield name, ast.parse(file.read_text(encoding="utf-8"))


def test_no_public_class_or_function_stands_in_two_modules() -> None:
    defined = defaultdict(list)
    for file, tree in modules():
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                defined[node.name].append(file)
    twice = {n: f for n, f in defined.items() if len(f) > 1 and not n.startswith("_")}
    assert not twice


def test_no_import_of_ours_is_renamed() -> None:
    renamed = [
        f"{file}: {node.module}.{alias.name} as {alias.asname}"
        for file, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES
        for alias in node.names
        if alias.asname
    ]
    assert not renamed
