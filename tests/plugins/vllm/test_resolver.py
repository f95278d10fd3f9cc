"""What vLLM is given: with its real classes where it is installed, and with the same two anyway."""

import asyncio
import dataclasses
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import lorasmith_vllm
from lorasmith_vllm.source import Found, Source

NAME = "generated/ad_" + "1" * 40


@dataclasses.dataclass
class Request:
    """As vLLM's LoRARequest."""

    lora_name: str
    lora_int_id: int
    lora_path: str


class Registry:
    """As vLLM's LoRAResolverRegistry."""

    def __init__(self) -> None:
        self.resolvers: dict[str, Any] = {}

    def get_supported_resolvers(self) -> Any:
        return self.resolvers.keys()

    def register_resolver(self, name: str, resolver: Any) -> None:
        assert name not in self.resolvers
        self.resolvers[name] = resolver


@pytest.fixture(params=["stub", "real"])
def registry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty registry of resolvers, vLLM's own or one that is like it."""
    monkeypatch.delitem(sys.modules, "lorasmith_vllm.resolver", raising=False)
    if request.param == "real":
        pytest.importorskip("vllm")
        from vllm.lora.resolver import LoRAResolverRegistry

        monkeypatch.setattr(LoRAResolverRegistry, "resolvers", {})
        return LoRAResolverRegistry
    found = Registry()
    parts = {"request": {"LoRARequest": Request}, "resolver": {"LoRAResolver": object}}
    parts["resolver"]["LoRAResolverRegistry"] = found  # type: ignore[assignment]
    for name in ("vllm", "vllm.lora"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for name, members in parts.items():
        module = types.ModuleType(f"vllm.lora.{name}")
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, f"vllm.lora.{name}", module)
    return found


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A service is named."""
    monkeypatch.setenv("LORASMITH_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("LORASMITH_VLLM_CACHE", str(tmp_path / "cache"))


def test_registering_again_changes_nothing(registry: Any, named: None, tmp_path: Path) -> None:
    lorasmith_vllm.register()
    first = dict(registry.resolvers)
    lorasmith_vllm.register()
    assert [*first] == ["lorasmith"] and registry.resolvers == first
    assert not (tmp_path / "cache").exists()  # nothing is made or asked in vLLM's other processes


def test_without_a_service_there_is_no_resolver(
    registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LORASMITH_URL", raising=False)
    lorasmith_vllm.register()
    assert not registry.resolvers


def test_a_found_adapter_is_a_request(
    registry: Any, named: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def find(self: Source, base: str, name: str) -> Found | None:
        return Found(tmp_path, 7) if (base, name) == ("base", NAME) else None

    monkeypatch.setattr(Source, "find", find)
    lorasmith_vllm.register()
    resolver = registry.resolvers["lorasmith"]
    request = asyncio.run(resolver.resolve_lora("base", NAME))
    assert (request.lora_name, request.lora_int_id) == (NAME, 7)
    assert request.lora_path == str(tmp_path)
    assert asyncio.run(resolver.resolve_lora("base", "other")) is None
