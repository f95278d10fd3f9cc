"""Adapters of convolutions: PEFT's files have the kernel's sides, the layout remembers them."""

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import nn

from library.layout import Layout
from library.peft.read import read_peft
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft

KINDS: dict[str, tuple[nn.Module, tuple[int, ...], tuple[int, ...]]] = {
    "1-D": (nn.Conv1d(3, 5, 4), (4,), (1, 3, 9)),
    "2-D, flat": (nn.Conv2d(3, 5, (1, 3)), (1, 3), (1, 3, 9, 9)),
    "2-D, one by one": (nn.Conv2d(3, 5, 1), (1, 1), (1, 3, 9, 9)),
    "3-D": (nn.Conv3d(3, 5, (3, 1, 1)), (3, 1, 1), (1, 3, 5, 4, 4)),
    "linear": (nn.Linear(3, 5), (), (1, 3)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_read_is_written_as_peft_reads_it(kind: str, tmp_path: Path) -> None:
    module, window, shape = KINDS[kind]
    base = nn.Sequential(module, nn.Identity())
    model: Any = peft.get_peft_model(
        copy.deepcopy(base), peft.LoraConfig(r=2, lora_alpha=5, target_modules=["0"])
    )
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * parameter.requires_grad
    model.save_pretrained(tmp_path / "theirs")
    adapter = read_peft(tmp_path / "theirs")
    (site,) = adapter.layout.sites
    assert (site.window, site.in_features, site.out_features) == (window, 3, 5)

    # Layouts that differ in windows alone hold the same factors: one digest.
    layout = Layout.from_dict(adapter.layout.to_dict())
    assert layout == adapter.layout
    rows = [row[:6] for row in layout.to_dict()["sites"]]
    assert Layout.from_dict({**layout.to_dict(), "sites": rows}).digest == layout.digest

    files = to_peft(adapter, base_name="", profile="lossless")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / CONFIG_FILE).write_bytes(files.config_bytes)
    (tmp_path / "ours" / WEIGHTS_FILE).write_bytes(files.weights)
    back: Any = peft.PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path / "ours"))
    inputs = torch.randn(shape)
    expected = model.eval()(inputs)
    assert not torch.allclose(expected, base(inputs), atol=1e-2)
    torch.testing.assert_close(back.eval()(inputs), expected, atol=1e-4, rtol=1e-4)
