"""What metrics and status are made of: the parts of a running server, asked by plain calls.

Every part is seen through what is asked of it, so that a test can stand in for it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ai_mux.clock import Clock
from ai_mux.credentials.standing import Standing, State
from ai_mux.usage.totals import Totals
from ai_mux.usage.windows import ProviderWindows, Shown

_NOTHING_SHOWN = Shown((), {})


class Serves(Protocol):
    """The proxy: ``proxy.server.Server``."""

    @property
    def connections(self) -> int:
        """How many clients are connected."""

    @property
    def requests(self) -> int:
        """How many of them are being served, an open WebSocket included."""

    @property
    def draining(self) -> bool:
        """It is stopping."""


class Renews(Protocol):
    """One credential: ``credentials.refresh.Renewer``."""

    @property
    def is_api_key(self) -> bool:
        """It is an API key, and no login."""

    @property
    def renewals(self) -> int:
        """How many renewals brought an access token."""

    @property
    def renewal_failures(self) -> int:
        """How many attempts brought none."""

    @property
    def mend(self) -> str:
        """What the operator runs or does for another one."""

    def state(self) -> Standing:
        """Return where it stands."""


class Limits(Protocol):
    """Who holds users to their limits: ``usage.limiter.Limiter``."""

    @property
    def running(self) -> int:
        """How many requests that models answer are running."""


class Keeps(Protocol):
    """The ledger: ``usage.ledger.Ledger``."""

    @property
    def queued(self) -> int:
        """How many rows wait to be written."""

    @property
    def written(self) -> int:
        """How many have been written since the start."""

    @property
    def dropped(self) -> int:
        """How many were lost since the start."""

    @property
    def is_failing(self) -> bool:
        """Rows cannot be written at present."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """A running server.

    Attributes:
        version: Of ai-mux.
        engine: The event loop and transports that move its bytes.
        started_at: Since when it runs, in seconds since 1970.
        clock: What the time is read from.
        server: The proxy.
        renewers: Gives each credential in use, with its provider's name.
        limiter: Who holds users to their limits.
        totals: What requests came to.
        windows: What the providers say of their own limits.
        ledger: Keeps what was used; None where nothing is kept.
    """

    version: str
    engine: str
    started_at: float
    clock: Clock
    server: Serves
    renewers: Callable[[], Iterable[tuple[str, Renews]]]
    limiter: Limits
    totals: Totals
    windows: ProviderWindows
    ledger: Keeps | None


class Credential(NamedTuple):
    """One credential, as it stands.

    Attributes:
        name: As the ledger names it: ``claude:login``.
        provider: The provider's name.
        standing: Where it stands.
        mend: What the operator runs or does for another one.
        renewals: How many brought an access token.
        renewal_failures: How many attempts brought none.
        shown: What its provider says of its limits.
    """

    name: str
    provider: str
    standing: Standing
    mend: str
    renewals: int
    renewal_failures: int
    shown: Shown

    @property
    def is_usable(self) -> bool:
        """Requests are served with it."""
        return is_usable(self.standing)


def is_usable(standing: Standing) -> bool:
    """Tell whether requests are served with a credential: at once, or after the renewal that they begin."""
    if standing.state is State.EXPIRED:
        return standing.renewable and standing.problem is None
    return standing.state is State.LIVE


def credentials(sources: Sources, now_s: float) -> Iterator[Credential]:
    """Give every credential in use, as it stands now."""
    shown = sources.windows.shown(now_s)
    for provider, renewer in sources.renewers():
        name = f"{provider}:{'api-key' if renewer.is_api_key else 'login'}"
        yield Credential(
            name,
            provider,
            renewer.state(),
            renewer.mend,
            renewer.renewals,
            renewer.renewal_failures,
            shown.get(name, _NOTHING_SHOWN),
        )
