"""Adapters by phase: whole round trips, each phase read by PEFT, clear errors."""

import copy
import json
from pathlib import Path

import peft
import pytest
import tiny
import torch
from torch import Tensor, nn

from library.adapter import stack
from library.errors import AdapterFileError, LayoutMismatch, MissingPath, OutputExists, UsageError
from library.layout import Layout, Site
from library.peft.phases import PHASES_FILE, PhasedAdapter, read_phases, write_phases
from library.peft.write import Profile

# Of no language model, and no family: what adapters by phase are for.
LAYOUT = Layout(
    "",
    2,
    (
        Site("layers.0.up", 6, 9, 2),
        Site("layers.0.down", 9, 6, 2),
        Site("layers.1.up", 6, 9, 2),
        Site("layers.1.down", 9, 6, 2),
    ),
)
POINTS = [0.1, 1 / 3, 0.75]


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        blocks = [nn.ModuleDict({"up": nn.Linear(6, 9), "down": nn.Linear(9, 6)}) for _ in range(2)]
        self.layers = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer["down"](layer["up"](x).relu())  # type: ignore[index]
        return x


def phased(count: int = 4) -> PhasedAdapter:
    adapters = [tiny.adapter(LAYOUT, seed=seed) for seed in range(count)]
    return PhasedAdapter(adapters, POINTS[: count - 1])


def written(folder: Path, profile: Profile = "lossless") -> Path:
    write_phases(folder, phased(), base_name="owner/denoiser", profile=profile)
    return folder


@pytest.mark.parametrize("profile", ["portable", "lossless"])
def test_a_round_trip_keeps_break_points_and_weights(profile: Profile, tmp_path: Path) -> None:
    made, read = phased(), read_phases(written(tmp_path / "a", profile), LAYOUT)
    assert read.break_points == POINTS
    dtype = torch.bfloat16 if profile == "portable" else torch.float32
    for ours, theirs in zip(made.adapters, read.adapters, strict=True):
        for stored, factor in zip(theirs.factors(), ours.factors(), strict=True):
            assert torch.equal(stored, factor.to(dtype).float())
    files = sorted(p for p in (tmp_path / "a").rglob("*") if p.is_file())
    written(tmp_path / "b", profile)
    assert len(files) == 9  # two for each phase, and the break points
    for file in files:  # equal adapters, equal bytes
        other = tmp_path / "b" / file.relative_to(tmp_path / "a")
        assert file.read_bytes() == other.read_bytes()


def test_peft_loads_each_phase_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Denoiser().eval(), torch.randn(5, 6)
    folder = written(tmp_path / "phases")
    for number, adapter in enumerate(phased().adapters):
        name = f"phase-{number}"
        theirs = peft.PeftModel.from_pretrained(copy.deepcopy(model), folder, subfolder=name)  # type: ignore[arg-type]
        for module, delta in tiny.deltas(adapter).items():
            layer = theirs.base_model.model.get_submodule(module)  # type: ignore[union-attr]
            torch.testing.assert_close(layer.get_delta_weight("default"), delta)  # type: ignore[operator]
        with torch.no_grad():
            wanted = tiny.merged(model, adapter)(x)
            torch.testing.assert_close(theirs(x), wanted, atol=1e-5, rtol=1e-5)
            assert (wanted - model(x)).abs().max() > 0.1


def test_a_phase_holds_from_its_break_point_up_to_the_next() -> None:
    made = phased()
    for t, number in {0.0: 0, 0.0999: 0, 0.1: 1, 0.3: 1, 1 / 3: 2, 0.7: 2, 0.75: 3, 1.0: 3}.items():
        assert made.at(t) is made.adapters[number]
    only = phased(1)
    assert only.at(0.0) is only.at(1.0) is only.adapters[0]
    for t in (-0.01, 1.01, float("nan")):
        with pytest.raises(UsageError, match=r"a phase lies in \[0, 1\]"):
            made.at(t)


@pytest.mark.parametrize(
    "points", [[0.0], [1.0], [-0.5], [0.5, 0.5], [0.7, 0.2], [float("nan")], [0.2, float("inf")]]
)
def test_break_points_rise_strictly_between_0_and_1(points: list[float], tmp_path: Path) -> None:
    adapters = [tiny.adapter(LAYOUT)] * (len(points) + 1)
    with pytest.raises(UsageError, match=r"rise strictly within \(0, 1\)"):
        PhasedAdapter(adapters, points)
    folder = written(tmp_path / "phases")
    (folder / PHASES_FILE).write_text(json.dumps({"break_points": points}))
    with pytest.raises(AdapterFileError, match="rise strictly"):
        read_phases(folder)


def test_phases_fit_each_other() -> None:
    one, other = tiny.adapter(LAYOUT), tiny.adapter(LAYOUT.with_rank(3))
    with pytest.raises(UsageError, match="1 break points stand between 2 adapters, not 1"):
        PhasedAdapter([one], [0.5])
    with pytest.raises(LayoutMismatch, match="phase 0 has layout"):
        PhasedAdapter([one, other], [0.5])


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"break_points": 3}', '{"break_points": ["a"]}']
)
def test_damaged_break_points_are_refused(content: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "phases")
    (folder / PHASES_FILE).write_text(content)
    with pytest.raises(AdapterFileError, match="does not hold break points"):
        read_phases(folder)


def test_what_is_missing_or_in_the_way_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPath, match="no folder of phases"):
        read_phases(tmp_path / "none")
    folder = written(tmp_path / "phases")
    with pytest.raises(OutputExists):
        written(folder)
    with pytest.raises(ValueError, match="holds one adapter, not 2"):
        both = stack([tiny.adapter(LAYOUT)] * 2)
        write_phases(tmp_path / "two", PhasedAdapter([both], []), base_name="b")
    assert not (tmp_path / "two").exists()
    (folder / "phase-2").rename(folder / "phase-9")
    with pytest.raises(MissingPath, match="phase-2"):
        read_phases(folder)
    (folder / PHASES_FILE).unlink()
    with pytest.raises(AdapterFileError, match=r"phases\.json cannot be read"):
        read_phases(folder)
