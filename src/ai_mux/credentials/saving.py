"""What a renewed credential replaces in its file, decided without touching it.

the file holds                       what is written
nothing (deleted)                    the last document seen, with the new tokens
the refresh token that we spent      the new tokens into it
no tokens (blanked)                  the new tokens into it
our new tokens already               the same again
another refresh token                nothing: somebody logged in anew, theirs wins
another access token alone           nothing: somebody put a long-lived token there
an API key                           the new tokens, unless they would take the key's place
no JSON, or not a credential's       nothing: BrokenCredential, to be tried again
"""

from dataclasses import dataclass

from ai_mux.credentials.credential import Credential
from ai_mux.credentials.oauth import Issuer
from ai_mux.credentials.standing import Held
from ai_mux.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsaved:
    """A credential that so far is only in memory.

    Attributes:
        credential: What is to be saved.
        document: What it is written into if the file is gone.
        spent: The refresh tokens that led to it and are worth nothing any more.
        replaced: The access tokens that came with those.
        held: What requests use once it is saved; None if they use it already.
    """

    credential: Credential
    document: bytes
    spent: frozenset[Secret | None] = frozenset()
    replaced: frozenset[Secret] = frozenset()
    held: Held | None = None


def over(current: bytes | None, unsaved: Unsaved, issuer: Issuer) -> bytes | None:
    """Return the document that replaces the current one, or None where that stays.

    Raises:
        BrokenCredential: The current one cannot be read, so nothing may be written over it.
    """
    if current is None:
        return issuer.write(unsaved.document, unsaved.credential)
    there = issuer.read(current)
    if there.refresh is not None:
        is_anothers = there.refresh not in unsaved.spent | {unsaved.credential.refresh}
    else:
        known = unsaved.replaced | {unsaved.credential.access}
        is_anothers = bool(there.access) and not there.api_key and there.access not in known
    if is_anothers:
        return None
    document = issuer.write(current, unsaved.credential)
    return document if issuer.read(document).api_key is there.api_key else None
