"""Phases in a generator: nothing before training, a function of t after it, cut at break points."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import tiny
import torch
from embedded import WIDTH, descriptions, row

from api.cli.main import main
from generator.layers.config import Size, TextToLoRAConfig
from generator.layers.phase import FREQUENCIES, phase_features
from generator.models.base import Condition
from generator.models.text_to_lora import TextToLoRA
from generator.phases import phase_adapters
from index.encoders.descriptions import DEFAULT_ENCODER
from library.adapter import Adapter
from library.base.models import load_config, resolve_base
from library.checkpoint import CHECKPOINT_CONFIG, CheckpointInfo, load_checkpoint, save_checkpoint
from library.errors import UsageError
from library.layout import Layout, Site, layout_of
from library.peft.phases import PhasedAdapter, read_phases, write_phases

SIZES: tuple[Size, ...] = get_args(Size)
LAYOUT = Layout(
    "mixed",
    2,
    (Site("m.layers.0.q", 10, 10, 3), Site("m.layers.1.q", 10, 10, 3), Site("m.v", 6, 9, 3)),
)


def made(size: Size = "L", *, phases: bool = True, zero_map: bool = False) -> TextToLoRA:
    """Random weights everywhere, or everywhere but in the phase's map."""
    config = TextToLoRAConfig(WIDTH, size, latent=16, head_in=20, queries=2, phases=phases)
    module = TextToLoRA(config, LAYOUT).double().eval()
    tiny.randomise(module)
    if zero_map:
        torch.nn.init.zeros_(module.get_parameter("phase_encoder.linear.weight"))
    return module


def condition(n: int, *phases: float, seed: int = 0) -> Condition:
    phase = torch.tensor(phases, dtype=torch.float64) if phases else None
    return Condition(text=descriptions([3] * n, seed), phase=phase)


def same(one: Adapter, other: Adapter, *, atol: float = 0.0) -> bool:
    pairs = zip(one.factors(), other.factors(), strict=True)
    return all(torch.allclose(a, b, atol=atol, rtol=0.0) for a, b in pairs)


def test_features_are_sines_and_cosines_of_doubling_speeds() -> None:
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    found = phase_features(t)
    assert found.shape == (3, 2 * FREQUENCIES)
    for j in range(FREQUENCIES):
        angle = torch.pi / 2 * 2**j * t
        torch.testing.assert_close(found[:, j], angle.sin())
        torch.testing.assert_close(found[:, FREQUENCIES + j], angle.cos())


@pytest.mark.parametrize("size", SIZES)
def test_an_untrained_phase_changes_nothing(size: Size) -> None:
    """Neither ΔW = 0 at the start, nor what a generator without phases has learned."""
    config = TextToLoRAConfig(WIDTH, size, latent=16, head_in=20, phases=True)
    assert TextToLoRA(config, LAYOUT).double()(condition(2, 0.2, 0.9)).is_zero()
    plain, phased = made(size, phases=False), made(size)
    (extra,) = phased.state_dict().keys() - plain.state_dict().keys()
    phased.load_state_dict({**plain.state_dict(), extra: torch.zeros(8, 2 * FREQUENCIES)})
    wanted = plain(condition(2))
    for phases in ((0.0, 1.0), (0.3, 0.4), (0.5,)):
        assert same(phased(condition(2, *phases)), wanted)


@pytest.mark.parametrize("size", SIZES)
def test_rows_have_phases_of_their_own(size: Size) -> None:
    module = made(size)
    together = module(condition(3, 0.1, 0.5, 0.9))
    text = descriptions([3] * 3)
    for i, t in enumerate((0.1, 0.5, 0.9)):
        phase = torch.tensor([t], dtype=torch.float64)
        alone = module(Condition(text=row(text, i), phase=phase))
        assert same(together[[i]], alone, atol=1e-12)
    for_all = module(condition(3, 0.5))
    assert same(for_all, module(condition(3, 0.5, 0.5, 0.5)), atol=1e-12)
    other = module(condition(3, 0.1, 0.2, 0.9))
    assert same(together[[0, 2]], other[[0, 2]], atol=1e-12)
    assert not same(together[[1]], other[[1]], atol=1e-2)


def test_training_reaches_the_phase() -> None:
    torch.manual_seed(0)
    module = TextToLoRA(TextToLoRAConfig(WIDTH, latent=16, head_in=20, phases=True), LAYOUT)
    text = replace(condition(1), text=descriptions([3]).to(dtype=torch.float32)).text
    assert text is not None
    targets = {t: tiny.adapter(LAYOUT, seed=i) for i, t in enumerate((0.2, 0.8))}
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)

    def loss() -> torch.Tensor:
        errors = [
            (module(Condition(text=text, phase=torch.tensor([t]))).B[key] - target.B[key])
            .square().mean()
            for t, target in targets.items()
            for key in target.B
        ]  # fmt: skip
        return torch.stack(errors).mean()

    with torch.no_grad():
        static = torch.stack(
            [
                (targets[0.2].B[key] - targets[0.8].B[key]).square().mean() / 4
                for key in targets[0.2].B
            ]
        ).mean()  # of the best B that does not depend on t
    for _ in range(150):
        optimizer.zero_grad()
        error = loss()
        error.backward()
        optimizer.step()
    assert module.eval() and loss() < 0.5 * static


def test_a_checkpoint_from_before_phases_loads_unchanged(tmp_path: Path) -> None:
    module = made(phases=False).float()
    save_checkpoint(tmp_path / "c", module, CheckpointInfo())
    file = tmp_path / "c" / CHECKPOINT_CONFIG
    config = json.loads(file.read_text())
    assert config["architecture"].pop("phases") is False
    file.write_text(json.dumps(config))
    loaded = load_checkpoint(tmp_path / "c", TextToLoRA).module
    assert not loaded.phases
    text = descriptions([4]).to(dtype=torch.float32)
    assert same(loaded(Condition(text=text)), module(Condition(text=text)))


def test_a_checkpoint_keeps_its_phases(tmp_path: Path) -> None:
    module = made().float()
    save_checkpoint(tmp_path / "c", module, CheckpointInfo())
    loaded = load_checkpoint(tmp_path / "c", TextToLoRA).module
    assert loaded.phases
    given = Condition(descriptions([4]).to(dtype=torch.float32), phase=torch.tensor([0.7]))
    assert same(loaded(given), module(given))


def test_adapters_are_those_of_the_middles_of_the_intervals() -> None:
    module, given = made(), condition(2)
    adapters = phase_adapters(module, given, [0.2, 0.5])
    for adapter, middle in zip(adapters, (0.1, 0.35, 0.75), strict=True):
        assert len(adapter) == 2
        assert same(adapter, module(condition(2, middle)), atol=1e-12)
    (whole,) = phase_adapters(module, condition(2, 0.9), [])  # a phase that is there is replaced
    assert same(whole, module(condition(2, 0.5)), atol=1e-12)
    constant = phase_adapters(made(zero_map=True), given, [0.2, 0.5])
    assert all(same(adapter, constant[0]) for adapter in constant)


def test_from_a_condition_to_a_folder_and_back(tmp_path: Path) -> None:
    points = [0.2, 0.5]
    adapters = phase_adapters(made().float(), _float(condition(1)), points)
    write_phases(tmp_path / "p", PhasedAdapter(adapters, points), base_name="b", profile="lossless")
    read = read_phases(tmp_path / "p", LAYOUT)
    for t, adapter in zip((0.0, 0.2, 1.0), adapters, strict=True):
        assert same(read.at(t), adapter)


@pytest.mark.parametrize("points", [[0.0, 0.5], [0.5, 0.5], [0.5, 1.0]])
def test_break_points_that_do_not_rise_are_refused(points: list[float]) -> None:
    with pytest.raises(UsageError, match="rise strictly"):
        phase_adapters(made(), condition(1), points)


def test_what_has_no_phase_says_so() -> None:
    with pytest.raises(UsageError, match="this text-to-lora was made without phases"):
        phase_adapters(made(phases=False), condition(1), [0.5])
    with pytest.raises(UsageError, match="needs a phase"):
        made()(condition(1))
    for t in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match=r"a phase lies in \[0, 1\]"):
            made()(condition(1, t))


@pytest.mark.slow
def test_a_request_for_text_is_refused_in_one_sentence(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = layout_of(load_config(resolve_base(str(tiny_base))), rank=4)
    module = TextToLoRA(TextToLoRAConfig(384, latent=16, head_in=24, phases=True), layout)
    info = CheckpointInfo({"id": "tiny", "sha256": None, "source": "random"}, DEFAULT_ENCODER)
    save_checkpoint(tmp_path / "c", module, info)
    out = tmp_path / "out"
    given = ["--base", tiny_base, "--checkpoint", tmp_path / "c", "--generator", "text-to-lora"]
    assert main(["generate", "Sort.", "--out", str(out), *map(str, given)]) == 2
    assert "needs a phase" in tiny.one_sentence(capsys.readouterr())
    assert not out.exists()


def _float(given: Condition) -> Condition:
    assert given.text is not None
    return replace(given, text=given.text.to(dtype=torch.float32))
