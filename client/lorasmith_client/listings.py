"""What searches, lists and models answer; docs/rest.md explains every field."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SearchResult:
    """An adapter of the library that is near what was searched for."""

    id: str
    task: str
    score: float
    confidence: float | None
    by: str


@dataclass(frozen=True)
class LibraryAdapter:
    """An adapter of the library."""

    id: str
    sha256: str
    task: str
    recipe: str
    base_model: str
    rank: int
    score: float | None


@dataclass(frozen=True)
class LibraryPage:
    """A page of the library, by task; `next` is the cursor of the next one, None on the last."""

    adapters: list[LibraryAdapter]
    next: str | None


@dataclass(frozen=True)
class DescribedAdapter(LibraryAdapter):
    """An adapter of the library with its task's description, which not every task has."""

    description: str | None
    categories: list[str]
    licenses: list[str]


@dataclass(frozen=True)
class Place:
    """A place on the map of the library, whose axes have no unit."""

    x: float
    y: float


@dataclass(frozen=True)
class PlacedAdapter(Place):
    """An adapter on the map."""

    id: str
    task: str


@dataclass(frozen=True)
class LibraryMap:
    """The library by two principal components, which hold the share `explained`, 0 to 1.

    Attributes:
        adapters: by task; of very many adapters a part.
        total: how many there are.
        query: where the text lies, if there was one.
    """

    adapters: list[PlacedAdapter]
    total: int
    explained: float
    query: Place | None


@dataclass(frozen=True)
class HeldOutTasks:
    """Mean ROUGE-L from 0 to 1 over tasks that a generator was not trained on."""

    bare: float | None
    prompted: float | None
    tasks: int
    report: str


@dataclass(frozen=True)
class Generator:
    """A generator."""

    name: str
    default: bool
    checkpoint: str | None
    base_model: str
    layout_digest: str
    rank: int
    needs: list[str]
    uses_examples: bool
    draws: bool
    trained_on: int | None
    held_out: HeldOutTasks | None
    seconds: float | None


@dataclass(frozen=True)
class BaseModel:
    """A base model; `base_model` is what its adapters name as theirs."""

    name: str
    default: bool
    base_model: str


@dataclass(frozen=True)
class Completion:
    """An answer of a model; `reason` is stop, or length if it was cut."""

    text: str
    reason: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Model:
    """What a completion may name; `parent` is the base model of an adapter or a gate."""

    id: str
    parent: str | None
