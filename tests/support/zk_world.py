"""A small adapter, its owner and its verifier, for the tests of proofs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import tiny
import torch

from library.adapter import Adapter
from library.canonical import canonical_json
from library.files import write_folder
from library.layout import Layout, layout_of
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from verification.zk.backend import Backend, Srs, local_srs
from verification.zk.bundle import Bundle, prove_hashed
from verification.zk.manifest import Manifest, commit_adapter
from verification.zk.proof import Owner

NONCE = "a nonce of the verifier's"


@dataclass
class World:
    """One owner's adapter and another's of the same layout, under one SRS.

    Attributes:
        folder, other: the adapters' folders.
        manifest: of `folder`; bundle: its honest proofs for NONCE, all modules.
    """

    cache: Path
    backend: Backend
    srs: Srs
    folder: Path
    other: Path
    manifest: Manifest
    bundle: Bundle

    def owner(self, folder: Path, manifest: Manifest) -> Owner:
        return Owner(folder, manifest, self.srs, self.backend, limit=10_000)

    def bundle_of(self, folder: Path, nonce: str = NONCE) -> tuple[Manifest, Bundle]:
        """Another adapter's manifest, and its honest proofs."""
        manifest = commit_adapter(folder, self.backend, self.srs)
        return manifest, prove_hashed(self.owner(folder, manifest), nonce, None)


@contextmanager
def cached(folder: Path) -> Iterator[None]:
    """Keys and SRS in a folder of the tests, not in the user's cache."""
    before = os.environ.get("LORASMITH_CACHE")
    os.environ["LORASMITH_CACHE"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("LORASMITH_CACHE")
        if before is not None:
            os.environ["LORASMITH_CACHE"] = before


def layout() -> Layout:
    """Two modules of one shape: 16 to 16, rank 2."""
    return layout_of(tiny.config("llama", hidden_size=16, head_dim=4), ["q_proj"], rank=2)


def write(
    folder: Path, adapter: Adapter, *, dtype: torch.dtype = torch.bfloat16, **config: object
) -> Path:
    """An adapter folder with factors of a dtype; `config` changes its adapter_config.json."""
    from safetensors.torch import load, save

    files = to_peft(adapter, base_name="tiny", profile="lossless")
    tensors = {name: tensor.to(dtype) for name, tensor in load(files.weights).items()}
    content = {
        CONFIG_FILE: canonical_json({**files.config, **config}),
        WEIGHTS_FILE: save(tensors, {"format": "pt"}),
    }
    write_folder(folder, content)
    return folder


@contextmanager
def made(place: Path) -> Iterator[World]:
    """Everything made once, with keys proved with for the first time."""
    with cached(place / "cache"), Backend(2) as backend:
        folder = write(place / "mine", tiny.adapter(layout(), seed=1))
        other = write(place / "other", tiny.adapter(layout(), seed=2))
        manifest = commit_adapter(folder, backend)
        srs = local_srs(manifest.srs_logrows)
        owner = Owner(folder, manifest, srs, backend, limit=10_000)
        bundle = prove_hashed(owner, NONCE, None)
        yield World(place / "cache", backend, srs, folder, other, manifest, bundle)


def relabelled(bundle: Bundle, manifest: Manifest) -> Bundle:
    """The same proofs, presented as proofs for another manifest."""
    return replace(bundle, manifest=manifest.digest)
