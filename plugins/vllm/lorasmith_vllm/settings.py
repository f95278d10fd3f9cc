"""Settings of the plugin, from environment variables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorasmith_client.connection import Connection

_YES, _NO = ("1", "true", "yes"), ("0", "false", "no", "")


@dataclass(frozen=True)
class Settings:
    """What may be asked for, from where, and how much of it.

    Attributes:
        url: of the lorasmith service.
        key: API key of it, if it has keys.
        base: base model that adapters have to name (None: what vLLM calls its model).
        tasks: whether `task:DESCRIPTION` makes an adapter.
        cache: folder of downloaded adapters.
        cache_bytes: limit of that folder.
        timeout: seconds for one name.
        concurrent: names that are resolved at one time.
        pending: names that may wait or be resolved; more are refused.
        adapters: names that are served while vLLM runs, which forgets none; more are refused.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    base: str | None = None
    tasks: bool = False
    cache: Path = field(default_factory=lambda: _folder("~/.cache/lorasmith-vllm"))
    cache_bytes: int = 10 * 2**30
    timeout: float = 60.0
    concurrent: int = 4
    pending: int = 64
    adapters: int = 1000


def read_settings(environment: Mapping[str, str]) -> Settings | None:
    """The settings; None where no service is named. Raises ValueError: one is wrong."""
    url = environment.get("LORASMITH_URL")
    if not url:
        return None
    Connection(url).options()  # raises ValueError for other schemes than http and https
    values = {
        name.removeprefix("LORASMITH_VLLM_").lower(): value
        for name, value in environment.items()
        if name.startswith("LORASMITH_VLLM_") and value
    }
    readers: dict[str, Callable[[str], Any]] = {
        "base": str, "tasks": _flag, "cache": _folder, "cache_bytes": _number, "timeout": _number,
        "concurrent": _number, "pending": _number, "adapters": _number,
    }  # fmt: skip
    if unknown := sorted({*values} - {*readers}):
        raise ValueError(f"there is no setting LORASMITH_VLLM_{unknown[0].upper()}")
    read: dict[str, Any] = {name: readers[name](value) for name, value in values.items()}
    return Settings(url, environment.get("LORASMITH_API_KEY"), **read)


def _folder(value: str) -> Path:
    return Path(value).expanduser().absolute()  # vLLM takes other paths for names of the Hub


def _number(value: str) -> int:
    if not (value.isascii() and value.isdecimal() and int(value)):
        raise ValueError(f"{value!r} is no number from 1 on")
    return int(value)


def _flag(value: str) -> bool:
    if value.lower() not in _YES + _NO:
        raise ValueError(f"{value!r} is neither 1 nor 0")
    return value.lower() in _YES
