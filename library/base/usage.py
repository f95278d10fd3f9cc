"""Usage: which prompt an adapter was made for and measured with, which is part of the answer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from library.base.prompts import INPUT, Mode, example_block, user_turn
from library.errors import UsageError
from library.peft.provenance import PROVENANCE_FILE

PLACEHOLDER = "{input}"


@dataclass(frozen=True)
class Usage:
    """The prompt of an adapter: a user's message through the base's own chat template.

    Attributes:
        mode: bare (the message is the input) or prompted (it begins with the instruction).
        template: the message; the input goes where the last `{input}` stands.
    """

    mode: Mode
    template: str

    def __post_init__(self) -> None:
        sound = isinstance(self.template, str) and PLACEHOLDER in self.template
        if self.mode not in get_args(Mode) or not sound:
            raise UsageError(
                f"a usage has a mode and a template with {PLACEHOLDER}, not {self}"[:200]
            )

    @classmethod
    def of(cls, mode: Mode, instruction: str | None) -> "Usage":
        """The usage of a mode. Raises UsageError for a prompt without an instruction."""
        if mode == "prompted" and not instruction:
            raise UsageError("a prompted adapter needs a description, which goes into its prompt")
        return cls(mode, user_turn(mode, instruction or "", PLACEHOLDER))

    def message(self, text: str) -> str:
        """The user's message for an input."""
        before, _, after = self.template.rpartition(PLACEHOLDER)
        return f"{before}{text}{after}"

    def shows(self, text: str, answer: str) -> bool:
        """Whether the message shows an example, so that a model can copy its answer."""
        return f"\n\n{example_block(text, answer)}\n\n" in self.template

    def without_examples(self, description: str | None) -> "Usage":
        """The usage without the examples that its message shows below a description, if any."""
        shows = description and self.template.startswith(f"{description}\n\n{INPUT}")
        return Usage.of(self.mode, description) if shows else self

    def to_dict(self) -> dict[str, str]:
        """As `usage` stands in provenance, in `--json` and in REST."""
        return {"mode": self.mode, "template": self.template}


BARE = Usage("bare", PLACEHOLDER)


def usage_of(files: Mapping[str, bytes]) -> Usage:
    """The usage that an adapter's provenance states; bare where it states none."""
    try:
        stated: Any = json.loads(files.get(PROVENANCE_FILE, b"null"))
        return Usage(stated["usage"]["mode"], stated["usage"]["template"])
    except (ValueError, TypeError, KeyError):
        return BARE
