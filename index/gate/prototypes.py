"""Gates without training: a token is scored by what each adapter's ΔW responds to."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from index.gate.experts import spectral_rows
from index.gate.systems import System
from index.gate.takes import greatest
from library.adapter import Adapter
from library.factored import canonical

# The scores of experts, by a module's name and what is read there.
Scorer = Callable[[str, Float[Tensor, "batch length i"]], Float[Tensor, "batch length experts"]]


class Prototypes(nn.Module):
    """Arrow: |v·x| with the top right singular vector v. SpectR: ‖ΔW·x‖, the whole spectrum.

    LAG: Arrow leaves k of the adapters, among which SpectR decides.
    """

    def __init__(self, system: System, adapter: Adapter) -> None:
        super().__init__()
        self.system = system
        self._arrows: dict[str, Float[Tensor, "n i"]] = {}
        self._spectra: dict[str, Float[Tensor, "n k i"]] = {}
        for group in adapter.layout.groups:
            a, b = adapter.A[group.key], adapter.B[group.key]
            top = nn.functional.normalize(canonical(a, b)[0][:, :, 0], dim=-1).to(a)
            rows = spectral_rows(a, b)
            for i, site in enumerate(group.sites):
                self._arrows[site.name], self._spectra[site.name] = top[:, i], rows[:, i]

    def forward(
        self, name: str, x: Float[Tensor, "batch length i"]
    ) -> Float[Tensor, "batch length n"]:
        """Scores of each token."""
        spectra = self._spectra[name]
        x = x.to(spectra.dtype)
        arrow = (x @ self._arrows[name].mT).abs()
        if self.system.scores == "arrow":
            return arrow
        spectr = torch.einsum("bti,nki->btnk", x, spectra).norm(dim=-1)
        if self.system.scores == "spectr":
            return spectr
        return spectr.masked_fill(~greatest(arrow, self.system.k), -torch.inf)
