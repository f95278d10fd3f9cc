"""Signatures: the multi-adapter forward against merged weights, one adapter at a time."""

from pathlib import Path

import pytest
import tiny
import torch

from benchmarks.quality.signatures import PROMPTS, signatures
from library.adapter import zeros
from library.base.models import load_base, resolve_base
from library.base.prompts import prompt_ids
from library.layout import layout_of


@pytest.mark.slow
def test_signatures_are_the_mean_shift_of_the_merged_model(tiny_base: Path) -> None:
    base = load_base(resolve_base(str(tiny_base)))
    layout = layout_of(base.model.config, rank=3)
    adapter = tiny.adapter(layout, 5)
    found = signatures(base, adapter, batch_size=2)
    assert len(set(PROMPTS)) == 5
    for row in range(5):
        model, shifts = tiny.merged(base.model, adapter, row), []
        for text in PROMPTS:
            ids = torch.tensor([prompt_ids(base.tokenizer, text)])
            with torch.inference_mode():
                states = [m.model(ids).last_hidden_state[0, -1] for m in (model, base.model)]
            shifts.append(states[0] - states[1])
        torch.testing.assert_close(found[row], torch.stack(shifts).mean(0), atol=1e-5, rtol=1e-4)
    assert not signatures(base, zeros(layout)).any()
