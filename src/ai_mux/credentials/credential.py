"""What a credential is, whichever provider issued it and whatever file it came from."""

from dataclasses import dataclass, field

from ai_mux.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """An OAuth 2.0 credential (RFC 6749, section 5.1) as requests need it, or an API key.

    Attributes:
        access: What is sent to the provider. Empty in a file whose tokens were blanked.
        refresh: Exchanged for a new pair, usually accepted only once. None for an API key, and
            for a long-lived token, which is used until it ends and never renewed.
        expires_at: When ``access`` stops working, in seconds since 1970, by the
            provider's word; None where nothing says so.
        lifetime_s: How long ``access`` lives in all, where something says so.
        obtained_at: When ``access`` was received, in seconds since 1970, by the
            clock of whoever wrote the file, where something says so.
        account_id: The account that requests name, where the provider wants one.
        fedramp: The account is a FedRAMP one, which the provider wants to be told.
        id_token: Says who the account is (OpenID Connect), where the provider issues one.
        client_id: The OAuth client that the login belongs to, where the file names one.
        api_key: ``access`` is an API key: it goes where keys are taken, in the way they are sent.
        owner: Whose it is (an e-mail address), where the file says so. For the operator; never sent.
        plan: Which subscription it is, in the provider's words, where the file says so. As ``owner``.
        layout: How the file is laid out, where the provider has several layouts.
    """

    access: Secret
    refresh: Secret | None
    expires_at: float | None
    lifetime_s: float | None = None
    obtained_at: float | None = None
    account_id: str | None = None
    fedramp: bool = False
    id_token: Secret | None = None
    client_id: str | None = None
    api_key: bool = False
    owner: str | None = field(default=None, repr=False)
    plan: str | None = None
    layout: str | None = None
