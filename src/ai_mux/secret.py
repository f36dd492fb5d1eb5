"""A secret is a type with one door out.

Whatever is printed, logged, formatted or compared by accident shows nothing.
Searching for ``reveal`` finds every place where a secret leaves this type.
"""

import hashlib
import hmac
from typing import Final, final

# A shown beginning is never longer than this, nor than a quarter of the secret:
# enough to tell two tokens apart, too little to help anyone guess one.
_SHOWN_CHARACTERS: Final = 8


@final
class Secret:
    """A token or key. ``repr`` and ``str`` show nothing of it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself. Every call is a place to review."""
        return self._value

    def digest(self) -> bytes:
        """Return the SHA-256 of the secret's UTF-8 bytes, by which it is looked up."""
        return hashlib.sha256(self._value.encode("utf-8", "surrogatepass")).digest()

    def beginning(self) -> str:
        """Return at most 8 characters, at most a quarter, and an ellipsis, for a debug log."""
        return self._value[: min(_SHOWN_CHARACTERS, len(self._value) // 4)] + "…"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(
            self._value.encode("utf-8", "surrogatepass"),
            other._value.encode("utf-8", "surrogatepass"),
        )

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret is not pickled or copied to another process")
