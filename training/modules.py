"""LightningModules that train Text-to-LoRA: through the base (SFT), or onto known adapters.

The base model is not a submodule: it is frozen, belongs in no checkpoint, and is loaded once.
"""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from generator.checkpoint import CheckpointInfo, Storage, save_pretrained
from generator.text_to_lora import Size, TextToLoRA, TextToLoRAConfig
from index.encoder import DEFAULT_ENCODER, Embeddings
from library.adapter import Adapter
from library.base import identity, load_base, load_config, resolve_base
from library.errors import TaskFileError
from library.forward import MultiAdapter
from library.layout import layout_of
from training.data import TaskBatch
from training.lm_loss import answer_logits, answer_loss


class GeneratorModule(lightning.LightningModule):
    """What both objectives share: the generator, its optimiser and its export.

    Args:
        base: Hub id or folder; the default base if None.
        targets: module types to adapt; the family's default if None.
        rank: of the generated adapters.
        size: S, M or L.
        latent, head_in, queries, dropout: see TextToLoRAConfig.
        encoder: name of the description encoder, recorded in the checkpoint.
        embedding_dim: length of its vectors.
        lr: peak learning rate (AdamW).
        weight_decay: on matrices.
        warmup: share of the steps over which the rate rises; it then falls as a cosine.
        out: folder for the exported checkpoint; none if None.
        storage: how its matrices are stored.
    """

    def __init__(
        self,
        base: str | None = None,
        targets: list[str] | None = None,
        rank: int = 8,
        size: Size = "L",
        latent: int = 128,
        head_in: int = 512,
        queries: int = 0,
        dropout: float = 0.05,
        encoder: str = DEFAULT_ENCODER,
        embedding_dim: int = 384,
        lr: float = 3e-4,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        out: str | None = None,
        storage: Storage = "int8",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.reference = resolve_base(base)
        layout = layout_of(load_config(self.reference), targets, rank=rank)
        architecture = TextToLoRAConfig(embedding_dim, size, latent, head_in, queries, dropout)
        self.generator = TextToLoRA(architecture, layout)
        self.encoder_name = encoder
        self.lr, self.weight_decay, self.warmup = lr, weight_decay, warmup
        self.out, self.storage = out, storage

    def configure_optimizers(self) -> Any:
        matrices = [p for p in self.parameters() if p.ndim >= 2]
        others = [p for p in self.parameters() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": self.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, fused=self.device.type == "cuda")
        total = max(1, int(self.trainer.estimated_stepping_batches))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate(total))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_train_end(self) -> None:
        """Export the generator; weights averaged by a callback are in place by now."""
        if self.out is None or not self.trainer.is_global_zero:
            return
        sha256, source = identity(self.reference)
        info = CheckpointInfo(
            base={"id": self.reference.name, "sha256": sha256, "source": source},
            encoder=self.encoder_name,
            tasks=self._training_tasks(),
            training=self._record(),
        )
        save_pretrained(Path(self.out), self.generator, info, storage=self.storage, overwrite=True)

    def _rate(self, total: int) -> Any:
        rise = max(1, round(total * self.warmup))

        def factor(step: int) -> float:
            if step < rise:
                return (step + 1) / rise
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise))))

        return factor

    def _training_tasks(self) -> list[str]:
        data: Any = getattr(self.trainer, "datamodule", None)
        return sorted(task.name for task in getattr(data, "training", []))

    def _record(self) -> dict[str, Any]:
        """Objective, steps and settings, for the checkpoint's config."""
        settings = {k: v for k, v in self.hparams.items() if k not in ("out", "_instantiator")}
        data: Any = getattr(self.trainer, "datamodule", None)
        sampling = getattr(data, "sampling", None)
        return {
            "objective": type(self).__name__,
            "steps": self.trainer.global_step,
            "settings": settings,
            "sampling": asdict(sampling) if sampling else None,
        }


class TextToLoRASFT(GeneratorModule):
    """Train through the frozen base: the adapters' answers are what is scored.

    Loss (Charakorn et al. 2025, eq. 3): cross-entropy of the answers, label-smoothed, plus
    `weight_penalty` times the sum over groups of mean(A²) + mean(B²).

    Args:
        label_smoothing, neftune_alpha, weight_penalty: as in the paper's recipe.
        compile_layers: compile the base's layers (worth it on a GPU).
        **settings: see GeneratorModule.
    """

    def __init__(
        self,
        label_smoothing: float = 0.1,
        neftune_alpha: float = 5.0,
        weight_penalty: float = 1e-3,
        compile_layers: bool = False,
        base: str | None = None,
        targets: list[str] | None = None,
        rank: int = 8,
        size: Size = "L",
        latent: int = 128,
        head_in: int = 512,
        queries: int = 0,
        dropout: float = 0.05,
        encoder: str = DEFAULT_ENCODER,
        embedding_dim: int = 384,
        lr: float = 3e-4,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        out: str | None = None,
        storage: Storage = "int8",
    ) -> None:
        super().__init__(
            base, targets, rank, size, latent, head_in, queries, dropout, encoder, embedding_dim,
            lr, weight_decay, warmup, out, storage,
        )  # fmt: skip
        self.save_hyperparameters()
        self.label_smoothing, self.neftune_alpha = label_smoothing, neftune_alpha
        self.weight_penalty, self.compile_layers = weight_penalty, compile_layers
        self._frozen: list[Any] = []  # [model, hooks]; a list, so that it is no submodule

    def setup(self, stage: str) -> None:
        if self._frozen:
            return
        device = self.trainer.strategy.root_device
        # bfloat16 is fast on GPUs and six times slower than float32 on most CPUs.
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        model = load_base(self.reference, device=device, dtype=dtype).model
        hooks = MultiAdapter(model, self.generator.layout)
        if self.compile_layers:
            for layer in model.get_decoder().layers:
                layer.compile(dynamic=True)
        self._frozen = [model, hooks]

    def training_step(self, batch: TaskBatch, batch_idx: int) -> Tensor:
        adapter = self.generator(_embeddings(batch))
        loss = self._batch_loss(batch, adapter, training=True).mean()
        penalty = torch.stack(
            [
                factor.square().mean()
                for key in adapter.A
                for factor in (adapter.A[key], adapter.B[key])
            ]
        ).sum()
        self.log("train_loss", loss, prog_bar=True)
        self.log("tokens", float(batch.tokens), reduce_fx="sum")
        return loss + self.weight_penalty * penalty

    def validation_step(self, batch: TaskBatch, batch_idx: int) -> None:
        """Loss on tasks set aside, and what another task's description costs (steering margin)."""
        if not batch.rows:  # every row of these tasks is longer than max_length
            return
        embeddings = _embeddings(batch)
        adapter = self.generator(embeddings)
        own = self._batch_loss(batch, adapter, training=False)
        n = len(own)
        self.log("val_loss", own.mean(), prog_bar=True, batch_size=n)
        if len(adapter) > 1:
            shifted = adapter[[*range(1, len(adapter)), 0]]
            other = self._batch_loss(batch, shifted, training=False)
            self.log("val_margin", (other - own).mean(), prog_bar=True, batch_size=n)

    test_step = validation_step

    def _batch_loss(self, batch: TaskBatch, adapter: Adapter, *, training: bool) -> Tensor:
        """Loss of every row of the step."""
        if not batch.rows:
            raise TaskFileError("no row of this step is short enough; raise sampling.max_length")
        model, hooks = self._frozen
        losses = []
        for group in batch.rows:
            hooks.set(adapter, group.rows)
            logits = answer_logits(
                model,
                group.ids,
                group.answer,
                neftune_alpha=self.neftune_alpha if training else 0.0,
            )
            smoothing = self.label_smoothing if training else 0.0
            losses.append(answer_loss(logits, group.ids, group.answer, label_smoothing=smoothing))
        hooks.clear()
        return torch.cat(losses)


def _embeddings(batch: TaskBatch) -> Embeddings:
    if batch.embeddings is None:
        raise ValueError("the batch has not been moved to its device by TaskDataModule")
    return batch.embeddings
