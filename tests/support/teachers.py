"""Teachers for distillation."""

from pathlib import Path

import pytest
import tiny

from library.adapter import Adapter
from library.base.models import load_config, resolve_base
from library.files import write_folder
from library.layout import layout_of
from library.peft.provenance import Provenance, finish
from library.peft.write import to_peft


def write_teacher(folder: Path, base: str, adapter: Adapter) -> Path:
    info = {"id": base, "sha256": None, "source": "random"}
    provenance = Provenance(
        "multi-task:lora", None, None, 0, "cpu", adapter.layout.digest, info,
        details={"tasks": ["read before"]},
    )  # fmt: skip
    weights = to_peft(adapter, base_name=base, profile="lossless")
    write_folder(folder, finish(weights, provenance).files)
    return folder


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory, word_base: Path) -> Path:
    """A random adapter of other modules and another rank than the students'."""
    config = load_config(resolve_base(str(word_base)))
    adapter = tiny.adapter(layout_of(config, ["q_proj", "v_proj", "down_proj"], rank=3))
    return write_teacher(
        tmp_path_factory.mktemp("teachers") / "teacher", str(word_base), adapter.scaled(0.7)
    )
