"""The manifest: what an owner commits to, and what a verifier pins before anything is proved.

The scale is part of the statement: commitments are to A and to scaling·B, so another alpha or rank
is another commitment. Weights appear in no manifest.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from library.canonical import canonical_json, file_digest, json_digest
from library.errors import MissingPath
from library.layout import Site
from library.peft.config import read_config, scaling
from library.peft.patterns import alpha_in
from library.peft.read import read_peft
from library.peft.safetensors_file import TensorFile, read_tensors
from library.peft.write import CONFIG_FILE, PREFIX, WEIGHTS_FILE
from verification.artifact import ShareProgress
from verification.zk.backend import BACKEND, Backend, Keys, Shape, Srs, local_srs
from verification.zk.child import Rows
from verification.zk.errors import ProofFileError
from verification.zk.integers import PROTOCOL, off_grid, on_grid

POINT = re.compile("[0-9a-f]{128}")
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Positive = Annotated[int, Field(gt=0, lt=2**53)]  # what canonical JSON, and so a digest, can hold
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Parsed = TypeVar("Parsed")


def parse_strictly(kind: type[Parsed], content: bytes, what: str) -> Parsed:
    """A dataclass from JSON: every member and no other, each of its form.

    Raises ProofFileError, whose sentence begins with `what`.
    """
    try:
        return TypeAdapter(kind).validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        member = ".".join(map(str, first["loc"]))
        reason = f"{member}: {first['msg']}" if member else first["msg"]
        raise ProofFileError(f"{what}: {reason}") from error


def require_distinct(modules: list[Any]) -> list[Any]:
    """The modules. Raises ValueError if a name is there twice."""
    if len({module.name for module in modules}) < len(modules):
        raise ValueError("a module is listed twice")
    return modules


@dataclass(frozen=True)
class ModuleWeights:
    """One module's secret: A `(rank, in)` and scaling·B `(out, rank)` on the grid of 2⁻²⁴."""

    shape: Shape
    a: Rows
    b: Rows


@dataclass(frozen=True)
class Committed:
    """One module as the manifest describes it.

    Attributes:
        name: the module's path in the base model.
        alpha: as the adapter's config has it; `scaling` is what B was multiplied with.
        dtype: of the stored factors.
        largest_difference: between a stored weight (times scaling) and what is proved about.
        vk_sha256: the verification key that the owner derived for this shape.
        points: commitments to A and scaling·B, x and y in 128 digits of lower-case hex each.
    """

    __pydantic_config__ = STRICT

    name: str
    in_features: Positive
    out_features: Positive
    rank: Positive
    alpha: float
    scaling: float
    dtype: str
    largest_difference: float
    vk_sha256: Sha256
    points: list[str]

    @property
    def shape(self) -> Shape:
        return Shape(self.in_features, self.out_features, self.rank)

    @property
    def binds(self) -> bool:
        """Whether there are points, each a whole one: a proof begins with all of their digits."""
        return bool(self.points) and all(POINT.fullmatch(point) for point in self.points)


@dataclass(frozen=True)
class Manifest:
    """Commitments to every module of one adapter, and under which rules.

    Attributes:
        adapter_sha256, config_sha256: of the adapter's two files.
        base_model: the name that its config gives.
        srs_sha256, srs_logrows: the SRS that the commitments were made under.
    """

    __pydantic_config__ = STRICT

    protocol: str
    backend: str
    backend_version: str
    adapter_sha256: Sha256
    config_sha256: Sha256
    base_model: str | None
    srs_sha256: Sha256
    srs_logrows: Positive
    modules: Annotated[list[Committed], Field(min_length=1), AfterValidator(require_distinct)]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: what a verifier pins, and every statement names."""
        return json_digest(asdict(self))

    @cached_property
    def by_name(self) -> dict[str, Committed]:
        return {module.name: module for module in self.modules}

    @property
    def largest_difference(self) -> float:
        return max(module.largest_difference for module in self.modules)

    def to_bytes(self) -> bytes:
        return canonical_json(asdict(self)) + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> "Manifest":
        """A manifest, read strictly; see `parse_strictly`. Raises ProofFileError."""
        manifest = parse_strictly(cls, content, f"{where} is not a manifest")
        if not all(module.binds for module in manifest.modules):
            raise ProofFileError(f"{where} is not a manifest: a commitment is not a point in hex")
        return manifest


def read_zk_manifest(path: Path) -> Manifest:
    """The manifest in a file. Raises MissingPath, ProofFileError."""
    if not path.is_file():
        raise MissingPath(f"there is no manifest at {path}")
    return Manifest.from_bytes(path.read_bytes(), str(path))


def read_weights(folder: Path) -> tuple[dict[str, ModuleWeights], list[Committed]]:
    """An adapter folder's factors on the grid, and its modules without keys and commitments.

    Raises MissingPath, AdapterFileError (NaN and a name twice in the header included).
    """
    if not folder.is_dir():
        raise MissingPath(f"there is no adapter folder at {folder}")
    file, config = read_tensors(folder / WEIGHTS_FILE), read_config(folder / CONFIG_FILE)
    adapter = read_peft(folder)
    weights, described = {}, []
    for site in adapter.layout.sites:
        a, b = (factor[0] for factor in adapter.site(site))
        shape = Shape(a.shape[1], b.shape[0], site.rank)
        weights[site.name] = ModuleWeights(shape, on_grid(a), on_grid(b))
        described.append(_described(site, shape, config, file, max(off_grid(a), off_grid(b))))
    return weights, described


def commit_adapter(
    folder: Path,
    backend: Backend,
    srs: Srs | None = None,
    progress: ShareProgress = lambda share: None,
) -> Manifest:
    """Commit to the adapter in `folder`.

    Args:
        srs: the verifier's, or a ceremony's; this machine's own if None.
        progress: called with the share that is done after each module.
    Raises:
        TooLarge: the SRS is too short for the adapter's modules.
        What `read_weights` and `Backend.keys` raise.
    """
    weights, described = read_weights(folder)
    shapes = [module.shape for module in described]
    if srs is None:
        srs = local_srs(backend.plan(list(dict.fromkeys(shapes)))[0], backend)
    keys = all_keys(shapes, backend, srs)

    def commit(module: Committed) -> list[str]:
        secret, folder = weights[module.name], str(keys[module.shape].folder)
        return backend.call("commit", folder=folder, srs=str(srs.path), a=secret.a, b=secret.b)

    commitments = backend.each(commit, described, progress)
    adapter_sha256, config_sha256 = files_digests(folder)
    return Manifest(
        protocol=PROTOCOL,
        backend=BACKEND,
        backend_version=backend.version,
        adapter_sha256=adapter_sha256,
        config_sha256=config_sha256,
        base_model=read_config(folder / CONFIG_FILE).get("base_model_name_or_path"),
        srs_sha256=srs.sha256,
        srs_logrows=srs.logrows,
        modules=[
            replace(module, vk_sha256=keys[module.shape].vk_sha256, points=points)
            for module, points in zip(described, commitments, strict=True)
        ],
    )


def files_digests(folder: Path) -> tuple[str, str]:
    """SHA-256 of an adapter's weights and of its config."""
    return file_digest(folder / WEIGHTS_FILE), file_digest(folder / CONFIG_FILE)


def all_keys(shapes: Iterable[Shape], backend: Backend, srs: Srs) -> dict[Shape, Keys]:
    """Keys of every shape that occurs."""
    distinct = list(dict.fromkeys(shapes))
    keys = backend.each(lambda shape: backend.keys(shape, srs), distinct)
    return dict(zip(distinct, keys, strict=True))


def _described(
    site: Site, shape: Shape, config: dict[str, Any], file: TensorFile, difference: float
) -> Committed:
    stored = {str(file.tensors[f"{PREFIX}{site.name}.lora_{f}.weight"].dtype) for f in "AB"}
    return Committed(
        name=site.name,
        in_features=shape.in_features,
        out_features=shape.out_features,
        rank=site.rank,
        alpha=float(alpha_in(config, site.name)),
        scaling=float(scaling(config, site)),
        dtype="/".join(sorted(name.removeprefix("torch.") for name in stored)),
        largest_difference=difference,
        vk_sha256="",
        points=[],
    )
