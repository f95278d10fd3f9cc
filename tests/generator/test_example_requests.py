"""Requests to a Text-to-LoRA that reads examples: with a description, alone, and then trained."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from rest import assert_problem, client_of, post

from api.cli.main import main
from api.service.settings import Settings
from generator.engine import Engine, read_generator
from generator.layers.config import TextToLoRAConfig
from generator.models.text_to_lora import TextToLoRA
from generator.request import UNTRAINED, Query, Request
from generator.resources import Resources
from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder
from library.adapter import Adapter
from library.base.models import BaseReference, load_config
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.errors import UsageError
from library.layout import layout_of
from library.tasks.files import Example, Task
from training.evaluation.methods import Asked, parse_methods, proposals

pytestmark = pytest.mark.slow
NAME, TASK = "text-to-lora", "Say yes or no."
FEW = tuple(Example.pair(f"row {i}", ("yes", "no")[i % 2]) for i in range(4))
MOST = 3  # pairs that the checkpoint reads


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, base: BaseReference) -> Path:
    """A small checkpoint for the tiny base that reads examples, with random weights."""
    config = TextToLoRAConfig(
        384, latent=16, head_in=24, queries=2, words_dim=384, reader_dim=8, examples=MOST
    )
    module = TextToLoRA(config, layout_of(load_config(base), rank=4))
    tiny.randomise(module, std=0.2)
    info = CheckpointInfo({"id": "tiny", "sha256": None, "source": "random"}, DEFAULT_ENCODER)
    folder = tmp_path_factory.mktemp("reading") / NAME
    save_checkpoint(folder, module, info, storage="int8")
    return folder


@pytest.fixture(scope="module")
def reading(folder: Path, encoder: DescriptionEncoder) -> Engine:
    return Engine([read_generator(folder)], Resources(encoders=[encoder]))


def made(engine: Engine, base: BaseReference, description: str | None, *few: Example) -> Adapter:
    return engine.propose(NAME, Request(description, examples=few, refine=0), base).adapter


def same(one: Adapter, other: Adapter) -> bool:
    return all(
        (a - b).abs().max() < 1e-9 for a, b in zip(one.factors(), other.factors(), strict=True)
    )


def test_description_and_examples_make_the_adapter(reading: Engine, base: BaseReference) -> None:
    few = FEW[:MOST]
    found = [
        made(reading, base, TASK),
        made(reading, base, TASK, *few),
        made(reading, base, None, *few),
        made(reading, base, "Translate to French.", *few),
        made(reading, base, TASK, *few[:1]),
        made(reading, base, TASK, few[0], Example.pair("row 1", "yes"), few[2]),
    ]
    for i, one in enumerate(found):
        assert [same(one, other) for other in found] == [i == j for j in range(len(found))]
    assert same(made(reading, base, TASK, *few[::-1]), found[1])
    assert same(made(reading, base, TASK, *few, FEW[3]), found[1])  # it reads so many


def test_the_record_says_how_many_examples_were_read(reading: Engine, base: BaseReference) -> None:
    for description, windows in ((TASK, 1), (None, None)):
        request = Request(description, examples=FEW, refine=0)
        proposal = reading.propose(NAME, request, base)
        assert proposal.details["examples_read"] == MOST and proposal.saw_examples
        assert proposal.details.get("encoder_windows") == windows
        assert proposal.details["encoder"] == DEFAULT_ENCODER
        assert proposal.usage.mode == ("bare" if description is None else "prompted")
    alone = reading.propose(NAME, Request(TASK), base)
    assert "examples_read" not in alone.details and not alone.saw_examples


def test_training_starts_from_what_the_examples_gave_and_holds_none_of_them_out(
    reading: Engine, base: BaseReference
) -> None:
    query = Query(Request(None, examples=FEW, refine=1), base, reading.resources)
    start = reading.start(NAME, query)
    assert same(start.adapter, made(reading, base, None, *FEW))
    refined = reading.propose(NAME, query.request, base).refined
    assert refined is not None and refined.used == 4 and refined.held_out is None


def test_examples_alone_by_the_command(
    folder: Path, tiny_base: Path, small_checkpoint: Path, tmp_path: Path, capsys: Any
) -> None:
    file, out = tmp_path / "few.jsonl", tmp_path / "a"
    file.write_text("".join(json.dumps({"input": e.input, "output": e.output}) + "\n" for e in FEW))
    asked = ["generate", "--base", str(tiny_base), "--examples", str(file), "--out", str(out)]
    for name in (NAME, "auto"):
        own = ["--generator", name, "--checkpoint", str(folder), "--refine", "0", "--overwrite"]
        assert main([*asked, *own, "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["refined"], shown["usage"]["mode"]) == (None, "bare")
        assert shown["chosen"]["strategy"] == NAME
        told = json.loads((out / "provenance.json").read_text())
        assert told["description"] is None and told["details"]["examples_read"] == MOST
    for name, words in ((NAME, "cannot use examples without training"), ("auto", UNTRAINED)):
        other = ["--generator", name, "--checkpoint", str(small_checkpoint), "--refine", "0"]
        assert main([*asked, *other, "--overwrite"]) == 2
        assert words in tiny.one_sentence(capsys.readouterr())


def test_examples_alone_by_rest(
    folder: Path, reading: Engine, tiny_base: Path, tmp_path: Path
) -> None:
    settings = Settings(
        data=tmp_path / "data", checkpoints={NAME: folder}, bases={"tiny": str(tiny_base)}
    )
    pairs = [{"input": e.input, "output": e.output} for e in FEW]
    with client_of(settings, reading) as client:
        offers = client.get("/v1/generators").json()["generators"]
        (offer,) = (offer for offer in offers if offer["name"] == NAME)
        assert offer["uses_examples"] and offer["needs"] == []
        body = {"examples": pairs, "refine": 0, "generator": NAME}
        answer = post(client, body)
        assert answer.status_code == 201 and answer.json()["usage"]["mode"] == "bare"
        assert_problem(post(client, {"generator": NAME}), 422)
        prompted = assert_problem(post(client, {**body, "mode": "prompted"}), 422)
        assert "needs a description" in prompted["detail"]


def test_methods_go_by_examples_instead_of_training(
    reading: Engine, alone: Engine, base: BaseReference
) -> None:
    rows = tuple(Example(str(i), f"row {i}", (("yes", "no")[i % 2],)) for i in range(66))
    other = tuple(Example(str(i), f"word {i}", (f"mot {i}",)) for i in range(66))
    tasks = [Task("one", TASK, rows), Task("two", "Translate.", other)]

    def found(name: str, engine: Engine = reading, **asked: Any) -> list[Any]:
        (method,) = parse_methods(name)
        texts = [None if method.suffix == "no-description" else t.definition for t in tasks]
        return proposals(engine, Asked(method, texts, **asked), base, tasks)

    direct = [made(reading, base, t.definition, *t.train[:2]) for t in tasks]
    for mode in ("bare", "prompted", "best"):
        both = found(f"{NAME}:2", mode=mode)
        assert [same(p.adapter, a) for p, a in zip(both, direct, strict=True)] == [True, True]
        assert [p.refined for p in both] == [None, None]
        undescribed = found(f"{NAME}:2:no-description", mode=mode)[0]
        assert same(undescribed.adapter, made(reading, base, None, *rows[:2]))
    swapped, nothing = found(f"{NAME}:2:wrong-examples", lenders=[1, None])
    assert same(swapped.adapter, made(reading, base, TASK, *other[:2])) and nothing is None
    assert found(f"refine:{NAME}:2")[0].refined.used == 2
    assert found(f"{NAME}:2", alone)[0].refined.used == 2  # its checkpoint reads none
    with pytest.raises(UsageError, match=f"this {NAME} checkpoint reads {MOST} examples"):
        found(f"{NAME}:4")
