"""`lorasmith compose`: files, provenance, byte equality, LoraHub on a tiny base, and bad input."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from differences import difference
from peft import PeftModel

from api.cli.compose import spread_weights
from api.cli.main import main
from index.merge import lorahub
from index.merge.lora_rar import MergePredictor, MergePredictorConfig, load_predictor
from index.merge.weighted_sum import weighted_sum
from library.adapter import Adapter
from library.base.batches import grouped
from library.base.example_loss import MixtureLoss
from library.base.loss import answer_logits, answer_loss
from library.base.models import described, load_base, resolve_base
from library.base.multi_adapter import MultiAdapter
from library.build.plan import tokenised
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.errors import CheckpointError, TaskFileError, UsageError
from library.layout import layout_of
from library.peft.provenance import Provenance, finish
from library.peft.read import read_peft
from library.peft.write import to_peft
from library.tasks.files import Example

FILES = ("adapter_config.json", "adapter_model.safetensors", "provenance.json")


@pytest.fixture(scope="module")
def layout(tiny_base: Path) -> Any:
    return layout_of(load_base(resolve_base(str(tiny_base))).model.config, rank=3)


@pytest.fixture(scope="module")
def adapters(layout: Any) -> list[Adapter]:
    """Of ranks 3, 2 and 3."""
    return [tiny.adapter(layout.with_rank(rank), seed=i) for i, rank in enumerate((3, 2, 3))]


@pytest.fixture(scope="module")
def folders(
    adapters: list[Adapter], tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """Three adapter folders in full precision; the last is from elsewhere, without provenance."""
    place = tmp_path_factory.mktemp("parents")
    base = described(resolve_base(str(tiny_base)))
    for i, adapter in enumerate(adapters):
        files = to_peft(adapter, base_name=str(tiny_base), profile="lossless")
        provenance = Provenance("test", None, f"Task {i}.", i, "cpu", adapter.layout.digest, base)
        folder = place / f"p{i}"
        folder.mkdir()
        for name, content in finish(files, provenance).files.items():
            if i < 2 or name != "provenance.json":
                (folder / name).write_bytes(content)
    return [str(place / f"p{i}") for i in range(3)]


def compose(*arguments: Any) -> int:
    return main(["compose", *map(str, arguments)])


def content(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def test_a_merge_is_a_peft_folder_that_records_its_parents(
    folders: list[str], adapters: list[Adapter], layout: Any, tiny_base: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "out"
    options = ("--weights", 0.5, -1.5, 2, "--method", "cat", "--profile", "lossless")
    assert compose(*folders, *options, "--json", "--out", out) == 0
    summary = json.loads(capsys.readouterr().out)
    said = json.loads((out / "provenance.json").read_text())
    ids = [json.loads((Path(f) / "provenance.json").read_text())["id"] for f in folders[:2]]
    assert said["parents"][:2] == ids and said["parents"][2].startswith("sha256:")
    assert summary["parents"] == said["parents"] and summary["weights"] == [0.5, -1.5, 2.0]
    assert (said["generator"], said["id"], said["sha256"]) == (
        "compose", summary["id"], summary["sha256"])  # fmt: skip
    assert said["details"]["method"] == "cat" and said["base"]["id"] == str(tiny_base)
    assert summary["rank"] == 8
    wanted = weighted_sum(adapters, [0.5, -1.5, 2.0])
    assert difference(read_peft(out, layout), wanted) < 1e-5
    base = load_base(resolve_base(str(tiny_base))).model
    expected = tiny.merged(base, wanted)(input_ids=tiny.tokens(2, 6)).logits
    model = PeftModel.from_pretrained(base, str(out))
    torch.testing.assert_close(
        model(input_ids=tiny.tokens(2, 6)).logits, expected, atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("method", ["cat", "ties", "dare", "lego", "klora", "orthogonal", "soup"])
def test_the_same_request_gives_the_same_bytes(
    method: str, folders: list[str], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        assert compose(*folders, "--method", method, "--rank", 4, "--out", tmp_path / name) == 0
    assert content(tmp_path / "one") == content(tmp_path / "two")
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 4


def test_seed_changes_dare_and_overwrite_is_needed(folders: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert compose(*folders, "--method", "dare", "--out", out) == 0
    first = content(out)
    assert compose(*folders, "--method", "dare", "--seed", 1, "--out", out) == 2
    assert content(out) == first
    assert compose(*folders, "--method", "dare", "--seed", 1, "--overwrite", "--out", out) == 0
    assert content(out)[1] != first[1]


EXAMPLES = [Example(f"e{i}", f"say {i}", (f"word {i % 2}",)) for i in range(5)]


def test_many_mixtures_in_one_pass_are_the_sums_one_by_one(
    adapters: list[Adapter], tiny_base: Path
) -> None:
    base = load_base(resolve_base(str(tiny_base)))
    weights = torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = MixtureLoss(base, adapters, EXAMPLES)(weights)  # more rows than one pass takes
    rows = tokenised(EXAMPLES, base.tokenizer, 320)
    (batch,) = grouped(rows, base.tokenizer.pad_token_id, 1)
    for trial in (0, 7, 59):
        merged = weighted_sum(adapters, weights[trial].tolist())
        hooks = MultiAdapter(base.model, merged.layout)
        hooks.set(merged, torch.zeros(len(rows), dtype=torch.long))
        alone = answer_loss(answer_logits(base.model, batch.ids, batch.answer), batch.ids,
                            batch.answer).mean()  # fmt: skip
        hooks.close()
        torch.testing.assert_close(found[trial], alone, atol=1e-4, rtol=1e-4)
    with pytest.raises(TaskFileError, match="no example"):
        MixtureLoss(base, adapters, [Example("long", "word " * 400, ("x",))])


def test_lorahub_finds_weights_that_serve_the_examples(
    folders: list[str], adapters: list[Adapter], tiny_base: Path, tmp_path: Path
) -> None:
    examples = tmp_path / "examples.jsonl"
    lines = [json.dumps({"input": e.input, "output": e.outputs[0]}) for e in EXAMPLES]
    examples.write_text("\n".join(lines))
    for name in ("one", "two"):
        options = ("--method", "lorahub", "--examples", examples, "--out", tmp_path / name)
        assert compose(*folders, *options) == 0
    assert content(tmp_path / "one") == content(tmp_path / "two")
    said = json.loads((tmp_path / "one" / "provenance.json").read_text())
    assert len(said["examples"]) == 64 and len(said["parents"]) == 3
    found = said["details"]["weights"]
    assert max(map(abs, found)) <= 1.5
    losses = MixtureLoss(load_base(resolve_base(str(tiny_base))), adapters, EXAMPLES)
    trials = [found, [1 / 3] * 3, [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]
    penalty = 0.05 * torch.tensor(trials).double().abs().mean(1)
    ours, *others = (losses(torch.tensor(trials).double()) + penalty).tolist()
    assert ours <= min(others) + 1e-6


def test_the_search_is_seeded_bounded_and_finds_a_minimum() -> None:
    target = torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64)
    looked: list[int] = []

    def losses(weights: Any) -> Any:
        looked.append(len(weights))
        return (weights - target).square().sum(1)

    found = lorahub.search_mixture(losses, 3, seed=4, budget=300)
    assert sum(looked) == found.trials == 300 and max(looked) == lorahub.POPULATION
    assert found.loss < 0.05 and found.loss == pytest.approx(
        float(losses(torch.tensor([found.weights]).double()))
    )
    assert lorahub.search_mixture(losses, 3, seed=4, budget=300) == found
    assert lorahub.search_mixture(losses, 3, seed=5, budget=300).weights != found.weights
    with pytest.raises(UsageError, match="from 1 to 20"):
        lorahub.search_mixture(losses, 21)

    def broken(weights: Any) -> Any:
        return torch.where(weights.abs().sum(1) > 0.9, torch.nan, weights.sum(1).abs())

    assert lorahub.search_mixture(broken, 3, budget=40).loss < 1


def test_a_predictor_is_read_back_and_damage_is_said(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = MergePredictor(MergePredictorConfig(8))
    tiny.randomise(network)
    place = tmp_path / "predictor"
    save_checkpoint(place, network, CheckpointInfo(training={"steps": 1}))
    loaded = load_predictor(place)
    for ours, theirs in zip(network.parameters(), loaded.module.parameters(), strict=True):
        assert torch.equal(ours.double(), theirs)
    options = ("--method", "lora-rar", "--predictor", place, "--out", tmp_path / "out")
    assert compose(*folders[:2], *options) == 0
    said = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert said["checkpoint"] == loaded.digest and said["details"]["weights"] is None
    (place / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_predictor(place)
    assert compose(*folders[:2], *options, "--overwrite") == 1
    assert compose(*folders[:2], *options[:2], "--predictor", "nowhere", "--out", "x") == 2


def test_numbers_after_weights_belong_to_it() -> None:
    given = ["a", "--weights", "1", "-2e-1", "b", "--rank", "3", "--weights", "4"]
    wanted = ["a", "--weights", "1", "--weights", "-2e-1", "b", "--rank", "3", "--weights", "4"]
    assert spread_weights(given) == wanted
    assert spread_weights(["--weights", "1", "./7", "8"]) == ["--weights", "1", "./7", "8"]


def test_bad_input_is_one_sentence(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, change in (("foreign", {"base_model_name_or_path": "other/base"}),
                         ("nameless", {"base_model_name_or_path": None})):  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        config = json.loads((Path(folders[2]) / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | change))
        weights = (Path(folders[2]) / "adapter_model.safetensors").read_bytes()
        (folder / "adapter_model.safetensors").write_bytes(weights)
    rows = tmp_path / "many.jsonl"
    rows.write_text('{"input": "a", "output": "b"}\n' * 17)
    two = folders[:2]
    for arguments, code, words in (
        (["no-such-task"], 2, "holds no adapter no-such-task"),
        (["./nowhere"], 2, "there is no adapter folder at ./nowhere"),
        ([*two, "--weights", 1], 2, "2 adapters need as many weights, not 1"),
        ([*two, "--method", "blend"], 2, "unknown method 'blend'"),
        ([*two, "--method", "lorahub"], 2, "lorahub needs --examples"),
        ([*two, "--method", "lorahub", "--examples", rows], 2, "at most 16 examples, not 17"),
        ([*two, "--examples", rows], 2, "cat takes no --examples"),
        ([*two, "--predictor", tmp_path], 2, "cat takes no --predictor"),
        ([*folders, "--method", "lora-rar"], 2, "two adapters, not 3"),
        ([folders[0], tmp_path / "foreign"], 1, "is for other/base, and"),
        ([tmp_path / "nameless"], 1, "does not name its base model"),
        ([*two, "--base", "HuggingFaceTB/SmolLM2-135M-Instruct"], 1, "and --base for Hugging"),
        ([tmp_path], 1, "there is no adapter_config.json"),
        ([rows], 1, "is not an adapter folder"),
    ):
        assert compose(*arguments, "--out", tmp_path / "out") == code, arguments
        message = capsys.readouterr().err.strip()
        assert words in message and "\n" not in message
        assert not (tmp_path / "out").exists()
