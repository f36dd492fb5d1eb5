"""A provider's API key in a file of its own: one line, written by the operator, only ever read here."""

import re
from collections.abc import Mapping
from typing import Final, NoReturn

from ai_mux.credentials.credential import Credential
from ai_mux.credentials.oauth import Reason
from ai_mux.errors import BrokenCredential
from ai_mux.secret import Secret

_VISIBLE: Final = re.compile(r"[!-~]+")
# As in a file of environment variables. No key has a '=' behind capitals alone.
_ASSIGNMENT: Final = re.compile(r"(?:export\s+)?[A-Z][A-Z0-9_]*=")
_QUOTES: Final = "\"'`"


def plain_key(written: str) -> Secret:
    """Return an API key, wherever it was written.

    Args:
        written: What stands there; not empty.

    Raises:
        BrokenCredential: It is more than a key. The message quotes nothing.
    """
    if _ASSIGNMENT.match(written):
        raise BrokenCredential(
            "the API key reads like a shell's variable; write the key alone, without a name and '='"
        )
    if written[0] in _QUOTES or written[-1] in _QUOTES:
        raise BrokenCredential("the API key stands in quotes; remove them")
    if not _VISIBLE.fullmatch(written):
        raise BrokenCredential("the API key holds blanks or characters that no key has; write the key alone")
    return Secret(written)


class KeyIssuer:
    """Reads the file of an API key. A key is not renewed: the operator writes another one."""

    def read(self, document: bytes) -> Credential:
        """Return the key, without what editors put around it: a byte order mark, blanks, a last line's end.

        Raises:
            BrokenCredential: There is no key, or more than a key. The message quotes nothing.
        """
        try:
            key = document.decode("utf-8-sig").strip(" \t\r\n")
        except UnicodeDecodeError:
            raise BrokenCredential("the file is not text in UTF-8, and a key is plain ASCII") from None
        if not key:
            raise BrokenCredential("the file is empty where an API key should be")
        if "\n" in key or "\r" in key:
            raise BrokenCredential("the file holds several lines; it must hold the API key and nothing else")
        return Credential(access=plain_key(key), refresh=None, expires_at=None, api_key=True)

    def write(self, document: bytes, credential: Credential) -> NoReturn:
        """Refuse: the file is the operator's."""
        raise BrokenCredential("an API key is not written back")

    def request(self, credential: Credential, reason: Reason) -> NoReturn:
        """Refuse: there is nothing to exchange a key for."""
        raise BrokenCredential("an API key is not renewed")

    def renewed(self, credential: Credential, answer: Mapping[str, object], now: float) -> NoReturn:
        """Refuse: see ``request``."""
        raise BrokenCredential("an API key is not renewed")

    def is_permanent(self, status: int, answer: Mapping[str, object]) -> bool:
        """Return True: no later attempt would help."""
        return True

    def login(self, path: str) -> str:
        """Return what the operator does for another key."""
        return f"write the provider's API key into {path}: the key alone, on one line"
