"""Tiny random models of many architectures: what adapters are made of other than decoders.

Names and shapes of modules are those of the real classes, only smaller. Each has inputs of its own,
so that what an adapter does can be seen in what comes out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

t: Any = import_module("transformers")  # loads names when asked, which type checkers do not see
Inputs = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """An architecture.

    Attributes:
        name: of the row.
        build: makes the model, random.
        targets: names of module types, or a pattern of paths, as PEFT takes them.
        inputs: of its forward pass.
        pipeline: diffusers' class that writes its LoRA files; None for a PEFT folder.
        component: what that pipeline calls the model; empty for none.
    """

    name: str
    build: Callable[[], nn.Module]
    targets: list[str] | str
    inputs: Callable[[], Inputs]
    pipeline: Any = None
    component: str = ""

    @property
    def family(self) -> str:
        """The library that the model's class is of."""
        return "transformers" if self.pipeline is None else "diffusers"

    def model(self) -> nn.Module:
        """The model, the same at every call, frozen and in evaluation mode."""
        torch.manual_seed(0)
        return self.build().requires_grad_(False).eval()

    def output(self, model: nn.Module) -> Tensor:
        """All tensors that come out, side by side, for inputs that are always the same."""
        torch.manual_seed(1)
        with torch.no_grad():
            values = model(**self.inputs()).to_tuple()
        return torch.cat([value.flatten() for value in values if isinstance(value, Tensor)])


_TEXT: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 64, "vocab_size": 99, "pad_token_id": 0, "bos_token_id": 1,
         "eos_token_id": 2}  # fmt: skip
_VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
           "intermediate_size": 64, "image_size": 32, "patch_size": 8}  # fmt: skip
_BOTH_SIDES = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64,
               "encoder_attention_heads": 2, "decoder_attention_heads": 2,
               "decoder_ffn_dim": 64}  # fmt: skip
_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
_IMAGE_TOKEN = 98  # or of sound


def _ids(n: int = 6) -> Tensor:
    return torch.arange(3, 3 + n)[None]


def _around(n: int) -> Tensor:
    """Tokens around places for n vectors of another kind."""
    return torch.cat([_ids(2), torch.full((1, n), _IMAGE_TOKEN), _ids(3)], dim=1)


def _image(size: int = 32) -> Tensor:
    return torch.randn(1, 3, size, size)


def _clip() -> nn.Module:
    return t.CLIPModel(t.CLIPConfig(text_config=_TEXT, vision_config=_VISION))


def _llava() -> nn.Module:
    vision = t.CLIPVisionConfig(**_VISION)
    text = t.LlamaConfig(**_TEXT)
    config = t.LlavaConfig(text_config=text, vision_config=vision, image_token_index=_IMAGE_TOKEN)
    return t.LlavaForConditionalGeneration(config)


def _llava_inputs() -> Inputs:
    return {"input_ids": _around(16), "pixel_values": _image()}


def _mllama() -> nn.Module:
    text = {**_TEXT, "num_hidden_layers": 4, "num_key_value_heads": 2,
            "cross_attention_layers": [1, 3]}  # fmt: skip
    vision = {**_VISION, "num_global_layers": 1, "attention_heads": 2, "vision_output_dim": 64,
              "intermediate_layers_indices": [0], "max_num_tiles": 1,
              "supported_aspect_ratios": [[1, 1]]}  # fmt: skip
    model = t.MllamaForConditionalGeneration(t.MllamaConfig(text_config=text, vision_config=vision))
    for name, parameter in model.named_parameters():
        if name.endswith(("gate", "cross_attn_attn_gate", "cross_attn_mlp_gate")):
            nn.init.constant_(parameter, 0.5)  # closed in a new model, which hides the vision
    return model


def _mllama_inputs() -> Inputs:
    return {
        "input_ids": _ids(), "pixel_values": torch.randn(1, 1, 1, 3, 32, 32),
        "aspect_ratio_ids": torch.ones(1, 1, dtype=torch.long),
        "aspect_ratio_mask": torch.ones(1, 1, 1, dtype=torch.long),
        "cross_attention_mask": torch.ones(1, 6, 1, 1, dtype=torch.long),
    }  # fmt: skip


def _florence() -> nn.Module:
    vision = {"embed_dim": [16, 16, 16, 32], "depths": [1] * 4, "num_heads": [2] * 4,
              "num_groups": [2] * 4, "projection_dim": 32}  # fmt: skip
    text = {"model_type": "bart", **_BOTH_SIDES, "vocab_size": 99, **_SPECIAL}
    config = t.Florence2Config(text_config=text, vision_config=vision, image_token_id=_IMAGE_TOKEN)
    return t.Florence2ForConditionalGeneration(config)


def _granite_speech() -> nn.Module:
    encoder = {"hidden_dim": 32, "num_layers": 2, "num_heads": 2, "dim_head": 16, "input_dim": 16,
               "output_dim": 16, "context_size": 8}  # fmt: skip
    projector = t.Blip2QFormerConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        encoder_hidden_size=32,
    )  # fmt: skip
    text = t.GraniteConfig(**_TEXT, num_key_value_heads=2)
    config = t.GraniteSpeechConfig(
        text_config=text, encoder_config=encoder, projector_config=projector,
        has_lora_adapter=False, audio_token_index=_IMAGE_TOKEN, window_size=8, downsample_rate=4,
    )  # fmt: skip
    return t.GraniteSpeechForConditionalGeneration(config)


def _granite_speech_inputs() -> Inputs:
    return {"input_ids": _around(4), "input_features": torch.randn(1, 16, 16)}


def _detr() -> nn.Module:
    backbone = t.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, out_features=["stage4"]
    )
    config = t.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone_config=backbone,
        num_queries=5,
        **_BOTH_SIDES,
    )
    return t.DetrForObjectDetection(config)


def _wav2vec2() -> nn.Module:
    config = t.Wav2Vec2Config(
        **_TEXT,
        conv_dim=[16] * 2,
        conv_kernel=[10, 3],
        conv_stride=[5, 2],
        num_feat_extract_layers=2,
        num_conv_pos_embedding_groups=2,
    )
    return t.Wav2Vec2Model(config)


def _segformer() -> nn.Module:
    config = t.SegformerConfig(
        depths=[1] * 4,
        hidden_sizes=[8, 16, 16, 32],
        num_attention_heads=[1, 2, 2, 2],
        decoder_hidden_size=16,
        num_labels=3,
    )
    return t.SegformerForSemanticSegmentation(config)


def _swin2sr() -> nn.Module:
    return t.Swin2SRForImageSuperResolution(
        t.Swin2SRConfig(embed_dim=24, depths=[2, 2], num_heads=[2, 2], window_size=4, image_size=16)
    )


_SEQUENCE = {"input_ids": _ids(), "decoder_input_ids": _ids(4)}
TRANSFORMERS = [
    Case("vit", lambda: t.ViTModel(t.ViTConfig(**_VISION)), ["q_proj", "v_proj"],
         lambda: {"pixel_values": _image()}),
    Case("clip", _clip, ["q_proj", "v_proj"],
         lambda: {"input_ids": _ids(), "pixel_values": _image()}),
    Case("siglip", lambda: t.SiglipModel(t.SiglipConfig(text_config=_TEXT, vision_config=_VISION)),
         ["k_proj", "v_proj"], lambda: {"input_ids": _ids(), "pixel_values": _image()}),
    Case("swin2sr", _swin2sr, ["query", "value", "dense"], lambda: {"pixel_values": _image(16)}),
    Case("segformer", _segformer, ["query", "value", "proj"],
         lambda: {"pixel_values": _image(64)}),
    Case("videomae", lambda: t.VideoMAEModel(
        t.VideoMAEConfig(**_VISION, num_frames=4, tubelet_size=2)), ["query", "value"],
         lambda: {"pixel_values": torch.randn(1, 4, 3, 32, 32)}),
    Case("detr", _detr, ["q_proj", "v_proj"], lambda: {"pixel_values": _image(64)}),
    Case("resnet", lambda: t.ResNetModel(
        t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])), ["convolution"],
         lambda: {"pixel_values": _image()}),
    Case("llava", _llava, ["q_proj", "v_proj"], _llava_inputs),
    Case("mllama", _mllama, ["q_proj", "v_proj", "fc1"], _mllama_inputs),
    Case("florence2", _florence, ["q_proj", "v_proj", "fc1"],
         lambda: {**_SEQUENCE, "input_ids": _around(5), "pixel_values": _image(64)}),
    Case("whisper", lambda: t.WhisperForConditionalGeneration(
        t.WhisperConfig(**_BOTH_SIDES, **_SPECIAL, vocab_size=99, max_source_positions=10)),
         ["q_proj", "v_proj"],
         lambda: {"input_features": torch.randn(1, 80, 20), "decoder_input_ids": _ids(4)}),
    Case("wav2vec2", _wav2vec2, ["q_proj", "v_proj"],
         lambda: {"input_values": torch.randn(1, 400)}),
    Case("granite_speech", _granite_speech, ["q_proj", "v_proj"], _granite_speech_inputs),
    Case("t5", lambda: t.T5ForConditionalGeneration(
        t.T5Config(d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, vocab_size=99)),
         ["q", "v"], lambda: _SEQUENCE),
    Case("bert", lambda: t.BertModel(t.BertConfig(**_TEXT)), ["query", "value"],
         lambda: {"input_ids": _ids()}),
    Case("mamba", lambda: t.MambaForCausalLM(
        t.MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=99)), ["in_proj", "x_proj"],
         lambda: {"input_ids": _ids()}),
]  # fmt: skip
