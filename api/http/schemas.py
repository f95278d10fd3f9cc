"""Bodies of requests, validated strictly, and of responses."""

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

# Not validated: an id that no job can have is not found (404).
JobId = Annotated[str, Path(json_schema_extra={"pattern": f"^{JOB_ID.pattern}$"})]


def _encodable(text: str) -> str:
    """The text itself. JSON allows lone surrogates; UTF-8 and tokenizers do not."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("string_unicode", "not valid UTF-8") from error
    return text


Text = Annotated[str, AfterValidator(_encodable)]


def _module_count(value: Any) -> Any:
    """The value itself. Pydantic's own union would report an error for each member."""
    if value == "all" or (type(value) is int and value >= 1):
        return value
    raise PydanticCustomError("modules", "Input should be a number from 1, or 'all'")


Modules = Annotated[
    int | Literal["all"],
    PlainValidator(_module_count, json_schema_input_type=int | Literal["all"]),
]


class _Strict(BaseModel):
    """A request: no unknown fields, no conversions ("8" and true are not numbers)."""

    model_config = ConfigDict(strict=True, extra="forbid")


class ExampleBody(_Strict):
    """An input of the task with its output."""

    input: Text
    output: Text


def _to_examples(bodies: list[ExampleBody] | None) -> tuple[Example, ...]:
    return tuple(Example.pair(body.input, body.output) for body in bodies or ())


class AdapterRequest(_Strict):
    """The adapter to create. Null is the same as an absent field."""

    description: str = Field(
        description="Description of the task, 1 to 8,192 characters after trimming.",
        examples=["Say whether the review is positive or negative."],
    )
    examples: Annotated[list[ExampleBody] | None, FailFast()] = Field(
        default=None,
        description="Examples of the task, at most 200; only for generators that use examples.",
    )
    generator: str | None = Field(
        default=None, description="A name from /v1/generators (default: auto)."
    )
    base: str | None = Field(
        default=None, description="A name from /v1/base-models (default: the first)."
    )
    rank: int | None = Field(
        default=None,
        description="Rank (default: the generator's; above it, padded with zeros).",
        json_schema_extra={"minimum": 1, "maximum": 256},
    )
    strength: float | None = Field(
        default=None,
        description="Factor on the adapter's effect, not zero (default: 1).",
        json_schema_extra={"minimum": -MAX_STRENGTH, "maximum": MAX_STRENGTH},
    )
    seed: int | None = Field(
        default=None,
        description="Seed, part of the adapter's identity (default: 0).",
        json_schema_extra={"minimum": 0, "maximum": 2**53 - 1},
    )
    profile: Literal["portable", "lossless"] | None = Field(
        default=None, description="File profile (default: portable, which all servers read)."
    )

    def to_request(self) -> Request:
        """The request, validated. Raises UsageError."""
        fields = {"description", "rank", "strength", "seed", "profile"}
        named = self.model_dump(include=fields, exclude_none=True)
        return Request(**named, examples=_to_examples(self.examples))


class ProofBody(_Strict):
    """Options of the hook zk."""

    modules: Modules = Field(
        default=MODULES, description="Number of modules that the nonce selects, at least 1, or all."
    )
    nonce: Text | None = Field(
        default=None,
        description="8 to 200 printable characters drawn by the verifier (default: drawn by the "
        "service).",
    )

    def to_challenge(self) -> Challenge:
        """The challenge, with a nonce of its own where none was named."""
        nonce = new_nonce() if self.nonce is None else self.nonce
        return Challenge(nonce, None if self.modules == "all" else self.modules)


class VerifyRequest(_Strict):
    """Options of a verification. Null is the same as an absent field."""

    hooks: Annotated[list[str] | None, FailFast()] = Field(
        default=None,
        description="Names of hooks (default: all but zk, whose proofs are limited).",
        examples=[["screening", "neighbours", "agreement"]],
        min_length=1,
        max_length=16,
    )
    examples: Annotated[list[ExampleBody] | None, FailFast()] = Field(
        default=None,
        description="Examples of the adapter's task for the hook behaviour (default: those of the "
        "stored task with the nearest description).",
        max_length=MAX_EXAMPLES,
    )
    zk: ProofBody | None = Field(default=None, description="Options of the hook zk.")

    def arguments(self) -> dict[str, Any]:
        """Arguments of `Service.verify`."""
        challenge = None if self.zk is None else self.zk.to_challenge()
        return {
            "hooks": self.hooks, "examples": _to_examples(self.examples), "challenge": challenge
        }  # fmt: skip


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


class AdapterAnswer(BaseModel):
    """An adapter; `sha256` is the digest of adapter_model.safetensors."""

    id: str = Field(pattern="^ad_[0-9a-f]{40}$")
    sha256: str
    generator: str
    base_model: str
    layout_digest: str
    rank: int
    seed: int
    chosen: ChosenBody
    report: Verification = Field(
        description="Findings of the quick hooks, also in provenance.json."
    )
    files: dict[str, StoredFile]


class SearchResult(BaseModel):
    """An adapter of the library."""

    id: str = Field(pattern="^ad_[0-9a-f]{40}$")
    task: str
    score: float = Field(description="Cosine similarity to the query.")
    confidence: float = Field(
        ge=0, le=1, description="Estimated probability that it is the adapter of the queried task."
    )
    by: By = Field(description="What was compared.")


class SearchAnswer(BaseModel):
    results: list[SearchResult]


class JobAnswer(BaseModel):
    """A job; `result` is set once it is done, `error` if it failed or was interrupted."""

    id: str = Field(pattern=f"^{JOB_ID.pattern}$")
    adapter: str
    state: State
    progress: float = Field(ge=0, le=1, description="Share that is done; it never decreases.")
    result: Verification | None
    error: str | None
    hooks: list[str]


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
    uses_examples: bool


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
