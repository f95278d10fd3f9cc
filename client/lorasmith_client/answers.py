"""What the service answers, as dataclasses; docs/rest.md explains every field."""

from dataclasses import dataclass, field
from typing import Any

ENDED = ("done", "failed", "interrupted", "cancelled")  # states that a job never leaves


@dataclass(frozen=True)
class File:
    """A file of an adapter."""

    url: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Neighbour:
    """An adapter of the library whose description is near."""

    id: str
    task: str
    similarity: float


@dataclass(frozen=True)
class Chosen:
    """How an adapter was made."""

    strategy: str
    reason: str
    neighbours: list[Neighbour]
    predicted_recovery: float | None


@dataclass(frozen=True)
class Finding:
    """A finding of a verification hook; `severity` is info, warn or refuse."""

    hook: str
    code: str
    severity: str
    message: str
    evidence: dict[str, Any]


@dataclass(frozen=True)
class Verification:
    """Findings, and the overall verdict: accept, warn or refuse."""

    verdict: str
    findings: list[Finding]


@dataclass(frozen=True)
class Usage:
    """The prompt of an adapter: the input goes where the last `{input}` stands in `template`."""

    mode: str
    template: str

    def prompt(self, text: str) -> str:
        """The user's message for an input."""
        before, _, after = self.template.rpartition("{input}")
        return before + text + after


@dataclass(frozen=True)
class Expected:
    """Of 100 answers, how many will be exactly right."""

    score: float
    low: float
    high: float
    calibration: str


@dataclass(frozen=True)
class HeldOut:
    """Answers to examples that were held out from training."""

    right: int
    of: int
    loss: float
    start_loss: float


@dataclass(frozen=True)
class Agreement:
    """Answers to inputs that were held back, beside the teacher's."""

    same: int
    of: int
    start_same: int


@dataclass(frozen=True)
class Taught:
    """The training on a teacher's answers to a request's inputs."""

    given: int
    digest: str
    teacher: str
    repeated: int
    labelled: int
    too_long: int
    empty: int
    cut: int
    different: int
    used: int
    kept_step: int
    agreement: Agreement | None
    writer: str | None = None


@dataclass(frozen=True)
class Refined:
    """What training did."""

    steps: int
    lr: float
    rows: int
    examples_used: int
    held_out: HeldOut | None
    inputs: Taught | None


@dataclass(frozen=True)
class Adapter:
    """A stored adapter; `sha256` is the digest of adapter_model.safetensors."""

    id: str
    sha256: str
    generator: str
    base_model: str
    layout_digest: str
    rank: int
    seed: int
    start: str | None
    usage: Usage | None
    expected: Expected | None
    chosen: Chosen
    refined: Refined | None
    report: Verification
    files: dict[str, File]


@dataclass(frozen=True)
class AdapterPage:
    """A page of adapters, by id; `next` is the cursor of the next one, None on the last."""

    adapters: list[Adapter]
    next: str | None


@dataclass(frozen=True)
class Scores:
    """Rows of a suite that the current version passed (None: there was none), and the other one."""

    before: int | None = field(metadata={"name": "from"})
    after: int = field(metadata={"name": "to"})
    of: int
    at_least: int | None


@dataclass(frozen=True)
class Move:
    """An entry of a name's history: promoted, refused or rolled-back."""

    time: str
    action: str
    before: int | None = field(metadata={"name": "from"})
    after: int = field(metadata={"name": "to"})
    scores: Scores | None
    suite: str | None


@dataclass(frozen=True)
class Promotion(Move):
    """The outcome of a promotion, or a rollback."""

    name: str


@dataclass(frozen=True)
class PublishedVersion:
    """A version of a name; `created` is in UTC."""

    version: int
    adapter: str
    created: str


@dataclass(frozen=True)
class Version(PublishedVersion):
    """A version, and the name that it is of."""

    name: str


@dataclass(frozen=True)
class Suite:
    """Rows that versions are promoted by."""

    digest: str
    rows: int


@dataclass(frozen=True)
class NameSummary:
    """A name with its current version (None: there is none) and its newest."""

    name: str
    current: int | None
    newest: int


@dataclass(frozen=True)
class Name(NameSummary):
    """A name with its versions, suite and history, oldest first."""

    versions: list[PublishedVersion]
    suite: Suite | None
    history: list[Move]


@dataclass(frozen=True)
class Job:
    """Work in the background.

    Attributes:
        kind: create, refine, compose, verify or promote.
        adapter: id; None until there is one.
        state: queued, running, done, failed, interrupted or cancelled.
        progress: share that is done.
        result: None until the job is done; an Adapter, or what it was to find out.
        error: why it failed.
        hooks: of a verification.
    """

    id: str
    kind: str
    adapter: str | None
    state: str
    progress: float
    result: Adapter | Verification | Promotion | None
    error: str | None
    hooks: list[str] | None

    @property
    def ended(self) -> bool:
        """Whether its state is the last one."""
        return self.state in ENDED
