"""Whose token is this? One hash and one look-up, on every request."""

import hashlib
from collections.abc import Sequence

from ai_mux.config import UserConfig


def digest_of(token: bytes) -> bytes:
    """Return the SHA-256 of a token's bytes, by which users are looked up."""
    return hashlib.sha256(token).digest()


class Users:
    """Finds users by their tokens.

    The look-up goes by the token's SHA-256. How long it takes may depend on the
    digest, which tells nothing about any token: nobody can choose a token whose
    digest begins like another's.
    """

    __slots__ = ("_names",)

    def __init__(self, users: Sequence[UserConfig]) -> None:
        self._names = {user.digest: user.name for user in users}

    def find(self, token: bytes) -> str | None:
        """Return the name of the user whose token this is, or None for a stranger."""
        return self._names.get(digest_of(token))

    def knows(self, digest: bytes) -> bool:
        """Tell whether a token with this SHA-256 is somebody's."""
        return digest in self._names

    def __len__(self) -> int:
        return len(self._names)

    def __bool__(self) -> bool:
        """Tell whether there are users at all. Without any, everyone is let in."""
        return bool(self._names)
