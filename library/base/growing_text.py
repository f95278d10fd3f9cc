"""The text of an answer whose tokens come one by one, up to the first of some stops."""

from collections.abc import Sequence

from library.base.completion import text_of
from library.base.models import BaseModel

_INCOMPLETE = "\ufffd"  # what bytes are decoded to that do not make up a character yet


class GrowingText:
    """Gives out text as soon as no later token can change it.

    Args:
        base: whose tokens they are.
        stops: texts, not empty, that end the answer before them.

    Attributes:
        length: characters that were given out.
        stopped: whether a stop was reached.
    """

    def __init__(self, base: BaseModel, stops: Sequence[str] = ()) -> None:
        self._base, self._stops = base, stops
        self._tokens: list[int] = []
        self.length, self.stopped = 0, False

    def push(self, token: int) -> str:
        """Take a token that is not the end of sequence; the text that is certain since then."""
        self._tokens.append(token)
        text = self._until_stop()
        if self.stopped:
            return self._give(text)
        text = text.rstrip(_INCOMPLETE)
        held = max((_begun(text, stop) for stop in self._stops), default=0)
        return self._give(text[: len(text) - held])

    def finish(self) -> str:
        """The text that was held back, as no other token comes."""
        return self._give(self._until_stop())

    def _until_stop(self) -> str:
        text = text_of(self._base, self._tokens)
        found = [text.index(stop) for stop in self._stops if stop in text]
        self.stopped = bool(found)
        return text[: min(found)] if found else text

    def _give(self, text: str) -> str:
        new = text[self.length :]
        self.length += len(new)
        return new


def _begun(text: str, stop: str) -> int:
    """Characters of the longest end of `text` that a stop may go on from."""
    sizes = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)
