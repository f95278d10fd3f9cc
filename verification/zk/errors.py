"""Errors of proofs; a proof that is refused is a finding and no error."""

from library.errors import LorasmithError, UsageError


class MissingExtra(LorasmithError):
    """The optional packages that proofs need are not installed."""

    code = "extra-missing"
    status = 501


class ProverError(LorasmithError):
    """ezkl failed, or its process ended, where it should have worked."""

    code = "prover-failed"


class ProofFileError(LorasmithError):
    """A manifest, SRS or proof that is damaged or of another kind."""

    code = "proof-unreadable"


class ProofLimit(LorasmithError):
    """The owner has answered as much about this adapter as it allows."""

    code = "proof-limit"
    status = 403


class TooLarge(LorasmithError):
    """Numbers or modules that do not fit into a circuit, or into the SRS that was given."""

    code = "invalid-field"
    status = 422


class ChallengeError(UsageError):
    """A challenge that does not fit the adapter: an unknown module, rows of another width."""
