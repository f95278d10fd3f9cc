"""One call from a request to files: bytes that depend on the request and on nothing else."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785
import tiny
import torch

from generator.engine import Engine, read_generator, read_generators
from generator.models.base import Condition
from generator.package import Packaged
from generator.request import Request
from generator.resources import Resources
from index.encoders.descriptions import DescriptionEncoder, InvalidDescription
from library.base.models import DEFAULT_BASE, BaseReference, resolve_base
from library.errors import CheckpointError, LayoutMismatch, MissingPath, UnknownName, UsageError
from library.files import write_folder
from library.peft.provenance import PROVENANCE_FILE, README_FILE
from library.peft.read import read_peft
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE

TASK = "Decide whether the sentence is positive or negative."
NAME = "text-to-lora"
OTHER = "Translate the sentence into French."


def one(alone: Engine, base: BaseReference, **request: Any) -> Packaged:
    return alone.generate(NAME, Request(**{"description": TASK, **request}), base)


def test_the_same_bytes_whatever_else_is_asked_for_and_with_any_threads(
    alone: Engine, base: BaseReference
) -> None:
    first = one(alone, base)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert one(alone, base).files == first.files
            other = one(alone, base, description=OTHER * (1 + threads), rank=2)
            assert one(alone, base).files == first.files
    finally:
        torch.set_num_threads(before)
    assert other.files.sha256 != first.files.sha256


def test_the_same_adapter_in_any_batch(alone: Engine, encoder: DescriptionEncoder) -> None:
    """Rows of a batch do not see each other, but for float64's rounding."""
    module = alone.generated[NAME].module
    texts = [TASK, *(f"Task number {i}. " * (1 + i % 3) for i in range(40))]
    with torch.inference_mode():
        single = module(Condition(text=encoder.encode([TASK])))
        crowd = module(Condition(text=encoder.encode(texts)))
    for key in single.A:
        torch.testing.assert_close(crowd.A[key][:1], single.A[key], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(crowd.B[key][:1], single.B[key], rtol=1e-12, atol=1e-14)


def test_the_id_can_be_recomputed_from_the_files(alone: Engine, base: BaseReference) -> None:
    made = one(alone, base, seed=7, rank=2, strength=0.5)
    files = made.files.files
    assert set(files) == {CONFIG_FILE, WEIGHTS_FILE, PROVENANCE_FILE, README_FILE}
    provenance = json.loads(files[PROVENANCE_FILE])
    sha256 = hashlib.sha256(files[WEIGHTS_FILE]).hexdigest()
    identity = {
        "adapter_config": json.loads(files[CONFIG_FILE]),
        "sha256": sha256,
        "generator": "text-to-lora",
        "checkpoint": alone.generated[NAME].checkpoint.digest,
        "description": TASK,
        "examples": None,
        "seed": 7,
        "parents": None,
        "numerics": "cpu-f64-torch",
        "usage": {"mode": "prompted", "template": f"{TASK}\n\n{{input}}"},
    }
    expected = "ad_" + hashlib.sha256(rfc8785.dumps(identity)).hexdigest()[:40]
    assert made.files.id == provenance["id"] == expected
    assert made.files.sha256 == provenance["sha256"] == sha256
    for key in ("generator", "checkpoint", "description", "examples", "seed", "parents", "usage"):
        assert provenance[key] == identity[key]
    assert provenance["layout_digest"] == made.adapter.layout.digest
    weights = (Path(base.path) / "model.safetensors").read_bytes()
    assert provenance["base"] == {
        "id": base.name,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "source": "folder",
    }
    assert {"numerics", "neighbours", "report"} < set(provenance)
    summary = made.summary
    assert (summary["id"], summary["rank"], summary["seed"]) == (expected, 2, 7)
    assert summary["layout_digest"] == provenance["layout_digest"]
    assert summary["usage"] == identity["usage"] and summary["refined"] is None
    assert made.files.id in files[README_FILE].decode()


def test_whatever_is_asked_for_is_part_of_the_identity(alone: Engine, base: BaseReference) -> None:
    requests: list[dict[str, Any]] = [
        {},
        {"description": OTHER},
        {"rank": 2},
        {"rank": 8},
        {"strength": 0.5},
        {"seed": 1},
        {"profile": "lossless"},
        {"mode": "bare"},
    ]
    made = [one(alone, base, **request) for request in requests]
    assert len({item.files.id for item in made}) == len(requests)
    for same in ({"description": f"  {TASK}\n"}, {"mode": "prompted"}, {"budget": 5.0}):
        assert one(alone, base, **same).files == made[0].files  # normalised first; best; no matter


def test_files_hold_the_generated_adapter(
    alone: Engine, base: BaseReference, tmp_path: Path
) -> None:
    exact = alone.propose(NAME, Request(TASK), base).adapter
    for profile, tolerance in (("portable", 2**-8), ("lossless", 2**-23)):
        made = one(alone, base, profile=profile)
        write_folder(tmp_path / profile, made.files.files)
        stored = read_peft(tmp_path / profile, alone.generated[NAME].module.layout)
        for key in exact.A:
            for mine, theirs in ((stored.A, exact.A), (stored.B, exact.B)):
                expected = theirs[key].float()
                torch.testing.assert_close(mine[key], expected, rtol=tolerance, atol=0)
                assert mine[key].any()
        assert json.loads(made.files.files[CONFIG_FILE])["base_model_name_or_path"] == base.name


def test_rank_and_strength(alone: Engine, base: BaseReference) -> None:
    full = tiny.deltas(one(alone, base).adapter)
    narrow = tiny.deltas(one(alone, base, rank=2).adapter)
    wide = one(alone, base, rank=9).adapter
    strong = tiny.deltas(one(alone, base, strength=-2.5).adapter)
    for name, delta in full.items():
        lost = torch.linalg.matrix_norm(delta - narrow[name])
        best = torch.linalg.svdvals(delta)[2:].norm()
        torch.testing.assert_close(lost, best, rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(strong[name], -2.5 * delta)
        assert torch.equal(tiny.deltas(wide)[name], delta)
    for group in wide.layout.groups:
        assert group.rank == 9
        assert not wide.A[group.key][:, :, 4:].any()
        assert not wide.B[group.key][..., 4:].any()
    beyond = one(alone, base, rank=17).adapter  # v_proj is 32 to 16
    assert tiny.deltas(beyond).keys() == full.keys()
    assert all(torch.equal(tiny.deltas(beyond)[name], delta) for name, delta in full.items())


def test_a_long_description_says_in_how_many_windows_it_was_read(
    alone: Engine, base: BaseReference
) -> None:
    text = "Look at the sentence and think about it. " * 60
    made = [one(alone, base, description=text + end) for end in ("Say yes.", "Say no!")]
    details = json.loads(made[0].files.files[PROVENANCE_FILE])["details"]
    assert details["encoder_windows"] > 1
    assert made[0].files.sha256 != made[1].files.sha256


@pytest.mark.parametrize(
    "change",
    [{"num_hidden_layers": 3}, {"num_key_value_heads": 4}, {"model_type": "mistral"}],
)
def test_another_base_is_a_mismatch_that_names_both_sides(
    alone: Engine, tiny_base: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    config = json.loads((tiny_base / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    other = resolve_base(str(tmp_path))
    with pytest.raises(LayoutMismatch, match=rf"{tmp_path}.*the text-to-lora checkpoint"):
        alone.generate(NAME, Request(TASK), other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rank": 0},
        {"rank": 257},
        {"strength": 0.0},
        {"strength": 10.1},
        {"strength": float("nan")},
        {"strength": float("-inf")},
        {"seed": -1},
        {"seed": 2**53},
        {"refine": -1},
        {"refine": 5},
        {"budget": 0.0},
        {"budget": 3601.0},
        {"budget": float("nan")},
    ],
)
def test_a_value_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Request(TASK, **wrong)


def test_a_description_that_is_none_is_refused() -> None:
    for description in ("", " \n", "x" * 8193, "\ud800"):
        with pytest.raises(InvalidDescription):
            Request(description)


def test_generators_that_are_not_there(small_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="icm-lorra"):
        read_generators({"icm-lorra": tmp_path})
    with pytest.raises(MissingPath):
        read_generator(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="of text-to-lora, not nearest"):
        read_generators({"nearest": small_checkpoint})


def test_a_generator_for_the_packaged_base(
    checkpoint: Path, encoder: DescriptionEncoder, tmp_path: Path
) -> None:
    default, base = (
        Engine([read_generator(checkpoint)], Resources(encoders=[encoder])),
        resolve_base(),
    )
    layout = default.generated[NAME].module.layout
    for rank, expected in ((None, layout.rank), (2, 2)):
        item = one(default, base, rank=rank)
        write_folder(tmp_path / str(rank), item.files.files)
        assert read_peft(tmp_path / str(rank), layout).layout == item.adapter.layout
        assert item.summary["base_model"] == DEFAULT_BASE
        assert item.adapter.layout.rank == expected


def test_the_encoder_runs_once_a_request(
    engine: Engine, base: BaseReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retrieval and generation share one embedding, whichever strategy answers."""
    calls: list[list[str]] = []
    encode = DescriptionEncoder.encode

    def counted(self: DescriptionEncoder, texts: list[str]) -> Any:
        calls.append(list(texts))
        return encode(self, texts)

    one(engine, base)  # the library's own descriptions are embedded by now
    monkeypatch.setattr(DescriptionEncoder, "encode", counted)
    for name in ("auto", NAME, "nearest", "compose"):  # the others read no description
        calls.clear()
        engine.generate(name, Request(OTHER), base)
        assert calls == [[OTHER]], name
