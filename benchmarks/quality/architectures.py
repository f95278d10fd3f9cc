"""Every architecture: adapters of 24 tiny models through the whole system, step by step.

    python -m benchmarks.quality.architectures --out docs/results/architectures.json

For each model of `architecture_cases` and `diffusion_cases` three random LoRAs are imported and
verified, indexed, found by their weights, and learnt by Text-to-LoRA (reconstruction); what it then
makes of a description is compared with the adapter of that description, as ΔW and in the model
itself. A step that fails stays in the report with its reason. No real task is learnt here:
benchmarks.quality.digits is about that.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning
import peft
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.quality.architecture_cases import TRANSFORMERS, Case
from benchmarks.quality.diffusion_cases import DIFFUSERS
from generator.engine import Engine, read_generator
from generator.models.text_to_lora import TextToLoRA
from generator.request import Request
from generator.resources import Resources
from index.encoders.descriptions import DescriptionEncoder
from index.encoders.weights import load_weight_encoder
from index.search.own_encoders import fit_own_encoders, own_source
from index.search.searcher import Searcher
from index.search.sync import build_index
from index.segments.metadata import Filter
from library.adapter import Adapter
from library.base.models import named_base
from library.exchange.exporting import export_files
from library.exchange.importing import ImportRequest, import_adapter
from library.files import write_folder
from library.peft.read import adapter_of, read_peft
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from library.store.catalogue import files_of
from library.store.folder import LibraryFolder
from library.store.records import Record
from training.data.adapters import LibraryDataModule
from training.objectives.module import OptimiserConfig
from training.objectives.reconstruction import Reconstruction
from verification.run import reported

CASES = {case.name: case for case in (*TRANSFORMERS, *DIFFUSERS)}
DESCRIPTIONS = ("pictures of cats", "speech in a noisy street", "the answer in one word")
SIZE = 0.05  # deviation of the random weights of an adapter: its outputs differ, and stay finite
STEPS = 400
LEAST_COSINE, MOST_DIFFERENCE = 0.999, 1e-4


@dataclass
class Run:
    """One architecture's way through the system; each step uses what earlier ones left.

    Attributes:
        case: the architecture.
        place: an empty folder.
        encoder: of descriptions.
        training_steps: of the generator.
        numbers: what the steps measured.
    """

    case: Case
    place: Path
    encoder: DescriptionEncoder
    training_steps: int = STEPS
    numbers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.base = f"example/{self.case.name}"
        self.library = LibraryFolder(self.place / "library")
        self.records: list[Record] = []
        self.outputs: list[Tensor] = []  # of the model with each adapter

    def steps(self) -> dict[str, Callable[[], None]]:
        """By name, in order."""
        return {
            "imported": self.imported,
            "indexed": self.indexed,
            "found by weights": self.found,
            "reconstructed": self.reconstructed,
            "same ΔW": self.same_delta,
            "same outputs": self.same_outputs,
            "exported": self.exported,
        }

    def imported(self) -> None:
        """Three adapters, with the report that `library import` makes of each."""
        for number, text in enumerate(DESCRIPTIONS):
            source = self.place / f"original{number}"
            self.outputs.append(write_adapter(self.case, source, seed=number))
            request = ImportRequest(str(source), self.base, f"task{number}", text)
            done = import_adapter(self.library, request, report=lambda files: reported(files).files)
            self.records.append(done.record)
        layout = self._stored(0).layout
        self.numbers |= {"layout": layout.digest, "sites": len(layout.sites)}

    def indexed(self) -> None:
        """A weight encoder is fitted to the library's own adapters, and encodes all of them."""
        location = self.library.location
        (name,) = fit_own_encoders(location, load_weight_encoder(), self.encoder)
        built = build_index(location, own_source(location, name))
        require(len(built.view) == len(DESCRIPTIONS), f"{len(built.view)} adapters are indexed")

    def found(self) -> None:
        """Each adapter is the nearest to itself, and to its description."""
        searcher = Searcher(self.library.location, lambda: self.encoder)
        for record, text in zip(self.records, DESCRIPTIONS, strict=True):
            files = files_of(self.library, record["id"])
            for results in (
                searcher.search(adapter=files),
                searcher.search(text, by="weights", filter=Filter(base=self.base)),
            ):
                require(results[0].by == "weights", f"it was compared by {results[0].by}")
                require(results[0].id == record["id"], f"{record['task']} finds {results[0].task}")

    def reconstructed(self) -> None:
        """Text-to-LoRA of the library's own layout learns its adapters."""
        trained(self.library.location, self.place / "checkpoint", self.training_steps)

    def same_delta(self) -> None:
        """What is generated from a description is that description's adapter."""
        engine = Engine(
            [read_generator(self.place / "checkpoint")], Resources(encoders=[self.encoder])
        )
        cosines = []
        for number, text in enumerate(DESCRIPTIONS):
            request = Request(text, profile="lossless")
            made = engine.generate(TextToLoRA.kind, request, named_base(self.base))
            write_folder(self.place / f"made{number}", made.files.files)
            cosines.append(cosine(adapter_of(made.files.files), self._stored(number)))
        self.numbers["cosine"] = min(cosines)
        require(min(cosines) >= LEAST_COSINE, f"the least cosine of ΔW is {min(cosines):.6f}")

    def same_outputs(self) -> None:
        """PEFT puts what was generated into the model, which answers as with the original."""
        differences, effects = [], []
        plain = self.case.output(self.case.model())
        for number, expected in enumerate(self.outputs):
            folder = self.place / f"made{number}"
            for_model(folder, self.case.component)
            model = peft.PeftModel.from_pretrained(self.case.model(), str(folder))
            found = self.case.output(model.get_base_model().eval())
            differences.append(float((found - expected).abs().max()))
            effects.append(float((plain - expected).abs().max()))
        self.numbers |= {"difference": max(differences), "effect": min(effects)}
        require(min(effects) > 10 * MOST_DIFFERENCE, f"an adapter changes {min(effects):.1e} only")
        require(max(differences) <= MOST_DIFFERENCE, f"outputs differ by {max(differences):.1e}")

    def exported(self) -> None:
        """Every tensor comes back bit for bit, under its name."""
        for number, record in enumerate(self.records):
            out = self.place / f"exported{number}"
            write_folder(out, export_files(self.library, record))
            theirs, ours = (next(p.glob("*.safetensors")) for p in (
                self.place / f"original{number}", out))  # fmt: skip
            require(theirs.name == ours.name, f"{theirs.name} came back as {ours.name}")
            before, after = load_file(theirs), load_file(ours)
            same = before.keys() == after.keys() and all(
                before[key].dtype == after[key].dtype and torch.equal(before[key], after[key])
                for key in before
            )
            require(same, f"the tensors of {theirs.name} are others")

    def _stored(self, number: int) -> Adapter:
        return adapter_of(files_of(self.library, self.records[number]["id"]))


def require(condition: bool, reason: str) -> None:
    """Raise ValueError with the reason unless a condition holds."""
    if not condition:
        raise ValueError(reason)


def write_adapter(case: Case, folder: Path, seed: int) -> Tensor:
    """A random LoRA as PEFT or diffusers writes it; what the model puts out with it."""
    model: Any = case.model()
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=case.targets)
    generator = torch.Generator().manual_seed(seed)
    if case.component:  # as diffusers' own `add_adapter`, which not every model has
        adapted: Any = peft.inject_adapter_in_model(config, model)
        adapted.peft_config = {"default": config}
    else:
        adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_" in name:
                parameter.add_(SIZE * torch.randn(parameter.shape, generator=generator))
    if case.component:
        layers = {f"{case.component}_lora_layers": peft.get_peft_model_state_dict(adapted)}
        metadata = {f"{case.component}_lora_adapter_metadata": config.to_dict()}
        case.pipeline.save_lora_weights(folder, **layers, **metadata)
    else:
        adapted.save_pretrained(str(folder))
    return case.output(model.eval())


def trained(library: str, out: Path, steps: int) -> None:
    """Text-to-LoRA by reconstruction, as `lorasmith train` does it; its checkpoint."""
    lightning.seed_everything(0, verbose=False)
    module = Reconstruction(
        generator=TextToLoRA,
        architecture={"latent": 64, "head_in": 128, "dropout": 0.0, "b_gain": 1.0},
        library=library,
        optimiser=OptimiserConfig(lr=6e-3, weight_decay=0.0),
        target="mean_squared_error",
        out=str(out),
        storage="float32",
    )
    data = LibraryDataModule(library, steps=steps, experts=0)
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, data)


def cosine(made: Adapter, wanted: Adapter) -> float:
    """Cosine of two adapters' ΔW, over all modules together."""
    products = made.inner_products(wanted).sum()
    sizes = [x.inner_products(x).sum() for x in (made, wanted)]
    return float(products / (sizes[0] * sizes[1]).sqrt())


def for_model(folder: Path, component: str) -> None:
    """Name modules as the model itself does, not as the pipeline that holds it."""
    adapter = read_peft(folder)
    sites = tuple(
        replace(site, name=site.name.removeprefix(f"{component}.")) for site in adapter.layout.sites
    )
    renamed = replace(adapter, layout=replace(adapter.layout, sites=sites))
    peft_files = to_peft(renamed, base_name="", profile="lossless")
    (folder / CONFIG_FILE).write_bytes(peft_files.config_bytes)
    (folder / WEIGHTS_FILE).write_bytes(peft_files.weights)


def measured(case: Case, encoder: DescriptionEncoder) -> dict[str, Any]:
    """A row of the report: numbers, and each step as "ok" or why it failed."""
    started, found = time.perf_counter(), dict[str, str]()
    with tempfile.TemporaryDirectory() as place:
        run = Run(case, Path(place), encoder)
        for name, step in run.steps().items():
            try:
                step()
            except Exception as error:  # whatever keeps a step from its work is its result
                found[name] = f"{type(error).__name__}: {error}"
            else:
                found[name] = "ok"
    row = {"name": case.name, "family": case.family, **run.numbers, "steps": found}
    return row | {"seconds": round(time.perf_counter() - started, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    encoder, rows = DescriptionEncoder(), []
    for name in options.cases:
        rows.append(row := measured(CASES[name], encoder))
        failed = {step: why for step, why in row["steps"].items() if why != "ok"}
        print(f"{name:16}{row['seconds']:6}  {failed or 'ok'}", file=sys.stderr)
    passed = sum(set(row["steps"].values()) == {"ok"} for row in rows)
    report = {
        "command": " ".join(["python", "-m", "benchmarks.quality.architectures", *sys.argv[1:]]),
        "passed": passed,
        "of": len(rows),
        "limits": {"cosine": LEAST_COSINE, "difference": MOST_DIFFERENCE},
        "rows": rows,
    }
    options.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"{passed} of {len(rows)}")


if __name__ == "__main__":
    main()
