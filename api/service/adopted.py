"""What the store says of an adapter that comes as files: read from its provenance."""

from collections.abc import Mapping
from typing import Any

from api.service.store import ADAPTER_ID
from generator.strategies.base import Chosen
from library.errors import AdapterFileError
from library.peft.read import adapter_of
from verification.artifact import Artifact
from verification.run import VerificationReport


def adopted_summary(
    files: Mapping[str, bytes], report: VerificationReport, name: str
) -> dict[str, Any]:
    """The summary of an adapter for `Store.put`, as its makers give it of a new one.

    Args:
        files: config, weights and provenance.
        report: of all quick hooks, which has not refused it: id and digest are right.
        name: what it is called in errors.
    Raises:
        AdapterFileError: no provenance gives it an id, or it is no LoRA.
    """
    artifact = Artifact(files)
    identity, said = artifact.recorded("id"), artifact.provenance or {}
    if identity is None or ADAPTER_ID.fullmatch(identity) is None:
        raise AdapterFileError(
            f"{name} has no provenance.json with its id; lorasmith library import gives it one"
        )
    details, parents = said.get("details"), said.get("parents")
    chosen = Chosen(said["generator"], "published from its files").to_dict()
    return {
        "id": identity,
        "sha256": artifact.sha256,
        "generator": said["generator"],
        "start": parents[0] if said["generator"] == "refine" and parents else None,
        "base_model": (artifact.config or {}).get("base_model_name_or_path"),
        "layout_digest": said.get("layout_digest"),
        "rank": adapter_of(files, leave_extras=True).layout.rank,
        "seed": said["seed"],
        "usage": said.get("usage"),
        "expected": said.get("expected"),
        "chosen": {**chosen, "neighbours": said.get("neighbours") or []},
        "refined": details.get("refine") if isinstance(details, dict) else None,
        "report": report.to_dict(),
    }
