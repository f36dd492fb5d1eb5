"""What a provider is, to the rest of ai-mux.

A provider is one file with one object that satisfies ``Provider``: how its
credential file reads, how its token endpoint speaks, where requests go, which paths
are served, and what its requests carry. Everything else is the same for all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ai_mux.credentials.credential import Credential
from ai_mux.credentials.oauth import Issuer
from ai_mux.wire.answers import Dialect
from ai_mux.wire.headers import Changes


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRule:
    """A path that is served by default, as the client writes it after the prefix.

    Attributes:
        path: Exact and raw. A last segment ``{id}`` stands for one segment of
            ``[A-Za-z0-9._:@-]+``.
        methods: The methods that it takes.
        upgrade: GET is taken as well, when it asks for a WebSocket.
        free: Its requests use no tokens: they are neither metered nor limited in number.
    """

    path: bytes
    methods: tuple[bytes, ...]
    upgrade: bool = False
    free: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What one kind of credential opens: where, and which of its paths.

    Attributes:
        base_url: What replaces the prefix, unless the configuration says otherwise.
        paths: What is served by default: inference, and nothing of the owner's account.
        absent: A leading segment that clients write and this backend does not have, such
            as ``/v1``; empty where there is none.
        impossible: Paths that cannot be served whatever the configuration says, without
            the absent segment; to the sentence that says why.
    """

    base_url: str
    paths: tuple[PathRule, ...]
    absent: bytes = b""
    impossible: Mapping[bytes, str] = field(default_factory=dict)

    def is_free(self, path: bytes) -> bool:
        """Tell whether a request to this path, as the client writes it after the prefix, uses no tokens."""
        return any(rule.free and rule.path == path for rule in self.paths)

    def target(self, path: bytes) -> bytes:
        """Return the path below ``base_url`` for a client's path after the prefix."""
        absent = self.absent
        if absent and (path == absent or path.startswith(absent + b"/")):
            return path[len(absent) :]
        return path


class Provider(Protocol):
    """One provider: facts, and pure functions over bytes and credentials."""

    @property
    def name(self) -> str:
        """The name in the configuration, and the prefix in the path."""

    @property
    def dialect(self) -> Dialect:
        """The shape of errors that this provider's clients parse."""

    @property
    def token_url(self) -> str:
        """The OAuth token endpoint, unless the configuration says otherwise."""

    @property
    def credential_file(self) -> str:
        """The file's name under ``{state_dir}/{name}/``."""

    @property
    def issuer(self) -> Issuer:
        """How the credential file reads and the token endpoint speaks."""

    def backend(self, *, api_key: bool) -> Backend:
        """Return what a login opens, or what an API key does."""

    def changes(self, credential: Credential) -> Changes:
        """Return what a request with this credential carries that the client's did not."""
