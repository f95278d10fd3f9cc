"""Adapters that are put into a service's store as they are, without a generator."""

from typing import Any

import tiny

from api.service.service import Service
from api.service.store import LOCAL
from generator.engine import Engine
from generator.resources import Resources
from library.adapter import Adapter
from library.base.models import load_config
from library.canonical import digest
from library.layout import layout_of
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft


def nothing_made() -> Engine:
    """An engine that makes no adapters, for services that only hand out what they have."""
    return Engine([], Resources())


def random_adapters(base: Any, n: int = 1) -> Adapter:
    """Random adapters of rank 3 for a base."""
    return tiny.adapter(layout_of(load_config(base), rank=3), n)


def stored(service: Service, adapter: Adapter, base: Any) -> str:
    """Store one adapter for a base, as portable files; its id."""
    peft = to_peft(adapter, base_name=base.name)
    identity = f"ad_{digest(peft.weights)[:40]}"
    files = {CONFIG_FILE: peft.config_bytes, WEIGHTS_FILE: peft.weights, "README.md": b"# One\n"}
    service.store.put(LOCAL, {"id": identity, "base_model": base.name}, files)
    return identity
