"""Bodies of responses."""

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import BaseModel, Field

from api.http.name_bodies import PromotionAnswer
from api.http.problems import PROBLEMS
from api.service.job_store import JOB_ID, Kind, State
from generator.engine import Need
from index.search.sources import By
from library.base.prompts import Mode

# Not validated: an id that no job can have is not found (404).
JobId = Annotated[str, Path(json_schema_extra={"pattern": f"^{JOB_ID.pattern}$"})]


class NeighbourBody(BaseModel):
    """An adapter of the library whose description is near."""

    id: str
    task: str
    similarity: float


class ChosenBody(BaseModel):
    """How the adapter was made."""

    strategy: str
    reason: str
    neighbours: list[NeighbourBody]
    predicted_recovery: float | None = Field(
        description="Expected share of a trained adapter's gain over the base model."
    )


class StoredFile(BaseModel):
    """A file of an adapter."""

    url: str
    sha256: str
    bytes: int


class FindingAnswer(BaseModel):
    """A finding of a hook; `code` is the reason, `evidence` the numbers behind it."""

    hook: str
    code: str
    severity: Literal["info", "warn", "refuse"]
    message: str
    evidence: dict[str, Any]


class Verification(BaseModel):
    """Overall verdict: that of the most severe finding."""

    verdict: Literal["accept", "warn", "refuse"]
    findings: list[FindingAnswer]


class UsageBody(BaseModel):
    """The prompt of an adapter, which is the user's message through the base's chat template."""

    mode: Mode
    template: str = Field(
        description="The message; the input goes where the last `{input}` stands."
    )


class ExpectedBody(BaseModel):
    """Of 100 answers, how many will be exactly right."""

    score: float
    low: float
    high: float
    calibration: str = Field(description="What it was measured on.")


class HeldOutBody(BaseModel):
    """Answers to held-out examples, by adapters that were trained on the others."""

    right: int
    of: int
    loss: float
    start_loss: float = Field(description="Before any training.")


class AgreementBody(BaseModel):
    """Answers to inputs that were held back from training; whether they are right is not known."""

    same: int = Field(description="They are the teacher's.")
    of: int
    start_same: int = Field(description="They were before any training.")


class TaughtBody(BaseModel):
    """The training on a teacher's answers to a request's inputs."""

    given: int
    digest: str = Field(description="Of the inputs.")
    teacher: str = Field(description="Digest of the teacher's weights.")
    repeated: int = Field(description="Left out, as they came again.")
    labelled: int = Field(description="Left out, as they are among the examples.")
    too_long: int = Field(description="Left out, as they exceed the prompt.")
    empty: int = Field(description="Left out, as the teacher's answer was empty.")
    cut: int = Field(description="Answers that are as long as may be.")
    different: int = Field(description="Answers that differ from one another.")
    writer: str | None = Field(
        default=None,
        description="Digest of the weights that wrote the inputs; null if they were given.",
    )
    used: int = Field(description="Answers that were trained on.")
    kept_step: int = Field(description="Step whose weights were kept.")
    agreement: AgreementBody | None = Field(description="Null if no input was held back.")


class RefinedBody(BaseModel):
    """The training on a request's examples, on a teacher's answers to its inputs, or on both."""

    steps: int
    lr: float
    rows: int = Field(description="Examples of a step.")
    examples_used: int = Field(description="Longer ones are left out.")
    held_out: HeldOutBody | None = Field(description="Null if it was not measured.")
    inputs: TaughtBody | None = Field(description="Null without inputs.")


class AdapterAnswer(BaseModel):
    """An adapter; `sha256` is the digest of adapter_model.safetensors."""

    id: str = Field(pattern="^ad_[0-9a-f]{40}$")
    sha256: str
    generator: str
    base_model: str
    layout_digest: str
    rank: int
    seed: int
    start: str | None = Field(description="Adapter that it was trained further from, if any.")
    usage: UsageBody | None = Field(description="Null only for adapters older than usages.")
    expected: ExpectedBody | None = Field(description="Null where nothing like it was measured.")
    chosen: ChosenBody
    refined: RefinedBody | None = Field(description="Null without training.")
    report: Verification = Field(
        description="Findings of the quick hooks, also in provenance.json."
    )
    files: dict[str, StoredFile]


class AdapterList(BaseModel):
    """A page of adapters, by id: one that is stored meanwhile moves none to another page."""

    adapters: list[AdapterAnswer]
    next: str | None = Field(description="Cursor of the next page; null if this is the last.")


class SearchResult(BaseModel):
    """An adapter of the library."""

    id: str = Field(pattern="^ad_[0-9a-f]{40}$")
    task: str
    score: float = Field(description="Cosine similarity to the query.")
    confidence: float | None = Field(
        ge=0,
        le=1,
        description="Estimated probability that it is the adapter of the queried task; null for "
        "what a library's own weight encoder found, which nobody measured.",
    )
    by: By = Field(description="What was compared.")


class SearchAnswer(BaseModel):
    results: list[SearchResult]


class JobAnswer(BaseModel):
    """A job; `result` is set once it is done, `error` if it failed or was interrupted."""

    id: str = Field(pattern=f"^{JOB_ID.pattern}$")
    kind: Kind
    adapter: str | None = Field(description="Null until there is one.")
    state: State
    progress: float = Field(
        ge=0, le=1, description="Share that is done, of training by steps; it never decreases."
    )
    result: Verification | AdapterAnswer | PromotionAnswer | None = Field(
        description="The findings of a verification, the outcome of a promotion, or a new adapter."
    )
    error: str | None
    hooks: list[str] | None = Field(description="Of a verification.")


class HeldOutTasks(BaseModel):
    """Mean ROUGE-L, from 0 to 1, over tasks that a generator was not trained on."""

    bare: float | None = Field(
        ge=0, le=1, description="Without the instruction in the prompt; null if not measured."
    )
    prompted: float | None = Field(ge=0, le=1, description="With it.")
    tasks: int = Field(description="How many.")
    report: str = Field(description="The evaluation; its command says with which library.")


class GeneratorInfo(BaseModel):
    """A generator."""

    name: str
    default: bool
    checkpoint: str | None = Field(
        description="Digest of the checkpoint, part of every adapter's id; null without one."
    )
    base_model: str = Field(description="Base model of its adapters.")
    layout_digest: str = Field(description="Digest of the layout of its adapters.")
    rank: int = Field(description="Default rank; `compose` sums the ranks of its parents.")
    needs: list[Need] = Field(
        description="What it needs; nothing for `auto`, which chooses by what there is."
    )
    uses_examples: bool = Field(description="Whether it can use examples without training on them.")
    draws: bool = Field(description="Whether another seed gives another adapter.")
    trained_on: int | None = Field(
        description="Number of real and authored tasks; null if not known."
    )
    held_out: HeldOutTasks | None = Field(
        description="Scores of a checkpoint that ships; null for any other."
    )
    seconds: float | None = Field(
        description="For one adapter on one CPU thread, of a checkpoint that ships; null if not "
        "measured."
    )


class GeneratorList(BaseModel):
    generators: list[GeneratorInfo]


class BaseModelInfo(BaseModel):
    """A base model."""

    name: str
    default: bool
    base_model: str = Field(description="Value of base_model_name_or_path in its adapters.")


class BaseModelList(BaseModel):
    base_models: list[BaseModelInfo]


class Health(BaseModel):
    status: Literal["live", "ready"]


class Problem(BaseModel):
    """An error (RFC 9457); `code` is from a fixed set, `detail` explains this occurrence."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(json_schema_extra={"enum": [*PROBLEMS]})
    instance: str = Field(description="`urn:lorasmith:request:` and the answer's `X-Request-Id`.")
