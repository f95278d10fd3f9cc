"""Tiny random models, layouts and adapters that the tests share."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from library.adapter import Adapter
from library.base.models import load_tokenizer, resolve_base
from library.layout import Layout

ROOT = Path(__file__).resolve().parents[2]

LIBRARY_TASKS = {
    "sum": "Add the two numbers.",
    "sub": "Subtract one number from the other.",
    "poem": "Write a line of verse about love.",
}

# Query heads outnumber key heads, so q_proj and v_proj differ in shape and v_proj is not square.
_LLAMA: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_OWN: dict[str, dict[str, Any]] = {
    "gpt2": {
        "vocab_size": 61,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 256,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "gemma2": {"query_pre_attn_scalar": 8, "final_logit_softcapping": 2.0},
    "granite": {"logits_scaling": 3.0, "embedding_multiplier": 2.0},
    "cohere": {"logit_scale": 0.5},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
}


def config(family: str, **changes: Any) -> Any:
    """A config of `family` with two layers of width 32."""
    base = {} if family == "gpt2" else _LLAMA
    return AutoConfig.for_model(family, **{**base, **_OWN.get(family, {}), **changes})


def model(config: Any, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A random model whose every parameter matters: initial biases and norms are random too."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made: Any = AutoModelForCausalLM.from_config(config).to(dtype)
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=parameter.shape[-1] ** -0.5)
                else:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return made.requires_grad_(False).eval()


def adapter(
    layout: Layout, n: int = 1, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Adapter:
    """Random adapters strong enough to be seen in the logits; padded ranks are zero."""
    generator = torch.Generator().manual_seed(seed)
    a, b = {}, {}
    for group in layout.groups:
        sites = len(group.sites)
        a[group.key] = torch.randn(
            n, sites, group.rank, group.in_features, generator=generator, dtype=dtype
        )
        b[group.key] = torch.randn(
            n, sites, group.out_features, group.rank, generator=generator, dtype=dtype
        )
        a[group.key] /= group.in_features**0.5
        for position, site in enumerate(group.sites):
            a[group.key][:, position, site.rank :] = 0
            b[group.key][:, position, :, site.rank :] = 0
    return Adapter(layout, a, b)


def with_ranks(layout: Layout, ranks: list[int]) -> Layout:
    """The same modules with ranks that repeat `ranks`."""
    sites = [replace(site, rank=ranks[i % len(ranks)]) for i, site in enumerate(layout.sites)]
    return replace(layout, sites=tuple(sites))


def deltas(adapter: Adapter, row: int = 0) -> dict[str, Tensor]:
    """ΔW of every module, formed explicitly."""
    found = {}
    for site in adapter.layout.sites:
        a, b = adapter.site(site)
        found[site.name] = b[row] @ a[row]
    return found


def merged(base: Any, adapter: Adapter, row: int = 0) -> Any:
    """A copy of the base with ΔW added to its weights: what every other way must agree with."""
    made = copy.deepcopy(base)
    for site in adapter.layout.sites:
        delta = deltas(adapter, row)[site.name]
        weight = made.get_submodule(site.name).weight
        with torch.no_grad():
            weight += (delta.T if site.transposed else delta).to(weight.dtype)
    return made


def tokens(batch: int, length: int, *, vocabulary: int = 61, seed: int = 0) -> Tensor:
    """Random token ids that are none of pad, bos and eos."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, vocabulary, (batch, length), generator=generator)


def write_base(folder: Path, *, end: float) -> None:
    """A random Llama with the first 4,096 tokens of the packaged base's tokenizer.

    The output weights of the end of sequence are multiplied by `end`.
    """
    load_tokenizer(resolve_base()).save_pretrained(folder)
    shorten_vocabulary(folder, 4096)
    tokenizer = load_tokenizer(resolve_base(str(folder)))
    size, pad, eos = len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id
    made = model(config("llama", vocab_size=size, pad_token_id=pad, eos_token_id=eos))
    with torch.no_grad():
        made.lm_head.weight[eos] *= end
    made.save_pretrained(folder)


def shorten_vocabulary(folder: Path, size: int) -> None:
    """Keep the first tokens of a saved BPE tokenizer; each is merged from earlier ones."""
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    model = content["model"]
    model["vocab"] = {token: i for token, i in model["vocab"].items() if i < size}
    model["merges"] = [pair for pair in model["merges"] if "".join(pair) in model["vocab"]]
    file.write_text(json.dumps(content), encoding="utf-8")


def prompts(lengths: Sequence[int], vocabulary: int) -> list[list[int]]:
    """Token ids of a prompt for each length."""
    rows = [tokens(1, n, vocabulary=vocabulary, seed=i) for i, n in enumerate(lengths)]
    return [row[0].tolist() for row in rows]


def one_sentence(captured: Any) -> str:
    """What a command that was refused said: one line on stderr, and nothing on stdout."""
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def write_tasks(folder: Path, texts: dict[str, str]) -> None:
    """Task files of 66 rows each, with these descriptions."""
    folder.mkdir()
    for name, text in texts.items():
        rows = [json.dumps({"input": f"{name} {i}", "output": f"{i % 7}"}) for i in range(66)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
        (folder / f"{name}.txt").write_text(text)


def randomise(module: nn.Module, *, seed: int = 0, std: float = 0.3) -> None:
    """Random weights everywhere, so that nothing is hidden by a zero start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def start_python(code: str, *arguments: str, hash_seed: int = 0) -> "subprocess.Popen[str]":
    """Start a fresh interpreter in the repository's root."""
    folders = (".", "client", "plugins/vllm", "tests/support")  # as pytest has them
    path = os.pathsep.join(str(ROOT / folder) for folder in folders)
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": path}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def output_of(process: "subprocess.Popen[str]") -> str:
    """What a started interpreter printed; its own error if it failed."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def children(command: bytes) -> set[int]:
    """Processes that this one has started and that have not ended, with this in their command."""
    pids = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            found = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z" and command in found:
            pids.add(int(folder.name))
    return pids
