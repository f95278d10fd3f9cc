"""An adapter as an OCI artifact: an image layout with one layer a file, as `oras` writes and reads.

See the image specification of the Open Container Initiative, "Image Layout" and "Guidelines for
Artifact Usage". Nothing depends on the clock: equal files give equal bytes, so one adapter has one
digest in every registry.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from library.canonical import digest

ARTIFACT_TYPE = "application/vnd.lorasmith.adapter.v1"
TAG = "latest"  # the name of the one artifact inside a layout
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"
_MEDIA_TYPES = {
    ".json": "application/json",
    ".md": "text/markdown",
    ".safetensors": "application/vnd.safetensors",
}


@dataclass(frozen=True)
class OciLayout:
    """An image layout.

    Attributes:
        files: its files, by path.
        digest: of the manifest, `sha256:` and 64 hex digits: what a registry calls the artifact.
    """

    files: dict[str, bytes]
    digest: str


def oci_layout(files: Mapping[str, bytes]) -> OciLayout:
    """The image layout of an artifact that holds these files, by name."""
    config = b"{}"
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "artifactType": ARTIFACT_TYPE,
            "config": _descriptor(_EMPTY, config),
            "layers": [_layer(name, content) for name, content in sorted(files.items())],
        }
    )
    tag = {"org.opencontainers.image.ref.name": TAG}
    entry = {**_descriptor(_MANIFEST, manifest), "artifactType": ARTIFACT_TYPE, "annotations": tag}
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [entry]}
    blobs = {f"blobs/sha256/{digest(blob)}": blob for blob in (config, manifest, *files.values())}
    layout = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index)}
    return OciLayout({**layout, **dict(sorted(blobs.items()))}, f"sha256:{digest(manifest)}")


def _layer(name: str, content: bytes) -> dict[str, Any]:
    media_type = _MEDIA_TYPES.get(PurePath(name).suffix, "application/octet-stream")
    title = {"org.opencontainers.image.title": name}
    return {**_descriptor(media_type, content), "annotations": title}


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{digest(content)}", "size": len(content)}


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
