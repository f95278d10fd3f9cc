"""A library's own base and layout, with a plan and without."""

from pathlib import Path

import pytest
import tiny

from library.errors import UsageError
from library.exchange.importing import ImportRequest, import_adapter
from library.files import write_folder
from library.layout import Layout, Site, layout_of
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from library.store.folder import MANIFEST, LibraryFolder
from library.store.open import open_library
from library.store.own import own_adapters

NAMES = [f"{tower}.layers.{i}.q_proj" for i in range(2) for tower in ("text", "vision")]
TOWERS = Layout("", 2, tuple(Site(name, 8, 8, 2) for name in NAMES))


def add(library: LibraryFolder, layout: Layout, base: str, seed: int, folder: Path) -> None:
    files = to_peft(tiny.adapter(layout, seed=seed), base_name=base, profile="lossless")
    source = folder / f"source{seed}"
    write_folder(source, {CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.weights})
    import_adapter(library, ImportRequest(str(source), base, f"task{seed}"))


def test_without_a_plan_they_are_those_of_most_adapters(tmp_path: Path) -> None:
    library = LibraryFolder(tmp_path / "library")
    add(library, TOWERS.with_rank(3), "example/clip", 0, tmp_path)
    for seed in (1, 2):
        add(library, TOWERS, "example/clip", seed, tmp_path)
    add(library, TOWERS, "example/other", 3, tmp_path)
    own = own_adapters(library)
    assert own.base == {"id": "example/clip", "sha256": None, "source": "library"}
    assert own.layout == TOWERS
    assert [record["task"] for record in own.records] == ["task1", "task2"]


def test_imports_for_a_base_that_is_here_lie_in_its_order(tiny_base: Path, tmp_path: Path) -> None:
    library, layout = LibraryFolder(tmp_path / "library"), layout_of(tiny.config("llama"), rank=2)
    add(library, layout, str(tiny_base), 0, tmp_path)
    assert own_adapters(library).layout == layout


def test_with_a_plan_they_are_the_plans(small_library: Path) -> None:
    library = open_library(str(small_library / "lib"))
    own, plan = own_adapters(library), library.plan()
    assert (own.base, own.layout) == (plan.base, plan.layout)
    assert {record["task"] for record in own.records} == {*tiny.LIBRARY_TASKS}


def test_an_empty_library_has_none(tmp_path: Path) -> None:
    library = LibraryFolder(tmp_path)
    library.write_json(MANIFEST, {"format": 1})
    with pytest.raises(UsageError, match="holds no adapter"):
        own_adapters(library)
