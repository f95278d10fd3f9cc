"""The verifier's side over HTTP: sends inputs, gets outputs, then draws a seed and asks for proofs.

The seed, and which modules are proved, are drawn after every answer is here, so that an owner
cannot know beforehand which of its answers must hold.
"""

import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from library.errors import LorasmithError, UsageError
from verification.zk.backend import Backend, Srs
from verification.zk.bundle import integers, require_count
from verification.zk.integers import Rows, sampled
from verification.zk.manifest import Manifest
from verification.zk.proof import Statement
from verification.zk.report import Report, proof_refusal
from verification.zk.verify import verify_proofs

TIMEOUT = 600.0  # seconds; proving sixty modules takes a minute or two
MAX_ANSWER = 64 * 2**20


class OwnerError(LorasmithError):
    """The owner cannot be reached, refuses, or answers what cannot be read."""

    code = "owner-failed"


def ask_owner(
    url: str, manifest: Manifest, x: Mapping[str, Rows], count: int | None, srs: Srs,
    backend: Backend,
) -> Report:  # fmt: skip
    """Have an owner answer inputs `x` by module, and prove `count` of the answers (all if None).

    Raises OwnerError, and as `require_question`.
    """
    require_question(url, len(x), count)
    rows = max(len(mine) for mine in x.values())
    if _call(url, "/v1/manifest") != json.loads(manifest.to_bytes()):
        message = "the owner serves another manifest than the pinned one"
        return Report(manifest, [proof_refusal("manifest-mismatch", message)], [], rows)
    nonce = secrets.token_hex(16)
    answers = {name: _answer(url, nonce, name, mine) for name, mine in x.items()}
    seed = secrets.token_hex(16)
    chosen = sampled(manifest.digest, seed, list(x), len(x) if count is None else count)
    tickets = [answers[name][0] for name in chosen]
    proofs = _call(url, "/v1/proofs", {"fold_seed": seed, "tickets": tickets}).get("proofs")
    if not isinstance(proofs, list) or [type(proof) for proof in proofs] != [str] * len(chosen):
        raise OwnerError("the owner's proofs cannot be read")
    statements = [
        Statement(manifest.digest, name, nonce, seed, x[name], answers[name][1]) for name in chosen
    ]
    return verify_proofs(manifest, statements, proofs, srs, backend)


def require_question(url: str, modules: int, count: int | None) -> None:
    """Raise UsageError for a URL that is none, or more proofs than there are modules."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not (sound and url.isascii() and url.isprintable() and " " not in url):
        raise UsageError(f"{url!r} is not a URL of an owner, such as http://127.0.0.1:8100")
    require_count(modules, count)


def _answer(url: str, nonce: str, name: str, x: Rows) -> tuple[str, Rows]:
    found = _call(url, "/v1/answers", {"nonce": nonce, "module": name, "x": x})
    try:
        return str(found["ticket"]), [integers(row) for row in found["y"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OwnerError(f"the owner's answer about {name} cannot be read: {error}") from error


def _call(url: str, path: str, body: Any = None) -> Any:
    """The JSON object at a path; a POST if there is a body. Raises OwnerError."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url.rstrip("/") + path, content, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            found = json.loads(response.read(MAX_ANSWER))
    except urllib.error.HTTPError as error:
        raise OwnerError(f"the owner refuses: {_detail(error)}") from error
    except (OSError, ValueError, HTTPException, RecursionError) as error:
        reason = _plain(getattr(error, "reason", error))
        raise OwnerError(f"the owner at {url} cannot be asked: {reason}") from error
    if not isinstance(found, dict):
        raise OwnerError(f"the owner at {url} does not answer with a JSON object")
    return found


def _detail(error: urllib.error.HTTPError) -> str:
    """The sentence of a problem (RFC 9457), else the status."""
    try:
        return _plain(json.loads(error.read(MAX_ANSWER))["detail"])
    except (OSError, ValueError, KeyError, TypeError, HTTPException, RecursionError):
        return f"status {error.code}"


def _plain(said: object) -> str:
    """What the other side says, on one line and without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(said)).split())
