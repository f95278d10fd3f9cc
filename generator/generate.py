"""One call from a request to a finished adapter: the command line and the API both come here.

Descriptions are embedded alone and the generator runs in float64, so the bytes depend on the
request, the checkpoint, the layout and the numerics, and on nothing else.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from generator.checkpoint import Checkpoint, from_pretrained
from index.encoder import DescriptionEncoder, normalise
from library.adapter import Adapter
from library.base import BaseReference, base_layout, identity
from library.errors import CheckpointError, UnknownName, UsageError
from library.peft_io import Profile, to_peft
from library.provenance import AdapterFiles, Provenance, finish

GENERATORS = ("text-to-lora",)
DEFAULT_GENERATOR = "text-to-lora"
MAX_STRENGTH = 10.0
MAX_RANK = 256
MAX_SEED = 2**53 - 1  # what JSON numbers hold exactly


@dataclass(frozen=True)
class Request:
    """What is asked for. Validated on construction; raises UsageError.

    Attributes:
        description: the task, 1 to 8,192 characters; kept in its normal form.
        rank: below the generator's, the best approximation of ΔW; above, zero-padded.
        strength: factor on ΔW.
        seed: recorded in the identity; Text-to-LoRA itself is deterministic.
        profile: see library.peft_io.
    """

    description: str
    rank: int | None = None
    strength: float = 1.0
    seed: int = 0
    profile: Profile = "portable"

    def __post_init__(self) -> None:
        object.__setattr__(self, "description", normalise(self.description))
        if self.rank is not None and not 1 <= self.rank <= MAX_RANK:
            raise UsageError(f"rank must be from 1 to {MAX_RANK}, not {self.rank}")
        if not math.isfinite(self.strength) or not 0 < abs(self.strength) <= MAX_STRENGTH:
            raise UsageError(
                f"strength must be from -{MAX_STRENGTH:g} to {MAX_STRENGTH:g} and not zero, "
                f"not {self.strength}"
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"seed must be from 0 to {MAX_SEED}, not {self.seed}")
        if self.profile not in ("portable", "lossless"):
            raise UsageError(f"profile must be portable or lossless, not {self.profile!r}")


@dataclass(frozen=True)
class Generated:
    """A finished adapter and how it came about, as `generate --json` shows it."""

    files: AdapterFiles
    adapter: Adapter = field(repr=False)
    generator: str = ""
    base_model: str = ""
    seed: int = 0
    profile: Profile = "portable"
    chosen: dict[str, Any] = field(default_factory=dict)

    def stored(self) -> Adapter:
        """The adapter with the weights that are in the file (bfloat16 if portable)."""
        dtype = torch.bfloat16 if self.profile == "portable" else torch.float32
        return self.adapter.to(dtype=dtype)

    def summary(self) -> dict[str, Any]:
        return {
            "id": self.files.id,
            "sha256": self.files.sha256,
            "generator": self.generator,
            "base_model": self.base_model,
            "layout_digest": self.adapter.layout.digest,
            "rank": self.adapter.layout.rank,
            "seed": self.seed,
            "chosen": self.chosen,
        }


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
        self.checkpoint: Checkpoint = from_pretrained(folder or shipped(DEFAULT_GENERATOR))
        self.name = self.checkpoint.generator
        self.device = device
        self._module = self.checkpoint.module.to(device=device, dtype=torch.float64)
        self._identities: dict[BaseReference, tuple[str | None, str]] = {}

    @cached_property
    def encoder(self) -> DescriptionEncoder:
        return DescriptionEncoder(self.checkpoint.info.encoder, device=self.device)

    @property
    def numerics(self) -> str:
        """What the bytes depend on beside the request: device kind, dtype, runtime."""
        return f"{self.device.split(':')[0]}-f64-torch"

    @torch.inference_mode()
    def adapters(self, descriptions: Sequence[str]) -> Adapter:
        """n normalised descriptions to n adapters at the checkpoint's rank, in float64."""
        return self._module(self.encoder.encode(descriptions))

    def generate(self, requests: Sequence[Request], base: BaseReference) -> list[Generated]:
        """Finished adapters for requests, all for one base.

        Raises LayoutMismatch if the base's layout differs from the checkpoint's.
        """
        self.require_fit(base)
        batch = self.adapters([request.description for request in requests])
        return [self._finish(request, batch[[i]], base) for i, request in enumerate(requests)]

    def require_fit(self, base: BaseReference) -> None:
        """Compare layouts and learn the base's identity, once for each base.

        Raises LayoutMismatch if the base's layout differs from the checkpoint's.
        """
        if base in self._identities:
            return
        layout = self.checkpoint.layout
        base_layout(base, layout).require_same(
            layout, f"base model '{base.name}'", f"the {self.name} checkpoint"
        )
        self._identities[base] = identity(base)

    def _finish(self, request: Request, adapter: Adapter, base: BaseReference) -> Generated:
        adapter = adapter.to(device="cpu")
        if request.strength != 1.0:
            adapter = adapter.scaled(request.strength)
        if request.rank is not None and request.rank != adapter.layout.rank:
            adapter = adapter.with_rank(request.rank)
        sha256, source = self._identities[base]
        provenance = Provenance(
            generator=self.name,
            checkpoint=self.checkpoint.digest,
            description=request.description,
            seed=request.seed,
            numerics=self.numerics,
            layout_digest=adapter.layout.digest,
            base={"id": base.name, "sha256": sha256, "source": source},
            details={
                "encoder": self.checkpoint.info.encoder,
                "encoder_windows": len(self.encoder.windows(request.description)),
                "profile": request.profile,
                "strength": request.strength,
            },
        )
        files = to_peft(adapter, base_name=base.name, profile=request.profile)
        return Generated(
            files=finish(files, provenance),
            adapter=adapter,
            generator=self.name,
            base_model=base.name,
            seed=request.seed,
            profile=request.profile,
            chosen={
                "strategy": self.name,
                "reason": "the only strategy asked for",
                "neighbours": [],
            },
        )


def shipped(name: str) -> Path:
    """The checkpoint that came with the package. Raises UnknownName, CheckpointError."""
    if name not in GENERATORS:
        raise UnknownName(f"unknown generator '{name}'; known: {', '.join(GENERATORS)}")
    import pretrained

    folder = Path(pretrained.__file__).parent / name
    if not folder.is_dir():
        raise CheckpointError(f"this installation has no checkpoint of {name}")
    return folder
