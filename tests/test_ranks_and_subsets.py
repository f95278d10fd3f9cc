"""Adapters with ranks of their own by module, fewer layers or other modules, at every door.

Four kinds, each in a library beside adapters of q_proj and v_proj at rank 4. Wherever one goes in
and comes out its ΔW is the same, and where ranks can be kept they are.
"""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import tiny
import torch
import zk_world
from jobs import ended, send
from peft import ArrowConfig, PeftModel, create_arrow_model
from rest import client_of
from transformers import AutoModelForCausalLM
from uploads import tar_of, upload

from api.cli.main import main
from api.service.settings import Settings
from generator.engine import Engine
from generator.models.text_to_lora import TextToLoRA
from generator.resources import Resources
from index.encoders.descriptions import DEFAULT_ENCODER
from index.encoders.weights import WeightEncoder, WeightEncoderConfig
from index.merge.methods import METHODS
from index.search.retriever import Retriever
from library.adapter import Adapter
from library.base.models import load_config, resolve_base
from library.base.stored_adapters import read_for_base
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.exchange.gguf_lora import gguf_lora
from library.files import write_folder
from library.layout import Layout, layout_of
from library.peft.folder import read_adapter_folder
from library.peft.provenance import adapter_id
from library.peft.read import read_peft
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from library.store.catalogue import files_of, records
from library.store.open import open_library
from training.data.adapters import LibraryDataModule
from training.objectives.module import OptimiserConfig
from training.objectives.reconstruction import Reconstruction
from verification.zk.backend import Backend, local_srs
from verification.zk.bundle import prove_hashed, verify_hashed
from verification.zk.manifest import commit_adapter
from verification.zk.proof import Owner

pytestmark = pytest.mark.slow
KINDS = ("adalora", "layers", "modules", "ranks")
DESCRIPTION = "Name the capital of a country."


@dataclass(frozen=True)
class Subject:
    """One adapter of a kind.

    Attributes:
        library: that it is in, by the task `subject`, beside two others.
        folder: its files as they lie in the library.
        adapter: as it was before it went there.
    """

    kind: str
    library: Path
    folder: Path
    adapter: Adapter

    @property
    def id(self) -> str:
        return self.folder.name


def layouts(base: Path) -> dict[str, Layout]:
    config = load_config(resolve_base(str(base)))
    full = layout_of(config, rank=4)
    return {
        "layers": full.with_ranks({name: 3 for name in full.ranks if ".layers.0." in name}),
        "modules": layout_of(config, ["k_proj", "o_proj", "gate_proj", "down_proj"], rank=2),
        "ranks": tiny.with_ranks(full, [1, 3, 4, 2]),
    }


@pytest.fixture(scope="module")
def libraries(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One library trained by AdaLoRA, and one trained by lora into which the others came."""
    root = tmp_path_factory.mktemp("kinds")
    tiny.write_tasks(root / "tasks", {**tiny.LIBRARY_TASKS, "subject": DESCRIPTION})
    build = ["library", "build", "--base", str(tiny_base), "--steps", "12", "--rank", "4"]
    more = ["--recipe", "adalora", "--lr", "0.01", "--tasks", str(root / "tasks")]
    assert main([*build, *more, "--out", str(root / "adalora")]) == 0
    (root / "tasks" / "subject.jsonl").unlink()
    assert main([*build, "--tasks", str(root / "tasks"), "--out", str(root / "lora")]) == 0
    made = {"adalora": root / "adalora"}
    for kind, layout in layouts(tiny_base).items():
        made[kind] = root / kind
        shutil.copytree(root / "lora", made[kind])
        files = to_peft(
            tiny.adapter(layout).scaled(0.05), base_name=str(tiny_base), profile="lossless"
        )
        source = root / "sources" / kind
        write_folder(source, {CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.weights})
        how = ["--task", "subject", "--description", DESCRIPTION, "--library", str(made[kind])]
        how += [] if kind == "layers" else ["--base", str(tiny_base)]  # else of an unknown family
        assert main(["library", "import", str(source), *how]) == 0
    return made


@pytest.fixture(scope="module", params=KINDS)
def subject(request: pytest.FixtureRequest, libraries: dict[str, Path], tiny_base: Path) -> Subject:
    library = libraries[request.param]
    (record,) = (r for r in records(open_library(str(library))) if r["task"] == "subject")
    folder = library / "adapters" / record["id"]
    source = library.parent / "sources" / request.param
    adapter = read_for_base(source if source.exists() else folder, resolve_base(str(tiny_base)))
    return Subject(request.param, library, folder, adapter)


@pytest.fixture
def run(subject: Subject, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command on the subject's library and base, and gives what it printed."""

    def command(*words: object, library: bool = True, base: bool = True) -> str:
        options = ["--library", str(subject.library)] * library + ["--base", str(tiny_base)] * base
        capsys.readouterr()
        code = main([*map(str, words), *options])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    return command


def close(made: Adapter, wanted: dict[str, torch.Tensor], tolerance: float = 0.02) -> None:
    found = tiny.deltas(made.to(dtype=torch.float64))
    for name in {**found, **wanted}:
        delta = wanted.get(name, torch.zeros(()))
        error = float((found.get(name, torch.zeros(())) - delta).norm())
        assert error <= tolerance * float(delta.norm()) + 1e-7, name


def deltas(adapter: Adapter) -> dict[str, torch.Tensor]:
    return tiny.deltas(adapter.to(dtype=torch.float64))


def logits(base: Path, adapter: Adapter | None, folder: Path | None = None) -> torch.Tensor:
    """Of the base with ΔW in its weights, or of PEFT's model with a folder."""
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    model = PeftModel.from_pretrained(model, folder) if folder else tiny.merged(model, adapter)
    return model.eval()(input_ids=tiny.tokens(2, 7)).logits


def read(folder: Path, base: Path) -> Adapter:
    return read_for_base(folder, resolve_base(str(base)))


def test_the_library_keeps_its_ranks(subject: Subject, run: Any, tiny_base: Path) -> None:
    stored = read(subject.folder, tiny_base)
    close(stored, deltas(subject.adapter), 1e-6)
    assert stored.layout == subject.adapter.layout
    if subject.kind == "adalora":  # 4 on average is what was asked for, and no module has 0
        assert 16 <= sum(stored.layout.ranks.values()) <= 19
    one_rank = len({*stored.layout.ranks.values()}) == 1
    assert one_rank == (subject.kind in ("layers", "modules"))
    config = json.loads((subject.folder / CONFIG_FILE).read_text())
    assert one_rank == (config["rank_pattern"] == {})
    shown = json.loads(run("library", "show", "subject", base=False))
    assert shown["rank"] == stored.layout.rank and subject.id in run("library", "list", base=False)
    provenance = json.loads((subject.folder / "provenance.json").read_text())
    assert provenance["layout_digest"] == shown["layout_digest"]
    assert "none damaged" in run("library", "check", base=False)


@pytest.mark.parametrize("profile", ["portable", "lossless", None])
def test_it_is_exported_and_loaded_by_peft(
    profile: str | None, subject: Subject, run: Any, tiny_base: Path, tmp_path: Path
) -> None:
    words = ["--profile", profile] if profile else []
    run("library", "export", "subject", "--out", tmp_path / "out", *words, base=False)
    out = read(tmp_path / "out", tiny_base)
    close(out, deltas(subject.adapter), 0.02 if profile == "portable" else 1e-6)
    layout = subject.adapter.layout
    assert out.layout == (layout.with_rank(layout.rank) if profile == "portable" else layout)
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    if subject.kind != "layers":  # whose family nobody told
        assert provenance["layout_digest"] == out.layout.digest
    config = json.loads((tmp_path / "out" / CONFIG_FILE).read_text())
    assert provenance["id"] == adapter_id(config, provenance["sha256"], provenance)
    torch.testing.assert_close(
        logits(tiny_base, None, tmp_path / "out"), logits(tiny_base, out), atol=1e-4, rtol=0
    )


def test_it_is_packed_and_comes_out_with_its_ranks(
    subject: Subject, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORASMITH_CACHE", str(tmp_path / "cache"))
    assert main(["library", "pack", "--library", str(subject.library), "--out",
                 str(tmp_path / "packed")]) == 0  # fmt: skip
    copy = open_library(str(tmp_path / "packed"))
    assert main(["library", "check", "--library", str(tmp_path / "packed")]) == 0
    source = {r["task"]: r for r in records(open_library(str(subject.library)))}
    assert {r["task"] for r in records(copy)} == source.keys()
    for record in records(copy):
        assert record["parents"] == [source[record["task"]]["id"]]
        own = read_peft(subject.library / "adapters" / source[record["task"]]["id"])
        came = read_peft(Path(copy.location) / "adapters" / record["id"])
        assert came.layout == own.layout and record["rank"] == own.layout.rank
        close(came, deltas(own))
    assert main(["library", "pack", "--library", str(subject.library), "--rank", "1", "--out",
                 str(tmp_path / "cut")]) == 0  # fmt: skip
    cut = open_library(str(tmp_path / "cut"))
    (record,) = (r for r in records(cut) if r["task"] == "subject")
    assert record["rank"] == 1
    best = subject.adapter.with_rank(1)
    close(read_peft(Path(cut.location) / "adapters" / record["id"]), deltas(best))


def test_it_leaves_for_llama_cpp_and_registries(
    subject: Subject, tiny_base: Path, tmp_path: Path
) -> None:
    made = gguf_lora(read_adapter_folder(subject.folder), str(tiny_base))
    assert len(made.tensors) == 2 * len(subject.adapter.layout.sites)
    assert {min(t.shape) for t in made.tensors.values()} == {subject.adapter.layout.rank}
    out = ["--as", "oci", "--out", str(tmp_path / "oci")]
    assert main(["export", str(subject.folder), *out]) == 0


def test_it_is_found_by_text_and_by_its_weights(
    subject: Subject, run: Any, tiny_base: Path, tmp_path: Path
) -> None:
    """By weights as far as the encoder knows its modules; else a sentence says why not."""
    found = json.loads(run("search", DESCRIPTION, "--json", base=False))["results"]
    assert found[0]["id"] == subject.id
    encoder = WeightEncoder(WeightEncoderConfig(384, directions=8, dimension=16), read(
        subject.folder.parent / plain(subject), tiny_base).layout.with_rank(1)
    )  # fmt: skip
    tiny.randomise(encoder)
    info = CheckpointInfo({"id": str(tiny_base), "sha256": None, "source": ""}, DEFAULT_ENCODER)
    save_checkpoint(tmp_path / "encoder", encoder, info, storage="float32")
    weights = ["--weight-encoder", tmp_path / "encoder"]
    said = run("index", "build", *weights, base=False)
    if subject.kind == "modules":
        assert "3 adapters by their weights" in said
        assert (
            "1 left out: the adapter changes none of the 4 modules that the weight encoder" in said
        )
        return
    assert "left out" not in said
    asked = ["search", subject.folder, *weights, "--by", "weights", "--json"]
    found = json.loads(run(*asked, base=False))["results"]
    assert found[0]["id"] == subject.id and found[0]["score"] == pytest.approx(1, abs=1e-6)


def plain(subject: Subject) -> str:
    """The id of another adapter of the library."""
    found = records(open_library(str(subject.library)))
    return next(record["id"] for record in found if record["task"] == "sum")


@pytest.mark.parametrize("method", METHODS)
def test_it_is_merged(
    method: str, subject: Subject, run: Any, tiny_base: Path, tmp_path: Path
) -> None:
    words = ["--examples", rows(tmp_path)] if METHODS[method].examples else []
    words += ["--out", tmp_path / "out", "--profile", "lossless", "--method", method]
    run("compose", "sum", "subject", *words)
    made = read(tmp_path / "out", tiny_base)
    names = [*read(subject.folder.parent / plain(subject), tiny_base).layout.ranks]
    assert made.layout.ranks.keys() == {*names, *subject.adapter.layout.ranks}
    if method in ("cat", "soup"):
        one = deltas(read(subject.folder.parent / plain(subject), tiny_base).scaled(0.5))
        other = deltas(subject.adapter.scaled(0.5))
        wanted = {n: one.get(n, 0) + other.get(n, 0) for n in {**one, **other}}
        close(made, wanted, 1e-5)  # type: ignore[arg-type]
        peft = logits(tiny_base, None, tmp_path / "out")
        torch.testing.assert_close(peft, logits(tiny_base, made), atol=1e-4, rtol=0)


def rows(folder: Path) -> Path:
    lines = [json.dumps({"input": f"sum {i}", "output": f"{i % 7}"}) for i in range(6)]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder / "rows.jsonl"


@pytest.mark.parametrize("generator", ["nearest", "auto"])
def test_a_description_like_its_own_gives_it(
    generator: str, subject: Subject, run: Any, tiny_base: Path, tmp_path: Path
) -> None:
    words = ["--generator", generator, "--mode", "bare", "--out", tmp_path / "out", "--json"]
    said = json.loads(run("generate", DESCRIPTION, *words))
    assert said["chosen"]["neighbours"][0]["id"] == subject.id
    close(read(tmp_path / "out", tiny_base), deltas(subject.adapter))
    assert said["layout_digest"] == read(tmp_path / "out", tiny_base).layout.digest


def test_it_takes_part_in_a_sum_of_neighbours(
    subject: Subject, run: Any, tiny_base: Path, tmp_path: Path
) -> None:
    words = ["--generator", "compose", "--out", tmp_path / "out", "--json"]
    said = json.loads(run("generate", DESCRIPTION, *words))
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    total: dict[str, torch.Tensor] = {}
    for parent, weight in zip(provenance["parents"], provenance["details"]["weights"], strict=True):
        for name, delta in deltas(read(subject.folder.parent / parent, tiny_base)).items():
            total[name] = total.get(name, torch.zeros(())) + weight * delta
    assert subject.id in provenance["parents"] and len(provenance["parents"]) >= 3
    close(read(tmp_path / "out", tiny_base), total)
    assert said["rank"] == read(tmp_path / "out", tiny_base).layout.rank
    # With examples `auto` tries it beside those of other modules.
    words = ["--mode", "bare", "--refine", "0", "--examples", rows(tmp_path), "--json"]
    said = json.loads(run("generate", DESCRIPTION, *words, "--out", tmp_path / "auto"))
    assert "of these: compose" in said["chosen"]["reason"]
    assert "nearest subject" in said["chosen"]["reason"]


def test_it_is_refined_and_verified(
    subject: Subject, run: Any, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--examples", rows(tmp_path), "--steps", "2", "--out", tmp_path / "out"]
    run("refine", subject.folder, *words, "--profile", "lossless", library=False)
    made = read(tmp_path / "out", tiny_base)
    assert made.layout == subject.adapter.layout
    assert deltas(made).keys() == deltas(subject.adapter).keys()
    hooks = ["--hooks", "screening,neighbours,agreement,behaviour", "--json"]
    said = json.loads(run("verify", subject.folder, *hooks, "--examples", rows(tmp_path)))
    assert said["verdict"] in ("accept", "warn")
    codes = {finding["hook"]: finding["code"] for finding in said["findings"]}
    assert codes["screening"] == "screening-not-applicable"
    assert codes["agreement"] == "agreement-not-applicable"
    comparable = subject.kind in ("adalora", "ranks")  # the others lack modules
    assert codes["neighbours"].endswith("not-comparable") != comparable
    assert codes["behaviour"] != "behaviour-unmeasured"


def test_methods_of_the_library_take_it(
    subject: Subject, run: Any, tiny_base: Path, tmp_path: Path
) -> None:
    methods = "oracle,nearest,top-k,soup,lego"
    tiny.write_tasks(tmp_path / "tasks", {"subject": DESCRIPTION})
    words = ["--tasks", tmp_path / "tasks", "--methods", methods, "--mode", "bare"]
    run("evaluate", *words, "--out", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert {row["method"] for row in report["rows"]} == {*methods.split(",")}


def test_peft_routes_over_it(
    subject: Subject, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside an adapter of q_proj and v_proj; PEFT's Arrow wants the same modules of all."""
    words = ["sum", "subject", "--library", str(subject.library), "--out", str(tmp_path / "set")]
    code = main(["route", "export", *words])
    if subject.kind == "modules":
        assert code == 1 and "the base's layout is" in capsys.readouterr().err
        return
    assert code == 0
    config = json.loads((tmp_path / "set" / "arrow.json").read_text())
    paths = [str(tmp_path / "set" / expert["path"]) for expert in config["experts"]]
    close(read(Path(paths[1]), tiny_base), deltas(subject.adapter))
    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    routed = create_arrow_model(base, paths, ArrowConfig(**config["arrow_config"]))
    assert routed(tiny.tokens(1, 9)).logits.isfinite().all()


@pytest.mark.parametrize("target", ["factors", "delta_w"])
def test_a_generator_trains_on_its_library(target: Any, subject: Subject, tiny_base: Path) -> None:
    data = LibraryDataModule(str(subject.library), steps=120, experts=0)
    data.setup("fit")
    taken = subject.kind != "modules"  # of which the library's own layout has none
    assert ("subject" in data.row_tasks) == taken
    if taken:
        row = data.row_tasks.index("subject")
        close(data.adapters[[row]], deltas(subject.adapter), 1e-6)
    lightning.seed_everything(0)
    module = Reconstruction(generator=TextToLoRA, target=target, base=str(tiny_base),
                            rank=data.layout.rank,
                            architecture={"latent": 32, "head_in": 64, "dropout": 0.0},
                            optimiser=OptimiserConfig(lr=1e-2))  # fmt: skip
    losses: list[float] = []

    class Keep(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            losses.append(float(trainer.callback_metrics["train_loss"]))

    lightning.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[Keep()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(module, data)  # fmt: skip
    assert losses[-1] < 0.5 * losses[0]


def test_it_is_sent_to_a_service_and_merged_there(
    subject: Subject, tiny_base: Path, tmp_path: Path, encoder: Any
) -> None:
    settings = Settings(data=tmp_path, bases={"tiny": str(tiny_base)}, library=str(subject.library))
    engine = Engine([], Resources(open_library(str(subject.library)), encoders=[encoder]))
    files = files_of(open_library(str(subject.library)), subject.id)
    config = {**json.loads(files[CONFIG_FILE]), "base_model_name_or_path": "tiny"}
    sent_files = {CONFIG_FILE: json.dumps(config).encode(), WEIGHTS_FILE: files[WEIGHTS_FILE]}
    with client_of(settings, engine) as client:
        sent = upload(client, tar_of(sent_files))
        assert sent.status_code == 201, sent.text
        assert sent.json()["rank"] == subject.adapter.layout.rank
        body = {"adapters": [sent.json()["id"], plain(subject)], "profile": "lossless"}
        answer = send(client, "/v1/adapters/compose", body)
        assert answer.status_code in (201, 202), answer.text
        made = answer.json()
        if answer.status_code == 202:
            made = ended(client, answer.headers["location"])["result"]
        out = tmp_path / "merged"
        got = {name: client.get(file["url"]).content for name, file in made["files"].items()}
        write_folder(out, got)
    other = read(subject.folder.parent / plain(subject), tiny_base)
    one, two = deltas(subject.adapter.scaled(0.5)), deltas(other.scaled(0.5))
    close(read(out, tiny_base), {n: one.get(n, 0) + two.get(n, 0) for n in {**one, **two}}, 1e-5)  # type: ignore[arg-type]


def test_it_is_committed_to_and_proved(subject: Subject, tmp_path: Path) -> None:
    with zk_world.cached(tmp_path / "cache"), Backend(1) as backend:
        manifest = commit_adapter(subject.folder, backend)
        ranks = {module.name: module.rank for module in manifest.modules}
        assert ranks == subject.adapter.layout.ranks
        srs = local_srs(manifest.srs_logrows)
        owner = Owner(subject.folder, manifest, srs, backend, limit=10_000)
        bundle = prove_hashed(owner, zk_world.NONCE, 1)
        report = verify_hashed(manifest, bundle, zk_world.NONCE, 1, srs, backend)
    assert report.verdict == "accept", report


def test_what_is_not_for_the_base_takes_no_part(
    libraries: dict[str, Path], tiny_base: Path, tmp_path: Path, encoder: Any
) -> None:
    """Of other shapes, of its embeddings, or damaged: neither found nor an error."""
    library = tmp_path / "library"
    shutil.copytree(libraries["layers"], library)
    wide = layout_of(tiny.config("llama", hidden_size=64), rank=2)
    head = Layout("llama", 2, (replace(wide.sites[0], name="lm_head"),))
    for name, layout in (("wide", wide), ("head", head), ("damaged", layouts(tiny_base)["ranks"])):
        files = to_peft(tiny.adapter(layout), base_name=str(tiny_base), profile="lossless")
        source = tmp_path / name
        write_folder(source, {CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.weights})
        assert main(["library", "import", str(source), "--library", str(library)]) == 0
    ids = {r["task"]: r["id"] for r in records(open_library(str(library)))}
    (library / "adapters" / ids["damaged"] / WEIGHTS_FILE).write_bytes(b"nothing")
    retriever = Retriever(open_library(str(library)), resolve_base(str(tiny_base)), encoder)
    assert {r["task"] for r in retriever.records} == ids.keys() - {"wide", "head", "damaged"}
    assert {r["task"] for r in retriever.experts} == {"sum", "sub", "poem"}


def test_an_adapter_of_another_base_is_not_packed(
    libraries: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "library"
    shutil.copytree(libraries["layers"], library)
    files = to_peft(tiny.adapter(layout_of(tiny.config("llama"))), base_name="someone/else")
    write_folder(tmp_path / "other", {CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.weights})
    assert main(["library", "import", str(tmp_path / "other"), "--library", str(library)]) == 0
    out = ["--library", str(library), "--out", str(tmp_path / "packed")]
    capsys.readouterr()
    assert main(["library", "pack", *out]) == 1
    assert "other is for someone/else, not" in tiny.one_sentence(capsys.readouterr())
    assert main(["library", "pack", *out, "--task", "sum", "--task", "subject"]) == 0
