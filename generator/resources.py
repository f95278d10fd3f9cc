"""Loaded things that strategies share: encoders, the library for a base, base models."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder
from index.encoders.texts import TextEncoder, is_base_states, text_encoder
from index.search.retriever import Retriever
from library.base.models import BaseModel, BaseReference, described, load_base
from library.errors import (
    BaseModelError,
    LayoutMismatch,
    OutputError,
    UnsupportedModel,
    UsageError,
)
from library.store.folder import LibraryFolder

FOLLOW_SECONDS = 2  # between two looks at what changed in the library
MISFIT = (LayoutMismatch, UnsupportedModel, UsageError)  # raised by what does not fit a base


class Fit:
    """The answer whether something fits a base model, worked out once for each base.

    Args:
        check: raises one of MISFIT for a base that does not fit.
    """

    def __init__(self, check: Callable[[BaseReference], object]) -> None:
        self._check = check
        self._reasons: dict[BaseReference, str] = {}

    def misfit(self, base: BaseReference) -> str:
        """The reason why it does not fit; empty if it does."""
        if base not in self._reasons:
            try:
                self._check(base)
            except MISFIT as error:
                self._reasons[base] = str(error)
            else:
                self._reasons[base] = ""
        return self._reasons[base]

    def require(self, base: BaseReference) -> None:
        """Raise what `check` raises for a base that does not fit."""
        if self.misfit(base):
            self._check(base)


class Resources:
    """Encoders, a library and base models, each loaded at its first use and then kept.

    Args:
        library: adapters to retrieve; None where there is no library.
        device: where encoders, generators and base models run.
        load: how a base model is loaded.
        encoders: encoders that are loaded already, in float64.
    """

    def __init__(
        self,
        library: LibraryFolder | None = None,
        *,
        device: str = "cpu",
        load: Callable[[BaseReference], BaseModel] | None = None,
        encoders: Sequence[DescriptionEncoder] = (),
    ) -> None:
        self.library, self.device = library, device
        self._load = load or (lambda base: load_base(base, device=device))
        self._encoders = {encoder.name: encoder for encoder in encoders}
        self._readers: dict[tuple[str, BaseReference], TextEncoder] = {}
        self._retrievers: dict[BaseReference, Retriever] = {}
        self._models: dict[BaseReference, BaseModel] = {}
        self._described: dict[BaseReference, dict[str, Any]] = {}
        self._loading = threading.RLock()
        self._followed, self._changes = time.monotonic(), 0
        self.library_fit = Fit(self._require_library)

    def reader(self, encoder: str, base: BaseReference) -> TextEncoder:
        """What a generator for a base reads texts by, in float64.

        Args:
            encoder: name of a description encoder, or a folder of base states.
            base: the base model.
        Raises:
            MissingPath, BaseModelError, CheckpointError, LayoutMismatch: it cannot be used.
        """
        with self._loading:
            if (encoder, base) not in self._readers:
                self._readers[encoder, base] = (
                    text_encoder(encoder, base, device=self.device)
                    if is_base_states(encoder)
                    else self.encoder(encoder)
                )
            return self._readers[encoder, base]

    def encoder(self, name: str = DEFAULT_ENCODER) -> DescriptionEncoder:
        """A description encoder, in float64. Raises MissingPath, BaseModelError."""
        with self._loading:
            if name not in self._encoders:
                self._encoders[name] = DescriptionEncoder(name, device=self.device)
            return self._encoders[name]

    def retriever(self, base: BaseReference) -> Retriever:
        """The library for a base.

        Raises UsageError if there is none, LayoutMismatch or UnsupportedModel if it does not fit.
        """
        if self.library is None:
            raise UsageError("there is no library to take adapters from")
        with self._loading:
            if base not in self._retrievers:
                self._retrievers[base] = Retriever(self.library, base, self.encoder())
            return self._retrievers[base]

    def _require_library(self, base: BaseReference) -> None:
        """Raise one of MISFIT unless the library is for a base, which may be a name alone."""
        try:
            self.retriever(base)
        except BaseModelError as error:
            raise LayoutMismatch(f"the library cannot be held to it: {error}") from error

    def follow(self) -> int:
        """Take in what was written to the library since; looks every FOLLOW_SECONDS at most.

        Returns how often there was a change. While the library cannot be read, or holds a damaged
        record, it stays as it was read before.
        """
        with self._loading:
            if time.monotonic() - self._followed > FOLLOW_SECONDS:
                for base, retriever in self._retrievers.items():
                    with suppress(OutputError):
                        self._retrievers[base] = retriever.followed()
                    self._changes += self._retrievers[base] is not retriever
                self._followed = time.monotonic()
            return self._changes

    def model(self, base: BaseReference) -> BaseModel:
        """A loaded base model."""
        with self._loading:
            if base not in self._models:
                self._models[base] = self._load(base)
            return self._models[base]

    @property
    def numerics(self) -> str:
        """What bytes depend on beside the request: device kind, dtype, runtime."""
        return f"{self.device.split(':')[0]}-f64-torch"

    def described(self, base: BaseReference) -> dict[str, Any]:
        """{"id", "sha256", "source"} of a base model."""
        if base not in self._described:
            self._described[base] = described(base)
        return self._described[base]
