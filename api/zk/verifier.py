"""The verifier's side over HTTP: sends inputs, gets outputs, then draws a seed and asks for proofs.

The seed, and which modules are proved, are drawn after every answer is here, so that an owner
cannot know beforehand which of its answers must hold.
"""

import json
import secrets
from collections.abc import Mapping
from typing import Any

import httpx2

from library.errors import LorasmithError, UsageError
from verification.asking import NoAnswer, ask, is_address, one_line
from verification.zk.backend import Backend, Srs
from verification.zk.bundle import integers, require_count
from verification.zk.child import Rows
from verification.zk.integers import sampled
from verification.zk.manifest import Manifest
from verification.zk.proof import Statement
from verification.zk.report import Report, proof_refusal
from verification.zk.verify import verify_proofs

TIMEOUT = 600.0  # seconds; proving sixty modules takes a minute or two
MAX_ANSWER = 64 * 2**20  # bytes


class OwnerError(LorasmithError):
    """The owner cannot be reached, refuses, or answers what cannot be read."""

    code = "owner-failed"


def ask_owner(
    url: str, manifest: Manifest, x: Mapping[str, Rows], count: int | None, srs: Srs,
    backend: Backend,
) -> Report:  # fmt: skip
    """Have an owner answer inputs `x` by module and prove `count` of the answers (all if None).

    Raises OwnerError, and as `require_question`.
    """
    require_question(url, len(x), count)
    rows = max(map(len, x.values()))
    # 1. The owner serves what was pinned; else nothing is sent.
    if _call(url, "/v1/manifest") != json.loads(manifest.to_bytes()):
        message = "the owner serves another manifest than the pinned one"
        return Report(manifest, [proof_refusal("manifest-mismatch", message)], [], rows)
    # 2. Outputs of every module are fixed.
    nonce = secrets.token_hex(16)
    answers = {name: _answer(url, nonce, name, inputs) for name, inputs in x.items()}
    # 3. Only now the seed exists, and with it which modules are proved and how rows are folded.
    seed = secrets.token_hex(16)
    names = sampled(manifest.digest, seed, list(x), len(x) if count is None else count)
    tickets = [answers[name][0] for name in names]
    proofs = _call(url, "/v1/proofs", {"fold_seed": seed, "tickets": tickets}).get("proofs")
    if not isinstance(proofs, list) or [type(proof) for proof in proofs] != [str] * len(names):
        raise OwnerError("the owner's proofs cannot be read")
    # 4. Statements are built from what this side sent and received.
    statements = [
        Statement(manifest.digest, name, nonce, seed, x[name], answers[name][1]) for name in names
    ]
    return verify_proofs(manifest, statements, proofs, srs, backend)


def require_question(url: str, modules: int, count: int | None) -> None:
    """Raise UsageError for a URL that is none, or more proofs than there are modules."""
    if not is_address(url):
        raise UsageError(f"{url!r} is not a URL of an owner, such as http://127.0.0.1:8100")
    require_count(modules, count)


def _answer(url: str, nonce: str, name: str, x: Rows) -> tuple[str, Rows]:
    answer = _call(url, "/v1/answers", {"nonce": nonce, "module": name, "x": x})
    try:
        return str(answer["ticket"]), [integers(row) for row in answer["y"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OwnerError(f"the owner's answer about {name} cannot be read: {error}") from error


def _call(url: str, path: str, body: Any = None) -> dict[str, Any]:
    """The JSON object at a path; a POST if there is a body. Raises OwnerError."""
    try:
        with httpx2.Client() as client:
            address = url.rstrip("/") + path
            answer = ask(client, address, body, seconds=TIMEOUT, most=MAX_ANSWER)
    except NoAnswer as error:
        raise OwnerError(f"the owner at {url} cannot be asked: {error}") from error
    content = answer.parsed
    if not 200 <= answer.status < 300:
        detail = content.get("detail") if isinstance(content, dict) else None
        told = f"status {answer.status}" if detail is None else one_line(detail)
        raise OwnerError(f"the owner refuses: {told}")
    if not isinstance(content, dict):
        raise OwnerError(f"the owner at {url} does not answer with a JSON object")
    return content
