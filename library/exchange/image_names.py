"""Module paths behind the names in LoRA files of image models.

kohya writes a path with `_` for `.`; which of the two a `_` was is read from the words that the
U-Nets, transformers and text encoders use. A word that is missing here only gives a path with a dot
more: the file's own name is kept beside it, so nothing is lost.
"""

import re

_PARTS = {
    "lora_unet_": "unet",
    "lora_transformer_": "transformer",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
}
_WORDS = (
    "down_blocks", "up_blocks", "mid_block", "input_blocks", "output_blocks", "middle_block",
    "transformer_blocks", "single_transformer_blocks", "double_blocks", "single_blocks",
    "joint_blocks", "context_block", "x_block", "to_q", "to_k", "to_v", "to_out", "to_add_out",
    "add_q_proj", "add_k_proj", "add_v_proj", "proj_in", "proj_out", "ff_context",
    "time_emb_proj", "time_embedding", "add_embedding", "linear_1", "linear_2", "conv_in",
    "conv_out", "conv_shortcut", "in_layers", "out_layers", "emb_layers", "skip_connection",
    "label_emb", "time_embed", "img_attn", "txt_attn", "img_mlp", "txt_mlp", "img_mod", "txt_mod",
    "img_in", "txt_in", "time_in", "vector_in", "guidance_in", "in_layer", "out_layer",
    "final_layer", "adaLN_modulation", "norm1_context", "context_embedder", "x_embedder",
    "time_text_embed", "timestep_embedder", "guidance_embedder", "text_embedder", "proj_mlp",
    "text_model", "text_projection", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj",
    "wi_0", "wi_1",
)  # fmt: skip
_KNOWN = re.compile("|".join(sorted(map(re.escape, _WORDS), key=len, reverse=True)))
_ENCODER = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


def module_of(stem: str) -> str:
    """The path of the module that a name without its ending belongs to."""
    part = next((p for p in _PARTS if stem.startswith(p)), None)
    if part is not None:
        return f"{_PARTS[part]}.{_dotted(stem.removeprefix(part))}"
    name = stem.replace(".processor.", ".")
    parent, _, last = name.rpartition(".")
    if name != stem and last == "to_out":
        return f"{name}.0"
    if name.startswith("text_encoder") and parent.endswith("self_attn"):
        return f"{parent}.{_ENCODER.get(last, last)}"
    return name


def _dotted(flat: str) -> str:
    """`double_blocks_0_img_attn_qkv` is `double_blocks.0.img_attn.qkv`."""
    found, place = [], 0
    while place < len(flat):
        match = _KNOWN.match(flat, place)
        end = match.end() if match else place
        if not match or (end < len(flat) and flat[end] != "_"):
            end = flat.find("_", place)
            end = len(flat) if end < 0 else end
        found.append(flat[place:end])
        place = end + 1
    return ".".join(found)
