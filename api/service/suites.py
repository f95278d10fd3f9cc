"""The suite of a name: inputs with every answer that is accepted, kept as canonical JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from library.canonical import canonical_json, digest
from library.errors import UsageError
from library.tasks.files import Example

MAX_ROWS = 1000
MAX_INPUT = 4096  # characters
MAX_SUITE_BYTES = 2**20  # of its JSON


@dataclass(frozen=True)
class Suite:
    """Rows that the versions of a name are asked.

    Attributes:
        text: its canonical JSON, a list of {"input", "outputs"}.
    """

    text: str

    @classmethod
    def of(cls, rows: Sequence[Example]) -> "Suite":
        """A suite of rows in their order. Raises UsageError for too many or too long ones."""
        if not 1 <= len(rows) <= MAX_ROWS:
            raise UsageError(f"a suite has 1 to {MAX_ROWS:,} rows, not {len(rows):,}")
        for number, row in enumerate(rows, 1):
            if not row.input.strip() or len(row.input) > MAX_INPUT:
                raise UsageError(
                    f"row {number} of the suite: an input has 1 to {MAX_INPUT:,} characters"
                )
        content = canonical_json([{"input": r.input, "outputs": [*r.outputs]} for r in rows])
        if len(content) > MAX_SUITE_BYTES:
            raise UsageError(f"the suite takes {len(content):,} bytes of {MAX_SUITE_BYTES:,}")
        return cls(content.decode())

    @cached_property
    def rows(self) -> tuple[Example, ...]:
        """The inputs with their accepted answers."""
        rows = json.loads(self.text)
        return tuple(Example("", row["input"], tuple(row["outputs"])) for row in rows)

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return digest(self.text.encode())

    def to_dict(self) -> dict[str, Any]:
        """What is shown of it: digest and size."""
        return {"digest": self.digest, "rows": len(self.rows)}
