"""What the renewer needs of the place where a credential is kept.

The renewer decides what to write and when; a store makes it last. Between
``lock`` and ``unlock`` no other process renews this credential, so a caller
that locked must unlock, and must keep the lock while a token is not yet saved.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Over = Callable[[bytes | None], bytes | None]
"""From the document (None: there is none) to what replaces it (None: nothing). May raise CredentialError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A credential's document as it was found.

    Attributes:
        document: The bytes.
        version: Changes whenever the document may have changed; only compared.
        renewed_at: When an ai-mux, this or another, wrote this very document after
            a renewal, in seconds since 1970; None if something else wrote it.
    """

    document: bytes
    version: object
    renewed_at: float | None = None


class CredentialStore(Protocol):
    """One credential's place. Whatever cannot be done raises StoreError, whose text is for the operator."""

    @property
    def place(self) -> str:
        """Where it is, for the log and for the operator."""

    async def lock(self) -> None:
        """Wait until no other process renews this credential. Cancelling the wait leaves nothing behind."""

    async def unlock(self) -> None:
        """Let others renew, and give back what ``prepare`` reserved."""

    async def version(self) -> object | None:
        """Return the version of what is there now, cheaply; None where nothing is."""

    async def load(self) -> Stored | None:
        """Return what is there now; None where nothing is."""

    async def prepare(self) -> None:
        """Make sure that a following ``save`` will work, or raise StoreError. Only under the lock."""

    async def save(self, over: Over) -> Stored:
        """Replace the document, all or nothing, and return what is there afterwards. Only under the lock.

        ``over`` is asked once more, with the newer document, if it changed meanwhile.
        When this returns, the document outlives a power cut.
        """


class Log(Protocol):
    """Where events go. No field holds a secret."""

    def debug(self, event: str, **fields: object) -> None:
        """Write what helps to find a fault."""

    def info(self, event: str, **fields: object) -> None:
        """Write what happens in ordinary operation."""

    def warning(self, event: str, **fields: object) -> None:
        """Write what the operator should look at."""

    def error(self, event: str, **fields: object) -> None:
        """Write what the operator must mend."""
