"""Keeps one credential fresh. A credential is never lost.

Rule 1: at most one renewal is in flight, in this process and across processes.
Two would spend the same refresh token, and a provider that allows that once may
then end the login (RFC 9700, section 4.14.2).

Rule 2: after taking the lock, look again. Whoever held it may have done our work.

Rule 3: prove that saving works before the refresh token is spent; save before use.
What could not be saved all the same is used from memory, and the lock is kept
until it is saved.

Rule 4: nobody who waits owns the renewal. It is a task of its own; a client that
leaves cancels nothing.

Rule 5: a file that changed is somebody's decision, and wins. Only a token of ours
that nobody has seen yet is written over a file without tokens (``saving.py``).
"""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Protocol

from ai_mux.credentials.credential import Credential
from ai_mux.credentials.endpoint import Answered, NotSent, Unknown, retry_after_s
from ai_mux.credentials.notices import Notices, to_user, to_waiting_user
from ai_mux.credentials.oauth import Issuer, Reason, error_code
from ai_mux.credentials.saving import Unsaved, over
from ai_mux.credentials.standing import FRESH_S, Held, Outlook, Standing, State, hold
from ai_mux.credentials.store import CredentialStore, Log, Stored
from ai_mux.clock import Clock
from ai_mux.errors import BrokenCredential, StoreError, Unavailable
from ai_mux.secret import Secret

# Longer than the token endpoint may take, shorter than the patience of every client seen.
REQUEST_WAIT_S: Final = 40
FINISH_WAIT_S: Final = 60
# A mended file must be in use within 2 s.
_WATCH_S: Final = 1
_LONGEST_SAVE_PAUSE_S: Final = 60
# How many different refresh tokens one renewal looks at, when each is replaced under its hands.
_ROUNDS: Final = 3


class Endpoint(Protocol):
    """Where refresh tokens are exchanged."""

    async def post(self, body: Mapping[str, str]) -> NotSent | Unknown | Answered:
        """Send one request; never raise for what the network or the other side does."""


class Renewer:
    """One credential: in memory, in its store, and renewed in time.

    The caller runs ``run`` in a task, cancels it at the end, and then awaits
    ``finish``: a token that was just received could be lost otherwise.

    Args:
        name: The provider, for messages.
        store: Where the credential is kept.
        issuer: How it reads and what the token endpoint is told.
        endpoint: The token endpoint.
        clock: Both clocks.
        log: Told of every change of state, once.
        check_interval_s: How often the background looks whether a renewal is due.
        request_wait_s: How long a request waits for a renewal at most.
    """

    def __init__(
        self,
        *,
        name: str,
        store: CredentialStore,
        issuer: Issuer,
        endpoint: Endpoint,
        clock: Clock,
        log: Log,
        check_interval_s: float,
        request_wait_s: float = REQUEST_WAIT_S,
    ) -> None:
        self._name = name
        self._store = store
        self._issuer = issuer
        self._endpoint = endpoint
        self._clock = clock
        self._interval_s = check_interval_s
        self._wait_s = request_wait_s
        self._notices = Notices(log, provider=name, file=store.place)
        # What we know
        self._held: Held | None = None
        self._outlook = Outlook()
        self._file = State.UNREAD  # what the file was when last looked at
        self._problem: str | None = None  # what was wrong with it then
        self._seen: object | None = None  # its version then
        self._document: bytes | None = None  # the last one that held a credential
        self._refused: Secret | None = None  # the access token that the provider answered with 401
        # What we do
        self._in_process = asyncio.Lock()
        self._locked = False
        self._waiting_for_lock = False
        self._renewal: asyncio.Task[None] | None = None
        self._unsaved: Unsaved | None = None
        self._saving: asyncio.Task[None] | None = None
        self._save_failures = 0
        self._save_at = -math.inf  # by the monotonic clock

    # Asking, on the way of a request

    def fresh(self) -> Credential | None:
        """Return a credential that can be used now, or None if ``renewed`` must be awaited.

        A plain call without I/O. Raises Unavailable where waiting would not help.
        """
        held = self._held
        if held is None:
            if self._file is State.UNREAD:
                return None
            raise Unavailable(to_user(self._name, self._file))
        mono = self._clock.monotonic()
        left_s = held.left_s(self._clock.time(), mono)
        if left_s >= FRESH_S or held.new_for_s(mono) > 0:
            return held.credential
        if held.credential.refresh is not None and self._outlook.may_try(mono, alive=left_s > 0):
            return None
        if left_s > 0:
            return held.credential
        raise self._unavailable(held, mono)

    async def renewed(self, refused: Secret | None = None) -> Credential:
        """Return a credential, after a renewal if need be; everyone waits for the same one.

        Args:
            refused: The access token that the provider just answered with 401. It is never returned.

        Raises:
            Unavailable: There is none, or not within 40 s.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._wait_s
        for _ in range(_ROUNDS):
            ready = self._ready(refused)
            if ready is not None:
                return ready
            # asyncio.wait leaves the task alone, whether we are cancelled or out of time.
            await asyncio.wait({self._renewing(FRESH_S)}, timeout=max(0.0, until - loop.time()))
            if loop.time() >= until:
                break
        held = self._held
        usable = held is not None and held.credential.access != refused
        if held is not None and usable and held.left_s(self._clock.time(), self._clock.monotonic()) > 0:
            return held.credential
        raise Unavailable(to_waiting_user(self._name), retry_after_s=1)

    def _ready(self, refused: Secret | None) -> Credential | None:
        """Return what ``fresh`` does, but nothing that was refused."""
        held = self._held
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
        if held.credential.refresh is None or not self._outlook.may_try(mono, alive=False):
            raise self._unavailable(held, mono)
        self._refused = refused
        return None

    def _unavailable(self, held: Held, mono: float) -> Unavailable:
        if held.credential.refresh is not None and not self._outlook.is_over:
            rest_s = math.ceil(self._outlook.rest_s(mono))
            return Unavailable(to_waiting_user(self._name), retry_after_s=max(1, rest_s))
        return Unavailable(to_user(self._name, self._state_of(held)))

    def state(self) -> Standing:
        """Return where the credential stands. A plain call."""
        held = self._held
        if held is None:
            return Standing(state=self._file, expires_at=None, renewable=False, problem=self._problem)
        return Standing(
            state=self._state_of(held),
            expires_at=None if math.isinf(held.ends_wall) else held.ends_wall,
            renewable=held.credential.refresh is not None and not self._outlook.is_over,
            problem=self._problem or self._outlook.problem,
        )

    def _state_of(self, held: Held) -> State:
        mono = self._clock.monotonic()
        if held.left_s(self._clock.time(), mono) > 0 or held.new_for_s(mono) > 0:
            return State.LIVE
        if held.credential.refresh is None:
            return State.ENDED
        return State.DEAD if self._outlook.is_over else State.EXPIRED

    # In the background

    async def run(self) -> None:
        """Watch the file and renew in time, until cancelled. Cancelling it does not cancel a renewal."""
        check_at = -math.inf
        while True:
            changed = await self._look_if_changed()
            mono = self._clock.monotonic()
            if self._unsaved is not None and (changed or mono >= self._save_at):
                self._save_again()
            if changed or mono >= check_at or 0 < self._outlook.failures and mono >= self._outlook.rest_until:
                if self._is_due():
                    self._renewing(None)
                check_at = mono + self._interval_s
            await asyncio.sleep(_WATCH_S)

    async def check(self) -> None:
        """Do one step of ``run`` and wait for what it began, at most as long as a request would."""
        await self._look_if_changed()
        begun: set[asyncio.Task[None]] = set()
        if self._unsaved is not None:
            begun.add(self._save_again())
        if self._is_due():
            begun.add(self._renewing(None))
        if begun:
            await asyncio.wait(begun, timeout=self._wait_s)

    async def finish(self) -> None:
        """Wait at most 60 s for a renewal in flight and for what is not yet saved; then let go of the lock.

        Nothing is begun that is not yet: a renewal that still waits for its turn is given up.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + FINISH_WAIT_S
        if self._renewal is not None and not self._renewal.done():
            if self._waiting_for_lock:
                self._renewal.cancel()
            await asyncio.wait({self._renewal}, timeout=FINISH_WAIT_S)
        while self._unsaved is not None and loop.time() < until:
            await asyncio.wait({self._save_again()}, timeout=until - loop.time())
            if self._unsaved is not None:
                await asyncio.sleep(min(_WATCH_S, max(0.0, until - loop.time())))
        if self._unsaved is not None:
            self._notices.lasting(
                "credential.lost",
                "the renewed token could not be saved before the end",
                self._issuer.login(self._store.place),
            )
        await self._unlock(always=True)

    def _is_due(self) -> bool:
        held = self._held
        if held is None or held.credential.refresh is None:
            return False
        mono = self._clock.monotonic()
        left_s = held.left_s(self._clock.time(), mono)
        due = left_s < held.early_s(self._interval_s) and held.new_for_s(mono) <= 0
        return due and self._outlook.may_try(mono, alive=left_s > 0)

    # Reading the file

    async def _look_if_changed(self) -> bool:
        """Read the file again if it is another than the one last seen; tell whether it was."""
        try:
            version = await self._store.version()
            if version == self._seen and self._file is not State.UNREAD:
                return False
            self._adopt(await self._store.load())
        except StoreError as exc:
            self._unreadable(exc)
            return False
        return True

    def _adopt(self, stored: Stored | None) -> None:
        """Take over what the file holds."""
        self._seen = None if stored is None else stored.version
        if self._unsaved is not None:
            return  # what is in the file now is looked at when ours is saved
        if stored is None:
            # Somebody deleted it: that ends the use of what we remember, too.
            self._held, self._refused = None, None
            self._missing_tokens(State.MISSING, "there is no credential file")
            return
        try:
            found = self._issuer.read(stored.document)
        except BrokenCredential as exc:
            self._unreadable(exc)
            return
        if found.api_key:
            self._held = None
            self._missing_tokens(State.API_KEY, "the file is a login by API key (auth_mode: apikey)")
        elif found.access or found.refresh:
            self._document = stored.document
            self._take(found, stored.renewed_at)
        elif self._held is not None and self._can_serve(self._held):
            # The vendor's client blanks what it could not renew, perhaps because we just had.
            self._file, self._problem = State.BLANK, "the tokens in the file were blanked; ours are written back"
            self._notices.lasting("credential.blanked", self._problem, "use this login with ai-mux only")
            self._unsaved = Unsaved(spent=None, credential=self._held.credential, document=stored.document)
        else:
            self._held = None
            self._missing_tokens(State.BLANK, "the tokens in the file were blanked")

    def _take(self, found: Credential, renewed_at: float | None) -> None:
        """Hold what was found, unless it is what we hold already: then we know better how long it lives."""
        held = self._held
        same_refresh = held is not None and found.refresh == held.credential.refresh
        if held is not None and same_refresh and found.access == held.credential.access:
            self._held = replace(held, credential=found)
        else:
            wall, mono = self._clock.time(), self._clock.monotonic()
            self._held = hold(found, wall=wall, mono=mono, renewed_at=renewed_at)
            self._notices.info("credential.read", file=self._store.place, expires_at=found.expires_at)
        # With the same refresh token only a verdict is reconsidered: the operator touched the file.
        if not same_refresh or self._outlook.is_over:
            self._outlook = Outlook()
        self._file, self._problem = State.LIVE, None
        if self._outlook.problem is None:
            self._notices.well()

    def _missing_tokens(self, state: State, problem: str) -> None:
        self._file, self._problem = state, problem
        self._outlook = Outlook()
        self._notices.lasting(f"credential.{state.value}", problem, self._issuer.login(self._store.place))

    def _unreadable(self, exc: BrokenCredential | StoreError) -> None:
        """Note that the file tells nothing. What is in memory goes on, and is never written over it."""
        self._file, self._problem = State.BROKEN, str(exc)
        mend = self._issuer.login(self._store.place) if isinstance(exc, BrokenCredential) else str(exc)
        self._notices.lasting("credential.broken", str(exc), mend, in_use=self._held is not None)

    def _can_serve(self, held: Held) -> bool:
        renewable = held.credential.refresh is not None and not self._outlook.is_over
        return renewable or held.left_s(self._clock.time(), self._clock.monotonic()) > 0

    # Renewing

    def _renewing(self, need_s: float | None) -> asyncio.Task[None]:
        """Return the renewal in flight, or begin one for less than ``need_s`` left (None: less than is due)."""
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew(need_s), name=f"renew {self._name}")
        return self._renewal

    async def _renew(self, need_s: float | None) -> None:
        try:
            if self._file is State.UNREAD:
                await self._look_if_changed()
                if self._held is None or not self._wants(self._held, need_s):
                    return
            async with self._in_process:
                await self._lock()
                try:
                    for _ in range(_ROUNDS):
                        if not await self._renew_locked(need_s):
                            break
                finally:
                    await self._unlock()
        except StoreError as exc:
            self._outlook = self._outlook.not_sent(self._clock.monotonic(), str(exc))
            self._notices.lasting("credential.not_renewable", str(exc), str(exc))
        except Exception as exc:  # noqa: BLE001 - whatever it is, requests must get an answer and a pause
            problem = f"a bug of ai-mux: {type(exc).__name__}"
            self._outlook = self._outlook.unknown(self._clock.monotonic(), problem)
            self._notices.lasting("credential.bug", problem, "report it")

    async def _renew_locked(self, need_s: float | None) -> bool:
        """Renew if it is still needed; return whether to look once more, because a new login appeared."""
        await self._look_if_changed()
        held = self._held
        if held is None or held.credential.refresh is None or not self._wants(held, need_s):
            return False
        wall, mono = self._clock.time(), self._clock.monotonic()
        alive = held.left_s(wall, mono) > 0 and held.credential.access != self._refused
        if not self._outlook.may_try(mono, alive=alive):
            return False
        if self._unsaved is not None:
            try:
                await self._save()
            except BrokenCredential:
                pass  # nothing on disk is worse off by one more renewal, which memory needs
            else:
                return True
        await self._store.prepare()
        return await self._spend(held, held.credential.refresh)

    def _wants(self, held: Held, need_s: float | None) -> bool:
        if held.credential.access == self._refused:
            return True
        wall, mono = self._clock.time(), self._clock.monotonic()
        need_s = held.early_s(self._interval_s) if need_s is None else need_s
        return held.left_s(wall, mono) < need_s and held.new_for_s(mono) <= 0

    async def _spend(self, held: Held, refresh: Secret) -> bool:
        """Exchange the refresh token and keep what comes of it."""
        reason = Reason.UNAUTHORIZED if held.credential.access == self._refused else Reason.EXPIRY
        sent_mono = self._clock.monotonic()
        outcome = await self._endpoint.post(self._issuer.request(held.credential, reason))
        wall, mono = self._clock.time(), self._clock.monotonic()
        match outcome:
            case NotSent(reason=why):
                self._failed(self._outlook.not_sent(mono, f"the token endpoint could not be reached: {why}"))
            case Unknown(reason=why):
                self._failed(self._outlook.unknown(sent_mono, f"no answer from the token endpoint: {why}"))
            case Answered(status=status) if status >= 500:
                self._failed(self._outlook.unknown(sent_mono, f"the token endpoint answered {status}"))
            case Answered(status=429):
                asked_s = retry_after_s(outcome.retry_after, wall)
                self._failed(self._outlook.asked_to_wait(mono, asked_s, "the token endpoint answered 429"))
            case Answered(status=status, members=members) if 200 <= status < 300:
                return await self._received(held, refresh, members, wall, mono)
            case Answered(status=status, members=members):
                said = f"the token endpoint answered {status} {error_code(members) or ''}".rstrip()
                if not self._issuer.is_permanent(status, members):
                    self._failed(self._outlook.useless(mono, self._interval_s, said))
                else:
                    return await self._was_refused(refresh, said)
        return False

    def _failed(self, outlook: Outlook) -> None:
        self._outlook = outlook
        problem = outlook.problem or ""
        if outlook.is_over:
            mend = f"{self._issuer.login(self._store.place)}; or touch the file to try once more"
            self._notices.lasting("credential.dead", problem, mend)
        else:
            rest_s = round(outlook.rest_s(self._clock.monotonic()))
            self._notices.passing("credential.renewal_failed", problem, next_try_s=rest_s)

    async def _was_refused(self, refresh: Secret, said: str) -> bool:
        """Look at the store once more: it may hold the successor of what was refused."""
        await self._look_if_changed()
        if self._held is not None and self._held.credential.refresh != refresh:
            return True
        self._outlook = self._outlook.final(said)
        self._notices.lasting("credential.dead", said, self._issuer.login(self._store.place))
        return False

    async def _received(
        self, held: Held, refresh: Secret, answer: Mapping[str, object], wall: float, mono: float
    ) -> bool:
        try:
            new = self._issuer.renewed(held.credential, answer, wall)
        except BrokenCredential:
            problem = "the token endpoint answered without a token"
            self._failed(self._outlook.useless(mono, self._interval_s, problem))
            return False
        if new.access == held.credential.access:
            later = replace(held, credential=new)
        else:
            later = hold(new, wall=wall, mono=mono, renewed_at=wall)
        self._unsaved = Unsaved(spent=refresh, credential=new, document=self._document or b"{}", held=later)
        try:
            await self._save()
        except (StoreError, BrokenCredential) as exc:
            self._publish(later)
            self._not_saved(exc)
        if new.access == held.credential.access and self._held is later:
            # A new refresh token alone: kept, but whoever waits still has no access token.
            problem = "the token endpoint answered without an access token"
            self._failed(self._outlook.useless(mono, self._interval_s, problem))
        return False

    def _publish(self, held: Held) -> None:
        self._held, self._refused, self._outlook = held, None, Outlook()
        self._notices.info("credential.renewed", expires_at=held.credential.expires_at)

    # Saving

    async def _save(self) -> None:
        """Save what is not yet saved, unless somebody logged in meanwhile; then use what the file holds."""
        unsaved = self._unsaved
        if unsaved is None:
            return
        stored = await self._store.save(lambda current: over(current, unsaved, self._issuer))
        self._unsaved, self._save_failures = None, 0
        there = self._issuer.read(stored.document)
        self._seen, self._document, self._file, self._problem = stored.version, stored.document, State.LIVE, None
        if there.access != unsaved.credential.access:
            self._adopt(stored)
        elif unsaved.held is not None and self._held is not unsaved.held:
            self._publish(unsaved.held)
        if self._outlook.problem is None:
            self._notices.well()

    def _not_saved(self, exc: Exception) -> None:
        pause_s = min(2.0**self._save_failures, _LONGEST_SAVE_PAUSE_S)
        self._save_failures = min(self._save_failures + 1, 10)
        self._save_at = self._clock.monotonic() + pause_s
        self._problem = f"the renewed token is only in memory: {exc}"
        self._notices.lasting("credential.not_saved", self._problem, "do not stop ai-mux before this is mended")

    def _save_again(self) -> asyncio.Task[None]:
        """Return the attempt to save that is under way, or begin one."""
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(self._try_to_save(), name=f"save {self._name}")
        return self._saving

    async def _try_to_save(self) -> None:
        async with self._in_process:
            try:
                await self._lock()
                await self._save()
            except (StoreError, BrokenCredential) as exc:
                self._not_saved(exc)
            finally:
                await self._unlock()

    async def _lock(self) -> None:
        """Take the store's lock, unless an unsaved token still holds it."""
        if not self._locked:
            self._waiting_for_lock = True
            try:
                await self._store.lock()
            finally:
                self._waiting_for_lock = False
            self._locked = True

    async def _unlock(self, *, always: bool = False) -> None:
        if self._locked and (always or self._unsaved is None):
            self._locked = False
            await self._store.unlock()
