"""The JSON of the service: what may be sent, strictly, and what comes back."""

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, PlainValidator
from pydantic_core import PydanticCustomError

from api.http.problems import PROBLEMS
from api.service.job_store import JOB_ID, State
from generator.request import MAX_STRENGTH, Request
from index.search.sources import By
from library.tasks.files import Example
from verification.zk.hook import MODULES, Challenge, new_nonce

MAX_EXAMPLES = 256

# No validator: an id that no job can have is not found (404).
JobId = Annotated[str, Path(json_schema_extra={"pattern": f"^{JOB_ID.pattern}$"})]


def _encodable(text: str) -> str:
    """JSON can hold lone surrogates, which UTF-8 and tokenizers cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("string_unicode", "not valid UTF-8") from error
    return text


Text = Annotated[str, AfterValidator(_encodable)]


def _how_many(value: Any) -> Any:
    """One sentence, where a union would name each of its halves."""
    if value == "all" or (type(value) is int and value >= 1):
        return value
    raise PydanticCustomError("modules", "Input should be a number from 1, or 'all'")


Modules = Annotated[
    int | Literal["all"],
    PlainValidator(_how_many, json_schema_input_type=int | Literal["all"]),
]


class _Strict(BaseModel):
    """No unknown fields, no conversions: "8" and true are not numbers."""

    model_config = ConfigDict(strict=True, extra="forbid")


class ExampleBody(_Strict):
    """One input of the task with its output."""

    input: Text
    output: Text


def _to_examples(bodies: list[ExampleBody] | None) -> tuple[Example, ...]:
    return tuple(Example.pair(body.input, body.output) for body in bodies or ())


class AdapterRequest(_Strict):
    """What adapter is wanted. Null means the same as leaving the field out."""

    description: str = Field(
        description="The task, 1 to 8,192 characters once trimmed.",
        examples=["Say whether the review is positive or negative."],
    )
    examples: Annotated[list[ExampleBody] | None, FailFast()] = Field(
        default=None,
        description="At most 200, for generators that can use them; others refuse them.",
    )
    generator: str | None = Field(default=None, description="A name from /v1/generators.")
    base: str | None = Field(default=None, description="A name from /v1/base-models.")
    rank: int | None = Field(
        default=None,
        description="The generator's own by default; above it, padded with zeros.",
        json_schema_extra={"minimum": 1, "maximum": 256},
    )
    strength: float | None = Field(
        default=None,
        description="Factor on the adapter's effect, not zero; 1 by default.",
        json_schema_extra={"minimum": -MAX_STRENGTH, "maximum": MAX_STRENGTH},
    )
    seed: int | None = Field(
        default=None,
        description="Part of the adapter's identity; 0 by default.",
        json_schema_extra={"minimum": 0, "maximum": 2**53 - 1},
    )
    profile: Literal["portable", "lossless"] | None = Field(
        default=None, description="portable (the default) is read alike by every server."
    )

    def to_request(self) -> Request:
        """The request, validated. Raises UsageError."""
        fields = {"description", "rank", "strength", "seed", "profile"}
        named = self.model_dump(include=fields, exclude_none=True)
        return Request(**named, examples=_to_examples(self.examples))


class ProofBody(_Strict):
    """What the hook zk is to prove."""

    modules: Modules = Field(
        default=MODULES, description="How many modules the nonce selects, from 1, or all."
    )
    nonce: Text | None = Field(
        default=None,
        description="8 to 200 printable characters, drawn by whoever is to be convinced; else the "
        "service draws one.",
    )

    def to_challenge(self) -> Challenge:
        """The challenge, with a nonce of its own where none was named."""
        nonce = new_nonce() if self.nonce is None else self.nonce
        return Challenge(nonce, None if self.modules == "all" else self.modules)


class VerifyRequest(_Strict):
    """What is to be looked at. Null means the same as leaving the field out."""

    hooks: Annotated[list[str] | None, FailFast()] = Field(
        default=None,
        description="Names of hooks; all by default, but for zk, whose proofs are limited.",
        examples=[["screening", "neighbours", "agreement"]],
        min_length=1,
        max_length=16,
    )
    examples: Annotated[list[ExampleBody] | None, FailFast()] = Field(
        default=None,
        description="Of the adapter's task, for the behaviour hook; by default those of the stored "
        "task whose description is nearest.",
        max_length=MAX_EXAMPLES,
    )
    zk: ProofBody | None = Field(default=None, description="For the hook zk alone.")

    def arguments(self) -> dict[str, Any]:
        """Arguments of `Service.verify`."""
        challenge = None if self.zk is None else self.zk.to_challenge()
        return {
            "hooks": self.hooks, "examples": _to_examples(self.examples), "challenge": challenge
        }  # fmt: skip


class NeighbourBody(BaseModel):
    """An adapter of the library that is close to the description."""

    id: str
    task: str
    similarity: float


class ChosenBody(BaseModel):
    """How the adapter came about."""

    strategy: str
    reason: str
    neighbours: list[NeighbourBody]
    predicted_recovery: float | None = Field(
        description="Share of an own adapter's gain over the base that is to be expected."
    )


class StoredFile(BaseModel):
    """One file of an adapter."""

    url: str
    sha256: str
    bytes: int


class FindingAnswer(BaseModel):
    """What a hook found; `code` is the reason, `evidence` the numbers behind it."""

    hook: str
    code: str
    severity: Literal["info", "warn", "refuse"]
    message: str
    evidence: dict[str, Any]


class Verification(BaseModel):
    """The verdict of all findings: the gravest counts."""

    verdict: Literal["accept", "warn", "refuse"]
    findings: list[FindingAnswer]


class AdapterAnswer(BaseModel):
    """An adapter: `sha256` is that of adapter_model.safetensors."""

    id: str = Field(pattern="^ad_[0-9a-f]{40}$")
    sha256: str
    generator: str
    base_model: str
    layout_digest: str
    rank: int
    seed: int
    chosen: ChosenBody
    report: Verification = Field(description="Of the quick hooks; in provenance.json as well.")
    files: dict[str, StoredFile]


class SearchResult(BaseModel):
    """An adapter that was found."""

    id: str = Field(pattern="^ad_[0-9a-f]{40}$")
    task: str
    score: float = Field(description="Cosine of the query with what is compared.")
    confidence: float = Field(
        ge=0, le=1, description="How likely it is the adapter of the task that is asked for."
    )
    by: By = Field(description="What of it was compared.")


class SearchAnswer(BaseModel):
    results: list[SearchResult]


class JobAnswer(BaseModel):
    """A job; `result` is there once it is done, `error` if it failed or was interrupted."""

    id: str = Field(pattern=f"^{JOB_ID.pattern}$")
    adapter: str
    state: State
    progress: float = Field(ge=0, le=1, description="The share that is done; it never falls.")
    result: Verification | None
    error: str | None
    hooks: list[str]


class GeneratorInfo(BaseModel):
    """A generator that requests may name."""

    name: str
    default: bool
    checkpoint: str | None = Field(
        description="Digest of the checkpoint, which is part of an adapter's id; null without one."
    )
    base_model: str = Field(description="The base model that it makes adapters for.")
    layout_digest: str = Field(description="Of the checkpoint, or of the library's adapters.")
    rank: int = Field(description="As in the layout; `compose` sums the ranks of its parts.")
    uses_examples: bool


class GeneratorList(BaseModel):
    generators: list[GeneratorInfo]


class BaseModelInfo(BaseModel):
    """A base model that requests may name."""

    name: str
    default: bool
    base_model: str = Field(description="What the adapter's base_model_name_or_path will be.")


class BaseModelList(BaseModel):
    base_models: list[BaseModelInfo]


class Health(BaseModel):
    status: Literal["live", "ready"]


class Problem(BaseModel):
    """RFC 9457. `code` is from a fixed set; `detail` is one sentence about this occurrence."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(json_schema_extra={"enum": [*PROBLEMS]})
