"""Adapters of models that are no decoders, through the whole system.

Five of the table, of different kinds; `python -m benchmarks.quality.architectures` runs all.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality.architectures import CASES, DESCRIPTIONS, Run, measured
from generator.engine import Engine, read_generator
from generator.models.text_to_lora import TextToLoRA
from generator.request import Request
from generator.resources import Resources
from library.base.models import named_base
from library.errors import LayoutMismatch
from library.peft.read import adapter_of

pytestmark = pytest.mark.filterwarnings("ignore")


def test_there_are_24_of_two_libraries() -> None:
    families = [case.family for case in CASES.values()]
    assert (families.count("transformers"), families.count("diffusers")) == (17, 7)


@pytest.mark.parametrize("name", ["vit", "clip", "whisper", "t5", "wan"])
def test_every_step_of_an_architecture(name: str, encoder: Any) -> None:
    row = measured(CASES[name], encoder)
    assert set(row["steps"].values()) == {"ok"}, row


def test_a_checkpoint_for_a_base_whose_config_is_not_read_goes_by_its_name(
    encoder: Any, tmp_path: Path
) -> None:
    run = Run(CASES["clip"], tmp_path, encoder, training_steps=1)
    run.imported()
    run.reconstructed()
    stored = read_generator(tmp_path / "checkpoint")
    assert stored.info.base["id"] == run.base
    engine = Engine([stored], Resources(encoders=[encoder]))
    request = Request(DESCRIPTIONS[0])
    made = engine.generate(TextToLoRA.kind, request, named_base(run.base))
    config = made.files.files["adapter_config.json"]
    assert b'"task_type": null' in config
    names = {site.name for site in adapter_of(made.files.files).layout.sites}
    assert all(f'"{name}"'.encode() in config for name in names)
    with pytest.raises(LayoutMismatch, match="checkpoint is for example/clip, not example/vit"):
        engine.generate(TextToLoRA.kind, request, named_base("example/vit"))


def test_the_report_is_of_these_architectures() -> None:
    file = Path(__file__).parents[2] / "docs" / "results" / "architectures.json"
    rows = json.loads(file.read_text("utf-8"))["rows"]
    assert [row["name"] for row in rows] == [*CASES]
    assert {name for row in rows for name in row["steps"]} == {
        *Run(CASES["vit"], Path(), encoder=None).steps()  # type: ignore[arg-type]
    }
