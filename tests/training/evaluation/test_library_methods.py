"""Methods that take adapters from a library, and examples in the prompt."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from api.cli.main import main
from generator.engine import Engine
from generator.resources import Resources
from index.encoders.descriptions import DescriptionEncoder
from index.merge.lora_rar import MergePredictor, MergePredictorConfig
from index.merge.weighted_sum import weighted_sum
from index.search.retriever import Retriever
from library.base.models import base_layout, load_base, load_tokenizer, resolve_base
from library.base.prompts import prompt_ids, shots_ids
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.errors import UsageError
from library.files import write_folder
from library.peft.read import read_peft
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from library.store.catalogue import records
from library.store.open import open_library
from library.tasks.files import Task, read_tasks
from training.evaluation import library_methods
from training.evaluation.library_methods import LibraryMethods
from training.evaluation.methods import Asked, parse_methods, proposals


def shelf_of(library: Path, base: Path, encoder: DescriptionEncoder) -> Retriever:
    return Retriever(open_library(str(library)), resolve_base(str(base)), encoder)


@pytest.fixture(scope="module")
def methods(small_library: Path, tiny_base: Path, encoder: DescriptionEncoder) -> LibraryMethods:
    shelf = shelf_of(small_library / "lib", tiny_base, encoder)
    return LibraryMethods(shelf, shelf)


def stored(small_library: Path) -> dict[str, Any]:
    found = records(open_library(str(small_library / "lib")))
    return {r["task"]: read_peft(small_library / "lib" / "adapters" / r["id"]) for r in found}


def same(ours: Any, theirs: Any) -> bool:
    mine, yours = tiny.deltas(ours), tiny.deltas(theirs)
    return all(torch.allclose(mine[name], yours[name], atol=1e-6) for name in mine)


def test_a_tasks_own_adapter_is_its_oracle_and_no_neighbour(
    methods: LibraryMethods, small_library: Path, encoder: DescriptionEncoder, tiny_base: Path
) -> None:
    tasks, own = read_tasks(small_library / "tasks"), stored(small_library)
    for task, oracle in zip(tasks, methods.adapters("oracle", tasks), strict=True):
        assert oracle is not None and same(oracle, own[task.name])
    engine = Engine([], Resources(open_library(str(small_library / "lib"))))
    base, (method,) = resolve_base(str(tiny_base)), parse_methods("nearest")
    found = proposals(engine, Asked(method, [task.definition for task in tasks]), base, tasks)
    by_name = {t.name: made.adapter for t, made in zip(tasks, found, strict=True) if made}
    assert same(by_name["sum"], own["sub"]) and same(by_name["sub"], own["sum"])
    vectors = {n: encoder.encode([text]).pooled[0] for n, text in tiny.LIBRARY_TASKS.items()}
    nearest = max(("sum", "sub"), key=lambda n: float(vectors["poem"] @ vectors[n]))
    assert same(by_name["poem"], own[nearest])


def test_soup_is_the_mean_and_top_k_leans_to_the_nearest(
    methods: LibraryMethods, small_library: Path
) -> None:
    new = Task("new", "Add the two numbers!", read_tasks(small_library / "tasks")[0].instances)
    own = list(stored(small_library).values())
    (soup,) = methods.adapters("soup", [new])
    (top,) = methods.adapters("top-k", [new])
    assert soup is not None and top is not None
    deltas = [tiny.deltas(adapter) for adapter in own]
    for name, delta in tiny.deltas(soup).items():
        torch.testing.assert_close(delta, torch.stack([d[name] for d in deltas]).mean(0))

    def distance(adapter: Any) -> float:
        near, ours = tiny.deltas(stored(small_library)["sum"]), tiny.deltas(adapter)
        return sum(float((ours[name] - near[name]).norm()) for name in near)

    assert distance(top) < distance(soup)
    tasks = read_tasks(small_library / "tasks")
    without = methods.adapters("soup", tasks[:1])[0]
    assert without is not None and not same(without, soup)
    with pytest.raises(UsageError, match="holds no adapter"):
        methods.adapters("oracle", [new])


def test_all_of_them_in_one_report(
    small_library: Path, tiny_base: Path, small_checkpoint: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("LORASMITH_CACHE", str(tmp_path / "cache"))
    names = "base,in-context,oracle,soup,nearest,top-k,text-to-lora"
    command = ["evaluate", "--tasks", str(small_library / "tasks"), "--base", str(tiny_base)]
    command += ["--checkpoint", str(small_checkpoint), "--methods", names]
    command += ["--mode", "bare,prompted", "--limit", "2"]
    report = tmp_path / "report.json"
    assert main([*command, "--out", str(report)]) == 1  # the shipped sample is for another base
    pages = ["--html", str(tmp_path / "r.html"), "--markdown", str(tmp_path / "r.md")]
    assert (
        main([*command, "--out", str(report), "--library", str(small_library / "lib"), *pages]) == 0
    )
    found = json.loads(report.read_text())
    rows = found["rows"]
    assert {r["method"] for r in rows} == set(names.split(",")) and len(rows) == 7 * 2 * 2
    assert found["abstentions"]["oracle"] == 0
    first = sorted(tiny.LIBRARY_TASKS)[:2]
    assert len(found["pairs"]) == 2 * 7 * 6 // 2 and sorted(found["similarity"]) == first
    page = (tmp_path / "r.html").read_text()
    assert page.count("<svg") >= 1 and all(f"<td>{name}</td>" in page for name in first)
    assert "src=" not in page and 'href="http' not in page and "@import" not in page
    assert (tmp_path / "r.md").read_text().startswith("| method | mode |")


def test_a_library_for_other_weights_is_refused(
    small_library: Path, tmp_path: Path, small_checkpoint: Path
) -> None:
    other = tmp_path / "other"
    tokenizer = load_tokenizer(resolve_base())
    config = tiny.config("llama", vocab_size=len(tokenizer), eos_token_id=2)
    tiny.model(config, seed=7).save_pretrained(other)
    tokenizer.save_pretrained(other)
    command = ["evaluate", "--tasks", str(small_library / "tasks"), "--base", str(other),
               "--checkpoint", str(small_checkpoint), "--methods", "soup",
               "--out", str(tmp_path / "r.json"),
               "--library", str(small_library / "lib")]  # fmt: skip
    assert main(command) == 1
    assert not (tmp_path / "r.json").exists()


def test_shots_are_earlier_turns() -> None:
    tokenizer = load_tokenizer(resolve_base())
    ids = shots_ids(tokenizer, [("one", "1"), ("two", "2")], "three")
    text = tokenizer.decode(ids)
    order = [text.index(piece) for piece in ("one", "1", "two", "2", "three")]
    assert order == sorted(order) and text.endswith("<|im_start|>assistant\n")
    assert shots_ids(tokenizer, [], "three") == prompt_ids(tokenizer, "three")


def test_oracles_are_trained_on_the_spot_once(
    small_library: Path, tiny_base: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("LORASMITH_CACHE", str(tmp_path / "cache"))
    command = ["evaluate", "--tasks", str(small_library / "tasks"), "--base", str(tiny_base)]
    command += ["--methods", "base,oracle", "--limit", "2", "--overwrite", "--out"]
    for n in range(2):
        assert main([*command, str(tmp_path / f"{n}.json")]) == 0
    (made,) = (tmp_path / "cache" / "oracles").iterdir()
    assert {r["task"] for r in records(open_library(str(made)))} == {"poem", "sub"}
    first, again = (json.loads((tmp_path / f"{n}.json").read_text())["rows"] for n in range(2))
    assert first == again
    scores = {r["task"]: r["rouge_l"] for r in first if r["method"] == "oracle"}
    assert set(scores) == {"poem", "sub"}


MERGED = "lego,lora-rar,lorahub:5"


def test_merged_methods_in_one_report_and_no_own_adapter(
    small_library: Path,
    tiny_base: Path,
    encoder: DescriptionEncoder,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    monkeypatch.setenv("LORASMITH_CACHE", str(tmp_path / "cache"))
    network = MergePredictor(MergePredictorConfig(8))
    save_checkpoint(tmp_path / "predictor", network, CheckpointInfo())
    command = ["evaluate", "--tasks", str(small_library / "tasks"), "--base", str(tiny_base)]
    command += ["--library", str(small_library / "lib"), "--methods", MERGED, "--limit", "1"]
    command += ["--predictor", str(tmp_path / "predictor"), "--out", str(tmp_path / "r.json")]
    assert main(command) == 0
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert {(r["task"], r["method"]) for r in rows} == {
        ("poem", method) for method in MERGED.split(",")
    }
    base = load_base(resolve_base(str(tiny_base)))
    shelf = shelf_of(small_library / "lib", tiny_base, encoder)
    methods = LibraryMethods(shelf, shelf, tmp_path / "predictor", 3)
    task, own = read_tasks(small_library / "tasks")[0], stored(small_library)
    others = [own[name] for name in sorted(own) if name != task.name]
    pair = tiny.deltas(weighted_sum(others, [0.5, 0.5]))
    (rar,) = methods.adapters("lora-rar", [task])
    assert rar is not None  # a network of zeros: the mean of the two that are left
    for name, delta in tiny.deltas(rar).items():
        torch.testing.assert_close(delta, pair[name])
    (hub,) = methods.adapters("lorahub:5", [task], base)
    assert hub is not None
    flat = [torch.cat([d.flatten() for d in tiny.deltas(a).values()]) for a in (*others, hub)]
    basis = torch.stack(flat[:2], dim=1).double()
    found = torch.linalg.lstsq(basis, flat[2].double()[:, None]).solution
    torch.testing.assert_close((basis @ found)[:, 0], flat[2].double(), atol=1e-5, rtol=1e-4)
    with pytest.raises(UsageError, match="lora-rar needs a predictor"):
        LibraryMethods(shelf, shelf).adapters("lora-rar", [task])


def test_adapters_of_another_rank_take_part(
    small_library: Path, tiny_base: Path, encoder: DescriptionEncoder, tmp_path: Path
) -> None:
    """One that was truncated and imported is as good as any other."""
    shutil.copytree(small_library / "lib", tmp_path / "lib")
    (record,) = (r for r in records(open_library(str(small_library / "lib"))) if r["task"] == "sum")
    layout = base_layout(
        resolve_base(str(tiny_base)),
        read_peft(small_library / "lib/adapters" / record["id"]).layout,
    )
    short = read_peft(small_library / "lib/adapters" / record["id"], layout).with_rank(1)
    files = to_peft(short, base_name=str(tiny_base), profile="lossless")
    write_folder(tmp_path / "short", {CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.weights})
    command = ["library", "import", str(tmp_path / "short"), "--library", str(tmp_path / "lib")]
    command += [
        "--base",
        str(tiny_base),
        "--task",
        "total",
        "--description",
        tiny.LIBRARY_TASKS["sum"],
    ]
    assert main(command) == 0
    shelf = shelf_of(tmp_path / "lib", tiny_base, encoder)
    methods = LibraryMethods(shelf, shelf)
    new = Task("new", "Add the two numbers!", read_tasks(small_library / "tasks")[0].instances)
    (soup,) = methods.adapters("soup", [new])
    whole = [
        small_library / "lib/adapters" / r["id"]
        for r in records(open_library(str(small_library / "lib")))
    ]
    parts = [*(read_peft(path, layout) for path in whole), short]
    wanted = tiny.deltas(weighted_sum(parts, [0.25] * 4))
    assert soup is not None and soup.layout.rank == 13
    for name, delta in tiny.deltas(soup).items():
        torch.testing.assert_close(delta, wanted[name])


def test_the_soup_of_a_large_library_leaves_the_own_adapter_out(
    methods: LibraryMethods, small_library: Path, tiny_base: Path, monkeypatch: Any
) -> None:
    task = read_tasks(small_library / "tasks")[0]
    (exact,) = methods.adapters("soup", [task])
    monkeypatch.setattr(library_methods, "MAX_RANK_FACTOR", 1)
    (cut,) = methods.adapters("soup", [task])  # all three at twice the rank, less one
    (all_of_them,) = methods.adapters("soup", [Task("new", "Add.", task.instances)])
    assert exact is not None and cut is not None and all_of_them is not None
    assert cut.layout.rank == all_of_them.layout.rank == 4
    best = tiny.deltas(exact.with_rank(4))
    for name, delta in tiny.deltas(exact).items():
        error = float((tiny.deltas(cut)[name] - delta).norm())
        assert error <= 1.2 * float((best[name] - delta).norm()) + 0.1 * float(delta.norm())
