"""The signature hook: did the holder of a key sign exactly these files?"""

from library.peft.safetensors_file import BadFile
from verification.artifact import SIGNATURE_FILE, Artifact, Context
from verification.checks.signing import digests_in, file_digests, signed_statement
from verification.hook import Finding

SIGNATURE_HOOK = "signature"


def check_signature(artifact: Artifact, context: Context) -> list[Finding]:
    """With a public key the adapter has to be signed by it. Raises BadFile if it is not."""
    content = artifact.files.get(SIGNATURE_FILE)
    if context.public_key is None:
        if content is None:
            return []
        message = f"there is a {SIGNATURE_FILE}; check it with --public-key"
        return [Finding(SIGNATURE_HOOK, "signature-not-checked", "info", message)]
    if content is None:
        raise BadFile("unsigned", f"there is no {SIGNATURE_FILE}")
    signed = signed_statement(content, context.public_key)
    if digests_in(signed.get("subject")) != file_digests(artifact):
        raise BadFile("signed-otherwise", "the signature is for other files")
    return []  # the signed digest of the weights implies those of the tensors
