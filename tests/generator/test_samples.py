"""Samples: each has the bytes of a request of its own; all appear, or none."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

import lorasmith
from api.cli.main import main
from generator.engine import Engine, draws, read_generator, strategy_names
from generator.request import MAX_SEED, Query, Request
from generator.resources import Resources
from generator.samples import MAX_SAMPLES, sample_requests
from index.encoders.descriptions import DescriptionEncoder
from library.base import task_vectors
from library.base.models import BaseReference
from library.errors import UsageError
from library.progress import share_of
from library.tasks.files import Example

TASK, NAME = "Say yes or no.", "icm-lora"
FEW = (Example.pair("a", "yes"), Example.pair("b", "no"))


@pytest.fixture(scope="module")
def icm(icm_checkpoint: Path, encoder: DescriptionEncoder) -> Engine:
    return Engine([read_generator(icm_checkpoint)], Resources(encoders=[encoder]))


@pytest.fixture
def command(icm_checkpoint: Path, tiny_base: Path) -> list[str]:
    own = ["--base", str(tiny_base), "--checkpoint", str(icm_checkpoint), "--generator", NAME]
    return ["generate", TASK, *own]


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 5},
        {"examples": FEW, "refine": 0, "profile": "lossless"},
        {"examples": FEW, "refine": 2, "rank": 2, "seed": 1},
    ],
)
def test_samples_have_the_bytes_of_single_requests(
    options: dict[str, Any], icm: Engine, base: BaseReference
) -> None:
    request = Request(TASK, **options)
    requests = sample_requests(NAME, request, 3)
    assert [r.seed for r in requests] == [request.seed + number for number in range(3)]
    reported: list[tuple[int, int]] = []
    made = icm.samples(NAME, requests, base, lambda *counts: reported.append(counts))
    alone = [icm.generate(NAME, one, base) for one in requests]
    assert [m.files.files for m in made] == [a.files.files for a in alone]
    assert [m.summary for m in made] == [a.summary for a in alone]
    assert len({m.files.sha256 for m in made}) == len({m.files.id for m in made}) == 3
    if request.refines:
        assert len({total for _, total in reported}) == 1 and reported == sorted(reported)
        assert reported[-1][0] == reported[-1][1]


def test_the_base_reads_the_task_once_for_all(
    icm: Engine, base: BaseReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    inner = task_vectors._last_states
    monkeypatch.setattr(
        task_vectors, "_last_states", lambda *args: calls.append(args[1]) or inner(*args)
    )
    icm.samples(NAME, sample_requests(NAME, Request(TASK), 4), base)
    assert len(calls) == 1


def test_a_reseeded_query_leaves_the_first_as_it_was(icm: Engine, base: BaseReference) -> None:
    query = Query(Request(TASK, seed=3), base, icm.resources)
    other = query.reseeded(8)
    assert (query.request.seed, other.request.seed) == (3, 8)
    assert other.embeddings() is query.embeddings()


def test_parts_of_a_progress_add_up() -> None:
    seen: list[tuple[int, int]] = []
    for number in range(2):
        part = share_of(lambda *counts: seen.append(counts), number, 2)
        part(1, 3)
        part(3, 3)
    assert seen == [(1, 6), (3, 6), (4, 6), (6, 6)]


def test_the_command_writes_a_folder_for_each(
    command: list[str], icm_checkpoint: Path, tiny_base: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "three"
    asked = [*command, "--samples", "3", "--seed", "4", "--out", str(out), "--try", "Yes?"]
    assert main([*asked, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["out"] == str(out) and len(shown["samples"]) == 3
    assert sorted(entry.name for entry in out.iterdir()) == ["sample-1", "sample-2", "sample-3"]
    for number, sample in enumerate(shown["samples"]):
        folder = out / f"sample-{number + 1}"
        assert (sample["out"], sample["seed"]) == (str(folder), 4 + number)
        single = lorasmith.generate(
            TASK, generator=NAME, base=str(tiny_base), checkpoints=[icm_checkpoint], seed=4 + number
        )
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == single.files
        assert sample["id"] == single.id and {*single.summary} < {*sample}
        (tried,) = sample["tries"]
        assert tried["adapted"] == lorasmith.answer(["Yes?"], folder, base=str(tiny_base))[0]
        assert lorasmith.verify(folder, base=str(tiny_base)).verdict != "refuse"
    assert main(asked) == 2  # it exists
    assert "already exists" in tiny.one_sentence(capsys.readouterr())
    assert main([*asked, "--overwrite", "--samples", "2"]) == 0
    said = capsys.readouterr().out
    assert said.count("ad_") == 2 and f"{out}/sample-2" in said
    assert said.count("verified: warn\n  nothing like it was measured") == 2
    assert sorted(entry.name for entry in out.iterdir()) == ["sample-1", "sample-2"]


def test_a_checkpoint_of_another_generator_is_not_passed_over(
    small_checkpoint: Path, tiny_base: Path, tmp_path: Path, capsys: Any
) -> None:
    asked = ["generate", TASK, "--base", str(tiny_base), "--out", str(tmp_path / "a")]
    own = ["--generator", NAME, "--checkpoint", str(small_checkpoint)]
    assert main([*asked, *own]) == 1
    said = tiny.one_sentence(capsys.readouterr())
    assert f"{small_checkpoint} is a checkpoint of text-to-lora, not {NAME}" in said


def test_one_sample_is_an_adapter_as_ever(command: list[str], tmp_path: Path, capsys: Any) -> None:
    shown = []
    for more in ([], ["--samples", "1"]):
        out = ["--out", str(tmp_path / "a"), "--overwrite", "--json"]
        assert main([*command, *more, *out]) == 0
        summary = json.loads(capsys.readouterr().out)
        summary.pop("milliseconds")
        files = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
        shown.append((summary, files))
    assert shown[0] == shown[1] and "adapter_model.safetensors" in shown[0][1]


@pytest.mark.parametrize("name", [name for name in strategy_names() if not draws(name)])
def test_who_draws_nothing_has_no_samples(name: str, tmp_path: Path, capsys: Any) -> None:
    out = ["--out", str(tmp_path / "a"), "--samples", "2"]
    assert main(["generate", TASK, "--generator", name, *out]) == 2
    said = tiny.one_sentence(capsys.readouterr())
    assert f"{name} draws nothing" in said and "icm-lora and sg-lora" in said
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("count", [0, -1, MAX_SAMPLES + 1])
def test_counts_out_of_range_are_refused(
    count: int, command: list[str], tmp_path: Path, capsys: Any
) -> None:
    assert main([*command, "--out", str(tmp_path / "a"), "--samples", str(count)]) == 2
    assert f"samples must be from 1 to {MAX_SAMPLES}, not {count}" in capsys.readouterr().err
    with pytest.raises(UsageError, match="samples must be"):
        sample_requests("text-to-lora", Request(TASK), count)


def test_seeds_beyond_the_largest_are_refused() -> None:
    assert len(sample_requests(NAME, Request(TASK, seed=MAX_SEED - 1), 2)) == 2
    with pytest.raises(UsageError, match="seed must be"):
        sample_requests(NAME, Request(TASK, seed=MAX_SEED), 2)


def test_when_one_cannot_be_written_none_is_there(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from library import files

    written = []
    inner = files.write_synced

    def full(path: Path, content: bytes) -> None:
        written.append(path)
        if path.parent.name == "sample-2":
            raise OSError(28, "No space left on device")
        inner(path, content)

    monkeypatch.setattr(files, "write_synced", full)
    assert main([*command, "--samples", "2", "--out", str(tmp_path / "out" / "a")]) == 1
    assert any(path.parent.name == "sample-1" for path in written)
    assert list((tmp_path / "out").iterdir()) == []
