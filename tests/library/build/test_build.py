"""A library: built whole, killed and resumed, checked, on a disk and in an object store."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from building import BUILD, WORDS, built, command, content, tasks  # noqa: F401  (fixtures)
from peft import PeftModel
from transformers import AutoModelForCausalLM

from api.cli.main import main
from library.base.models import load_base, resolve_base
from library.build.build import BuildReport, ShardBuilder, begin
from library.build.plan import rows_digest, task_rows
from library.errors import LayoutMismatch, MissingPath, OutputError, OutputExists, UsageError
from library.layout import layout_of
from library.peft.read import read_peft
from library.store.folder import LibraryFolder
from library.store.open import open_library
from library.store.plan import JobPlan, Plan
from library.tasks.files import read_tasks

on_both = pytest.mark.usefixtures("catalogue_url")  # SQLite and PostgreSQL


def start(tasks: Path, base: Path, out: Path, *more: str) -> "subprocess.Popen[str]":
    """A build in a process of its own."""
    arguments = [sys.executable, "-m", "api", *command(tasks, base, str(out), "--resume", *more)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        arguments,
        cwd=tiny.ROOT,
        env=environment,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def wait_for_a_record(out: Path, process: "subprocess.Popen[str]") -> None:
    while not list(out.glob("records/*/*.json")) and process.poll() is None:
        time.sleep(0.002)


def said_at_the_end(process: "subprocess.Popen[str]") -> str:
    """The last line on stderr, if there is any; progress bars come before it."""
    _, errors = process.communicate(timeout=120)
    return (errors.splitlines() or [""])[-1]


def test_every_task_has_an_adapter_that_peft_reads(built: Path, tiny_base: Path) -> None:
    assert [record["task"] for record in content(built)] == [f"task{n}" for n in range(5)]
    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    ids, layout = tiny.tokens(2, 6), layout_of(base.config)
    for record in content(built):
        folder = built / "adapters" / record["id"]
        adapter = read_peft(folder, layout)
        expected = tiny.merged(base, adapter)(input_ids=ids).logits
        model = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(tiny_base), str(folder)
        )
        torch.testing.assert_close(model(input_ids=ids).logits, expected, atol=1e-4, rtol=0)
        assert not adapter.is_zero()


def test_a_build_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    tasks: Path, tiny_base: Path, built: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"

    def stored() -> int:
        return len(list(out.glob("records/*/*.json")))

    for _ in range(2):
        process = start(tasks, tiny_base, out)
        before = stored()
        while stored() == before and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    times = {file: file.stat().st_mtime_ns for file in out.glob("adapters/ad_*/*")}
    assert times
    assert main(command(tasks, tiny_base, str(out), "--resume")) == 0
    assert content(out) == content(built)
    assert all(file.stat().st_mtime_ns == then for file, then in times.items())
    resumed = {f.relative_to(out): f.read_bytes() for f in out.glob("adapters/ad_*/*")}
    undisturbed = {f.relative_to(built): f.read_bytes() for f in built.glob("adapters/ad_*/*")}
    assert resumed == undisturbed


SLOW = ("--steps", "40", "--slots", "1")  # one after the other, with time to get in between


def test_a_disk_that_fills_up_leaves_what_is_stored(
    tasks: Path, tiny_base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "full"
    process = start(tasks, tiny_base, out, *SLOW)
    wait_for_a_record(out, process)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, 100))
    message = said_at_the_end(process)
    assert process.returncode == 1 and "cannot write" in message and str(out) in message
    stored = {file: file.read_bytes() for file in out.glob("records/*/*.json")}
    assert 0 < len(stored) < 5
    assert main(["library", "check", "--library", str(out)]) == 0
    assert main(command(tasks, tiny_base, str(out), "--resume", *SLOW)) == 0
    assert len(content(out)) == 5
    assert all(file.read_bytes() == before for file, before in stored.items())


def test_a_library_that_vanishes_is_not_begun_again(
    tasks: Path, tiny_base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "going"
    process = start(tasks, tiny_base, out, *SLOW)
    wait_for_a_record(out, process)
    out.rename(tmp_path / "gone")
    assert said_at_the_end(process).endswith(f"the library {out} has vanished")
    assert process.returncode == 1


def test_an_adapter_that_many_store_at_once_is_stored(tmp_path: Path) -> None:
    folder = LibraryFolder(tmp_path)
    files = {name: name.encode() for name in ("a", "b", "c")}
    with ThreadPoolExecutor(8) as pool:
        for n in range(20):
            waiting = [pool.submit(folder.write_adapter, f"ad_{n}", files) for _ in range(8)]
            assert [future.result() for future in waiting] == [None] * 8
            assert folder.stamps(f"adapters/ad_{n}").keys() == files.keys()
    assert len(folder.stamps("adapters")) == 20


@on_both
def test_two_builders_at_once_make_one_library(
    tasks: Path, tiny_base: Path, built: Path, tmp_path: Path
) -> None:
    out = tmp_path / "both"
    processes = [start(tasks, tiny_base, out) for _ in range(2)]
    ends = [(said_at_the_end(process), process.returncode) for process in processes]
    assert [code for _, code in ends] == [0, 0], ends
    assert content(out) == content(built)
    assert sorted(p.name for p in (out / "adapters").iterdir()) == sorted(
        record["id"] for record in content(built)
    )
    assert main(["library", "check", "--library", str(out)]) == 0


@on_both
def test_list_says_what_the_contract_does(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["library", "list", "--library", str(built), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["adapters"] == [
        {
            **{k: r[k] for k in ("id", "sha256", "task", "recipe", "base_model", "rank")},
            "score": r["scores"]["tune_accuracy"],
        }
        for r in content(built)
    ]


@on_both
def test_an_object_store_holds_the_same_library(
    tasks: Path, tiny_base: Path, built: Path, tmp_path: Path
) -> None:
    url = f"memory://{tmp_path.name}"
    assert main(command(tasks, tiny_base, url)) == 0
    assert content(url) == content(built)
    assert main(["library", "check", "--library", url]) == 0


@on_both
def test_check_names_what_is_damaged(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    assert main(["library", "check", "--library", str(copy)]) == 0
    first, second, third, *_ = content(copy)
    weights = copy / "adapters" / first["id"] / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (copy / "adapters" / second["id"] / "provenance.json").unlink()
    provenance = copy / "adapters" / third["id"] / "provenance.json"
    provenance.write_text(provenance.read_text().replace("Name a colour", "Name a flavour"))
    capsys.readouterr()
    assert main(["library", "check", "--library", str(copy)]) == 1
    message = capsys.readouterr().err
    assert [r["id"] in message for r in content(copy)] == [True, True, True, False, False]
    assert main(["library", "remove", first["id"], "--library", str(copy)]) == 0
    assert len(content(copy)) == 4 and not weights.exists()


@on_both
def test_a_build_is_held_to_its_plan(tasks: Path, tiny_base: Path, built: Path) -> None:
    again = command(tasks, tiny_base, str(built))
    assert main(again) == 2
    assert main([*again, "--resume"]) == 0  # nothing left to do
    before = content(built)
    assert main([*again, "--resume", "--steps", "7"]) == 2
    assert main([*again, "--resume", "--rank", "4"]) == 1
    assert content(built) == before


@on_both
def test_bad_requests_say_what_is_wrong(tasks: Path, tiny_base: Path, tmp_path: Path) -> None:
    fresh = command(tasks, tiny_base, str(tmp_path / "new"))
    assert main([*fresh, "--recipe", "magic"]) == 2
    assert main([*fresh, "--targets", "lm_head"]) == 2
    assert main(command(tmp_path / "none", tiny_base, str(tmp_path / "new"))) == 2
    assert main(["library", "list", "--library", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "new").exists()
    with pytest.raises(OutputError, match="cannot be opened"):
        LibraryFolder("nosuch://place")
    with pytest.raises(MissingPath):
        open_library(str(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("mine")
    assert main(command(tasks, tiny_base, str(other), "--resume")) == 2
    assert [p.name for p in other.iterdir()] == ["file"]


def test_broken_and_unfit_tasks_are_named(
    tasks: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(tasks, mixed)
    (mixed / "broken.jsonl").write_text('{"input": "a"\n')
    (mixed / "broken.txt").write_text("Broken.")
    (mixed / "few.jsonl").write_text('{"input": "a", "output": "b"}\n' * 60)
    (mixed / "few.txt").write_text("Too few rows.")
    arguments = command(mixed, tiny_base, str(tmp_path / "new"))
    assert main(arguments) == 1
    capsys.readouterr()
    assert main([*arguments, "--skip-broken", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["adapters"] == 5
    assert set(summary["skipped"]) == {"broken.jsonl", "few"}


def test_plans_round_trip_and_variants_differ(built: Path, tasks: Path) -> None:
    data = json.loads((built / "library.json").read_text())
    assert Plan.from_dict(data).to_dict() == data
    with pytest.raises(UsageError, match="format 99"):
        Plan.from_dict({**data, "format": 99})
    task = read_tasks(tasks)[0]
    halves = [task_rows(JobPlan(task.name, v), task, 0) for v in (1, 2)]
    assert task_rows(JobPlan(task.name), task, 0) == task.train
    assert all(len(half) == 5 and set(half) < set(task.train) for half in halves)
    assert halves[0] != halves[1]


def test_a_folder_that_is_not_empty_is_not_taken(tmp_path: Path, built: Path) -> None:
    (tmp_path / "file").write_text("mine")
    plan = Plan.from_dict(json.loads((built / "library.json").read_text()))
    with pytest.raises(OutputExists):
        begin(LibraryFolder(tmp_path), plan, resume=True)


def test_reports_add_up() -> None:
    total = BuildReport(1, 2, 3, 4.0, 10, 40, 5)
    total.add(BuildReport(10, 20, 30, 40.0, 100, 200, 3))
    assert total == BuildReport(11, 22, 33, 4.0, 110, 240, 5)
    total.add(BuildReport(memory=2_500_000_000))
    assert total.summary() == {
        "adapters": 11,
        "kept": 22,
        "failed": 33,
        "seconds": 4.0,
        "tokens": 110,
        "tokens_per_second": 27.5,
        "adapters_per_second": 2.75,
        "padding": 0.5417,
        "gpu_memory_gb": 2.5,
    }
    nothing = BuildReport().summary()
    assert set(nothing.values()) == {0} and "gpu_memory_gb" not in nothing


def test_a_library_is_begun_once_and_gone_on_with_as_it_was_begun(
    built: Path, tmp_path: Path
) -> None:
    folder = LibraryFolder(tmp_path / "new")
    plan = Plan.from_dict(json.loads((built / "library.json").read_text()))
    begin(folder, plan, resume=False)
    assert folder.read_json("library.json") == plan.to_dict()
    with pytest.raises(OutputExists):
        begin(folder, plan, resume=False)
    begin(folder, plan, resume=True)
    other_base = plan.base | {"sha256": "0" * 64}
    changes: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"seed": plan.seed + 1}, UsageError, "seed"),
        ({"config": replace(plan.config, steps=7), "max_length": 9}, UsageError, "config, max_le"),
        ({"layout": plan.layout.with_rank(4)}, LayoutMismatch, "the library"),
        ({"base": other_base}, LayoutMismatch, "0" * 64),
    ]
    for change, error, words in changes:
        with pytest.raises(error, match=words):
            begin(folder, replace(plan, **change), resume=True)
    assert folder.read_json("library.json") == plan.to_dict()
    imported = LibraryFolder(tmp_path / "imported")
    imported.write_json("library.json", {"format": 1})
    with pytest.raises(OutputExists):
        begin(imported, plan, resume=False)
    begin(imported, plan, resume=True)
    assert imported.read_json("library.json") == plan.to_dict()


def test_a_shard_is_replayed_for_the_records_that_it_lacks(
    built: Path, tasks: Path, tiny_base: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    before = {file.name: file.read_bytes() for file in copy.glob("records/*/*.json")}
    (copy / "records" / "0000" / "task1.json").unlink()
    folder = LibraryFolder(copy)
    builder = ShardBuilder(folder, folder.plan(), load_base(resolve_base(str(tiny_base))))
    by_name = {task.name: task for task in read_tasks(tasks)}
    calls: list[tuple[int, int]] = []
    reports = list(builder.build_all(by_name, lambda *call: calls.append(call)))
    counts = [(report.stored, report.existing, report.failed) for report in reports]
    assert counts == [(1, 2, 0), (0, 2, 0)]
    first, second = reports
    assert 0 < first.tokens <= first.cells and (second.tokens, second.cells) == (0, 0)
    assert content(copy) == content(built)
    names = [file.name for file in copy.glob("records/*/*.json") if file.name != "task1.json"]
    after = {file.name: file.read_bytes() for file in copy.glob("records/*/*.json")}
    assert all(after[name] == before[name] for name in names)
    steps = [step for step, _ in calls]
    assert {total for _, total in calls} == {5 * 6}
    assert steps == sorted(steps) and steps[-1] == 5 * 6 and 3 * 6 in steps
    shutil.rmtree(copy / "records")
    (copy / "library.json").unlink()
    with pytest.raises(OutputError, match="vanished"):
        builder.build(0, by_name)


def test_a_record_says_how_its_adapter_was_trained(built: Path, tasks: Path) -> None:
    plan = Plan.from_dict(json.loads((built / "library.json").read_text()))
    for record in content(built):
        task = next(task for task in read_tasks(tasks) if task.name == record["task"])
        shard = next(n for n, jobs in enumerate(plan.shards) if JobPlan(task.name) in jobs)
        provenance = json.loads((built / "adapters" / record["id"] / "provenance.json").read_text())
        how = {"task": task.name, "variant": 0, "steps": record["steps"]}
        assert provenance["details"] == how
        assert provenance["generator"] == "oracle:lora" and provenance["checkpoint"] is None
        assert provenance["examples"] == rows_digest(task.train)
        assert provenance["base"] == plan.base
        for key in ("description", "seed", "layout_digest", "id", "sha256"):
            assert provenance[key] == record[key]
        assert (record["shard"], record["variant"]) == (shard, 0)
        assert (record["rank"], record["recipe"]) == (plan.layout.rank, "lora")
        assert 0 < record["best_step"] <= record["steps"] == 6
        assert set(record["scores"]) == {"tune_accuracy", "tune_loss"}
        assert record["descriptions"] == [task.definition] == [record["description"]]
