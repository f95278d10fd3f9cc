"""vLLM's own serving layer and loader take what the plugin gives, where vLLM is installed.

Its engine is not started, as that needs a GPU: `add_lora` does what a worker does up to its memory.
"""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm")

from asked import url  # noqa: F401  (fixture)
from jobs import TASK, engine, library, service, settings, tasks  # noqa: F401  (fixtures)
from safetensors.torch import load_file
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolverRegistry
from vllm_loader import load

from lorasmith_client import Client
from lorasmith_vllm.resolver import Resolver
from lorasmith_vllm.settings import Settings
from lorasmith_vllm.source import Source


class Engine:
    """An engine that loads adapters as vLLM's workers do, and no model."""

    def __init__(self, rank: int) -> None:
        self.model_config = SimpleNamespace(model="tiny", max_model_len=64)
        self.renderer = self.input_processor = None
        self.rank = rank
        self.loaded: list[tuple[LoRARequest, Any]] = []

    async def add_lora(self, request: LoRARequest) -> None:
        self.loaded.append((request, load(request.lora_path, self.rank)))


@pytest.fixture
def serving(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """vLLM's serving layer over an engine, with the plugin's resolver."""
    resolver = Resolver(Source(Settings(url, tasks=True, cache=tmp_path / "cache")))
    monkeypatch.setattr(LoRAResolverRegistry, "resolvers", {"lorasmith": resolver})

    def over(engine: Engine) -> OpenAIServingModels:
        return OpenAIServingModels(engine, [BaseModelPath("tiny", "tiny")])  # type: ignore[arg-type]

    return over


def test_vllm_loads_what_the_plugin_finds(serving: Any, url: str) -> None:
    client, engine = Client(url), Engine(rank=8)
    made = client.create(TASK)
    client.publish("router", made.id)
    names = [f"generated/{made.id}", "router@v1", "task:Add the two numbers."]
    models = serving(engine)

    async def ask() -> list[LoRARequest]:
        return [await models.resolve_lora(name) for name in names + names]

    answers = asyncio.run(ask())
    assert [answer.lora_name for answer in answers] == names + names
    assert len(engine.loaded) == 3  # vLLM keeps what a name means
    request, lora = engine.loaded[0]
    stored = load_file(Path(request.lora_path) / "adapter_model.safetensors")
    assert len(lora.loras) * 2 == len(stored)
    for name, layer in lora.loras.items():
        assert layer.rank == made.rank and layer.scaling == 1
        a, b = (stored[f"base_model.model.{name}.lora_{m}.weight"] for m in "AB")
        assert a.equal(layer.lora_a.to(a)) and b.equal(layer.lora_b.to(b))


def test_what_does_not_exist_is_404_and_what_vllm_cannot_load_is_400(
    serving: Any, url: str
) -> None:
    name = f"generated/{Client(url).create(TASK, rank=16).id}"
    models = serving(Engine(rank=8))
    answers = [asyncio.run(models.resolve_lora(one)) for one in ("router@v9", name)]
    assert [answer.error.code for answer in answers] == [404, 400]
    assert isinstance(asyncio.run(serving(Engine(rank=16)).resolve_lora(name)), LoRARequest)
