"""Text-to-LoRA: a description becomes an adapter in one forward pass (Charakorn et al. 2025).

A descriptor per target module (description, layer, module type) goes through a small residual MLP
and one linear head per group of modules. Head sizes: L emits A and B at once, M shares one head
between A and B, S emits one row of A or B at a time. Five things differ from the paper: ΔW is
exactly zero at the start for every size; the order of modules is part of the layout, hence of the
checkpoint; the description may be read token by token beside its pooled vector; readers may carry
its words straight to B; and input/output pairs may stand beside the description or in its place. A
phase may stand beside the description (TC-LoRA, arXiv 2510.09561). What comes out may be added to a
static part through a gate.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generator.layers.config import TextToLoRAConfig
from generator.layers.copy_reader import CopyReader
from generator.layers.gate import GatedSum, conditional
from generator.layers.heads import Trunk, make_head
from generator.layers.pair_encoder import PairEncoder
from generator.layers.phase import PhaseEncoder
from generator.layers.word_reader import WordReader
from generator.models.base import Condition, Generator, require_phase, require_text
from index.encoders.descriptions import Embeddings
from library.adapter import Adapter, rank_mask
from library.layout import Group, Layout


class TextToLoRA(Generator):
    """The hypernetwork for one layout. Needs the base's layout only, never its weights.

    Needs descriptions; made for examples, it needs descriptions or examples.
    """

    kind = "text-to-lora"
    Config = TextToLoRAConfig
    needs = frozenset({"description"})
    optional = frozenset({"examples"})

    def __init__(self, config: TextToLoRAConfig, layout: Layout) -> None:
        super().__init__(config, layout)
        h, depth = config.latent, layout.depth
        self.made = conditional(layout) if config.gate else layout  # of what a condition makes
        self.task_encoder = TaskEncoder(config)
        self.layer_embedding = nn.Embedding(depth, h // 4)
        self.layer_norm = nn.LayerNorm(h // 4)
        self.module_embedding = nn.Embedding(len(layout.groups), h // 4)
        self.module_norm = nn.LayerNorm(h // 4)
        self.trunk = Trunk(config)
        self.heads = nn.ModuleDict({g.key: make_head(config, g) for g in self.made.groups})
        # Where a layer holds several modules of one type, layer and type do not name a module.
        self.site_embeddings = nn.ParameterDict(
            {g.key: nn.Parameter(torch.randn(len(g.sites), h // 4)) for g in _ambiguous(layout)}
        )
        self.reader: WordReader | None = None
        if config.reader_dim:
            sizes = (config.embedding_dim, config.words_dim, config.reader_dim)
            self.reader = WordReader(*sizes, self.made)
        self.copies: CopyReader | None = None
        if config.copy_dim:
            sizes = (config.embedding_dim, config.words_dim, config.copy_dim)
            self.copies = CopyReader(*sizes, self.made)
        self.phases = config.phases
        self.phase_encoder = PhaseEncoder(h // 2) if config.phases else None
        self.pairs: PairEncoder | None = None
        self.max_examples, self.optional = config.examples, frozenset()
        if config.examples:
            self.needs, self.optional = frozenset(), frozenset({"description", "examples"})
            self.pairs = PairEncoder(config)
        self.gated_sum = GatedSum(h // 2, layout) if config.gate else None
        for group in self.made.groups:
            depths = torch.tensor([site.depth for site in group.sites])
            self.register_buffer(f"depths_{group.key}", depths, persistent=False)
            self.register_buffer(f"mask_{group.key}", rank_mask(group), persistent=False)

    def forward(self, condition: Condition) -> Adapter:
        """n embedded descriptions, pairs or both, with phases if learned, to n adapters."""
        return self.measured(condition)[0]

    def measured(self, condition: Condition) -> tuple[Adapter, dict[str, Float[Tensor, ""]]]:
        """The same with the gate's figures, if there is a gate (generator.layers.gate)."""
        read = self._read(condition)
        task = self.task_encoder(read)  # (n, h/2)
        if self.phase_encoder is not None:
            task = task + self.phase_encoder(require_phase(condition))
        adapter = self._made(read, task)
        return (adapter, {}) if self.gated_sum is None else self.gated_sum(task, adapter)

    def _made(self, read: Embeddings, task: Float[Tensor, "n half"]) -> Adapter:
        """What the conditions make, without a static part."""
        word_columns = {} if self.reader is None else self.reader(read)
        copied = {} if self.copies is None else self.copies(read)
        a, b = {}, {}
        for index, group in enumerate(self.made.groups):
            site_a, site_b = self.heads[group.key](self.trunk, self._descriptor(task, index, group))
            if group.key in word_columns:
                site_b = site_b + word_columns[group.key]  # (n, sites, out, r)
            if group.key in copied:
                more_a, more_b = copied[group.key]
                site_a, site_b = site_a + more_a, site_b + more_b
            mask = self.get_buffer(f"mask_{group.key}").to(site_a)  # (sites, r)
            a[group.key] = site_a * mask[:, :, None]
            b[group.key] = site_b * mask[:, None, :]
        return Adapter(self.made, a, b)

    def _read(self, condition: Condition) -> Embeddings:
        """What stands for each condition: a pooled vector and tokens."""
        if self.pairs is None:
            return require_text(condition)
        return self.pairs(condition.text, condition.examples)

    def _descriptor(
        self, task: Float[Tensor, "n half"], index: int, group: Group
    ) -> Float[Tensor, "n sites h"]:
        n, sites = task.shape[0], len(group.sites)
        layer = self.layer_embedding(self.get_buffer(f"depths_{group.key}"))  # (sites, h/4)
        if group.key in self.site_embeddings:
            layer = layer + self.site_embeddings[group.key]
        layer = self.layer_norm(layer)
        module = self.module_norm(self.module_embedding.weight[index])
        return torch.cat(
            [
                task[:, None].expand(n, sites, -1),
                layer.expand(n, sites, -1),
                module.expand(n, sites, -1),
            ],
            dim=-1,
        )


class TaskEncoder(nn.Module):
    """Pooled vector, and optionally attention over token vectors, to the task part (n, h/2)."""

    def __init__(self, config: TextToLoRAConfig) -> None:
        super().__init__()
        d, width = config.embedding_dim, config.latent // 2
        self.scale = math.sqrt(d)
        self.pooled = nn.Linear(d, width)
        self.norm = nn.LayerNorm(width)
        self.queries: nn.Parameter | None = None
        if config.queries:
            self.queries = nn.Parameter(torch.randn(config.queries, width))
            self.token_norm = nn.LayerNorm(d)
            self.word_norm = nn.LayerNorm(config.words_dim) if config.words_dim else None
            self.key = nn.Linear(d + config.words_dim, width, bias=False)
            self.value = nn.Linear(d + config.words_dim, width, bias=False)
            self.join = nn.Linear(config.queries * width, width, bias=False)
            self.dropout = nn.Dropout(config.dropout)

    def forward(self, descriptions: Embeddings) -> Float[Tensor, "n half"]:
        # The paper scales unit vectors by sqrt(d); without it the input is 1/20 of its size.
        state = self.pooled(descriptions.pooled * self.scale)
        if self.queries is not None:
            tokens = self.token_norm(descriptions.tokens)  # (n, t, d)
            if self.word_norm is not None:
                tokens = torch.cat([tokens, self.word_norm(descriptions.words)], dim=-1)
            keys = self.key(tokens)
            scores = keys @ self.queries.T / math.sqrt(keys.shape[-1])  # (n, t, q)
            scores = scores.masked_fill(~descriptions.mask[..., None], float("-inf"))
            read = scores.softmax(dim=1).mT @ self.value(tokens)  # (n, q, width)
            state = state + self.join(self.dropout(read.flatten(1)))
        return self.norm(state)


def _ambiguous(layout: Layout) -> list[Group]:
    """Groups with two modules in one layer: of a CLIP text encoder beside its vision tower, say."""
    return [g for g in layout.groups if len({site.depth for site in g.sites}) < len(g.sites)]
