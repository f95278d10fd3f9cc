"""Bodies of requests, as dicts with types; docs/rest.md explains every field."""

from collections.abc import Sequence
from typing import Literal, NotRequired, TypedDict

Mode = Literal["best", "bare", "prompted"]
Profile = Literal["portable", "lossless"]


class Example(TypedDict):
    """An input of a task with its output."""

    input: str
    output: str


class _Making(TypedDict, total=False):
    refine: int
    mode: Mode
    budget: float
    generator: str
    base: str
    rank: int
    strength: float
    seed: int
    profile: Profile


class AdapterFields(_Making, total=False):
    """What a request for an adapter may have beside its description."""

    examples: Sequence[Example]
    inputs: Sequence[str]
    write_inputs: int


class BatchItem(_Making):
    """A request of a batch."""

    description: str


class RefineFields(TypedDict, total=False):
    """What to train a stored adapter on."""

    examples: Sequence[Example]
    inputs: Sequence[str]
    steps: int
    budget: float
    seed: int
    profile: Profile


class ComposeFields(TypedDict, total=False):
    """How to merge adapters."""

    method: str
    weights: Sequence[float]
    rank: int
    density: float
    examples: Sequence[Example]
    seed: int
    profile: Profile


class ProofFields(TypedDict, total=False):
    """Options of the hook zk."""

    modules: int | Literal["all"]
    nonce: str


class VerifyFields(TypedDict, total=False):
    """What a verification looks at; without `hooks`, all of them but zk."""

    hooks: Sequence[str]
    examples: Sequence[Example]
    zk: ProofFields


class SuiteRow(TypedDict):
    """An input with its accepted answers: either `output` or `outputs`."""

    input: str
    output: NotRequired[str]
    outputs: NotRequired[Sequence[str]]


class SearchFields(TypedDict, total=False):
    """What a search compares, and what it leaves out."""

    adapter: str
    by: Literal["description", "weights"]
    k: int
    base: str
    layout: str
    recipe: str
    license: str
    tag: Sequence[str]


class Message(TypedDict):
    """A message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class CompletionFields(TypedDict, total=False):
    """How an answer is drawn."""

    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop: str | Sequence[str]
    guided_choice: Sequence[str]
