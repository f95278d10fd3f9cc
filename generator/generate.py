"""Text-to-LoRA as it serves: a checkpoint and its encoder turn descriptions into adapters.

Descriptions are embedded alone and the generator runs in float64, so the bytes depend on the
request, the checkpoint, the layout and the numerics, and on nothing else.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from generator.checkpoint import Checkpoint, from_pretrained
from generator.request import Chosen, Generated, Proposal, Request, finished
from index.encoders.descriptions import DescriptionEncoder
from library.adapter import Adapter
from library.base.models import BaseReference, base_layout, described
from library.errors import CheckpointError, UnknownName, UsageError

TEXT_TO_LORA = "text-to-lora"
ASKED_FOR = "the only strategy asked for"


class Generator:
    """A checkpoint and its encoder, loaded once and used for many requests.

    Args:
        folder: the checkpoint; the shipped one by default.
        device: where both run.
    Raises:
        MissingPath, CheckpointError: the checkpoint cannot be used.
        BaseModelError: the encoder cannot be read or is not installed.
    """

    def __init__(self, folder: Path | None = None, *, device: str = "cpu") -> None:
        self.checkpoint: Checkpoint = from_pretrained(folder or shipped(TEXT_TO_LORA))
        self.name = self.checkpoint.generator
        self.device = device
        self._module = self.checkpoint.module.to(device=device, dtype=torch.float64)
        self._bases: dict[BaseReference, dict[str, Any]] = {}

    @cached_property
    def encoder(self) -> DescriptionEncoder:
        return DescriptionEncoder(self.checkpoint.info.encoder, device=self.device)

    @property
    def numerics(self) -> str:
        """What the bytes depend on beside the request: device kind, dtype, runtime."""
        return served_numerics(self.device)

    @torch.inference_mode()
    def adapters(self, descriptions: Sequence[str]) -> Adapter:
        """n normalised descriptions to n adapters at the checkpoint's rank, in float64."""
        return self._module(self.encoder.encode(descriptions))

    def generate(self, requests: Sequence[Request], base: BaseReference) -> list[Generated]:
        """Finished adapters for requests, all for one base.

        Raises:
            LayoutMismatch: the base's layout differs from the checkpoint's.
            UsageError: a request has examples, which are of no use here.
        """
        self.require_fit(base)
        if any(request.examples for request in requests):
            raise UsageError(f"{self.name} cannot use examples: it reads the description alone")
        batch = self.adapters([request.description for request in requests])
        about, numerics = self._bases[base], self.numerics
        return [
            finished(
                request,
                self.proposal(request.description, batch[[i]], Chosen(self.name, ASKED_FOR)),
                generator=self.name,
                base=about,
                numerics=numerics,
            )
            for i, request in enumerate(requests)
        ]

    def proposal(self, description: str, adapter: Adapter, chosen: Chosen) -> Proposal:
        """An adapter of `adapters` with what provenance says of it."""
        details = {
            "encoder": self.checkpoint.info.encoder,
            "encoder_windows": len(self.encoder.windows(description)),
        }
        return Proposal(adapter, chosen, checkpoint=self.checkpoint.digest, details=details)

    def require_fit(self, base: BaseReference) -> None:
        """Compare layouts and learn the base's identity, once for each base.

        Raises LayoutMismatch if the base's layout differs from the checkpoint's.
        """
        if base in self._bases:
            return
        layout = self.checkpoint.layout
        base_layout(base, layout).require_same(
            layout, f"base model '{base.name}'", f"the {self.name} checkpoint"
        )
        self._bases[base] = described(base)


def served_numerics(device: str) -> str:
    """Of bytes that follow from embeddings in float64 on a device."""
    return f"{device.split(':')[0]}-f64-torch"


def shipped(name: str) -> Path:
    """The checkpoint that came with the package. Raises UnknownName, CheckpointError."""
    if name != TEXT_TO_LORA:
        raise UnknownName(f"no checkpoint of '{name}' is shipped; there is one of {TEXT_TO_LORA}")
    import pretrained

    folder = Path(pretrained.__file__).parent / name
    if not folder.is_dir():
        raise CheckpointError(f"this installation has no checkpoint of {name}")
    return folder
