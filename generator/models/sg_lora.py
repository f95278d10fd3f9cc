"""SG-LoRA: the library's nearest adapters become a distribution, and a draw of it an adapter.

"Semantic-guided LoRA parameters generation" (arXiv 2509.10535): a description chooses and weighs a
few experts; mean μ* and variance σ*² of their mixture are the condition c of a variational
autoencoder over adapters, whose prior p(z|c) is learned. Text never enters the network. Written
from the formulas, as no code is published. It differs from the paper in four things. The networks
see one module at a time, with weights shared by the modules of a group, where the paper's see the
whole adapter: one latent z for the whole adapter, pooled over its modules, is what holds these
together. Inputs are in standard deviations of the training adapters. By default the decoder adds to
μ* instead of replacing it. And for seed 0 z is the prior's mean instead of a draw.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generator.layers.aggregate import ExpertMixture, aggregate
from generator.layers.gaussian import DiagonalGaussian, kl_divergence, seeded_noise
from generator.layers.site_mlp import SiteMLP
from generator.models.base import Condition, Generator, require_experts
from index.search.retriever import NEIGHBOURS, TEMPERATURE, similarity_weights
from library.adapter import Adapter, rank_mask
from library.errors import LayoutMismatch, UsageError
from library.layout import Group, Layout

VARIANCE_FLOOR = 1e-4  # of σ*² in squared deviations of the training adapters, before the logarithm
Conditions = dict[str, tuple[Tensor, Tensor]]  # by group, two of `[n, sites, d]`
LEAST_PROJECTION = 0.25  # of experts' A on the mean A of training, whose own adapters have 1


@dataclass(frozen=True)
class SGLoRAConfig:
    """The architecture.

    Attributes:
        latent: dimensions of z.
        hidden: width of the networks.
        code: length of the learned vector that names a module.
        top_k: experts of a condition, and
        temperature: of the softmax over their cosines.
        residual: whether the decoder adds to μ* (True; it adds nothing at the start, so that what
            is untrained gives μ*), or makes the adapter alone (False; the paper).
        floor: cosine of the nearest expert below which a request is refused. In the sample library
            of 24 tasks held-out definitions have 0.30 or more, paraphrases of them 0.27, gibberish
            0.22 at most.
    """

    latent: int = 32
    hidden: int = 80
    code: int = 16
    top_k: int = NEIGHBOURS
    temperature: float = TEMPERATURE
    residual: bool = True
    floor: float = 0.25

    def __post_init__(self) -> None:
        for name in ("latent", "hidden", "code", "top_k"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} must be a whole number from 1, not {value!r}")
        if not self.temperature > 0:
            raise UsageError(f"temperature must be above 0, not {self.temperature!r}")
        if not -1 <= self.floor <= 1:
            raise UsageError(f"floor must be a cosine, from -1 to 1, not {self.floor!r}")


class SGLoRA(Generator):
    """The conditional autoencoder for one layout. Before training ΔW is that of μ* (`residual`)."""

    kind = "sg-lora"
    Config = SGLoRAConfig
    needs = frozenset({"description", "experts"})  # the description is what experts are found by
    draws = True

    def __init__(self, config: SGLoRAConfig, layout: Layout) -> None:
        super().__init__(config, layout)
        self.top_k, self.floor = config.top_k, config.floor
        self.encoders, self.priors = nn.ModuleDict(), nn.ModuleDict()
        self.decoders = nn.ModuleDict()
        for group in layout.groups:
            sites, d = len(group.sites), group.rank * (group.in_features + group.out_features)
            sizes = {"sites": sites, "hidden": config.hidden, "code": config.code}
            z = config.latent
            # X, μ* and log σ²*; the condition alone; z and the condition.
            self.encoders[group.key] = SiteMLP(parts=(d, d, d), out=2 * z, layers=2, **sizes)
            self.priors[group.key] = SiteMLP(parts=(d, d), out=2 * z, layers=2, **sizes)
            decoder = SiteMLP(parts=(z, d, d), out=d, layers=3, **sizes)
            if config.residual:
                nn.init.zeros_(decoder.last.weight)
                nn.init.zeros_(decoder.last.bias)
            self.decoders[group.key] = decoder
            self._register_statistics(group)

    def _register_statistics(self, group: Group) -> None:
        """Mean of every entry, deviation of every row of A and of Bᵀ; see `prepare`.

        A row that all training adapters share (of a frozen A) has deviation zero: the networks see
        zero for it, and add nothing to it.
        """
        sites, r = len(group.sites), group.rank
        self.register_buffer(f"mean_a_{group.key}", torch.zeros(sites, r, group.in_features))
        self.register_buffer(f"mean_b_{group.key}", torch.zeros(sites, r, group.out_features))
        # Flat, as a checkpoint may store matrices in eight bits.
        self.register_buffer(f"deviation_{group.key}", torch.ones(sites * r * 2))
        self.register_buffer(f"mask_{group.key}", rank_mask(group), persistent=False)

    @torch.no_grad()
    def prepare(self, adapters: Adapter, tasks: Float[Tensor, "m d"] | None = None) -> None:
        """Store mean and deviation of the training adapters, which all inputs are measured in."""
        for group in self.layout.groups:
            rows = (adapters.A[group.key], adapters.B[group.key].mT)  # (n, sites, r, in or out)
            deviations = []
            for side, x in zip("ab", rows, strict=True):
                mean = x.mean(dim=0)
                self.get_buffer(f"mean_{side}_{group.key}").copy_(mean)
                same = (x == x[:1]).all(dim=3).all(dim=0)  # whose mean is off by rounding
                deviation = (x - mean).square().mean(dim=(0, 3)).sqrt()
                deviations.append(torch.where(same, 0.0, deviation))  # (sites, r)
            deviation = torch.stack(deviations, dim=-1)  # (sites, r, 2)
            self.get_buffer(f"deviation_{group.key}").copy_(deviation.flatten())

    @torch.no_grad()
    def require_same_start(self, experts: Adapter) -> None:
        """Raise LayoutMismatch unless the experts' A have that of training in common.

        Anything else is in another basis, where the statistics mean nothing.
        """
        products, squares = [], []
        for group in self.layout.groups:
            mean = self.get_buffer(f"mean_a_{group.key}")
            products.append((experts.A[group.key].to(mean) * mean).sum(dim=(1, 2, 3)))  # (n,)
            squares.append(mean.square().sum())
        least = LEAST_PROJECTION * torch.stack(squares).sum()
        if (torch.stack(products).sum(dim=0) < least).any():
            raise LayoutMismatch(
                f"the library's adapters were not trained from the A that the {self.kind} "
                "checkpoint was trained on: it needs the library it was made with, or one built "
                "with the same seed, rank and targets"
            )

    def forward(self, condition: Condition) -> Adapter:
        """n conditions to n adapters: z is the prior's mean for seed 0, for any other seed a draw.

        Raises UsageError without experts; LayoutMismatch for experts of another initial A.
        """
        mixture = self.mixture(condition)
        self.require_same_start(mixture.mean)
        prior = self.prior(mixture)
        if condition.seed == 0:
            return self.decode(mixture, prior.mean)
        noise = seeded_noise(condition.seed, self.config.latent, prior.mean)
        return self.decode(mixture, prior.at(noise))

    def posterior(
        self, condition: Condition, target: Adapter
    ) -> tuple[Adapter, dict[str, Float[Tensor, ""]]]:
        """Known adapters through q(z|X, c), and "kl", KL(q(z|X, c) ‖ p(z|c)) in nats (mean of n).

        z is drawn while training, and the mean in eval mode. The paper's loss is the squared error,
        summed over all entries, plus 1 · kl.
        """
        mixture = self.mixture(condition)
        inputs, conditions = self._standardised(target), self._conditions(mixture)
        encoded = {key: self.encoders[key](x, *conditions[key]) for key, x in inputs.items()}
        q, p = _pooled(encoded), self._prior(conditions)
        z = q.draw() if self.training else q.mean
        adapter = self._decode(mixture, conditions, z)
        return adapter, {"kl": kl_divergence(q, p).mean()}

    def mixture(self, condition: Condition) -> ExpertMixture:
        """μ* and σ*² of the conditions' experts. Raises UsageError if there are none."""
        experts = require_experts(condition)
        weights = similarity_weights(experts.similarities, self.config.temperature)
        return aggregate(experts.means, experts.variances, weights)

    def prior(self, mixture: ExpertMixture) -> DiagonalGaussian:
        """p(z|c)."""
        return self._prior(self._conditions(mixture))

    def decode(self, mixture: ExpertMixture, z: Float[Tensor, "n d"]) -> Adapter:
        """The adapters of n conditions for given latents."""
        return self._decode(mixture, self._conditions(mixture), z)

    def _prior(self, conditions: Conditions) -> DiagonalGaussian:
        return _pooled({key: self.priors[key](*c) for key, c in conditions.items()})

    def _decode(
        self, mixture: ExpertMixture, conditions: Conditions, z: Float[Tensor, "n d"]
    ) -> Adapter:
        a, b = {}, {}
        for group in self.layout.groups:
            key, sites = group.key, len(group.sites)
            repeated = z[:, None].expand(-1, sites, -1)  # (n, sites, d)
            out = self.decoders[key](repeated, *conditions[key])
            rows = out.unflatten(-1, (group.rank, -1)) * self._deviation(group)
            site_a, site_b = rows.split([group.in_features, group.out_features], dim=-1)
            if self.config.residual:
                site_a, site_b = site_a + mixture.mean.A[key], site_b + mixture.mean.B[key].mT
            else:
                mean_a, mean_b = self._means(group)
                site_a, site_b = site_a + mean_a, site_b + mean_b
            mask = self.get_buffer(f"mask_{key}").to(out)[..., None]  # (sites, r, 1)
            a[key], b[key] = site_a * mask, (site_b * mask).mT
        return Adapter(self.layout, a, b)

    def _conditions(self, mixture: ExpertMixture) -> Conditions:
        """What the networks see of a mixture: z-scored μ* and log σ*²."""
        means, conditions = self._standardised(mixture.mean), {}
        for group in self.layout.groups:
            ratio = self._in_deviations(_rows(mixture.variance, group), group, power=2)
            log = (ratio + VARIANCE_FLOOR).log().flatten(-2)
            conditions[group.key] = (means[group.key], log)
        return conditions

    def _standardised(self, adapter: Adapter) -> dict[str, Float[Tensor, "n sites d"]]:
        """Every site's A and Bᵀ in deviations from the training adapters' mean, by group."""
        flat = {}
        for group in self.layout.groups:
            mean = torch.cat(self._means(group), dim=-1)  # (sites, r, in + out)
            z = self._in_deviations(_rows(adapter, group) - mean, group)
            flat[group.key] = z.flatten(-2)
        return flat

    def _means(self, group: Group) -> tuple[Tensor, Tensor]:
        """Of the training adapters' A `[sites, r, in]` and Bᵀ `[sites, r, out]`."""
        return self.get_buffer(f"mean_a_{group.key}"), self.get_buffer(f"mean_b_{group.key}")

    def _in_deviations(
        self, rows: Float[Tensor, "n sites r width"], group: Group, power: int = 1
    ) -> Float[Tensor, "n sites r width"]:
        """Rows by a power of their deviation; zero for those that have none."""
        deviation = self._deviation(group)
        units = torch.where(deviation > 0, deviation, 1.0) ** power
        return torch.where(deviation > 0, rows / units, 0.0)

    def _deviation(self, group: Group) -> Float[Tensor, "sites r width"]:
        """Each row's deviation, repeated over its columns of A and of Bᵀ."""
        rows = self.get_buffer(f"deviation_{group.key}").view(len(group.sites), group.rank, 2)
        of_a, of_b = rows.split(1, dim=-1)  # (sites, r, 1)
        widths = (group.in_features, group.out_features)
        return torch.cat([of_a.expand(-1, -1, widths[0]), of_b.expand(-1, -1, widths[1])], dim=-1)


def _rows(adapter: Adapter, group: Group) -> Float[Tensor, "n sites r width"]:
    """A and Bᵀ side by side, one row a rank."""
    return torch.cat([adapter.A[group.key], adapter.B[group.key].mT], dim=-1)


def _pooled(encoded: dict[str, Float[Tensor, "n sites two_d"]]) -> DiagonalGaussian:
    """One Gaussian for the whole adapter: the mean of what its sites say."""
    states = torch.cat(list(encoded.values()), dim=1).mean(dim=1)  # (n, 2·d)
    return DiagonalGaussian(*states.chunk(2, dim=-1))
