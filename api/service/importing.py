"""Adapters that come from elsewhere: checked, named and kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from api.errors import Refused
from api.service.hooks import configured
from api.service.making import Created
from api.service.metrics import Metrics
from api.service.settings import Settings
from api.service.store import Store
from api.service.uploads import adapter_in
from generator.request import MAX_RANK, MAX_SEED
from generator.strategies.base import Chosen
from library.base.folder_readme import folder_readme
from library.base.models import BaseReference
from library.base.usage import Usage, usage_of
from library.canonical import digest
from library.errors import AdapterFileError, AdapterRefused
from library.exchange.importing import imported_files
from library.peft.provenance import PROVENANCE_FILE, README_FILE
from library.peft.read import adapter_of
from library.peft.safetensors_file import BadFile, parse_object
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE
from verification.artifact import Artifact, Context
from verification.run import Policy, reported, run_hooks

MAX_NAME = 200  # characters of a base's name


@dataclass(frozen=True)
class _Adopted:
    """The files of an adapter as they are kept, what its provenance says, and the hooks' report."""

    files: dict[str, bytes]
    provenance: Mapping[str, Any]
    rank: int
    report: dict[str, Any]


class Importing:
    """Takes adapters in. One that lorasmith made keeps its id and its bytes.

    Args:
        settings: name the bases.
        store: where they are kept.
        metrics: where the stages are measured.
    """

    def __init__(self, settings: Settings, store: Store, metrics: Metrics) -> None:
        self._settings, self._store, self._metrics = settings, store, metrics

    def keep(self, owner: str, upload: IO[bytes]) -> Created:
        """Check and store the adapter in a tar.

        Raises MalformedBody, Refused, LayoutMismatch, Conflict, QuotaExceeded, StorageFailed.
        """
        try:
            adopted, milliseconds = self._adopted(adapter_in(upload))
        except (AdapterFileError, AdapterRefused) as error:
            raise Refused(str(error)) from error
        record, new = self._store.put(owner, _summary(adopted), adopted.files, imported=True)
        return Created(record, new, milliseconds)

    def _adopted(self, files: dict[str, bytes]) -> tuple[_Adopted, dict[str, float]]:
        """An adapter once the quick hooks have accepted it, and how long each took.

        Raises AdapterFileError, AdapterRefused, LayoutMismatch.
        """
        base = configured(self._settings, _base_name(files))
        with self._metrics.stages("requests")("verify"):
            report = run_hooks(Artifact(files), Context(base=base), Policy())
        report.require_accepted("the adapter")
        rank = adapter_of(files, leave_extras=True).layout.rank
        if rank > MAX_RANK:
            raise AdapterFileError(f"the adapter has rank {rank}; at most {MAX_RANK} is kept")
        if PROVENANCE_FILE not in files:
            return _foreign(files, base), report.milliseconds
        return _made(files, rank, report.to_dict()), report.milliseconds


def _base_name(files: Mapping[str, bytes]) -> str:
    """The base that the config names. Raises AdapterFileError."""
    name = parse_object(files[CONFIG_FILE], CONFIG_FILE).get("base_model_name_or_path")
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME:
        raise AdapterFileError(
            f"{CONFIG_FILE} must name the base model in 1 to {MAX_NAME} characters"
        )
    return name


def _foreign(files: Mapping[str, bytes], base: BaseReference | None) -> _Adopted:
    """An adapter without provenance, which gets one as by `lorasmith library import`."""
    own, layout = imported_files(files[CONFIG_FILE], files[WEIGHTS_FILE], base)
    done = reported(own, base)
    return _Adopted(done.files.files, done.files.provenance, layout.rank, done.report)


def _made(files: dict[str, bytes], rank: int, report: dict[str, Any]) -> _Adopted:
    """An adapter with the provenance that lorasmith gave it, whose id the hooks have checked.

    Its README.md is written again: nothing vouches for another.
    """
    provenance = parse_object(files[PROVENANCE_FILE], PROVENANCE_FILE)
    try:
        _require_statements(provenance, _base_name(files))
        readme = {README_FILE: folder_readme(provenance).encode()} if README_FILE in files else {}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFile("provenance", "the provenance is not as lorasmith writes it") from error
    return _Adopted({**files, **readme}, provenance, rank, report)


def _require_statements(provenance: Mapping[str, Any], base: str) -> None:
    """Raise KeyError, TypeError or ValueError unless it states what others rely on."""
    stated, seed = provenance["base"], provenance["seed"]
    texts = (provenance["generator"], provenance["layout_digest"], stated["source"])
    optional = (provenance["description"], provenance.get("examples"), stated["sha256"])
    if provenance.get("usage") is not None:
        Usage(provenance["usage"]["mode"], provenance["usage"]["template"])
    if stated["id"] != base or type(seed) is not int or not 0 <= seed <= MAX_SEED:
        raise ValueError("base or seed")
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a text is missing")
    if not all(text is None or isinstance(text, str) for text in optional):
        raise TypeError("something else stands where a text belongs")


def _summary(adopted: _Adopted) -> dict[str, Any]:
    """What clients are told; of what is only stated, nothing about how good the adapter is."""
    said = adopted.provenance
    chosen = Chosen("import", f"imported; its provenance names {said['generator']}")
    return {
        "id": said["id"],
        "sha256": digest(adopted.files[WEIGHTS_FILE]),
        "generator": said["generator"],
        "base_model": said["base"]["id"],
        "layout_digest": said["layout_digest"],
        "rank": adopted.rank,
        "seed": said["seed"],
        "usage": usage_of(adopted.files).to_dict() if said.get("usage") else None,
        "chosen": chosen.to_dict(),
        "report": adopted.report,
    }
