"""New adapters: generated from a description, or merged from others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generator.refine.limits import DEFAULT_BUDGET, UNDESCRIBED
from library.errors import UsageError
from library.files import write_folder
from lorasmith.loading import (
    Examples,
    Inputs,
    Mode,
    Profile,
    example_pairs,
    loaded_engine,
    rows_and_inputs,
)

if TYPE_CHECKING:
    from index.merge.parents import Gate
    from library.peft.provenance import AdapterFiles


@dataclass(frozen=True)
class FinishedAdapter:
    """A new adapter, checked and ready to be written.

    Attributes:
        id: its identity (`ad_` and 40 hex digits).
        sha256: of the safetensors file.
        files: content of config, weights, provenance and README.md, by name.
        summary: what the command line prints of it with `--json`; `report` is its verification.
        milliseconds: of each verification hook.
    """

    id: str
    sha256: str
    files: Mapping[str, bytes] = field(repr=False)
    summary: dict[str, Any] = field(repr=False)
    milliseconds: dict[str, float] = field(repr=False)

    @classmethod
    def of(
        cls, files: "AdapterFiles", summary: dict[str, Any], milliseconds: dict[str, float]
    ) -> "FinishedAdapter":
        """An adapter from its files and what was found out while it was made."""
        return cls(files.id, files.sha256, files.files, summary, milliseconds)

    def save(self, folder: Path | str, *, overwrite: bool = False) -> Path:
        """Write a folder that PEFT and vLLM load; return it. Raises OutputExists, OutputError."""
        write_folder(Path(folder), self.files, overwrite=overwrite)
        return Path(folder)


def generate(
    description: str | None,
    *,
    examples: Examples = (),
    inputs: Inputs = (),
    write_inputs: int = 0,
    refine: int | None = None,
    mode: Mode = "best",
    budget: float = DEFAULT_BUDGET,
    generator: str = "auto",
    base: str | None = None,
    checkpoints: Sequence[Path | str] = (),
    multi_task: Path | str | None = None,
    library: str | Path | None = None,
    rank: int | None = None,
    strength: float = 1.0,
    seed: int = 0,
    profile: Profile = "portable",
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> FinishedAdapter:
    """An adapter for a described task. The same call gives the same bytes.

    With examples, the adapter is trained on them, which takes about a minute on a CPU; its
    `summary["refined"]["held_out"]` says how many of them were right when they were held out.
    `summary["usage"]` says which prompt it needs. With inputs and no answers, a shipped adapter
    that reads the description answers them, and its answers are learned for prompts without it;
    `summary["refined"]["inputs"]` says what became of them.

    Args:
        description: the task, 1 to 8,192 characters; None where there are examples.
        examples: pairs of input and output, at most 200, or a JSONL file of them.
        inputs: texts without answers, at most 200, or a file of them: JSONL, or one a line.
        write_inputs: write so many inputs from the description instead.
        refine: steps of training on the examples; None for as many as suit them, 0 for none:
            then the prompt shows some of them, or the generator makes something of them.
        mode: bare, for prompts that are the input alone; prompted, for those that begin with the
            description; best, for what was measured to be better.
        budget: seconds that training on the examples may cost, by a stored table of costs.
        generator: one that `lorasmith generators` lists; auto chooses among them.
        base: Hub id or folder of the base model; the packaged SmolLM2-135M-Instruct by default.
        checkpoints: folders of generators, in place of the shipped ones.
        multi_task: folder of the base's own multi-task adapter, in place of the shipped ones.
        library: folder or URL of adapters to retrieve; the shipped sample by default.
        rank: of the adapter; the generator's by default.
        strength: factor on ΔW.
        seed: recorded in the adapter's identity; what sg-lora and icm-lora draw depends on it.
        profile: portable (bfloat16, one rank) or lossless (float32).
        device: cpu or cuda.
        progress: of the training, called with steps done, and of how many.
    Raises:
        UsageError and its kinds, LayoutMismatch, UnsupportedModel, BaseModelError,
        CheckpointError, TaskFileError, AdapterRefused.
    """
    (adapter,) = generate_samples(
        description,
        1,
        examples=examples,
        inputs=inputs,
        write_inputs=write_inputs,
        refine=refine,
        mode=mode,
        budget=budget,
        generator=generator,
        base=base,
        checkpoints=checkpoints,
        multi_task=multi_task,
        library=library,
        rank=rank,
        strength=strength,
        seed=seed,
        profile=profile,
        device=device,
        progress=progress,
    )
    return adapter


def generate_samples(
    description: str | None,
    samples: int,
    *,
    examples: Examples = (),
    inputs: Inputs = (),
    write_inputs: int = 0,
    refine: int | None = None,
    mode: Mode = "best",
    budget: float = DEFAULT_BUDGET,
    generator: str = "auto",
    base: str | None = None,
    checkpoints: Sequence[Path | str] = (),
    multi_task: Path | str | None = None,
    library: str | Path | None = None,
    rank: int | None = None,
    strength: float = 1.0,
    seed: int = 0,
    profile: Profile = "portable",
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[FinishedAdapter]:
    """Several adapters for one described task, which differ in what the generator drew.

    Each is what `generate` gives for its seed; the seeds are `seed`, `seed` + 1 and so on.

    Args:
        samples: how many, from 1 to 16; more than one of generators that draw, sg-lora and
            icm-lora.
        progress: of the training of all.
    The others, and what it raises, are those of `generate`. Raises UsageError also for samples
    of a generator that draws nothing.
    """
    from generator.engine import require_strategy
    from generator.request import Request
    from generator.samples import sample_requests
    from library.base.models import require_device, resolve_base
    from library.progress import no_progress

    # 1. Everything that can be wrong with the arguments alone.
    require_strategy(generator, examples=bool(examples) and refine == 0)
    pairs, texts = rows_and_inputs(examples, inputs)
    request = Request(
        description, rank, strength, seed, profile, pairs, refine, mode, budget, texts, write_inputs
    )
    if texts and description is None:
        raise UsageError(UNDESCRIBED)
    requests = sample_requests(generator, request, samples)
    reference = resolve_base(base)
    require_device(device)
    # 2. The adapters.
    folders = tuple(Path(folder) for folder in checkpoints)
    prompted = None if multi_task is None else Path(multi_task)
    location = None if library is None else str(library)
    engine = loaded_engine(folders, location, device, generator, prompted)
    if prompted is not None:
        engine.teachers.stored(reference)  # what is named is used, or the request refused
    packaged = engine.samples(generator, requests, reference, progress or no_progress)
    return [FinishedAdapter.of(p.files, p.summary, p.milliseconds) for p in packaged]


def compose(
    adapters: Sequence[str | Path],
    method: str = "cat",
    *,
    weights: Sequence[float] | None = None,
    rank: int | None = None,
    density: float | None = None,
    seed: int = 0,
    examples: Examples | None = None,
    predictor: Path | None = None,
    library: str | Path | None = None,
    catalogue: str | None = None,
    base: str | None = None,
    profile: Profile = "portable",
    device: str = "cpu",
    policy: Path | None = None,
    public_key: Path | None = None,
    note: Callable[[str], None] | None = None,
) -> FinishedAdapter:
    """One adapter merged from several; with `cat`, exactly the weighted sum of their ΔW.

    Args:
        adapters: folders, or ids or tasks of the library.
        method: cat, soup, ties, dare, lego, klora, orthogonal, lora-rar or lorahub.
        weights: one for each adapter; equal ones of sum 1 by default.
        rank: of the result; the method's own by default.
        density: share of entries that ties and dare keep.
        seed: of dare's masks and lorahub's search.
        examples: for lorahub, as for `generate`.
        predictor: checkpoint for lora-rar; the shipped one by default.
        library: folder or URL; the shipped sample by default.
        catalogue: database URL of the library's catalogue; a file in the library by default.
        base: the adapters' base model; what they name by default.
        policy, public_key: what every adapter has to pass; see `verify`.
        note: called with remarks about the catalogue.
    Raises:
        UsageError and its kinds, AdapterRefused, LayoutMismatch, AdapterFileError, TaskFileError,
        BaseModelError, CheckpointError, InputFileError.
    """
    from index.merge.compose import MergeRequest, compose_adapters
    from index.merge.parents import read_parents
    from library.base.models import load_base, require_device, resolve_base
    from lorasmith.libraries import load_library
    from verification.run import QuickCheck

    rows = None if examples is None else example_pairs(examples)
    names = [str(name) for name in adapters]
    request = MergeRequest(names, method, weights, rank, density, seed, profile, rows, predictor)
    require_device(device)
    opened = load_library(library, catalogue=catalogue, note=note).catalogue
    parents = read_parents(names, opened, base, _gate(policy, public_key))
    check = QuickCheck(None if base is None else resolve_base(base))
    own = base or parents.base["id"]
    composition = compose_adapters(
        request, parents, load=lambda: load_base(resolve_base(own), device=device), check=check
    )
    summary = {**composition.summary(), "report": composition.files.provenance["report"]}
    return FinishedAdapter.of(composition.files, summary, check.milliseconds)


def _gate(policy: Path | None, public_key: Path | None) -> "Gate | None":
    """The check that every adapter has to pass, if there is any.

    Raises MissingPath, InputFileError, UsageError.
    """
    if policy is None and public_key is None:
        return None
    from library.files import require_present
    from verification.artifact import Artifact, Context
    from verification.checks.signing import read_public_key
    from verification.run import Policy, read_policy, require_key, run_hooks

    require_present(policy, public_key)
    rules = Policy() if policy is None else read_policy(policy)
    key = None if public_key is None else read_public_key(public_key)
    require_key(rules, key)

    def require(name: str, files: Mapping[str, bytes]) -> None:
        report = run_hooks(Artifact(files), Context(public_key=key), rules)
        report.require_accepted(name)

    return require
