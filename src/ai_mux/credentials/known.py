"""What is known of one credential: memory, file and prospects, without any waiting.

``Renewer`` (refresh.py) reads, sends and saves; here it is decided what that
means for the next request, and what the operator is told about it.

Rule 1: a file that changed is somebody's decision, and is taken over.

Rule 2: a file that tells nothing (broken, unreadable, blanked) takes nothing away
from what is in memory. A deleted file does: that is the operator's revocation.

Rule 3: while a token of ours is not saved, nothing else is taken over. What the
file holds then is looked at when ours is saved (saving.py).
"""

import math
from dataclasses import replace

from ai_mux.clock import Clock
from ai_mux.credentials.credential import Credential
from ai_mux.credentials.notices import Notices, to_user, to_waiting_user
from ai_mux.credentials.oauth import Issuer
from ai_mux.credentials.saving import Unsaved
from ai_mux.credentials.standing import FRESH_S, Held, Outlook, Standing, State, hold
from ai_mux.credentials.store import Log, Stored
from ai_mux.errors import BrokenCredential, StoreError, Unavailable
from ai_mux.secret import Secret


class Known:
    """One credential as it is known now. All calls are plain and cheap; the clock is the only one asked.

    Attributes:
        interval_s: How often the background looks, which decides how early it renews.
        held: What is in memory, or None.
        outlook: What may be tried next with its refresh token.
        seen: The version of the file that was last looked at.
        document: The last document that held a credential.
        refused: The access token that the provider answered with 401, if it is still held.
        unsaved: What is so far only in memory.
    """

    def __init__(
        self,
        *,
        name: str,
        place: str,
        issuer: Issuer,
        clock: Clock,
        log: Log,
        check_interval_s: float,
        api_key: bool = False,
    ) -> None:
        self._name = name
        self._place = place
        self._issuer = issuer
        self._clock = clock
        self.interval_s = check_interval_s
        self._expects_api_key = api_key
        self._notices = Notices(log, provider=name, file=place)
        self._file = State.UNREAD  # what the file was when last looked at
        self._problem: str | None = None  # what was wrong with it
        self.held: Held | None = None
        self.outlook = Outlook()
        self.seen: object = None
        self.document: bytes | None = None
        self.refused: Secret | None = None
        self.unsaved: Unsaved | None = None

    @property
    def is_read(self) -> bool:
        """The file was looked at."""
        return self._file is not State.UNREAD

    @property
    def mend(self) -> str:
        """What the operator runs or does for another credential."""
        return self._issuer.login(self._place)

    # Asking, on the way of a request

    @property
    def is_api_key(self) -> bool:
        """What is held is an API key; while nothing is, what the store is taken to hold."""
        return self._expects_api_key if self.held is None else self.held.credential.api_key

    def fresh(self) -> Credential | None:
        """Return a credential that can be used now, or None if ``renewed`` must be awaited.

        A plain call without I/O. Raises Unavailable where waiting would not help.
        """
        held = self.held
        if held is None:
            if self._file is State.UNREAD:
                return None
            raise Unavailable(to_user(self._name, self._file, api_key=self.is_api_key))
        mono = self._clock.monotonic()
        left_s = held.left_s(self._clock.time(), mono)
        if left_s >= FRESH_S or held.new_for_s(mono) > 0:
            return held.credential
        if held.credential.refresh is not None and self.outlook.may_try(mono, alive=left_s > 0):
            return None
        if left_s > 0:
            return held.credential
        raise self._unavailable(held, mono)

    def ready(self, refused: Secret | None) -> Credential | None:
        """Return what ``fresh`` does, but nothing that was refused."""
        held = self.held
        if refused is None or held is None or held.credential.access != refused:
            return self.fresh()
        mono = self._clock.monotonic()
        new_for_s = held.new_for_s(mono)
        if new_for_s > 0:
            # So soon after a renewal it is probably not about the token, and no user may burn renewals.
            raise Unavailable(
                f"The provider {self._name} refused a login that was just renewed. Try again later.",
                retry_after_s=math.ceil(new_for_s),
            )
        if held.credential.refresh is None:
            problem = "the provider refuses it, and it cannot be renewed"
            self._notices.lasting("credential.refused", problem, self.mend)
            raise self._unavailable(held, mono)
        if not self.outlook.may_try(mono, alive=False):
            raise self._unavailable(held, mono)
        self.refused = refused
        return None

    def _unavailable(self, held: Held, mono: float) -> Unavailable:
        if held.credential.refresh is not None and not self.outlook.is_over:
            rest_s = math.ceil(self.outlook.rest_s(mono))
            return Unavailable(to_waiting_user(self._name, api_key=False), retry_after_s=max(1, rest_s))
        return Unavailable(to_user(self._name, self._state_of(held), api_key=held.credential.api_key))

    def state(self) -> Standing:
        """Return where the credential stands. A plain call."""
        held = self.held
        if held is None:
            return Standing(state=self._file, expires_at=None, renewable=False, problem=self._problem)
        return Standing(
            state=self._state_of(held),
            expires_at=None if math.isinf(held.ends_wall) else held.ends_wall,
            renewable=held.credential.refresh is not None and not self.outlook.is_over,
            problem=self._problem or self.outlook.problem,
        )

    def _state_of(self, held: Held) -> State:
        mono = self._clock.monotonic()
        if held.left_s(self._clock.time(), mono) > 0 or held.new_for_s(mono) > 0:
            return State.LIVE
        if held.credential.refresh is None:
            return State.ENDED
        return State.DEAD if self.outlook.is_over else State.EXPIRED

    def wants(self, held: Held, need_s: float | None) -> bool:
        """Tell whether less than ``need_s`` is left (None: than the background wants), or it was refused."""
        if held.credential.access == self.refused:
            return True
        wall, mono = self._clock.time(), self._clock.monotonic()
        need_s = held.early_s(self.interval_s) if need_s is None else need_s
        return held.left_s(wall, mono) < need_s and held.new_for_s(mono) <= 0

    def may_try(self, held: Held) -> bool:
        """Tell whether a renewal may be tried now. A refused access token counts as ended."""
        wall, mono = self._clock.time(), self._clock.monotonic()
        alive = held.left_s(wall, mono) > 0 and held.credential.access != self.refused
        return held.credential.refresh is not None and self.outlook.may_try(mono, alive=alive)

    def is_due(self) -> bool:
        """Tell whether the background should renew now."""
        return self.held is not None and self.wants(self.held, None) and self.may_try(self.held)

    def usable_at_last(self, refused: Secret | None) -> Credential | None:
        """Return what still works, for a request that waited in vain."""
        held = self.held
        if held is None or held.credential.access == refused:
            return None
        left_s = held.left_s(self._clock.time(), self._clock.monotonic())
        return held.credential if left_s > 0 else None

    # Reading the file

    def adopt(self, stored: Stored | None) -> None:
        """Take over what the file holds."""
        version = None if stored is None else stored.version
        is_news, self.seen = version != self.seen, version
        if self.unsaved is not None:
            return
        if stored is None:
            self.held, self.refused = None, None
            self._without(State.MISSING, "there is no credential file")
            return
        try:
            found = self._issuer.read(stored.document)
        except BrokenCredential as exc:
            self.unreadable(exc)
            return
        if found.access or found.refresh:
            self._take(found, stored, is_news=is_news)
        elif self.held is not None and self._can_serve(self.held):
            # The vendor's client blanks what it could not renew, perhaps because we just had.
            problem = "the tokens in the file were blanked; ours are written back"
            self._file, self._problem = State.BLANK, problem
            self._notices.lasting("credential.blanked", problem, "use this login with ai-mux only")
            self.unsaved = Unsaved(credential=self.held.credential, document=stored.document)
        else:
            self.held = None
            self._without(State.BLANK, "the tokens in the file were blanked")

    def _take(self, found: Credential, stored: Stored, *, is_news: bool) -> None:
        """Hold what was found, unless it is what we hold already: then we know better how long it lives."""
        held = self.held
        said = self._issuer.read(self.document).expires_at if self.document is not None else None
        same_refresh = held is not None and found.refresh == held.credential.refresh
        same_access = held is not None and found.access == held.credential.access
        self.document = stored.document
        if held is not None and same_refresh and same_access and found.expires_at == said:
            kept = held.credential
            self.held = replace(
                held, credential=replace(found, expires_at=kept.expires_at, lifetime_s=kept.lifetime_s)
            )
        else:
            wall, mono = self._clock.time(), self._clock.monotonic()
            self.held = hold(found, wall=wall, mono=mono, renewed_at=stored.renewed_at)
            kind = "api_key" if found.api_key else "login"
            self._notices.info("credential.read", file=self._place, kind=kind, expires_at=found.expires_at)
        # With the same refresh token only a verdict is reconsidered: somebody touched the file.
        if not same_refresh or (is_news and self.outlook.is_over):
            self.outlook = Outlook()
        self.in_order()

    def in_order(self) -> None:
        """Note that file and memory agree."""
        self._file, self._problem = State.LIVE, None
        if self.outlook.problem is None:
            self._notices.well()

    def unreadable(self, exc: BrokenCredential | StoreError) -> None:
        """Note that the file tells nothing."""
        self._file, self._problem = State.BROKEN, str(exc)
        problem, mend = self._split(exc)
        self._notices.lasting("credential.broken", problem, mend, in_use=self.held is not None)

    def _split(self, exc: BrokenCredential | StoreError) -> tuple[str, str]:
        """Return what is wrong, and what mends it: another credential, if nothing else is known to."""
        if isinstance(exc, StoreError):
            return exc.problem, exc.mend or self.mend
        return str(exc), self.mend

    def _without(self, state: State, problem: str) -> None:
        self._file, self._problem, self.outlook = state, problem, Outlook()
        self._notices.lasting(f"credential.{state.value}", problem, self.mend)

    def _can_serve(self, held: Held) -> bool:
        if held.credential.api_key:  # somebody logged out of that
            return False
        renewable = held.credential.refresh is not None and not self.outlook.is_over
        return renewable or held.left_s(self._clock.time(), self._clock.monotonic()) > 0

    def note_end(self) -> None:
        """Note that what cannot be renewed has ended, if it has."""
        if self.held is not None and self._state_of(self.held) is State.ENDED:
            problem = "its token has ended, and it cannot be renewed"
            self._notices.lasting("credential.ended", problem, self.mend)

    # What became of a renewal

    def publish(self, held: Held) -> None:
        """Use a renewed credential from now on."""
        self.held, self.refused, self.outlook = held, None, Outlook()
        self._notices.info("credential.renewed", expires_at=held.credential.expires_at)

    def failed(self, outlook: Outlook) -> None:
        """Note an attempt that brought no access token."""
        self.outlook = outlook
        problem, login = outlook.problem or "", self.mend
        if outlook.refused:
            self._notices.lasting("credential.dead", problem, login)
        elif outlook.is_over:
            self._notices.lasting("credential.dead", problem, f"{login}; or touch the file to try once more")
        else:
            rest_s = round(outlook.rest_s(self._clock.monotonic()))
            self._notices.passing("credential.renewal_failed", problem, next_try_s=rest_s)

    def cannot_renew(self, why: StoreError) -> None:
        """Note that nothing was sent, because it could not have been saved."""
        self.outlook = self.outlook.not_sent(self._clock.monotonic(), str(why))
        self._notices.lasting("credential.not_renewable", *self._split(why))

    def bug(self, exc: Exception) -> None:
        """Note a failure that nobody foresaw. The token may be spent."""
        problem = f"a bug of ai-mux: {type(exc).__name__}"
        self.outlook = self.outlook.unknown(self._clock.monotonic(), problem)
        self._notices.lasting("credential.bug", problem, "report it")

    def not_saved(self, exc: Exception) -> None:
        """Shout: a renewed token is only in memory."""
        self._problem = f"a token is only in memory: {exc}"
        self._notices.lasting("credential.not_saved", self._problem, "mend it before ai-mux is stopped")

    def lost(self) -> None:
        """Note the worst: the program ends with a token that could not be saved."""
        problem = "the renewed token could not be saved before the end"
        self._notices.lasting("credential.lost", problem, self.mend)
