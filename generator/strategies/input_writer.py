"""The adapter that ships to write inputs of a task from its description."""

from pathlib import Path

import pretrained
from generator.refine.writer import Writer
from generator.strategies.stored import StoredAdapter, to_read
from library.base.models import BaseReference


class InputWriter(StoredAdapter):
    """A stored adapter that was trained on the descriptions and inputs of many tasks.

    Args:
        folder: of the adapter; an installation may lack it.
    """

    name = "input-writer"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, self.name)

    def writer(self, description: str | None, base: BaseReference, count: int) -> Writer:
        """The adapter with a description, for so many inputs.

        Raises UsageError without a description, LayoutMismatch if there is none for the base.
        """
        task = to_read(description, self.unavailable(base), "write inputs")
        return Writer(self.adapter_for(base), self.weights_digest, task, count)


def shipped_input_writer() -> Path:
    """The folder of the adapter that ships; an installation may lack it."""
    return pretrained.folder(InputWriter.name)
