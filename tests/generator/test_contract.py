"""The contract of every registered generator, and a throw-away one that needs no other change."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import pytest
import tiny
import torch
from experts import random_experts, rows_of
from rest import LOCALHOST, post
from starlette.testclient import TestClient
from torch import nn

from api.cli.main import main
from api.http.app import create_app
from api.service.service import Service
from api.service.settings import Settings
from generator.engine import open_engine, read_generator, read_generators
from generator.models.base import Condition, Generator, registered, require_text
from index.encoders.descriptions import Embeddings
from library.adapter import Adapter, rank_mask
from library.checkpoint import Checkpointed, CheckpointInfo, save_checkpoint
from library.layout import Layout, layout_of
from training.data.adapters import LibraryDataModule
from training.objectives.reconstruction import Reconstruction


@dataclass(frozen=True)
class LinearConfig:
    embedding_dim: int = 384


class Linear(Generator):
    """A linear map from the pooled description to B, beside a fixed A."""

    kind = "linear"
    Config = LinearConfig

    def __init__(self, config: LinearConfig, layout: Layout) -> None:
        super().__init__(config, layout)
        self.a, self.b = nn.ParameterDict(), nn.ParameterDict()
        for g in layout.groups:
            self.a[g.key] = nn.Parameter(torch.randn(len(g.sites), g.rank, g.in_features))
            width = (config.embedding_dim, len(g.sites), g.out_features, g.rank)
            self.b[g.key] = nn.Parameter(torch.zeros(width))

    def forward(self, condition: Condition) -> Adapter:
        pooled = require_text(condition).pooled
        masks = {g.key: rank_mask(g).to(pooled) for g in self.layout.groups}
        a = {k: (v * masks[k][..., None]).expand(len(pooled), *v.shape) for k, v in self.a.items()}
        b = {
            k: torch.einsum("nd,dsor->nsor", pooled, v) * masks[k][:, None]
            for k, v in self.b.items()
        }
        return Adapter(self.layout, a, b)


Checkpointed.registry.pop(Linear.kind)  # known in the tests below alone


@pytest.fixture
def linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """The throw-away generator is registered."""
    monkeypatch.setitem(Checkpointed.registry, Linear.kind, Linear)


FAMILIES = ("llama", "gpt2", "phi3")


def text(n: int, width: int = 384) -> Embeddings:
    pooled = torch.nn.functional.normalize(torch.randn(n, width, dtype=torch.float64), dim=-1)
    tokens = torch.randn(n, 3, width, dtype=torch.float64)
    return Embeddings(pooled, tokens, tokens, torch.ones(n, 3, dtype=torch.bool))


@pytest.mark.parametrize("name", [*registered(), Linear.kind])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_generator_keeps_the_contract(
    name: str, family: str, linear: None, tmp_path: Path
) -> None:
    cls, layout = registered()[name], layout_of(tiny.config(family), rank=3)
    base = tiny.model(tiny.config(family))
    torch.manual_seed(0)
    module = cls(cls.Config(), layout).double().eval()
    embedded, experts = text(3), random_experts(layout, 3, module.top_k)
    task = torch.randn(3, 576, dtype=torch.float64)
    condition = Condition(text=embedded, experts=experts, task=task, base=base)
    with torch.no_grad():
        start = module(condition)
        assert start.layout == layout and len(start) == 3
        for site in layout.sites:  # zero at the start, or a mean of the experts
            a, b = start.site(site)
            assert ("experts" in cls.needs) == bool((b @ a).any())
        tiny.randomise(module)
        together, again = (module(condition) for _ in range(2))
        one = Embeddings(*(x[[1]] for x in vars(embedded).values()))
        some = rows_of(experts, [1])
        alone = module(Condition(text=one, experts=some, task=task[[1]], base=base))
    for key in together.A:
        assert torch.equal(together.A[key], again.A[key])  # same seed, same bytes
        torch.testing.assert_close(together.A[key][[1]], alone.A[key])  # rows are independent
        torch.testing.assert_close(together.B[key][[1]], alone.B[key])
    save_checkpoint(tmp_path / "c", module, CheckpointInfo())
    stored = read_generator(tmp_path / "c").module.state_dict()
    assert all(torch.equal(v, module.state_dict()[k].float()) for k, v in stored.items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_generator_in_one_file_trains_generates_serves_and_is_evaluated(
    linear: None, small_library: Path, tiny_base: Path, tmp_path: Path, capsys: Any
) -> None:
    # 1. It trains by an objective that has never heard of it, and is exported.
    module = Reconstruction(
        generator=Linear, base=str(tiny_base), rank=4, out=str(tmp_path / "linear")
    )
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, LibraryDataModule(str(small_library / "lib"), steps=5))
    # 2. The command generates with it and evaluates it.
    own = ["--checkpoint", str(tmp_path / "linear"), "--base", str(tiny_base)]
    made = ["generate", "Add.", "--generator", "linear", "--out", str(tmp_path / "a"), "--json"]
    assert main([*made, *own]) == 0
    assert '"generator": "linear"' in capsys.readouterr().out
    tasks = ["evaluate", "--tasks", str(small_library / "tasks"), "--methods", "linear"]
    assert main([*tasks, *own, "--limit", "1", "--out", str(tmp_path / "report.json")]) == 0
    # 3. REST offers and serves it.
    checkpoints = {"linear": tmp_path / "linear"}
    bases = {"tiny": str(tiny_base)}
    settings = Settings(data=tmp_path / "data", checkpoints=checkpoints, bases=bases)
    service = Service(settings, open_engine(read_generators(checkpoints)))
    with TestClient(create_app(service), LOCALHOST) as client:
        offers = client.get("/v1/generators").json()["generators"]
        assert "linear" in [offer["name"] for offer in offers]
        answer = post(client, {"description": "Add.", "generator": "linear"})
        assert answer.status_code == 201 and answer.json()["generator"] == "linear"
