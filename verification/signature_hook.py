"""The signature hook: did the holder of a key sign exactly these files?"""

from collections.abc import Mapping
from typing import Any

from verification.findings import Finding
from verification.header import BadFile
from verification.signing import digests_in, file_digests, opened, statement
from verification.subject import SIGNATURE_FILE, Context, Subject

HOOK = "signature"


def check_signature(subject: Subject, context: Context) -> list[Finding]:
    """With a public key the adapter has to be signed by it. Raises BadFile if it is not."""
    content = subject.files.get(SIGNATURE_FILE)
    if context.public_key is None:
        if content is None:
            return []
        message = f"there is a {SIGNATURE_FILE}; --public-key checks it"
        return [Finding(HOOK, "signature-not-checked", "info", message)]
    if content is None:
        raise BadFile("unsigned", f"there is no {SIGNATURE_FILE}")
    signed = opened(content, context.public_key)
    if digests_in(signed.get("subject")) != file_digests(subject):
        raise BadFile("signed-otherwise", "the signature is of other files than these")
    if _byproducts(signed) != _byproducts(statement(subject)):
        raise BadFile("signed-otherwise", "the signed digests of tensors are not those of the file")
    return []


def _byproducts(found: Mapping[str, Any]) -> Any:
    details = found.get("predicate")
    for key in ("runDetails", "byproducts"):
        details = details.get(key) if isinstance(details, dict) else None
    return digests_in(details)
