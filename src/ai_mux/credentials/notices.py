"""What a credential's trouble is called: to the user of a token, and to the operator.

A user learns what they can do, which is to wait or to ask; the operator learns
what is wrong and the command that mends it, once for each change, not per request.
Both hear of a login or of an API key, as it is.
"""

from typing import Final

from ai_mux.credentials.standing import State
from ai_mux.credentials.store import Log

_LOGIN: Final = {
    State.MISSING: "has no login on this server yet",
    State.BROKEN: "has a login that this server cannot read",
    State.BLANK: "is logged out on this server",
    State.DEAD: "has a login that has ended",
    State.ENDED: "has a token that has ended",
}
# Nobody logs out of a key, and it has no end of its own.
_API_KEY: Final = {
    State.MISSING: "has no API key on this server yet",
    State.BROKEN: "has an API key that this server cannot read",
}


def to_user(provider: str, state: State, *, api_key: bool) -> str:
    """Return the sentence for a client whose provider cannot be used until somebody mends it."""
    kind, troubles = ("API key", _API_KEY) if api_key else ("credential", _LOGIN)
    trouble = troubles.get(state, f"does not accept this server's {kind}")
    return f"The provider {provider} {trouble}. Retrying does not help; ask the operator of this server."


def to_waiting_user(provider: str, *, api_key: bool) -> str:
    """Return the sentence for a client whose provider will probably be back by itself."""
    if api_key:  # it is never renewed, so what takes so long is its file
        return f"The API key of the provider {provider} is being read. Try again in a moment."
    return f"The login of the provider {provider} is being renewed. Try again in a moment."


class Notices:
    """Writes a credential's log lines, each trouble once until something changes."""

    def __init__(self, log: Log, *, provider: str, file: str) -> None:
        self._log = log
        self._provider = provider
        self._file = file
        self._said: tuple[str, str] | None = None

    def info(self, event: str, **fields: object) -> None:
        """Write what happened in good order."""
        self._log.info(event, provider=self._provider, **fields)

    def well(self, **fields: object) -> None:
        """Write that the trouble is over, if there was one."""
        if self._said is not None:
            self._said = None
            self._log.info("credential.mended", provider=self._provider, file=self._file, **fields)

    def passing(self, event: str, problem: str, **fields: object) -> None:
        """Write trouble that may pass by itself, as a warning."""
        if self._is_news(event, problem):
            self._log.warning(event, provider=self._provider, file=self._file, problem=problem, **fields)

    def lasting(self, event: str, problem: str, mend: str, **fields: object) -> None:
        """Write trouble that the operator must mend, as an error."""
        if self._is_news(event, problem):
            self._log.error(
                event, provider=self._provider, file=self._file, problem=problem, mend=mend, **fields
            )

    def _is_news(self, event: str, problem: str) -> bool:
        news, self._said = (event, problem) != self._said, (event, problem)
        return news
