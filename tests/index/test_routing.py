"""Routing: sums that differ by row, a set for PEFT's Arrow, and routers that read the input."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import ArrowConfig, create_arrow_model

from api.cli.main import main
from index.merge.weighted_sum import weighted_sum
from index.routing import MAX_ADAPTERS, Router, RouterConfig, load_router
from library.base.decode import greedy
from library.base.models import load_base, resolve_base
from library.base.multi_adapter import MultiAdapter, adapted
from library.base.prompts import prompt_ids
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.errors import CheckpointError, MissingPath
from library.layout import layout_of
from library.peft.read import read_peft
from library.store.catalogue import records
from library.store.open import open_library
from library.tasks.files import read_tasks


def test_a_mix_is_the_sum_merged_into_the_weights() -> None:
    config = tiny.config("llama")
    model, layout = tiny.model(config), layout_of(config, rank=3)
    adapters, ids = tiny.adapter(layout, 3), tiny.tokens(2, 7)
    weights = torch.tensor([[0.2, 0.0, 0.8], [-0.5, 1.0, 0.25]])
    hooks = MultiAdapter(model, layout)
    hooks.set_mixture(adapters, weights)
    mixed = model(ids).logits
    hooks.close()
    for row, row_weights in enumerate(weights.tolist()):
        summed = weighted_sum([adapters[[i]] for i in range(3)], row_weights)
        expected = tiny.merged(model, summed)(ids[[row]]).logits
        torch.testing.assert_close(mixed[[row]], expected, rtol=1e-4, atol=1e-5)


def test_one_adapter_a_row_is_a_mix_of_one(tiny_base: Path) -> None:
    base = load_base(resolve_base(str(tiny_base)))
    adapters = tiny.adapter(layout_of(base.model.config, rank=2), 3)
    prompts = [prompt_ids(base.tokenizer, f"question {'so ' * i}{i}") for i in range(7)]
    rows = [0, 2, 1, 1, 0, 2, 0]
    weights = [[float(i == row) for i in range(3)] for row in rows]
    plain = greedy(base, prompts, adapters, rows, batch_size=3, max_new_tokens=12)
    assert greedy(base, prompts, adapters, weights, batch_size=3, max_new_tokens=12) == plain
    assert len(set(plain)) > 1


def test_peft_routes_over_an_exported_set(
    small_library: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library, out = ["--library", str(small_library / "lib")], tmp_path / "set"
    assert main(["route", "export", "sum", "poem", *library, "--out", str(out)]) == 0
    config = json.loads((out / "arrow.json").read_text())
    by_task = {r["task"]: r for r in records(open_library(library[1]))}
    assert [e["id"] for e in config["experts"]] == [by_task["sum"]["id"], by_task["poem"]["id"]]
    base, ids = load_base(resolve_base(str(tiny_base))), tiny.tokens(2, 9)
    plain = base.model(ids).logits
    stored = [read_peft(out / e["path"]) for e in config["experts"]]
    outputs = []
    for adapter in stored:
        with adapted(base.model, adapter, torch.tensor([0, 0])):
            outputs.append(base.model(ids).logits)
    paths = [str(out / expert["path"]) for expert in config["experts"]]
    routed = create_arrow_model(base.model, paths, ArrowConfig(**config["arrow_config"]))
    logits = routed(ids).logits
    assert logits.isfinite().all() and not torch.allclose(logits, plain, atol=1e-6)
    for name, expected in zip(("task_0", "task_1"), outputs, strict=True):
        routed.set_adapter(name)
        torch.testing.assert_close(routed(ids).logits, expected, rtol=1e-4, atol=1e-5)
    for more, words in (
        (["sum"], "at least two"),
        (["sum", "sum"], "named twice"),
        (["sum", "poem", "--top-k", "3", "--overwrite"], "top-k must be"),
        (["sum", "poem", "--temperature", "0", "--overwrite"], "temperature must be"),
        (["sum", "verse"], "no adapter verse"),
        (["sum", "poem"], "already exists"),
    ):
        again = [] if words == "already exists" else ["--overwrite"]
        command = ["route", "export", *more, *again, *library, "--out", str(out)]
        assert main(command) == 2 and words in capsys.readouterr().err


@pytest.fixture(scope="module")
def router(small_library: Path, encoder: Any) -> Path:
    out = small_library / "router"
    command = ["train", "fit", "--config", "configs/dlp_router.yaml", "--model.out", str(out)]
    command += ["--data.tasks", f"[{small_library / 'tasks'}]", "--trainer.max_epochs", "12"]
    command += ["--data.rows_per_task", "6", "--trainer.enable_progress_bar", "false"]
    command += ["--trainer.default_root_dir", str(small_library / "runs")]
    assert main([*command, "--trainer.logger", "false"]) == 0
    return out


@pytest.mark.filterwarnings("ignore")
def test_a_trained_router_knows_inputs_it_was_not_trained_on(
    router: Path, small_library: Path, encoder: Any
) -> None:
    loaded, tasks = load_router(router), read_tasks(small_library / "tasks")
    assert loaded.tasks == [task.name for task in tasks]
    about = json.loads((router / "config.json").read_text())["training"]
    assert about["val_accuracy"] > 0.9  # inputs name their task
    for task in tasks:
        vectors = torch.cat(
            [row.pooled for row in encoder.encode_batch([r.input for r in task.test])]
        )
        names = loaded.tasks
        nearest = [mix[0][0] for mix in loaded.nearest(vectors, names)]
        likeliest = [mix[0][0] for mix in loaded.top_p(vectors, names)]
        assert nearest.count(task.name) > 36 and likeliest.count(task.name) > 36
        others = [name for name in names if name != task.name]
        for mixes in (loaded.nearest(vectors, others), loaded.top_p(vectors, others)):
            assert task.name not in {name for mix in mixes for name, _ in mix}


@given(st.integers(2, 9), st.integers(0, 99), st.floats(0.05, 1), st.data())
def test_top_p_takes_the_fewest_tasks_that_reach_p(
    n: int, seed: int, p: float, data: st.DataObject
) -> None:
    router = Router(RouterConfig([f"t{i}" for i in range(n)], 5, 4, "e"))
    tiny.randomise(router, seed=seed, std=2.0)
    among = [name for name in router.tasks if data.draw(st.booleans())] or router.tasks[:1]
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        logits = router(x)[:, [router.tasks.index(name) for name in among]]
    for mix, row in zip(router.top_p(x, among, p), logits.softmax(-1), strict=True):
        share = dict(zip(among, row.tolist(), strict=True))
        names = [name for name, _ in mix]
        assert set(names) <= set(among) and 1 <= len(names) <= MAX_ADAPTERS
        assert sum(weight for _, weight in mix) == pytest.approx(1, abs=1e-5)
        assert len(names) == 1 or sum(share[name] for name in names[:-1]) < p + 1e-5
        assert len(names) in (MAX_ADAPTERS, len(among)) or sum(share[t] for t in names) > p - 1e-5
        others = [share[name] for name in among if name not in names]
        assert all(share[name] >= max(others, default=0) - 1e-6 for name in names)


def test_the_nearest_tasks_are_summed_all_alike() -> None:
    router = Router(RouterConfig(["a", "b", "c"], 2, 4, "e"))
    router.samples.copy_(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]))
    x = torch.tensor([[0.9, 0.1]])
    assert router.nearest(x, ["a", "b", "c"], k=2) == [[("a", 0.5), ("b", 0.5)]]
    assert router.nearest(x, ["c", "b"], k=3) == [[("b", 0.5), ("c", 0.5)]]
    assert router.nearest(x, ["c", "b"]) == [[("b", 1.0)]]


def test_routed_rows_are_answered_each_under_its_own_sum(
    router: Path, small_library: Path, tiny_base: Path, tmp_path: Path, monkeypatch: Any,
    encoder: Any,
) -> None:  # fmt: skip
    monkeypatch.setenv("LORASMITH_CACHE", str(tmp_path / "cache"))
    command = ["evaluate", "--tasks", str(small_library / "tasks"), "--base", str(tiny_base)]
    command += ["--methods", "per-request,dlp", "--library", str(small_library / "lib")]
    command += ["--limit", "1", "--out", str(tmp_path / "report.json")]
    lines = tmp_path / "lines.jsonl"
    assert main([*command, "--router", str(router), "--predictions", str(lines)]) == 0
    predictions = [json.loads(line) for line in lines.read_text().splitlines()]
    (task,) = read_tasks(small_library / "tasks")[:1]  # poem
    base, loaded = load_base(resolve_base(str(tiny_base))), load_router(router)
    by_task = {r["task"]: r["id"] for r in records(open_library(str(small_library / "lib")))}
    inputs = [row.input for row in task.test]
    vectors = torch.cat([row.pooled for row in encoder.encode_batch(inputs)])
    for method, choose in (("per-request", loaded.nearest), ("dlp", loaded.top_p)):
        answers = [line["prediction"] for line in predictions if line["method"] == method]
        for row, mix in list(enumerate(choose(vectors, ["sub", "sum"])))[:6]:
            parts = [
                read_peft(small_library / "lib" / "adapters" / by_task[name]) for name, _ in mix
            ]
            summed = weighted_sum(parts, [weight for _, weight in mix])
            (alone,) = greedy(base, [prompt_ids(base.tokenizer, inputs[row])], summed, [0])
            assert answers[row] == alone
    report = json.loads((tmp_path / "report.json").read_text())
    assert {row["method"] for row in report["rows"]} == {"per-request", "dlp"}


def test_a_router_that_is_not_there_or_damaged(
    small_library: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--tasks", str(small_library / "tasks"), "--base", str(tiny_base)]
    command += ["--methods", "dlp", "--library", str(small_library / "lib")]
    command += ["--out", str(tmp_path / "report.json")]
    assert main(command) == 2 and "need --router" in capsys.readouterr().err
    assert main([*command, "--router", str(tmp_path / "no")]) == 2
    assert "no router at" in capsys.readouterr().err
    with pytest.raises(MissingPath):
        load_router(tmp_path / "no")
    router = Router(RouterConfig(["a", "b"], 5, 4, "e"))
    save_checkpoint(tmp_path / "r", router, CheckpointInfo())
    assert torch.equal(load_router(tmp_path / "r").samples, router.samples)
    (tmp_path / "r" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_router(tmp_path / "r")
    (tmp_path / "r" / "config.json").write_text('{"format": 1}')
    with pytest.raises(CheckpointError, match="format 1"):
        load_router(tmp_path / "r")
