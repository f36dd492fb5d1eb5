"""How a provider's credential file reads and its token endpoint speaks, as pure functions.

An ``Issuer`` is what differs between providers. What they share stands below it:
which token can be sent at all, how a JWT's claims are read, which refusals of
a refresh token are final, what a number in a file means as a time.
"""

import base64
import json
import math
import re
from collections.abc import Mapping
from enum import Enum
from typing import Final, Protocol

from ai_mux.credentials.credential import Credential
from ai_mux.errors import BrokenCredential
from ai_mux.secret import Secret

# RFC 6749, section 5.2, and the codes that OpenAI's endpoint gives for a refresh
# token that will never work again. All others may pass.
_PERMANENT: Final = frozenset(
    {"invalid_grant", "refresh_token_expired", "refresh_token_reused", "refresh_token_invalidated"}
)

# Under this a time is in seconds, from it on in milliseconds: 10^11 s is the
# year 5138, 10^11 ms was in March 1973.
_MILLISECONDS_FROM: Final = 10**11

_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")


class Reason(Enum):
    """Why a credential is renewed, in the words that OpenAI's endpoint knows."""

    EXPIRY = "proactive_expiry"
    UNAUTHORIZED = "unauthorized_recovery"


class Issuer(Protocol):
    """One provider's side of OAuth. No I/O; time is an argument, in seconds since 1970."""

    def read(self, document: bytes) -> Credential:
        """Return what a credential file holds.

        Blanked tokens read as an empty ``access`` and no ``refresh``; an API key has
        ``api_key`` set. Raises BrokenCredential for everything else.
        """

    def write(self, document: bytes, credential: Credential) -> bytes:
        """Return the document with the credential in it, in its own shape and units; the rest untouched."""

    def request(self, credential: Credential, reason: Reason) -> Mapping[str, str]:
        """Return the JSON members that the token endpoint is sent (RFC 6749, section 6)."""

    def renewed(self, credential: Credential, answer: Mapping[str, object], now: float) -> Credential:
        """Return the credential after a successful answer received at ``now``.

        What the answer leaves out is kept. An answer that brings only a new refresh
        token gives the old access token with it: it must be saved all the same.
        Raises BrokenCredential when it brings neither.
        """

    def is_permanent(self, status: int, answer: Mapping[str, object]) -> bool:
        """Tell whether a refusal means that this refresh token will never work again."""

    def login(self, path: str) -> str:
        """Return the sentence that tells the operator how to log in anew into this file."""


def token(value: object, name: str) -> Secret:
    """Return a token as it may stand in a header field, or an empty one for null and "".

    Raises:
        BrokenCredential: It is not a string of visible ASCII. A line break in it would
            end the header field; a blank around it is a slip of an editor.
    """
    if value is None or value == "":
        return Secret("")
    if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
        raise BrokenCredential(f"{name} is not a token (a string of visible ASCII without blanks)")
    return Secret(value)


def new_token(answer: Mapping[str, object], name: str) -> Secret | None:
    """Return a token of an answer, or None where there is none that can be used."""
    try:
        return token(answer.get(name), name) or None
    except BrokenCredential:
        return None


def text(value: object) -> str | None:
    """Return a string that may stand in a header field, or None."""
    return value if isinstance(value, str) and _VISIBLE.fullmatch(value) else None


def members(value: object) -> Mapping[str, object]:
    """Return a JSON object's members, or none for anything else."""
    return value if isinstance(value, dict) else {}


def seconds(value: object) -> float | None:
    """Return a number of a file as seconds since 1970, whichever of the two units it is in."""
    number = _number(value)
    if number is None:
        return None
    return number / 1000 if number >= _MILLISECONDS_FROM else number


def in_unit_of(old: object, time_s: float, *, default_ms: bool) -> int:
    """Return a time in the unit of the value that it replaces, or in the default one."""
    number = _number(old)
    in_ms = default_ms if number is None or number <= 0 else number >= _MILLISECONDS_FROM
    return int(time_s * 1000) if in_ms else int(time_s)


def lifetime_s(answer: Mapping[str, object]) -> float | None:
    """Return ``expires_in`` (RFC 6749, section 5.1) in seconds, where it is a positive number."""
    value = answer.get("expires_in")
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        value = int(value)
    number = _number(value)
    return number if number is not None and number > 0 else None


def claims(jwt: Secret | None) -> Mapping[str, object]:
    """Return a JSON Web Token's claims (RFC 7519), unverified, or none if it is not one.

    Nothing is decided by them that its sender could gain from: they come from our own file.
    """
    parts = jwt.reveal().split(".") if jwt is not None else []
    if len(parts) != 3:
        return {}
    try:
        return members(json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))))
    except (ValueError, RecursionError):
        return {}


def is_final(answer: Mapping[str, object]) -> bool:
    """Tell whether an error answer names a code that no later attempt will change."""
    error = answer.get("error")
    named = [error, answer.get("code"), members(error).get("code"), members(error).get("type")]
    return any(isinstance(code, str) and code in _PERMANENT for code in named)


def error_code(answer: Mapping[str, object]) -> str | None:
    """Return an error answer's code for the log: a short word, never a sentence that might quote a token."""
    error = answer.get("error")
    for code in (members(error).get("code"), error, answer.get("code"), members(error).get("type")):
        if isinstance(code, str) and re.fullmatch(r"[a-z_]{1,40}", code):
            return code
    return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Beyond 10^18 a float has lost seconds, and an integer may not fit one.
    return float(value) if abs(value) < 10**18 and not math.isnan(value) else None
