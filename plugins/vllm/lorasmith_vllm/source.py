"""From a model's name to an adapter's folder, within bounds."""

import asyncio
import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lorasmith_client import Adapter, AsyncClient, ClientError
from lorasmith_vllm.cache import Cache, CacheFull
from lorasmith_vllm.model_names import ADAPTER_ID, Wanted, number, wanted
from lorasmith_vllm.settings import Settings

FILES = ("adapter_config.json", "adapter_model.safetensors")  # nothing else is downloaded
_log = logging.getLogger("lorasmith_vllm")


class Refused(Exception):
    """A name that is not served; the text says why."""


@dataclass(frozen=True)
class Found:
    """A folder with an adapter in PEFT's form, and the integer that stands for the adapter."""

    path: Path
    number: int


class Source:
    """Adapters of a lorasmith service by the names of models."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cache = Cache(settings.cache, settings.cache_bytes)
        self._running = asyncio.Semaphore(settings.concurrent)
        self._pending = 0
        self._served: set[str] = set()

    async def find(self, base: str, name: str) -> Found | None:
        """The adapter of a name, for a base model as vLLM calls it.

        None, and a line in the log, if it is not served: then vLLM answers 404, and asks again for
        the next request.
        """
        asked = wanted(name)
        if asked is None or (asked.task is not None and not self._settings.tasks):
            return None
        try:
            with self._place(name):
                async with asyncio.timeout(self._settings.timeout), self._running:
                    found = await self._fetch(base, asked)
                self._served.add(name)
                return found
        except TimeoutError:
            reason = f"it took more than {self._settings.timeout:g} seconds"
        except (ClientError, Refused, CacheFull, OSError) as error:
            reason = str(error)
        _log.warning("%.100r is not served: %s", name, reason)
        return None

    @contextmanager
    def _place(self, name: str) -> Iterator[None]:
        if self._pending >= self._settings.pending:
            raise Refused(f"{self._pending} other names are being looked up")
        if name not in self._served and (
            len(self._served) + self._pending >= self._settings.adapters
        ):
            raise Refused(f"{self._settings.adapters} adapters are served already")
        self._pending += 1
        try:
            yield
        finally:
            self._pending -= 1

    async def _fetch(self, base: str, asked: Wanted) -> Found:
        settings = self._settings
        base = settings.base or base
        patience = timeout = settings.timeout
        async with AsyncClient(
            settings.url, settings.key, timeout=timeout, patience=patience
        ) as client:
            if asked.task is not None:
                adapter = await _made(client, base, asked.task)
            else:
                adapter = await client.get(asked.adapter or "")
            _require(adapter, asked, base)
            path = self._cache.hold(adapter.id)
            if path is None:
                return Found(await self._download(client, adapter), number(adapter.id))
        if not await asyncio.to_thread(_is_whole, path, adapter):
            self._cache.release(adapter.id)
            raise Refused(f"{path} is damaged; remove it")
        return Found(path, number(adapter.id))

    async def _download(self, client: AsyncClient, adapter: Adapter) -> Path:
        size = sum(max(0, adapter.files[name].bytes) for name in FILES)
        with self._cache.coming(size) as place:
            await client.download(adapter.id, place, FILES)
            return self._cache.take(adapter.id, place)


async def _made(client: AsyncClient, base: str, task: str) -> Adapter:
    """An adapter for a description, which is asked with the input alone: nobody sees its usage."""
    for offered in await client.base_models():
        if offered.base_model == base:
            return await client.create(task, base=offered.name, mode="bare")
    raise Refused(f"the service makes no adapters for {base}")


def _require(adapter: Adapter, asked: Wanted, base: str) -> None:
    """Raise Refused unless an adapter is the one that was asked for, and one that vLLM reads."""
    if not ADAPTER_ID.fullmatch(adapter.id):  # it becomes the name of a folder
        raise Refused("the service answers with an id that is none")
    if asked.adapter is not None and "@" not in asked.adapter and asked.adapter != adapter.id:
        raise Refused(f"the service answers with {adapter.id}")
    if adapter.base_model != base:
        raise Refused(f"{adapter.id} is for {adapter.base_model}, and not for {base}")
    if missing := [name for name in FILES if name not in adapter.files]:
        raise Refused(f"{adapter.id} has no {missing[0]}")


def _is_whole(path: Path, adapter: Adapter) -> bool:
    """Whether the files in a folder are those of an adapter, byte for byte."""
    for name in FILES:
        try:
            with (path / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return False
        if digest != adapter.files[name].sha256:
            return False
    return True
