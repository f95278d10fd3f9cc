"""Bodies of requests, validated strictly."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, PlainValidator
from pydantic_core import PydanticCustomError

from generator.refine.limits import (
    DEFAULT_BUDGET,
    MAX_BUDGET,
    MAX_EXAMPLES,
    MAX_INPUTS,
    MAX_STEPS,
    require_trainable,
)
from generator.request import MAX_RANK, MAX_SEED, MAX_STRENGTH, Request, UsageMode
from library.peft.write import Profile
from library.tasks.files import Example
from verification.zk.hook import MODULES, Challenge, new_nonce

MAX_VERIFIED = 256  # examples


def _plain(text: str) -> str:
    """The text itself. JSON allows lone surrogates and NUL; UTF-8 and tokenizers, or C, do not."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("string_unicode", "not valid UTF-8") from error
    if "\0" in text:
        raise PydanticCustomError("string_nul", "The text has a NUL character")
    return text


Text = Annotated[str, AfterValidator(_plain)]


def _module_count(value: Any) -> Any:
    """The value itself. Pydantic's own union would report an error for each member."""
    if value == "all" or (type(value) is int and value >= 1):
        return value
    raise PydanticCustomError("modules", "Input should be a number from 1, or 'all'")


Modules = Annotated[
    int | Literal["all"],
    PlainValidator(_module_count, json_schema_input_type=int | Literal["all"]),
]


class Strict(BaseModel):
    """A request: no unknown fields, no conversions ("8" and true are not numbers)."""

    model_config = ConfigDict(strict=True, extra="forbid")


class ExampleBody(Strict):
    """An input of the task with its output."""

    input: Text
    output: Text


def _budget() -> Any:
    return Field(
        default=None,
        description="Seconds that training may cost, by a stored table of costs "
        f"(default: {DEFAULT_BUDGET:g}).",
        json_schema_extra={"minimum": 1, "maximum": MAX_BUDGET},
    )


def seed_field(use: str) -> Any:
    """The field `seed`; `use` says what it is of."""
    return Field(
        default=None,
        description=f"Seed, {use} (default: 0).",
        json_schema_extra={"minimum": 0, "maximum": MAX_SEED},
    )


def profile_field() -> Any:
    """The field `profile`."""
    return Field(
        default=None, description="File profile (default: portable, which all servers read)."
    )


def to_examples(bodies: list[ExampleBody] | None) -> tuple[Example, ...]:
    """Examples from their bodies, as far as there are any."""
    return tuple(Example.pair(body.input, body.output) for body in bodies or ())


class AdapterRequest(Strict):
    """The adapter to create. Null is the same as an absent field."""

    description: str | None = Field(
        default=None,
        description="Description of the task, 1 to 8,192 characters after trimming; needed unless "
        "there are examples.",
        examples=["Say whether the review is positive or negative."],
    )
    examples: Annotated[list[ExampleBody] | None, FailFast()] = Field(
        default=None,
        description=f"Examples of the task to train on, at most {MAX_EXAMPLES}; then the answer is "
        "a job, but with refine 0.",
    )
    inputs: Annotated[list[Text] | None, FailFast()] = Field(
        default=None,
        description=f"Inputs of the task without answers, at most {MAX_INPUTS}: a teacher that "
        "reads the description answers them, and the adapter learns its answers for bare prompts; "
        "the answer is a job.",
    )
    write_inputs: int | None = Field(
        default=None,
        description="Number of inputs to write from the description, in place of inputs.",
        json_schema_extra={"minimum": 0, "maximum": MAX_INPUTS},
    )
    refine: int | None = Field(
        default=None,
        description="Steps of training on the examples (default: as suits them); 0 for none: "
        "then the prompt shows some, or the generator uses them.",
        json_schema_extra={"minimum": 0, "maximum": MAX_STEPS},
    )
    mode: UsageMode | None = Field(
        default=None,
        description="The prompt that it is for: bare (the input alone), prompted (it begins with "
        "the description) or best, as was measured (default: best).",
    )
    budget: float | None = _budget()
    generator: str | None = Field(
        default=None, description="A name from /v1/generators (default: auto)."
    )
    base: str | None = Field(
        default=None, description="A name from /v1/base-models (default: the first)."
    )
    rank: int | None = Field(
        default=None,
        description="Rank (default: the generator's; above it, padded with zeros).",
        json_schema_extra={"minimum": 1, "maximum": MAX_RANK},
    )
    strength: float | None = Field(
        default=None,
        description="Factor on the adapter's effect, not zero (default: 1).",
        json_schema_extra={"minimum": -MAX_STRENGTH, "maximum": MAX_STRENGTH},
    )
    seed: int | None = seed_field("part of the adapter's identity")
    profile: Profile | None = profile_field()

    def to_request(self) -> Request:
        """The request, validated. Raises UsageError."""
        left_out = {"examples", "inputs", "generator", "base"}
        fields = self.model_dump(exclude=left_out, exclude_none=True)
        examples, inputs = to_examples(self.examples), tuple(self.inputs or ())
        return Request(**{"description": None, **fields}, examples=examples, inputs=inputs)


class RefineRequest(Strict):
    """What to train an adapter on. Null is the same as an absent field."""

    examples: Annotated[list[ExampleBody] | None, FailFast()] = Field(
        default=None,
        description=f"Examples of the task, at most {MAX_EXAMPLES}; these or inputs are needed.",
        examples=[[{"input": "Great film!", "output": "positive"}]],
    )
    inputs: Annotated[list[Text] | None, FailFast()] = Field(
        default=None,
        description=f"Inputs of the task without answers, at most {MAX_INPUTS}: a teacher that "
        "reads the adapter's description answers them; the new adapter is for bare prompts.",
    )
    steps: int | None = Field(
        default=None,
        description="Steps of training (default: as suits the examples).",
        json_schema_extra={"minimum": 1, "maximum": MAX_STEPS},
    )
    budget: float | None = _budget()
    seed: int | None = seed_field("of the order of the examples")
    profile: Profile | None = profile_field()

    def to_request(self) -> Request:
        """The request, validated. Raises UsageError."""
        examples, inputs = to_examples(self.examples), tuple(self.inputs or ())
        require_trainable(examples, self.steps, inputs)
        fields = self.model_dump(exclude={"examples", "inputs", "steps"}, exclude_none=True)
        return Request(None, **fields, examples=examples, inputs=inputs, refine=self.steps)


class ProofBody(Strict):
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


class VerifyRequest(Strict):
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
        max_length=MAX_VERIFIED,
    )
    zk: ProofBody | None = Field(default=None, description="Options of the hook zk.")

    def arguments(self) -> dict[str, Any]:
        """Arguments of `Service.verify`."""
        challenge = None if self.zk is None else self.zk.to_challenge()
        return {
            "hooks": self.hooks, "examples": to_examples(self.examples), "challenge": challenge
        }  # fmt: skip
