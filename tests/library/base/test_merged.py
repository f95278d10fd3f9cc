"""An adapter in a base's weights: answers as the base with the adapter beside it does."""

import copy

import pytest
import tiny
import torch

from library.base.merged import merge_into
from library.base.multi_adapter import adapted
from library.layout import layout_of


@pytest.mark.parametrize("family", ["llama", "gpt2"])  # gpt2's weights are stored transposed
def test_a_merged_base_is_the_base_with_the_adapter(family: str) -> None:
    model = tiny.model(tiny.config(family))
    adapter = tiny.adapter(layout_of(model.config, rank=3))
    merged = copy.deepcopy(model)
    merge_into(merged, adapter)
    ids = torch.arange(6)[None]
    with torch.no_grad(), adapted(model, adapter, torch.tensor([0])):
        expected = model(input_ids=ids).logits
    with torch.no_grad():
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(model(input_ids=ids).logits, expected, atol=1e-2)
