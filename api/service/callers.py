"""Who asks: somebody with a key, or the user of this machine where there are no keys."""

from dataclasses import dataclass

from api.errors import Forbidden, Unauthenticated
from api.service.keys import USUAL, Key, KeyStore, Scope
from api.service.store import LOCAL


@dataclass(frozen=True)
class Caller:
    """Whose request it is.

    Attributes:
        owner: of what it makes: the id of its key, or LOCAL.
        scopes: what it may do; `admin` includes the others.
        quota_bytes: limit for the files of its adapters; None for none of its own.
        rate: how many requests it may make; None for the service's default.
    """

    owner: str
    scopes: tuple[Scope, ...]
    quota_bytes: int | None = None
    rate: str | None = None

    @property
    def sees(self) -> str | None:
        """Whose adapters and jobs it may see and delete; None for everybody's."""
        return None if "admin" in self.scopes else self.owner

    def require(self, scope: Scope) -> None:
        """Raise Forbidden unless it has a scope."""
        if scope not in self.scopes and "admin" not in self.scopes:
            raise Forbidden(f"the key {self.owner} lacks the scope {scope}")


LOCAL_CALLER = Caller(LOCAL, USUAL)


def identify(keys: KeyStore, authorization: str, *, needed: bool) -> Caller:
    """Who sent a request.

    Args:
        authorization: the header, or "".
        needed: whether it takes a key also while there are none.
    Raises:
        Unauthenticated: a key is needed, and this is none or a revoked one.
        StorageFailed: the keys cannot be read.
    """
    if not needed and not keys.exist():
        return LOCAL_CALLER
    scheme, _, text = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("a key is needed, as in 'Authorization: Bearer KEY'")
    return _caller(keys.find(text.strip()))


def caller_with(keys: KeyStore, owner: str) -> Caller:
    """Who an owner of adapters and jobs is.

    Raises:
        Unauthenticated: the key was revoked.
        StorageFailed: the keys cannot be read.
    """
    return LOCAL_CALLER if owner == LOCAL else _caller(keys.get(owner))


def _caller(key: Key) -> Caller:
    return Caller(key.id, key.scopes, key.quota_bytes, key.rate)
