"""Module paths behind the names in LoRA files of image models.

kohya writes a path with `_` for `.`; which of the two a `_` was is read from the words that the
U-Nets, transformers and text encoders use. Where two words stand side by side that are not in these
lists, nobody can tell: the path is a guess, and such a file has no PEFT form. The file's own name
is kept beside it, so nothing is lost.
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
    "cross_attn", "k_img", "v_img", "img_emb", "text_embedding", "time_projection",
    "patch_embedding", "feed_forward", "noise_refiner", "context_refiner", "cap_embedder",
    "t_embedder", "norm_q", "norm_k", "norm_out", "norm_added_q", "norm_added_k", "to_qkv",
    "to_add_qkv", "token_refiner",
)  # fmt: skip
_SINGLE = {
    "attention", "attentions", "attn", "attn1", "attn2", "block", "blocks", "conv", "conv1",
    "conv2", "downsamplers", "encoder", "fc", "fc1", "fc2", "ff", "ffn", "final", "head", "k",
    "layer", "layers", "lin", "linear", "linear1", "linear2", "linear3", "mlp", "mlp1", "mlp2",
    "mod", "modulation", "net", "norm", "norm1", "norm2", "norm3", "o", "op", "out", "proj",
    "projection", "q", "qkv", "resnets", "skip", "upsamplers", "v", "w1", "w2", "w3", "wi", "wo",
    "transformer", "shared", "in", "SelfAttention", "DenseReluDense", "EncDecAttention",
}  # fmt: skip
_XLABS = re.compile(
    r"(.*(?:double|single)_blocks\.\d+)\.processor\.((?:qkv|proj)_lora[12]?)\.(down|up)\.weight"
)
_OF_XLABS = {
    "qkv_lora1": "img_attn.qkv", "proj_lora1": "img_attn.proj", "qkv_lora2": "txt_attn.qkv",
    "proj_lora2": "txt_attn.proj", "qkv_lora": "linear1", "proj_lora": "linear2",
}  # fmt: skip
_KNOWN = re.compile("|".join(sorted(map(re.escape, _WORDS), key=len, reverse=True)))
_ENCODER = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


def module_of(stem: str) -> str:
    """The path of the module that a name without its ending belongs to."""
    part = _part(stem)
    if part is not None:
        return ".".join([_PARTS[part], *_words(stem.removeprefix(part))])
    name = stem.replace(".processor.", ".")
    parent, _, last = name.rpartition(".")
    if name != stem and last == "to_out":
        return f"{name}.0"
    if name.startswith("text_encoder") and parent.endswith("self_attn"):
        return f"{parent}.{_ENCODER.get(last, last)}"
    return name


def xlabs_factor(key: str) -> tuple[str, str] | None:
    """Module path and side of a factor that XLabs' trainer of FLUX named; else None."""
    match = _XLABS.fullmatch(key)
    return match and (f"{match[1]}.{_OF_XLABS[match[2]]}", "A" if match[3] == "down" else "B")


def is_guess(stem: str) -> bool:
    """True if the path that `module_of` gives may be another than the module's real one."""
    part = _part(stem)
    if part is None:
        return False
    flat = stem.removeprefix(part).partition(".")[0]
    return not all(_is_sure(word) for word in _words(flat))


def _part(stem: str) -> str | None:
    return next((part for part in _PARTS if stem.startswith(part)), None)


def _is_sure(word: str) -> bool:
    return word.isdecimal() or word in _SINGLE or word in _WORDS


def _words(name: str) -> list[str]:
    """The parts of a path: `double_blocks_0_img_attn_qkv` is double_blocks, 0, img_attn, qkv.

    Behind a dot, which some files have, parts are written as they are.
    """
    flat, *parts = name.split(".")
    words, position = [], 0
    while position < len(flat):
        match = _KNOWN.match(flat, position)
        end = match.end() if match else position
        if not match or (end < len(flat) and flat[end] != "_"):
            end = flat.find("_", position)
            end = len(flat) if end < 0 else end
        words.append(flat[position:end])
        position = end + 1
    return [*words, *parts]
