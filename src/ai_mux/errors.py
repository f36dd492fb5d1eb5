"""All errors that ai-mux raises on purpose.

    AiMuxError
    ├── ConfigError             the configuration is wrong; the program ends with exit code 2
    ├── CredentialError         a credential's file or renewal failed; the log tells the operator
    │   ├── BrokenCredential    the file does not hold what it should
    │   └── StoreError          the file cannot be read, locked or saved
    ├── LedgerError             what was used cannot be kept or read; the log tells the operator
    ├── NoStatus                the running server cannot be asked how it is; for whoever asks
    ├── UpstreamError           the provider could not be reached, or broke the protocol
    └── RequestError            what a client is told, with its status
        ├── BadRequest 400, Unauthorized 401, Forbidden 403, NotFound 404
        ├── MethodNotAllowed 405, RequestTimeout 408, TooLarge 413, TargetTooLong 414
        ├── UnsupportedMediaType 415, UpgradeRequired 426, LimitReached 429, HeadTooLarge 431
        └── InternalError 500, BadGateway 502, Unavailable 503, GatewayTimeout 504

A RequestError's message is written for the user of a token. What the operator
must do stands in the log, never in an answer. No message holds a secret.
"""

from typing import ClassVar, Final

# Longer, and a person should know rather than wait: as long as Claude Code waits by itself.
_WORTH_WAITING_S: Final = 60


class AiMuxError(Exception):
    """The root of every error that ai-mux raises on purpose."""


class ConfigError(AiMuxError):
    """The configuration cannot be used.

    Attributes:
        lines: One complete sentence for each problem: file, line, key, what is
            wrong and how to mend it.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class CredentialError(AiMuxError):
    """A credential cannot be read, renewed or saved. For the operator, not for a client."""


class BrokenCredential(CredentialError):
    """A credential file that does not hold a credential."""


class StoreError(CredentialError):
    """A credential file that cannot be read, locked or saved. Its text is both of what it is made of.

    Attributes:
        problem: What failed, and why.
        mend: What the operator runs or does; empty where that is not known.
    """

    def __init__(self, problem: str, mend: str = "") -> None:
        super().__init__(f"{problem}; {mend}" if mend else problem)
        self.problem = problem
        self.mend = mend


class LedgerError(AiMuxError):
    """The ledger cannot be read or written. For the operator, not for a client.

    Attributes:
        passing: It may work later: another program holds it, or the disk is full.
    """

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


class NoStatus(AiMuxError):
    """The running server cannot be asked how it is. For the operator who asks."""


class UpstreamError(AiMuxError):
    """The provider could not be reached, left too early, or broke the protocol."""


class RequestError(AiMuxError):
    """Ends a request with an answer of ai-mux's own.

    Attributes:
        status: The HTTP status code.
        anthropic_type: ``error.type`` in Anthropic's shape.
        openai_type: ``error.type`` in OpenAI's shape.
        openai_code: ``error.code`` in OpenAI's shape.
        retry: The value of ``x-should-retry``, which the official clients obey.
        retry_after_s: The value of ``retry-after`` in whole seconds, or None for no such field.
        fields: Further response header fields, such as ``Allow``.
        public_message: What the client reads.
    """

    status: ClassVar[int]
    anthropic_type: ClassVar[str] = "invalid_request_error"
    openai_type: str = "invalid_request_error"
    openai_code: ClassVar[str] = "bad_request"
    retry: bool = False
    retry_after_s: int | None = None
    fields: tuple[tuple[str, str], ...] = ()
    public_message: str = "The request cannot be served."

    def __init__(self, public_message: str | None = None) -> None:
        if public_message is not None:
            self.public_message = public_message
        super().__init__(self.public_message)


class BadRequest(RequestError):
    """The request is malformed, or asks for what cannot be."""

    status = 400
    public_message = "The request is malformed."


class Unauthorized(RequestError):
    """No valid token came with the request."""

    status = 401
    anthropic_type = "authentication_error"
    openai_code = "invalid_api_key"
    fields = (("WWW-Authenticate", "Bearer"),)
    # Not a word of "x-api-key": Claude Code 2.1.197 takes any 401 with that text for its own
    # and shows "Not logged in" instead of the message.
    public_message = "No valid ai-mux token. Send yours as a bearer token or as the API key."


class Forbidden(RequestError):
    """The token is valid, and this is not for it."""

    status = 403
    anthropic_type = "permission_error"
    openai_code = "forbidden"


class NotFound(RequestError):
    """Nothing is served at this path."""

    status = 404
    anthropic_type = "not_found_error"
    openai_code = "not_found"
    public_message = "No provider is served at this path."


class MethodNotAllowed(RequestError):
    """The path exists, with other methods."""

    status = 405

    def __init__(self, allow: str, *, hint: str = "") -> None:
        super().__init__(f"This path takes {allow}{hint}." if allow else "This method is not served.")
        self.fields = (("Allow", allow),)


class RequestTimeout(RequestError):
    """The client was too slow to send its request."""

    status = 408
    anthropic_type = "timeout_error"
    openai_type = "server_error"
    openai_code = "timeout"
    retry = True
    public_message = "The request took too long to arrive."


class TooLarge(RequestError):
    """The body is larger than ``max_body_size``."""

    status = 413
    anthropic_type = "request_too_large"
    openai_code = "request_too_large"
    public_message = "The request body is larger than this server accepts."


class TargetTooLong(RequestError):
    """The request line is too long."""

    status = 414
    public_message = "The request target is too long."


class UnsupportedMediaType(RequestError):
    """The body must be looked into for this user, and cannot be.

    RFC 9110, sections 12.5.3 and 15.5.16, asks for the codings, or types, that would have been understood.
    """

    status = 415
    public_message = (
        "The model must be read from this request's body, and its content coding cannot be undone. "
        "Send the body without one, or in gzip, br or zstd."
    )

    def __init__(
        self,
        public_message: str | None = None,
        *,
        fields: tuple[tuple[str, str], ...] = (("Accept-Encoding", "gzip, br, zstd"),),
    ) -> None:
        super().__init__(public_message)
        self.fields = fields


class UpgradeRequired(RequestError):
    """A WebSocket that cannot be relayed; clients fall back to HTTP on this status at once."""

    status = 426
    public_message = "WebSocket is not available here; use HTTP."

    def __init__(
        self, public_message: str | None = None, *, fields: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(public_message)
        self.fields = (("Upgrade", "websocket"), *fields)


class LimitReached(RequestError):
    """The user has used up what the operator allows, for now.

    Attributes:
        resets_at: When there will be some again, in seconds since 1970; None where it is not a
            window that is used up. Codex shows it, and does not try again before.
    """

    status = 429
    anthropic_type = "rate_limit_error"
    openai_type = "rate_limit_error"
    openai_code = "rate_limit_exceeded"

    def __init__(self, public_message: str, *, retry_after_s: int, resets_at: int | None = None) -> None:
        super().__init__(public_message)
        self.retry_after_s = retry_after_s
        self.resets_at = resets_at
        self.retry = retry_after_s <= _WORTH_WAITING_S
        if resets_at is not None:
            self.openai_type = "usage_limit_reached"


class HeadTooLarge(RequestError):
    """The head has too many bytes or fields."""

    status = 431
    public_message = "The request's header fields are too large."


class InternalError(RequestError):
    """A bug of ours."""

    status = 500
    anthropic_type = "api_error"
    openai_type = "server_error"
    openai_code = "internal"
    public_message = (
        "ai-mux failed to serve this request. The server's log has the details under this request id."
    )


class BadGateway(RequestError):
    """The provider could not be reached, or broke before its response head."""

    status = 502
    anthropic_type = "api_error"
    openai_type = "server_error"
    openai_code = "bad_gateway"
    retry = True
    public_message = "The provider could not be reached. Try again."


class Unavailable(RequestError):
    """The provider's credential cannot be used, or the server is stopping.

    Passing states carry ``retry_after_s`` and are worth a retry; a credential
    that is dead or missing is not, until its owner has mended it.
    """

    status = 503
    anthropic_type = "api_error"
    openai_type = "server_error"
    openai_code = "unavailable"

    def __init__(
        self, public_message: str, *, retry_after_s: int | None = None, retry: bool | None = None
    ) -> None:
        super().__init__(public_message)
        self.retry_after_s = retry_after_s
        self.retry = retry_after_s is not None if retry is None else retry


class GatewayTimeout(RequestError):
    """No response head came in time."""

    status = 504
    anthropic_type = "timeout_error"
    openai_type = "server_error"
    openai_code = "timeout"
    retry = True
    public_message = "The provider did not answer in time. Try again."
