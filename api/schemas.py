"""The JSON of the service: what may be sent, strictly, and what comes back."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

from api.problems import PROBLEMS
from generator.request import MAX_STRENGTH


class _Strict(BaseModel):
    """No unknown fields, no conversions: "8" and true are not numbers."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Example(_Strict):
    """One input of the task with its output."""

    input: str
    output: str


class AdapterRequest(_Strict):
    """What adapter is wanted. Null means the same as leaving the field out."""

    description: str = Field(
        description="The task, 1 to 8,192 characters once trimmed.",
        examples=["Say whether the review is positive or negative."],
    )
    examples: Annotated[list[Example] | None, FailFast()] = Field(
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


class Neighbour(BaseModel):
    """An adapter of the library that is close to the description."""

    id: str
    task: str
    similarity: float


class Chosen(BaseModel):
    """How the adapter came about."""

    strategy: str
    reason: str
    neighbours: list[Neighbour]
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
    chosen: Chosen
    report: Verification = Field(description="Of the quick hooks; in provenance.json as well.")
    files: dict[str, StoredFile]


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
