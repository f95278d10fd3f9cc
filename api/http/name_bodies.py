"""Bodies of requests and responses about names."""

from typing import Annotated, Self

from pydantic import BaseModel, FailFast, Field, model_validator
from pydantic_core import PydanticCustomError

from api.http.requests import Strict, Text
from api.service.name_state import Action
from api.service.store import ADAPTER_ID
from api.service.suites import MAX_INPUT, MAX_ROWS, Suite
from library.tasks.files import Example


class SuiteRow(Strict):
    """An input with its accepted answers: one `output`, or `outputs`."""

    input: Text = Field(json_schema_extra={"maxLength": MAX_INPUT})
    output: Text | None = None
    outputs: Annotated[list[Text] | None, FailFast()] = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.output is None) == (self.outputs is None):
            raise PydanticCustomError("row", "A row has either output or outputs")
        return self

    def to_example(self) -> Example:
        """The row as an example."""
        return Example("", self.input, tuple(self.outputs or [self.output or ""]))


class PublishRequest(Strict):
    """The next version of a name. Null is the same as an absent field."""

    adapter: str = Field(
        description="Id of an adapter that belongs to the key.",
        json_schema_extra={"pattern": f"^{ADAPTER_ID.pattern}$"},
    )
    suite: Annotated[list[SuiteRow] | None, FailFast()] = Field(
        default=None,
        description=f"Rows that versions are promoted by, 1 to {MAX_ROWS:,}, in place of those "
        "that the name has (default: it keeps them).",
    )

    def to_suite(self) -> Suite | None:
        """The suite, if there is one. Raises UsageError."""
        rows = self.suite
        return None if rows is None else Suite.of([row.to_example() for row in rows])


class PromoteRequest(Strict):
    """The version to promote. Null is the same as an absent field."""

    version: int | None = Field(default=None, ge=1, description="Default: the newest.")
    at_least: int | None = Field(
        default=None,
        ge=1,
        le=MAX_ROWS,
        description="Rows that it has to pass, whatever the current version does.",
    )


class PublishedVersion(BaseModel):
    """A version of a name."""

    version: int = Field(description="Counts up from 1; none is ever given twice.")
    adapter: str = Field(pattern=f"^{ADAPTER_ID.pattern}$")
    created: str = Field(description="In UTC.")


class VersionAnswer(PublishedVersion):
    """A version of a name."""

    name: str


class GateScores(BaseModel):
    """How many rows of the suite were answered with an accepted answer."""

    before: int | None = Field(
        alias="from", description="By the current version; null if there was none."
    )
    after: int = Field(alias="to", description="By the version that was to be promoted.")
    of: int
    at_least: int | None = Field(description="As the request asked.")


class MoveAnswer(BaseModel):
    """An entry of a name's history."""

    time: str = Field(description="In UTC.")
    action: Action = Field(description="`refused` leaves the current version as it is.")
    before: int | None = Field(alias="from", description="The current version until then.")
    after: int = Field(alias="to", description="The version that was moved to, or refused.")
    scores: GateScores | None = Field(description="Null of a rollback, which has no gate.")
    suite: str | None = Field(description="Digest of the suite that the scores are of.")


class PromotionAnswer(MoveAnswer):
    """The outcome of a promotion, or a rollback."""

    name: str


class SuiteAnswer(BaseModel):
    """A suite."""

    digest: str = Field(description="SHA-256 of its canonical JSON.")
    rows: int


class NameSummary(BaseModel):
    """A name."""

    name: str
    current: int | None = Field(description="Version that the bare name stands for; null: none.")
    newest: int


class NameAnswer(NameSummary):
    """A name with its versions, its suite and its history, oldest first."""

    versions: list[PublishedVersion]
    suite: SuiteAnswer | None
    history: list[MoveAnswer]


class NameList(BaseModel):
    """The names of the caller, in alphabetical order."""

    names: list[NameSummary]
