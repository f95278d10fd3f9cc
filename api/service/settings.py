"""Settings of a service: flags of `serve`, `LORASMITH_*` in the environment, keys of a TOML file.

A flag goes before the environment, and that before the file. `bases` are the base models by the
names that requests may use: Hub ids, `hub:` ids or folders. A request never names a path.
"""

import ipaddress
import json
import re
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from api.service.database import postgres_url
from api.service.keys import require_rate
from library.base.models import DEFAULT_BASE, BaseReference, resolve_base
from library.errors import MissingPath, UnknownName, UsageError, first_line
from library.files import data_dir, read_input

LogFormat = Literal["text", "json"]
HOST_NAME = r"[a-z0-9._-]+|\[[0-9a-f:.]+\]"  # of any case, without a port


def _separated(value: Any) -> Any:
    """Names that a flag or a variable separates by commas; a file has them as an array."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _folders(value: Any) -> Any:
    """The same, where an empty name would be the current folder: none is meant."""
    return [*filter(None, _separated(value))] if isinstance(value, str) else value


def _require_host_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The same names. Raises UsageError for what no Host can be."""
    for name in names:
        if re.fullmatch(HOST_NAME, name, re.IGNORECASE) is None:
            raise UsageError(f"{name!r} is not the name of a host, without a port")
    return names


def _require_database(url: str) -> str:
    """The same URL. Raises UsageError unless it is one of PostgreSQL."""
    postgres_url(url)
    return url


def _require_objects(url: str) -> str:
    """The same URL. Raises UsageError unless it is one of an object store or a folder."""
    if re.fullmatch(r"(s3|file)://[^@?#]+", url) is None:
        raise UsageError("it must be a URL as s3://bucket/prefix, without credentials")
    return url


def _from_json(value: Any) -> Any:
    """An object that a flag or a variable holds as JSON; a file has it as a table."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise UsageError("it must be a JSON object") from error


_Json = BeforeValidator(_from_json)
_HostNames = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(_separated), AfterValidator(_require_host_names)
]
_Folders = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_folders)]


class Settings(BaseSettings):
    """Settings of one service; `load_settings` gives errors of one sentence.

    Each is also a flag of `serve`, and a row of the table in docs/production.md.

    Attributes:
        config: TOML file with any of the others.
        host: address to listen on; loopback only, unless there are keys.
        port: port to listen on; 0 takes a free one.
        allowed_hosts: names, separated by commas, under which clients may ask, as where a proxy
            passes its own name on; those of loopback too, if `host` is.
        data: where adapters and their owners are kept (`LORASMITH_DATA`).
        database: URL of PostgreSQL, where several replicas keep owners, names, keys and jobs
            (`LORASMITH_DATABASE`); files in `data` by default.
        objects: URL of an object store for adapters' files (`LORASMITH_OBJECTS`), of which `data`
            then has a cache; credentials are in the environment alone.
        checkpoints: folders by generator, in place of the shipped checkpoints.
        multi_task: folders of multi-task adapters, separated by commas, each for its base; the
            shipped ones come after them.
        gates: folders of trained gates' checkpoints, by the names that completions use.
        library: folder or URL of the library for search, neighbours and rivals; else the sample.
        tasks: folder of task files with examples for the behaviour hook; none by default.
        bases: base models by the names that requests may use; the first is the default.
        queue_length: how many requests may wait while one is computed, and how many completions
            while eight are.
        job_queue_length: how many jobs may wait while one runs.
        retry_after: seconds that a refused client is told to wait.
        quota_bytes: limit for all adapters together.
        import_bytes: limit for the body of an import.
        ttl: seconds after which adapters that were not used are removed; None for never.
        rate: how many requests a key may make that has no rate of its own, as "60/minute"; any
            number by default.
        stop_seconds: how long requests that run may take once the service is to end.
        log_format: text for a person, or json for one object a line.
        zk_srs: SRS file that proofs are made under; one made by this machine by default.
    """

    model_config = SettingsConfigDict(env_prefix="LORASMITH_", env_ignore_empty=True, frozen=True)

    config: Path | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    allowed_hosts: _HostNames = ()
    data: Path = Field(default_factory=data_dir)
    database: Annotated[str, AfterValidator(_require_database)] | None = None
    objects: Annotated[str, AfterValidator(_require_objects)] | None = None
    checkpoints: Annotated[dict[str, Path], NoDecode, _Json] = {}
    multi_task: _Folders = ()
    gates: Annotated[dict[str, Path], NoDecode, _Json] = {}
    library: str | None = None
    tasks: Path | None = None
    bases: Annotated[dict[str, str], NoDecode, _Json] = Field(
        default={DEFAULT_BASE: DEFAULT_BASE, DEFAULT_BASE.split("/")[1]: DEFAULT_BASE},
        min_length=1,
    )
    queue_length: int = Field(default=128, ge=0)
    job_queue_length: int = Field(default=16, ge=0)
    retry_after: int = Field(default=2, ge=1)
    quota_bytes: int = Field(default=10 * 2**30, ge=0)
    import_bytes: int = Field(default=256 * 2**20, ge=0)
    ttl: int | None = Field(default=None, ge=1)
    rate: Annotated[str, AfterValidator(require_rate)] | None = None
    stop_seconds: int = Field(default=20, ge=0)
    log_format: LogFormat = "text"
    zk_srs: Path | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, the environment, the file that one of these names. Raises UsageError."""
        path = init_settings().get("config") or env_settings().get("config")
        stated = {} if path is None else _read(Path(path), [*cls.model_fields])
        return init_settings, env_settings, InitSettingsSource(settings_cls, stated)

    @property
    def default_base(self) -> str:
        """The base model of requests that name none."""
        return next(iter(self.bases))

    def base(self, name: str | None = None) -> BaseReference:
        """The base model of a configured name. Raises UnknownName for any other string."""
        name = self.default_base if name is None else name
        if name not in self.bases:
            names = ", ".join(self.bases)
            raise UnknownName(f"unknown base model '{name}'; known: {names}")
        reference = resolve_base(self.bases[name])
        # Adapters carry the configured name, never a folder of this machine.
        return replace(reference, name=name) if Path(reference.name).is_dir() else reference

    def present_bases(self) -> list[BaseReference]:
        """The base models, but for those whose folders are gone."""
        present = []
        for name in self.bases:
            with suppress(MissingPath):  # told to whoever asks for it
                present.append(self.base(name))
        return present


def load_settings(**options: Any) -> Settings:
    """Settings from `options`, the environment and a file, in this order.

    Raises UsageError; MissingPath if there is no file, OSError if it cannot be read.
    """
    try:
        return Settings(**options)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"setting {name}: {message[0].lower()}{message[1:]}") from error


def _read(path: Path, known: Sequence[str]) -> dict[str, Any]:
    """What a TOML file states. Raises UsageError, MissingPath; OSError if it cannot be read."""
    content = read_input(path)
    try:
        stated = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as TOML: {first_line(error)}") from error
    for name in stated:
        if name not in known or name == "config":
            raise UsageError(f"{path}: there is no setting {name!r}")
    return stated


def is_loopback(host: str) -> bool:
    """Whether a host to listen on is this machine's alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_loopback(host: str, hint: str = "use 127.0.0.1") -> None:
    """Raise UsageError, with a hint, unless `host` is a loopback address."""
    if not is_loopback(host):
        raise UsageError(
            f"without keys the service listens on loopback only, not on '{host}'; {hint}"
        )
