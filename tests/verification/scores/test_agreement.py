"""Agreement of weights and description: percentiles, where it warns, and what it is not told of."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from index.encoders.weights import WeightEncoder, WeightEncoderConfig, load_weight_encoder
from library.adapter import zeros
from library.checkpoint import CheckpointInfo
from library.layout import layout_of
from library.store.catalogue import files_of, records
from library.store.open import open_library
from lorasmith.libraries import SHIPPED_LIBRARY
from verification.artifact import Artifact
from verification.scores.agreement import (
    AgreementCalibration,
    agreement_calibration,
    check_agreement,
)
from verification.scores.calibration import share_below

LAYOUT = layout_of(tiny.config("llama"), rank=3)
BASE, RECIPE = "0" * 64, "oracle:lora"
GRID = tuple(i / 100 for i in range(101))
LIMITS = AgreementCalibration("digest", RECIPE, 5, 20, GRID, tuple(x - 1 for x in GRID))


@pytest.fixture(scope="module")
def encoder() -> WeightEncoder:
    made = WeightEncoder(WeightEncoderConfig(12, directions=8, dimension=16), LAYOUT)
    tiny.randomise(made)
    made.info = CheckpointInfo({"id": "b", "sha256": BASE, "source": "s"}, "e", ["t"], {})
    return made.double().eval()


def text(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 12, generator=torch.Generator().manual_seed(seed)).double()


@given(st.floats(-1.5, 1.5))
def test_the_share_below_is_that_of_the_quantiles(score: float) -> None:
    found = share_below(score, GRID)
    assert 0 <= found <= 1
    assert abs(found - min(max(score, 0), 1)) <= 0.01 + 1e-9


@pytest.mark.parametrize("quantiles", [(0.0, 1.0, 4.0), (2.0, 3.0, 5.0, 7.0, 11.0)])
def test_the_share_below_steps_up_behind_each_quantile(quantiles: tuple[float, ...]) -> None:
    steps = len(quantiles) - 1
    for index, score in enumerate(quantiles):
        assert share_below(score, quantiles) == index / steps
        assert share_below(score + 0.1, torch.tensor(quantiles)) == min((index + 1) / steps, 1)
        assert share_below(score - 0.1, quantiles) == index / steps


def test_the_cosine_is_the_encoder_s_and_a_low_one_warns_within_the_recipe(
    encoder: WeightEncoder,
) -> None:
    adapter = tiny.adapter(LAYOUT, seed=1)
    cosine = float((encoder.encode(adapter) * encoder.describe(text())).sum())
    high = replace(LIMITS, right=tuple(cosine + 0.01 + x for x in GRID))
    low = replace(LIMITS, right=tuple(cosine - 0.5 + x for x in GRID))
    cases = (
        (high, RECIPE, "agreement-low", "warn"),
        (low, RECIPE, "agreement-fits", "info"),
        (high, "text-to-lora", "agreement-uncalibrated", "info"),
        (high, None, "agreement-uncalibrated", "info"),
    )
    for limits, recipe, code, severity in cases:
        found = check_agreement(adapter, text(), encoder, recipe, BASE, limits)
        assert (found.code, found.severity) == (code, severity)
        assert found.evidence["cosine"] == pytest.approx(cosine)
        assert "no proof" in found.message and limits.describe() in found.message


def test_a_cosine_at_the_threshold_fits(encoder: WeightEncoder) -> None:
    adapter = tiny.adapter(LAYOUT, seed=1)
    cosine = float((encoder.encode(adapter) * encoder.describe(text())).sum())

    def limits(threshold: float) -> AgreementCalibration:
        return replace(LIMITS, right=tuple(threshold + (i - 5) / 100 for i in range(101)))

    fits = check_agreement(adapter, text(), encoder, RECIPE, BASE, limits(cosine))
    assert (fits.code, fits.severity) == ("agreement-fits", "info")
    assert fits.evidence == {
        "cosine": cosine,
        "threshold": cosine,
        "right_below": 0.05,
        "wrong_below": share_below(cosine, LIMITS.wrong),
        "calibration_tasks": 5,
        "checkpoint": "digest",
    }
    higher = limits(math.nextafter(cosine, 2))
    low = check_agreement(adapter, text(), encoder, RECIPE, BASE, higher)
    assert (low.code, low.severity) == ("agreement-low", "warn")
    shipped = check_agreement(adapter, text(), encoder, RECIPE, BASE)
    assert shipped.evidence["threshold"] == agreement_calibration().threshold


def test_other_factors_of_the_same_adapter_agree_alike(encoder: WeightEncoder) -> None:
    adapter = tiny.adapter(LAYOUT, seed=2)
    first = check_agreement(adapter, text(), encoder, RECIPE, BASE, LIMITS)
    other = check_agreement(adapter.scaled(3.0), text(), encoder, RECIPE, BASE, LIMITS)
    assert other.evidence["cosine"] == pytest.approx(first.evidence["cosine"], abs=1e-5)


def test_what_it_is_not_made_for_gets_no_score(encoder: WeightEncoder) -> None:
    adapter, broken = tiny.adapter(LAYOUT), tiny.adapter(LAYOUT, seed=3)
    broken.A[LAYOUT.groups[0].key][0, 0, 0, 0] = float("nan")
    strange = tiny.adapter(layout_of(tiny.config("llama"), ["k_proj"], rank=2))
    part = tiny.adapter(layout_of(tiny.config("llama"), ["q_proj"], rank=2))
    for given_, base in (
        (adapter, "1" * 64), (adapter, None), (broken, BASE), (strange, BASE), (part, BASE),
        (zeros(LAYOUT), BASE),
    ):  # fmt: skip
        found = check_agreement(given_, text(), encoder, RECIPE, base, LIMITS)
        assert (found.code, found.severity) == ("agreement-not-applicable", "info")


def test_the_shipped_calibration_is_the_measured_one_and_of_the_shipped_encoder() -> None:
    limits = agreement_calibration()
    assert len(limits.right) == len(limits.wrong) == 101
    assert list(limits.right) == sorted(limits.right) and list(limits.wrong) == sorted(limits.wrong)
    text = (tiny.ROOT / "docs" / "results" / "agreement.json").read_text(encoding="utf-8")
    report = json.loads(text)
    assert report["checkpoint"] == limits.checkpoint == load_weight_encoder().digest
    assert report["threshold"] == limits.threshold
    assert report["calibration"]["tasks"] == limits.tasks
    own = Path("verification/scores/agreement.json")
    assert json.loads((tiny.ROOT / own).read_text()) == json.loads(json.dumps(asdict(limits)))


@pytest.mark.slow
def test_library_adapters_agree_with_their_own_description_most(encoder) -> None:
    """All 24 of the sample: nearly all fit their own, and few fit the next one's."""
    from index.encoders.descriptions import DescriptionEncoder

    weights, folder = load_weight_encoder(), open_library(SHIPPED_LIBRARY)
    subjects = [Artifact(files_of(folder, record["id"])) for record in records(folder)]
    texts = DescriptionEncoder().vectors([s.recorded("description") or "" for s in subjects])
    base = weights.info.base["sha256"]
    own, next_ = (
        [
            check_agreement(s.adapter, vector[None], weights, s.recorded("generator"), base).code
            for s, vector in zip(subjects, vectors, strict=True)
        ]
        for vectors in (texts, texts.roll(1, dims=0))
    )
    assert {*own, *next_} <= {"agreement-fits", "agreement-low"}
    assert own.count("agreement-fits") >= 22
    assert next_.count("agreement-fits") <= 12
