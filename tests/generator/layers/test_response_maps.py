"""Maps of logits: what they say before training, and what they depend on."""

from dataclasses import replace

import pytest
import tiny
import torch
from embedded import WIDTH, WORDS, descriptions
from weights import LAYOUT, base_of

from generator.layers.lofa_config import LoFAConfig, ResponseMapsConfig
from generator.layers.response_maps import TINY, ResponseMaps, relative_change, responses
from library.base.weights import group_weights
from library.errors import UsageError

CONFIG = ResponseMapsConfig(WIDTH, WORDS, width=16, blocks=2, heads=2, map_rank=3)


def made(config: ResponseMapsConfig = CONFIG) -> ResponseMaps:
    torch.manual_seed(0)
    return ResponseMaps(config, LAYOUT).double().eval()


def test_before_training_small_entries_respond_and_no_description_matters() -> None:
    network, base, text = made(), base_of(LAYOUT), descriptions([3, 5])
    plain = made(replace(CONFIG, weight_term=False))
    for group in LAYOUT.groups:
        w = group_weights(base, group).double()
        logits = network(text, base, group)
        assert logits.shape == (2, *w.shape)
        size = w.square().mean(dim=(1, 2), keepdim=True).sqrt()
        torch.testing.assert_close(logits[0], -((w.abs() + TINY) / (size + TINY)).log())
        assert torch.equal(logits[0], logits[1])
        assert not plain(text, base, group).any()


def test_logits_are_a_map_of_low_rank_and_the_weights_term() -> None:
    network, base, text = made(), base_of(LAYOUT), descriptions([3, 5])
    tiny.randomise(network)
    group = LAYOUT.groups[0]
    a, b = network.factors(text, base, group, None)
    w = group_weights(base, group).double()
    logits = network(text, base, group)
    slope, bias = network.slope[group.key].item(), network.bias[group.key].item()
    for site in range(3):
        size = w[site].square().mean().sqrt()
        by_hand = b[1, site].T @ a[1, site] + bias
        by_hand -= slope * ((w[site].abs() + TINY) / (size + TINY)).log()
        torch.testing.assert_close(logits[1, site], by_hand)
    torch.testing.assert_close(network(text, base, group, [2, 0]), logits[:, [2, 0]])
    assert not torch.allclose(logits[0], logits[1], rtol=1e-2)


def test_training_reaches_every_parameter() -> None:
    network, base, text = made(), base_of(LAYOUT), descriptions([3, 5])
    tiny.randomise(network)
    maps = [network(text, base, group).square().mean() for group in LAYOUT.groups]
    torch.stack(maps).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_the_ranks_of_a_layout_do_not_matter() -> None:
    torch.manual_seed(0)
    wider = ResponseMaps(CONFIG, LAYOUT.with_rank(7)).double()
    assert {k: v.shape for k, v in wider.state_dict().items()} == {
        k: v.shape for k, v in made().state_dict().items()
    }


def test_responses_are_the_entries_that_change_by_more_than_a_share_of_themselves() -> None:
    w = torch.tensor([[1.0, -2.0], [0.0, 4.0]])
    a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5], [-1.0]])  # ΔW = [[.5, 1], [-1, -2]]
    torch.testing.assert_close(relative_change(a, b, w)[0], torch.tensor([0.5, 0.5]))
    assert responses(a, b, w, 0.4).tolist() == [[True, True], [True, True]]
    assert responses(a, b, w, 0.5).tolist() == [[False, False], [True, False]]


@pytest.mark.parametrize("wrong", [{"width": 10, "heads": 3}, {"blocks": 0}, {"map_rank": 0}])
def test_sizes_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        ResponseMapsConfig(**wrong)
    with pytest.raises(UsageError, match="scale"):
        LoFAConfig(scale=0.0)
