"""An adapter's identity and origin: its id and provenance.json.

Nothing in here depends on the clock: the same request gives the same bytes.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from library.canonical import digest, json_digest
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, PeftFiles
from library.stages import Stages, untimed

PROVENANCE_FILE = "provenance.json"
README_FILE = "README.md"
Check = Callable[[Mapping[str, bytes], dict[str, Any]], dict[str, Any]]
Describe = Callable[[dict[str, Any]], str]
SIGNATURE_FILE = "provenance.dsse.json"
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
        usage: {"mode", "template"} of the prompt that it was made for; None if nobody said.
        expected: {"score", "low", "high", "calibration"}: what to expect of its answers, or None.
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
    usage: dict[str, Any] | None = None
    expected: dict[str, Any] | None = None
    neighbours: list[dict[str, Any]] = field(default_factory=list)
    report: dict[str, Any] | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AdapterFiles:
    """A finished adapter: its files by name, its identity, and what its provenance says."""

    id: str
    sha256: str
    files: dict[str, bytes]
    provenance: dict[str, Any]


def adapter_id(config: dict[str, Any], sha256: str, provenance: dict[str, Any]) -> str:
    """`ad_` and 40 hex digits: SHA-256 of the canonical JSON of config, weights and request.

    A usage is part of it where there is one; adapters that are older than usages keep their ids.
    """
    content = {key: provenance.get(key) for key in IDENTITY_FIELDS}
    if provenance.get("usage") is not None:
        content["usage"] = provenance["usage"]
    return "ad_" + json_digest({**content, "adapter_config": config, "sha256": sha256})[:40]


def finish(
    files: PeftFiles,
    provenance: Provenance,
    check: Check | None = None,
    describe: Describe | None = None,
    stages: Stages = untimed,
) -> AdapterFiles:
    """Name an adapter, check it, and write its provenance with the report.

    Args:
        check: gets the two files and what provenance will say; its answer joins as `report`, which
            the id does not cover.
        describe: gets what provenance says; its answer is the folder's README.md.
        stages: measures the check.
    """
    # 1. Identity.
    sha256 = digest(files.weights)
    content = {**vars(provenance)}
    identity = adapter_id(files.config, sha256, content)
    content = {"id": identity, "sha256": sha256, **content}
    # 2. The report.
    written = {CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.weights}
    if check is not None:
        with stages("verify"):
            content["report"] = check(written, content)
    # 3. Provenance, encoded once, and the page for people.
    written[PROVENANCE_FILE] = encode_provenance(content)
    if describe is not None:
        written[README_FILE] = describe(content).encode()
    return AdapterFiles(identity, sha256, written, content)


def encode_provenance(content: dict[str, Any]) -> bytes:
    """provenance.json."""
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
