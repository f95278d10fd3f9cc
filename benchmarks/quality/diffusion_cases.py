"""Tiny random models of diffusers, for benchmarks.quality.architectures."""

from importlib import import_module
from typing import Any

import torch
from torch import nn

from benchmarks.quality.architecture_cases import Case, Inputs

d: Any = import_module("diffusers")


def _unet(kind: Any, cross: str, plain: str, **more: Any) -> nn.Module:
    return kind(
        block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4, cross_attention_dim=16,
        down_block_types=(cross.format("Down"), plain.format("Down")),
        up_block_types=(plain.format("Up"), cross.format("Up")), **more,
    )  # fmt: skip


def _noisy(*shape: int) -> dict[str, Any]:
    """A sample, a time step and the states of a text."""
    return {"sample": torch.randn(*shape), "timestep": torch.tensor(5),
            "encoder_hidden_states": torch.randn(1, 5, 16)}  # fmt: skip


def _flux_inputs() -> Inputs:
    return {
        "hidden_states": torch.randn(1, 4, 4), "encoder_hidden_states": torch.randn(1, 3, 32),
        "pooled_projections": torch.randn(1, 32), "timestep": torch.tensor([0.5]),
        "img_ids": torch.zeros(4, 3), "txt_ids": torch.zeros(3, 3),
    }  # fmt: skip


def _sd3_inputs() -> Inputs:
    return {
        "hidden_states": torch.randn(1, 4, 8, 8), "encoder_hidden_states": torch.randn(1, 3, 32),
        "pooled_projections": torch.randn(1, 64), "timestep": torch.tensor([0.5]),
    }  # fmt: skip


DIFFUSERS = [
    Case("sd_unet", lambda: _unet(
        d.UNet2DConditionModel, "CrossAttn{}Block2D", "{}Block2D", sample_size=8,
        attention_head_dim=4), ["to_q", "conv1"], lambda: _noisy(1, 4, 8, 8),
         d.StableDiffusionPipeline, "unet"),
    Case("animatediff", lambda: _unet(
        d.UNetMotionModel, "CrossAttn{}BlockMotion", "{}BlockMotion", num_attention_heads=2,
        motion_num_attention_heads=2), r".*motion_modules.*to_(q|v)",
         lambda: _noisy(1, 4, 3, 8, 8) | {"encoder_hidden_states": torch.randn(3, 5, 16)},
         d.AnimateDiffPipeline, "unet"),
    Case("unet3d", lambda: _unet(
        d.UNet3DConditionModel, "CrossAttn{}Block3D", "{}Block3D", sample_size=8,
        attention_head_dim=4), r".*temp_(attentions.*to_(q|v)|convs.*conv1\.2)",
         lambda: _noisy(1, 4, 3, 8, 8), d.TextToVideoSDPipeline, "unet"),
    Case("flux", lambda: d.FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=2, num_single_layers=4, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8)), ["to_q", "to_k", "to_v", "to_out.0"], _flux_inputs,
         d.FluxPipeline, "transformer"),
    Case("sd3", lambda: d.SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=32,
        pooled_projection_dim=64, out_channels=4), ["attn.add_k_proj", "attn.to_v"], _sd3_inputs,
         d.StableDiffusion3Pipeline, "transformer"),
    Case("cogvideox", lambda: d.CogVideoXTransformer3DModel(
        num_attention_heads=4, attention_head_dim=8, in_channels=4, out_channels=4,
        time_embed_dim=2, text_embed_dim=32, num_layers=2, sample_width=16, sample_height=16,
        sample_frames=9, patch_size=2, temporal_compression_ratio=4, max_text_seq_length=16),
         ["to_q", "to_k", "to_v"],
         lambda: {"hidden_states": torch.randn(1, 3, 4, 16, 16), "timestep": torch.tensor([5]),
                  "encoder_hidden_states": torch.randn(1, 16, 32)},
         d.CogVideoXPipeline, "transformer"),
    Case("wan", lambda: d.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4,
        out_channels=4, text_dim=32, freq_dim=64, ffn_dim=32, num_layers=2, cross_attn_norm=True,
        qk_norm="rms_norm_across_heads"), ["to_q", "to_v", "ffn.net.2"],
         lambda: {"hidden_states": torch.randn(1, 4, 2, 8, 8), "timestep": torch.tensor([5]),
                  "encoder_hidden_states": torch.randn(1, 5, 32)},
         d.WanPipeline, "transformer"),
]  # fmt: skip
