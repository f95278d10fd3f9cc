"""Errors of the service and its stores, beside those of library.errors.

Nothing of HTTP is imported here: the command line uses the store without a server.
"""

from collections.abc import Mapping

from library.errors import LorasmithError


class ServiceError(LorasmithError):
    """Base class; `headers` are sent with the response."""

    headers: Mapping[str, str] = {}


class MalformedBody(ServiceError):
    """A body that is not what it is declared as: JSON in UTF-8, or a tar."""

    code = "malformed-body"
    status = 400


class Unauthenticated(ServiceError):
    """A request without a key where one is needed, or with one that is not valid."""

    code = "unauthenticated"
    status = 401
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


class Forbidden(ServiceError):
    """A request whose key lacks the scope."""

    code = "forbidden"
    status = 403


class CrossOrigin(ServiceError):
    """A request that a web page of another origin sent."""

    code = "cross-origin"
    status = 403


class NotFound(ServiceError):
    """An adapter or file that does not exist, or belongs to somebody else."""

    code = "not-found"
    status = 404


class Conflict(ServiceError):
    """A request that what is stored does not permit as it is now."""

    code = "conflict"
    status = 409


class KeyInUse(ServiceError):
    """A request whose Idempotency-Key is that of one that is still being answered."""

    code = "idempotency-key-in-use"
    status = 409


class KeyReused(ServiceError):
    """A request whose Idempotency-Key is that of a different one."""

    code = "idempotency-key-reused"
    status = 422


class BodyTooSlow(ServiceError):
    """A body that comes too slowly; the connection ends with the answer."""

    code = "body-too-slow"
    status = 408


class BodyTooLarge(ServiceError):
    """A body over the limit, whatever its Content-Length says."""

    code = "body-too-large"
    status = 413


class NotJson(ServiceError):
    """A body whose Content-Type is not JSON."""

    code = "not-json"
    status = 415


class NotTar(ServiceError):
    """A body whose Content-Type is not that of a tar."""

    code = "not-tar"
    status = 415


class RangeNotSatisfiable(ServiceError):
    """A Range outside the file of `size` bytes."""

    code = "range-not-satisfiable"
    status = 416

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.headers = {"Content-Range": f"bytes */{size}"}


class Misdirected(ServiceError):
    """A request to a host that the service is not."""

    code = "misdirected"
    status = 421


class Refused(ServiceError):
    """An adapter that a verification hook refuses because of what the request sent."""

    code = "refused"
    status = 422


class RetryLater(ServiceError):
    """A request that is valid and may be repeated after `seconds`."""

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(seconds)}


class RateLimited(RetryLater):
    """One request too many; `headers` tell of the limit."""

    code = "rate-limited"
    status = 429

    def __init__(self, message: str, seconds: int, headers: Mapping[str, str]) -> None:
        super().__init__(message, seconds)
        self.headers = {**self.headers, **headers}


class NotReady(RetryLater):
    """The generator is still being loaded."""

    code = "not-ready"
    status = 503


class Overloaded(RetryLater):
    """Too many requests are waiting already."""

    code = "overloaded"
    status = 429


class QuotaExceeded(ServiceError):
    """The adapter would not fit into the quota."""

    code = "quota-exceeded"
    status = 507


class StorageFailed(ServiceError):
    """The disk is full or cannot be written."""

    code = "storage-failed"
    status = 507


class StorageUnreachable(StorageFailed):
    """The database or the object store does not answer now; what is stored there is safe."""

    code = "storage-unreachable"
    status = 503
    headers: Mapping[str, str] = {"Retry-After": "2"}


class BackupDamaged(LorasmithError):
    """A backup that is none, or not as it was written."""

    code = "backup-damaged"


class ListenError(LorasmithError):
    """An address that is in use, not this machine's or not permitted."""

    code = "listen-failed"
