"""An adapter's identity and origin: its id and provenance.json.

Nothing in here depends on the clock: the same request gives the same bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from library.canonical import digest, json_digest
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, PeftFiles

PROVENANCE_FILE = "provenance.json"
IDENTITY_FIELDS = (
    "checkpoint",
    "description",
    "examples",
    "generator",
    "numerics",
    "parents",
    "seed",
)


@dataclass(frozen=True)
class Provenance:
    """Everything about an adapter that its weights do not say.

    Attributes:
        generator: name of the generator ("text-to-lora").
        checkpoint: digest of the generator's checkpoint.
        description: the normalised description, or None.
        examples: digest of the examples, or None.
        seed: the seed of the request.
        parents: ids of the adapters that a merge was made from, or None.
        numerics: device kind, dtype and runtime that the bytes depend on.
        layout_digest: digest of the adapter's layout.
        base: {"id", "sha256", "source"} of the base model.
        neighbours: [{"id", "task", "similarity"}] from the library.
        report: findings of the verification hooks, or None.
        details: what else is worth knowing (encoder, windows, strength).
    """

    generator: str
    checkpoint: str | None
    description: str | None
    seed: int
    numerics: str
    layout_digest: str
    base: dict[str, Any]
    examples: str | None = None
    parents: list[str] | None = None
    neighbours: list[dict[str, Any]] = field(default_factory=list)
    report: dict[str, Any] | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AdapterFiles:
    """A finished adapter: the three files and its identity."""

    id: str
    sha256: str
    files: dict[str, bytes]


def adapter_id(config: dict[str, Any], sha256: str, provenance: dict[str, Any]) -> str:
    """`ad_` and 40 hex digits: SHA-256 of the canonical JSON of config, weights and request."""
    content = {key: provenance.get(key) for key in IDENTITY_FIELDS}
    return "ad_" + json_digest({**content, "adapter_config": config, "sha256": sha256})[:40]


def finish(files: PeftFiles, provenance: Provenance) -> AdapterFiles:
    """Name an adapter and write its provenance."""
    sha256 = digest(files.weights)
    content = {**vars(provenance)}
    identity = adapter_id(files.config, sha256, content)
    content = {"id": identity, "sha256": sha256, **content}
    return AdapterFiles(
        id=identity,
        sha256=sha256,
        files={
            CONFIG_FILE: files.config_bytes,
            WEIGHTS_FILE: files.weights,
            PROVENANCE_FILE: _written(content),
        },
    )


def with_report(made: AdapterFiles, report: Mapping[str, Any]) -> AdapterFiles:
    """The same adapter, whose provenance has a verification report; the id does not cover it."""
    content = json.loads(made.files[PROVENANCE_FILE]) | {"report": dict(report)}
    return replace(made, files={**made.files, PROVENANCE_FILE: _written(content)})


def _written(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
