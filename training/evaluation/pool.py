"""The adapters of an evaluation: each kept once, in the precision in which it is stored."""

from collections.abc import Sequence

import torch

from library.adapter import Adapter, stack
from library.canonical import digest


class Pool:
    """Adapters by place; equal ones share a place. Layouts may differ."""

    def __init__(self) -> None:
        self._adapters: list[Adapter] = []
        self._places: dict[str, int] = {}
        self.digests: list[str] = []

    def add(self, adapter: Adapter) -> int:
        """Keep one adapter (n = 1) as bfloat16; return its place."""
        stored = adapter.to("cpu", torch.bfloat16)
        key = _digest(stored)
        if key not in self._places:
            self._places[key] = len(self._adapters)
            self._adapters.append(stored)
            self.digests.append(key)
        return self._places[key]

    def is_zero(self, place: int) -> bool:
        return self._adapters[place].is_zero()

    def layout_digest(self, place: int) -> str:
        return self._adapters[place].layout.digest

    def stacked(self, places: Sequence[int], device: torch.device) -> Adapter:
        """Adapters of one layout, in float32 on a device."""
        return stack([self._adapters[i] for i in places]).to(device, torch.float32)


def _digest(adapter: Adapter) -> str:
    content = b"".join(
        f.contiguous().view(torch.int16).numpy().tobytes() for f in adapter.factors()
    )
    return digest(content + adapter.layout.digest.encode())
