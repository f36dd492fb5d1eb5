"""Whose token is this, and what may they use? One hash and one look-up, on every request."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ai_mux.config import UserConfig
from ai_mux.limits import NO_LIMITS, Limits


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class User:
    """Who asks.

    Attributes:
        name: The name in the configuration; ``anonymous`` where no users are configured.
        limits: How much they may use.
        providers: Which providers they may use; None for all.
        models: Which models: globs, matched without regard to case; None for all.
        expires_at: From when on their token is good for nothing, in seconds since 1970; None for never.
    """

    name: str
    limits: Limits = NO_LIMITS
    providers: frozenset[str] | None = None
    models: tuple[str, ...] | None = None
    expires_at: float | None = None


ANONYMOUS: Final = User(name="anonymous")
"""Who everyone is where no users and no limits are configured."""


def digest_of(token: bytes) -> bytes:
    """Return the SHA-256 of a token's bytes, by which users are looked up."""
    return hashlib.sha256(token).digest()


class Users:
    """Finds users by their tokens.

    The look-up goes by the token's SHA-256. How long it takes may depend on the
    digest, which tells nothing about any token: nobody can choose a token whose
    digest begins like another's.
    """

    __slots__ = ("_by_digest",)

    def __init__(self, users: Sequence[UserConfig]) -> None:
        self._by_digest = {
            user.digest: User(
                name=user.name,
                limits=user.limits,
                providers=user.providers,
                models=user.models,
                expires_at=user.expires_at,
            )
            for user in users
        }

    def find(self, token: bytes) -> User | None:
        """Return the user whose token this is, or None for a stranger."""
        return self._by_digest.get(digest_of(token))

    def with_digest(self, digest: bytes) -> User | None:
        """Return the user whose token has this SHA-256, or None where it is nobody's."""
        return self._by_digest.get(digest)

    def __len__(self) -> int:
        return len(self._by_digest)

    def __bool__(self) -> bool:
        """Tell whether there are users at all. Without any, everyone is let in."""
        return bool(self._by_digest)
