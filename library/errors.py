"""Every error that lorasmith raises on purpose, in one hierarchy.

An error carries what both edges need: `exit_code` for the command line, `status` and `code` for
HTTP (RFC 9457). Its message is one clear sentence that may be shown to the person who asked.
"""


def first_line(error: Exception) -> str:
    """The first line of a foreign error's message, or its type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class LorasmithError(Exception):
    """Base of all of them: something that the caller can understand and act on."""

    code = "internal"
    status = 500
    exit_code = 1


class UsageError(LorasmithError, ValueError):
    """The request alone is wrong: no file and no model had to be looked at to know it."""

    code = "invalid-field"
    status = 422
    exit_code = 2


class UnknownName(UsageError, KeyError):
    """A generator, base model, method or family that is not among those that exist."""

    code = "unknown-name"

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the message in quotes


class MissingPath(UsageError, FileNotFoundError):
    """An input path that does not exist."""

    code = "missing-path"


class OutputExists(UsageError, FileExistsError):
    """An output path that exists and may not be replaced."""

    code = "output-exists"


class OutputError(LorasmithError):
    """An output that cannot be written: no permission, no space, a read-only disk."""

    code = "output-error"
    status = 507


class CatalogueError(LorasmithError):
    """A catalogue that cannot be reached or written."""

    code = "catalogue-unusable"


class LayoutMismatch(LorasmithError):
    """Two layouts that had to be the same are not; the message names both sides."""

    code = "layout-mismatch"
    status = 409


class UnsupportedModel(LorasmithError):
    """A base model whose family or modules lorasmith cannot adapt."""

    code = "unsupported-model"
    status = 422


class BaseModelError(LorasmithError):
    """A base model or encoder that cannot be read, or whose package is not installed."""

    code = "base-unreadable"


class CheckpointError(LorasmithError):
    """A generator checkpoint that is damaged, foreign or incomplete."""

    code = "checkpoint-unreadable"


class AdapterFileError(LorasmithError):
    """An adapter folder that is damaged or not a plain LoRA."""

    code = "adapter-unreadable"


class MoreThanLora(AdapterFileError):
    """An adapter with trained weights beside its LoRA, where the LoRA alone would be another."""

    code = "more-than-lora"
    status = 422


class InputFileError(LorasmithError):
    """A policy or a key whose content cannot be used."""

    code = "input-unreadable"


class AdapterRefused(LorasmithError):
    """An adapter that a verification hook refuses: one that was made, or one that came in."""

    code = "adapter-refused"


class TaskFileError(LorasmithError):
    """A task file whose content is not in one of the three formats."""

    code = "task-unreadable"
